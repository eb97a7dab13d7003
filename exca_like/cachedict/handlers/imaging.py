"""Nibabel images, in NIfTI files."""

import os
from typing import Any

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError

from exca_like.errors import ConfigTypeError

_TYPES = (nibabel.Nifti1Image, nibabel.Nifti2Image)


class NibabelNifti:
    """A `nibabel.Nifti1Image` or `nibabel.Nifti2Image`, in a compressed ``.nii.gz`` file.

    Voxels keep their values and dtype: they are never rescaled to fit the dtype of the header, which is kept beside them.
    The affine keeps its double precision, of which the file has only a part. An image whose data are in memory comes back
    with its data in memory; one that reads its data from a file when they are asked for does so again, from the file of the
    cache.

    Raises
    ------
    ConfigTypeError
        The image is of another class, or its data have a dtype that NIfTI and conversion can't keep.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        kind = type(value)
        if kind not in _TYPES:
            msg = (
                f"NibabelNifti stores Nifti1Image and Nifti2Image, not {kind.__module__}.{kind.__qualname__}: "
                "convert with nibabel.Nifti1Image.from_image(image)"
            )
            raise ConfigTypeError(msg)
        content, scaling = _content(value)
        header = value.header.copy()
        stored = _storable(content, header)
        header.set_data_dtype(stored.dtype)
        image = kind(stored, value.affine, header)
        image.header.set_slope_inter(*scaling)
        filename: str = ctx.key_path(suffix=".nii.gz")
        image.to_filename(os.path.join(ctx.folder, filename))
        info: dict[str, Any] = {
            "filename": filename,
            "affine": None if value.affine is None else np.asarray(value.affine, float).tolist(),
            "header_dtype": _text_of(value.get_data_dtype()),
        }
        if not getattr(value.dataobj, "is_proxy", False):
            info["dtype"] = _text_of(content.dtype)
        return info | {"extra": ctx.dump(dict(value.extra))} if value.extra else info

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str, **info: Any) -> Any:
        image: Any = nibabel.load(ctx.path(filename))
        if "affine" not in info:  # exca stores the file only
            return image
        content = image.dataobj
        if "dtype" in info:
            content = np.asanyarray(content)
            if info["dtype"] is not None:
                content = content.astype(info["dtype"], copy=False)
        affine = None if info["affine"] is None else np.array(info["affine"])
        extra = ctx.load(info["extra"]) if "extra" in info else None
        again = type(image)(
            content, affine, image.header, extra=extra, file_map=image.file_map if "dtype" not in info else None
        )
        if info["header_dtype"] is not None:
            again.set_data_dtype(info["header_dtype"])
        return again


def _content(image: Any) -> tuple[Any, tuple[float | None, float | None]]:
    """The data to write, and the scaling with which they become the image's."""
    source = image.dataobj
    if isinstance(image.dataobj, ArrayProxy):
        slope, inter = source.slope, source.inter
        field = image.header["scl_slope"].dtype
        if (slope, inter) != (1, 0) and (field.type(slope), field.type(inter)) == (slope, inter):
            # the integers of the file, which its scaling turns into the same numbers again
            return source.get_unscaled(), (slope, inter)
    return np.asanyarray(source), (None, None)


def _storable(content: Any, header: Any) -> Any:
    """The data in a dtype that NIfTI has, and that keeps every value."""
    try:
        header.copy().set_data_dtype(content.dtype)
    except HeaderDataError:
        wider = {"b": np.uint8, "f": np.float32}.get(content.dtype.kind)
        if wider is None or not np.can_cast(content.dtype, wider):
            msg = f"NIfTI files have no form for voxels of dtype {content.dtype}: convert the data to another dtype"
            raise ConfigTypeError(msg) from None
        return content.astype(wider)
    return content


def _text_of(dtype: Any) -> str | None:
    """A dtype's text; None for colours, of which the header knows all."""
    dtype = np.dtype(dtype)
    return None if dtype.names is not None else dtype.str


HANDLERS: dict[str, type] = {"NibabelNifti": NibabelNifti}
TYPE_DEFAULTS: dict[type, type] = dict.fromkeys(_TYPES, NibabelNifti)
