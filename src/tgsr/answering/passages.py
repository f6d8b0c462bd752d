"""What was said, as passages that are found by what they mean and by the words that they share with a question.

A passage is a sentence, or two of them where the second goes on. Whisper's sentences may be long and may lack their
stops: a long one is cut, and a pause ends one too.
"""

from __future__ import annotations

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
    def of(cls, words: Sequence[Word], embeddings: SentenceEmbeddings, kept: Path) -> Passages:
        """`kept` is the file of their vectors: read where it is whole and of as many passages, else written."""
        lines = tuple(passages_of(words))
        try:
            vectors_NW = np.load(kept).astype(np.float32)
        except (OSError, ValueError, EOFError):
            vectors_NW = np.zeros((0, 0), np.float32)
        if len(vectors_NW) != len(lines):
            halves_NW = embeddings.embed([line.text for line in lines]).astype(np.float16)
            with whole(kept) as half, half.open("wb") as file:
                np.save(file, halves_NW)
            vectors_NW = halves_NW.astype(np.float32)  # as they are read again
        return cls(lines, vectors_NW)


@dataclass(frozen=True, slots=True)
class Match:
    """A passage of the `recording`-th recording, and how well it fits the question."""

    recording: int
    line: Line
    score: float


SHARED = 0.2  # weight of the words that are shared, beside the cosine


def matches(question: str, vector_W: np.ndarray, recordings: Sequence[Passages]) -> list[Match]:
    """All passages, the best first: the cosine, and SHARED times the share of the question's words, rare ones first."""
    lines = [line for one in recordings for line in one.lines]
    if not lines:
        return []
    cosines = np.concatenate([one.vectors_NW @ vector_W for one in recordings if one.lines])
    scores = cosines + SHARED * np.array(relevance(question, lines))
    owners = np.repeat(np.arange(len(recordings)), [len(one.lines) for one in recordings])
    return [Match(int(owners[i]), lines[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")]


ANSWERED = 0.5  # the best passage's score, from which on the recording is taken to say it


def answers(question: str, ranked: Sequence[Match]) -> bool:
    """Whether the best of the passages is taken to answer the question."""
    return bool(ranked) and ranked[0].score >= ANSWERED
