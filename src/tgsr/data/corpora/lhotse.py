"""Lhotse's manifests, read as the JSON they are: recordings with supervisions, or cuts; also gzipped."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from tgsr import audio
from tgsr.data.alignments.alignment import kept
from tgsr.data.alignments.timed import Timed, completed
from tgsr.data.corpora.folders import NOTHING, Given, clip_and_bad, cut_at, described, sound, written
from tgsr.data.corpora.multispeaker import Turn, spoken
from tgsr.data.transcribe.repair import WORDS_MISSING, mended
from tgsr.disk.rows import Entry, OnDisk, json_lines, made, parted
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import TURNS_LEFT_OUT, Clip
from tgsr.timeline import END_SLACK, Seconds, Span

SPLIT = re.compile(r"train|dev|valid|test|eval")
SOURCE = "lhotse-alignment"
ITEM = ("symbol", "start", "duration", "score")
SPEEDS = ("Speed", "Tempo")  # lazy transforms that change when things are said
# and those that do not
TIMELESS = (
    *("Resample", "Volume", "ReverbWithImpulseResponse", "Narrowband", "LoudnessNormalization"),
    *("Clipping", "Compress", "DereverbWPE"),
)


def read(folder: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every recording of *recordings*.jsonl(.gz), or every cut of *cuts*.jsonl(.gz) where there are no recordings.

    The supervisions of A_recordings_B are in A_supervisions_B; without that file clips have no text. One supervision
    gives speaker and text; several also give events, as in `multispeaker.py`. Words are those of the "word" alignment,
    mended; an item without a time or length is a hole, a score in [0, 1] its confidence. The split is what the file's
    name says, or that of `given`. A path in a manifest starts at the folder. Where a cut, or a recording's
    supervisions, are about one channel of several, the clip is that channel, in a file of its own (a clip for each
    channel that is spoken of). Lazy speed and tempo are undone: times are those of the file as it is.

    Flags: "no-text", "speed-undone", "duration-disagrees" (the file lasts longer or shorter than the manifest says),
    "turns-cut" and "turns-left-out" as in `multispeaker.py`, and those of `repair.py`.

    Bad: a recording that is not one sound file, or is to be changed in a way that is not known here; a cut that is only
    a part of its recording or mixed (save such cuts with lhotse's CutSet.save_audios); a supervision without a time in
    its recording, or whose recording is missing. Raises CorpusError where there is neither recordings nor cuts.
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
            continue
        for cut in json_lines(path):
            if isinstance(cut, Bad):
                yield cut
            else:
                yield from clip_and_bad(cut, partial(_cut, cut, folder, known), ids)


def _cut(cut: Entry, folder: Path, given: Given) -> tuple[Clip, list[Bad]]:
    """The clip of a cut that is its whole recording, or one channel of it. Raises ValueError for any other."""
    recording = cut.values.get("recording")
    if not isinstance(recording, dict):
        raise RecordError("recording", f"a {cut.maybe('type') or 'cut'} without one recording is no clip")
    whole = Entry(cut.file, cut.line, recording)
    start, end = cut.number("start"), cut.number("start") + cut.number("duration")
    if start != 0 or abs(end - whole.number("duration")) > END_SLACK:
        part = f"[{start:g}, {end:g}) s is only a part"
        raise RecordError("start", f"{part} of a recording of {whole.number('duration'):g} s")
    channel = _only_channel(cut, whole)
    return _clip(cut.text("id"), whole, channel, _objects(cut, "supervisions"), folder, given)


def _clip(
    id_: str, recording: Entry, channel: int | None, supervisions: Sequence[Entry], folder: Path, given: Given
) -> tuple[Clip, list[Bad]]:
    """The clip of a recording, or of one of its channels, with what is said in it, and what of that has no time."""
    factor = _slowed(recording)
    source, its_channel = _file(recording, channel)
    path = folder / source
    duration, flags = sound(path)
    if abs(recording.number("duration") * factor - duration) > END_SLACK:
        flags += ("duration-disagrees",)
    if its_channel is not None and audio.n_channels(path) > 1:
        path = written(audio.load(path, channel=its_channel, max_seconds=math.inf), id_, given)
        flags = tuple(flag for flag in flags if flag != "wrong-extension")
    cut: list[bool] = []
    turns, bad = parted(supervisions, lambda row: _turn(row, factor, duration, cut))
    speaker, text, events = spoken(turns)
    rows, bad_items = _words(supervisions, factor)
    words, holes = kept(rows).alignment.on(duration)
    words, more, more_holes = mended(words, duration)
    holes = tuple(dict.fromkeys((*holes, *more_holes)))
    noted = {"speed-undone": factor != 1, "no-text": text is None, "turns-cut": any(cut)}
    noted |= {TURNS_LEFT_OUT: bool(bad), WORDS_MISSING: bool(holes)}
    languages = {supervision.maybe("language") for supervision in supervisions}
    clip = replace(
        described(Entry(path), id_, path, duration, flags, given),
        words=words,
        speaker=speaker,
        text=text,
        language=languages.pop() if len(languages) == 1 else None,
        labels=_labels(supervisions[0]) if len(supervisions) == 1 else (),
        events=events if len(turns) > 1 else (),
        flags=(*flags, *(flag for flag, is_so in noted.items() if is_so), *more),
        holes=holes,
    )
    return clip, [*bad, *bad_items]


def _recordings(path: Path, folder: Path, given: Given, ids: OnDisk) -> Iterator[Clip | Bad]:
    """The recordings of one manifest with their supervisions, which wait on disk."""
    supervisions, supervision_ids, recorded = OnDisk(), OnDisk(), OnDisk()
    beside = path.with_name(path.name.replace("recordings", "supervisions"))

    def put(supervision: Entry) -> None:
        if supervision_ids.put_new(supervision.text("id"), "there"):
            raise RecordError("id", f"{supervision.text('id')!r} was already there")
        supervisions.put(supervision.text("recording_id"), json.dumps([supervision.line, supervision.values]))

    yield from filter(None, made(json_lines(beside) if beside.is_file() else (), put))
    for recording in json_lines(path):
        if isinstance(recording, Bad):
            yield recording
            continue
        id_ = recording.maybe("id") or ""
        recorded.put(id_)
        rows = [json.loads(row) for row in supervisions.get(id_)]
        said = [Entry(beside, line, values) for line, values in rows]
        by_channel: dict[int | None, list[Entry]] = {}
        try:
            for row in said:
                by_channel.setdefault(_only_channel(row, recording), []).append(row)
        except RecordError as error:
            yield recording.bad(error)
            continue
        if None in by_channel or not said:
            by_channel = {None: said}
        for channel, rows_of_it in by_channel.items():
            name = id_ if len(by_channel) == 1 else f"{id_}-channel{channel}"
            make = partial(_of_channel, recording, name, channel, rows_of_it, folder, given)
            yield from clip_and_bad(recording, make, ids)
    for id_ in supervisions.keys():  # noqa: SIM118 (no mapping)
        if not recorded.get(id_):
            yield Bad(str(beside), f"recording {id_!r} is not in {path.name}", field="recording_id")


def _of_channel(
    recording: Entry, name: str, channel: int | None, said: Sequence[Entry], folder: Path, given: Given
) -> tuple[Clip, list[Bad]]:
    recording.text("id")
    return _clip(name, recording, channel, said, folder, given)


def _only_channel(about: Entry, recording: Entry) -> int | None:
    """The channel that a cut or supervision is about; None where it is about all that the recording has."""
    there = {channel for source in _objects(recording, "sources") for channel in _channels(source)}
    channel = about.values.get("channel")
    if isinstance(channel, list) and len(channel) == 1:
        (channel,) = channel
    return channel if isinstance(channel, int) and len(there) > 1 else None


def _slowed(recording: Entry) -> float:
    """How much longer the file lasts than the recording does once its lazy transforms are applied.

    RecordError for a transform of which it is not known what it does to time.
    """
    factor = 1.0
    for transform in _objects(recording, "transforms"):
        name = transform.text("name")
        if name in SPEEDS:
            how = transform.values.get("kwargs")
            changed = Entry(recording.file, recording.line, how if isinstance(how, dict) else {})
            factor *= changed.number("factor")
        elif name not in TIMELESS:
            problem = f"{name!r} may move what is said: save the recording as it is heard"
            raise RecordError("transforms", problem)
    if not factor > 0:
        raise RecordError("transforms", f"a speed must be above 0, got {factor:g}")
    return factor


def _file(recording: Entry, channel: int | None) -> tuple[str, int | None]:
    """The recording's sound file, or the one that has the channel, and which of that file's channels it is.

    Raises RecordError where it has another number of files, or no file.
    """
    sources = _objects(recording, "sources")
    if channel is not None:
        sources = [source for source in sources if channel in _channels(source)]
    if len(sources) != 1:
        raise RecordError("sources", f"has {len(sources)}; a clip has one sound file")
    if sources[0].text("type") != "file":
        raise RecordError("sources", f"is of type {sources[0].text('type')!r}; a clip has a file")
    place = None if channel is None else _channels(sources[0]).index(channel)
    return sources[0].text("source"), place


def _channels(source: Entry) -> list[int]:
    """The numbers of the channels that a source has. RecordError where they are none."""
    channels = source.values.get("channels") or []
    if not isinstance(channels, list) or not all(isinstance(channel, int) for channel in channels):
        raise RecordError("channels", f"must be a list of numbers, got {channels!r:.80}")
    return channels


def _turn(supervision: Entry, factor: float, duration: Seconds, cut: list[bool]) -> Turn:
    """The turn on the file's clock, cut at its end; `cut` gets whether it was."""
    start = supervision.number("start")
    end = round((start + supervision.number("duration")) * factor, 6)  # the sum of two rounded numbers
    start = round(max(start, 0.0) * factor, 6)
    end, is_cut = cut_at(duration, start, end)
    turn = Turn(Span(start, end), supervision.maybe("speaker"), supervision.maybe("text"))
    cut.append(is_cut)
    return turn


