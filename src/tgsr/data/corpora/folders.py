"""A folder of audio, alone or with a table that describes it; and how every corpus reads tables and sound files.

Readers are generators in flat memory: what must be remembered of all rows (the ids so far) lies on disk.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import numpy as np

from tgsr import audio
from tgsr.audio import HEADER_SLACK, Samples
from tgsr.disk.rows import (
    FILE,
    ID,
    LANGUAGE,
    LICENCE,
    SPEAKER,
    TEXT,
    Entry,
    OnDisk,
    delimiter_of,
    first_line,
    header_of,
    json_lines,
    made,
    table,
    utf8,
)
from tgsr.disk.sound_folder import FORMATS
from tgsr.errors import AudioError, Bad, CorpusError, RecordError, shown
from tgsr.records import Clip
from tgsr.timeline import END_SLACK, Seconds

TABLES = (".csv", ".tsv", ".jsonl", ".xlsx")
NAMED = re.compile(r"\s*[^\W\d]\S{0,39}:[ \t]+")  # a line that says who says it
UNREADABLE_TEXT = "unreadable-text"
MANIFEST_FILE = "audio_filepath"
# The columns of a segment's start and end, or start and length; the first pair that is there counts.
STARTS = (
    *((f"start{unit}", f"end{unit}") for unit in ("", "_time", "_seconds", "_sec", "_s", "_ms")),
    *(("begin", "end"), ("begin_time", "end_time"), ("onset", "offset"), ("start", "stop")),
    *(("start_time_seconds", "end_time_seconds"), ("starttime", "endtime")),
    *((name, "duration") for name in ("offset", "start", "start_time", "begin", "onset")),
)
KNOWN = {*FILE, *ID, *TEXT, *SPEAKER, *LANGUAGE, *LICENCE, "split", *chain.from_iterable(STARTS)}
SEGMENT_ID = ("segment_id", "utterance_id", "utt_id")
LONGEST_NAME = 200  # of a file, in bytes, less its suffix


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller of a reader knows of all clips; a row's own values come first.

    Audio paths are relative to the folder `relative_to` where one is given.
    """

    relative_to: Path | None = None
    split: str = "train"
    source: str | None = None
    licence: str | None = None
    language: str | None = None


NOTHING = Given()


def without_names(text: str) -> str:
    """The text without who says each line (`ANN: Where is it?`), where every line says so: names are not spoken."""
    lines = [line for line in text.splitlines() if line.strip()]
    named = [NAMED.match(line) for line in lines]
    if not all(named):
        return text
    return "\n".join(line[match.end() :] for line, match in zip(lines, named, strict=True) if match)


