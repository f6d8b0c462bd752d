"""What every back end returns: words with times, and flags; the guard is the same for all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from tgsr.data.alignments.cues import ABBREVIATED
from tgsr.data.transcribe.hallucinations import Heard, doubt, with_room
from tgsr.data.transcribe.speech import is_among, unheard
from tgsr.records import INVENTED, NO_SPEECH, NOT_ENGLISH, UNHEARD
from tgsr.timeline import Hole, Seconds, Span, Word, cover, text_of

ENGLISH = "en"
# A word with a stop that is no abbreviation.
FALSE_STOP = re.compile(
    r"(?!(?:etc|approx|inc|ltd|co|corp|cf|al|dept|est|fig|vol|pp|ca|jr|sr|ave|blvd)\.)[^\W_]{2,}[^.]*\.",
    re.IGNORECASE,
)
SURE = 0.6  # of a language: below it a short clip of English digits is also Welsh or Korean


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a clip of `duration` seconds; () where nobody speaks. `source` made words and times.

    Words are in order, inside the clip and start < end; neighbours may overlap by Whisper's step of 0.02 s.
    `language` is what was heard (ISO 639-1), None where no one asked. `flags` are those of records.py. `holes` are
    where somebody speaks and no words could be written.
    """

    words: tuple[Word, ...]
    duration: Seconds
    source: str
    language: str | None = None
    flags: tuple[str, ...] = ()
    holes: tuple[Hole, ...] = ()

    @property
    def text(self) -> str:
        return text_of(self.words)


class Backend(Protocol):
    """Words and their times from sound; `source` goes into every word."""

    source: str

    def __call__(self, samples: np.ndarray) -> Transcript:
        """16 kHz mono float32 of any length -> its words, in the language that is spoken; none where nobody speaks."""
        ...

    def many(self, clips: Sequence[np.ndarray]) -> list[Transcript]:
        """The same for several clips, in order; some back ends hear them together."""
        return [self(samples) for samples in clips]


def judged(
    stretches: Sequence[Heard],
    speech: np.ndarray,
    seconds: Seconds,
    source: str,
    language: str | None,
    sure: float,
) -> Transcript:
    """What is left of a back end's stretches: none that is held to be invented, none where nobody speaks.

    `speech` says of each frame whether somebody speaks (speech.py): where no words are left for it there is a hole, and
    the flag UNHEARD. `sure` is the probability of `language`, in [0, 1]: what is not surely another language was heard
    as English (`heard_as`).
    """
    spoken = heard_as(language, sure)
    shortened = [with_room(heard, speech) for heard in stretches]
    kept = [heard for heard in shortened if doubt(heard, speech) is None and is_among(speech, heard.words)]
    words = sorted((word for heard in kept for word in heard.words), key=lambda word: word.start)
    holes = holes_of(speech, words, seconds)
    flags: tuple[str, ...] = (NOT_ENGLISH,) if spoken != ENGLISH else ()
    flags += (INVENTED,) if kept != list(stretches) else ()
    flags += (UNHEARD,) if holes else () if words else (NO_SPEECH,)
    return Transcript(without_false_stops(words), seconds, source, spoken if language else None, flags, holes)


def without_false_stops(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words without a full stop before one in small letters: Whisper ends each stretch as if it were a sentence."""
    mended = list(words)
    for n, (word, following) in enumerate(pairwise(words)):
        if FALSE_STOP.fullmatch(word.text) and following.text.islower() and word.text not in ABBREVIATED:
            mended[n] = replace(word, text=word.text[:-1])
    return tuple(mended)


def heard_as(language: str | None, sure: float) -> str:
    """The language that a stretch is heard in: the one that was detected, English where nobody is sure of another."""
    return ENGLISH if language is None or sure < SURE else language


def holes_of(speech: np.ndarray, words: Sequence[Word], seconds: Seconds) -> tuple[Hole, ...]:
    """Where somebody speaks and no word is, in a clip of so many seconds; see `unheard`."""
    spans = unheard(speech, words)
    return tuple(Hole(round(span.start, 2), round(min(span.end, seconds), 2)) for span in spans)


PAUSE: Seconds = 0.6  # that ends a line
MOST_WORDS = 16  # a line


@dataclass(frozen=True, slots=True)
class Line:
    """Neighbouring words of a transcript, about a sentence."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return text_of(self.words)

    @property
    def speaker(self) -> str | None:
        """Who says the first word."""
        return self.words[0].speaker

    @property
    def span(self) -> Span:
        span = cover(word.span for word in self.words)
        assert span is not None  # a line has words
        return span

    @property
    def timed(self) -> str:
        """As a prompt has it: "[1.00s - 2.50s] CH1: Who is there?", the speaker where one is known."""
        who = f"{self.speaker}: " if self.speaker else ""
        return f"[{self.span.start:.2f}s - {self.span.end:.2f}s] {who}{self.text}"


def lines_of(words: Sequence[Word]) -> list[Line]:
    """The transcript cut at sentence ends and pauses, and where a line grows long. Every word is in one line."""
    lines: list[list[Word]] = []
    for word in words:
        last = lines[-1][-1] if lines else None
        ends = last is not None and (
            (last.text.endswith((".", "?", "!")) and last.text not in ABBREVIATED)
            or word.start - last.end > PAUSE
            or len(lines[-1]) >= MOST_WORDS
        )
        if last is None or ends:
            lines.append([])
        lines[-1].append(word)
    return [Line(tuple(line)) for line in lines]
