"""The rows of other people's tables and JSON files: each with its file and line, or recorded as bad."""

from __future__ import annotations

import csv
import gzip
import json
import math
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tgsr.errors import AudioError, Bad, CorpusError, RecordError, shown

# The columns that a table may call it by, the first that has a value counting.
FILE = ("file_name", "audio", "path", "file", "filename", "audio_path", "filepath", "id", "video_id", "ytid")
ID = ("id", "segment_id", "video_id", "ytid")
TEXT = ("text", "sentence", "transcript", "transcription", "caption")
SPEAKER = ("speaker", "speaker_id", "client_id")
LANGUAGE = ("language", "lang", "locale")
LICENCE = ("licence", "license")
LONGEST_ROW = 1000  # characters of a bad row that are kept

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a corpus's own files: where it is, and its values by name. Of a file without rows: no line."""

    file: Path
    line: int | None = None
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return self.file.name if self.line is None else f"{self.file.name}:{self.line}"

    def maybe(self, name: str) -> str | None:
        """The value as text without the blanks around it; None where it is missing, blank, or no single value."""
        value = self.values.get(name)
        return str(value).strip() or None if isinstance(value, str | int | float) else None

    def first(self, names: Iterable[str]) -> str | None:
        """The first of these values that is there, as `maybe` gives it."""
        return next((value for name in names if (value := self.maybe(name)) is not None), None)

    def text(self, name: str) -> str:
        """The value as `maybe` gives it. Raises RecordError where that is None."""
        value = self.maybe(name)
        if value is None:
            raise RecordError(name, "is missing or blank")
        return value

    def number(self, name: str) -> float:
        """Raises RecordError where the value is not a finite number, or text that says one."""
        text = self.text(name)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise RecordError(name, f"must be a finite number, got {text!r:.80}")
        return number

    def labels(self) -> tuple[tuple[str, str], ...]:
        """The values that are not fields of a clip under any of their names."""
        fields = {*FILE, *ID, *TEXT, *SPEAKER, *LANGUAGE, *LICENCE, "split", "source", "duration"}
        names = (name for name in self.values if name not in fields)
        return tuple((name, value) for name in names if (value := self.maybe(name)) is not None)

    def bad(self, error: ValueError) -> Bad:
        """The row as one that cannot be used, for that reason."""
        if isinstance(error, RecordError):
            name, problem = error.field, error.problem
        else:
            name, problem = "audio" if isinstance(error, AudioError) else None, str(error)
        row = json.dumps(self.values, ensure_ascii=False, default=_brief)[:LONGEST_ROW]
        return Bad(shown(self.file), problem, self.line, name, row if self.values else None)


