"""The paper's tables 1 to 4, after those of the evidence, with intervals, counts and paired differences.

Rows are models in the order of `Results.models`. Percentages, decimals and columns are the paper's; what we add stands
to their right, or in a table of its own. The paper's own numbers are facts in published.json: they come in groups of
their own, never among measured rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import cast

from tgsr.disk.whole import write_whole
from tgsr.evaluation.attention.metrics import Attention, cross_attention_note, left_out
from tgsr.evaluation.behaviour.metrics import Behaviour
from tgsr.evaluation.scoring.metrics import Difference
from tgsr.report.evidence import evidence_tables
from tgsr.report.question_sets import PARTS, QuestionSet, difference_to
from tgsr.report.results import Results
from tgsr.report.typeset import (
    TICK,
    Column,
    Field,
    Group,
    Number,
    Table,
    TableRow,
    csv_text,
    escape_markdown,
    latex,
    markdown,
    model_rows,
)
from tgsr.statistics.intervals import NOT_MEASURED, Mean

PUBLISHED = "published (other data, other hardware)"
P = Column("p", digits=3, least=0.001)
DECIMALS = {"mmau": 2, "mmar": 2}  # the paper's; the other columns of table 2 have one
# Names by which we take a model to have been through stage 1, where nobody says so
_STA = re.compile(r"(?<![a-z])(sta|tgsr|ours|stage 1|both stages)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Published:
    """One number of the paper, in our units: shares are in [0, 1]."""

    table: int
    group: str
    row: str
    column: str
    value: float | bool


def published_values() -> tuple[Published, ...]:
    """published.json: the paper's tables 1 to 4."""
    stored = json.loads((files("tgsr") / "report" / "published.json").read_text(encoding="utf-8"))
    return tuple(Published(*value) for value in stored["values"])


def published_groups(
    table: int, columns: Sequence[str | None], values: Collection[Published] | None
) -> tuple[Group, ...]:
    """The paper's rows of a table under our columns' keys; None for a column that the paper lacks."""
    groups: dict[str, dict[str, dict[str | None, Number]]] = {}
    for value in values or ():
        if value.table == table:
            row = groups.setdefault(value.group, {}).setdefault(value.row, {"sta": ""})
            row[value.column] = TICK if value.value is True else value.value
    return tuple(
        Group(
            f"{PUBLISHED}: {group}" if group else PUBLISHED,
            tuple(TableRow(name, tuple(map(row.get, columns))) for name, row in rows.items()),
            is_ours=False,
        )
        for group, rows in groups.items()
    )


def groups_with_published(
    rows: Sequence[TableRow], table: int, columns: Sequence[str | None], values: Collection[Published] | None
) -> tuple[Group, ...]:
    """Our rows, and the paper's after them."""
    published = published_groups(table, columns, values)
    measured = (Group("measured here" if published else "", tuple(rows)),) if rows else ()
    return (*measured, *published)


def went_through_sta(results: Results, named: Sequence[str]) -> set[str]:
    """The shown models that table 1 ticks: those of `named`, by label or own name; without any, by their names."""
    if named:
        return {model for model in results.models if {model, results.written_by[model]} & set(named)}
    return {m for m in results.models if _STA.search(m) or _STA.search(results.written_by[m])}


def paper_tables(results: Results, sta: Sequence[str] = (), *, published: bool = False) -> list[Table]:
    """The tables that there is anything for: of the evidence, then in the paper's order; all four with `published`."""
    values = published_values() if published else None
    tables = [
        *evidence_tables(results),
        evidence_differences(results),
        table_1(results, went_through_sta(results, sta), is_named=bool(sta), values=values),
        table_1_differences(results),
        table_2(results, "official", values),
        table_2(results, "strict"),
        table_2_differences(results),
        table_3(results, values),
        table_4(results, values),
    ]
    return [table for table in tables if any(group.rows for group in table.groups)]


def write_tables(tables: Sequence[Table], out: Path, notes: Sequence[str] = ()) -> list[Path]:
    """KEY.md, KEY.csv and KEY.tex of each table in the folder `out`, and all of them in tables.md; missing folders
    are made."""
    written = []
    for table in tables:
        for suffix, text in ((".md", markdown(table)), (".csv", csv_text(table)), (".tex", latex(table))):
            written.append(out / f"{table.key}{suffix}")
            write_whole(written[-1], text)
    written.append(out / "tables.md")
    write_whole(written[-1], tables_md(tables, notes))
    return written


