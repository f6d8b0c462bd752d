"""`tgsr attend`'s table in the terminal: table 4, and attention inside intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tgsr.evaluation.attention.look import NEAR
from tgsr.evaluation.attention.metrics import Attention, Evidence, cross_attention_note, left_out
from tgsr.statistics.intervals import number

ROWS = {"all": "All", "reasoning": "Reasoning", "answer": "Answer", "times": "Times", "prefill": "Question"}
"""Table 4's rows, and two more, in order."""


def table(models: Mapping[str, Attention]) -> str:
    """Table 4 with 95 % intervals and each model's change against the first, then attention to cited intervals."""
    head = ["Audio attention", *(f"{name} (n = {attention.n})" for name, attention in models.items())]
    rows = [
        [label, *(_of_audio(attention, phase) for attention in models.values())]
        for phase, label in ROWS.items()
        if any(phase in attention.by_layer for attention in models.values())
    ]
    text = "\n".join(filter(None, [_columns([head, *rows]), *left_out(models), cross_attention_note(models)]))
    labels = {**ROWS, "start": "Start", "end": "End"}
    for title, evidences in (
        ("Inside the cited interval", [attention.evidence for attention in models.values()]),
        (f"Within {NEAR:g} s of the time being written", [attention.ends for attention in models.values()]),
        ("Inside the reference interval", [attention.reference for attention in models.values()]),
    ):
        rows = [
            [label, *(_of_evidence(evidence.get(phase)) for evidence in evidences)]
            for phase, label in labels.items()
            if any(phase in evidence for evidence in evidences)
        ]
        if rows:
            text += "\n\n" + _columns([[title, *models], *rows])
    if any(attention.evidence or attention.reference for attention in models.values()):
        text += (
            "\n(inside / by chance: parts of the attention to audio; then the mean of the responses' ratios, 1 is no "
            "preference)"
        )
    return text


def _of_audio(attention: Attention, phase: str) -> str:
    """The mean, over how many responses where not all have that phase, and its change with as much."""
    mean, change = attention.by_phase[phase]["audio"], (attention.change or {}).get(phase)
    fewer = f" n = {mean.n}" if 0 < mean.n < attention.n else ""
    if mean.value is None or change is None or change.value is None:
        return f"{number(mean, 4)}{fewer}"
    interval = "" if change.low is None else f" [{change.low:+.0%}, {change.high:+.0%}]"
    paired = f" n = {change.n}" if change.n < mean.n else ""
    return f"{number(mean, 4)}{fewer} {change.value:+.1%}{interval}{paired}"


def _of_evidence(evidence: Evidence | None) -> str:
    if evidence is None:
        return "-"
    shares = f"{evidence.inside.value:.3f} / {evidence.covered.value:.3f}"
    return f"{shares}: {number(evidence.ratio, 2)} n = {evidence.ratio.n}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
