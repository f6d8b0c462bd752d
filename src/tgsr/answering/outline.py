"""What is said when, in a page of lines: a recording's stretches, and of each the sentence that stands for it.

A transcript's sentences are cut into consecutive stretches so that the sentences of each are as near as they can be to
its mean (least squares, found exactly by dynamic programming; the number of stretches is given). Depth scores in the
manner of TextTiling, which look at two windows at a time, find fewer of known borders: benchmarks/outlines.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tgsr.answering.cascade import ByPrompt, Cascade, Spoken
from tgsr.answering.citing import check_citations
from tgsr.answering.passages import SNATCH, Passages, sentence_around
from tgsr.data.transcribe.transcript import ENGLISH, Line
from tgsr.errors import OptionError
from tgsr.llm.decoding import Decoding, Failed
from tgsr.llm.served import Llm, TextPrompt
from tgsr.timeline import Seconds, Span, Word

A_LINE: Seconds = 60.0  # of a recording, unless the number of lines is given
A_PAGE = 60  # lines, at most, unless the number is given
LEAST = 1 / 3  # of a stretch's mean share of the words
WRITTEN = Decoding(max_new_tokens=120)  # of an LLM's line
BEFORE_TIMES = re.compile(r"[\s(\[,;:–—-]*(?:\b(?:from|at|between))?\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OutlineLine:
    """One stretch of a recording.

    `text` is the most central sentence, word for word, or an LLM's own words (`is_own`). `cited` is where that sentence
    is said, or what the LLM cites for its words; None where it cites nothing. `problem` says why the transcript does
    not support the line, "" where it does.
    """

    span: Span
    text: str
    cited: Span | None
    is_own: bool = False
    problem: str = ""

    def as_row(self) -> dict[str, Any]:
        return {
            "start": round(self.span.start, 2),
            "end": round(self.span.end, 2),
            "text": self.text,
            "cited": None if self.cited is None else [round(self.cited.start, 2), round(self.cited.end, 2)],
            "own_words": self.is_own,
            "supported": not self.problem,
            "problem": self.problem or None,
        }


def outline(cascade: Cascade, spoken: Spoken, n_lines: int | None = None) -> list[OutlineLine]:
    """The lines of what was heard, in order; [] where nobody says a word.

    About a line a minute and a page at most, or `n_lines`, or fewer where there are not so many sentences. Quoted where
    the cascade quotes, else in its LLM's own words, each held against the transcript. OptionError for n_lines < 1.
    """
    if n_lines is not None and n_lines < 1:
        raise OptionError(f"--lines {n_lines}: must be 1 or more")
    if not spoken.transcript.words:
        return []
    told = Sentences.of(cascade.passages(spoken))
    starts = stretches(told.vectors_SW, told.sizes_S, n_lines or usual_lines(spoken.transcript.duration))
    quoted: list[OutlineLine] = []
    lines: list[Sequence[Line]] = []
    for first, stop in zip(starts, [*starts[1:], len(told.parts)], strict=True):
        chosen = first + central(told.vectors_SW[first:stop], told.sizes_S[first:stop])
        lines.append([line for part in told.parts[first:stop] for line in part])
        sentence = Line(tuple(word for line in told.parts[chosen] for word in line.words))
        span = Span(lines[-1][0].span.start, max(line.span.end for line in lines[-1]))
        quoted.append(OutlineLine(span, sentence.text, sentence.span))
    return in_own_words(cascade.llm.llm, quoted, lines) if isinstance(cascade.llm, ByPrompt) else quoted


def usual_lines(duration: Seconds) -> int:
    """How many lines a recording has where nobody says: about one a minute, at least one and at most a page."""
    return min(A_PAGE, max(1, round(duration / A_LINE)))


def notes_of(spoken: Spoken) -> list[str]:
    """What is to be known about the outline of this recording: lost speech, another language, nothing said."""
    transcript = spoken.transcript
    notes = []
    if not transcript.words:
        unheard = "somebody speaks, but no word could be made out"
        notes.append(unheard if transcript.holes else "nobody speaks")
    elif transcript.holes:
        seconds = sum(hole.end - hole.start for hole in transcript.holes)
        notes.append(f"speech without words, {seconds:.0f} s in all, is in no line")
    if transcript.language not in (None, ENGLISH):
        notes.append(
            f"the language is {transcript.language!r}: quotations are in it; topics are told apart by a model of "
            "English alone, and may be cut anywhere"
        )
    return notes


# --- stretches -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sentences:
    """A transcript's sentences in time, each some lines; S x W vectors, each of length 1; how many words each has."""

    parts: tuple[tuple[Line, ...], ...]
    vectors_SW: np.ndarray
    sizes_S: np.ndarray

    @classmethod
    def of(cls, passages: Passages) -> Sentences:
        """Every line is in one. A sentence's vector is the mean of its lines', weighted by their words."""
        in_time = sorted(range(len(passages.lines)), key=lambda n: passages.lines[n].span.start)
        lines = [passages.lines[n] for n in in_time]
        sizes_N = np.array([len(line.words) for line in lines])
        parts: list[slice] = []
        while (first := parts[-1].stop if parts else 0) < len(lines):
            parts.append(slice(first, sentence_around(lines, first).stop))
        weighted_NW = passages.vectors_NW[in_time] * sizes_N[:, None]
        vectors_SW = np.stack([weighted_NW[part].sum(0) for part in parts])
        vectors_SW /= np.maximum(np.linalg.norm(vectors_SW, axis=1, keepdims=True), 1e-9)
        sizes_S = np.array([sizes_N[part].sum() for part in parts])
        return cls(tuple(tuple(lines[part]) for part in parts), vectors_SW, sizes_S)


