"""What was said, as passages that are found by what they mean and by the words that they share with a question.

Looked for are lines (transcript.py), which are short enough to mean one thing; cited is the sentence around a line, as
the answer may go on in the next one. Whisper's sentences may be long and may lack their stops.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tgsr.answering.citing import relevance
from tgsr.data.transcribe.transcript import ABBREVIATED, Line, lines_of
from tgsr.disk.whole import whole
from tgsr.models.sentence_embeddings import SentenceEmbeddings
from tgsr.timeline import Seconds, Word

LONG_PAUSE: Seconds = 1.2  # across which no sentence goes on
MOST_WORDS = 32  # of the lines that are cited together
VECTORS = "minilm-1"  # names what is kept of lines: another number where they are cut, or embedded, otherwise


def sentence_around(lines: Sequence[Line], index: int) -> slice:
    """Which lines are the sentence of that one: at most MOST_WORDS words but for its own, and no long pause."""
    first, stop = index, index + 1
    while first and _goes_on(lines[first - 1], lines[first], n_words(lines[first - 1 : stop])):
        first -= 1
    while stop < len(lines) and _goes_on(lines[stop - 1], lines[stop], n_words(lines[first : stop + 1])):
        stop += 1
    return slice(first, stop)


def n_words(lines: Sequence[Line]) -> int:
    return sum(len(line.words) for line in lines)


def _goes_on(line: Line, following: Line, n: int) -> bool:
    """Whether the second of two lines goes on with the first one's sentence, where both and others have n words."""
    last = line.words[-1].text
    ends = last.endswith((".", "?", "!")) and last not in ABBREVIATED
    return not ends and n <= MOST_WORDS and following.span.start - line.span.end <= LONG_PAUSE


@dataclass(frozen=True, slots=True)
class Passages:
    """A transcript's lines, the sentence around each, and the lines' vectors, N x W, each of length 1."""

    lines: tuple[Line, ...]
    sentences: tuple[slice, ...]
    vectors_NW: np.ndarray

    @classmethod
    def of(cls, words: Sequence[Word], embeddings: SentenceEmbeddings, kept: Path | None = None) -> Passages:
        """`kept` is the file of their vectors: read where it is whole and of as many lines, else written."""
        lines = tuple(lines_of(words))
        halves_NW = None if kept is None else _read(kept)
        if halves_NW is None or len(halves_NW) != len(lines):
            halves_NW = embeddings.embed([line.text for line in lines]).astype(np.float16)
            if kept is not None:
                with whole(kept) as half, half.open("wb") as file:
                    np.save(file, halves_NW)
        sentences = tuple(sentence_around(lines, index) for index in range(len(lines)))
        return cls(lines, sentences, halves_NW.astype(np.float32))

    def sentence(self, index: int) -> Line:
        """The sentence around a line, as one line."""
        return Line(tuple(word for line in self.lines[self.sentences[index]] for word in line.words))


def _read(kept: Path) -> np.ndarray | None:
    try:
        halves: np.ndarray = np.load(kept)
    except (OSError, ValueError, EOFError):  # none yet, or damaged: made again
        return None
    return halves


@dataclass(frozen=True, slots=True)
class Match:
    """A passage of the `recording`-th recording, and how well its best line fits the question."""

    recording: int
    line: Line
    score: float


SHARED = 0.2  # weight of the words that are shared, beside the cosine
LACKS = 0.15  # off where a number, a date or a colour is asked for and the passage has none
SNATCH, A_SNATCH = 4, 0.1  # off for a line of fewer words: it is near to much
ANSWERED = 0.5  # the best score, from which on the recording is taken to say it: see benchmarks/asking.py
_ONES = "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty"
_NUMBER = (
    rf"\d|\b(?:{_ONES.replace(' ', '|')}|ninety|\w+teen|hundred|thousand|million|dozen|half|once|twice)s?\b"
)
_DATE = (
    r"|\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september"
    r"|october|november|december|spring|summer|autumn|winter|\w*teenth|century|today|yesterday|tomorrow)\b"
)
_COLOUR = r"\b(?:black|white|gr[ae]y|red|blue|green|yellow|brown|pink|purple|orange|golden|silver\w*|violet|crimson)\b"
# What a question asks for, and what a passage must then have.
KINDS = tuple(
    (re.compile(asked, re.IGNORECASE), re.compile(said, re.IGNORECASE))
    for asked, said in (
        (
            r"\bhow (?:many|much|old|tall|deep|far|high|heavy|wide|big|large|fast)\b",
            _NUMBER + r"|\b(?:no|few|several)\b",
        ),
        (r"\b(?:what|which) (?:is the |was the )?(?:price|weight|height|age|amount|number)\b", _NUMBER),
        (r"\b(?:what|which) (?:is the |was the )?(?:year|day|month|date|century|season)\b", _NUMBER + _DATE),
        (r"\b(?:what|which) colou?r\b", _COLOUR),
    )
)


def lacks(question: str, passage: str) -> bool:
    """Whether the question asks for a number, a date or a colour, and the passage has none."""
    return any(asked.search(question) and not said.search(passage) for asked, said in KINDS)


def matches(
    question: str, vector_W: np.ndarray, recordings: Sequence[Passages], words: str | None = None
) -> list[Match]:
    """The sentences around all lines of all recordings, the best first.

    The score is the cosine of line and question; SHARED times the share of the question's words that the sentence's
    best line has (rare ones weigh more; `words` are others to look for instead); less LACKS where what is asked for is
    not in the sentence, and A_SNATCH where the line is one. [] where nobody says a word.
    """
    lines = [line for one in recordings for line in one.lines]
    if not lines:
        return []
    sentences = [one.sentence(index) for one in recordings for index in range(len(one.lines))]
    shares = np.array(relevance(words or question, lines))
    starts = np.cumsum([0, *(len(one.lines) for one in recordings)])
    best = [
        max(shares[start:][part])
        for start, one in zip(starts, recordings, strict=False)
        for part in one.sentences
    ]
    scores = np.concatenate([one.vectors_NW @ vector_W for one in recordings if one.lines])
    scores += SHARED * np.array(best)
    scores -= LACKS * np.array([lacks(question, sentence.text) for sentence in sentences])
    scores -= A_SNATCH * np.array([len(line.words) < SNATCH for line in lines])
    owners = np.repeat(np.arange(len(recordings)), [len(one.lines) for one in recordings])
    return [Match(int(owners[i]), sentences[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")]


CITED_MOST = 2  # passages
WORTH = 0.9  # a second passage is cited where it scores at least this share of the best


def evidence(ranked: Sequence[Match], threshold: float = ANSWERED) -> list[Line]:
    """The passages that answer, the best first, none overlapping another; [] where the recording does not say."""
    if not ranked or ranked[0].score < threshold:
        return []
    found = [ranked[0].line]
    for match in ranked[1:]:
        if len(found) == CITED_MOST or match.score < WORTH * ranked[0].score:
            break
        if all(match.line.span.iou(line.span) == 0 for line in found):
            found.append(match.line)
    return found
