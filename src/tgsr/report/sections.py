"""What a report says, in order, as values: the page writes them as HTML, report.md as Markdown with PNG pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tgsr.evaluation.scoring.metrics import ChoiceScores, PhraseScores
from tgsr.report.paper import table_named
from tgsr.report.question_sets import QuestionSet
from tgsr.report.results import Results
from tgsr.report.typeset import Column, Group, Number, Table, TableRow
from tgsr.statistics.intervals import Mean
from tgsr.statistics.pictures import Dot, Dots, Lines, curve_panels, line_of, tint

PHASES = {
    "all": "all tokens",
    "reasoning": "reasoning",
    "answer": "the last line",
    "times": "cited times",
}


@dataclass(frozen=True, slots=True)
class Section:
    """One heading of the report. `key` names its pictures' files; `keys` are lines that need a legend: names with
    their colour class. `images` are PNG files that another command drew."""

    key: str
    title: str
    lead: str
    tables: tuple[Table, ...] = ()
    dots: tuple[Dots, ...] = ()
    lines: tuple[Lines, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    images: tuple[Path, ...] = ()
    is_folded: bool = False


def sections(results: Results, tables: Sequence[Table]) -> list[Section]:
    """Those that there is anything for; `tables` are the paper's (paper.py)."""
    found = [
        phrase_section(results, tables),
        choice_section(results, tables),
        benchmark_section(results, tables),
        behaviour_section(results, tables),
        control_section(results),
        attention_section(results, tables),
        curve_section(results),
        trouble_section(results),
    ]
    return [section for section in found if section is not None]


def _panels(
    results: Results,
    sets: Sequence[tuple[str, Mapping[str, Mean | None]]],
    title: str,
    marks: Mapping[str, float] | None = None,
) -> Dots:
    """Dots of one quantity: a group a set of questions, a row a model that has the quantity."""
    models = results.models
    groups = {
        name: [
            Dot(model, tint(models, model), mean)
            for model in models
            if (mean := means.get(model)) is not None
        ]
        for name, means in sets
    }
    return Dots(title, {name: dots for name, dots in groups.items() if dots}, marks or {})


def phrase_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 1: phrases to be located."""
    sets = [one for one in results.sets if one.phrase]
    if not sets:
        return None

    def dots(title: str, of: Callable[[PhraseScores], Mean]) -> Dots:
        found = [(one.name, {model: of(scores) for model, scores in one.phrase.items()}) for one in sets]
        return _panels(results, found, title)

    return Section(
        "phrases",
        "Where is this phrase said?",
        "The first span that a model gives, against the true one. IoU is the time that both share over the time that "
        "either covers.",
        table_named(tables, "table-1", "table-1-differences"),
        (
            dots("IoU", lambda s: s.iou),
            dots("F1", lambda s: s.f1),
            dots("Share with IoU ≥ 0.7", lambda s: s.high_overlap),
        ),
    )


def choice_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Stage 2's questions: accuracy, how many timestamps, whether they point at the evidence."""
    sets = [one for one in results.sets if one.choice and one.benchmark is None]
    if not sets:
        return None

    def cells(s: ChoiceScores) -> tuple[Number, ...]:
        return (
            s.n,
            s.accuracy_official,
            s.accuracy_strict,
            s.chance,
            s.mentions_official,
            s.share_k1_official,
            s.trace_iou,
        )

    columns = (
        Column("n"),
        Column("accuracy", "%", 100, 1, "higher"),
        Column("strict", "%", 100, 1, "higher"),
        Column("chance", "%", 100, 1),
        Column("k", digits=2),
        Column("k = 1", "%", 100, 1),
        Column("trace IoU", better="higher"),
    )
    table = Table(
        "choices",
        "Mean over the questions, with its 95 % interval",
        "model",
        columns,
        tuple(
            Group(
                one.name, tuple(TableRow(m, cells(one.choice[m])) for m in results.models if m in one.choice)
            )
            for one in sets
        ),
    )
    chance = {one.name: s.chance for one in sets for s in one.choice.values() if s.chance is not None}

    def dots(title: str, of: Callable[[ChoiceScores], Mean], marks: dict[str, float] | None = None) -> Dots:
        found = [(one.name, {model: of(scores) for model, scores in one.choice.items()}) for one in sets]
        return _panels(results, found, title, marks)

    # Where benchmarks are there too, the differences stand beside them.
    differences = (
        () if any(one.official for one in results.sets) else table_named(tables, "table-2-differences")
    )
    return Section(
        "choices",
        "Which answer is right, and what supports it?",
        "Accuracy and k, the number of timestamps in a response, are counted as the paper’s authors count them; strict "
        "is what the response ends up with. Trace IoU compares the cited spans with the evidence; a response without "
        "spans has none.",
        (table, *task_tables(results, sets), *differences),
        (
            dots("Accuracy; dashed: chance", lambda s: s.accuracy_official, chance),
            dots("Share with k = 1", lambda s: s.share_k1_official),
            dots("Trace IoU", lambda s: s.trace_iou),
        ),
    )


