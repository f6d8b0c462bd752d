"""What was said, as passages that are found by what they mean and by the words that they share with a question.

Looked for are lines (transcript.py), which are short enough to mean one thing, the sentences around them, and these
with the next one; cited is the sentence, and what follows where it is cut off or is but a few words, as the answer may
go on there. Whisper's sentences may be long and may lack their stops. Where it is known who speaks, a line, a sentence
and a passage are one speaker's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tgsr.answering.citing import COMMON, bare_words, relevance
from tgsr.data.transcribe.transcript import ABBREVIATED, ENGLISH, Line, lines_of
from tgsr.disk.whole import whole
from tgsr.models.answer_finder import AnswerFinder
from tgsr.models.sentence_embeddings import SentenceEmbeddings
from tgsr.timeline import Seconds, Word

LONG_PAUSE: Seconds = 1.2  # across which no sentence goes on
MOST_WORDS = 32  # of a sentence's lines
SNATCH = 4  # words: what has fewer says little
QUOTES = "\"'”’"
# Names what is kept of lines and sentences: another number where they are embedded otherwise.
VECTORS = "minilm-2"


def lines_by_speaker(words: Sequence[Word]) -> list[Line]:
    """The transcript's lines, those of one speaker together: talk that crosses another's does not break a sentence."""
    speakers = dict.fromkeys(word.speaker for word in words)
    return [line for one in speakers for line in lines_of([word for word in words if word.speaker == one])]


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
    return not _ends(line) and n <= MOST_WORDS and _follows(line, following)


def _ends(line: Line) -> bool:
    last = line.words[-1].text.rstrip(QUOTES)
    return last.endswith((".", "?", "!")) and last not in ABBREVIATED


def _follows(line: Line, following: Line) -> bool:
    """Whether the same speaker says the second line soon after the first."""
    same = line.speaker == following.speaker
    return same and following.span.start - line.span.end <= LONG_PAUSE


@dataclass(frozen=True, slots=True)
class Passages:
    """A transcript's lines, its S sentences, each some of the lines, and their vectors, each of length 1.

    `vectors_NW` are of the lines, then of the sentences, then of the sentences each with the next one.
    """

    lines: tuple[Line, ...]
    sentences: tuple[slice, ...]
    vectors_NW: np.ndarray

    @classmethod
    def of(cls, words: Sequence[Word], embeddings: SentenceEmbeddings, kept: Path | None = None) -> Passages:
        """`kept` is how the files of vectors begin: they are read where they are whole, else made and written."""
        lines = tuple(lines_by_speaker(words))
        found = {(one.start, one.stop): one for one in (sentence_around(lines, i) for i in range(len(lines)))}
        sentences = tuple(found[key] for key in sorted(found))
        said = [" ".join(line.text for line in lines[one]) for one in sentences]
        stops = [one.stop for one in (*sentences[1:], *sentences[-1:])]
        wider = [lines[one.start : stop] for one, stop in zip(sentences, stops, strict=True)]
        pairs = [" ".join(line.text for line in part) for part in wider]
        texts = [*(line.text for line in lines), *said, *pairs]
        name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]
        path = None if kept is None else kept.with_name(f"{kept.name}.{name}.{VECTORS}.npy")
        halves_NW = None if path is None else _read(path)
        if halves_NW is None or len(halves_NW) != len(texts):
            halves_NW = embeddings.embed(texts).astype(np.float16)
            if path is not None:
                with whole(path) as half, half.open("wb") as file:
                    np.save(file, halves_NW)
        return cls(lines, sentences, halves_NW.astype(np.float32))

    def sentence(self, index: int) -> Line:
        """A sentence as one line."""
        return _joined(self.lines[self.sentences[index]])

    def cited(self, index: int) -> Line:
        """What is quoted for a sentence: the next one with it, where it is cut off, a question or a snatch.

        Sentences may share lines: a long one without a stop is cut around each of its lines.
        """
        own, said = self.sentences[index], self.sentence(index)
        asks = said.words[-1].text.rstrip(QUOTES).endswith("?")
        goes_on = not _ends(said) or asks or len(said.words) < SNATCH
        if index + 1 == len(self.sentences) or not goes_on:
            return said
        following = self.sentences[index + 1]
        last, first = self.lines[own.stop - 1], self.lines[following.start]
        follows = following.start < own.stop or _follows(last, first)
        return _joined(self.lines[own.start : following.stop]) if follows else said

    def nearness(self, vector_W: np.ndarray) -> np.ndarray:
        """(S,): mean cosine of a question with the best line of a sentence, the sentence, and it with the next one."""
        cosines_N = self.vectors_NW @ vector_W
        n, s = len(self.lines), len(self.sentences)
        best_S = np.array([cosines_N[:n][one].max() for one in self.sentences])
        mean_S: np.ndarray = (best_S + cosines_N[n : n + s] + cosines_N[n + s :]) / 3
        return mean_S


def _joined(lines: Sequence[Line]) -> Line:
    return Line(tuple(word for line in lines for word in line.words))


def _read(kept: Path) -> np.ndarray | None:
    try:
        halves: np.ndarray = np.load(kept)
    except (OSError, ValueError, EOFError):  # none yet, or damaged: made again
        return None
    return halves


@dataclass(frozen=True, slots=True)
class Match:
    """A passage of the `recording`-th recording, and how well it fits and answers the question."""

    recording: int
    line: Line
    score: float


SHARED = 0.1  # weight of the words that are shared, beside the cosines
COUNTERPART = 0.25  # weight of the question's word that is farthest from all of the passage
LACKS = 0.15  # off where a number, a date or a colour is asked for and the passage has none
A_SNATCH = 0.1  # off for a passage of fewer words than SNATCH: it is near to much
LOOKED_AT = 20  # passages that are looked at word by word
READ = 6  # of them, the best, are read together with the question
SURETY = 0.1  # weight of a nat by which an answer in them is likelier than none
ANSWERED = 0.14  # the best score, from which on the recording is taken to say it: see benchmarks/asking.py
ANSWERED_ELSEWHERE = 0.38  # the same in another language than English, which the judge does not know
_ONES = "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty"
_NUMBER = (
    rf"\d|\b(?:{_ONES.replace(' ', '|')}|ninety|\w+teen|hundred|thousand|million|dozen|half|once|twice)s?\b"
)
_FEW = r"|\b(?:no|few|several)\b"
_DATE = (
    r"|\b(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september"
    r"|october|november|december|spring|summer|autumn|winter|\w*teenth|century|today|yesterday|tomorrow)\b"
)
_COLOUR = r"\b(?:black|white|gr[ae]y|red|blue|green|yellow|brown|pink|purple|orange|golden|silver\w*|violet|crimson)\b"
# What a question asks for, and what a passage must then have.
KINDS = tuple(
    (re.compile(asked, re.IGNORECASE), re.compile(said, re.IGNORECASE))
    for asked, said in (
        (r"\bhow (?:many|much|old|tall|deep|far|high|heavy|wide|big|large|fast)\b", _NUMBER + _FEW),
        (r"\b(?:what|which) (?:is the |was the )?(?:price|weight|height|age|amount|number)\b", _NUMBER),
        (r"\b(?:what|which) (?:is the |was the )?(?:year|day|month|date|century|season)\b", _NUMBER + _DATE),
        (r"\b(?:what|which) colou?r\b", _COLOUR),
    )
)


def lacks(question: str, passage: str) -> bool:
    """Whether the question asks for a number, a date or a colour, and the passage has none."""
    return any(asked.search(question) and not said.search(passage) for asked, said in KINDS)


def matches(
    question: str,
    finder: AnswerFinder,
    recordings: Sequence[Passages],
    words: str | None = None,
    speakers: Sequence[Collection[str]] | None = None,
) -> list[Match]:
    """The sentences of all recordings that fit the question best, READ at most, the best first.

    The score is the nearness of the sentence (`Passages`); SHARED times the share of the question's words that it has
    (rare ones weigh more; `words` are others to look for instead); COUNTERPART times the cosine of the question's word
    that has least of a counterpart there; less LACKS where what is asked for is not in it, and A_SNATCH where it is
    one. To the best READ of these SURETY is added for each nat by which an answer in the passage is likelier than none.
    `speakers` are whose sentences alone are looked at, of each recording; of one where they are empty, all. [] where
    nobody says a word.
    """
    allowed = speakers or [()] * len(recordings)
    places = [(n, i) for n, one in enumerate(recordings) for i in range(len(one.sentences))]
    if not places:
        return []
    embeddings = finder.embeddings
    vector_W = embeddings.embed([question])[0]
    nearness_S = np.concatenate([one.nearness(vector_W) for one in recordings if one.lines])
    said = [recordings[n].sentence(i) for n, i in places]
    heard = [not allowed[n] or line.speaker in allowed[n] for (n, _), line in zip(places, said, strict=True)]
    first_S = nearness_S + SHARED * np.array(relevance(words or question, said))
    order = [i for i in np.argsort(-first_S, kind="stable") if heard[i]][:LOOKED_AT]
    content = [word for word in bare_words(question) if word not in COMMON]
    found = []
    for i in order:
        text = said[i].text
        least = embeddings.counterparts(content, text).min() if content else 0.5
        score = first_S[i] + COUNTERPART * least - LACKS * lacks(question, text)
        score -= A_SNATCH * (len(said[i].words) < SNATCH)
        n, index = places[i]
        found.append(Match(n, recordings[n].cited(index), float(score)))
    found = sorted(found, key=lambda match: -match.score)[:READ]
    sure = finder.surety(question, [match.line.text for match in found])
    read = [replace(one, score=one.score + SURETY * float(s)) for one, s in zip(found, sure, strict=True)]
    return sorted(read, key=lambda match: -match.score)


CITED_MOST = 2  # passages
CLOSE = 0.3  # a second passage is cited where it scores no less than that below the best


def least_score(language: str | None) -> float:
    """From which score of its best passage on a recording in that language is taken to say it; None is English."""
    return ANSWERED if language in (None, ENGLISH) else ANSWERED_ELSEWHERE


def evidence(ranked: Sequence[Match], threshold: float = ANSWERED) -> list[Line]:
    """The passages that answer, the best first, none overlapping another; [] where the recording does not say."""
    if not ranked or ranked[0].score < threshold:
        return []
    found = [ranked[0].line]
    for match in ranked[1:]:
        if len(found) == CITED_MOST or match.score < ranked[0].score - CLOSE:
            break
        if all(match.line.span.iou(line.span) == 0 for line in found):
            found.append(match.line)
    return found
