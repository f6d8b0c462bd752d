"""The owners' own files: whose a file or row is, its questions, and responses in the form that its scorer reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tgsr.choices import extract_choice
from tgsr.disk.jsonl import first_sign, maybe_json
from tgsr.disk.parquet import is_parquet, parquet_rows
from tgsr.disk.rows import Entry, json_lines, table
from tgsr.disk.whole import write_whole
from tgsr.errors import Bad, RecordError
from tgsr.evaluation.owners.airbench import Airbench
from tgsr.evaluation.owners.daily_omni import DailyOmni
from tgsr.evaluation.owners.grounding import BENCHMARK, format_of_row, places_of
from tgsr.evaluation.owners.meld import Meld
from tgsr.evaluation.owners.mmar import Mmar
from tgsr.evaluation.owners.mmau import Mmau
from tgsr.evaluation.owners.mmau_pro import MmauPro
from tgsr.evaluation.owners.mmsu import Mmsu
from tgsr.evaluation.owners.owner import Benchmark, BenchmarkQuestion, Owner
from tgsr.records import Question, Response, Row

OWNERS: dict[str, Owner] = {
    owner.name: owner for owner in (Mmsu(), MmauPro(), Mmau(), Mmar(), Airbench(), DailyOmni(), Meld())
}
_KNOWN = (
    "give questions.jsonl, or a benchmark's own file: MMAU's mmau-test-mini.json, MMAR's MMAR-meta.jsonl, AIR-Bench's "
    "Foundation_meta.json, MELD's *_sent_emo.csv, MMAU-Pro's test.parquet, Daily-Omni's qa.json, LAT-Bench's "
    "bench-EN-TAG.jsonl, SpotSound-Bench's annotations_processed.json, AEGBench's list of recordings"
)


@dataclass(frozen=True, slots=True)
class Official:
    """What was written for an owner's scorer: rows, and how many of them hold a whole text for want of a choice."""

    benchmark: Benchmark
    n: int
    n_without_choice: int


def owner_of(row: Mapping[str, object]) -> Owner | None:
    """Whose question the row is, by what only theirs have; None for a question of ours, and for any other row."""
    if "clip_id" in row:
        return None
    return next((o for o in OWNERS.values() if all(mark in row for mark in o.question_marks)), None)


def owner_of_question(question: Question) -> Owner | None:
    """Whose question a question of ours is, where its labels say so and there is a rule for it."""
    for name, value in question.labels:
        if name == "benchmark":
            return OWNERS.get(value)
    return None


def whose_file(path: Path) -> tuple[Owner | None, bool]:
    """Whose own file of questions this is, and whether it is a benchmark of places (grounding.py), whose scores are
    ours: told from its first row that can be read, not from its name.

    (None, False) for any other file of JSON lines: it may be questions.jsonl. Raises RecordError for a JSON list and a
    table that are no benchmark's, and OSError where the file cannot be read.
    """
    first = next((entry.values for entry in _entries(path) if isinstance(entry, Entry)), None)
    row = first or {}
    owner, asks_where = owner_of(row), "clip_id" not in row and format_of_row(row) is not None
    if owner is not None or asks_where or first_sign(path) in (b"{", b""):
        return owner, asks_where
    keys = f"its first row has the keys {', '.join(map(str, row))!a:.200}"
    keys = "it has no row" if first is None else keys
    raise RecordError(None, f"is no benchmark's file: {keys}", str(path), remedy=_KNOWN)


def benchmark_questions(path: Path) -> Iterator[BenchmarkQuestion | Bad]:
    """Every question of a benchmark's file in its order, no sound file touched.

    Bad: a row that is not JSON, has no id, question or answer, an answer that is none of its choices, an id that an
    earlier row has, and a clip of MELD that is known to be damaged. Choices that are null or blank are left out.
    Raises RecordError where the file is no benchmark's.
    """
    owner, asks_where = whose_file(path)
    if owner is None and not asks_where:
        raise RecordError(None, "is no benchmark's own file", str(path), remedy=_KNOWN)
    seen: dict[str, int | None] = {}
    for entry in _entries(path):
        if isinstance(entry, Bad):
            yield entry
            continue
        try:
            for question in _queries(entry) if owner is None else [owner.question(entry)]:
                if question.id in seen:
                    raise RecordError("id", f"{question.id!r} was already on line {seen[question.id]}")
                seen[question.id] = entry.line
                yield question
        except RecordError as error:
            yield entry.bad(error)


