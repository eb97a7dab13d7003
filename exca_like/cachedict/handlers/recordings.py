"""MNE recordings, in FIF and in BrainVision files."""

import contextlib
import importlib.util
import os
import tempfile
import warnings
from typing import Any

import mne
import numpy as np

from exca_like import files
from exca_like.errors import ConfigTypeError

_SPLIT = "2GB"  # FIF files can't be larger; mne goes on in another one
_SINGLE = 1e-6  # relative precision that BrainVision files must keep; half of what their numbers have


class MneRawFif:
    """An MNE recording (any `mne.io.BaseRaw`) in a FIF file, which keeps everything about it.

    Samples are stored in double precision. What is loaded is a `mne.io.Raw`, whatever class of recording it was; its
    samples are in memory if they were when it was stored, else they are read from the file of the cache when they are asked
    for. Recordings above 2 GB take several files.

    Raises
    ------
    ConfigTypeError
        It is no recording, or its samples are complex, which FIF files don't keep exactly.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        _check(value, "fif")
        filename: str = ctx.key_path(suffix="-raw.fif")
        path = os.path.join(ctx.folder, filename)
        try:
            written = value.save(path, fmt="double", split_size=_SPLIT, verbose="error")
        except BaseException:
            _remove_parts(path)
            raise
        info: dict[str, Any] = {"filename": filename, "preload": bool(value.preload)}
        folder = os.path.dirname(filename)
        others = [f"{folder}/{os.path.basename(part)}" for part in written[1:]]
        for name in others:  # the first one names them, so they can't have names of the context's
            ctx.adopt(name)
        return info | {"parts": others} if others else info

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str, preload: bool = False, **_: Any) -> Any:
        # who could store a recording with active shielding had allowed it before
        return mne.io.read_raw_fif(ctx.path(filename), allow_maxshield="yes", preload=preload, verbose="error")


def _remove_parts(path: str) -> None:
    """Remove what an interrupted save left of all files but the first, which is the context's."""
    folder, start = os.path.split(path.removesuffix(".fif"))
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.startswith(f"{start}-") and name.endswith(".fif"):
                files.remove(os.path.join(folder, name))


class MneRawBrainVision:
    """An MNE recording in BrainVision files: header, markers and samples, which EEG programs read. Needs pybv.

    Samples come back in single precision. Channel names and types, bad channels, annotations, sampling rate and the date
    of the measurement are kept; positions, projections and the number of the first sample are not: `MneRawFif` keeps them.
    What is loaded is a recording of class ``RawBrainVision``, with its samples in memory if they were when it was stored.
    The files are read back when they are stored.

    Raises
    ------
    ConfigTypeError
        It is no recording, or one that BrainVision files don't keep, for instance because its samples are complex.
    ImportError
        pybv is missing.
    """

    @classmethod
    def __dump_info__(cls, ctx: Any, value: Any) -> dict[str, Any]:
        _check(value, "BrainVision")
        if importlib.util.find_spec("pybv") is None:
            msg = "BrainVision files need pybv: pip install pybv, or use cache_type='MneRawFif'"
            raise ImportError(msg, name="pybv")
        names = [ctx.key_path(suffix=suffix) for suffix in (".vhdr", ".vmrk", ".eeg")]
        paths = [os.path.join(ctx.folder, name) for name in names]
        _export(value, paths)
        info = {
            "types": value.get_channel_types(),
            "bads": list(value.info["bads"]),
            "preload": bool(value.preload),
            "annotations": _annotations(value),
        }
        _check_export(value, _read(paths[0], **info))
        return {"filename": names[0], **info, "annotations": ctx.dump(info["annotations"])}

    @classmethod
    def __load_from_info__(cls, ctx: Any, filename: str, **info: Any) -> Any:
        path = ctx.path(filename)
        if "types" in info:
            info["annotations"] = ctx.load(info["annotations"])
            return _read(path, **info)
        if os.path.isdir(path):  # exca stores a folder with the three files
            (header,) = (name for name in os.listdir(path) if name.endswith(".vhdr"))
            path = os.path.join(path, header)
        return mne.io.read_raw_brainvision(path, verbose="error")


def _check(value: Any, file_kind: str) -> None:
    kind = type(value)
    if not isinstance(value, mne.io.BaseRaw):
        msg = f"this handler stores recordings (mne.io.BaseRaw), not {kind.__module__}.{kind.__qualname__}"
        raise ConfigTypeError(msg)
    if np.iscomplexobj(value.get_data(start=0, stop=1)):
        msg = f"{file_kind} files don't keep complex samples: store raw.get_data(), which is an array"
        raise ConfigTypeError(msg)


def _export(raw: Any, paths: list[str]) -> None:
    """Write header, markers and samples under names of the store's, and have them name each other."""
    header, markers, samples = paths
    with tempfile.TemporaryDirectory(dir=os.path.dirname(header)) as folder:
        with warnings.catch_warnings():
            # units that BrainVision does not know: the types of the channels, stored beside it, tell them
            warnings.filterwarnings("ignore", "Encountered unsupported non-voltage units", UserWarning)
            mne.export.export_raw(os.path.join(folder, "raw.vhdr"), raw, fmt="brainvision", verbose="error")
        os.replace(os.path.join(folder, "raw.eeg"), samples)
        for name, target in (("raw.vhdr", header), ("raw.vmrk", markers)):
            with open(os.path.join(folder, name), encoding="utf-8", newline="") as stream:
                text = stream.read()
            for key, old, new in (("DataFile", "raw.eeg", samples), ("MarkerFile", "raw.vmrk", markers)):
                text = text.replace(f"{key}={old}", f"{key}={os.path.relpath(new, os.path.dirname(target))}")
            with open(target, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)


def _annotations(raw: Any) -> dict[str, Any]:
    """Annotations as they are, times in seconds from the first sample; markers are less than that."""
    marks = raw.annotations
    channels = [list(names) for names in marks.ch_names]
    return {
        "onset": (marks.onset - raw.first_time).tolist(),
        "duration": marks.duration.tolist(),
        "description": [str(text) for text in marks.description],
        "ch_names": channels if any(channels) else None,
    }


def _read(path: str, types: list[str], bads: list[str], preload: bool, annotations: dict[str, Any]) -> Any:
    raw = mne.io.read_raw_brainvision(path, preload=preload, verbose="error")
    read = zip(raw.ch_names, raw.get_channel_types(), types, strict=True)
    raw.set_channel_types({name: kind for name, found, kind in read if found != kind}, on_unit_change="ignore", verbose="error")
    raw.info["bads"] = bads
    return raw.set_annotations(mne.Annotations(**annotations, orig_time=raw.info["meas_date"]), verbose="error")


def _check_export(raw: Any, again: Any) -> None:
    samples, found = raw.get_data(), again.get_data()
    same = (
        raw.ch_names == again.ch_names
        and np.isclose(raw.info["sfreq"], again.info["sfreq"], rtol=_SINGLE)
        and samples.shape == found.shape
        and np.allclose(samples, found, rtol=_SINGLE, atol=0, equal_nan=True)
    )
    if not same:
        msg = "BrainVision files don't keep the samples, names or sampling rate of this recording: use cache_type='MneRawFif'"
        raise ConfigTypeError(msg)


HANDLERS: dict[str, type] = {"MneRawFif": MneRawFif, "MneRawBrainVision": MneRawBrainVision}
TYPE_DEFAULTS: dict[type, type] = {mne.io.BaseRaw: MneRawFif}
