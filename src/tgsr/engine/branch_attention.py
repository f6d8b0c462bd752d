"""Attention for clips and their branches in one row: each pair of positions that may meet, and no other.

All tokens of a batch stand in one row: the clips' prefixes, then the branches. A branch's token sees its
clip's prefix and its own branch up to itself. On a CPU the two parts are computed apart, by torch's fused
kernel, and joined by their log-sum-exps: the prefix's keys are read where they stand, never copied to its
branches, and no score is kept for the backward pass. On other devices it is flex attention with the same
rule as a block mask.

Axes: N tokens of the batch, B branches of a group, T branch tokens, H heads, K key heads, R query heads to
one key head (H = K * R), W head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

NAME = "tgsr_branches"  # under which transformers knows the function below
SLACK = 1.3  # branches share a group while the longest is at most this many times the shortest, and 8 tokens


@dataclass(frozen=True)
class BranchLayout:
    """Where everything stands in a batch's row of N tokens.

    prefixes[c] is clip c's slice of the row; of_clip[c] lists its branches' tokens. Each group holds
    branches of like length, B x T places, padded at the end with -1. clip_N and branch_N name each
    token's clip and branch (-1: it is a prefix's).
    """

    prefixes: tuple[slice, ...]
    of_clip: tuple[Tensor, ...]
    groups_BT: tuple[Tensor, ...]
    clip_N: Tensor
    branch_N: Tensor

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether the token at place `query` of the row sees the one at place `key`; places of any shape."""
        own = (self.branch_N[query] == self.branch_N[key]) & (self.clip_N[query] == self.clip_N[key])
        listened = (self.branch_N[key] < 0) & (self.branch_N[query] >= 0)
        return (own & (key <= query)) | (listened & (self.clip_N[query] == self.clip_N[key]))

    @cached_property
    def block_mask(self) -> BlockMask:
        """`sees` for flex attention, computed once for all layers."""

        def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.sees(query, key)

        n = len(self.clip_N)
        # Compiled, it never holds all N x N pairs; on a CPU there is no need, only a test asks for it.
        device = self.clip_N.device
        return create_block_mask(mask, None, None, n, n, device=str(device), _compile=device.type != "cpu")


def row_starts(prefix_lengths: Sequence[int], branch_lengths: Sequence[int]) -> list[int]:
    """Where each prefix and then each branch begins in the batch's row."""
    return list(accumulate([*prefix_lengths, *branch_lengths], initial=0))[:-1]


def layout(
    prefix_lengths: Sequence[int], branch_lengths: Sequence[int], owners: Sequence[int], device: torch.device
) -> BranchLayout:
    """The layout of a row that holds the prefixes in order and then the branches in order."""
    n_clips = len(prefix_lengths)
    starts = row_starts(prefix_lengths, branch_lengths)
    prefixes = tuple(slice(start, start + n) for start, n in zip(starts, prefix_lengths, strict=False))
    places = [torch.arange(s, s + n) for s, n in zip(starts[n_clips:], branch_lengths, strict=True)]
    nothing = torch.zeros(0, dtype=torch.long)
    of_clip = [
        torch.cat([nothing, *(places[b] for b, owner in enumerate(owners) if owner == clip)])
        for clip in range(n_clips)
    ]
    groups = []
    for members in _of_like_length(branch_lengths):
        group_BT = torch.full((len(members), max(branch_lengths[b] for b in members)), -1)
        for row, b in enumerate(members):
            group_BT[row, : branch_lengths[b]] = places[b]
        groups.append(group_BT)
    lengths = torch.tensor([*prefix_lengths, *branch_lengths])
    clip_N = torch.tensor([*range(n_clips), *owners]).repeat_interleave(lengths)
    branch_N = torch.tensor([-1] * n_clips + list(range(len(branch_lengths)))).repeat_interleave(lengths)
    return BranchLayout(
        prefixes,
        tuple(tokens.to(device) for tokens in of_clip),
        tuple(group_BT.to(device) for group_BT in groups),
        clip_N.to(device),
        branch_N.to(device),
    )


