"""Attention over many responses: means by block, layer and phase, their intervals, the terminal's table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from tgsr.disk.whole import write_whole
from tgsr.engine.block_attention import AUDIO, BLOCKS
from tgsr.errors import ModelError
from tgsr.evaluation.attention.look import ENDS, NEAR, Looked, Pointed
from tgsr.evaluation.attention.metrics import Attention, Evidence
from tgsr.evaluation.attention.tokens import PHASES
from tgsr.statistics.intervals import Mean, bootstrap_mean


def summarise(looked: Sequence[Looked], n_without: int, seed: int = 0) -> Attention:
    """The means of one model's responses; a phase that no response has is left out of by_layer."""
    clips = [item.question.clip_id for item in looked]
    by_phase: dict[str, dict[str, Mean]] = {}
    by_layer: dict[str, dict[str, list[float]]] = {}
    per_token: dict[str, dict[str, list[float]]] = {}
    for phase in PHASES:
        share_LK = [None if (s := item.share[phase]) is None else torch.tensor(s) for item in looked]
        by_phase[phase] = {
            block: bootstrap_mean(
                [None if s is None else float(s[:, k].mean()) for s in share_LK], clips, seed
            )
            for k, block in enumerate(BLOCKS)
        }
        scored = [(s, item) for s, item in zip(share_LK, looked, strict=True) if s is not None]
        if scored:
            counts_IK = torch.tensor([[item.n_of_block[block] for block in BLOCKS] for _, item in scored])
            share_ILK = torch.stack([s for s, _ in scored])
            mean_LK = share_ILK.mean(0)
            each_LK = (share_ILK / counts_IK.clamp(min=1)[:, None]).mean(0)
            by_layer[phase] = {block: mean_LK[:, k].tolist() for k, block in enumerate(BLOCKS)}
            per_token[phase] = {block: each_LK[:, k].tolist() for k, block in enumerate(BLOCKS)}
    ratios = [_per_token(item) for item in looked]
    return Attention(
        len(looked),
        n_without,
        by_phase,
        by_layer,
        per_token,
        bootstrap_mean(ratios, clips, seed),
        _evidence([item.cited for item in looked], clips, seed),
        _evidence([item.reference for item in looked], clips, seed),
        _evidence([item.ends for item in looked], clips, seed),
    )


def _per_token(item: Looked) -> float | None:
    shares = torch.tensor(item.share["all"]).mean(0)
    each = {
        block: float(share) / max(1, item.n_of_block[block])
        for block, share in zip(BLOCKS, shares, strict=True)
    }
    return each["audio"] / each["system"] if each["system"] > 0 else None


def _evidence(
    of_items: Sequence[Mapping[str, Pointed | None]], clips: Sequence[str], seed: int
) -> dict[str, Evidence]:
    found = {}
    for phase in (*PHASES, *ENDS):
        pointed = [of.get(phase) for of in of_items]
        scored = [of for of in pointed if of is not None]
        if not scored:
            continue

        def mean(of: Callable[[Pointed], float], values: Sequence[Pointed | None] = pointed) -> Mean:
            return bootstrap_mean([None if one is None else of(one) for one in values], clips, seed)

        inside_L, even_L = (np.sum([getattr(of, name) for of in scored], 0) for name in ("inside", "even"))
        found[phase] = Evidence(
            mean(lambda one: one.share),
            mean(lambda one: 1 - one.share),
            mean(lambda one: one.covered),
            mean(lambda one: one.ratio),
            (inside_L / np.maximum(even_L, 1e-30)).tolist(),
        )
    return found


def summarise_all(
    looked: Mapping[str, Sequence[Looked]], n_without: Mapping[str, int], seed: int = 0
) -> dict[str, Attention]:
    """`summarise` for each model; all but the first one with their changes against it."""
    models = {name: summarise(items, n_without[name], seed) for name, items in looked.items()}
    first, *others = looked
    for name in others:
        change = {phase: relative_change(looked[first], looked[name], phase, seed) for phase in PHASES}
        models[name] = replace(models[name], change=change)
    return models


