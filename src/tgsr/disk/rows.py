"""The rows of other people's tables and JSON files: each with its file and line, or recorded as bad."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
import re
import sqlite3
import sys
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeVar

from tgsr.disk.workbook import is_workbook, sheet_rows
from tgsr.errors import AudioError, Bad, CorpusError, DiskError, RecordError, shown

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# The columns that a table may call it by, the first that has a value counting.
FILE = (
    *("file_name", "audio", "path", "file", "filename", "audio_path", "filepath", "audio_filepath"),
    *("audio_file", "wav", "wav_file", "recording", "id", "video_id", "ytid"),
)
ID = ("id", "segment_id", "video_id", "ytid")
TEXT = ("text", "sentence", "transcript", "transcription", "caption")
SPEAKER = ("speaker", "speaker_id", "client_id")
LANGUAGE = ("language", "lang", "locale")
LICENCE = ("licence", "license")
LONGEST_ROW = 1000  # characters of a bad row that are kept
LONGEST_QUOTE = 1000  # lines of one value

OPEN_QUOTE = "a quote is opened and not closed"
SEPARATOR = re.compile(r'"?sep=.[",;\t|]*', re.IGNORECASE)  # Excel's own first line of a CSV
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)")
Numbered = tuple[int, list[str] | str, str]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a corpus's own files: where it is, and its values by name. Of a file without rows: no line.

    `comma` says that numbers are written with a comma for their decimals, as where semicolons part the values.
    """

    file: Path
    line: int | None = None
    values: Mapping[str, object] = field(default_factory=dict)
    comma: bool = False

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
        number = number_in(text, comma=self.comma)
        if not math.isfinite(number):
            raise RecordError(name, f"must be a finite number, got {text!r:.80}")
        return number

    def seconds(self, name: str) -> float:
        """Seconds, as `seconds_in` reads them. Raises RecordError where the value says none."""
        text = self.text(name)
        seconds = seconds_in(text, comma=self.comma)
        return seconds if math.isfinite(seconds) else self.number(name)

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


def number_in(text: str, *, comma: bool = False) -> float:
    """The number that a text says; NaN where it says none.

    "1,5" is 1.5. "1,234" is where numbers have decimal commas; elsewhere it may be a thousand, and is no number.
    """
    whole, mark, decimals = text.strip().partition(",")
    if mark and "." not in text and (comma or len(decimals) != 3):
        text = f"{whole}.{decimals}"
    try:
        return float(text)
    except ValueError:
        return math.nan


def seconds_in(text: str, *, comma: bool = False) -> float:
    """Seconds, or hours, minutes and seconds: "61.5", "1:01.5", "0:01:01,500"; NaN where a text says none."""
    match = CLOCK.fullmatch(text.strip())
    if match is None:
        return number_in(text, comma=comma)
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))


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
    path: Path,
    columns: Collection[str] = (),
    *,
    tabs: bool = False,
    quoted: bool = True,
    delimiter: str | None = None,
    header: Sequence[str] | None = None,
    spreadsheet: bool = False,
) -> Iterator[Entry | Bad]:
    """The rows of a table with a header: values between commas, tabs, semicolons or bars, or an Excel workbook.

    What lies between values is `delimiter`, a tab where `tabs`, else what the header has most of (Excel takes the
    semicolon where numbers have commas); a first line "sep=;" is none of the table.
    Read as UTF-8, or as UTF-16 where the file begins so. Values between commas or semicolons may be quoted and hold
    line breaks; a quote that is not closed in LONGEST_QUOTE lines costs its line alone. Between tabs a row is one line,
    and a value that is quoted as a whole loses its quotes; between bars quotes are text. Where it is not `quoted`,
    quotation marks are text and a backslash keeps what follows it from being read as special. `header` names the
    columns of a table that does not. Where a `spreadsheet` may have written it, as all in UTF-16, values between tabs
    are quoted as between commas, and a row may lack its last, blank values, which Excel leaves out.

    Bad for a row with another number of values than the header has, or with bytes that are not UTF-8. Blank lines are
    skipped. Raises CorpusError where the header lacks one of the columns, and as `sheet_rows` does.
    """
    spreadsheet = spreadsheet or is_workbook(path) or _is_utf16(path)
    delimiter = delimiter or ("\t" if tabs else delimiter_of(path))
    rows = _numbered(path, delimiter, quoted, spreadsheet)
    names = list(header) if header is not None else _first(rows, delimiter)
    _require_columns(path, columns, names)
    for line, values, text in rows:
        if delimiter == "\t" and quoted and len(values) != len(names):
            alone = _parsed(text, delimiter, strict=True)  # a quoted value may hold the delimiter
            values = alone if isinstance(alone, list) else values
        while isinstance(values, list) and len(values) > len(names) and not values[-1].strip():
            values.pop()  # of a mark at the line's end
        if spreadsheet and isinstance(values, list):
            values += [""] * (len(names) - len(values))
        problem = _problem(names, values) if isinstance(values, list) else f"is not a row ({values})"
        if problem is not None:
            text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
            yield Bad(shown(path), problem, line, row=text[:LONGEST_ROW])
        else:
            yield Entry(path, line, dict(zip(names, values, strict=True)), delimiter == ";")


