"""What flows between the commands: clips, questions and responses, one JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass

from tgsr.timeline import Seconds, Span, Word


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with its words. `audio` is a path: absolute, or relative to the JSONL file's folder."""

    id: str
    audio: str
    duration: Seconds
    words: tuple[Word, ...] = ()
    split: str = "train"
    source: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Something asked about one clip.

    kind "phrase": `phrase` is the text to be located and `evidence` holds its one span (stage 1).
    kind "choice": `choices` and the right one, `answer` (its text), and `evidence`, the spans that
    support it; () where nobody marked them (stage 2).
    `task` names the category that scores are broken down by.
    """

    id: str
    clip_id: str
    audio: str
    duration: Seconds
    kind: str
    question: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    phrase: str | None = None
    evidence: tuple[Span, ...] = ()
    task: str | None = None
    split: str = "train"


@dataclass(frozen=True, slots=True)
class Response:
    """A model's text for one question; the question travels with it, so that a file of responses can be scored alone."""

    question: Question
    model: str
    text: str
