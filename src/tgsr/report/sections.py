"""What a report says, in order, as values: the page writes them as HTML, report.md as Markdown with PNG pictures."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from pathlib import Path

from tgsr.evaluation.scoring.metrics import BenchmarkScores, ChoiceScores, PhraseScores
from tgsr.report.evidence import evidence_of, evidence_warnings, findings, place_panels
from tgsr.report.paper import table_named
from tgsr.report.question_sets import QuestionSet
from tgsr.report.results import Results
from tgsr.report.typeset import Column, Field, Group, Table, TableRow, model_rows
from tgsr.report.verdict import dated, verdict
from tgsr.statistics.intervals import Mean
from tgsr.statistics.pictures import Dots, Lines, Scatter, curve_panels, dots_by_model, line_of, tint

PHASES = {"all": "all tokens", "reasoning": "reasoning", "answer": "the last line", "times": "cited times"}


@dataclass(frozen=True, slots=True)
class Example:
    """Questions that show what `title` says, by id, each with the place of its item on the page, where it is there."""

    title: str
    ids: tuple[str, ...]
    anchors: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One heading of the report. `key` names its pictures' files; `keys` are lines that need a legend: names with
    their colour class. `images` are PNG files that another command drew. `findings` are said in sentences, before the
    tables, after the `warnings`."""

    key: str
    title: str
    lead: str
    tables: tuple[Table, ...] = ()
    dots: tuple[Dots, ...] = ()
    lines: tuple[Lines, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    images: tuple[Path, ...] = ()
    is_folded: bool = False
    warnings: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    scatters: tuple[Scatter, ...] = ()
    examples: tuple[Example, ...] = ()


def sections(
    results: Results,
    tables: Sequence[Table],
    said: Sequence[str] | None = None,
    before: Sequence[Section] = (),
) -> list[Section]:
    """The sections that there is anything for; `tables` are the paper's (paper.py).

    `said` is the verdict, that of the results if None; `before` are sections of another command, behind it.
    """
    parts = [
        verdict_section(results, verdict(results) if said is None else said),
        *before,
        evidence_section(results, tables),
        watch_section(results),
        phrase_section(results, tables),
        choice_section(results, tables),
        benchmark_section(results, tables),
        behaviour_section(results, tables),
        control_section(results),
        attention_section(results, tables),
        curve_section(results),
        trouble_section(results),
    ]
    return [section for section in parts if section is not None]


def percent(name: str) -> Column:
    return Column(name, "%", 100, 1)


def score_tables(
    results: Results,
    key: str,
    title: str,
    scores: Mapping[str, Mapping[str, object]],
    columns: Mapping[Column, Field],
) -> tuple[Table, ...]:
    """The table with a group for each of the named scores by model; () where no model has any."""
    groups = [Group(name, model_rows(results.models, by_model, columns)) for name, by_model in scores.items()]
    return tables_of(key, title, "model", columns, groups)


def tables_of(
    key: str, title: str, first: str, columns: Iterable[Column], groups: Iterable[Group]
) -> tuple[Table, ...]:
    """The table of those groups that have rows, alone; () without any."""
    groups = tuple(group for group in groups if group.rows)
    return (Table(key, title, first, tuple(columns), groups),) if groups else ()


def dots_of(
    results: Results,
    scores: Mapping[str, Mapping[str, object]],
    measures: Mapping[str, str],
    marks: Mapping[str, float] | None = None,
) -> tuple[Dots, ...]:
    """A panel for each title with the name of a mean: a group a set of questions, a row a model that has the mean.

    A mean that nobody has a value of has no panel.
    """
    panels = []
    for title, field in measures.items():
        by_set = scores.items()
        means = {name: {m: getattr(s, field) for m, s in by_model.items()} for name, by_model in by_set}
        panel = dots_of_means(results, title, means, marks)
        if any(dot.mean.value is not None for dot in chain.from_iterable(panel.groups.values())):
            panels.append(panel)
    return tuple(panels)


def dots_of_means(
    results: Results,
    title: str,
    means: Mapping[str, Mapping[str, Mean | None]],
    marks: Mapping[str, float] | None = None,
) -> Dots:
    """The means by model: a group a name, a row a model that has the mean."""
    groups = {
        name: dots_by_model({model: by_model.get(model) for model in results.models})
        for name, by_model in means.items()
    }
    return Dots(title, {name: dots for name, dots in groups.items() if dots}, marks or {})


def verdict_section(results: Results, said: Sequence[str]) -> Section | None:
    """What may be read from the numbers, before them."""
    if not said:
        return None
    return Section("verdict", "What the numbers say", dated(datetime.date.today()), findings=tuple(said))


def evidence_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """What the project promises, first: that cited places are evidence."""
    named = table_named(tables, "evidence", "evidence-differences", "evidence-times")
    found, held = findings(results), evidence_of(results).items()
    if not named and not found:
        return None
    scores = {name: {model: one.evidence for model, one in by_model.items()} for name, by_model in held}
    measures = {"Evidence hit": "evidence_hit", "Trace IoU": "trace_iou", "Quote truth": "quote_truth"}
    return Section(
        "evidence",
        "Does the evidence hold?",
        "Whether models cite the place that the answer rests on, and quote what is said there. In the picture each "
        "response is a point: where its first citation starts, against where the evidence does. True evidence is on "
        "the diagonal; a level band is a place that is cited whatever is asked. Full points hit the evidence; a "
        "triangle lies beyond the upper edge.",
        named,
        dots_of(results, scores, measures),
        warnings=tuple(evidence_warnings(results)),
        findings=tuple(found),
        scatters=tuple(place_panels(results)),
    )


def phrase_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 1: phrases to be located."""
    scores = {questions.name: questions.phrase for questions in results.sets if questions.phrase}
    if not scores:
        return None
    return Section(
        "phrases",
        "Where is this phrase said?",
        "The span that a model gives, against the true one. IoU is the time that both share over the time that either "
        "covers; an answer without a span, or with several, has IoU 0.",
        table_named(tables, "table-1", "table-1-differences"),
        dots_of(results, scores, {"IoU": "iou", "F1": "f1", "Share with IoU ≥ 0.7": "high_overlap"}),
    )


def choice_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Stage 2's questions: accuracy, how many timestamps, whether they point at the evidence."""
    sets = [questions for questions in results.sets if questions.choice and questions.benchmark is None]
    if not sets:
        return None
    scores = {questions.name: questions.choice for questions in sets}
    columns: dict[Column, Field] = {
        Column("n"): "n",
        Column("accuracy", "%", 100, 1, "higher"): "accuracy_official",
        Column("strict", "%", 100, 1, "higher"): "accuracy_strict",
        percent("chance"): "chance",
        Column("k", digits=2): "mentions_official",
        percent("k = 1"): "share_k1_official",
        Column("trace IoU where cited", better="higher"): "trace_iou",
    }
    title = "Mean over the questions, with its 95 % interval"
    # Where benchmarks are there too, the differences stand beside them.
    has_benchmarks = any(questions.official for questions in results.sets)
    return Section(
        "choices",
        "Which answer is right, and what supports it?",
        "Accuracy and k, the number of timestamps in a response, are counted as the paper’s authors count them; strict "
        "is what the response ends up with. Trace IoU compares the cited spans with the evidence: here it is the mean "
        "over the responses that cite any.",
        (
            *score_tables(results, "choices", title, scores, columns),
            *task_tables(results, sets),
            *(() if has_benchmarks else table_named(tables, "table-2-differences")),
        ),
        dots_of(results, scores, {"Accuracy; dashed: chance": "accuracy_official"}, chances(scores))
        + dots_of(results, scores, {"Share with k = 1": "share_k1_official"}),
    )


def chances(scores: Mapping[str, Mapping[str, ChoiceScores | BenchmarkScores]]) -> dict[str, float]:
    """Each set's accuracy of a blind pick, as the last model's scores say."""
    return {
        name: chance
        for name, by_model in scores.items()
        for model_scores in by_model.values()
        if (chance := model_scores.chance) is not None
    }


def task_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """Accuracy with a row a task and a column a model; nothing where no question names its task."""
    groups = []
    for questions in sets:
        means = {model: scores.accuracy_official_by_task for model, scores in questions.choice.items()}
        tasks = sorted(set(chain.from_iterable(means.values())))
        rows = tuple(TableRow(t, tuple(means.get(m, {}).get(t) for m in results.models)) for t in tasks)
        groups.append(Group(questions.name, rows))
    columns = tuple(Column(model, scale=100, digits=1) for model in results.models)
    return tables_of("tasks", "Accuracy by task, %", "task", columns, groups)


# --- benchmarks ------------------------------------------------------------------------------------------


def benchmark_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 2, and each benchmark by category, official beside strict, with what makes the two differ."""
    sets = [questions for questions in results.sets if questions.official]
    if not sets:
        return None
    chance = chances({questions.name: questions.scores for questions in sets})
    official = {questions.name: questions.official for questions in sets}
    strict = {questions.name: questions.strict for questions in sets}
    return Section(
        "benchmarks",
        "Benchmarks",
        "Official is what the benchmark’s own scorer says of the option that a response ends up with, as is what it "
        "says of the whole response; strict compares that option with the right one. The owners’ scorers compare words "
        "or letters, so they can miss a right answer, or take a wrong one for right.",
        (
            *table_named(tables, "table-2", "table-2-strict", "table-2-differences"),
            *reading_tables(results, sets),
            *why_tables(results, sets),
            *category_tables(results, sets),
        ),
        (
            dots_of_means(results, "Official accuracy; dashed: chance", official, chance),
            dots_of_means(results, "Strict accuracy; dashed: chance", strict, chance),
        ),
    )


def reading_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """The same answers read in three ways, and what no reading counts; nothing without a benchmark's full scores."""
    columns: dict[Column, Field] = {
        percent("official"): "accuracy_official",
        percent("as is"): "accuracy_as_is",
        percent("strict"): "accuracy_strict",
        percent("chance"): "chance",
        Column("n"): "n",
        Column("unscored"): "n_unscored",
        Column("empty"): lambda scores: len(scores.empty),
        Column("no clear choice"): "n_without_choice",
        percent("weighted F1"): "weighted_f1",
        percent("always neutral"): "always_neutral",
    }
    scores = {questions.name: questions.scores for questions in sets}
    rows = [row for by_model in scores.values() for row in model_rows(results.models, by_model, columns)]
    is_shown = [any(row.cells[i] not in (None, 0) for row in rows) for i in range(len(columns))]
    shown = dict(compress(columns.items(), is_shown))
    return score_tables(results, "readings", "The same answers, read in three ways", scores, shown)


def category_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """A table a benchmark: a row a category, official beside strict for each model."""
    tables: list[Table] = []
    for questions in sets:
        models = [model for model in results.models if model in questions.scores]
        official = {m: questions.scores[m].accuracy_official_by_category for m in models}
        strict = {m: questions.scores[m].accuracy_strict_by_category for m in models}
        rows = []
        for name in sorted(set(chain.from_iterable(official.values()))):
            n = max(means[name].n for means in official.values() if name in means)
            pairs = [(official[m].get(name), strict[m].get(name)) for m in models]
            rows.append(TableRow(name, (n, *chain.from_iterable(pairs))))
        columns = [Column("n"), *(percent(f"{m}, {what}") for m in models for what in ("official", "strict"))]
        title = f"{questions.name} by category"
        groups = [Group("", tuple(rows))]
        tables += tables_of(f"{questions.key}-categories", title, "category", columns, groups)
    return tuple(tables)


def why_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """Where the two accuracies come apart: how many responses, and why; nothing where all agree."""
    groups = []
    for questions in sets:
        for model in results.models:
            if scores := questions.scores.get(model):
                reasons = dict.fromkeys([*scores.why, *scores.why_as_is])
                rows = tuple(TableRow(r, (scores.why.get(r), scores.why_as_is.get(r))) for r in reasons)
                groups.append(Group(f"{questions.name}, {model}", rows))
    title = "How many answers differ from strict, and why (docs/scoring.md)"
    return tables_of("why", title, "reason", (Column("official"), Column("as is")), groups)


# --- behaviour, controls, attention ----------------------------------------------------------------------


def behaviour_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 3, and how many responses each of its means leaves out."""
    if not results.behaviour:
        return None
    columns: dict[Column, Field] = {
        Column("responses"): "n",
        Column("without a span"): "n_without_span",
        Column("cut off"): "n_cut",
        Column("intervals not verified"): lambda scores: sum(scores.n_unverifiable.values()),
        Column("not judged: no answer"): lambda s: None if s.consistency is None else s.n_without_answer,
        Column("no verdict"): lambda s: None if s.consistency is None else s.n_unparsed,
        Column("no reply"): lambda s: None if s.consistency is None else s.n_failed,
    }
    scores = {"": results.behaviour}
    counts = score_tables(results, "behaviour-counts", "What could not be measured", scores, columns)
    measures = {"Audiology Verify": "verify", "Consistency": "consistency", "Accuracy": "accuracy"}
    return Section(
        "behaviour",
        "How responses reason",
        "How many places of the recording a response points at, whether what it says of them is what a recogniser "
        "hears there, and whether its answer follows from its reasoning.",
        (*table_named(tables, "table-3"), *counts),
        dots_of(results, scores, measures),
        images=pictures_of(results, "behaviour"),
    )


def pictures_of(results: Results, kind: str) -> tuple[Path, ...]:
    return tuple(path for path in results.pictures if path.name.startswith(kind))


def control_section(results: Results) -> Section | None:
    """What becomes of the answers when the sound is changed (controls.json)."""
    if not results.controls:
        return None
    of_conditions: dict[Column, Field] = {
        percent("accuracy"): "accuracy",
        percent("same answer"): "same_answer",
        Column("cut off"): "n_cut",
        Column("n"): "n",
    }
    of_models: dict[Column, Field] = {
        Column("sufficiency"): "sufficiency",
        Column("over silence", better="higher"): "sufficiency_over_silence",
        Column("necessity", better="higher"): "necessity",
        Column("lost in silence"): "reliance_silenced",
        Column("lost when swapped"): "reliance_swapped",
        Column("text alone"): "text_prior",
        Column("times follow", better="higher"): "shift_following",
        Column("times stay"): "shift_staying",
        Column("slope"): "shift_slope",
        Column("covered"): "covered",
        Column("n"): "n",
    }
    by_condition: dict[str, dict[str, object]] = {}
    for model, controls in results.controls.items():
        for name, scores in controls.conditions.items():
            by_condition.setdefault(name, {})[model] = scores
    summary, changed = "What the answers rest on", "Answers when the sound is changed"
    return Section(
        "controls",
        "Does the answer rest on the sound?",
        "The same questions while the sound is silenced, swapped, moved, or reduced to the cited spans. Sufficiency: "
        "the answer stays when only the cited sound is heard; over silence: less what stays without any sound. "
        "Necessity: how much more often it changes without the cited sound than without other sound. Times follow: "
        "cited times move with the sound (docs/controls.md).",
        (
            *score_tables(results, "controls-summary", summary, {"": results.controls}, of_models),
            *score_tables(results, "controls", changed, by_condition, of_conditions),
        ),
        dots_of(results, by_condition, {"Accuracy": "accuracy", "Same answer as before": "same_answer"}),
        images=pictures_of(results, "controls"),
    )


def attention_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 4, and figures 4 and 5: the audio's share of attention by layer."""
    if not results.attention:
        return None
    panels = []
    for phase, name in PHASES.items():
        lines = tuple(
            line_of(model, tint(results.models, model), range(len(share)), share)
            for model, attention in results.attention.items()
            if (share := attention.by_layer.get(phase, {}).get("audio"))
        )
        if lines:
            panels.append(Lines(f"Attention to audio: {name}", "layer", lines, from_zero=True))
    return Section(
        "attention",
        "Where models look while they answer",
        "The share of attention that falls on the audio, by layer, means over responses and heads.",
        table_named(tables, "table-4"),
        lines=tuple(panels),
        keys=tuple((model, tint(results.models, model)) for model in results.attention),
        images=pictures_of(results, "attention"),
    )


# --- trouble and learning --------------------------------------------------------------------------------


def trouble_section(results: Results) -> Section | None:
    """Responses whose times are missing or impossible: they are in every score above."""
    scores: dict[str, list[PhraseScores | ChoiceScores]] = {}
    for questions in results.sets:
        for by_model in (questions.phrase, questions.choice):
            for model, model_scores in by_model.items():
                scores.setdefault(model, []).append(model_scores)

    def total(field: str) -> Field:
        return lambda scores: sum(getattr(part, field, 0) for part in scores)

    columns = {
        Column("responses"): total("n"),
        Column("no span"): total("n_without_span"),
        Column("impossible"): total("n_invalid"),
        Column("past the end"): total("n_past_end"),
        Column("no letter in the last line"): total("n_without_letter"),  # of choices
    }
    if not scores:
        return None
    return Section(
        "trouble",
        "Responses without usable times",
        "All of them are scored. Impossible: a span that ends before it starts.",
        score_tables(results, "trouble", "Number of responses", {"": scores}, columns),
        is_folded=True,
    )


def watch_section(results: Results) -> Section | None:
    """What trainings' watches saw: whether models ground while they learn."""
    if not results.watched:
        return None
    panels = [replace(panel, is_share=True) for panel in curve_panels(results.watched, is_noisy=False)]
    keys = dict.fromkeys((line.name, line.tint) for panel in panels for line in panel.lines)
    return Section(
        "watched",
        "Does it ground while it learns?",
        "Greedy answers to held-out questions, now and then in the training, with 95 % intervals. k alone says "
        "nothing: a model that cites one place for everything has k = 1.",
        lines=tuple(panels),
        keys=tuple(keys),
        warnings=results.watch_warnings,
    )


def curve_section(results: Results) -> Section | None:
    """Training logs: each quantity, with all runs that have it."""
    if not results.curves:
        return None
    panels = curve_panels(results.curves)
    keys = dict.fromkeys((line.name, line.tint) for panel in panels for line in panel.lines)
    lead = "Points: as logged. Lines: their running mean over a tenth of the run."
    return Section("learning", "Learning", lead, lines=tuple(panels), keys=tuple(keys))