def read(folder: Path, given: Given = NOTHING, *, metadata: Path | None = None) -> Iterator[Clip | Bad]:
    """Every audio file below the folder, or every row of the table that describes it; or the one file that is named.

    The table is `metadata`, or metadata.csv, .tsv, .jsonl or .xlsx in the folder, or its only .csv, .tsv or .jsonl,
    or the only manifest of NeMo's (lines of JSON in a .json). It names a file (see FILE; the suffix may be missing, as
    after a YouTube id, and so may the folder, where no other file has that name) and may give id, text, speaker,
    language, split and licence; its other values become labels.
    Where it gives start and end (see STARTS), the row is that segment of the file, which is written to audio/ in
    `given.relative_to`; a file that lasts no longer than the segment is taken to be the segment. Values lie between
    commas, semicolons, tabs or bars; a table between bars without a header is LJSpeech's: file, text, and the text as
    it is read. A row without a file, and a file without a row, are Bad. Without a table each file is a clip, in order
    of path; its text is that of the .txt file beside it, if any, `without_names`, with the flag "unreadable-text" where
    that is not UTF-8. The id is the path in the folder where no column gives one, with the times of a segment.

    Raises CorpusError where the folder is missing or holds neither, or where it cannot be told which table is meant.
    """
    only = folder if folder.is_file() else None
    if only is not None:
        folder = only.parent
        if only.suffix.lower() in TABLES or is_manifest(only):
            only, metadata = None, only
    if not folder.is_dir():
        raise CorpusError(folder, "a folder of audio", "no folder" if not folder.exists() else "a file")
    described_by = metadata or (_metadata(folder) if only is None else None)
    ids, named = OnDisk(), OnDisk()

    def alone(entry: Entry) -> Clip:
        beside = entry.file.with_suffix(".txt")
        values: dict[str, object] = {}
        duration, flags = sound(entry.file)
        if beside.is_file():
            try:
                values["text"] = without_names(utf8(beside.read_bytes(), "text"))
            except RecordError:  # it may be anything, and the sound can be heard
                flags += (UNREADABLE_TEXT,)
        id_ = entry.file.relative_to(folder).as_posix()
        return described(Entry(entry.file, None, values), id_, entry.file, duration, flags, given)

    elsewhere = cache(partial(_by_name, folder))

    def of_row(entry: Entry) -> Clip:
        name = entry.first(FILE)
        if name is None and isinstance(value := entry.values.get("audio"), Mapping):
            name = Entry(entry.file, entry.line, value).maybe("path")  # an object, as datasets writes it
        if name is None:
            problem = f"is missing, and so is what it may be called: {', '.join(FILE[1:5])}"
            raise RecordError("file_name", problem)
        path = locate(folder, name)
        if not path.is_file():
            found = elsewhere().get(Path(name).name)
            path = Path(found[0]) if len(found) == 1 else path
        inside = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
        named.put(inside)
        part = segment(entry)
        if part is None:
            return described(entry, entry.first(ID) or inside, path, *sound(path), given)
        own = SEGMENT_ID if entry.maybe("id") == name else ("id", *SEGMENT_ID)
        id_ = entry.first(own) or f"{entry.first(ID) or inside}-{part[0]:g}-{part[1]:g}"
        if before := ids.get(id_):  # before the other's sound is written over
            raise RecordError("id", f"{id_!r} was already at {before[0]}")
        file, duration, flags = _cut(path, part, id_, given)
        named.put(os.path.relpath(file.resolve(), folder.resolve()))  # what is written there is no recording
        return described(entry, id_, file, duration, flags, given)

    if described_by is None:
        sound_files = walk(folder, FORMATS) if only is None else iter([only])
        first = next(sound_files, None)
        if first is None:
            raise CorpusError(folder, f"audio ({', '.join(FORMATS)}), or a table of it", "neither")
        yield from clips(map(Entry, chain([first], sound_files)), alone, ids)
        return
    yield from clips(_rows(described_by), of_row, ids)
    yield from unnamed(folder, named, str(described_by))


def described(
    row: Entry, id_: str, path: Path, duration: Seconds, flags: tuple[str, ...], given: Given
) -> Clip:
    """The clip of a row whose sound is, or will be, at `path`. A text that is blank is flagged "empty-text"."""
    text = row.first(TEXT)
    if text is None and any(column in row.values for column in TEXT):
        flags += ("empty-text",)
    return Clip(
        id=id_,
        audio=place(path, given.relative_to),
        duration=duration,
        split=row.maybe("split") or given.split,
        source=row.maybe("source") or given.source,
        licence=row.first(LICENCE) or given.licence,
        speaker=row.first(SPEAKER),
        text=text,
        language=row.first(LANGUAGE) or given.language,
        labels=row.labels(),
        flags=flags,
    )


# Rows


def clips(entries: Iterable[Entry | Bad], make: Callable[[Entry], Clip], ids: OnDisk) -> Iterator[Clip | Bad]:
    """`make(entry)` for every row; Bad where that raises ValueError, and where the clip's id is among `ids`."""

    def make_new(entry: Entry) -> Clip:
        clip = make(entry)
        require_new(ids, clip.id, entry)
        return clip

    return made(entries, make_new)


def clip_and_bad(
    entry: Entry, make: Callable[[], tuple[Clip, list[Bad]]], ids: OnDisk
) -> Iterator[Clip | Bad]:
    """The clip that `make` gives for one entry, as `clips` has it, and then what was left out of it."""
    bad: list[Bad] = []

    def make_clip(_: Entry) -> Clip:
        clip, bad[:] = make()
        return clip

    yield from clips([entry], make_clip, ids)
    yield from bad


def require_new(ids: OnDisk, id_: str, entry: Entry) -> None:
    """Puts the id of the entry's clip among the others. Raises RecordError where it is there already."""
    if before := ids.put_new(id_, entry.where):
        raise RecordError("id", f"{id_!r} was already at {before}")


# Tables


