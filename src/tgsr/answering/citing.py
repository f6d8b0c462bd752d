"""Spans that a text cites, held against the words that were said; and the words of a transcript, looked up.

Words are compared without case and punctuation. All times are seconds on one clip.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from tgsr.data.transcribe.transcript import Line
from tgsr.grounding import Mention, find_mentions
from tgsr.timeline import Seconds, Span, Word, cover

SLACK: Seconds = 0.25  # Whisper's word times are this far off now and then
SAME = 0.75  # SequenceMatcher's ratio of two word sequences that say the same: a quarter may be misheard
QUOTED = re.compile(r"[\"“”]([^\"“”]+)[\"“”]")
COMMON = frozenset(
    """
    a an the and or but if of in on at to for from by with about into over is are was were be been being
    do does did has have had it its this that these those he she they them his her their him i you we me
    my your our us what which who whom whose when where why how not no so as than then there here just
    can could will would should may might must say says said speaker recording clip audio mention
    mentioned mentions talk talks talked tell tells told one's according ever any some
    """.split()  # noqa: SIM905  one a line would be a page
)


def bare(text: str) -> str:
    """A word without case and punctuation; "" where nothing is left."""
    return re.sub(r"[^\w']", "", text.lower()).strip("'")


def bare_words(text: str) -> list[str]:
    """The text's words by their letters alone: "U.S." is one, "us"; a hyphen parts two."""
    return [word for word in map(bare, re.split(r"[\s\-–—/]+", text)) if word]


def relevance(query: str, lines: Sequence[Line]) -> list[float]:
    """How much of the query's content each line says, 0 to 1: its words weighted by how rare they are in the lines.

    Words are compared by their first five letters, so that "ships" finds "ship's". A query without content words,
    or whose words appear nowhere, gives zeros.
    """
    stems = [{word[:5] for word in bare_words(line.text)} for line in lines]
    known = Counter(stem for line in stems for stem in line)
    wanted = {word[:5] for word in bare_words(query) if word not in COMMON}
    weight = {stem: math.log(1 + len(lines) / (known[stem] or 0.5)) for stem in wanted}
    total = sum(weight.values())
    return [sum(weight[stem] for stem in wanted & line) / total if total else 0.0 for line in stems]


def find_phrase(phrase: str, words: Sequence[Word]) -> tuple[Span, float] | None:
    """The stretch of words that reads most like `phrase`, and how alike they are, 0 to 1. None without words.

    Stretches as long as the phrase, one word shorter and one longer are compared, as characters, so that a word that
    was misheard counts for the letters that were heard.
    """
    wanted = bare_words(phrase)
    spoken = [bare(word.text) for word in words]
    best: tuple[float, int, int] | None = None
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(" ".join(wanted))
    for n in sorted({max(1, len(wanted) - 1), len(wanted), len(wanted) + 1}):
        for first in range(len(spoken) - n + 1):
            matcher.set_seq1(" ".join(spoken[first : first + n]))
            if best is not None and matcher.quick_ratio() <= best[0]:
                continue
            ratio = matcher.ratio()
            if best is None or ratio > best[0]:
                best = (ratio, first, first + n)
    if best is None or not wanted:
        return None
    span = cover(word.span for word in words[best[1] : best[2]])
    return None if span is None else (span, best[0])


@dataclass(frozen=True, slots=True)
class Citation:
    """An interval that a text cites, the text's quotation from it, if any, and the `reason` why it is unsupported.

    "" where the transcript supports it.
    """

    mention: Mention
    quote: str | None
    reason: str

    @property
    def supported(self) -> bool:
        return not self.reason


def check_citations(text: str, words: Sequence[Word]) -> tuple[Citation, ...]:
    """Each cited interval, in order: supported where words are said in it, and the quoted ones where words are quoted.

    The quote is the first one in quotation marks after the interval, in its line and before the next interval.
    """
    citations = []
    mentions = find_mentions(text)
    for index, mention in enumerate(mentions):
        line_end = text.find("\n", mention.text_end)
        stop = len(text) if line_end < 0 else line_end
        if index + 1 < len(mentions):
            stop = min(stop, mentions[index + 1].text_start)
        match = QUOTED.search(text, mention.text_end, stop)
        quote = match.group(1) if match else None
        citations.append(Citation(mention, quote, _wrong(mention, quote, words)))
    return tuple(citations)


def _wrong(mention: Mention, quote: str | None, words: Sequence[Word]) -> str:
    span = mention.span
    if span is None:
        return "it ends before it starts"
    # A word belongs to the interval where its middle does, give or take what word times are off by.
    inside = [w for w in words if span.start - SLACK <= (w.start + w.end) / 2 <= span.end + SLACK]
    if not inside:
        return "nothing is said there"
    if quote is None:
        return ""
    _, likeness = find_phrase(quote, inside) or (None, 0.0)
    if likeness < SAME:
        return f"other words are said there: {' '.join(w.text for w in inside)[:80]!r}"
    return ""


def marked(text: str, words: Sequence[Word]) -> str:
    """The text with a mark on a line of its own after each line that cites what the transcript does not support.

    The last line, where the answer is read, stays the last; the mark is worded so that neither counter of timestamps
    sees another interval in it.
    """
    wrong = [citation for citation in check_citations(text, words) if not citation.supported]
    lines = text.split("\n")
    last = max((i for i, line in enumerate(lines) if line.strip()), default=0)
    for citation in reversed(wrong):
        line = text.count("\n", 0, citation.mention.text_start)
        mark = f"(not supported by the transcript: what is cited at {citation.mention.start:g} s; {citation.reason})"
        lines.insert(line + 1 if line < last else line, mark)
        last += 1
    return "\n".join(lines)
