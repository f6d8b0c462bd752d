"""Lhotse's manifests, read as the JSON they are: recordings with supervisions, or cuts; also gzipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tgsr.data.corpora.folders import NOTHING, Given, clips, described, sound
from tgsr.data.corpora.multispeaker import Turn, spoken
from tgsr.disk.rows import Entry, OnDisk, json_lines, made
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import Clip
from tgsr.timeline import END_SLACK, Span, Word

SPLIT = re.compile(r"train|dev|valid|test|eval")


def read(folder: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every recording of *recordings*.jsonl(.gz), or every cut of *cuts*.jsonl(.gz) where there are no recordings.

    The supervisions of A_recordings_B are in A_supervisions_B; without that file clips have no text. One supervision
    gives speaker and text; several also give events, as in `multispeaker.py`. Words are those of the "word"
    alignment. The split is what the file's name says, or that of `given`. A path in a manifest starts at the folder.
    Flags: "no-text", "duration-disagrees" (the file's header says another length than the manifest).

    Bad: a recording that is not one sound file, a cut that is only a part of its recording or mixed (save such cuts
    with lhotse's CutSet.save_audios), a supervision whose recording is missing. Raises CorpusError where there is
    neither recordings nor cuts.
    """
    manifests = sorted(path for end in ("", ".gz") for path in folder.glob(f"*.jsonl{end}"))
    recordings = [path for path in manifests if "recordings" in path.name]
    cuts = [path for path in manifests if "cuts" in path.name]
    if not recordings and not cuts:
        names = ", ".join(path.name for path in manifests[:5])
        raise CorpusError(folder, "recordings.jsonl(.gz) or cuts.jsonl(.gz)", names or "no .jsonl")
    ids = OnDisk()
    for path in recordings or cuts:
        known = replace(given, split=(SPLIT.findall(path.name) or [given.split])[0])
        if recordings:
            yield from _recordings(path, folder, known, ids)
        else:
            yield from clips(json_lines(path), partial(_cut, folder=folder, given=known), ids)


def _cut(cut: Entry, folder: Path, given: Given) -> Clip:
    """The clip of a cut that is its whole recording. Raises ValueError for any other."""
    recording = cut.values.get("recording")
    if not isinstance(recording, dict):
        raise RecordError("recording", f"a {cut.maybe('type') or 'cut'} without one recording is no clip")
    whole = Entry(cut.file, cut.line, recording)
    start, end = cut.number("start"), cut.number("start") + cut.number("duration")
    if start != 0 or abs(end - whole.number("duration")) > END_SLACK:
        part = f"[{start:g}, {end:g}) s is only a part"
        raise RecordError("start", f"{part} of a recording of {whole.number('duration'):g} s")
    return _clip(cut.text("id"), whole, _objects(cut, "supervisions"), folder, given)


def _clip(id_: str, recording: Entry, supervisions: Sequence[Entry], folder: Path, given: Given) -> Clip:
    """The clip of a recording with what is said in it. Raises ValueError where there is none."""
    path = folder / _file(recording)
    duration, flags = sound(path)
    if abs(recording.number("duration") - duration) > END_SLACK:
        flags += ("duration-disagrees",)
    turns = [_turn(supervision) for supervision in supervisions]
    speaker, text, events = spoken(turns)
    if text is None:
        flags += ("no-text",)
    words = tuple(word for supervision in supervisions for word in _words(supervision))
    languages = {supervision.maybe("language") for supervision in supervisions}
    return replace(
        described(Entry(path), id_, path, duration, flags, given),
        words=words,
        speaker=speaker,
        text=text,
        language=languages.pop() if len(languages) == 1 else None,
        labels=_labels(supervisions[0]) if len(supervisions) == 1 else (),
        events=events if len(turns) > 1 else (),
    )


def _recordings(path: Path, folder: Path, given: Given, ids: OnDisk) -> Iterator[Clip | Bad]:
    """The recordings of one manifest with their supervisions, which wait on disk."""
    supervisions, supervision_ids, recorded = OnDisk(), OnDisk(), OnDisk()
    beside = path.with_name(path.name.replace("recordings", "supervisions"))

    def put(supervision: Entry) -> None:
        if supervision_ids.put_new(supervision.text("id"), "there"):
            raise RecordError("id", f"{supervision.text('id')!r} was already there")
        supervisions.put(supervision.text("recording_id"), json.dumps([supervision.line, supervision.values]))

    for bad in made(json_lines(beside) if beside.is_file() else (), put):
        if bad is not None:
            yield bad

    def make(recording: Entry) -> Clip:
        id_ = recording.text("id")
        recorded.put(id_)
        rows = [json.loads(row) for row in supervisions.get(id_)]
        said = [Entry(beside, line, values) for line, values in rows]
        return _clip(id_, recording, said, folder, given)

    yield from clips(json_lines(path), make, ids)
    for id_ in supervisions.keys():  # noqa: SIM118 (no mapping)
        if not recorded.get(id_):
            yield Bad(str(beside), f"recording {id_!r} is not in {path.name}", field="recording_id")


def _file(recording: Entry) -> str:
    """The recording's one sound file. Raises RecordError where it has another number, or no file."""
    sources = _objects(recording, "sources")
    if len(sources) != 1:
        raise RecordError("sources", f"has {len(sources)}; a clip has one sound file")
    if sources[0].text("type") != "file":
        raise RecordError("sources", f"is of type {sources[0].text('type')!r}; a clip has a file")
    return sources[0].text("source")


def _turn(supervision: Entry) -> Turn:
    start = supervision.number("start")
    span = Span(start, round(start + supervision.number("duration"), 6))  # the sum of two rounded numbers
    return Turn(span, supervision.maybe("speaker"), supervision.maybe("text"))


def _words(supervision: Entry) -> Iterator[Word]:
    """The words of its "word" alignment, [[symbol, start, duration, ...], ...]; a blank symbol is silence."""
    alignment = supervision.values.get("alignment")
    items = alignment.get("word") if isinstance(alignment, dict) else None
    for item in items or ():
        try:
            symbol, start, duration, *_ = item
            word, start, end = str(symbol).strip(), float(start), round(float(start) + float(duration), 6)
        except (TypeError, ValueError):
            raise RecordError("alignment", f"must be [symbol, start, duration], got {item!r:.80}") from None
        if word:
            yield Word(word, start, end, supervision.maybe("speaker"), "lhotse-alignment")


def _labels(supervision: Entry) -> tuple[tuple[str, str], ...]:
    """Its gender and its custom values, as far as they are texts or numbers."""
    custom = supervision.values.get("custom")
    more = Entry(supervision.file, supervision.line, custom).labels() if isinstance(custom, dict) else ()
    sex = supervision.maybe("gender")
    return more if sex is None else (("sex", sex), *more)


def _objects(entry: Entry, name: str) -> list[Entry]:
    """The objects of a list; [] where it is missing. Raises RecordError where it is something else."""
    values = entry.values.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise RecordError(name, f"must be a list of objects, got {values!r:.80}")
    return [Entry(entry.file, entry.line, value) for value in values]
