"""MMAR: JSON lines of questions; a prediction is right by MMAU's rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tgsr.choices import extract_choice
from tgsr.disk.rows import seconds_in
from tgsr.evaluation.behaviour.consistency import reasoning_of
from tgsr.evaluation.owners.mmau import Mmau
from tgsr.evaluation.owners.owner import Choices
from tgsr.reading.thoughts import MARK, after_thoughts
from tgsr.timeline import Seconds

THINKING = "thinking_prediction"
_CUT = re.compile(r"([0-9:.]+)\s{0,2},\s{0,2}([0-9:.]+)")


def thoughts_and_answer(text: str, choices: Choices) -> tuple[str, str]:
    """A completion as the challenge parts it: what is thought, and what is answered.

    Thoughts in tags are taken as they are; without any the reasoning is what stands around the statement of the answer,
    and the answer is the option that the text ends up with, or the whole text where none is.
    """
    if begin := after_thoughts(text):
        return re.sub(MARK, "", text[:begin], flags=re.IGNORECASE).strip(), text[begin:].strip()
    options = [choice or "" for choice in choices]
    chosen = extract_choice(text, choices)
    return reasoning_of(text, options), text.strip() if chosen is None else options[chosen]


class Mmar(Mmau):
    """MMAU's layout with other names for the prediction, the sound file, the domain and the data set.

    Submissions to the Interspeech 2026 Audio Reasoning Challenge have the reasoning beside the answer, as
    thinking_prediction.
    """

    name = "mmar"
    key = "answer_prediction"
    marks = ("answer_prediction", "audio_path", "modality")
    question_marks = ("audio_path", "modality")
    audio = "audio_path"
    domain = "modality"
    dataset = "source"
    is_list = False

    def length(self, row: Mapping[str, Any]) -> Seconds | None:
        """The sum of the pieces that were cut out of the source: "00:01:32,00:02:02", "1:42,1:47;1:51,1:59"."""
        cuts = _CUT.findall(str(row.get("timestamp") or ""))
        length = sum(seconds_in(end) - seconds_in(start) for start, end in cuts)
        return length if length > 0 else None

    def beside(self, text: str, choices: Choices) -> dict[str, str]:
        """The reasoning, which the challenge wants beside the answer."""
        return {THINKING: thoughts_and_answer(text, choices)[0]}

    def completion(self, row: Mapping[str, Any], key: str) -> str | None:
        """The reasoning as thoughts before the answer, where both are there."""
        thinking, answer = row.get(THINKING), self.prediction(row, key)
        if not isinstance(thinking, str) or not thinking.strip() or answer is None:
            return super().completion(row, key)
        return f"<think>\n{thinking.strip()}\n</think>\n{answer}"