def _queries(entry: Entry) -> Iterator[BenchmarkQuestion]:
    """The phrase questions of a row of a benchmark of places. RecordError where it is none of its format's."""
    read = format_of_row(entry.values)
    if read is None:
        raise RecordError(None, f"has the keys {', '.join(map(str, entry.values))!s:.200}")
    for query in read(entry.values):
        yield BenchmarkQuestion(
            entry,
            query.id,
            f"{query.benchmark}-{Path(query.audio).stem}",
            places_of(query.audio),
            query.question,
            (),
            query.reference,
            query.benchmark,
            ((BENCHMARK, query.benchmark),),
            query.benchmark,
            query.duration,
            query.phrase,
            query.evidence,
        )


def _entries(path: Path) -> Iterator[Entry | Bad]:
    """The rows of a JSON list (their line is their place in it), of JSON lines, of Parquet or of a table."""
    start, rows = first_sign(path), _within(path)
    if rows is None and start in (b"{", b""):
        yield from json_lines(path)
    elif is_parquet(path):
        yield from (Entry(path, number, row) for number, row in enumerate(parquet_rows(path), 1))
    elif start not in (b"[", b"{", b""):
        yield from table(path)
    else:
        if rows is None:
            try:
                rows = json.loads(path.read_bytes().decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
                problem = f"begins as a JSON list and is none ({error})"
                raise RecordError(None, problem, str(path), remedy="copy or download it again") from None
        for number, values in enumerate(rows, 1):
            if isinstance(values, dict):
                yield Entry(path, number, values)
            else:
                yield Bad(str(path), f"must be a JSON object, got {values!r:.80}", number)


def _within(path: Path) -> list[object] | None:
    """The list `items` of a file that is one JSON object with it; None for any other file."""
    with path.open("rb") as file:
        if b'"items"' not in file.read(65536):
            return None
    whole = maybe_json(path.read_text(encoding="utf-8-sig", errors="replace"))
    items = whole.get("items") if isinstance(whole, dict) else None
    return items if isinstance(items, list) else None


def require_scorer(path: Path) -> Owner:
    """The owner whose file `path` is. Raises RecordError where it is nobody's, or its owner has no scorer."""
    owner, asks_where = whose_file(path)
    if owner is None or not owner.has_scorer:
        is_known = owner is not None or asks_where
        what = "its owners have no scorer of answers" if is_known else "is no benchmark's own file"
        raise RecordError(None, f"--official: {what}", str(path), remedy="leave --official out")
    return owner


def write_official(path: Path, out: Path, responses: Iterable[Response]) -> Official:
    """The rows of a benchmark's own file that were answered, as its owner's scorer reads them; `out` is replaced.

    MMAU: a JSON list with model_output; MMAR: JSON lines with answer_prediction; both the text of the choice that the
    response ends up with, because their scorers compare sets of words. AIR-Bench: JSON lines with response, the letter
    of the first column that holds that text, which is how its scorer looks for the right one. A response without a
    clear choice goes in whole. That is what `tgsr score` hands to its copies of the scorers, too.

    A question that was answered twice has its last response. Raises RecordError as `require_scorer` does.
    """
    owner = require_scorer(path)
    texts = {response.question.id: response.text for response in responses}
    rows: list[Row] = []
    n_without = 0
    for question in benchmark_questions(path):
        if isinstance(question, Bad) or question.id not in texts:
            continue
        text, values = texts[question.id], dict(question.entry.values)
        index = extract_choice(text, question.choices)
        n_without += index is None
        options = owner.options(values)
        chosen = None if index is None else options.index(question.choices[index])
        handed = owner.handed_over(text, options, chosen)
        rows.append({**values, **owner.beside(text, question.choices), owner.key: handed})
    write_owners_rows(owner, out, rows)
    return Official(owner.name, len(rows), n_without)


def write_owners_rows(owner: Owner, out: Path, rows: Iterable[Row]) -> None:
    """Write rows in the owner's layout, null values among them, which the owners' scorers want to see."""
    if owner.is_list:
        write_whole(out, json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n")
    else:
        write_whole(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
