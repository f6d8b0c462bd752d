"""MMAU: a JSON list of questions; a prediction is right by its set of words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tgsr.choices import token_match
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
    below,
    choices_of,
    id_in,
    labels_of,
    several,
)
from tgsr.evaluation.owners.ruling import (
    LETTER_WITHOUT_TEXT,
    NO_WORDS,
    OTHER_WORDS,
    SAME_WORDS,
    SCATTERED,
    UNCLEAR,
    Ruling,
    why_no_option,
)
from tgsr.timeline import Seconds

LABELS = ("domain", "category", "sub-category", "difficulty", "dataset")
_WORD = re.compile(r"\b\w+\b")


class Mmau(Owner):
    """A question has all it needs in one row; MMAR's differs in some names."""

    name: ClassVar[Benchmark] = "mmau"
    key = "model_output"
    marks: ClassVar[tuple[str, ...]] = ("model_output", "audio_id")
    question_marks: ClassVar[tuple[str, ...]] = ("audio_id", "choices")
    audio: ClassVar[str] = "audio_id"
    domain: ClassVar[str] = "task"
    dataset: ClassVar[str] = "dataset"
    is_list = True

    def question(self, entry: Entry) -> BenchmarkQuestion:
        choices = choices_of(entry.values.get("choices"))
        return BenchmarkQuestion(
            entry,
            entry.text("id"),
            f"{self.name}-{Path(entry.text(self.audio)).stem}",
            below(entry.text(self.audio)),
            entry.text("question"),
            choices,
            answer_of(entry, "answer", choices),
            " and ".join(several(entry.values.get("category"))) or entry.text(self.domain),
            self.labels(entry),
            duration=self.length(entry.values),
        )

    def length(self, row: Mapping[str, Any]) -> Seconds | None:
        """How long the clip is, where the row says it."""
        return None

    def labels(self, entry: Entry) -> Labels:
        columns = {"domain": self.domain, "dataset": self.dataset}
        values = {name: several(entry.values.get(columns.get(name, name))) for name in LABELS}
        pairs = [(name, value) for name in LABELS for value in values[name]]
        languages = [("language", language) for language in (entry.maybe("language") or "").split("|")]
        return labels_of(("benchmark", self.name), *pairs, *languages)

    def row(self, row: Mapping[str, Any]) -> BenchmarkRow:
        choices = row.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, str | None) for choice in choices):
            raise RecordError("choices", f"must be a list of texts, got {choices!r:.80}", remedy=COPY)
        id_ = id_in(row, "id")
        return BenchmarkRow(
            id=id_,
            audio=str(row.get("audio_id") or row.get("audio_path") or id_),
            choices=tuple(choices),
            answer=answer_in(row, "answer"),
            prediction=self.prediction(row, self.key),
            labels=self.breakdown(self.labels(Entry(Path(), None, row))),
            trace=self.trace(row),
        )

    def judged(self, text: str, choices: Choices, answer: str | None, chosen: int | None) -> Ruling:
        if answer is None:
            return Ruling(None, None, chosen, None, None)
        official = token_match(text, answer, choices)
        strict = chosen is not None and choices[chosen] == answer
        why = None
        if strict and not official:
            words, right = _words(text), _words(answer)
            why = NO_WORDS if not words else OTHER_WORDS if right <= words else LETTER_WITHOUT_TEXT
        elif official and not strict:
            why = why_no_option(text, choices)
            if chosen is not None and _words(choices[chosen]) == _words(answer):
                why = SAME_WORDS
            why = SCATTERED if why in (None, UNCLEAR) else why
        return Ruling(official, strict, chosen, None, why)


def _words(text: str | None) -> set[str]:
    return set(_WORD.findall((text or "").lower()))
