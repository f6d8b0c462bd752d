"""A folder of audio, alone or with a table that describes it; and how every corpus reads tables and sound files.

Readers are generators in flat memory: what must be remembered of all rows (the ids so far) lies on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tgsr import audio
from tgsr.disk.rows import (
    FILE,
    ID,
    LANGUAGE,
    LICENCE,
    SPEAKER,
    TEXT,
    Entry,
    OnDisk,
    json_lines,
    made,
    table,
    utf8,
)
from tgsr.errors import AudioError, Bad, CorpusError, RecordError, shown
from tgsr.records import Clip
from tgsr.timeline import Seconds

# What libsndfile or FFmpeg call the content of a file with that suffix; () where both have several names for it.
MP4, MATROSKA, WAV = ("MOV,MP4,M4A,3GP,3G2,MJ2",), ("MATROSKA,WEBM",), ("WAV", "WAVEX", "RF64")
FORMATS = {
    **{
        ".wav": WAV,
        ".flac": ("FLAC",),
        ".mp3": ("MP3",),
        ".ogg": ("OGG",),
        ".opus": ("OGG",),
        ".oga": ("OGG",),
    },
    **{
        ".aiff": ("AIFF",),
        ".aif": ("AIFF",),
        ".au": ("AU",),
        ".sph": ("NIST", "NISTSPHERE"),
        ".caf": ("CAF",),
    },
    **{
        ".w64": ("W64",),
        ".rf64": WAV,
        ".aac": ("AAC",),
        ".wma": ("ASF",),
        ".avi": ("AVI",),
        ".ts": ("MPEGTS",),
    },
    **dict.fromkeys((".m4a", ".mp4", ".m4b", ".m4v", ".mov", ".3gp"), MP4),
    **dict.fromkeys((".mka", ".mkv", ".webm"), MATROSKA),
    **dict.fromkeys((".mpg", ".flv", ".amr", ".ogv"), ()),
}
TABLES = (".csv", ".tsv", ".jsonl")


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


def read(folder: Path, given: Given = NOTHING, *, metadata: Path | None = None) -> Iterator[Clip | Bad]:
    """Every audio file below the folder, or every row of the table that describes it; or the one file that is named.

    The table is `metadata`, or metadata.csv, .tsv or .jsonl in the folder, or the only file there with such a suffix.
    It names a file (see FILE; the suffix may be missing, as after a YouTube id) and may give id, text, speaker,
    language, split and licence; its other values become labels. A row without a file, and a file without a row, are
    Bad. Without a table each file is a clip, in order of path; its text is that of the .txt file beside it, if any.
    The id is the path in the folder where no column gives one.

    Raises CorpusError where the folder is missing or holds neither, or where it cannot be told which table is meant.
    """
    only = folder if folder.is_file() else None
    if only is not None:
        folder = only.parent
    if not folder.is_dir():
        raise CorpusError(folder, "a folder of audio", "no folder" if not folder.exists() else "a file")
    described_by = metadata or (_metadata(folder) if only is None else None)
    ids, named = OnDisk(), OnDisk()

    def alone(entry: Entry) -> Clip:
        beside = entry.file.with_suffix(".txt")
        values = {"text": utf8(beside.read_bytes(), "text", f"{beside}: ")} if beside.is_file() else {}
        id_ = entry.file.relative_to(folder).as_posix()
        return described(Entry(entry.file, None, values), id_, entry.file, *sound(entry.file), given)

    def of_row(entry: Entry) -> Clip:
        name = entry.first(FILE)
        if name is None:
            raise RecordError("file_name", "is missing")
        path = locate(folder, name)
        inside = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
        named.put(inside)
        return described(entry, entry.first(ID) or inside, path, *sound(path), given)

    if described_by is None:
        sound_files = walk(folder, FORMATS) if only is None else iter([only])
        first = next(sound_files, None)
        if first is None:
            raise CorpusError(folder, f"audio ({', '.join(FORMATS)}), or a table of it", "neither")
        yield from clips(map(Entry, chain([first], sound_files)), alone, ids)
        return
    is_json = described_by.suffix == ".jsonl"
    rows = json_lines(described_by) if is_json else table(described_by, tabs=described_by.suffix == ".tsv")
    yield from clips(rows, of_row, ids)
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


# Sound files


def sound(path: Path) -> tuple[Seconds, tuple[str, ...]]:
    """The seconds of the file that are heard, and ("wrong-extension",) where its content is not what its suffix says.

    Raises AudioError where it is not sound, or damaged.
    """
    content = audio.content(path)
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

    Where there is none of them, the path as named, which does not exist.
    """
    path = folder / name
    if path.is_file():
        return path
    bare = path.with_suffix("") if path.suffix.lower() in FORMATS else path
    others = (bare.with_name(bare.name + suffix) for suffix in FORMATS)
    return next((other for other in others if other.is_file()), path)


def place(path: Path, relative_to: Path | None) -> str:
    """The path as a clip has it: relative to that folder where one is given, else absolute.

    RecordError where it is not UTF-8, as all files of clips are.
    """
    if shown(path) != str(path):
        raise RecordError("audio", f"the name {shown(path)} is not UTF-8: rename the file or its folder")
    if relative_to is None:
        return str(path.absolute())
    return Path(os.path.relpath(path, relative_to)).as_posix()


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


def _metadata(folder: Path) -> Path | None:
    for suffix in TABLES:
        if (folder / f"metadata{suffix}").is_file():
            return folder / f"metadata{suffix}"
    tables = sorted(path for path in folder.iterdir() if path.suffix in TABLES and path.is_file())
    if len(tables) > 1:
        raise CorpusError(
            folder, "one table, or one named metadata.csv", f"{', '.join(p.name for p in tables)}; say which"
        )
    return tables[0] if tables else None