def _brief(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def made(entries: Iterable[Entry | Bad], make: Callable[[Entry], T]) -> Iterator[T | Bad]:
    """`make(entry)` for every row; Bad comes through, and stands for a row of which `make` raises ValueError."""
    for entry in entries:
        if isinstance(entry, Bad):
            yield entry
            continue
        try:
            item = make(entry)
        except ValueError as error:
            yield entry.bad(error)
        else:
            yield item


def parted(entries: Iterable[Entry | Bad], make: Callable[[Entry], T]) -> tuple[list[T], list[Bad]]:
    """What `made` gives, the good apart from the bad."""
    items: list[T] = []
    bad: list[Bad] = []
    for item in made(entries, make):
        if isinstance(item, Bad):
            bad.append(item)
        else:
            items.append(item)
    return items, bad


def table(
    path: Path, columns: Collection[str] = (), *, tabs: bool = False, quoted: bool = True
) -> Iterator[Entry | Bad]:
    """The rows of a table of comma- or tab-separated values with a header, read as UTF-8.

    Where it is not `quoted`, quotation marks are text and a backslash keeps what follows it from being read as special.
    Bad for a row with another number of values than the header has, or with bytes that are not UTF-8. Blank lines are
    skipped. Raises CorpusError where the header lacks one of the columns.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        marks: dict[str, Any] = {} if quoted else {"quoting": csv.QUOTE_NONE, "escapechar": "\\"}
        reader = csv.reader(file, delimiter="\t" if tabs else ",", **marks)
        header = next(reader, [])
        _require_columns(path, columns, header)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # a quote that is never closed makes one endless value
                yield Bad(str(path), f"is not a row ({error})", line)
                continue
            problem = _problem(header, values)
            if problem is not None:
                text = "\t".join(values).encode(errors="surrogateescape").decode(errors="backslashreplace")
                yield Bad(str(path), problem, line, row=text[:LONGEST_ROW])
            elif values:
                yield Entry(path, line, dict(zip(header, values, strict=True)))


def require_columns(path: Path, columns: Collection[str], *, tabs: bool = False) -> None:
    """Raises CorpusError where the table's header lacks one of the columns."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        _require_columns(path, columns, next(csv.reader(file, delimiter="\t" if tabs else ","), []))


def _require_columns(path: Path, columns: Collection[str], header: list[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        found = f"{', '.join(header) or 'no columns'}; missing: {', '.join(missing)}"
        raise CorpusError(path, f"columns {', '.join(columns)}", found)


def _problem(header: list[str], values: list[str]) -> str | None:
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        return f"byte {ord(str(error.object[error.start])) - 0xDC00:#04x} is not UTF-8"
    if values and len(values) != len(header):
        return f"has {len(values)} values where the header has {len(header)}"
    return None


def json_lines(path: Path) -> Iterator[Entry | Bad]:
    """The JSON objects of a .jsonl or .jsonl.gz file. Bad for what is none, and for a file that is cut off."""
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line, content in enumerate(file, 1):
                if not content.strip():
                    continue
                try:
                    values = json.loads(content.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
                    text = content.decode(errors="backslashreplace").rstrip()
                    yield Bad(str(path), f"is not JSON in UTF-8 ({error})", line, row=text[:LONGEST_ROW])
                    continue
                if isinstance(values, dict):
                    yield Entry(path, line, values)
                else:
                    yield Bad(str(path), f"must be a JSON object, got {values!r:.80}", line)
    except (OSError, EOFError, zlib.error) as error:
        yield Bad(str(path), f"cannot be read further ({error}); copy or download it again", line + 1)


def lines(path: Path) -> Iterator[Entry | Bad]:
    """The lines of a text file that are not blank, each as the value "line"; Bad for one that is not UTF-8."""
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            try:
                text = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                row = content.decode(errors="backslashreplace")[:LONGEST_ROW]
                yield Bad(str(path), f"byte {content[error.start]:#04x} is not UTF-8", line, row=row)
                continue
            if text:
                yield Entry(path, line, {"line": text})


def grouped(entries: Iterable[Entry | Bad], name: str) -> Iterator[list[Entry] | Bad]:
    """Rows that lie together and have the same value under the name, as one list; Bad comes through."""
    rows: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Bad):
            yield entry
            continue
        if rows and entry.maybe(name) != rows[0].maybe(name):
            yield rows
            rows = []
        rows.append(entry)
    if rows:
        yield rows


class OnDisk:
    """Texts by key in a temporary file, which goes with the object: ten million of them take no memory."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode = OFF")
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute("CREATE TABLE texts (key BLOB, value BLOB)")
        self._base.execute("CREATE INDEX by_key ON texts (key)")
        self._base.execute("BEGIN")

    def put(self, key: str, value: str = "") -> None:
        """Add a value; those that the key already has are kept."""
        self._base.execute("INSERT INTO texts VALUES (?, ?)", (_bytes(key), _bytes(value)))

    def get(self, key: str) -> list[str]:
        """The key's values in the order they were put in."""
        found = self._base.execute("SELECT value FROM texts WHERE key = ? ORDER BY rowid", (_bytes(key),))
        return [_str(value) for (value,) in found]

    def put_new(self, key: str, value: str = "") -> str | None:
        """The value that the key has already; None where it has none, and then it gets this one."""
        before = self.get(key)
        if before:
            return before[0]
        self.put(key, value)
        return None

    def keys(self) -> Iterator[str]:
        """Every key once, in order."""
        return (_str(key) for (key,) in self._base.execute("SELECT DISTINCT key FROM texts ORDER BY key"))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # names of files, and JSON, may hold halves of pairs


def _str(content: bytes) -> str:
    return content.decode(errors="surrogatepass")


def utf8(content: bytes, field: str, where: str = "") -> str:
    """The text without the blanks around it. RecordError about that field where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        problem = f"{where}byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
        raise RecordError(field, problem) from None
