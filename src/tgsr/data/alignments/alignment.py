"""One recording's words as others timed them, and where words are missing."""

from __future__ import annotations

import html
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from tgsr.data.alignments.marks import kind, marks_joined
from tgsr.data.alignments.timed import Timed
from tgsr.errors import AlignmentError
from tgsr.timeline import Hole, Seconds, Word

EARLY: Seconds = 0.1  # a word may begin before the recording, by rounding, and is cut
SAME_LENGTH: Seconds = 0.5  # a recording as long as its alignment
# soft hyphens and marks of direction; joiners, which other scripts need, stay
UNSEEN = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
CUES = 0.0  # the confidence of times that are shared out


class Missing(NamedTuple):
    """A hole whose end is infinite where it lasts to the recording's end, whenever that is."""

    start: Seconds
    end: Seconds
    text: str | None
    speaker: str | None


@dataclass(frozen=True, slots=True)
class Alignment:
    """Words in the file's order, and what is missing between them.

    `bounds` are the start and end that a file states for itself; a recording that was cut out of a longer one may
    keep the longer one's clock.
    """

    words: tuple[Word, ...] = ()
    missing: tuple[Missing, ...] = ()
    bounds: tuple[Seconds, Seconds] | None = None

    @property
    def is_guessed(self) -> bool:
        """Whether the times are those of cues, shared out, for most words."""
        return 2 * sum(word.confidence == CUES for word in self.words) > len(self.words)

    def on(self, duration: Seconds) -> tuple[tuple[Word, ...], tuple[Hole, ...]]:
        """The words and holes on the clock of a recording that lasts `duration` seconds.

        Where the file's own clock begins after 0 s, the words are moved if the recording is as long as the file says,
        and stay where they are if it reaches to the file's end. Raises AlignmentError where it does neither.
        """
        start, end = self.bounds or (0.0, duration)
        offset = start if end > duration + EARLY else 0.0
        if start < -EARLY or (offset and abs(end - start - duration) > SAME_LENGTH):
            problem = f"is about {start:g} s to {end:g} s, the recording lasts {duration:g} s"
            raise AlignmentError(problem, "give the recording that it belongs to")

        def moved(time: Seconds) -> Seconds:
            return max(0.0, round(time - offset, 6)) if offset else time

        words = [replace(w, start=moved(w.start), end=moved(w.end)) for w in self.words]
        missing = [(moved(m.start), min(moved(m.end), duration), m.text, m.speaker) for m in self.missing]
        return tuple(words), tuple(Hole(*hole) for hole in missing if hole[0] <= hole[1])


class Kept(NamedTuple):
    """The alignment of one recording; how many words had no usable time, and the first of them."""

    alignment: Alignment
    n_left_out: int
    first: Timed | None


def kept(rows: Sequence[Timed]) -> Kept:
    """What one recording's rows hold: words where they have a time; holes where something has none, or no words.

    A hole lies at its row's own time where that fits between the words before and after it, else between them.
    """
    entries: list[Word | Timed] = []
    left_out: list[Timed] = []
    for row in joined(rows):
        what = kind(row.text)
        if what == "silence":
            continue
        start, end = row.start, row.end
        if start is not None and -EARLY <= start < 0:
            start = 0.0
        if what is None and start is not None and end is not None and 0 <= start < end < math.inf:
            confidence = row.confidence
            if confidence is not None and not 0 <= confidence <= 1:  # NaN too
                confidence = None
            entries.append(Word(row.text, start, end, row.speaker, row.source, confidence))
            continue
        if what is None:
            left_out.append(row)
        entries.append(row._replace(text="" if what == "unknown" else row.text))
    words = tuple(entry for entry in entries if isinstance(entry, Word))
    alignment = Alignment(words, tuple(missing_in(entries)))
    return Kept(alignment, len(left_out), left_out[0] if left_out else None)


def joined(rows: Iterable[Timed]) -> list[Timed]:
    """The rows with plain texts; a mark of several words is one row."""
    plain = [row._replace(text=_plain(row.text)) for row in rows]
    sizes = marks_joined([row.text for row in plain])
    return [
        row
        if size == 1
        else row._replace(text=" ".join(r.text for r in plain[n : n + size]), end=plain[n + size - 1].end)
        for n, (row, size) in enumerate(zip(plain, sizes, strict=True))
        if size
    ]


def _plain(text: str) -> str:
    """Single blanks, nothing unseen, no entities, of which captions have even doubled ones (&amp;#39;)."""
    return " ".join(UNSEEN.sub("", html.unescape(html.unescape(text)) if "&" in text else text).split())


def missing_in(entries: Sequence[Word | Timed]) -> list[Missing]:
    """A hole for each entry that is no word; neighbours whose texts are known, at the same place, make one."""
    at = {n: entry for n, entry in enumerate(entries) if isinstance(entry, Word)}
    in_order = all(a.start <= b.start for a, b in pairwise(at.values()))
    places: dict[str | None, list[int]] = {}
    for n, word in at.items():
        # where channels come one after the other, a word's neighbours are its speaker's
        places.setdefault(None if in_order else word.speaker, []).append(n)
    missing: list[Missing] = []
    for n, entry in enumerate(entries):
        if isinstance(entry, Word):
            continue
        among = places.get(None if in_order else entry.speaker, [])
        place = bisect_left(among, n)
        first = at[among[place - 1]].end if place else 0.0
        last = max(first, at[among[place]].start) if place < len(among) else math.inf
        start, end = entry.start, entry.end
        if start is not None and end is not None and first - EARLY <= start <= end <= last + EARLY:
            first, last = max(0.0, start), max(0.0, end)
        hole = Missing(first, last, entry.text or None, entry.speaker)
        before = missing[-1] if missing else None
        if before and before.text and hole.text and before._replace(text=hole.text) == hole:
            missing[-1] = hole._replace(text=f"{before.text} {hole.text}")
        else:
            missing.append(hole)
    return missing
