"""What a reader of scores must know besides the means: the benchmarks' numbers, tests, and what was left out or odd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tgsr.evaluation.scoring.metrics import BenchmarkScores, Difference, Metrics, ModelScores
from tgsr.statistics.intervals import Mean

MOST_IDS = 5  # of a list that a note shows
MOST_REASONS = 4
_WHAT = {
    "missing": "without prediction",
    "duplicates": "ids that occur again",
    "empty": "empty predictions",
    "several": "predictions that name several options",
    "unreadable": "predictions without a letter that the official script reads: left out of its denominator",
    "without_answer": "questions whose answer is unknown, or no choice",
    "foreign": "predictions for other questions: not scored",
}
# Of a model of ours "several" is something else.
_WHAT_OF_MODEL = {**_WHAT, "several": "questions answered more than once, each answer scored"}


def notes(metrics: Metrics) -> list[str]:
    """Lines for a terminal, after the scores."""
    lines: list[str] = []
    for model, scores in metrics.models.items():
        lines += _model_lines(model, scores)
    for difference in metrics.differences:
        lines += _difference_lines(difference)
    if metrics.benchmark is not None:
        lines += _benchmark_lines("", metrics.benchmark)
    if metrics.bootstrap == "poisson":
        lines.append("intervals: Poisson bootstrap, since the predictions were counted in parts")
    return lines


def _model_lines(model: str, scores: ModelScores) -> Iterator[str]:
    for benchmark, of in scores.benchmarks.items():
        as_is = "" if of.accuracy_as_is is None else f", on whole completions {_percent(of.accuracy_as_is)}"
        yield (
            f"{model}, {benchmark}: official accuracy {_percent(of.accuracy_official)}{as_is}, "
            f"strict {_percent(of.accuracy_strict)}, {of.n} questions"
        )
        yield from _benchmark_lines(f"{model}, {benchmark}: ", of, of_model=True)
    ids = {
        "several": scores.several,
        "empty": scores.empty,
        "missing": scores.missing,
        "foreign": scores.foreign,
    }
    yield from _listed_lines(f"{model}: ", scores.n_listed, ids, _WHAT_OF_MODEL)


def _benchmark_lines(name: str, scores: BenchmarkScores, of_model: bool = False) -> Iterator[str]:
    if scores.speech is not None and len(scores.accuracy_official_by_domain) > 1:
        yield f"{name}speech: official accuracy {_percent(scores.speech)}, {scores.speech.n} questions"
    if scores.weighted_f1 is not None and scores.macro_f1 is not None:
        always = "-" if scores.always_neutral is None else f"{100 * scores.always_neutral:.1f} %"
        yield (
            f"{name}weighted F1 {_percent(scores.weighted_f1)}, macro F1 {_percent(scores.macro_f1)}; "
            f"always neutral: accuracy {always}"
        )
    if scores.n_unscored and scores.accuracy_official_of_all is not None:
        yield f"{name}unscored ones counted as wrong: {_percent(scores.accuracy_official_of_all)} official"
    if scores.why:
        most = list(scores.why.items())[:MOST_REASONS]
        yield f"{name}official and strict differ on: {', '.join(f'{n} ({why})' for why, n in most)}"
    if not of_model:
        yield from _listed_lines(
            name, scores.n_listed, {kind: getattr(scores, kind) for kind in _WHAT}, _WHAT
        )


def _listed_lines(
    name: str,
    n_listed: Mapping[str, int],
    ids: Mapping[str, tuple[str, ...]],
    what: Mapping[str, str],
) -> Iterator[str]:
    for kind, n in n_listed.items():
        shown = ", ".join(ids[kind][:MOST_IDS]) + (", ..." if n > MOST_IDS else "")
        yield f"{name}{n} {what[kind]}: {shown}"


def _difference_lines(difference: Difference) -> Iterator[str]:
    name = f"{difference.other} - {difference.model}"
    if difference.n_choices:
        yield (
            f"{name}: right by one of them only: {difference.n_only_other} and {difference.n_only_model}, "
            f"p {_p(difference.p_accuracy_official)} swapping clips, {_p(difference.p_mcnemar)} McNemar"
        )
    if difference.n_phrases:
        yield f"{name}: IoU: p {_p(difference.p_iou)} swapping clips"


def _percent(mean: Mean) -> str:
    if mean.value is None:
        return "-"
    text = f"{100 * mean.value:.1f} %"
    return (
        text
        if mean.low is None or mean.high is None
        else f"{text} [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"
    )


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
