"""Sampling many answers after one listening: a prefix is computed once, its branches go on from it.

Axes: B branches, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tgsr.engine.shared_prefix import SharedPrefix, pad_right
from tgsr.models.lalm import Lalm, device_of


@dataclass(frozen=True, slots=True)
class Sampled:
    """One branch's new tokens, the end token included where it came; `cut` where the limit came first."""

    ids: tuple[int, ...]
    cut: bool


def keep_top_p(logits_BV: Tensor, top_p: float) -> Tensor:
    """Logits with -inf outside the nucleus: the fewest most probable tokens whose mass reaches top_p."""
    if top_p >= 1:
        return logits_BV
    ordered, index = logits_BV.sort(dim=-1, descending=True)
    mass_before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    outside = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(-1, index, mass_before >= top_p)
    return logits_BV.masked_fill(outside, float("-inf"))


@torch.no_grad()
def sample(
    lalm: Lalm,
    prefix: SharedPrefix,
    owners: Sequence[int],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[Sampled]:
    """One continuation a branch: prompts[b] after the prefix of clip owners[b].

    temperature 0 is greedy decoding. A branch that ends leaves the batch once half of it has ended.
    ValueError for no branches or an empty prompt.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise ValueError(
            f"sampling needs at least one branch and no empty prompt, got {len(prompts)} branches"
        )
    device = device_of(lalm)
    owners_B = torch.tensor(list(owners), device=device)
    ids_BT, mask_BT = pad_right(prompts, lalm.pad_id, device)
    cache, prefix_mask = prefix.for_branches(owners_B)
    attention = torch.cat([prefix_mask, mask_BT], 1).long()
    lengths_B = prefix.lengths_C[owners_B]
    out = lalm.language_model(
        inputs_embeds=lalm.embed(ids_BT),
        attention_mask=attention,
        position_ids=lengths_B[:, None] + torch.arange(ids_BT.shape[1], device=device),
        past_key_values=cache,
        use_cache=True,
    )
    cache = out.past_key_values
    last_B = mask_BT.sum(1) - 1
    hidden_BD = out.last_hidden_state[torch.arange(len(prompts), device=device), last_B]
    position_B = lengths_B + last_B + 1
    new: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    for _ in range(max_new_tokens):
        next_B = _draw(lalm.lm_head(hidden_BD).float(), temperature, top_p, generator)
        for row, b in enumerate(alive):
            if not _ended(lalm, new[b]):
                new[b].append(int(next_B[row]))
        keep = [row for row, b in enumerate(alive) if not _ended(lalm, new[b])]
        if not keep:
            break
        if len(keep) <= len(alive) // 2:
            rows = torch.tensor(keep, device=device)
            cache.batch_select_indices(rows)
            attention, position_B, next_B = attention[rows], position_B[rows], next_B[rows]
            alive = [alive[row] for row in keep]
        attention = torch.cat([attention, attention.new_ones(len(alive), 1)], 1)
        out = lalm.language_model(
            inputs_embeds=lalm.embed(next_B[:, None]),
            attention_mask=attention,
            position_ids=position_B[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        cache, hidden_BD, position_B = out.past_key_values, out.last_hidden_state[:, -1], position_B + 1
    return [Sampled(tuple(ids), not _ended(lalm, ids)) for ids in new]


def _ended(lalm: Lalm, ids: list[int]) -> bool:
    return bool(ids) and ids[-1] == lalm.eos_id


def _draw(logits_BV: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    if temperature == 0:
        return logits_BV.argmax(-1)
    probabilities = keep_top_p(logits_BV / temperature, top_p).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