def stretches(vectors_SW: np.ndarray, sizes_S: np.ndarray, n: int) -> list[int]:
    """The first sentence of each of n stretches, or of the most that can be had with LEAST of the mean's words in each.

    The sum over stretches of the squared distances of sentences to their stretch's mean, weighted by their words
    (`sizes_S`), is the least that there is. O(n S^2) time and O(n S) memory.
    """
    n_sentences = len(sizes_S)
    n = min(n, n_sentences)
    zero = np.zeros((1, vectors_SW.shape[1]))
    sums = np.concatenate([zero, np.cumsum(vectors_SW * sizes_S[:, None], axis=0, dtype=np.float64)])
    ends = np.concatenate([[0], np.cumsum(sizes_S)]).astype(np.float64)
    squares = (sums**2).sum(1)
    least = LEAST * ends[-1] / n
    best = np.full((n + 1, n_sentences + 1), -np.inf)  # best[k, j]: of the first j sentences in k stretches
    best[0, 0] = 0.0
    back = np.zeros(best.shape, np.int64)
    for stop in range(1, n_sentences + 1):
        n_starts = int(np.searchsorted(ends[:stop], ends[stop] - least, side="right"))
        if n_starts:
            within = squares[:n_starts] + squares[stop] - 2 * sums[:n_starts] @ sums[stop]
            totals = best[:-1, :n_starts] + within / (ends[stop] - ends[:n_starts])
            back[1:, stop] = totals.argmax(1)
            best[1:, stop] = totals.max(1)
    most = int(np.flatnonzero(np.isfinite(best[:, -1]))[-1])
    starts, stop = [], n_sentences
    for k in range(most, 0, -1):
        stop = int(back[k, stop])
        starts.append(stop)
    return starts[::-1]


def central(vectors_SW: np.ndarray, sizes_S: np.ndarray) -> int:
    """The sentence that is nearest to the stretch's mean; a snatch of words only where there is nothing else."""
    cosines = vectors_SW @ (vectors_SW * sizes_S[:, None]).sum(0)
    is_long = sizes_S >= SNATCH
    return int(np.argmax(np.where(is_long, cosines, -np.inf) if is_long.any() else cosines))


# --- an LLM's own words ----------------------------------------------------------------------------------


def in_own_words(
    llm: Llm, quoted: Sequence[OutlineLine], lines: Sequence[Sequence[Line]]
) -> list[OutlineLine]:
    """Each stretch in the LLM's words, checked; of one that the LLM does not answer for, the quotation and why."""
    prompts = [TextPrompt(own_prompt(part, llm.characters)) for part in lines]
    answers = llm.replies(prompts, WRITTEN)
    return [own_line(one, answer, part) for one, answer, part in zip(quoted, answers, lines, strict=True)]


def own_prompt(lines: Sequence[Line], characters: int) -> str:
    """The instruction after as many of the stretch's lines as fit, from its beginning."""
    written, size = [], 0
    for line in lines:
        written.append(line.timed)
        size += len(written[-1]) + 1
        if size > characters:
            break
    transcript = "\n".join(written)
    return (
        f"This is a part of the transcript of a recording, with the times of each line in seconds:\n{transcript}\n\n"
        "Say in one sentence of at most 20 words what is spoken about. Then cite the line that shows it best, in this "
        'form: From X.XXs to Y.YYs, the speaker says "...". Copy times and words from the transcript.'
    )


def own_line(quoted: OutlineLine, answer: str | Failed, lines: Sequence[Line]) -> OutlineLine:
    """The answer as a line of the outline, held against the words of its stretch alone."""
    if isinstance(answer, Failed) or not answer.strip():
        why = answer.reason if isinstance(answer, Failed) else "its answer is empty"
        return OutlineLine(quoted.span, quoted.text, quoted.cited, problem=f"quoted, as the LLM fails: {why}")
    text = " ".join(answer.split())
    words: list[Word] = [word for line in lines for word in line.words]
    citations = check_citations(text, words)
    if not citations:
        return OutlineLine(quoted.span, text, None, True, "cites nothing")
    first = citations[0].mention
    own = BEFORE_TIMES.sub("", text[: first.text_start]) or text
    problem = next((citation.reason for citation in citations if not citation.supported), "")
    if not problem and all(citation.quote is None for citation in citations):
        problem = "quotes nothing"
    return OutlineLine(quoted.span, own, first.span, True, problem)
