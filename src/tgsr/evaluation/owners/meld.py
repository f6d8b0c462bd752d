"""MELD: a table of utterances with emotions. Its owners have no script for texts: official is strict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tgsr.data.corpora import meld
from tgsr.disk.rows import Entry
from tgsr.errors import RecordError
from tgsr.evaluation.owners.owner import (
    COPY,
    BenchmarkQuestion,
    BenchmarkRow,
    Choices,
    Labels,
    Owner,
    answer_in,
    id_in,
    labels_of,
)
from tgsr.evaluation.owners.ruling import Ruling

EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
QUESTION = "Which emotion does the speaker express?"  # MELD's rows ask nothing: the words are ours


class Meld(Owner):
    """An utterance is found by its dialogue and number; questions of ours name its split as well."""

    name = "meld"
    key = "prediction"
    marks = ("Emotion", "Dialogue_ID", "Utterance_ID")
    question_marks = marks
    columns: ClassVar[Mapping[str, str]] = {
        "question": f"={QUESTION}",
        "choices": f"={' | '.join(EMOTIONS)}",
        "answer": "Emotion",
    }
    has_scorer = False

    def question(self, entry: Entry) -> BenchmarkQuestion:
        split = _split_of(entry.file)
        name = f"dia{entry.text('Dialogue_ID')}_utt{entry.text('Utterance_ID')}"
        if (split, name) in meld.DAMAGED:
            raise RecordError("audio", f"{name}: {meld.DAMAGED[split, name]}")
        folder = meld.FOLDERS[split]
        emotion = entry.text("Emotion").lower()
        if emotion not in EMOTIONS:
            raise RecordError("Emotion", f"{emotion!r} is none of {', '.join(EMOTIONS)}")
        return BenchmarkQuestion(
            entry,
            f"meld-{split}-{name}",
            f"meld-{split}-{name}",
            tuple(f"{below}{name}.wav" for below in (f"{folder}/", f"{split}/{folder}/", f"{split}/", "")),
            QUESTION,
            EMOTIONS,
            emotion,
            "Emotion Recognition",
            self.labels(entry),
            split,
        )

    def labels(self, entry: Entry) -> Labels:
        category = ("category", entry.text("Emotion").lower())
        own = ("dataset", "MELD"), ("language", "en")
        return labels_of(("benchmark", "meld"), ("domain", "speech"), category, *own)

    def row(self, row: Mapping[str, Any]) -> BenchmarkRow:
        emotion = answer_in(row, "Emotion")
        emotion = None if emotion is None else emotion.strip().lower()
        if emotion is not None and emotion not in EMOTIONS:
            raise RecordError("Emotion", f"{emotion!r} is none of {', '.join(EMOTIONS)}", remedy=COPY)
        name = f"dia{id_in(row, 'Dialogue_ID')}_utt{id_in(row, 'Utterance_ID')}"
        return BenchmarkRow(
            id=name,
            audio=name,
            choices=EMOTIONS,
            answer=emotion,
            prediction=self.prediction(row, self.key),
            labels=labels_of(("domain", "speech"), ("category", emotion)),
        )

    def composed_id(self, row: Mapping[str, Any]) -> str | None:
        if not {"Dialogue_ID", "Utterance_ID"} <= row.keys():
            return None
        return f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"

    def options(self, row: Mapping[str, Any]) -> list[str]:
        return list(EMOTIONS)

    def judged(self, text: str, choices: Choices, answer: str | None, chosen: int | None) -> Ruling:
        strict = None if answer is None else chosen is not None and choices[chosen] == answer
        return Ruling(strict, strict, chosen, None, None)


def _split_of(path: Path) -> str:
    """The csv files do not say their split, so their names must: train_..., dev_..., anything else is the test set."""
    split = path.name.partition("_")[0].lower()
    return split if split in meld.FOLDERS else "test"