def task_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """Accuracy with a row a task and a column a model; nothing where no question names its task."""
    groups = []
    for one in sets:
        means = {model: s.accuracy_official_by_task for model, s in one.choice.items()}
        groups.append(Group(one.name, _by_name(means, results.models)))
    return _named_rows("tasks", "Accuracy by task, %", "task", results.models, groups)


def _by_name(means: dict[str, dict[str, Mean]], models: Sequence[str]) -> tuple[TableRow, ...]:
    names = sorted({name for by_name in means.values() for name in by_name})
    return tuple(TableRow(name, tuple(means.get(m, {}).get(name) for m in models)) for name in names)


def _named_rows(
    key: str, title: str, first: str, models: Sequence[str], groups: Sequence[Group]
) -> tuple[Table, ...]:
    shown = tuple(group for group in groups if group.rows)
    if not shown:
        return ()
    columns = tuple(Column(model, scale=100, digits=1) for model in models)
    return (Table(key, title, first, columns, shown),)


# --- benchmarks ------------------------------------------------------------------------------------------


def benchmark_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 2, and each benchmark by category, official beside strict, with what makes the two differ."""
    sets = [one for one in results.sets if one.official]
    if not sets:
        return None
    chance = {one.name: s.chance for one in sets for s in one.scores.values() if s.chance is not None}
    official = [(one.name, one.official) for one in sets]
    strict = [(one.name, one.strict) for one in sets]
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
            _panels(results, official, "Official accuracy; dashed: chance", chance),
            _panels(results, strict, "Strict accuracy; dashed: chance", chance),
        ),
    )


def reading_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """The same answers read in three ways, and what no reading counts; nothing without a benchmark's full scores."""
    groups = []
    for one in sets:
        rows = []
        for model in results.models:
            if (s := one.scores.get(model)) is not None:
                no_verdict = (s.n_unscored, len(s.empty), s.n_without_choice)
                f1 = (s.weighted_f1, s.always_neutral)
                rows.append(
                    TableRow(
                        model,
                        (
                            s.accuracy_official,
                            s.accuracy_as_is,
                            s.accuracy_strict,
                            s.chance,
                            s.n,
                            *no_verdict,
                            *f1,
                        ),
                    )
                )
        if rows:
            groups.append(Group(one.name, tuple(rows)))
    if not groups:
        return ()
    columns = [Column(name, "%", 100, 1) for name in ("official", "as is", "strict", "chance")]
    columns += [Column(name) for name in ("n", "unscored", "empty", "no clear choice")]
    columns += [Column("weighted F1", "%", 100, 1), Column("always neutral", "%", 100, 1)]
    kept = [
        at
        for at, _ in enumerate(columns)
        if any(row.cells[at] not in (None, 0) for group in groups for row in group.rows)
    ]
    shown = tuple(
        Group(g.name, tuple(TableRow(r.name, tuple(r.cells[at] for at in kept)) for r in g.rows))
        for g in groups
    )
    title = "The same answers, read in three ways"
    return (Table("readings", title, "model", tuple(columns[at] for at in kept), shown),)


