"""The results of a sweep as a DataFrame of pandas."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exca_like.errors import NotCachedError
from exca_like.infra.readers import holder_of
from exca_like.infra.sending import KEY
from exca_like.infra.task import TaskInfra
from exca_like.overlapping import overlapped
from exca_like.sweep_status import SweepRow

if TYPE_CHECKING:
    import pandas as pd

_SCALARS = (str, int, float, bool, complex, type(None))
_NO_SCALAR: Any = object()


def frame_of(rows: Sequence[SweepRow], infras: Sequence[TaskInfra]) -> "pd.DataFrame":
    """See `exca_like.sweeps.Sweep.to_df`.

    Raises
    ------
    ImportError
        Pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        msg = "to_df() makes a DataFrame of pandas, which is not installed: pip install pandas, or use results() and status()"
        raise ImportError(msg) from error
    swept = list(rows[0].values) if rows else []
    blocks = list(overlapped(lambda pair: _block(*pair), list(zip(rows, infras, strict=True))))
    # columns of one kind stand together, whichever config had them first
    config, result, about = ({key: None for block in blocks for key in block[part]} for part in range(3))
    taken = dict.fromkeys([*swept, *config])
    status = "sweep.status" if "status" in taken else "status"
    taken[status] = None
    place = {("config", key): key for key in config}
    for part, columns in (("result", result), ("provenance", about)):
        for key in columns:
            name = f"{part}.{key}" if key in taken else key
            taken[name] = None
            place[part, key] = name
    records = []
    for row, block in zip(rows, blocks, strict=True):
        record = dict.fromkeys(taken)
        for part, values in zip(("config", "result", "provenance"), block, strict=True):
            record.update({place[part, key]: value for key, value in values.items()})
        records.append(record | dict(row.values) | {status: row.status})
    return pd.DataFrame.from_records(records, columns=list(taken))


def _block(row: SweepRow, infra: TaskInfra) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Values of the config, of the result, and of the provenance."""
    exported = infra.config(uid=True, exclude_defaults=True).flat()
    config = {key: value for key, value in exported.items() if not _is_swept(key, row.values)}
    result: dict[str, Any] = {}
    holder = holder_of(infra) if row.status == "completed" else None
    if holder is not None and (outcome := holder._store().load(KEY)) is not None and outcome.failure is None:
        result = _columns_of(outcome.value)
    about: dict[str, Any] = {"duration": None, "host": None, "time": None}
    if row.status in ("completed", "failed"):
        try:
            found = infra.provenance()
        except NotCachedError:  # a job that left nothing
            return config, result, about
        about = {"duration": found.duration, "host": found.host, "time": found.time}
        about |= {f"extra.{name}": value for name, value in found.extra.items()}
    return config, result, about


def _is_swept(key: str, values: Mapping[str, Any]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in values)


def _columns_of(value: Any) -> dict[str, Any]:
    """A scalar, or the scalars of a dictionary; nothing of what has no place in a cell."""
    if isinstance(value, Mapping):
        cells = {str(key): _scalar(each) for key, each in value.items()}
        return {key: each for key, each in cells.items() if each is not _NO_SCALAR}
    cell = _scalar(value)
    return {} if cell is _NO_SCALAR else {"result": cell}


def _scalar(value: Any) -> Any:
    if isinstance(value, _SCALARS):
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of numpy, or of torch
        return value.item()
    return _NO_SCALAR
