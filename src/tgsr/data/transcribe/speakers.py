"""Who says a word: the channel that it is on, or the turn of a diarisation that it lies in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tgsr.audio import SAMPLE_RATE, Samples
from tgsr.data.corpora.multispeaker import SPEAKER, rttm_turns, turn_of
from tgsr.data.transcribe.again import same_place
from tgsr.data.transcribe.given_text import spoken
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.timeline import Event, Seconds, Word, in_order

STEP: Seconds = 0.05  # of loudness
LEAK = 10.0  # times as loud (20 dB) as a word is what another channel says meanwhile: it is heard from there
LEAST_LEAK = 2.0  # and as loud (6 dB) at least, where the channels leak more
FEWEST_LEAKED = 3  # words that are heard on both channels, from which it is known how much leaks
BESIDE: Seconds = 0.5  # from a word to the turn that it is counted to


def channel_name(channel: int) -> str:
    """CH1 is the first: no blank, and in capitals, so that every format that is written gives it back."""
    return f"CH{channel + 1}"


def loudness(pieces: Iterable[Samples]) -> np.ndarray:
    """The root mean square of each STEP of sound, as `audio.stream` gives it."""
    n = round(STEP * SAMPLE_RATE)
    found: list[np.ndarray] = []
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole = len(rest) // n * n
        found.append(np.sqrt(np.square(rest[:whole], dtype=np.float64).reshape(-1, n).mean(axis=1)))
        rest = rest[whole:]
    if len(rest):
        found.append(np.sqrt(np.square(rest, dtype=np.float64).mean(keepdims=True)))
    return np.concatenate(found) if found else np.zeros(0)


def without_leaks(words: Sequence[Word], loud: dict[str | None, np.ndarray]) -> list[Word]:
    """The words of all channels in order, without those that are heard on a channel because another one leaks into it.

    That is the same word at the same time on two channels, of which the louder has it (the first, where they are the
    same); and any word where another is said at the same time, LEAK times as loud, or as much louder as half of these
    same words are. `loud` is `loudness` by speaker.
    """

    def level(word: Word, channel: str | None) -> float:
        first = int(word.start / STEP)
        stretch = loud[channel][first : max(first + 1, round(word.end / STEP))]
        return float(stretch.mean()) if len(stretch) else 0.0

    ordered = in_order(words)
    # Of a word that may leak: which it is, how much louder the other channel is, and whether that says the same.
    compared: list[tuple[int, float, bool]] = []
    for n, word in enumerate(ordered):
        for m in range(n + 1, len(ordered)):
            other = ordered[m]
            if other.start >= word.end:
                break
            if other.speaker == word.speaker or not same_place(word, other):
                continue
            is_same = spoken(word.text) == spoken(other.text)
            for index, one, louder in ((m, other, word), (n, word, other)):
                ratio = (level(one, louder.speaker) + 1e-9) / (level(one, one.speaker) + 1e-9)
                if ratio >= 1:
                    compared.append((index, ratio, is_same))
                    break
    twice = [ratio for _, ratio, is_same in compared if is_same]
    enough = LEAK
    if len(twice) >= FEWEST_LEAKED:
        enough = min(LEAK, max(LEAST_LEAK, float(np.median(twice)) / 2))
    leaked = {index for index, ratio, is_same in compared if is_same or ratio > enough}
    return [word for n, word in enumerate(ordered) if n not in leaked]


def named_by_turns(words: Sequence[Word], events: Sequence[Event]) -> tuple[Word, ...]:
    """The words, each with the speaker whose turns it shares most time with, or whose turn is nearest, up to BESIDE.

    Turns are the events "speaker NAME". Words that are in nobody's turn, and those whose speaker is known, stay so.
    """
    turns = sorted((e for e in events if e.label.startswith(SPEAKER)), key=lambda turn: turn.start)
    longest = max((turn.end - turn.start for turn in turns), default=0.0)
    named: list[Word] = []
    first = 0
    for word in in_order(words):
        while first < len(turns) and turns[first].start + longest + BESIDE < word.start:
            first += 1
        shared: dict[str, tuple[Seconds, Seconds]] = {}  # with whom for how long, and minus how far off
        for turn in turns[first:]:
            if turn.start > word.end + BESIDE:
                break
            apart = max(turn.start - word.end, word.start - turn.end)
            if apart <= BESIDE:
                name = turn.label.removeprefix(SPEAKER)
                before, nearest = shared.get(name, (0.0, -BESIDE))
                shared[name] = (before + max(0.0, -apart), max(nearest, min(0.0, -apart)))
        if shared and word.speaker is None:
            word = replace(word, speaker=max(shared, key=lambda name: shared[name]))
        named.append(word)
    return tuple(named)


def turns_of(path: Path, name: str, duration: Seconds) -> tuple[Event, ...]:
    """The turns of an RTTM file for the recording of that name, cut at its end.

    A file that names one recording alone is about it, whatever it is called; a blank in a name may be "_" there. A turn
    of no length, to which a diarizer's digits round a short one, says nothing of any word.
    RecordError for a line that is no turn, or begins after the recording; CorpusError where the file has no turn of it.
    """
    names = [one for of in (name, Path(name).stem) for one in (of, "_".join(of.split()))]
    turns: dict[str, list[Event]] = {}
    for row in rttm_turns(path):
        if isinstance(row, Bad):
            raise RecordError(None, row.error, str(path), row.line, "correct the line")
        if row.number("start") == row.number("end"):
            continue
        recording = Path(row.text("recording")).name
        try:
            turn = turn_of(row, duration, [])
        except RecordError as error:
            if recording in names:
                raise error.at(str(path), row.line or 0) from None
            continue
        except ValueError as error:
            raise RecordError(None, str(error), str(path), row.line, "correct the line") from None
        event = Event(f"{SPEAKER}{turn.speaker}", turn.span.start, turn.span.end)
        turns.setdefault(recording, []).append(event)
    chosen = next((called for called in names if called in turns), None)
    if chosen is None and len(turns) == 1:
        chosen = next(iter(turns))
    if chosen is None:
        found = ", ".join(list(turns)[:5]) or "no line SPEAKER ..."
        raise CorpusError(path, f"turns of {Path(name).stem!r}", found)
    return tuple(turns[chosen])
