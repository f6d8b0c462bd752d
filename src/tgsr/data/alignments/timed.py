"""What every reader of alignments gives: words, silences and marks as a file has them, in its order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import NamedTuple

from tgsr.data.alignments.marks import kind
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

DECIMALS = 6  # 0.1 + 0.2 s is not quite 0.3 s
WORD_BY_WORD = 0.9  # of the cues hold one word: then each cue's time is its word's
FEWEST_CUES = 3  # that can show it


class UnknownFormat(AlignmentError):
    """A file that is no alignment, or none that is known."""


class Timed(NamedTuple):
    """A word, a silence or a mark; None for a time that is not known. `where` is its place in a file without lines."""

    source: str
    text: str
    start: Seconds | None
    end: Seconds | None
    line: int | None
    speaker: str | None = None
    confidence: float | None = None
    recording: str = ""
    where: str = ""


class Cue(NamedTuple):
    """Words that share a stretch of time, each with its speaker; `is_exact` where a word alone has it for its own."""

    source: str
    words: tuple[tuple[str, str | None], ...]
    start: Seconds | None
    end: Seconds | None
    line: int | None
    is_exact: bool = False
    recording: str = ""
    where: str = ""


def shared_out(cues: Sequence[Cue]) -> Iterator[Timed]:
    """Every cue's time to its words by their number of characters: a guess, so confidence 0.0.

    Where nearly all cues hold one word, the times are those of words, and their confidence is not known.
    """
    n_words = [sum(kind(word) is None for word, _ in cue.words) for cue in cues]
    spoken = [n for n in n_words if n]
    by_word = len(spoken) >= FEWEST_CUES and spoken.count(1) >= WORD_BY_WORD * len(spoken)
    for cue, n in zip(cues, n_words, strict=True):
        source, words, start, end, line, is_exact, recording, where = cue
        confidence = None if n == 1 and (is_exact or by_word) else 0.0
        ends = [*accumulate(len(word) if kind(word) is None else 0 for word, _ in words)]
        total = max([1, *ends[-1:]])
        bounds = [_between(start, end, n / total) for n in (0, *ends)]
        for (word, speaker), (first, last) in zip(words, pairwise(bounds), strict=True):
            yield Timed(source, word, first, last, line, speaker, confidence, recording, where)


def completed(rows: Sequence[Timed], text: str | None) -> list[Timed]:
    """The rows, and between them, without times, the words that the text has and no row has: nobody knows when.

    Words are compared without case and signs; where others stand instead (10, ten), nothing is missing.
    """
    words = (text or "").split()
    wanted, there = [_letters(word) for word in words], [_letters(row.text) for row in rows]
    if not rows or "".join(wanted) == "".join(there):
        return list(rows)
    whole: list[Timed] = []
    for what, first, last, here, end in SequenceMatcher(None, wanted, there, autojunk=False).get_opcodes():
        if what == "delete":
            like = rows[max(here - 1, 0)]._replace(start=None, end=None, confidence=None)
            whole += [like._replace(text=word) for word in words[first:last] if _letters(word)]
        whole += rows[here:end]
    return whole


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def said(text: str, speaker: str | None = None) -> tuple[tuple[str, str | None], ...]:
    """The words of a text, all by one speaker, as a cue has them."""
    return tuple((word, speaker) for word in text.split())


def _between(start: Seconds | None, end: Seconds | None, share: float) -> Seconds | None:
    if start is None or end is None:
        return None
    return round(start + (end - start) * share, DECIMALS)


def number(text: str) -> float | None:
    """The finite number that the text is; None where it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
