"""Attention for clips and their branches without padding: each pair of positions that may meet, and few others.

All tokens of a batch stand in one row: the clips' prefixes, then the branches. Linear layers see no
padding. Attention is computed in groups: the prefixes, causally; then branches of like length, each over
its clip's prefix and itself. A dense mask over whole rows would compute every branch against every other.

Axes: N tokens of the batch, C clips, P prefix positions, B branches of a group, T branch tokens,
K = P + T keys, H heads, W head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "tgsr_branches"  # under which transformers knows the function below
SLACK = 1.3  # branches share a group while the longest is at most this many times the shortest, and 8 tokens


@dataclass(frozen=True)
class BranchGroup:
    """Branches of like length: where their tokens and their keys stand in the row, and who sees whom.

    Padded places point at token 0 and are seen by nobody; mask_BTK is added to the scores.
    """

    query_BT: Tensor
    key_BK: Tensor
    mask_BTK: Tensor


@dataclass(frozen=True)
class BranchLayout:
    """Where everything stands in a batch's row of N tokens.

    prefix_CP are the prefixes' tokens, padded at the end; back_N says where each token's result is among
    the prefixes' and then the groups' padded results.
    """

    prefix_CP: Tensor
    groups: tuple[BranchGroup, ...]
    back_N: Tensor


def row_starts(prefix_lengths: Sequence[int], branch_lengths: Sequence[int]) -> list[int]:
    """Where each prefix and then each branch begins in the batch's row."""
    return list(accumulate([*prefix_lengths, *branch_lengths], initial=0))[:-1]


def layout(
    prefix_lengths: Sequence[int], branch_lengths: Sequence[int], owners: Sequence[int], device: torch.device
) -> BranchLayout:
    """The layout of a row that holds the prefixes in order and then the branches in order."""
    starts = row_starts(prefix_lengths, branch_lengths)
    branch_starts = starts[len(prefix_lengths) :]
    n_positions = max(prefix_lengths)
    prefix_CP = torch.zeros(len(prefix_lengths), n_positions, dtype=torch.long)
    back_N = torch.empty(sum(prefix_lengths) + sum(branch_lengths), dtype=torch.long)
    for clip, (start, n) in enumerate(zip(starts[: len(prefix_lengths)], prefix_lengths, strict=True)):
        prefix_CP[clip, :n] = torch.arange(start, start + n)
        back_N[start : start + n] = clip * n_positions + torch.arange(n)
    n_results = prefix_CP.numel()
    groups = []
    for members in _of_like_length(branch_lengths):
        n_tokens = max(branch_lengths[b] for b in members)
        n_prefix = max(prefix_lengths[owners[b]] for b in members)
        query_BT = torch.zeros(len(members), n_tokens, dtype=torch.long)
        key_BK = torch.zeros(len(members), n_prefix + n_tokens, dtype=torch.long)
        seen_BTK = torch.zeros(len(members), n_tokens, n_prefix + n_tokens, dtype=torch.bool)
        seen_BTK[:, :, n_prefix:] = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril()
        for row, b in enumerate(members):
            start, n, owner = branch_starts[b], branch_lengths[b], owners[b]
            tokens = torch.arange(start, start + n)
            query_BT[row, :n] = tokens
            key_BK[row, n_prefix : n_prefix + n] = tokens
            key_BK[row, : prefix_lengths[owner]] = prefix_CP[owner, : prefix_lengths[owner]]
            seen_BTK[row, :, : prefix_lengths[owner]] = True
            back_N[start : start + n] = n_results + row * n_tokens + torch.arange(n)
        n_results += query_BT.numel()
        mask_BTK = torch.zeros(seen_BTK.shape).masked_fill(~seen_BTK, float("-inf"))
        groups.append(BranchGroup(query_BT.to(device), key_BK.to(device), mask_BTK.to(device)))
    return BranchLayout(prefix_CP.to(device), tuple(groups), back_N.to(device))


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for b in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[b] <= SLACK * lengths[groups[-1][0]] + 8:
            groups[-1].append(b)
        else:
            groups.append([b])
    return groups


def branch_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: BranchLayout,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: 1 x H x N x W -> 1 x N x H x W; exact, dropout is not applied.

    The decoder's forward gets `branches` as a keyword and hands it on to each layer.
    """
    device = query.device.type
    # Rotary embeddings come out in float32 under autocast: cast once here instead of in every product.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    query_NX, key_NX, value_NX = (x[0].to(dtype).transpose(0, 1).flatten(1) for x in (query, key, value))
    width = query.shape[-1]
    n_shared = query.shape[1] // key.shape[1]  # query heads to one key head

    def attend(query_BT: Tensor, key_BK: Tensor, mask_BTK: Tensor | None) -> Tensor:
        q, k, v = (
            rows.index_select(0, index.flatten()).view(*index.shape, -1, width).transpose(1, 2)
            for rows, index in ((query_NX, query_BT), (key_NX, key_BK), (value_NX, key_BK))
        )
        if n_shared > 1:
            k, v = k.repeat_interleave(n_shared, 1), v.repeat_interleave(n_shared, 1)
        return _attend(q, k, v, mask_BTK, scaling).transpose(1, 2).flatten(2).flatten(0, 1)

    results = [attend(branches.prefix_CP, branches.prefix_CP, None)]
    results += [attend(group.query_BT, group.key_BK, group.mask_BTK) for group in branches.groups]
    out_NX = torch.cat(results).index_select(0, branches.back_N)
    return out_NX.view(1, len(out_NX), -1, width), None


def _attend(q: Tensor, k: Tensor, v: Tensor, mask_BTK: Tensor | None, scaling: float | None) -> Tensor:
    """B x H x T x W; without a mask causal. In bfloat16 on a CPU plain products beat torch's fused attention 2 : 1."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        scores = (q * (scaling or q.shape[-1] ** -0.5)) @ k.transpose(-1, -2)
        if mask_BTK is None:
            mask_BTK = torch.full(scores.shape[-2:], float("-inf")).triu(1)[None]
        return (scores + mask_BTK[:, None].to(q.dtype)).softmax(-1) @ v
    mask = None if mask_BTK is None else mask_BTK[:, None].to(q.dtype)
    return nn.functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scaling)


AttentionInterface.register(NAME, branch_attention)


@contextmanager
def attention_as(language_model: Any, name: str) -> Iterator[None]:
    """Within it, the decoder computes attention by the function that transformers knows under `name`."""
    before = language_model.config._attn_implementation
    language_model.config._attn_implementation = name
    try:
        yield
    finally:
        language_model.config._attn_implementation = before
