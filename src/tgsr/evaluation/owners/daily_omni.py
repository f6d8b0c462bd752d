"""Daily-Omni: questions about videos, of which the sound is heard here; a prediction is right by its first letter."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tgsr.choices import letter
from tgsr.disk.rows import Entry
from tgsr.evaluation.owners.owner import (
    Benchmark,
    BenchmarkQuestion,
    BenchmarkRow,
    Choices,
    Labels,
    Owner,
    answer_among,
    id_in,
    labels_of,
    texts_of,
)
from tgsr.evaluation.owners.ruling import MISREAD, NO_LETTER, Ruling, why_no_option

SECONDS = {"30s": 30.0, "60s": 60.0}  # how long its videos are
FAILED = "error_"  # how an answer begins that the owner's script could not get: it leaves the denominator


class DailyOmni(Owner):
    """qa.json and the rule of test_model_api/test_utils.py (Lliar-liar/Daily-Omni, 20 May 2025): the answer begins with
    the right letter. The owner's scripts for models on one's own machine differ: that of Qwen2.5-Omni wants the letter
    alone. Rows have no id: it is the video's and a hash of what is asked.
    """

    name: ClassVar[Benchmark] = "daily-omni"
    key = "api_answer"
    marks: ClassVar[tuple[str, ...]] = ("api_answer", "Choice")
    question_marks: ClassVar[tuple[str, ...]] = ("video_id", "Choice", "Answer")
    is_list = True
    columns: ClassVar[Mapping[str, str]] = {
        "question": "Question",
        "choices": "Choice",
        "answer": "Answer",
        "audio": "video_id",
        "task": "Type",
    }

    def question(self, entry: Entry) -> BenchmarkQuestion:
        choices, video = texts_of(entry.values.get("Choice")), entry.text("video_id")
        files = (f"{video}_audio.wav", f"{video}_video.mp4", f"{video}.wav")
        return BenchmarkQuestion(
            entry,
            str(self.composed_id(entry.values)),
            f"daily-omni-{video}",
            tuple(f"{below}{file}" for below in (f"Videos/{video}/", f"{video}/", "") for file in files),
            entry.text("Question"),
            choices,
            answer_among(entry.text("Answer"), choices),
            entry.text("Type"),
            self.labels(entry),
            duration=SECONDS.get(str(entry.values.get("video_duration"))),
        )

    def labels(self, entry: Entry) -> Labels:
        return labels_of(
            ("benchmark", self.name),
            ("domain", "audio-visual"),
            ("category", entry.maybe("Type")),
            ("sub-category", entry.maybe("video_category")),
            ("length", entry.maybe("video_duration")),
        )

    def row(self, row: Mapping[str, Any]) -> BenchmarkRow:
        choices = texts_of(row.get("Choice"))
        return BenchmarkRow(
            id=str(self.composed_id(row) or id_in(row, "id")),
            audio=str(row.get("video_id")),
            choices=choices,
            answer=answer_among(row["Answer"], choices) if row.get("Answer") else None,
            prediction=self.prediction(row, self.key),
            labels=self.breakdown(self.labels(Entry(Path(), None, row))),
        )

    def composed_id(self, row: Mapping[str, Any]) -> str | None:
        if not {"video_id", "Question"} <= row.keys():
            return None
        asked = f"{row['Question']} {row.get('Choice')}"
        return f"{row['video_id']}-{hashlib.sha256(asked.encode(errors='surrogatepass')).hexdigest()[:8]}"

    def options(self, row: Mapping[str, Any]) -> list[str]:
        return list(texts_of(row.get("Choice")))

    def handed_over(self, text: str, choices: Choices, chosen: int | None) -> str:
        """The option's letter, which is what the owner's prompt asks for."""
        return text if chosen is None else letter(chosen).upper()

    def judged(self, text: str, choices: Choices, answer: str | None, chosen: int | None) -> Ruling:
        if answer is None:
            return Ruling(None, None, chosen, None, None)
        begun = text.strip()[:1].lower()
        read = begun if begun and begun in map(letter, range(len(choices))) else None
        strict = chosen is not None and choices[chosen] == answer
        if text.startswith(FAILED):
            return Ruling(None, strict, chosen, None, None)
        official, why = begun == letter(choices.index(answer)), None
        if official and not strict:
            why = why_no_option(text, choices) or MISREAD
        elif strict and not official:
            why = NO_LETTER if read is None else MISREAD
        return Ruling(official, strict, chosen, read, why)