def _rows(path: Path) -> Iterator[Entry | Bad]:
    """The rows of a table, whatever lies between its values, and however its columns' names are capitalised.

    CorpusError where no column names a file: then the first row may be no header.
    """
    if path.suffix.lower() in (".jsonl", ".json"):
        yield from json_lines(path)
        return
    header = None
    names = {"_".join(name.strip(' "').lower().split()) for name in header_of(path)}
    mark = delimiter_of(path)
    if not names & {*FILE}:
        first = first_line(path)
        if not (first.count("|") in (1, 2) and path.suffix.lower() != ".tsv"):
            expected = f"a column that names the file ({', '.join(FILE[:6])}, ...)"
            raise CorpusError(path, expected, f"the first line {first[:80]!r}")
        mark, header = "|", ("file_name", *(("raw_text",) if first.count("|") == 2 else ()), "text")
    for row in table(path, delimiter=mark, header=header):
        yield row if isinstance(row, Bad) else replace(row, values=_as_known(row.values))


def _as_known(values: Mapping[str, object]) -> dict[str, object]:
    """The values, under the names that are known here where only capitals and blanks differ ("Start time")."""
    plain = {name: "_".join(name.lower().split()) for name in values}
    return {
        plain[name] if plain[name] in KNOWN and plain[name] not in values else name: value
        for name, value in values.items()
    }


def segment(row: Entry) -> tuple[Seconds, Seconds] | None:
    """The stretch of the file that a row is about, in seconds; None where it gives no start and end.

    RecordError where one of them is no time, or the end is not after the start.
    """
    columns = next((pair for pair in STARTS if all(name in row.values for name in pair)), None)
    if columns is None or not row.first(columns):
        return None
    start, end = (_seconds(row, name) for name in columns)
    if columns[1] == "duration":
        end += start
    if not 0 <= start < end:
        raise RecordError(columns[1], f"{end:g} s is not after {columns[0]}, {start:g} s")
    return start, end


def _seconds(row: Entry, name: str) -> Seconds:
    """Seconds, or hours, minutes and seconds, as `Entry.seconds`; milliseconds under a name in _ms."""
    milliseconds = name.endswith("_ms") and ":" not in row.text(name)
    return row.seconds(name) / (1000 if milliseconds else 1)


def _cut(
    path: Path, part: tuple[Seconds, Seconds], id_: str, given: Given
) -> tuple[Path, Seconds, tuple[str, ...]]:
    """The file of a segment, written where it is only a part of its recording; its length and flags."""
    start, end = part
    duration, flags = sound(path)
    if end > duration + END_SLACK:
        if abs(end - start - duration) > HEADER_SLACK:  # it is not that segment already
            raise RecordError("end", f"{end:g} s is after the recording's end, {duration:g} s")
        return path, duration, flags
    if start == 0 and end >= duration - END_SLACK:
        return path, duration, flags
    samples = stretch(path, start, end)
    return written(samples, id_, given), len(samples) / audio.SAMPLE_RATE, flags


def stretch(path: Path, start: Seconds, end: Seconds, channel: int | None = None) -> Samples:
    """What `audio.load` gives of the file between these seconds, also where many are asked for of one long file.

    Of a file that must be decoded from its beginning each time (mp3, Opus, ...) a copy in FLAC is made at the first
    stretch, and kept until another such file is asked for.
    """
    if channel is None and not audio.is_counted(path):
        _, path = _copied(path, _stamp(path))
    return audio.load(path, start=start, end=end, channel=channel, max_seconds=math.inf)


@lru_cache(maxsize=1)
def _copied(path: Path, stamp: tuple[int, int] | None) -> tuple[TemporaryDirectory[str], Path]:
    """A file's sound as FLAC, and its temporary folder, which goes when nothing holds it any more."""
    folder = TemporaryDirectory()
    copy = Path(folder.name) / "sound.flac"
    audio.save_flac(copy, np.concatenate(list(audio.stream(path))))
    return folder, copy


@lru_cache(maxsize=1)
def _content(path: Path, stamp: tuple[int, int] | None) -> audio.Content:
    """`audio.content`, once for all that is cut out of one file."""
    return audio.content(path)


def _stamp(path: Path) -> tuple[int, int] | None:
    """The size and time of a file, which tell whether it is still the same; None where it is missing."""
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def written(samples: Samples, id_: str, given: Given) -> Path:
    """The file of its own, in audio/ in the folder `given.relative_to`, of a clip that is a part of a recording."""
    if given.relative_to is None:
        raise RecordError("audio", "a part of a file gets a file of its own, and no folder was given for it")
    file = given.relative_to / "audio" / f"{stem(id_)}.flac"
    audio.save_flac(file, samples)
    return file