def delimiter_of(path: Path) -> str:
    """What lies between the values of a table, told from its header alone: "1,1;2,2" below "a;b" is two numbers.

    A name may hold a comma, hardly a semicolon and never a tab; a bar only where there is nothing else.
    """
    if is_workbook(path):
        return "\t"  # between the values of a row as an error shows it
    bare = re.sub('"[^"]*"', "", first_line(path))
    if "\t" in bare:
        return "\t"
    if ";" in bare and bare.count(";") >= bare.count(","):
        return ";"
    return "|" if "|" in bare and "," not in bare else ","


def header_of(path: Path) -> list[str]:
    """The names of a table's columns; [] where there are none. Raises as `sheet_rows` does."""
    delimiter = delimiter_of(path)
    return _first(_numbered(path, delimiter, True, True), delimiter)


def require_columns(path: Path, columns: Collection[str], *, tabs: bool = False) -> None:
    """Raises CorpusError where the table's header lacks one of the columns."""
    delimiter = "\t" if tabs else ","
    _require_columns(path, columns, _first(_numbered(path, delimiter, True, False), delimiter))


def first_line(path: Path) -> str:
    """The first line of a text file that is not blank, nor Excel's "sep=;", without its break; "" for none."""
    with _text(path) as file:
        lines = (line.rstrip("\n") for line in file if line.strip())
        first = next(lines, "")
        return next(lines, "") if SEPARATOR.fullmatch(first) else first


def _first(rows: Iterator[Numbered], delimiter: str) -> list[str]:
    _, values, text = next(rows, (0, [], ""))
    return [name.strip() for name in (values if isinstance(values, list) else text.split(delimiter))]


def _numbered(path: Path, delimiter: str, quoted: bool, spreadsheet: bool) -> Iterator[Numbered]:
    """Each row's first line, its values, or why it has none, and its text."""
    if is_workbook(path):
        yield from ((line, values, delimiter.join(values)) for line, values in sheet_rows(path))
        return
    with _text(path) as file:
        ahead: deque[str] = deque()
        line, is_first = 0, True
        while (text := ahead.popleft() if ahead else next(file, None)) is not None:
            line += 1
            text = text.rstrip("\n")
            if not text.strip():
                continue
            is_mark, is_first = is_first and SEPARATOR.fullmatch(text) is not None, False
            if is_mark:
                continue
            if not quoted:
                how: dict[str, Any] = {"quoting": csv.QUOTE_NONE, "escapechar": "\\"}
                yield line, _parsed(text, delimiter, **how), text
            elif delimiter == "|" or (delimiter == "\t" and not spreadsheet):
                values = text.split(delimiter)
                yield line, values if delimiter == "|" else list(map(_unquoted, values)), text
            else:
                n_more, row = _closed(text, delimiter, ahead, file)
                if delimiter == "\t" and isinstance(row, str):  # no program of tables has quoted it
                    row = list(map(_unquoted, text.split(delimiter)))
                yield line, row, text
                line += n_more
                for _ in range(n_more):
                    ahead.popleft()


