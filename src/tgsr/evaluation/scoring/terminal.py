"""Scores as plain text: what a terminal shows after `tgsr score`."""

from __future__ import annotations

from tgsr.evaluation.scoring.score import BenchmarkScores, Difference, GroupScores, Metrics
from tgsr.statistics.intervals import Mean


def percent(mean: Mean) -> str:
    """ "74.5 % [71.0, 77.9]" with its 95 % interval; "-" where nothing could be scored."""
    if mean.value is None:
        return "-"
    text = f"{100 * mean.value:.1f} %"
    return (
        text
        if mean.low is None or mean.high is None
        else f"{text} [{100 * mean.low:.1f}, {100 * mean.high:.1f}]"
    )


def number(mean: Mean) -> str:
    """ "0.74 [0.71, 0.77]"; "-" where nothing could be scored."""
    if mean.value is None:
        return "-"
    text = f"{mean.value:.3f}"
    return text if mean.low is None or mean.high is None else f"{text} [{mean.low:.3f}, {mean.high:.3f}]"


def group_lines(name: str, group: GroupScores) -> list[str]:
    """One line for phrases (table 1) and one for choices, where there are any."""
    lines = []
    if (phrase := group.phrase) is not None:
        lines.append(
            f"{name}: {phrase.n} phrases: IoU {number(phrase.iou)}, F1 {number(phrase.f1)}, "
            f"IoU >= 0.7 {percent(phrase.high_overlap)}"
        )
    if (choice := group.choice) is not None:
        lines.append(
            f"{name}: {choice.n} choices: accuracy {percent(choice.accuracy_official)}, "
            f"k {number(choice.mentions_official)}, k = 1 {percent(choice.share_k1_official)}, "
            f"trace IoU {number(choice.trace_iou)}"
        )
    return lines


def difference_lines(difference: Difference) -> list[str]:
    """One line for choices and one for phrases that both models answered, where there are any."""
    name = f"{difference.other} - {difference.model}"
    lines = []
    if difference.accuracy_official is not None:
        points = percent(difference.accuracy_official).replace(" %", " points", 1)
        lines.append(f"{name}: accuracy {points}, {difference.n_choices} choices, paired")
    if difference.iou is not None:
        lines.append(f"{name}: IoU {number(difference.iou)}, {difference.n_phrases} phrases, paired")
    return lines


def benchmark_lines(scores: BenchmarkScores) -> list[str]:
    return [
        f"{scores.n} items, {scores.n_unscored} unscored: official accuracy {percent(scores.accuracy_official)}, "
        f"strict {percent(scores.accuracy_strict)}"
    ]


def summary(metrics: Metrics) -> str:
    """The file's scores, a line a model, split and kind of question."""
    lines: list[str] = []
    for model, scores in metrics.models.items():
        for split, group in scores.by_split.items():
            lines += group_lines(f"{model}, {split}", group)
    lines += [line for difference in metrics.differences for line in difference_lines(difference)]
    if metrics.benchmark is not None:
        lines += benchmark_lines(metrics.benchmark)
    return "\n".join(lines)
