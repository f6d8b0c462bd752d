"""What an LLM adds to a set of stage-2 questions, and what it takes away: two more steps over the set's shards."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tgsr.data.corpora.which import clips_of
from tgsr.data.questions.answerable_by_text import TextOnly, heard_only
from tgsr.data.questions.build import rows_of
from tgsr.data.questions.by_llm import Open, open_questions_of
from tgsr.data.shards import Step, errors_of, run
from tgsr.data.splits import Split
from tgsr.disk.jsonl import Row
from tgsr.disk.whole import whole
from tgsr.errors import Bad

QUESTIONS = "questions.jsonl"


def add_open_questions(
    clips: Sequence[Path],
    out: Path,
    llm: str,
    n_a_clip: int,
    seed: int,
    split: Split,
    cache: Path,
    **how: Any,
) -> None:
    """Questions that the LLM wrote about the clips, after those in out/questions.jsonl; refused drafts in errors.jsonl.

    `how` is shards.run's. Raises BuildError and ModelError as open_questions.py says.
    """
    step = Step(open_questions_of, Open(llm, cache, n_a_clip, seed, split))
    rows = rows_of(chain.from_iterable(clips_of(path, "clips", out) for path in clips))
    written = _run(step, rows, out, "open", how)
    _put_together(out / QUESTIONS, (out / QUESTIONS, written))
    _put_together(errors_of(out / QUESTIONS), (errors_of(out / QUESTIONS), errors_of(written)))


def leave_out_answerable(out: Path, llm: str, cache: Path, **how: Any) -> None:
    """Takes the questions out of out/questions.jsonl that the LLM answers right without audio, whatever their order."""
    kept = _run(Step(heard_only, TextOnly(llm, cache)), _rows(out / QUESTIONS), out, "heard", how)
    _put_together(out / QUESTIONS, (kept,))
    _put_together(errors_of(out / QUESTIONS), (errors_of(out / QUESTIONS), errors_of(kept)))


def _run(step: Step, rows: Iterable[Row | Bad], out: Path, name: str, how: dict[str, Any]) -> Path:
    """The step's result in a hidden folder of its own, which keeps its shards."""
    target = out / f".{name}" / QUESTIONS
    target.parent.mkdir(exist_ok=True)
    run(
        step, rows, target, root=out, **{**how, "most_bad": math.inf}
    )  # a clip may have several refused drafts
    return target


def _rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _put_together(target: Path, parts: Sequence[Path]) -> None:
    with whole(target) as half, half.open("wb") as file:
        for part in parts:
            with part.open("rb") as lines:
                file.writelines(lines)
