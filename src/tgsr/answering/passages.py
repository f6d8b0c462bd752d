"""What was said, as passages that are found by what they mean and by the words that they share with a question.

A passage is a sentence, or two of them where the second goes on. Whisper's sentences may be long and may lack their
stops: a long one is cut, and a pause ends one too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tgsr.answering.citing import relevance
from tgsr.data.transcribe.transcript import ABBREVIATED, Line
from tgsr.disk.whole import whole
from tgsr.models.sentence_embeddings import SentenceEmbeddings
from tgsr.timeline import Seconds, Word

LONG_PAUSE: Seconds = 1.2  # that ends a sentence
MOST_WORDS = 32  # a sentence; a longer one is cut at its last comma before
VECTORS = (
    "minilm-1"  # names what is kept of passages: another number where they are cut, or embedded, otherwise
)


def sentences_of(words: Sequence[Word]) -> list[Line]:
    """The transcript cut at the ends of sentences, at long pauses, and where a sentence grows too long.

    Every word is in one sentence.
    """
    sentences: list[list[Word]] = [[]]
    for word in words:
        sentence = sentences[-1]
        if sentence and (
            (sentence[-1].text.endswith((".", "?", "!")) and sentence[-1].text not in ABBREVIATED)
            or word.start - sentence[-1].end > LONG_PAUSE
        ):
            sentences.append([])
        elif len(sentence) >= MOST_WORDS:
            commas = [
                n
                for n, one in enumerate(sentence)
                if one.text.endswith((",", ";", ":")) and n >= MOST_WORDS // 2
            ]
            cut = commas[-1] + 1 if commas else len(sentence)
            sentences[-1:] = [sentence[:cut], sentence[cut:]]
        sentences[-1].append(word)
    return [Line(tuple(sentence)) for sentence in sentences if sentence]


def passages_of(words: Sequence[Word]) -> list[Line]:
    """Each sentence, and each two neighbours with no long pause between them; of an empty transcript none."""
    sentences = sentences_of(words)
    pairs = [
        Line(first.words + second.words)
        for first, second in pairwise(sentences)
        if second.span.start - first.span.end <= LONG_PAUSE
    ]
    return sentences + pairs


@dataclass(frozen=True, slots=True)
class Passages:
    """A transcript's passages with their vectors, N x W, each of length 1."""

    lines: tuple[Line, ...]
    vectors_NW: np.ndarray

    @classmethod
    def of(cls, words: Sequence[Word], embeddings: SentenceEmbeddings, kept: Path | None = None) -> Passages:
        """`kept` is the file of their vectors: read where it is whole and of as many passages, else written."""
        lines = tuple(passages_of(words))
        halves_NW = None if kept is None else _read(kept)
        if halves_NW is None or len(halves_NW) != len(lines):
            halves_NW = embeddings.embed([line.text for line in lines]).astype(np.float16)
            if kept is not None:
                with whole(kept) as half, half.open("wb") as file:
                    np.save(file, halves_NW)
        return cls(lines, halves_NW.astype(np.float32))


def _read(kept: Path) -> np.ndarray | None:
    try:
        halves: np.ndarray = np.load(kept)
    except (OSError, ValueError, EOFError):  # none yet, or damaged: made again
        return None
    return halves


@dataclass(frozen=True, slots=True)
class Match:
    """A passage of the `recording`-th recording, and how well it fits the question."""

    recording: int
    line: Line
    score: float


SHARED = 0.2  # weight of the words that are shared, beside the cosine
LACKS = 0.1  # off where a number, a date or a colour is asked for and the passage has none
ANSWERED = (
    0.5  # the best score, from which on the recording is taken to say it: chosen by benchmarks/asking.py
)
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
    """All passages of all recordings, the best first.

    The score is the cosine with the question's vector, SHARED times the share of the question's words that the passage
    has (rare ones weigh more; `words` are others to look for instead), and less LACKS where what is asked for is not in
    it. [] where nobody says a word.
    """
    lines = [line for one in recordings for line in one.lines]
    if not lines:
        return []
    cosines = np.concatenate([one.vectors_NW @ vector_W for one in recordings if one.lines])
    scores = cosines + SHARED * np.array(relevance(words or question, lines))
    scores -= LACKS * np.array([lacks(question, line.text) for line in lines])
    owners = np.repeat(np.arange(len(recordings)), [len(one.lines) for one in recordings])
    return [Match(int(owners[i]), lines[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")]


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