def stem(id_: str, what: str = "", field: str | None = "id", safe: str = " ") -> str:
    """The name, less its suffix, of the file of what is called so: %-quoted. RecordError where it is too long."""
    name = quote(id_, safe=safe)
    if len(name) > LONGEST_NAME:
        raise RecordError(field, f"{what}{id_!r:.80} is too long for the name of a file")
    return name


def _by_name(folder: Path) -> OnDisk:
    """The sound files below the folder by their names, with suffix and without."""
    found = OnDisk()
    for path in walk(folder, FORMATS):
        for name in {path.name, path.stem}:
            found.put(name, str(path))
    return found


def cut_at(duration: Seconds, start: Seconds, end: Seconds) -> tuple[Seconds, bool]:
    """The end of what begins at `start`, cut at the clip's, and whether that cut more than a rounding.

    RecordError for what begins after the clip.
    """
    if start >= duration:
        raise RecordError(None, f"begins at {start:g} s, after the clip's end, {duration:g} s")
    return min(end, duration), end > duration + END_SLACK


# Sound files


def sound(path: Path) -> tuple[Seconds, tuple[str, ...]]:
    """The seconds of the file that are heard, and ("wrong-extension",) where its content is not what its suffix says.

    Raises AudioError where it is not sound, or damaged.
    """
    content = _content(path, _stamp(path))
    expected = FORMATS.get(path.suffix.lower())
    return content.seconds, ("wrong-extension",) if expected and content.format not in expected else ()


def suffix_of(path: Path) -> str:
    """The suffix that sound of that format usually has. AudioError where it is not sound, or damaged."""
    format_ = audio.content(path).format
    suffix = next((suffix for suffix, formats in FORMATS.items() if format_ in formats), None)
    if suffix is None:
        raise AudioError(str(path), f"is {format_}, not {', '.join(FORMATS)}", audio.CONVERT)
    return suffix


def locate(folder: Path, name: str) -> Path:
    """The folder's file of that name, or else of that name with another or a further suffix of audio.

    Where there is none of them, the path as named, which does not exist. RecordError for a name that is too long.
    """
    path = folder / name
    try:
        if path.is_file():
            return path
        bare = str(path.with_suffix("") if path.suffix.lower() in FORMATS else path)
        return next((Path(bare + suffix) for suffix in FORMATS if os.path.isfile(bare + suffix)), path)
    except OSError as error:  # a name that no file can have
        raise RecordError("audio", f"{name!r:.80}: {error.strerror}") from error


def place(path: Path, relative_to: Path | None) -> str:
    """The path as a clip has it: relative to that folder where one is given, else absolute.

    RecordError where it is not UTF-8, as all files of clips are.
    """
    written = (
        path.absolute() if relative_to is None else Path(os.path.relpath(path, relative_to))
    ).as_posix()
    if shown(written) != written:
        raise RecordError("audio", f"the name {shown(path)} is not UTF-8: rename the file or its folder")
    return written


def walk(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """The files below the folder with one of the suffixes, in order of path; hidden ones are left out.

    Linked folders are entered, but none of the folders that lie above them.
    """
    paths = OnDisk()
    folders = [(folder, frozenset[str]())]
    while folders:
        inside, above = folders.pop()
        real = os.path.realpath(inside)
        if real in above:
            continue
        with os.scandir(inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append((Path(entry.path), above | {real}))
                elif os.path.splitext(entry.name)[1].lower() in suffixes:
                    paths.put(entry.path)
    return map(Path, paths.keys())


def unnamed(folder: Path, named: OnDisk, by: str) -> Iterator[Bad]:
    """Bad for every sound file below the folder whose path in it is not in `named`."""
    for path in walk(folder, FORMATS):
        if not named.get(path.relative_to(folder).as_posix()):
            yield Bad(shown(path), f"no row of {by} names this file", field="audio")


def is_manifest(path: Path) -> bool:
    """Whether the file is NeMo's list of sounds: lines of JSON, also in a file.json."""
    if path.suffix.lower() not in (".json", ".jsonl"):
        return False
    try:
        row = json.loads(first_line(path))
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and MANIFEST_FILE in row


def _metadata(folder: Path) -> Path | None:
    for suffix in TABLES:
        if (folder / f"metadata{suffix}").is_file():
            return folder / f"metadata{suffix}"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    tables = [path for path in files if path.suffix in TABLES[:3]]  # a workbook may be anything
    tables = tables or list(filter(is_manifest, files))
    if len(tables) > 1:
        found = f"{', '.join(path.name for path in tables)}; say which"
        raise CorpusError(folder, "one table, or one named metadata.csv", found)
    return tables[0] if tables else None
