"""Scores as plain text: what a terminal shows after `tgsr score`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tgsr.evaluation.scoring.metrics import BenchmarkScores, ChoiceScores, GroupScores, Metrics, ModelScores
from tgsr.statistics.intervals import number, percent

MOST_IDS = 5  # of a list that a note shows
MOST_REASONS = 4
_LISTS = {
    "missing": "without prediction",
    "duplicates": "ids that occur again",
    "empty": "empty predictions",
    "several": "predictions that name several options",
    "unreadable": "predictions without a letter that the official script reads: left out of its denominator",
    "without_answer": "questions whose answer is unknown, or no choice",
    "foreign": "predictions for other questions: not scored",
}
# Of a model of ours "several" is something else.
_LISTS_OF_MODEL = {
    **_LISTS,
    "several": "questions answered more than once, each answer scored",
    "truncated": "responses cut off at the limit of new tokens, scored as they are",
}


def _group_lines(name: str, group: GroupScores) -> list[str]:
    """One line for phrases (table 1) and one for choices, where there are any."""
    lines = []
    if (phrase := group.phrase) is not None:
        lines.append(
            f"{name}: {phrase.n} phrases: IoU {number(phrase.iou)}, F1 {number(phrase.f1)}, "
            f"IoU >= 0.7 {percent(phrase.high_overlap)}, {phrase.n_without_span} without a readable span"
        )
    if (choice := group.choice) is not None:
        lines.append(
            f"{name}: {choice.n} choices: accuracy {percent(choice.accuracy_official)}, "
            f"k {number(choice.mentions_official)}, k = 1 {percent(choice.share_k1_official)}, "
            f"trace IoU {number(choice.trace_iou)}{_unclear(choice)}"
        )
    return lines


def _unclear(scores: ChoiceScores | BenchmarkScores) -> str:
    """How many answers say no option clearly, where there are any: strict accuracy counts them as wrong."""
    return f", {scores.n_without_choice} without a clear answer" if scores.n_without_choice else ""


def summary(metrics: Metrics) -> str:
    """The file's scores, a line a model, split and kind of question."""
    lines: list[str] = []
    for model, scores in metrics.models.items():
        for split, group in scores.by_split.items():
            lines += _group_lines(f"{model}, {split}", group)
    for difference in metrics.differences:
        name = f"{difference.other} - {difference.model}"
        if difference.accuracy_official is not None:
            points = percent(difference.accuracy_official).replace(" %", " points", 1)
            lines.append(f"{name}: accuracy {points}, {difference.n_choices} choices, paired")
        if difference.iou is not None:
            lines.append(f"{name}: IoU {number(difference.iou)}, {difference.n_phrases} phrases, paired")
    if (benchmark := metrics.benchmark) is not None:
        lines.append(
            f"{benchmark.n} items, {benchmark.n_unscored} unscored: official accuracy "
            f"{percent(benchmark.accuracy_official)}, strict {percent(benchmark.accuracy_strict)}{_unclear(benchmark)}"
        )
    return "\n".join(lines)


def notes(metrics: Metrics) -> list[str]:
    """What must be known besides the means: the benchmarks' numbers, tests, and what was left out or odd."""
    lines: list[str] = []
    for model, scores in metrics.models.items():
        lines += _model_notes(model, scores)
    for difference in metrics.differences:
        name = f"{difference.other} - {difference.model}"
        if difference.n_choices:
            lines.append(
                f"{name}: right by one of them only: {difference.n_only_other} and {difference.n_only_model}, "
                f"p {_p(difference.p_accuracy_official)} swapping clips, {_p(difference.p_mcnemar)} McNemar"
            )
        if difference.n_phrases:
            lines.append(f"{name}: IoU: p {_p(difference.p_iou)} swapping clips")
    if metrics.benchmark is not None:
        lines += _benchmark_notes("", metrics.benchmark)
        lines += _list_notes("", metrics.benchmark, _LISTS)
    return lines


def _model_notes(model: str, scores: ModelScores) -> Iterator[str]:
    for name, benchmark in scores.benchmarks.items():
        as_is = benchmark.accuracy_as_is
        whole = "" if as_is is None else f", on whole completions {percent(as_is)}"
        yield (
            f"{model}, {name}: official accuracy {percent(benchmark.accuracy_official)}{whole}, "
            f"strict {percent(benchmark.accuracy_strict)}, {benchmark.n} questions"
            f"{_unclear(benchmark)}"
        )
        yield from _benchmark_notes(f"{model}, {name}: ", benchmark)
    yield from _list_notes(f"{model}: ", scores, _LISTS_OF_MODEL)


def _benchmark_notes(name: str, scores: BenchmarkScores) -> Iterator[str]:
    if scores.speech is not None and len(scores.accuracy_official_by_domain) > 1:
        yield f"{name}speech: official accuracy {percent(scores.speech)}, {scores.speech.n} questions"
    if scores.weighted_f1 is not None and scores.macro_f1 is not None:
        always = "-" if scores.always_neutral is None else f"{100 * scores.always_neutral:.1f} %"
        yield (
            f"{name}weighted F1 {percent(scores.weighted_f1)}, macro F1 {percent(scores.macro_f1)}; "
            f"always neutral: accuracy {always}"
        )
    if scores.n_unscored and scores.accuracy_official_of_all is not None:
        yield f"{name}unscored ones counted as wrong: {percent(scores.accuracy_official_of_all)} official"
    if scores.why:
        most = list(scores.why.items())[:MOST_REASONS]
        yield f"{name}official and strict differ on: {', '.join(f'{n} ({why})' for why, n in most)}"


def _list_notes(name: str, scores: ModelScores | BenchmarkScores, lists: Mapping[str, str]) -> Iterator[str]:
    for kind, n in scores.n_listed.items():
        shown = ", ".join(getattr(scores, kind)[:MOST_IDS]) + (", ..." if n > MOST_IDS else "")
        yield f"{name}{n} {lists[kind]}: {shown}"


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
