"""JSON objects, one a line: read, written, appended to a log that survives a kill."""

from __future__ import annotations

import codecs
import errno
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tgsr.disk.whole import StrPath, disk_errors
from tgsr.errors import RecordError

Row = Mapping[str, object]
HALF_WRITTEN = "the last line is half-written"
DROP_IT = "run the command that writes the file again, which drops the line, or delete it"


def row_of(content: bytes, *, constants: bool = False) -> Row:
    """One line as a JSON object. NaN and Infinity, which Python would accept, are not JSON, unless `constants`."""
    try:
        row = (_LENIENT if constants else _DECODER).decode(content.decode())
    except UnicodeDecodeError as error:
        problem = f"byte {content[error.start]:#04x} at {error.start} is not UTF-8"
        raise RecordError(None, problem, remedy="save it as UTF-8") from None
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number of 4,300 digits
        if content.endswith(b"\n"):
            raise RecordError(None, f"is not JSON ({error})") from None
        raise RecordError(None, HALF_WRITTEN, remedy=DROP_IT) from None
    if not isinstance(row, dict):
        raise RecordError(None, f"must be a JSON object, got {row!r:.80}")
    return row


def _refuse_constant(constant: str) -> object:
    raise RecordError(None, f"{constant} is not a number that JSON has")


_DECODER, _LENIENT = json.JSONDecoder(parse_constant=_refuse_constant), json.JSONDecoder()


def first_sign(path: Path) -> bytes:
    """The first character that is no blank of a file in UTF-8, by which JSON is told; b"" where none comes soon."""
    with path.open("rb") as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def maybe_json(text: str) -> Any:
    """What the text is as JSON; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def lines_in(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number, without the mark at the file's beginning.

    Bytes end lines at \\n only: text would also end them at U+2028 and its like, inside strings.
    """
    for line, content in enumerate(file, 1):
        content = content.removeprefix(codecs.BOM_UTF8) if line == 1 else content
        if content.strip():
            yield line, content


def line_of(row: Row, name: str, line: int | None) -> bytes:
    """The bytes of a JSON object's line, the `line`-th of the file `name`. RecordError for NaN and infinite numbers."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        field = next((k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)), None)
        raise RecordError(field, str(error), name, line, "leave out what has no value") from None
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair: only its escape survives
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def append_row(path: StrPath, row: Row) -> None:
    """Append one JSON object to a log in a single write; the file is made where it is missing.

    Raises RecordError for NaN and infinite numbers, and where the log ends in a half-written line, to
    which the row would be glued (`repair_jsonl` first); DiskError where the disk is full or cannot be written to.
    """
    line = line_of(row, os.fspath(path), None)
    with disk_errors(path), open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                raise RecordError(None, HALF_WRITTEN, os.fspath(path), None, DROP_IT)
        n_written = file.write(line)
        if n_written != len(line):  # a disk that fills up takes part of a line
            written = f"only {n_written} of {len(line)} bytes were written"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({written})")


def repair_jsonl(path: StrPath) -> int:
    """Drop the half-written last line that a killed process leaves in a log; the bytes dropped, mostly 0.

    A last line that lacks only its line break gets one. Complete lines are not looked at. DiskError where the file
    cannot be written to.
    """
    with disk_errors(path), open(path, "rb+") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            kept = content.rfind(b"\n") + 1
            tail = content[kept:]
        if tail and _is_row(tail):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
            return 0
        file.truncate(kept)
        return size - kept


def _is_row(content: bytes) -> bool:
    try:
        row_of(content.removeprefix(codecs.BOM_UTF8))
    except RecordError:
        return False
    return True
