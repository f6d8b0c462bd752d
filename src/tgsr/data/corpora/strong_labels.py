"""Sound events with times: DESED's and AudioSet-strong's tables, one row an event, with the audio beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tgsr.data.corpora.folders import (
    NOTHING,
    Given,
    clip_and_bad,
    cut_at,
    described,
    locate,
    sound,
    unnamed,
    walk,
)
from tgsr.disk.rows import Entry, OnDisk, grouped, parted, require_columns, table
from tgsr.errors import Bad, CorpusError
from tgsr.records import EVENTS_LEFT_OUT, Clip
from tgsr.timeline import Event

# The columns of file, start, end and label, and the publisher's licence.
TABLES = {
    "DESED": (("filename", "onset", "offset", "event_label"), None),  # its recordings have several
    "AudioSet": (("segment_id", "start_time_seconds", "end_time_seconds", "label"), "CC BY 4.0"),
}
METADATA = "metadata"  # DESED's folder of tables
SPLITS = ("validation", "eval", "train")  # DESED has train/synthetic20_validation
NAMES = ("class_labels_indices.csv", "mid_to_display_name.tsv")


def read(folder: Path, given: Given = NOTHING, *, audio: Path | None = None) -> Iterator[Clip | Bad]:
    """Every recording that a table of strong labels names, with its events; other tables are passed over.

    Tables are metadata/**/*.tsv with their recordings in audio/ under the same path (DESED's layout, which may lie in
    dataset/), or *.tsv in the folder with the recordings in `audio`, by default audio/ or the folder itself. A
    recording's rows are found wherever they stand; a row with nothing but a file's name is a recording without events.
    The split is train, validation or eval, after the table's path; the id is that path with the recording's name.
    AudioSet's labels get names where one of NAMES is in the folder. An event that ends after the recording is cut
    there, and the clip flagged "events-cut"; one that has no time in the recording is Bad, and the clip without it
    flagged "events-left-out"; Bad are also a recording that is missing and one that no row names.

    Raises CorpusError where there is no such table.
    """
    root, tables = tables_of(folder)
    is_desed = _is_desed(root)
    folder = root.parent if is_desed else root
    if not tables:
        columns = " or ".join(", ".join(columns) for columns, _ in TABLES.values())
        raise CorpusError(root, f"a .tsv with the columns {columns}", "none")
    display_names = {label: name for path in NAMES for label, name in _display_names(folder / path).items()}
    ids = OnDisk()
    named: dict[Path, OnDisk] = {}
    for path, corpus in tables.items():
        below = path.relative_to(root).with_suffix("")
        recordings = _recordings(folder, below) if is_desed else audio or _recordings(folder, Path())
        seen = named.setdefault(recordings, OnDisk())
        name = below.as_posix()
        split = next((split for split in SPLITS if split in name), "train")
        known = replace(given, split=split, source=corpus, licence=TABLES[corpus][1], language=None)
        for rows in grouped(table(path, tabs=True, quoted=False), TABLES[corpus][0][0]):
            if isinstance(rows, Bad):
                yield rows
                continue
            make = partial(_recording, rows, name, recordings, known, display_names, seen)
            yield from clip_and_bad(rows[0], make, ids)
    for recordings, seen in named.items():
        yield from unnamed(recordings, seen, "the tables")


def tables_of(path: Path) -> tuple[Path, dict[Path, str]]:
    """Where a folder's tables of strong labels begin, and whose each of them is, by its header; or the one table."""
    if path.is_file():
        root, paths = next(filter(_is_desed, path.parents), path.parent), [path]
    else:
        inside = (path / METADATA, path / "dataset" / METADATA)
        root = next((folder for folder in inside if folder.is_dir()), path)
        paths = sorted(root.glob("*.tsv") if root == path else walk(root, (".tsv",)))
    return root, {path: corpus for path in paths if (corpus := _corpus(path)) is not None}


def _is_desed(root: Path) -> bool:
    """Whether it is DESED's folder of tables, beside which its audio lies."""
    return root.name == METADATA and (root.parent / "audio").is_dir()


def _recording(
    rows: list[Entry], name: str, recordings: Path, given: Given, display_names: dict[str, str], named: OnDisk
) -> tuple[Clip, list[Bad]]:
    """The clip of a recording's rows in the table `name`, and those of them that are no events in it."""
    file_column, start_column, end_column, label_column = TABLES[str(given.source)][0]
    path = locate(recordings, rows[0].text(file_column))
    named.put(path.relative_to(recordings).as_posix())
    clip = described(Entry(path), f"{name}/{rows[0].text(file_column)}", path, *sound(path), given)

    cut = False

    def event(row: Entry) -> Event:
        nonlocal cut
        start, end, label = row.number(start_column), row.number(end_column), row.text(label_column)
        end, is_cut = cut_at(clip.duration, start, end)
        cut |= is_cut
        return Event(display_names.get(label, label), start, end)

    # a row may name only a file
    timed = [row for row in rows if row.first((start_column, end_column, label_column)) is not None]
    events, bad = parted(timed, event)
    flags = (*clip.flags, *(("events-cut",) if cut else ()), *((EVENTS_LEFT_OUT,) if bad else ()))
    return replace(clip, events=tuple(events), flags=flags), bad


def _corpus(path: Path) -> str | None:
    """Whose table it is, by its header; None for any other."""
    for corpus, (columns, _) in TABLES.items():
        try:
            require_columns(path, columns, tabs=True)
        except CorpusError:
            continue
        return corpus
    return None


def _recordings(folder: Path, below: Path) -> Path:
    """The table's folder in audio/: its own, or the nearest one above it that exists."""
    inside = (folder / "audio" / part for part in (below, *below.parents))
    return next((path for path in inside if path.is_dir()), folder)


def _display_names(path: Path) -> dict[str, str]:
    """AudioSet's names by label (/m/05tny_: Bark); none where the file is missing."""
    if not path.is_file():
        return {}
    if path.suffix == ".csv":
        rows = table(path, ("mid", "display_name"))
        return {row.text("mid"): row.text("display_name") for row in rows if isinstance(row, Entry)}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {label: name for label, _, name in (line.partition("\t") for line in lines)}
