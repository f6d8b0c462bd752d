"""MMAU-Pro: MMAU's columns with several recordings, open-ended questions and instructions among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tgsr.disk.jsonl import maybe_json
from tgsr.disk.rows import Entry
from tgsr.errors import RecordError
from tgsr.evaluation.owners.following import follows
from tgsr.evaluation.owners.mmau import Mmau
from tgsr.evaluation.owners.owner import (
    COPY,
    BenchmarkQuestion,
    BenchmarkRow,
    Choices,
    Labels,
    id_in,
    labels_of,
    several,
)
from tgsr.evaluation.owners.ruling import EMBEDDED, Ruling

OPEN, INSTRUCTION = "open", "instruction following"  # categories


class MmauPro(Mmau):
    """Rows of test.parquet (or the same as JSON) and evaluate_mmau_pro_comprehensive.py's rules (sonalkum/MMAUPro, 25
    September 2025). Of closed questions that is the choice that is nearest by NV-Embed-v2's cosine: a choice's own text
    is nearest to itself, whatever the embedding, and what becomes of any other text is not known here. Instructions are
    followed or not (following.py). Open-ended questions are a judge's, and have no score here.
    """

    name = "mmau-pro"
    marks = ("perceptual_skills", "length_type", "task_identifier")
    question_marks = ("audio_path", "length_type", "category")
    audio = "audio_path"
    domain = "category"
    is_list = False

    def question(self, entry: Entry) -> BenchmarkQuestion:
        values, category = _listed(entry.values), str(entry.values.get("category"))
        if category in (OPEN, INSTRUCTION) or len(values["choices"]) < 2:
            problem = f"has none to choose from (category {category}): only its answers are scored"
            raise RecordError("choices", problem)
        sounds = values["audio_path"]
        if len(sounds) != 1:
            raise RecordError("audio_path", f"names {len(sounds)} recordings, and one is heard at a time")
        plain = Entry(entry.file, entry.line, {**values, "audio_path": sounds[0]})
        return replace(super().question(plain), entry=entry)

    def labels(self, entry: Entry) -> Labels:
        values = _listed(entry.values)
        skills = [*values["perceptual_skills"], *values["reasoning_skills"]]
        return labels_of(
            ("benchmark", self.name),
            ("domain", entry.maybe("category")),
            *(("category", skill) for skill in skills),
            ("sub-category", entry.maybe("sub-cat")),
            ("length", entry.maybe("length_type")),
        )

    def row(self, row: Mapping[str, Any]) -> BenchmarkRow:
        values, category = _listed(row), row.get("category")
        choices, answer = values["choices"], row.get("answer")
        follow = None
        if category == INSTRUCTION:
            choices, answer = (), str(row.get("task_identifier"))
            given, question = _mapping(row.get("kwargs")), str(row.get("question") or "")
            follow = partial(follows, identifier=answer, given=given, question=question)
        return BenchmarkRow(
            id=id_in(row, "id"),
            audio=str(next(iter(values["audio_path"]), row.get("id"))),
            choices=tuple(choices) if category != OPEN else (),
            answer=None if follow is None and answer in (None, "") else str(answer),
            prediction=self.prediction(row, self.key),
            labels=self.breakdown(self.labels(Entry(Path(), None, row))),
            follows=follow,
        )

    def options(self, row: Mapping[str, Any]) -> list[str]:
        return list(_listed(row)["choices"])

    def judged(self, text: str, choices: Choices, answer: str | None, chosen: int | None) -> Ruling:
        if answer is None or len(choices) < 2:
            return Ruling(None, None, chosen, None, None)
        strict = chosen is not None and choices[chosen] == answer
        if text not in choices:
            return Ruling(None, strict, chosen, None, EMBEDDED)
        return Ruling(text == answer, strict, chosen, None, None)


def _listed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its lists as such: of one text, null, or a list that a table holds as JSON."""
    listed = dict(row)
    for name in ("audio_path", "choices", "perceptual_skills", "reasoning_skills"):
        value = row.get(name)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = maybe_json(value)
            if not isinstance(value, list):
                problem = f"{row[name]!r:.60} is no list in JSON, as which a table must hold it"
                raise RecordError(name, problem, remedy=COPY)
        listed[name] = several(value)
        if name == "choices":  # as they are: blanks and repetitions too
            if not isinstance(value, list) and value not in (None, ""):
                raise RecordError(name, f"must be a list, got {value!r:.60}", remedy=COPY)
            listed[name] = [str(one) for one in value or () if one is not None]
    return listed


def _mapping(value: object) -> Mapping[str, Any]:
    read = maybe_json(value) if isinstance(value, str) else value
    return read if isinstance(read, dict) else {}
