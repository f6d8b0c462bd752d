"""Words as a clip can hold them: in order, inside the recording, and one at a time for each speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from tgsr.timeline import Seconds, Word

WORDS_PAST_END = "words-past-end"
"""Words that begin at the recording's end or after it were left out."""

WORDS_CUT = "words-cut"
"""Words that run past the recording's end now end there."""

WORDS_DOUBLED = "words-doubled"
"""Words were there more than once, alike in everything; one of each is left."""

WORDS_SORTED = "words-sorted"
"""Words did not come in the order of their starts; now they do."""

WORDS_WITHOUT_LENGTH = "words-without-length"
"""Words that had, or were left with, less than 0.01 s were left out."""

OVERLAPS_TRIMMED = "overlaps-trimmed"
"""Words of one speaker overlapped; each two neighbours now meet in the middle of what they shared."""

SHORTEST: Seconds = 0.01  # aligners' step
ROUNDING: Seconds = 1e-6  # a time that is off by less is rounded, not wrong, and is left as it is


def mended(words: Sequence[Word], duration: Seconds) -> tuple[tuple[Word, ...], tuple[str, ...]]:
    """Words that fit a recording of `duration` seconds, and a flag for each kind of thing that was put right.

    The words come in the order of their starts, end inside the recording, last at least 0.01 s, and do not overlap
    others of their speaker (None is a speaker like any other; different speakers may talk at once). Words that
    need nothing come back as they were, with (); so does what this returns. No words give ((), ()).
    Raises ValueError unless duration is positive and finite.
    """
    if not 0 < duration < float("inf"):
        raise ValueError(f"duration must be more than 0 s and finite, got {duration}")
    flags: list[str] = []

    def flagged(flag: str, before: list[Word], after: list[Word]) -> list[Word]:
        if after != before:
            flags.append(flag)
        return after

    kept = list(words)
    kept = flagged(WORDS_PAST_END, kept, [word for word in kept if word.start < duration])
    cut = [replace(word, end=duration) if word.end > duration + ROUNDING else word for word in kept]
    kept = flagged(WORDS_CUT, kept, cut)
    kept = flagged(WORDS_DOUBLED, kept, list(dict.fromkeys(kept)))
    kept = flagged(WORDS_SORTED, kept, _sorted(kept))
    kept = flagged(WORDS_WITHOUT_LENGTH, kept, [word for word in kept if _lasts(word.start, word.end)])
    while (spans := _shared_out(kept)) != [(word.start, word.end) for word in kept]:
        flags.append(OVERLAPS_TRIMMED)
        # a round that leaves overlaps has left out a word: words inside words inside words
        lasting = [(word, span) for word, span in zip(kept, spans, strict=True) if _lasts(*span)]
        if len(lasting) < len(kept):
            flags.append(WORDS_WITHOUT_LENGTH)
        kept = _sorted([replace(word, start=start, end=end) for word, (start, end) in lasting])
    return tuple(kept), tuple(dict.fromkeys(flags))


def _sorted(words: list[Word]) -> list[Word]:
    return sorted(words, key=lambda word: word.start)


def _lasts(start: Seconds, end: Seconds) -> bool:
    return end - start >= SHORTEST - ROUNDING


def _shared_out(words: list[Word]) -> list[tuple[Seconds, Seconds]]:
    """Start and end of each of the sorted words once its speaker's neighbours share what overlaps; may be reversed."""
    spans = [(word.start, word.end) for word in words]
    places: dict[str | None, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word.speaker, []).append(place)
    for of_speaker in places.values():
        for left, right in pairwise(of_speaker):
            overlap_start, overlap_end = words[right].start, min(words[left].end, words[right].end)
            if overlap_end > overlap_start + ROUNDING:
                middle = (overlap_start + overlap_end) / 2
                spans[left] = (spans[left][0], min(spans[left][1], middle))
                spans[right] = (max(spans[right][0], middle), spans[right][1])
    return spans