def category_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """A table a benchmark: a row a category, official beside strict for each model."""
    found = []
    for one in sets:
        models = [model for model in results.models if model in one.scores]
        official = {m: one.scores[m].accuracy_official_by_category for m in models}
        strict = {m: one.scores[m].accuracy_strict_by_category for m in models}
        rows = []
        for name in sorted({name for means in official.values() for name in means}):
            n = max(means[name].n for means in official.values() if name in means)
            pairs = [(official[m].get(name), strict[m].get(name)) for m in models]
            rows.append(TableRow(name, (n, *(mean for pair in pairs for mean in pair))))
        columns = [Column(f"{m}{what}", "%", 100, 1) for m in models for what in (", official", ", strict")]
        if rows:
            title = f"{one.name} by category"
            groups = (Group("", tuple(rows)),)
            found.append(Table(f"{one.key}-categories", title, "category", (Column("n"), *columns), groups))
    return tuple(found)


def why_tables(results: Results, sets: Sequence[QuestionSet]) -> tuple[Table, ...]:
    """Where the two accuracies come apart: how many responses, and why; nothing where all agree."""
    groups = []
    for one in sets:
        for model in results.models:
            if (scores := one.scores.get(model)) is None:
                continue
            reasons = dict.fromkeys([*scores.why, *scores.why_as_is])
            rows = tuple(TableRow(r, (scores.why.get(r), scores.why_as_is.get(r))) for r in reasons)
            if rows:
                groups.append(Group(f"{one.name}, {model}", rows))
    if not groups:
        return ()
    title = "How many answers differ from strict, and why (docs/scoring.md)"
    return (Table("why", title, "reason", (Column("official"), Column("as is")), tuple(groups)),)


# --- behaviour, controls, attention ----------------------------------------------------------------------


