"""AIR-Bench's foundation part: rows of four choices, some of them null; a prediction is right by its letter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tgsr.choices import airbench_letter, letter
from tgsr.disk.rows import Entry
from tgsr.errors import RecordError
from tgsr.evaluation.owners.owner import (
    COPY,
    Benchmark,
    BenchmarkQuestion,
    BenchmarkRow,
    Choices,
    Labels,
    Owner,
    answer_in,
    answer_of,
    choices_of,
    id_in,
    labels_of,
)
from tgsr.evaluation.owners.ruling import MISREAD, REPEATED, UNREADABLE, Ruling, why_no_option

CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
TABLE_2 = {
    "Speaker_Emotion_Recontion": "SER",  # the owner's spelling
    "Speaker_Number_Verification": "SNV",
    "Speaker_Intent_Classification": "SIC",
}
"""The columns of the paper's table 2, by AIR-Bench's names of its tasks."""


class Airbench(Owner):
    """A question is found by its task, data set and number; whether the number alone would do, nobody says."""

    name: ClassVar[Benchmark] = "airbench"
    key = "response"
    marks: ClassVar[tuple[str, ...]] = ("uniq_id", "answer_gt", "choice_a")
    question_marks: ClassVar[tuple[str, ...]] = ("uniq_id", "answer_gt")
    columns: ClassVar[Mapping[str, str]] = {
        "question": "question",
        "choices": "+".join(CHOICES),
        "answer": "answer_gt",
        "audio": "path",
        "task": "task_name",
    }
    reads_letters = True

    def question(self, entry: Entry) -> BenchmarkQuestion:
        choices = choices_of([entry.values.get(column) for column in CHOICES])
        task, name = entry.text("task_name"), entry.text("path")
        folder = f"{task}_{entry.text('dataset_name')}"
        return BenchmarkQuestion(
            entry,
            f"{folder}-{entry.text('uniq_id')}",
            f"airbench-{folder}-{Path(name).stem}",
            (f"Foundation/{folder}/{name}", f"{folder}/{name}"),
            entry.text("question"),
            choices,
            answer_of(entry, "answer_gt", choices),
            task,
            self.labels(entry),
        )

    def labels(self, entry: Entry) -> Labels:
        task = entry.maybe("task_name") or ""
        pairs = ("benchmark", "airbench"), ("domain", domain_of(task)), ("category", task)
        return labels_of(*pairs, ("dataset", entry.maybe("dataset_name")), ("column", TABLE_2.get(task)))

    def row(self, row: Mapping[str, Any]) -> BenchmarkRow:
        choices = tuple(row.get(column) for column in CHOICES)
        for column, choice in zip(CHOICES, choices, strict=True):
            if choice is not None and not isinstance(choice, str):
                raise RecordError(column, f"must be text or null, got {choice!r:.80}", remedy=COPY)
        task = str(row.get("task_name") or "")
        folder = f"{task}_{row.get('dataset_name') or ''}"
        is_scored = row.get("task_name") is not None  # its script passes over other rows
        return BenchmarkRow(
            id=f"{folder}-{id_in(row, 'uniq_id')}",
            audio=f"{folder}/{row.get('path')}",
            choices=choices,
            answer=answer_in(row, "answer_gt"),
            prediction=self.prediction(row, self.key) if is_scored else None,
            labels=labels_of(("domain", domain_of(task)), ("category", task), ("task_dataset", folder)),
        )

    def composed_id(self, row: Mapping[str, Any]) -> str | None:
        if not {"task_name", "dataset_name", "uniq_id"} <= row.keys():
            return None
        return f"{row['task_name']}_{row['dataset_name']}-{row['uniq_id']}"

    def options(self, row: Mapping[str, Any]) -> list[str]:
        return ["" if row.get(column) is None else str(row[column]) for column in CHOICES]

    def prediction(self, row: Mapping[str, Any], key: str) -> str | None:
        return None if row.get(key) is None else str(row[key])

    def breakdown(self, labels: Labels) -> Labels:
        named = dict(labels)
        has_both = "category" in named and "dataset" in named
        pairs = [("task_dataset", f"{named['category']}_{named['dataset']}")] if has_both else []
        return (*super().breakdown(labels), *pairs)

    def handed_over(self, text: str, choices: Choices, chosen: int | None) -> str:
        """The letter of the first choice with the chosen text: that one the owner's script compares with."""
        option = None if chosen is None else choices[chosen]
        return text if option is None else letter(choices.index(option)).upper()

    def judged(self, text: str, choices: Choices, answer: str | None, chosen: int | None) -> Ruling:
        """The letter of the first choice with the answer's text; unscored where no letter is read, and where the
        answer is no choice (the owner's script stops there).
        """
        read = airbench_letter(text)
        if answer is None or answer not in choices[:4]:
            return Ruling(None, None, chosen, read, None)
        official = None if read is None else read == "ABCD"[choices.index(answer)]
        strict = chosen is not None and choices[chosen] == answer
        why = None
        if read is None:
            why = UNREADABLE
        elif official and not strict:
            why = why_no_option(text, choices) or MISREAD
        elif strict and not official:
            number = "ABCD".index(read)
            why = REPEATED if number < len(choices) and choices[number] == answer else MISREAD
        return Ruling(official, strict, chosen, read, why)


def domain_of(task: str) -> str:
    """speech, sound or music, as the owner groups the tasks; vocal_sound_classification and AQA are sound."""
    if task.startswith("Music"):
        return "music"
    return "speech" if task.startswith(("Speaker", "Speech", "Spoken", "Synthesized")) else "sound"
