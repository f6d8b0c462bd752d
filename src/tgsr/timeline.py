"""Time on one clip: spans and words, in seconds from the clip's start."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Seconds = float

END_SLACK: Seconds = 0.05  # how far a time may pass its clip's end: published durations and times are rounded
ROUNDING = 1e-9  # of differences of times: 0.6 - 0.5 is not quite 0.1, and 1.1 - 1.0 a little more


def is_past_end(end: Seconds, duration: Seconds) -> bool:
    """Whether a time lies more than END_SLACK after the end of a clip of that length."""
    return end > duration + END_SLACK + ROUNDING


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open stretch [start, end) of one clip, in seconds from its start.

    Raises ValueError unless 0 <= start < end and both are finite. What a model wrote may break
    this rule: `tgsr.grounding` is where such text is counted instead of raised.
    """

    start: Seconds
    end: Seconds

    def __post_init__(self) -> None:
        if not (0 <= self.start < self.end and math.isfinite(self.end)):
            raise ValueError(f"span must satisfy 0 <= start < end, got [{self.start}, {self.end})")

    @property
    def duration(self) -> Seconds:
        return self.end - self.start

    def overlap(self, other: Span) -> Seconds:
        """Seconds that both spans cover; 0 where they only touch."""
        return max(0.0, min(self.end, other.end) - max(self.start, other.start))

    def iou(self, other: Span) -> float:
        """Intersection over union, in [0, 1]."""
        shared = self.overlap(other)
        return shared / (self.duration + other.duration - shared)

    def padded(self, pad: Seconds, duration: Seconds) -> Span | None:
        """This span, `pad` seconds wider on both sides and cut to [0, duration).

        None where nothing of the span itself lies inside the clip, or where nothing is left.
        """
        if self.start >= duration:
            return None
        start, end = max(0.0, self.start - pad), min(duration, self.end + pad)
        return Span(start, end) if start < end else None


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it was said: text, span, and, where known, who said it.

    `source` says where the times came from ("exact", "whisper", "forced-alignment", ...) and
    `confidence` is that source's own number in [0, 1]; both are None where nobody knows.
    """

    text: str
    start: Seconds
    end: Seconds
    speaker: str | None = None
    source: str | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        Span(self.start, self.end)  # the same rule, the same error

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


def text_of(words: Iterable[Word]) -> str:
    """What the words say, a blank between each two."""
    return " ".join(word.text for word in words)


def in_order(words: Iterable[Word]) -> list[Word]:
    """The words in order of time: by their starts, those of one start by their ends."""
    return sorted(words, key=lambda word: (word.start, word.end))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is heard and is no word, such as a sound or a stretch of music; `label` names it."""

    label: str
    start: Seconds
    end: Seconds

    def __post_init__(self) -> None:
        Span(self.start, self.end)  # the same rule, the same error

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch [start, end] in which something is, or may be, said that has no word; no phrase goes across it.

    `text` is what is said there, where that is known and only its time is not; `speaker` who says it; `source` where
    the text is from, as a word's: "text" for one that stands in a given text and was not heard. It may have no length:
    a word that is missing between two that touch. Raises ValueError unless 0 <= start <= end, both finite.
    """

    start: Seconds
    end: Seconds
    text: str | None = None
    speaker: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.start <= self.end and math.isfinite(self.end)):
            raise ValueError(f"hole must satisfy 0 <= start <= end, got [{self.start}, {self.end}]")


def merge(spans: Iterable[Span]) -> list[Span]:
    """The union of the spans as disjoint spans in order of time; touching spans become one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def cover(spans: Iterable[Span]) -> Span | None:
    """The shortest span that holds all of them; None where there are none."""
    spans = list(spans)
    if not spans:
        return None
    return Span(min(s.start for s in spans), max(s.end for s in spans))
