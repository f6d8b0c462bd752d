"""Attention over many responses: means by block, layer and phase, and their intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from tgsr.disk.whole import write_whole
from tgsr.engine.block_attention import AUDIO, BLOCKS
from tgsr.errors import OptionError
from tgsr.evaluation.attention.look import ENDS, Looked, Pointed
from tgsr.evaluation.attention.metrics import Attention, Evidence
from tgsr.evaluation.attention.tokens import PHASES
from tgsr.statistics.intervals import Bootstrap, Mean, bootstrap_mean


def summarise(looked: Sequence[Looked], n_without: int, seed: int = 0) -> Attention:
    """The means of one model's responses; a phase that no response has is left out of by_layer."""
    clips = [item.question.clip_id for item in looked]
    by_phase: dict[str, dict[str, Mean]] = {}
    by_layer: dict[str, dict[str, list[float]]] = {}
    per_token: dict[str, dict[str, list[float]]] = {}
    for phase in PHASES:
        share_LK = [None if (s := item.share[phase]) is None else torch.tensor(s) for item in looked]
        by_phase[phase] = {}
        for k, block in enumerate(BLOCKS):
            means = [None if s is None else _known(float(s[:, k].mean())) for s in share_LK]
            by_phase[phase][block] = bootstrap_mean(means, clips, seed)
        scored = [(s, item) for s, item in zip(share_LK, looked, strict=True) if s is not None]
        if scored:
            counts_IK = torch.tensor([[item.n_of_block[block] for block in BLOCKS] for _, item in scored])
            share_ILK = torch.stack([s for s, _ in scored])
            mean_LK = share_ILK.mean(0)
            each_LK = (share_ILK / counts_IK.clamp(min=1)[:, None]).mean(0)
            defined = {block: k for k, block in enumerate(BLOCKS) if not mean_LK[:, k].isnan().any()}
            by_layer[phase] = {block: mean_LK[:, k].tolist() for block, k in defined.items()}
            per_token[phase] = {block: each_LK[:, k].tolist() for block, k in defined.items()}
    return Attention(
        len(looked),
        n_without,
        sum(item.is_cut for item in looked),
        by_phase,
        by_layer,
        per_token,
        bootstrap_mean([_per_token(item) for item in looked], clips, seed),
        _evidence([item.cited for item in looked], clips, seed),
        _evidence([item.reference for item in looked], clips, seed),
        _evidence([item.ends for item in looked], clips, seed),
    )


def _known(share: float) -> float | None:
    """None for a share that is not defined (NaN)."""
    return None if math.isnan(share) else share


def _per_token(item: Looked) -> float | None:
    shares = torch.tensor(item.share["all"]).mean(0).tolist()
    of_blocks = zip(BLOCKS, shares, strict=True)
    each = {block: share / max(1, item.n_of_block[block]) for block, share in of_blocks}
    return _known(each["audio"] / each["system"]) if each["system"] > 0 else None


def _evidence(
    items: Sequence[Mapping[str, Pointed | None]], clips: Sequence[str], seed: int
) -> dict[str, Evidence]:
    """By phase, and by ENDS: the means over responses that point anywhere in it."""
    evidence = {}
    for phase in (*PHASES, *ENDS):
        pointed = [item.get(phase) for item in items]
        scored = [shares for shares in pointed if shares is not None]
        if not scored:
            continue
        values = [(None,) * 4 if p is None else (p.share, 1 - p.share, p.covered, p.ratio) for p in pointed]
        columns = zip(*values, strict=True)
        inside, outside, covered, ratio = (bootstrap_mean(column, clips, seed) for column in columns)
        inside_L = np.sum([shares.inside for shares in scored], 0)
        even_L = np.sum([shares.even for shares in scored], 0)
        by_layer = (inside_L / np.maximum(even_L, 1e-30)).tolist()
        evidence[phase] = Evidence(inside, outside, covered, ratio, by_layer)
    return evidence


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
    before, after = _audio_shares(base, phase), _audio_shares(other, phase)
    both = [i.question for i in other if i.question.id in before and i.question.id in after]
    shares = [after[q.id] for q in both], [before[q.id] for q in both]
    ratio = Bootstrap(seed).ratio(*shares, [question.clip_id for question in both])
    value, low, high = (None if end is None else end - 1 for end in (ratio.value, ratio.low, ratio.high))
    return Mean(value, low, high, ratio.n, len(other) - ratio.n)


def _audio_shares(items: Sequence[Looked], phase: str) -> dict[str, float]:
    """By question id, for those that have one."""
    shares = {i.question.id: float(np.mean(s, 0)[AUDIO]) for i in items if (s := i.share[phase])}
    return {id_: share for id_, share in shares.items() if not math.isnan(share)}


def layer_to_show(models: Mapping[str, Attention], layer: int | None = None) -> dict[str, int]:
    """For each model the layer that pictures of single items show.

    `layer`, or the one with the most attention to audio over all tokens: of all models together, so that they can be
    compared, or where their depths differ each one's own. Of a model that hears by cross-attention, the one that points
    most at what is cited. OptionError for a layer that a model does not have.
    """
    audio_of = {name: np.array(_to_audio(attention)) for name, attention in models.items()}
    for name, share_L in audio_of.items():
        if layer is not None and not 0 <= layer < len(share_L):
            raise OptionError(f"--layer {layer}: {name} has layers 0 to {len(share_L) - 1}")
    if layer is not None:
        return dict.fromkeys(models, layer)
    if len({len(share_L) for share_L in audio_of.values()}) == 1:
        return dict.fromkeys(models, int(np.sum(list(audio_of.values()), 0).argmax()))
    return {name: int(share_L.argmax()) for name, share_L in audio_of.items()}


def _to_audio(attention: Attention) -> list[float]:
    """How much each layer looks at the audio or, where all of it is audio, at what is cited (0 where nothing is)."""
    if not attention.cross_attends:
        return attention.by_layer["all"]["audio"]
    cited = attention.evidence.get("all")
    return cited.ratio_by_layer if cited else [0.0] * len(attention.by_layer["all"]["system"])


def write_summary(path: Path, models: Mapping[str, Attention]) -> None:
    rows = {name: asdict(attention) for name, attention in models.items()}
    write_whole(path, json.dumps(rows, indent=1) + "\n")