def tables_md(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """All tables as one Markdown page, after what was left out."""
    how = "Intervals are 95 %, bootstrap over clips. A dash: nothing was measured. Bold: the best value."
    return "\n".join([f"# Tables\n\n{how}\n", *notes_md(notes), *map(markdown, tables)])


def notes_md(notes: Sequence[str]) -> list[str]:
    """What was left out, as one part of a Markdown page; [] where all was read."""
    listed = "".join(f"- {escape_markdown(note)}\n" for note in notes)
    return [f"**Not everything could be read:**\n\n{listed}"] if notes else []


# --- table 1 ---------------------------------------------------------------------------------------------


def table_1(
    results: Results, ticked: Collection[str], *, is_named: bool, values: Collection[Published] | None = None
) -> Table:
    """Phrases that are to be located: a group a split, where there are several."""

    def median_of(name: str) -> Field:
        return lambda scores: (errors := getattr(scores, name)) and errors.median

    sets = [questions for questions in results.sets if questions.phrase]
    columns: dict[Column, Field] = {
        Column("IoU", digits=4, better="higher"): "iou",
        Column("F1", digits=4, better="higher"): "f1",
        Column("IoU ≥ 0.7", "%", 100, 2, "higher"): "high_overlap",
        Column("n"): "n",
        Column("no span", better="lower", digits=0): "n_without_span",
        Column("start error", "s, median", digits=2, better="lower"): median_of("start_error"),
        Column("end error", "s, median", digits=2, better="lower"): median_of("end_error"),
        Column("segment F1", better="higher"): "segment_f1",
        Column("event F1", better="higher"): "event_f1",
        Column("R@0.3", "%", 100, 1, "higher"): lambda s: s.recalls.get("0.3"),
        Column("R@0.5", "%", 100, 1, "higher"): lambda s: s.recalls.get("0.5"),
        Column("false alarms", "%", 100, 1, "lower"): lambda s: s.false_alarm if s.false_alarm.n else None,
        Column("missed", "%", 100, 1, "lower"): lambda s: s.missed if s.false_alarm.n else None,
    }
    groups = []
    for questions in sets:
        rows = model_rows(results.models, questions.phrase, columns)
        rows = tuple(replace(row, cells=(TICK if row.name in ticked else "", *row.cells)) for row in rows)
        groups.append(Group(questions.name, rows))
    keys = ("sta", "iou", "f1", "high_overlap", *[None] * (len(columns) - 3))
    notes = [
        "IoU is what others call mIoU, IoU ≥ 0.7 their R@0.7. F1 is the mean over phrases of 2 IoU / (1 + IoU). "
        "Segment and event F1 are sed_eval's, pooled. No span: answers without one readable span, whose IoU is 0. "
        "Errors are those of the others. False alarms: phrases that are not said and are given a place; missed: said "
        "ones of which a model says that they are not."
    ]
    if sets and not is_named:
        named = "since nobody said which of them went through stage 1"
        notes.append(f"STA is ticked by the models' names, {named}.")
    title = "Effect of sentence-level timestamp alignment (table 1)"
    shown = (*groups, *published_groups(1, keys, values))
    return Table("table-1", title, "model", (Column("STA"), *columns), shown, tuple(notes))


def evidence_differences(results: Results) -> Table:
    """Evidence hit and quote truth less the first row's on the same questions, paired, in points."""
    hit, truth = (Column(name, "points", 100, 1, with_n=True) for name in ("evidence hit", "quote truth"))
    return _differences(
        results,
        [questions for questions in results.sets if questions.choice],
        "evidence-differences",
        "Does the evidence hold: difference to the first row on the same questions",
        (hit, P, truth, P),
        lambda d: (d.evidence_hit, d.p_evidence_hit, d.quote_truth, d.p_quote_truth),
    )


def table_1_differences(results: Results) -> Table:
    """IoU less the first row's on the same phrases, paired."""
    return _differences(
        results,
        [questions for questions in results.sets if questions.phrase],
        "table-1-differences",
        "Table 1: difference to the first row on the same phrases",
        (Column("IoU", digits=4), P, Column("n")),
        lambda difference: (difference.iou, difference.p_iou, difference.n_phrases),
    )


def _differences(
    results: Results,
    sets: Sequence[QuestionSet],
    key: str,
    title: str,
    columns: tuple[Column, ...],
    cells: Callable[[Difference], tuple[Number, ...]],
) -> Table:
    """A group a set of questions: each model against the first one there, where a difference is known."""
    groups = []
    for questions in sets:
        first, *others = (model for model in results.models if model in questions.models)
        differences = [(other, difference_to(first, other, questions)) for other in others]
        compared = [(other, cells(difference)) for other, difference in differences if difference is not None]
        known = [(other, row) for other, row in compared if any(isinstance(cell, Mean) for cell in row)]
        rows = tuple(TableRow(f"{other} less {first}", row) for other, row in known)
        groups += [Group(questions.name, rows)] if rows else []
    return Table(key, title, "model", columns, tuple(groups))


# --- table 2 ---------------------------------------------------------------------------------------------


def table_2(results: Results, measure: str, values: Collection[Published] | None = None) -> Table:
    """Accuracy by benchmark, and by split of ours; `measure` is "official" or "strict".

    The paper's six columns are there where any benchmark is, or its own numbers.
    """
    sets = [one for one in results.sets if one.official or (one.choice and one.benchmark is None)]
    has_benchmarks = values is not None or any(questions.benchmark for questions in sets)
    keys = [part.key for part in PARTS] if has_benchmarks else []
    names = {part.key: part.name for part in PARTS}
    for questions in sets:
        if questions.key not in names:
            keys.append(questions.key)
            names[questions.key] = questions.name
    by_key = {questions.key: questions for questions in sets}
    columns = tuple(Column(names[k], "%", 100, DECIMALS.get(k, 1), "higher", with_n=True) for k in keys)
    rows = []
    for model in results.models:
        means = [_accuracy(by_key[key], model, measure) if key in by_key else None for key in keys]
        if any(mean is not None for mean in means):
            rows.append(TableRow(model, tuple(means)))
    read = (
        "Accuracy by each benchmark's own scorer, which is given the option that a response of ours ends up with; for "
        "question sets of ours, by the letter in the last line, as the paper's authors read it."
        if measure == "official"
        else "Accuracy by what the response ends up with: the choice's letter or its text, wherever it stands."
    )
    title = f"Benchmark accuracy, {measure} (table 2)"
    key = "table-2" if measure == "official" else "table-2-strict"
    groups = groups_with_published(rows, 2, keys, values)
    return Table(key, title, "model", columns, groups, (read,))


def _accuracy(questions: QuestionSet, model: str, measure: str) -> Mean | None:
    """`measure` is "official" or "strict"."""
    if questions.benchmark is not None:
        return cast(dict[str, Mean], getattr(questions, measure)).get(model)
    scores = questions.choice.get(model)
    return None if scores is None else getattr(scores, f"accuracy_{measure}")


def table_2_differences(results: Results) -> Table:
    """Official accuracy less the first row's on the same questions, paired, in points."""
    return _differences(
        results,
        [questions for questions in results.sets if questions.choice or questions.official],
        "table-2-differences",
        "Table 2: difference to the first row on the same questions, official accuracy",
        (Column("accuracy", "points", 100, 1), P, Column("n")),
        lambda d: (d.accuracy_official, d.p_accuracy_official, d.n_choices),
    )


# --- table 3 ---------------------------------------------------------------------------------------------


def table_3(results: Results, values: Collection[Published] | None = None) -> Table:
    """What responses do besides being right, from behaviour.json; of models without one, what their scores say."""
    columns: dict[Column, Field] = {
        Column("Regions Explored", digits=2): "regions_strict",
        Column("Audiology Verify", digits=3, better="higher"): "verify",
        Column("Consistency", digits=3, better="higher"): "consistency",
        Column("Acc.", "%", 100, 1, "higher"): "accuracy",
        Column("Verify, citing nothing = 0", digits=3, better="higher"): "verify_zero",
        Column("mentions (official k)", digits=2): "regions_official",
        Column("n"): "n",
    }
    behaviour = dict(results.behaviour)
    with_choices = [questions for questions in results.sets if questions.choice]
    if behaviour and len(with_choices) == 1:
        for model, scores in with_choices[0].choice.items():
            accuracy = _accuracy(with_choices[0], model, "official") or NOT_MEASURED
            said = Behaviour(scores.n, scores.mentions_official, scores.regions_strict, accuracy)
            behaviour.setdefault(model, said)
    keys = ("regions", "verify", "consistency", "accuracy", None, None, None)
    groups = groups_with_published(model_rows(results.models, behaviour, columns), 3, keys, values)
    note = (
        "Regions Explored counts distinct valid intervals; the official k counts mentions of five notations. A dash "
        "under Consistency: no judge was asked."
    )
    title = "Reasoning behaviour for each response (table 3)"
    return Table("table-3", title, "model", tuple(columns), groups, (note,))


# --- table 4 ---------------------------------------------------------------------------------------------


def table_4(results: Results, values: Collection[Published] | None = None) -> Table:
    """The audio's share of attention, by phase, from attention.json: a row a model (the paper's lies on its side)."""

    def of_audio(phase: str) -> Field:
        return lambda attention: attention.by_phase.get(phase, {}).get("audio")

    def cited_against_all(attention: Attention) -> Mean | None:
        evidence = attention.evidence
        phases = ("all", "reasoning", *evidence)
        return next((evidence[phase].ratio for phase in phases if phase in evidence), None)

    phases = ("reasoning", "answer", "times")
    columns: dict[Column, Field] = {
        Column("all", "audio attention", digits=4, better="higher"): of_audio("all"),
        **{Column(phase, digits=4, better="higher"): of_audio(phase) for phase in phases},
        Column("a frame against a system token", digits=3): "audio_per_token",
        Column("cited against all frames", digits=2): cited_against_all,
        Column("n"): "n",
    }
    rows = model_rows(results.models, results.attention, columns)
    keys = ("all", "reasoning", "answer", None, None, None, None)
    groups = groups_with_published(rows, 4, keys, values)
    note = (
        "Shares of attention that fall on the audio, means over layers and heads, each over the responses that have "
        "such tokens. Times: while cited intervals are written. The two ratios compare single positions; 1 is no "
        "preference."
    )
    title = "Audio attention while generating a response (table 4)"
    notes = tuple(filter(None, (note, *left_out(results.attention), cross_attention_note(results.attention))))
    return Table("table-4", title, "model", tuple(columns), groups, notes)


def table_named(tables: Sequence[Table], *keys: str) -> tuple[Table, ...]:
    """Those of the keys that are there, in the keys' order."""
    by_key = {table.key: table for table in tables}
    return tuple(by_key[key] for key in keys if key in by_key)
