"""A choice question before its choices are put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        return Question(
            id=question_id(clip, self.task),
            clip_id=clip.id,
            audio=clip.audio,
            duration=clip.duration,
            kind="choice",
            question=self.question,
            answer=self.answer,
            choices=tuple(choices),
            evidence=tuple(Span(span.start, min(span.end, clip.duration)) for span in self.evidence),
            task=self.task,
            split=clip.split,
        )


def question_id(clip: Clip, task: str) -> str:
    return f"{clip.id}-{task.replace(' ', '-')}"
