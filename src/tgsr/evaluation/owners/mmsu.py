"""MMSU: AIR-Bench's columns of choices and its letter rule, in rows of their own; an empty prediction is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from tgsr.disk.rows import Entry
from tgsr.evaluation.owners.airbench import CHOICES, Airbench
from tgsr.evaluation.owners.owner import (
    BenchmarkQuestion,
    BenchmarkRow,
    Choices,
    Labels,
    answer_in,
    answer_of,
    below,
    choices_of,
    id_in,
    labels_of,
    several,
)
from tgsr.evaluation.owners.ruling import Ruling

LABELS = ("category", "sub-category", "sub-sub-category", "linguistics_sub_discipline")


class Mmsu(Airbench):
    """Rows as the owner's mmsu_inference.py writes them (dingdongwang/MMSU, 12 February 2026), and mmsu_evaluation.py's
    rule: the first character A-D, else the last but one, else the row leaves the denominator; "" and "None" stay in it.
    """

    name = "mmsu"
    marks = ("sub-sub-category", "linguistics_sub_discipline")
    question_marks = ("answer_gt", "choice_a", "sub-sub-category")
    columns: ClassVar[Mapping[str, str]] = {
        "id": "id",
        "question": "question",
        "choices": "+".join(CHOICES),
        "answer": "answer_gt",
        "audio": "audio_path",
        "task": "task_name",
    }

    def question(self, entry: Entry) -> BenchmarkQuestion:
        choices = choices_of([entry.values.get(column) for column in CHOICES])
        name = entry.text("audio_path")
        return BenchmarkQuestion(
            entry,
            entry.text("id"),
            f"mmsu-{Path(name).stem}",
            below(name),
            entry.text("question"),
            choices,
            answer_of(entry, "answer_gt", choices),
            entry.text("task_name"),
            self.labels(entry),
        )

    def labels(self, entry: Entry) -> Labels:
        pairs = [(name, value) for name in LABELS for value in several(entry.values.get(name))]
        return labels_of(("benchmark", "mmsu"), ("domain", "speech"), *pairs)

    def row(self, row: Mapping[str, Any]) -> BenchmarkRow:
        plain = {**row, "uniq_id": id_in(row, "id"), "task_name": row.get("task_name") or "MMSU"}
        return replace(
            super().row(plain),
            id=id_in(row, "id"),
            audio=str(row.get("audio_path") or row["id"]),
            answer=answer_in(row, "answer_gt"),
            labels=self.breakdown(self.labels(Entry(Path(), None, row))),
        )

    def composed_id(self, row: Mapping[str, Any]) -> str | None:
        return None

    def breakdown(self, labels: Labels) -> Labels:
        return tuple(pair for pair in labels if pair[0] in ("domain", "category", "sub-category"))

    def judged(self, text: str, choices: Choices, answer: str | None, chosen: int | None) -> Ruling:
        ruling = super().judged(text, choices, answer, chosen)
        is_empty = text.strip().replace("\n", "") in ("", "None")
        return ruling._replace(official=False) if is_empty and ruling.strict is not None else ruling