def _of_like_length(lengths: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = []
    for b in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[b] <= SLACK * lengths[groups[-1][0]] + 8:
            groups[-1].append(b)
        else:
            groups.append([b])
    return groups


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _OnCpu(torch.autograd.Function):
    """R x K x N x W queries over K x N x W keys and values, part by part; torch's kernel gives each part's sums.

    The fused backward takes an output and its log-sum-exp and needs no scores. Given those of the joined
    softmax it returns each part's share of the gradients, as in attention that is spread over a ring.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, where: BranchLayout, scale: float
    ) -> Tensor:
        out = torch.empty_like(query)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        for prefix, tokens in zip(where.prefixes, where.of_clip, strict=True):
            keys, values = _for_each(query, key[:, prefix]), _for_each(query, value[:, prefix])
            out[:, :, prefix], lse[:, :, prefix] = _flash(
                query[:, :, prefix], keys, values, is_causal=True, scale=scale
            )
            if len(tokens):
                out[:, :, tokens], lse[:, :, tokens] = _flash(query[:, :, tokens], keys, values, scale=scale)
        for group_BT in where.groups_BT:
            real, tokens = _real(group_BT)
            own, own_lse = _flash(
                _branches(query, tokens),
                _branches(_for_each(query, key), tokens),
                _branches(_for_each(query, value), tokens),
                is_causal=True,
                scale=scale,
            )
            own, own_lse = _unbranched(own, query, real), _unbranched(own_lse[..., None], query, real)[..., 0]
            of_prefix = lse[:, :, tokens[real]]
            joined = torch.logaddexp(of_prefix, own_lse)
            out[:, :, tokens[real]] = (
                out[:, :, tokens[real]] * (of_prefix - joined).exp()[..., None]
                + own * (own_lse - joined).exp()[..., None]
            ).to(out.dtype)
            lse[:, :, tokens[real]] = joined
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.where, ctx.scale = where, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, out, lse = ctx.saved_tensors
        where, scale, (grad,) = ctx.where, ctx.scale, grads
        grad = grad.contiguous()
        grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))

        def back(q: Tensor, k: Tensor, v: Tensor, o: Tensor, s: Tensor, g: Tensor, causal: bool) -> Any:
            return _flash_backward(g, q, k, v, o, s, 0.0, causal, scale=scale)

        for prefix, tokens in zip(where.prefixes, where.of_clip, strict=True):
            keys, values = _for_each(query, key[:, prefix]), _for_each(query, value[:, prefix])
            for place, causal in ((prefix, True), (tokens, False)):
                if not causal and not len(tokens):
                    continue
                of_query, of_key, of_value = back(
                    *(
                        query[:, :, place],
                        keys,
                        values,
                        out[:, :, place],
                        lse[:, :, place],
                        grad[:, :, place],
                    ),
                    causal,
                )
                grad_query[:, :, place] += of_query
                grad_key[:, prefix] += of_key.sum(0)
                grad_value[:, prefix] += of_value.sum(0)
        for group_BT in where.groups_BT:
            real, tokens = _real(group_BT)
            padded = ~real.repeat(len(query), 1)[:, None, :]
            of_query, of_key, of_value = back(
                _branches(query, tokens),
                _branches(_for_each(query, key), tokens),
                _branches(_for_each(query, value), tokens),
                _branches(out, tokens),
                # exp(score - inf) = 0: padding weighs nothing, whatever its scores are.
                _branches(lse[..., None], tokens)[..., 0].masked_fill(padded, float("inf")),
                _branches(grad, tokens),
                True,
            )
            grad_query[:, :, tokens[real]] += _unbranched(of_query, query, real)
            grad_key[:, tokens[real]] += _unbranched(of_key, query, real).sum(0)
            grad_value[:, tokens[real]] += _unbranched(of_value, query, real).sum(0)
        return grad_query, grad_key, grad_value, None, None


def _for_each(query: Tensor, keys: Tensor) -> Tensor:
    """Keys for each of the R query heads that share them: a view."""
    return keys.expand(len(query), *keys.shape)


def _real(group_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Which places of a group hold a token, and the places with padding pointing at token 0."""
    return group_BT >= 0, group_BT.clamp(min=0)


def _branches(x_RKNW: Tensor, tokens_BT: Tensor) -> Tensor:
    """(R B) x K x T x W."""
    return x_RKNW[:, :, tokens_BT].transpose(1, 2).flatten(0, 1)


def _unbranched(x: Tensor, query: Tensor, real_BT: Tensor) -> Tensor:
    """Undoes _branches for the places that hold a token: R x K x M x W."""
    return x.unflatten(0, (len(query), len(real_BT))).transpose(1, 2)[:, :, real_BT]


def branch_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: BranchLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: 1 x H x N x W -> 1 x N x H x W; exact, dropout is not applied.

    NotImplementedError for layers with a sliding window.

    The decoder's forward gets `branches` as a keyword and hands it on to each layer.
    """
    if sliding_window is not None:
        raise NotImplementedError(
            f"a sliding window of {sliding_window}: branches attend to all of their prefix"
        )
    device = query.device.type
    # Rotary embeddings come out in float32 under autocast: cast once here instead of in every product.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    query, key, value = (x.to(dtype) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if device != "cpu":
        mask = branches.block_mask
        return _compiled()(query, key, value, block_mask=mask, scale=scale, enable_gqa=True).transpose(
            1, 2
        ), None
    query_RKNW = query[0].unflatten(0, (key.shape[1], -1)).transpose(0, 1)
    out_RKNW: Any = _OnCpu.apply(query_RKNW, key[0], value[0], branches, scale)
    return out_RKNW.transpose(0, 1).flatten(0, 1).transpose(0, 1)[None], None


@cache
def _compiled() -> Any:
    """flex attention is fast only compiled; compiling waits until a device needs it."""
    return torch.compile(flex_attention, dynamic=True)


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