def _words(supervisions: Sequence[Entry], factor: float) -> tuple[list[Timed], list[Bad]]:
    """The items of "word" alignments, [symbol, start, duration, score] or objects of these, on the file's clock.

    A blank symbol is silence. An item that is none of these is Bad, and nobody knows what is said there. Words of the
    text that no item has are said at a time that nobody knows, and so is a text without items beside others that have
    some. Supervisions may stand in any order.
    """
    said: list[list[Timed]] = []
    bad: list[Bad] = []
    has_items = False
    for supervision in supervisions:
        rows: list[Timed] = []
        alignment = supervision.values.get("alignment")
        items = alignment.get("word") or [] if isinstance(alignment, dict) else []
        speaker = supervision.maybe("speaker")
        for item in items if isinstance(items, list) else [items]:
            fields = [item.get(name) for name in ITEM] if isinstance(item, dict) else item
            try:
                symbol, start, duration, score = (*fields, None)[:4]
                if not isinstance(symbol, str) or isinstance(item, str):
                    raise TypeError
                text, start, duration = symbol.strip(), float(start) * factor, float(duration) * factor
                confidence = float(score) if isinstance(score, int | float) else None
            except (TypeError, ValueError, OverflowError):
                problem = f"must be [symbol, start, duration], got {item!r:.80}"
                bad.append(supervision.bad(RecordError("alignment", problem)))
                rows.append(Timed(SOURCE, "<unk>", None, None, None, speaker))
                continue
            if not text:
                continue
            end = round(start + duration, 6)
            rows.append(Timed(SOURCE, text, round(start, 6), end, None, speaker, confidence))
        whole = supervision.maybe("text")
        has_items = has_items or bool(rows)
        if whole and not rows:
            said.append([Timed(SOURCE, "<unk>", *_stretch(supervision, factor), None, speaker)])
        else:
            said.append(completed(rows, whole))
    said.sort(key=lambda rows: min((row.start for row in rows if row.start is not None), default=math.inf))
    return list(chain.from_iterable(said)) if has_items else [], bad


def _stretch(supervision: Entry, factor: float) -> tuple[Seconds | None, Seconds | None]:
    """When it is said, on the file's clock; (None, None) where its time is none, which `_turn` has told."""
    try:
        start, duration = supervision.number("start"), supervision.number("duration")
    except RecordError:
        return None, None
    return round(start * factor, 6), round((start + duration) * factor, 6)


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
