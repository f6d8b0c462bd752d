"""Words as a clip can hold them: in order, inside the recording, and one at a time for each speaker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from tgsr.timeline import Hole, Seconds, Word

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
WORDS_MISSING = "words-missing"
"""Words are missing where `Clip.holes` says; no question goes across them."""
OVERLAPS_TRIMMED = "overlaps-trimmed"
"""Words of one speaker overlapped; each two neighbours now meet in the middle of what they shared."""

SHORTEST: Seconds = 0.01  # aligners' step
ROUNDING: Seconds = 1e-6  # a time that is off by less is rounded, not wrong, and is left as it is


class Mended(NamedTuple):
    """Words that fit their recording, what was put right, and where words are missing."""

    words: tuple[Word, ...]
    flags: tuple[str, ...]
    holes: tuple[Hole, ...]


class _Placed(NamedTuple):
    """A word, and which one of its speaker's it is in the order in which they came."""

    word: Word
    place: int


def mended(words: Sequence[Word], duration: Seconds) -> Mended:
    """Words that fit a recording of `duration` seconds, and a flag for each kind of thing that was put right.

    The words come in the order of their starts, end inside the recording, last at least 0.01 s, and do not overlap
    others of their speaker (None is a speaker like any other; different speakers may talk at once). Words that
    need nothing come back as they were, with (), (); so does what this returns. No words give ((), (), ()).
    Holes are left by words without length, and between two words of a speaker that follow each other but did not come
    one after the other: what belongs between them stands elsewhere.
    Raises ValueError unless duration is positive and finite.
    """
    if not 0 < duration < float("inf"):
        raise ValueError(f"duration must be more than 0 s and finite, got {duration}")
    flags: list[str] = []
    short: list[_Placed] = []
    kept = _placed(words)

    def flagged(flag: str, before: list[_Placed], after: list[_Placed]) -> list[_Placed]:
        if after != before:
            flags.append(flag)
        return after

    def lasting(placed: list[_Placed], spans: list[tuple[Seconds, Seconds]]) -> list[_Placed]:
        pairs = list(zip(placed, spans, strict=True))
        short.extend(one for one, span in pairs if not _lasts(*span))
        return [_timed(one, *span) for one, span in pairs if _lasts(*span)]

    kept = flagged(WORDS_PAST_END, kept, [one for one in kept if one.word.start < duration])
    ends = [duration if one.word.end > duration + ROUNDING else one.word.end for one in kept]
    cut = [_timed(one, one.word.start, end) for one, end in zip(kept, ends, strict=True)]
    kept = flagged(WORDS_CUT, kept, cut)
    first_of_each: dict[Word, _Placed] = {}
    for one in kept:
        first_of_each.setdefault(one.word, one)
    kept = flagged(WORDS_DOUBLED, kept, list(first_of_each.values()))
    kept = flagged(WORDS_SORTED, kept, _sorted(kept))
    kept = flagged(WORDS_WITHOUT_LENGTH, kept, lasting(kept, _spans(kept)))
    while (spans := _shared_out([one.word for one in kept])) != _spans(kept):
        flags.append(OVERLAPS_TRIMMED)
        # a round that leaves overlaps has left out a word: words inside words inside words
        left = lasting(kept, spans)
        if len(left) < len(kept):
            flags.append(WORDS_WITHOUT_LENGTH)
        kept = _sorted(left)
    holes = [*_gaps(kept, short), *(Hole(w.start, w.end, w.text, w.speaker) for w, _ in short)]
    return Mended(tuple(one.word for one in kept), tuple(dict.fromkeys(flags)), tuple(holes))


def gaps(words: Sequence[Word]) -> tuple[Hole, ...]:
    """A hole between every two words of a speaker that follow each other in time but not in `words`."""
    return tuple(_gaps(_sorted(_placed(words)), []))


def _gaps(placed: list[_Placed], short: list[_Placed]) -> Iterator[Hole]:
    """The same for words in order of time. Words of `short` that are all that is missing in one are taken out of it."""
    last: dict[str | None, _Placed] = {}
    for one in placed:
        speaker = one.word.speaker
        if (before := last.get(speaker)) is not None and one.place != before.place + 1:
            missing = [w for w in short if w.word.speaker == speaker and before.place < w.place < one.place]
            is_all = len(missing) == one.place - before.place - 1
            text = " ".join(w.word.text for w in missing) if is_all else ""
            for word in missing if text else ():
                short.remove(word)
            yield Hole(before.word.end, max(before.word.end, one.word.start), text or None, speaker)
        last[speaker] = one


def _placed(words: Sequence[Word]) -> list[_Placed]:
    places: dict[Word, int] = {}
    n_of: Counter[str | None] = Counter()
    for word in words:
        if word not in places:  # a doubled word is the same word
            places[word] = n_of[word.speaker]
            n_of[word.speaker] += 1
    return [_Placed(word, places[word]) for word in words]


def _timed(placed: _Placed, start: Seconds, end: Seconds) -> _Placed:
    if (start, end) == (placed.word.start, placed.word.end):
        return placed
    return _Placed(replace(placed.word, start=start, end=end), placed.place)


def _spans(placed: list[_Placed]) -> list[tuple[Seconds, Seconds]]:
    return [(one.word.start, one.word.end) for one in placed]


def _sorted(placed: list[_Placed]) -> list[_Placed]:
    return sorted(placed, key=lambda one: one.word.start)


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
