"""Responses in the form that a benchmark's owner scores: their own file, with their own key filled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tgsr.choices import extract_choice
from tgsr.disk.jsonl import Row
from tgsr.disk.whole import write_whole
from tgsr.errors import RecordError
from tgsr.evaluation.benchmarks import AIRBENCH_CHOICES, Benchmark, Item, benchmark_of, items
from tgsr.evaluation.scoring.official import handed_over
from tgsr.records import Response

KEYS: dict[Benchmark, str] = {
    "mmau": "model_output",
    "mmar": "answer_prediction",
    "airbench": "response",
}


@dataclass(frozen=True, slots=True)
class Official:
    """What was written for an owner's scorer: rows, and how many of them hold a whole text for want of a choice."""

    benchmark: Benchmark
    n: int
    n_without_choice: int


def require_scorer(path: Path) -> Benchmark:
    """The benchmark whose own file `path` is. Raises RecordError where there is none, or its owner has no scorer."""
    benchmark = benchmark_of(path)
    if benchmark is None or benchmark not in KEYS:
        what = "MELD's owners have no scorer of answers" if benchmark else "is no benchmark's own file"
        raise RecordError(None, f"--official: {what}", str(path), remedy="leave --official out")
    return benchmark


def write_official(path: Path, out: Path, responses: Iterable[Response]) -> Official:
    """The rows of a benchmark's own file that were answered, as its owner's scorer reads them; `out` is replaced.

    MMAU: a JSON list with model_output; MMAR: JSON lines with answer_prediction; both the text of the choice that the
    response ends up with, because their scorers compare sets of words. AIR-Bench: JSON lines with response, the letter
    of the first column that holds that text, which is how its scorer looks for the right one. A response without a
    clear choice goes in whole. That is what `tgsr score` hands to its copies of the scorers, too (official.py).

    A question that was answered twice has its last response. Raises RecordError as `require_scorer` does.
    """
    benchmark = require_scorer(path)
    texts = {response.question.id: response.text for response in responses}
    rows: list[Row] = []
    n_without = 0
    for item in items(path):
        if not isinstance(item, Item) or item.id not in texts:
            continue
        text, values = texts[item.id], item.entry.values
        index = extract_choice(text, item.choices)
        n_without += index is None
        columns = [values.get(column) for column in AIRBENCH_CHOICES] if benchmark == "airbench" else None
        owners = item.choices if columns is None else [None if c is None else str(c) for c in columns]
        at = None if index is None else owners.index(item.choices[index])
        rows.append({**values, KEYS[benchmark]: handed_over(benchmark, text, owners, at)})
    if benchmark == "mmau":
        content = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    else:  # not write_jsonl, which leaves null out: the owners' scorers want every key
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(out, content)
    return Official(benchmark, len(rows), n_without)
