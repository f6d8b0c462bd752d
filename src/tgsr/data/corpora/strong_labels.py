"""Sound events with times: DESED's and AudioSet-strong's tables, one row an event, with the audio beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tgsr.data.corpora.folders import NOTHING, Given, clips, described, locate, sound, unnamed
from tgsr.disk.rows import Entry, OnDisk, grouped, parted, require_columns, table
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import Clip
from tgsr.timeline import END_SLACK, Event, Seconds

# The columns of file, start, end and label, and the publisher's licence.
TABLES = {
    "DESED": (("filename", "onset", "offset", "event_label"), None),  # its recordings have several
    "AudioSet": (("segment_id", "start_time_seconds", "end_time_seconds", "label"), "CC BY 4.0"),
}
SPLITS = ("validation", "eval", "train")  # DESED has train/synthetic20_validation
NAMES = "mid_to_display_name.tsv"


def read(folder: Path, given: Given = NOTHING, *, audio: Path | None = None) -> Iterator[Clip | Bad]:
    """Every recording that a table of strong labels names, with its events; other tables are passed over.

    Tables are metadata/**/*.tsv with their recordings in audio/ under the same path (DESED's layout), or *.tsv in the
    folder with the recordings in `audio`, by default audio/ or the folder itself. A recording's rows lie together; a
    row with nothing but a file's name is a recording without events. The split is train, validation or eval, after the
    table's path; the id is that path with the recording's name. AudioSet's labels get names where NAMES is in the
    folder. An event that has no time in the recording is Bad, and the clip without it flagged "events-left-out"; Bad
    are also a recording that is missing and one that no row names.

    Raises CorpusError where there is no such table.
    """
    is_desed = (folder / "metadata").is_dir()
    root = folder / "metadata" if is_desed else folder
    paths = sorted(root.rglob("*.tsv") if is_desed else root.glob("*.tsv"))
    tables = {path: corpus for path in paths if (corpus := _corpus(path)) is not None}
    if not tables:
        columns = " or ".join(", ".join(columns) for columns, _ in TABLES.values())
        raise CorpusError(root, f"a .tsv with the columns {columns}", "none")
    display_names = _display_names(folder / NAMES)
    ids = OnDisk()
    named: dict[Path, OnDisk] = {}
    for path, corpus in tables.items():
        below = path.relative_to(root).with_suffix("")
        recordings = _recordings(folder, below) if is_desed else audio or _recordings(folder, Path())
        seen = named.setdefault(recordings, OnDisk())
        name = below.as_posix()
        split = next((split for split in SPLITS if split in name), "train")
        known = replace(given, split=split, source=corpus, licence=TABLES[corpus][1], language=None)
        yield from Reader(corpus, name, recordings, known, display_names, ids, seen).clips(path)
    for recordings, seen in named.items():
        yield from unnamed(recordings, seen, "the tables")


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one table: whose it is, its name, where its recordings are, and what all tables share."""

    corpus: str
    name: str
    recordings: Path
    given: Given
    display_names: dict[str, str]
    ids: OnDisk
    named: OnDisk

    def clips(self, path: Path) -> Iterator[Clip | Bad]:
        """The table's recordings; only one recording's rows are held."""
        (file_column, *_), _ = TABLES[self.corpus]
        for rows in grouped(table(path, tabs=True, quoted=False), file_column):
            if isinstance(rows, Bad):
                yield rows
            else:
                yield from self._recording(rows)

    def _recording(self, rows: list[Entry]) -> Iterator[Clip | Bad]:
        (file_column, *_), _ = TABLES[self.corpus]
        bad: list[Bad] = []

        def make(entry: Entry) -> Clip:
            name = entry.text(file_column)
            path = locate(self.recordings, name)
            self.named.put(path.relative_to(self.recordings).as_posix())
            clip = described(Entry(path), f"{self.name}/{name}", path, *sound(path), self.given)
            events, bad[:] = parted(rows, lambda row: self._event(row, clip.duration))
            flags = (*clip.flags, "events-left-out") if bad else clip.flags
            return replace(clip, events=tuple(event for event in events if event), flags=flags)

        yield from clips(rows[:1], make, self.ids)
        yield from bad

    def _event(self, row: Entry, duration: Seconds) -> Event | None:
        """The row's event; None where it names only a file. Raises ValueError for one without a time in the clip."""
        (_, *columns), _ = TABLES[self.corpus]
        if all(row.maybe(column) is None for column in columns):
            return None
        start, end, label = row.number(columns[0]), row.number(columns[1]), row.text(columns[2])
        if end > duration + END_SLACK:
            raise RecordError(columns[1], f"{end} s is after the clip's end, {duration} s")
        return Event(self.display_names.get(label, label), start, end)


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
    lines = path.read_text(encoding="utf-8").splitlines()
    return {label: name for label, _, name in (line.partition("\t") for line in lines)}
