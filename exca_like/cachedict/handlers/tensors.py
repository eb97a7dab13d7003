"""Torch tensors: raw bytes for plain ones, torch's own file format for the others.

Nothing here unpickles objects: files are read with ``weights_only=True``.
"""

import ctypes
import os
import warnings
from typing import Any

import numpy as np
import torch

from exca_like.errors import ConfigTypeError, CorruptEntryError


class TorchTensor:
    """Keeps a `torch.Tensor` or a `torch.nn.Parameter`: type, dtype, shape, ``requires_grad`` and every bit.

    Dense tensors go as raw bytes, C-contiguous, into the packed file of their writer; those with ``requires_grad``,
    parameters, sparse, quantized and nested tensors go into a ``.pt`` file each. What is loaded owns its memory and is
    on the CPU, wherever the tensor was; strides, the autograd graph and ``.grad`` are not kept.

    Raises
    ------
    ConfigTypeError
        The tensor has no data (device ``meta``), or is of a subclass that would come back as a plain tensor.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        _check_type(value)
        if not _is_plain(value):
            return _dump_file(ctx, value)
        # neg and conj are lazy: without resolving them the bytes would be those of another tensor
        dense = value.cpu().resolve_conj().resolve_neg().contiguous()
        info: dict[str, Any] = ctx.append(".data", memoryview(_bytes_of(dense)))
        return info | {"shape": list(dense.shape), "dtype": _dtype_name(dense.dtype)}

    @classmethod
    def __load_from_info__(
        cls,
        ctx: Any,
        filename: str,
        shape: list[int] | None = None,
        dtype: str | None = None,
        *,
        offset: int = 0,
        length: int | None = None,
        requires_grad: bool = False,
    ) -> Any:
        if shape is None or dtype is None:
            tensor = torch.load(ctx.path(filename), map_location="cpu", weights_only=True)
            # Parameters bring the flag in their file; sparse and nested tensors lose it there
            return tensor.requires_grad_() if requires_grad else tensor
        dense = torch.empty(shape, dtype=getattr(torch, dtype), device="cpu")
        expected = dense.numel() * dense.itemsize
        if length is not None and length != expected:
            msg = f"a tensor of shape {tuple(shape)} and dtype {dtype} takes {expected} bytes, not {length}"
            raise CorruptEntryError(msg)
        if expected:
            # a tensor that ever shared its memory with numpy could not be resized any more
            source = np.frombuffer(ctx.view(filename, offset, expected), np.uint8)
            ctypes.memmove(dense.data_ptr(), source.ctypes.data, expected)
        return dense


def _is_plain(value: Any) -> bool:
    """Whether shape, dtype and bytes say all there is to say of a tensor."""
    return (
        type(value) is torch.Tensor
        and value.layout is torch.strided
        and not (value.requires_grad or value.is_quantized or value.is_nested)
    )


def _check_type(value: Any) -> None:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not isinstance(value, torch.Tensor):
        msg = f"TorchTensor keeps torch tensors, not values of type {name}"
        raise ConfigTypeError(msg)
    if value.device.type == "meta":
        msg = "a tensor on the device 'meta' has no data that could be stored: compute it, or store its shape and dtype"
        raise ConfigTypeError(msg)
    if kind.__module__.partition(".")[0] != "torch":
        msg = (
            f"a tensor of type {name} would come back as a plain torch.Tensor. Store value.as_subclass(torch.Tensor), "
            f"or register a handler for {kind.__qualname__}"
        )
        raise ConfigTypeError(msg)


def _dump_file(ctx: Any, value: Any) -> dict[str, Any]:
    filename: str = ctx.key_path(suffix=".pt")
    path = os.path.join(ctx.folder, filename)
    again: Any = None
    cause: Exception | None = None
    try:
        # cloned, because torch.save writes the whole storage of which the tensor may be a small view
        content = value.detach().cpu().resolve_conj().resolve_neg().clone()
        if type(value) is torch.nn.Parameter:
            content = torch.nn.Parameter(content, requires_grad=value.requires_grad)
        with warnings.catch_warnings():
            # torch warns of a deprecated class that its own code uses for quantized tensors
            warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
            torch.save(content, path)
            again = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        cause = error
    if type(again) is not type(value) or again.layout is not value.layout:
        kind = type(value)
        msg = (
            f"a tensor of type {kind.__module__}.{kind.__qualname__} and layout {value.layout} does not survive "
            "torch.save and torch.load(weights_only=True). Store it in another layout, for instance value.to_dense()"
        )
        raise ConfigTypeError(msg) from cause
    info: dict[str, Any] = {"filename": filename}
    return info | {"requires_grad": True} if value.requires_grad else info


def _bytes_of(dense: torch.Tensor) -> Any:
    """The memory of a contiguous tensor as a numpy array of bytes, not a copy."""
    return dense.detach().reshape(-1).view(torch.uint8).numpy()


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


HANDLERS: dict[str, type] = {"TorchTensor": TorchTensor}
TYPE_DEFAULTS: dict[type, type] = {torch.Tensor: TorchTensor, torch.nn.Parameter: TorchTensor}