def relative_change(base: Sequence[Looked], other: Sequence[Looked], phase: str, seed: int = 0) -> Mean:
    """The other model's mean share on audio over the base's, less 1, of the questions that both have in that phase.

    With the percentile bootstrap's 95 % interval, whole clips being drawn; None as in bootstrap_mean.
    """
    before, after = (
        {i.question.id: float(np.mean(s, 0)[AUDIO]) for i in items if (s := i.share[phase])}
        for items in (base, other)
    )
    sums: dict[str, list[float]] = {}
    n = 0
    for item in other:
        if item.question.id in before and item.question.id in after:
            of_clip = sums.setdefault(item.question.clip_id, [0.0, 0.0])
            of_clip[0] += before[item.question.id]
            of_clip[1] += after[item.question.id]
            n += 1
    pairs = np.array(list(sums.values())).reshape(-1, 2)
    n_unscored = len(other) - n
    if not n or pairs[:, 0].sum() == 0:
        return Mean(None, None, None, 0, len(other))
    value = float(pairs[:, 1].sum() / pairs[:, 0].sum() - 1)
    if len(pairs) == 1:
        return Mean(value, None, None, n, n_unscored)
    drawn = np.random.default_rng(seed).integers(len(pairs), size=(1000, len(pairs)))
    totals = pairs[drawn].sum(1)
    low, high = np.percentile(totals[:, 1] / np.maximum(totals[:, 0], 1e-12) - 1, [2.5, 97.5])
    return Mean(value, float(low), float(high), n, n_unscored)


def layer_to_show(models: Mapping[str, Attention], layer: int | None = None) -> dict[str, int]:
    """For each model the layer that pictures of single items show.

    `layer`, or the one with the most attention to audio over all tokens: of all models together, so that they can be
    compared, or where their depths differ each one's own. ModelError for a layer that a model does not have.
    """
    audio_of = {name: np.array(of.by_layer["all"]["audio"]) for name, of in models.items()}
    for name, share_L in audio_of.items():
        if layer is not None and not 0 <= layer < len(share_L):
            raise ModelError(f"--layer {layer}: {name} has layers 0 to {len(share_L) - 1}")
    if layer is not None:
        return dict.fromkeys(models, layer)
    if len({len(share_L) for share_L in audio_of.values()}) == 1:
        return dict.fromkeys(models, int(np.sum(list(audio_of.values()), 0).argmax()))
    return {name: int(share_L.argmax()) for name, share_L in audio_of.items()}


def write_summary(path: Path, models: Mapping[str, Attention]) -> None:
    write_whole(path, json.dumps({name: asdict(of) for name, of in models.items()}, indent=1) + "\n")


ROWS = {
    "all": "All",
    "reasoning": "Reasoning",
    "answer": "Answer",
    "times": "Times",
    "prefill": "Question",
}
"""Table 4's rows, and two more, in order."""


def table(models: Mapping[str, Attention]) -> str:
    """Table 4 with 95 % intervals and each model's change against the first, then attention to cited intervals."""
    head = ["Audio attention", *(f"{name} (n = {of.n})" for name, of in models.items())]
    rows = [
        [label, *(_of_audio(of, phase) for of in models.values())]
        for phase, label in ROWS.items()
        if any(of.by_phase[phase]["audio"].value is not None for of in models.values())
    ]
    text = _columns([head, *rows])
    labels = {**ROWS, "start": "Start", "end": "End"}
    for title, which in (
        ("Inside the cited interval", "evidence"),
        (f"Within {NEAR:g} s of the time being written", "ends"),
        ("Inside the reference interval", "reference"),
    ):
        rows = [
            [label, *(_of_evidence(getattr(of, which).get(phase)) for of in models.values())]
            for phase, label in labels.items()
            if any(phase in getattr(of, which) for of in models.values())
        ]
        if rows:
            text += "\n\n" + _columns([[title, *models], *rows])
    if any(of.evidence or of.reference for of in models.values()):
        text += (
            "\n(inside / by chance: parts of the attention to audio; then their ratio, 1 is no preference)"
        )
    return text


def _of_audio(of: Attention, phase: str) -> str:
    mean = of.by_phase[phase]["audio"]
    if mean.value is None:
        return "-"
    change = of.change[phase] if of.change else None
    relative = (
        "" if change is None or change.value is None else f" {change.value:+.1%}{_interval(change, '+.0%')}"
    )
    return f"{mean.value:.4f}{_interval(mean, '.4f')}{relative}"


def _of_evidence(of: Evidence | None) -> str:
    if of is None:
        return "-"
    return (
        f"{of.inside.value:.3f} / {of.covered.value:.3f}: {of.ratio.value:.2f}{_interval(of.ratio, '.2f')} "
        f"n = {of.ratio.n}"
    )


def _interval(mean: Mean, form: str) -> str:
    return "" if mean.low is None or mean.high is None else f" [{mean.low:{form}}, {mean.high:{form}}]"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
