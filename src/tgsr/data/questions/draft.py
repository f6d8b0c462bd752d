"""A choice question before its choices are put in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tgsr.records import Clip, Question
from tgsr.timeline import Span


@dataclass(frozen=True, slots=True)
class Draft:
    """What is asked, the right answer, wrong ones (where there are more than enough, the likeliest first), evidence."""

    task: str
    question: str
    answer: str
    wrong: tuple[str, ...]
    evidence: tuple[Span, ...]

    def about(self, clip: Clip, choices: Sequence[str]) -> Question:
        """The question about the clip, its id made of the clip's and the task."""
        texts = {"question": self.question, "answer": self.answer, "choices": tuple(choices)}
        return question_about(clip, self.task, self.evidence, kind="choice", task=self.task, **texts)


def question_about(clip: Clip, name: str, evidence: Iterable[Span], **fields: Any) -> Question:
    """The question about the clip with these fields, its id made of the clip's and the name."""
    spans = tuple(Span(span.start, min(span.end, clip.duration)) for span in evidence)
    heard: dict[str, Any] = {name: getattr(clip, name) for name in ("audio", "duration", "split")}
    return Question(id=question_id(clip, name), clip_id=clip.id, evidence=spans, **heard, **fields)


def question_id(clip: Clip, name: str) -> str:
    return f"{clip.id}-{name.replace(' ', '-')}"
