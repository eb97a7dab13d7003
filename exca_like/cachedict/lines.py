"""Lines of journals: JSON objects that carry a checksum, and begin with their key.

The checksum makes the CRC-32 of the whole line, without its end, zero: ``"#sum"`` comes last, and its eight characters are
chosen so. A reader needs no more than ``zlib.crc32(line) == 0``. CRC-32 is linear over bits: flipping one of the 32 free
bits of those characters (4 of each, such that their effects are independent and all characters printable) changes the CRC
of any line in the same way, so the bits that undo a given CRC are looked up.
"""

import re
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import orjson

_dumps = orjson.dumps
KEY_HEAD = b'{"#key":"'
REPLACING_HEAD = b'{"#replaces":'
_KEY = re.compile(rb'\{(?:"#replaces":\[[^{}]*\],)?"#key":("(?:[^"\\]|\\.)*")')
_BEFORE, _AFTER = b',"#sum":"', b'"}\n'
_FREE = _BEFORE + b"@@@@@@@@" + _AFTER[:-1]
_FIRST = len(_BEFORE)
_LETTERS = int.from_bytes(b"@@@@@@@@", "big")
_FREE_BITS = (1, 2, 8, 32)  # of each character


def seal(record: dict[str, Any]) -> bytes:
    """The line of a record, whose first member is ``#key``, or ``#replaces`` before it."""
    try:
        body = _dumps(record)[:-1]
    except TypeError:
        if "#meta" not in record:
            raise
        body = _dumps(record | {"#meta": _utf8(record["#meta"])})[:-1]
    crc = crc32(body)
    return body + (_LOW[crc & 2047] ^ _MIDDLE[crc >> 11 & 2047] ^ _HIGH[crc >> 22]).to_bytes(20)


def _utf8(value: Any) -> Any:
    """Notes with escapes for what UTF-8 can't encode, as in names of undecodable files."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_utf8(key): _utf8(item) for key, item in value.items()}
    return [_utf8(item) for item in value] if isinstance(value, list | tuple) else value


def is_sound(line: bytes) -> bool:
    """Whether a line, without its end, is what was written."""
    return line[:3] == b'{"#' and not crc32(line)


def damaged_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Offsets of the whole lines of a journal that are not what was written, and these lines."""
    offset = 0
    for line in data.split(b"\n")[:-1]:
        if line and not is_sound(line):
            yield offset, line
        offset += len(line) + 1


def is_damaged(data: bytes) -> bool:
    """Whether a line of a journal is not what was written, or not complete."""
    return data[-1:] not in (b"", b"\n") or next(damaged_lines(data), None) is not None


def likely_key(line: bytes) -> str | None:
    """The key in a damaged line, if its beginning still looks like one."""
    found = _KEY.match(line)
    try:
        return None if found is None else str.__str__(orjson.loads(found[1]))
    except orjson.JSONDecodeError:
        return None


def deletion(key: str, name: str, offset: int) -> bytes:
    """The lines that record the deletion of what is at an offset of a journal: two, as damage to one must not undo it."""
    return seal({"#key": key, "#file": name, "#at": offset}) * 2


def _tables() -> list[list[int]]:
    """For each part of a body's CRC, bits of the line's end, as a number; their XOR, taken together, is that end."""
    rows: list[tuple[int, int]] = []  # a change of the CRC, and the bits that make it; each change has another leading bit
    plain = crc32(_FREE)
    for place in range(8):
        for free in _FREE_BITS:
            bits = free << 8 * place
            free_part = (_LETTERS ^ bits).to_bytes(8, "big")
            rows.append(_reduced(rows, crc32(free_part.join((_FREE[:_FIRST], _FREE[_FIRST + 8 :]))) ^ plain, bits))
            rows.sort(reverse=True)
    nothing = crc32(_FREE, 0)
    tables = []
    for start, end in ((0, 11), (11, 22), (22, 32)):  # small enough to stay in the processor's cache
        table = [0]
        for bit in range(start, end):  # each bit doubles the table
            bits = _reduced(rows, crc32(_FREE, 1 << bit) ^ nothing, 0)[1]
            table += [bits ^ others for others in table]
        tables.append([bits << 8 * len(_AFTER) for bits in table])
    letters = (_reduced(rows, nothing, 0)[1] ^ _LETTERS).to_bytes(8)
    always = int.from_bytes(_BEFORE + letters + _AFTER)
    tables[0] = [bits ^ always for bits in tables[0]]
    return tables


def _reduced(rows: list[tuple[int, int]], crc: int, bits: int) -> tuple[int, int]:
    for change, its_bits in rows:
        if crc ^ change < crc:
            crc, bits = crc ^ change, bits ^ its_bits
    return crc, bits


_LOW, _MIDDLE, _HIGH = _tables()
