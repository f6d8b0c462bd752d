"""What is heard a second time, by itself: speech that has no words yet; the same for every back end that hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.hallucinations import (
    FEW_MORE,
    LEAST_LOGP,
    MOST_REPEATS,
    Heard,
    doubt,
    plain,
    repeats,
    said_too_often,
    with_room,
)
from tgsr.data.transcribe.speech import FRAME, is_speech, unheard
from tgsr.data.transcribe.spelling import spell
from tgsr.data.transcribe.windows import Region, speech_regions
from tgsr.timeline import Seconds, Span, Word

SHORT: Seconds = 12.0  # of a stretch that is heard again: in a shorter one a text is less often a loop
AROUND: Seconds = 0.3  # of sound on both sides of what is heard again, never into a word


def to_hear_again(
    clip: int, samples: np.ndarray, probability: np.ndarray, heard: Sequence[Heard]
) -> list[Region]:
    """The regions of one clip to be heard again: its speech without words, all of it where there are none.

    `probability` is speech.py's for `samples`. Words that are held to be invented are none.
    """
    speech = is_speech(probability)
    words = _believed(heard, speech)
    holes = unheard(speech, words)
    if not words and not holes and speech.any():
        places = np.flatnonzero(speech)
        holes = [Span(float(places[0]) * FRAME, float(places[-1] + 1) * FRAME)]
    regions = []
    for hole in holes:
        before = max((word.end for word in words if word.end <= hole.start + FRAME), default=0.0)
        following = (word.start for word in words if word.start >= hole.end - FRAME)
        after = min(following, default=len(samples) / SAMPLE_RATE)
        start, end = max(before, hole.start - AROUND), min(after, hole.end + AROUND)
        first, stop = round(start / FRAME), round(end / FRAME)
        sound = samples[round(first * FRAME * SAMPLE_RATE) : round(stop * FRAME * SAMPLE_RATE)]
        for region in speech_regions(sound, clip, probability[first:stop], SHORT):
            regions.append(replace(region, start=region.start + first * FRAME))
    return regions


def with_second(heard: Sequence[Heard], region: Region, second: Heard, speech: np.ndarray) -> list[Heard]:
    """A clip's stretches with what was heard of a region again, where half of its speech or more has words then.

    What was invented there goes; words that stand already stay, and are not written twice. What was doubted because it
    repeats itself is believed where the same is heard again and again a second time: somebody does say it.
    """
    second = with_room(second, speech)
    if said_too_often(second.words, speech):
        return [replace(one, twice=one.twice or _is_the_same(one, region, second)) for one in heard]
    words = _believed(heard, speech)
    new = tuple(word for word in second.words if not any(same_place(word, old) for old in words))
    if not new or doubt(second, speech) or (second.logp is not None and second.logp < LEAST_LOGP):
        return list(heard)
    end = region.start + region.duration
    there = [word for word in words if word.end > region.start and word.start < end]
    first, stop = round(region.start / FRAME), round(end / FRAME)
    unheard_of = (unheard(speech[first:stop], said, first * FRAME) for said in (there, [*there, *new]))
    before, after = (sum(span.duration for span in spans) for spans in unheard_of)
    if words and after > before / 2:
        return list(heard)
    span = Span(new[0].start, new[-1].end)
    there_too = [one for one in heard if any(word.span.overlap(span) for word in one.words)]
    invented = [one for one in there_too if doubt(with_room(one, speech), speech)]
    return [*(one for one in heard if one not in invented), replace(second, words=new)]


def _is_the_same(first: Heard, region: Region, second: Heard) -> bool:
    """Whether a stretch repeats itself, in the region, too, not much more often than it is heard a second time, and
    nothing else is heard there then."""
    span = Span(region.start, region.start + region.duration)
    there = [word for word in first.words if word.span.overlap(span) > 0]
    n, n_again = (repeats(plain([word.text for word in words])) for words in (first.words, second.words))
    return MOST_REPEATS < n <= FEW_MORE * n_again and _spoken(second.words) <= _spoken(there)


def _spoken(words: Sequence[Word]) -> set[str]:
    """The words as they are said: one hearing writes "5", another "five"."""
    return {part for word in words for part in spell(word.text) or plain([word.text])}


def _believed(heard: Sequence[Heard], speech: np.ndarray) -> list[Word]:
    shortened = (with_room(stretch, speech) for stretch in heard)
    return [word for stretch in shortened if doubt(stretch, speech) is None for word in stretch.words]


def same_place(word: Word, other: Word) -> bool:
    """Whether more than half of the shorter word's time is the other's, too."""
    return word.span.overlap(other.span) > min(word.span.duration, other.span.duration) / 2