def behaviour_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 3, and how many responses each of its means leaves out."""
    if not results.behaviour:
        return None
    columns = (
        Column("responses"),
        Column("without a span"),
        Column("intervals not verified"),
        Column("not judged: no answer"),
        Column("no verdict"),
        Column("no reply"),
    )
    rows = tuple(
        TableRow(
            model,
            (
                *(
                    b.n,
                    b.n_without_span,
                    sum(b.n_unverifiable.values()),
                ),
                *(
                    None if b.consistency is None else n
                    for n in (b.n_without_answer, b.n_unparsed, b.n_failed)
                ),
            ),
        )
        for model, b in results.behaviour.items()
    )
    counts = Table("behaviour-counts", "What could not be measured", "model", columns, (Group("", rows),))
    behaviour = results.behaviour
    named: list[tuple[str, Mapping[str, Mean | None]]] = [
        ("Audiology Verify", {model: b.verify for model, b in behaviour.items()}),
        ("Consistency", {model: b.consistency for model, b in behaviour.items()}),
        ("Accuracy", {model: b.accuracy for model, b in behaviour.items()}),
    ]
    dots = [_panels(results, [("", means)], name) for name, means in named]
    return Section(
        "behaviour",
        "How responses reason",
        "How many places of the recording a response points at, whether what it says of them is what a recogniser "
        "hears there, and whether its answer follows from its reasoning.",
        (*table_named(tables, "table-3"), counts),
        tuple(panel for panel in dots if panel.groups),
        images=pictures_of(results, "behaviour"),
    )


def pictures_of(results: Results, kind: str) -> tuple[Path, ...]:
    return tuple(path for path in results.pictures if path.name.startswith(kind))


def control_section(results: Results) -> Section | None:
    """controls.json: what becomes of the answers when the sound is changed."""
    if not results.controls:
        return None
    controls = results.controls
    conditions = list(dict.fromkeys(name for c in controls.values() for name in c.conditions))
    columns = (Column("accuracy", "%", 100, 1), Column("same answer", "%", 100, 1), Column("n"))
    groups = tuple(
        Group(
            name,
            tuple(
                TableRow(model, (of.accuracy, of.same_answer, of.n))
                for model, c in controls.items()
                if (of := c.conditions.get(name)) is not None
            ),
        )
        for name in conditions
    )
    by_condition = Table("controls", "Answers when the sound is changed", "model", columns, groups)
    summed = Table(
        "controls-summary",
        "What the answers rest on",
        "model",
        (
            Column("sufficiency"),
            Column("over silence", better="higher"),
            Column("necessity", better="higher"),
            Column("lost in silence"),
            Column("lost when swapped"),
            Column("text alone"),
            Column("times follow", better="higher"),
            Column("times stay"),
            Column("slope"),
            Column("covered"),
            Column("n"),
        ),
        (
            Group(
                "",
                tuple(
                    TableRow(
                        model,
                        (
                            *(c.sufficiency, c.sufficiency_over_silence, c.necessity),
                            *(c.reliance_silenced, c.reliance_swapped, c.text_prior),
                            *(c.shift_following, c.shift_staying, c.shift_slope, c.covered, c.n),
                        ),
                    )
                    for model, c in controls.items()
                ),
            ),
        ),
    )
    accuracy = [
        (name, {m: c.conditions[name].accuracy for m, c in controls.items() if name in c.conditions})
        for name in conditions
    ]
    same = [
        (name, {m: c.conditions[name].same_answer for m, c in controls.items() if name in c.conditions})
        for name in conditions
    ]
    panels = [
        _panels(results, accuracy, "Accuracy"),
        _panels(results, same, "Same answer as before"),
    ]
    return Section(
        "controls",
        "Does the answer rest on the sound?",
        "The same questions while the sound is silenced, swapped, moved, or reduced to the cited spans. Sufficiency: "
        "the answer stays when only the cited sound is heard; over silence: less what stays without any sound. "
        "Necessity: how much more often it changes without the cited sound than without other sound. Times follow: "
        "cited times move with the sound (docs/controls.md).",
        (summed, by_condition),
        tuple(panel for panel in panels if panel.groups),
        images=pictures_of(results, "controls"),
    )


def attention_section(results: Results, tables: Sequence[Table]) -> Section | None:
    """Table 4, and figures 4 and 5: the audio's share of attention by layer."""
    if not results.attention:
        return None
    attention = results.attention
    panels = []
    for phase, name in PHASES.items():
        lines = tuple(
            line_of(model, tint(results.models, model), range(len(share)), share)
            for model, of in attention.items()
            if (share := of.by_layer.get(phase, {}).get("audio"))
        )
        if lines:
            panels.append(Lines(f"Attention to audio: {name}", "layer", lines, from_zero=True))
    return Section(
        "attention",
        "Where models look while they answer",
        "The share of attention that falls on the audio, by layer, means over responses and heads.",
        table_named(tables, "table-4"),
        lines=tuple(panels),
        keys=tuple((model, tint(results.models, model)) for model in attention),
        images=pictures_of(results, "attention"),
    )


# --- trouble and learning --------------------------------------------------------------------------------


def trouble_section(results: Results) -> Section | None:
    """Responses whose times are missing or impossible: they are in every score above."""
    rows = []
    for model in results.models:
        kinds: list[PhraseScores | ChoiceScores] = []
        for one in results.sets:
            kinds += [of[model] for of in (one.phrase, one.choice) if model in of]
        if kinds:
            counts = (
                sum(s.n for s in kinds),
                sum(s.n_without_span for s in kinds),
                sum(s.n_invalid for s in kinds),
                sum(s.n_past_end for s in kinds),
                sum(s.n_without_letter for s in kinds if isinstance(s, ChoiceScores)),
            )
            rows.append(TableRow(model, counts))
    if not rows:
        return None
    columns = tuple(
        Column(name)
        for name in ("responses", "no span", "impossible", "past the end", "no letter in the last line")
    )
    return Section(
        "trouble",
        "Responses without usable times",
        "All of them are scored. Impossible: a span that ends before it starts.",
        (Table("trouble", "Number of responses", "model", columns, (Group("", tuple(rows)),)),),
        is_folded=True,
    )


def curve_section(results: Results) -> Section | None:
    """Training logs: each quantity, with all runs that have it."""
    if not results.curves:
        return None
    panels = curve_panels(results.curves)
    keys = dict.fromkeys((line.name, line.tint) for panel in panels for line in panel.lines)
    return Section(
        "learning",
        "Learning",
        "Points: as logged. Lines: their running mean over a tenth of the run.",
        lines=tuple(panels),
        keys=tuple(keys),
    )
