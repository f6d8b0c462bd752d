"""Attention for clips and their branches in one row: each pair of positions that may meet, and no other.

All tokens of a batch stand in one row: the clips' prefixes, then the branches. A branch's token sees its
clip's prefix and its own branch up to itself. On a CPU the two parts are computed apart, by torch's fused
kernel, and joined by their log-sum-exps: the prefix's keys are read where they stand, never copied to its
branches, and no score is kept for the backward pass. On other devices it is flex attention with the same
rule as a block mask.

In a layer with a sliding window a token sees only the keys that are less than the window away from it, by their
positions in its own sequence.

Axes: N tokens of the batch, H heads, K key heads, R query heads to one key head (H = K * R), W head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from tgsr.errors import ModelError

NAME = "tgsr_branches"  # under which transformers knows the function below
SMALL = (
    2**17
)  # scores up to which the fused backward takes 2 to 6 times longer in bfloat16 than in float32 (torch 2.13)
NOT_COMPUTED = ("softcap", "s_aux")  # Gemma 2's bound on scores, gpt-oss' sinks


@dataclass(frozen=True)
class _Part:
    """Queries that are shown these keys: all of them, those up to their own place (causal), or where `hidden`, which is
    added to scores, is 0 and not -inf."""

    queries: slice
    keys: slice
    causal: bool = False
    hidden: Tensor | None = None


@dataclass(frozen=True)
class BranchLayout:
    """Where everything stands in a batch's row of N tokens.

    prefixes[c] is clip c's slice of the row and runs[c] the slices of its branches, those that are
    neighbours in one; branches are all branches' slices. clip_N and branch_N name each token's clip and
    branch (-1: it is a prefix's), position_N its position in its own sequence, a branch's after its prefix.
    memory[c] is clip c's slice of all frames, which a decoder with cross-attention looks into.

    `last` is the layout of the last layer where of its outputs only some are used: there asked_M are their places, and
    the runs are theirs.
    """

    prefixes: tuple[slice, ...]
    runs: tuple[tuple[slice, ...], ...]
    branches: tuple[slice, ...]
    clip_N: Tensor
    branch_N: Tensor
    position_N: Tensor
    memory: tuple[slice, ...] = ()
    asked_M: Tensor | None = None
    last: BranchLayout | None = None
    elsewhere: dict[torch.device, BranchLayout] = field(default_factory=dict, repr=False, compare=False)
    # By a layer's window, computed once for all layers that have it.
    block_masks: dict[int | None, BlockMask] = field(default_factory=dict, repr=False, compare=False)
    own_and_shared: dict[int | None, tuple[list[_Part], list[_Part]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def sees(self, query: Tensor, key: Tensor, window: int | None = None) -> Tensor:
        """Whether the token at place `query` of the row sees the one at place `key`; places of any shape."""
        own = (self.branch_N[query] == self.branch_N[key]) & (self.clip_N[query] == self.clip_N[key])
        listened = (self.branch_N[key] < 0) & (self.branch_N[query] >= 0)
        seen = (own & (key <= query)) | (listened & (self.clip_N[query] == self.clip_N[key]))
        return seen if window is None else seen & self.is_near(query, key, window)

    def is_near(self, query: Tensor, key: Tensor, window: int) -> Tensor:
        """Whether two places of one sequence, the key's not after the query's, are less than `window` apart."""
        position_N = self.position_N.to(query.device)
        return position_N[query] - position_N[key] < window

    def block_mask(self, window: int | None = None) -> BlockMask:
        """`sees` for flex attention."""

        def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.sees(query, key, window)

        if window not in self.block_masks:
            n = len(self.clip_N)
            # Compiled, it never holds all N x N pairs; on a CPU there is no need, only a test asks for it.
            device = self.clip_N.device
            self.block_masks[window] = create_block_mask(
                mask, None, None, n, n, device=str(device), _compile=device.type != "cpu"
            )
        return self.block_masks[window]

    def parts(self, window: int | None) -> tuple[list[_Part], list[_Part]]:
        """`sees` as parts of the row: what tokens see of their own prefix or branch, and branches of their prefix."""
        if window is not None and int(self.position_N.max()) < window:
            window = None
        if window not in self.own_and_shared:
            self.own_and_shared[window] = self._all_parts() if window is None else self._near_parts(window)
        return self.own_and_shared[window]

    def _all_parts(self) -> tuple[list[_Part], list[_Part]]:
        own = [_Part(row, row, causal=True) for row in self._asking()]
        shared = [
            _Part(run, prefix) for prefix, runs in zip(self.prefixes, self.runs, strict=True) for run in runs
        ]
        return own, shared

    def _asking(self) -> tuple[slice, ...]:
        """The sequences whose own tokens' outputs are used."""
        return self.branches if self.asked_M is not None else (*self.prefixes, *self.branches)

    def _near_parts(self, window: int) -> tuple[list[_Part], list[_Part]]:
        """Of a long row a window's worth of queries at a time, so that a mask has at most window x 2 windows."""

        def part(queries: slice, keys: slice) -> _Part:
            if queries == keys:  # no longer than a window
                return _Part(queries, keys, causal=True)
            asking, shown = (torch.arange(row.start, row.stop) for row in (queries, keys))
            seen = self.sees(asking[:, None], shown, window)
            hidden = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
            return _Part(queries, keys, hidden=None if bool(seen.all()) else hidden)

        own: list[_Part] = []
        shared: list[_Part] = []
        for row in self._asking():
            for first in range(row.start, row.stop, window):
                queries = slice(first, min(first + window, row.stop))
                own.append(part(queries, slice(max(row.start, first - window + 1), queries.stop)))
        for row in self.branches:
            prefix = self.prefixes[int(self.clip_N[row.start])]
            # A branch's first token is the one that sees most of the prefix, one less than its window.
            near = slice(row.start, min(row.stop, row.start + window - 1))
            if near.start < near.stop:
                shared.append(part(near, slice(max(prefix.start, prefix.stop - window + 1), prefix.stop)))
        return own, shared


def row_starts(prefix_lengths: Sequence[int], branch_lengths: Sequence[int]) -> list[int]:
    """Where each prefix and then each branch begins in the batch's row."""
    return list(accumulate([*prefix_lengths, *branch_lengths], initial=0))[:-1]


def row_slices(prefix_lengths: Sequence[int], branch_lengths: Sequence[int]) -> list[slice]:
    """Where each prefix and then each branch stands in the batch's row."""
    starts = row_starts(prefix_lengths, branch_lengths)
    return [slice(i, i + n) for i, n in zip(starts, [*prefix_lengths, *branch_lengths], strict=True)]


def layout(
    prefix_lengths: Sequence[int],
    branch_lengths: Sequence[int],
    owners: Sequence[int],
    device: torch.device,
    memory_lengths: Sequence[int] = (),
) -> BranchLayout:
    """The layout of a row that holds the prefixes in order and then the branches in order."""
    n_clips = len(prefix_lengths)
    places = row_slices(prefix_lengths, branch_lengths)
    runs: list[list[slice]] = [[] for _ in prefix_lengths]
    for owner, place in zip(owners, places[n_clips:], strict=True):
        if runs[owner] and runs[owner][-1].stop == place.start:
            runs[owner][-1] = slice(runs[owner][-1].start, place.stop)
        else:
            runs[owner].append(place)
    lengths = torch.tensor([*prefix_lengths, *branch_lengths])
    clip_N = torch.tensor([*range(n_clips), *owners]).repeat_interleave(lengths)
    branch_N = torch.tensor([-1] * n_clips + list(range(len(branch_lengths)))).repeat_interleave(lengths)
    positions = [torch.arange(n) for n in prefix_lengths]
    positions += [
        prefix_lengths[owner] + torch.arange(n) for owner, n in zip(owners, branch_lengths, strict=True)
    ]
    return BranchLayout(
        tuple(places[:n_clips]),
        tuple(tuple(of_clip) for of_clip in runs),
        tuple(places[n_clips:]),
        clip_N.to(device),
        branch_N.to(device),
        torch.cat(positions).to(device),
        tuple(row_slices(memory_lengths, [])),
    )


def with_last(where: BranchLayout, asked: Sequence[slice]) -> BranchLayout:
    """The layout of a row of whose last layer only the places `asked` are used, each slice a part of one branch."""
    owners = [int(where.clip_N[some.start]) for some in asked]
    runs = tuple(
        tuple(some for some, owner in zip(asked, owners, strict=True) if owner == clip)
        for clip in range(len(where.prefixes))
    )
    asked_M = torch.cat([torch.arange(some.start, some.stop) for some in asked]).to(where.clip_N.device)
    return replace(where, last=replace(where, runs=runs, asked_M=asked_M, elsewhere={}, own_and_shared={}))


def _moved(where: BranchLayout, device: torch.device) -> BranchLayout:
    """The layout on another device: a decoder's layers may be spread over several, each of which keeps one."""
    if where.clip_N.device == device:
        return where
    if device not in where.elsewhere:
        there = {name: getattr(where, name).to(device) for name in ("clip_N", "branch_N", "position_N")}
        where.elsewhere[device] = replace(where, **there, elsewhere={}, block_masks={})
    return where.elsewhere[device]


def join(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """One softmax over two parts' keys: the first part's attention and log-sum-exp become, in place, those of both."""
    joined = torch.logaddexp(lse, more_lse)
    out.lerp_(more, (more_lse - joined).exp()[..., None].to(out.dtype))
    lse.copy_(joined)


flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # with log-sum-exps
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _OnCpu(torch.autograd.Function):
    """R x K x N x W queries over K x N x W keys and values, part by part; torch's kernel gives each part's sums.

    The fused backward takes an output and its log-sum-exp and needs no scores. Given those of the joined
    softmax it returns each part's share of the gradients, as in attention that is spread over a ring.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        where: BranchLayout,
        scale: float,
        window: int | None,
    ) -> Tensor:
        # In memory N x H x W, as the next layer wants it.
        n_shared, n_keys, n, width = query.shape
        out = query.new_empty(n, n_keys, n_shared, width).permute(2, 1, 0, 3)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)

        def attend(part: _Part) -> tuple[Tensor, Tensor]:
            k, v = (x[:, part.keys].expand(len(query), -1, -1, -1) for x in (key, value))
            hidden = None if part.hidden is None else part.hidden.to(query.dtype)
            summed: tuple[Tensor, Tensor] = flash(
                query[:, :, part.queries], k, v, is_causal=part.causal, attn_mask=hidden, scale=scale
            )
            return summed

        own, shared = where.parts(window)
        for part in own:
            out[:, :, part.queries], lse[:, :, part.queries] = attend(part)
        for part in shared:
            join(out[:, :, part.queries], lse[:, :, part.queries], *attend(part))
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.parts, ctx.scale = (*own, *shared), scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, out, lse = ctx.saved_tensors
        scale, (grad,) = ctx.scale, grads
        grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
        for part in ctx.parts:
            k, v = (x[:, part.keys].expand(len(query), -1, -1, -1) for x in (key, value))
            of_rows = [x[:, :, part.queries] for x in (grad, query, out, lse)]
            if of_rows[0].shape[2] * k.shape[2] < SMALL:
                *of_rows, k, v = (x.float() for x in (*of_rows, k, v))
            hidden = None if part.hidden is None else part.hidden.to(k.dtype)
            of_query, of_key, of_value = _flash_backward(
                *of_rows[:2], k, v, *of_rows[2:], 0.0, part.causal, attn_mask=hidden, scale=scale
            )
            grad_query[:, :, part.queries] += of_query
            grad_key[:, part.keys] += of_key.sum(0)
            grad_value[:, part.keys] += of_value.sum(0)
        return grad_query, grad_key, grad_value, None, None, None


def refuse_unknown(module: nn.Module, more: Mapping[str, Any], hears_memory: bool) -> None:
    """ModelError for what a decoder asks of its attention and none of our functions computes."""
    asked = [name for name in NOT_COMPUTED if more.get(name) is not None]
    if not getattr(module, "is_causal", True) and not hears_memory:
        asked.append("attention to later positions")
    if asked:
        raise ModelError(
            f"{type(module).__name__} asks for {', '.join(asked)}, which attention over branches does not compute: "
            "this model cannot be trained or looked into; it can answer (tgsr predict)"
        )


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
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: 1 x H x N x W -> 1 x N x H x W; exact, dropout is not applied.

    ModelError as `refuse_unknown` says.

    The decoder's forward gets `branches` as a keyword and hands it on to each layer.
    """
    refuse_unknown(module, more, bool(branches.memory))
    if branches.memory and not module.is_causal:
        return over_memory(query, key, value, branches, scaling).transpose(1, 2), None
    device = query.device.type
    # Rotary embeddings come out in float32 under autocast: cast once here instead of in every product.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    query, key, value = (x.to(dtype) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if device != "cpu":
        mask = _moved(branches, query.device).block_mask(sliding_window)
        out = _compiled()(query, key, value, block_mask=mask, scale=scale, enable_gqa=True)
        return out.transpose(1, 2), None
    query_RKNW = query[0].unflatten(0, (key.shape[1], -1)).transpose(0, 1)
    out_RKNW: Any = _OnCpu.apply(query_RKNW, key[0], value[0], branches, scale, sliding_window)
    return out_RKNW.transpose(0, 1).flatten(0, 1).transpose(0, 1)[None], None


def over_memory(
    query: Tensor, key: Tensor, value: Tensor, where: BranchLayout, scaling: float | None
) -> Tensor:
    """Cross-attention, 1 x H x N x W: each clip's tokens, prefix and branches alike, over its own frames."""
    parts, places = [], []
    for prefix, runs, frames in zip(where.prefixes, where.runs, where.memory, strict=True):
        own = [prefix, *runs]
        queries = torch.cat([query[:, :, tokens] for tokens in own], 2)
        keys, values = key[:, :, frames], value[:, :, frames]
        n_shared = query.shape[1] != key.shape[1]
        parts.append(
            nn.functional.scaled_dot_product_attention(
                queries, keys, values, scale=scaling, enable_gqa=n_shared
            )
        )
        places += [torch.arange(tokens.start, tokens.stop) for tokens in own]
    order = torch.cat(places).argsort().to(query.device)
    return torch.cat(parts, 2)[:, :, order]


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