def _closed(text: str, delimiter: str, ahead: deque[str], file: Iterator[str]) -> tuple[int, list[str] | str]:
    """The values of the row that begins with this line, and how many of the next lines belong to it."""
    whole, n_more = text, 0
    while True:
        values = _parsed(whole, delimiter, strict=True)
        if isinstance(values, list):
            return n_more, values
        if "unexpected end" not in values:  # something follows a closing quote: such a row does not go on
            is_even = not n_more and text.count('"') % 2 == 0
            return 0, _parsed(text, delimiter) if is_even else OPEN_QUOTE
        while True:  # up to the next line with a quote
            if n_more == len(ahead):
                ahead.extend(islice(file, 1))
            if n_more == min(len(ahead), LONGEST_QUOTE):
                return 0, OPEN_QUOTE
            whole += "\n" + ahead[n_more].rstrip("\n")
            n_more += 1
            if '"' in ahead[n_more - 1]:
                break


def _parsed(text: str, delimiter: str, **how: Any) -> list[str] | str:
    """One row's values, or why there are none."""
    csv.field_size_limit(sys.maxsize)  # a response may be longer than the default of 131,072 characters
    try:
        return next(csv.reader(io.StringIO(text), delimiter=delimiter, **how))
    except csv.Error as error:
        return str(error)


def _unquoted(value: str) -> str:
    """The value without quotes around all of it; as it is where they are not there, or not closed."""
    inside = value[1:-1]
    is_quoted = len(value) >= 2 and value[0] == value[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if is_quoted else value


def _is_utf16(path: Path) -> bool:
    with opened(path) as file:
        return file.read(2) in UTF_16


def _text(path: Path) -> TextIO:
    file = opened(path)
    is_utf16 = file.read(2) in UTF_16
    file.seek(0)
    encoding, errors = ("utf-16", "replace") if is_utf16 else ("utf-8-sig", "surrogateescape")
    return io.TextIOWrapper(file, encoding=encoding, errors=errors)


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


def opened(path: Path) -> BinaryIO:
    """The bytes of a file, without gzip's compression where it is called .gz. RecordError where that is cut off."""
    if path.suffix != ".gz":
        return path.open("rb")
    try:
        return io.BytesIO(gzip.decompress(path.read_bytes()))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"is no whole gzip file ({error})"
        raise RecordError(None, problem, str(path), remedy="copy it again") from error


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
    """Rows that have the same value under the name, as one list, wherever they stand; in order of their first ones.

    The rows wait on disk; their values come back as JSON has them. Bad comes through first.
    """
    waiting = OnDisk()
    for entry in entries:
        if isinstance(entry, Bad):
            yield entry
            continue
        waiting.put(entry.maybe(name) or "", json.dumps([str(entry.file), entry.line, dict(entry.values)]))
    for key in waiting.keys_as_put():
        rows = map(json.loads, waiting.get(key))
        yield [Entry(Path(file), line, values) for file, line, values in rows]


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
        """Add a value; those that the key already has are kept. DiskError where the disk is full."""
        try:
            self._base.execute("INSERT INTO texts VALUES (?, ?)", (_bytes(key), _bytes(value)))
        except sqlite3.OperationalError as error:
            remedy = "free some space where temporary files go, or name another folder by SQLITE_TMPDIR"
            raise DiskError(f"a temporary file of rows: {error}; {remedy}") from error

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

    def keys_as_put(self) -> Iterator[str]:
        """Every key once, in the order in which they were first put in."""
        found = self._base.execute("SELECT key FROM texts GROUP BY key ORDER BY MIN(rowid)")
        return (_str(key) for (key,) in found)

    def keys(self) -> Iterator[str]:
        """Every key once, in order."""
        return (_str(key) for (key,) in self._base.execute("SELECT DISTINCT key FROM texts ORDER BY key"))


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # names of files, and JSON, may hold halves of pairs


def _str(content: bytes) -> str:
    return content.decode(errors="surrogatepass")


def utf8(content: bytes, field: str) -> str:
    """The text without the blanks around it. RecordError about that field where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        problem = f"byte {error.object[error.start]:#04x} at {error.start} is not UTF-8"
        raise RecordError(field, problem) from None
