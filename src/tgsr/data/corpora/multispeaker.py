"""Recordings of dialogues, each with its turns: who speaks from when to when, and what, as JSON or RTTM."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
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
from tgsr.disk.rows import Entry, OnDisk, grouped, lines, made, parted
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import TURNS_LEFT_OUT, Clip
from tgsr.timeline import Event, Seconds, Span

SPEAKER = "speaker "  # a turn's event is labelled with this and the name
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
TIMES, REST = rf"({NUMBER})\s+({NUMBER})", rf"(?:\s+(?:<NA>|{NUMBER})){{0,2}}"
RTTM_LINE = re.compile(rf"SPEAKER\s+(.+)\s+\S+\s+{TIMES}\s+\S+\s+\S+\s+(.+?){REST}")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says without a break, and who it is, each where it is known."""

    span: Span
    speaker: str | None = None
    text: str | None = None


def read(folder: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every recording below the folder that has turns: X.wav (or .flac, ...) with X.json, or with lines in an .rttm.

    X.json is [{"speaker", "start", "end", "text"}, ...] or {"turns": [...]}, in seconds; where it is there, the RTTM
    lines of X are passed over. RTTM lines of one recording may stand anywhere, also in several files of a folder. Turns
    have no times of words, so the clip has no words: its events are the turns in order of time, labelled "speaker
    NAME", its text has one line for each of them, and "n_speakers" is a label. A turn that ends after the recording is
    cut there, and the clip flagged "turns-cut"; one that has no time in it is Bad, and the clip without it flagged
    "turns-left-out"; Bad are also turns without a recording and a recording without turns. The
    id is the path.

    Raises CorpusError where the folder holds no .json and no .rttm file.
    """
    if not folder.is_dir() or next(walk(folder, (".json", ".rttm")), None) is None:
        raise CorpusError(folder, "recordings with turns, as X.json or in .rttm files", "neither")
    ids, named = OnDisk(), OnDisk()

    def recording(bare: Path, rows: Sequence[Entry]) -> tuple[Clip, list[Bad]]:
        path = locate(bare.parent, bare.name)
        inside = path.relative_to(folder)
        named.put(inside.as_posix())
        clip = described(Entry(path), inside.with_suffix("").as_posix(), path, *sound(path), given)
        cut: list[bool] = []
        turns, bad = parted(rows, lambda row: turn_of(row, clip.duration, cut))
        speaker, text, events = spoken(turns)
        labels = (("n_speakers", str(len({turn.speaker for turn in turns}))),)
        flags = (*clip.flags, *(("turns-cut",) if any(cut) else ()), *((TURNS_LEFT_OUT,) if bad else ()))
        return replace(clip, speaker=speaker, text=text, labels=labels, events=events, flags=flags), bad

    for path in walk(folder, (".json",)):
        try:
            rows = _json_turns(path)
        except ValueError as error:
            named.put(locate(path.parent, path.stem).relative_to(folder).as_posix())
            yield Entry(path).bad(error)
        else:
            yield from clip_and_bad(Entry(path), partial(recording, path.with_suffix(""), rows), ids)
    of_rttm = chain.from_iterable(rttm_turns(path) for path in walk(folder, (".rttm",)))
    for turns in grouped(of_rttm, "recording"):
        if isinstance(turns, Bad):
            yield turns
            continue
        bare = Path(turns[0].text("recording"))
        if not bare.with_name(f"{bare.name}.json").is_file():
            yield from clip_and_bad(turns[0], partial(recording, bare, turns), ids)
    yield from unnamed(folder, named, "turns")


def spoken(turns: Sequence[Turn]) -> tuple[str | None, str | None, tuple[Event, ...]]:
    """Speaker, text and events of a clip with these turns.

    The speaker where there is only one; a line of text for each turn, in order of time, None where none has text; an
    event for each turn whose speaker is known. No turns give (None, None, ()).
    """
    turns = sorted(turns, key=lambda turn: turn.span)
    speakers = {turn.speaker for turn in turns}
    texts = [" ".join((turn.text or "").split()) for turn in turns]
    named = [turn for turn in turns if turn.speaker is not None]
    events = tuple(Event(f"{SPEAKER}{turn.speaker}", turn.span.start, turn.span.end) for turn in named)
    return speakers.pop() if len(speakers) == 1 else None, "\n".join(texts) if any(texts) else None, events


def turn_of(row: Entry, duration: Seconds, cut: list[bool]) -> Turn:
    """The turn, cut at the recording's end; `cut` gets whether it was. ValueError where it has no speaker or time."""
    start = row.number("start")
    end, is_cut = cut_at(duration, start, row.number("end"))
    turn = Turn(Span(start, end), row.text("speaker"), row.maybe("text"))
    cut.append(is_cut)
    return turn


def _json_turns(path: Path) -> list[Entry]:
    """Raises RecordError where the file is not JSON with a list of turns."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RecordError(None, f"is not JSON ({error})") from None
    turns = content.get("turns") if isinstance(content, dict) else content
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RecordError("turns", f"must be a list of objects, got {turns!r:.80}")
    return [Entry(path, None, turn) for turn in turns]


def rttm_turns(path: Path) -> Iterator[Entry | Bad]:
    """The turns of lines SPEAKER RECORDING CHANNEL START DURATION <NA> <NA> NAME ...; other types are passed over.

    Names may hold blanks, as those of files do.
    """

    def turn(entry: Entry) -> Entry:
        fields = RTTM_LINE.fullmatch(entry.text("line"))
        if fields is None:
            raise RecordError(None, "must be SPEAKER RECORDING CHANNEL START DURATION <NA> <NA> NAME")
        recording, start, duration, speaker = fields.groups()
        end = round(float(start) + float(duration), 6)  # both are written with few digits
        values = {"recording": str(path.parent / recording), "start": float(start), "end": end}
        return Entry(path, entry.line, {**values, "speaker": speaker})

    rows = (row for row in lines(path) if isinstance(row, Bad) or row.text("line").split()[0] == "SPEAKER")
    yield from made(rows, turn)
