"""Decoding many branches from few prefixes: the prefix's keys are read once a clip, never copied to its branches.

Each new token attends to its clip's prefix, together with the clip's other branches in one product, and to
its own branch's tokens; one softmax over both. The numbers are those of a cache a branch.

Axes: C clips, P prefix positions, B branches, G branches of a clip, N new tokens, S own tokens so far,
K key heads, R query heads a key head, W head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, EncoderDecoderCache

from tgsr.engine.branch_attention import flash, refuse_unknown
from tgsr.engine.lean_layers import keys_alone
from tgsr.engine.shared_prefix import SharedPrefix

NAME = "tgsr_branch_cache"  # under which transformers knows the function below


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of C prefixes, one tensor pair a layer, each C x heads x P x head width; left-padded.

    Layers that attend to an earlier layer's have none (`layer_of_keys`).

    `memory` are those of the frames that a decoder with cross-attention looks into.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask_CP: Tensor
    lengths_C: Tensor
    memory: KeyValues | None = None

    def of(self, clips: Sequence[int]) -> KeyValues:
        """Only these clips, in this order; nothing is copied where these are all."""
        if list(clips) == list(range(len(self.lengths_C))):
            return self
        keys, values = (tuple(layer[list(clips)] for layer in side) for side in (self.keys, self.values))
        memory = None if self.memory is None else self.memory.of(clips)
        return KeyValues(keys, values, self.mask_CP[list(clips)], self.lengths_C[list(clips)], memory)


def layer_of_keys(module: Any) -> int:
    """The layer whose keys and values an attention module looks at: its own, or the one that it shares them with.

    Where a decoder's last layers have no keys (Gemma 3n and 4), it is the last one of the module's kind that has.
    """
    if not getattr(module, "is_kv_shared_layer", False):
        return int(module.layer_idx)
    config = module.config
    kinds = config.layer_types[: config.num_hidden_layers - config.num_kv_shared_layers]
    return int(len(kinds) - 1 - kinds[::-1].index(module.layer_type))


@torch.no_grad()
def prefill(prefix: SharedPrefix) -> KeyValues:
    """The prefixes' keys and values, each clip's computed once however many branches it has.

    Clip by clip: without padding and a mask, and in rows that a processor's cache holds.
    """
    if prefix.memory:
        return _prefill_over_memory(prefix)
    rows = []
    for row_PD in prefix.rows:
        kept = DynamicCache()
        position_1P = torch.arange(len(row_PD), device=row_PD.device)[None]
        with keys_alone(prefix.lalm.language_model):
            prefix.lalm.language_model(
                inputs_embeds=row_PD[None], position_ids=position_1P, past_key_values=kept, use_cache=True
            )
        rows.append(kept.layers)
    return left_padded(rows)


def _prefill_over_memory(prefix: SharedPrefix) -> KeyValues:
    """The same where the rows hold a few tokens of text alone: no decoder masks another clip's padded frames."""
    rows, memories = [], []
    for row_PD, frames_FD in zip(prefix.rows, prefix.memory, strict=True):
        kept = EncoderDecoderCache(DynamicCache(), DynamicCache())
        prefix.lalm.language_model(
            inputs_embeds=row_PD[None],
            encoder_hidden_states=frames_FD[None],
            past_key_values=kept,
            use_cache=True,
        )
        rows.append(kept.self_attention_cache.layers)
        memories.append(kept.cross_attention_cache.layers)
    return left_padded(rows, left_padded(memories))


def left_padded(clips: Sequence[Any], memory: KeyValues | None = None) -> KeyValues:
    """The caches' layers of single clips, 1 x heads x P_c x head width each, under each other."""
    lengths = torch.tensor([layers[0].keys.shape[2] for layers in clips], device=clips[0][0].keys.device)
    longest = int(lengths.max())

    def stacked(tensors: Sequence[Tensor]) -> Tensor:
        if len(tensors) == 1:  # a long clip's are not copied
            return tensors[0]
        return torch.cat([nn.functional.pad(t, (0, 0, longest - t.shape[2], 0)) for t in tensors])

    keys = tuple(stacked([layer.keys for layer in of_clips]) for of_clips in zip(*clips, strict=True))
    values = tuple(stacked([layer.values for layer in of_clips]) for of_clips in zip(*clips, strict=True))
    mask_CP = torch.arange(longest, device=lengths.device) >= (longest - lengths)[:, None]
    return KeyValues(keys, values, mask_CP, lengths, memory)


@dataclass(frozen=True, slots=True)
class Kept:
    """A layer's keys and values of one prefix, 1 x K x P x W each."""

    keys: Tensor
    values: Tensor


class PrefixCache:
    """One prefix while it is read, as BranchCache for its branches: each token sees itself and those before it."""

    def __init__(self) -> None:
        self.layers: list[Kept] = []

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        """As BranchCache.keep, layer after layer: those without keys of their own come last."""
        assert layer == len(self.layers)
        self.layers.append(Kept(key.contiguous(), value.contiguous()))

    def attend(self, layer: int, query: Tensor, scale: float, window: int | None = None) -> Tensor:
        """As BranchCache.attend."""
        kept, mask, n = self.layers[layer], None, query.shape[2]
        if window is not None and window < n:
            place_N = torch.arange(n, device=query.device)
            back_NN = place_N[:, None] - place_N
            mask = (back_NN >= 0) & (back_NN < window)
        # Under autocast queries and keys, which have been turned, are wider than values.
        query, key = (x.to(kept.values.dtype) for x in (query, kept.keys))
        return nn.functional.scaled_dot_product_attention(
            query, key, kept.values, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=True
        )


def _lowest(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0, and where hidden a number that no softmax sees beside one that is not.

    Not -inf: where all of a part is hidden its sums then stay numbers, and weigh nothing beside the other part's.
    """
    return torch.zeros(hidden.shape, device=hidden.device, dtype=dtype).masked_fill_(
        hidden, torch.finfo(dtype).min / 2
    )


def attention_sums(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention over one part of all keys, X x K x Q x W, and its log-sum-exp, X x K x Q: what `joined` takes.

    X x K x S x W keys and values; `mask` is added to the scores, and broadcasts to X x K x Q x S.
    """
    if query.device.type == "cpu":
        sums: tuple[Tensor, Tensor] = flash(query, key, value, attn_mask=mask, scale=scale)
        return sums
    scores = ((query * scale) @ key.transpose(-1, -2)).float()
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse


def joined(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """One softmax over both parts' keys, from each part's attention and log-sum-exp."""
    share = torch.sigmoid(second[1] - first[1])[..., None]
    return torch.lerp(first[0], second[0], share.to(first[0].dtype))


@dataclass(frozen=True)
class _Shown:
    """What the newest tokens see: the prefix and their own tokens from a place on, and what of these is hidden.

    The masks are C x G x N x P and B x 1 x N x S, the middle two 1 where all queries see the same; None: nothing is.
    """

    prefix: slice
    own: slice
    prefix_mask: Tensor | None
    own_mask: Tensor | None


class BranchCache:
    """The prefixes of C clips, and room for the tokens of B branches, branch b being one of clip owners_B[b].

    With `fixed` all that a step of one new token reads and writes stands where it stood in the step before, in as many
    places: a CUDA graph can run it again. Else a step reads no more than there is.
    """

    def __init__(self, prefix: KeyValues, owners_B: Tensor, room: int, *, fixed: bool = False) -> None:
        # Under autocast keys, which have been turned, are wider than values.
        keys = tuple(k.to(v.dtype) for k, v in zip(prefix.keys, prefix.values, strict=True))
        self.prefix = replace(prefix, keys=keys)
        self.room = room
        self.fixed = fixed
        self.n_seen = 0
        self.is_ragged = False  # whether some of a branch's places are padding
        self.prefix_is_ragged = not bool(prefix.mask_CP.all())
        self.visible_BS = torch.zeros(len(owners_B), room, dtype=torch.bool, device=owners_B.device)
        self.new_N = torch.zeros(0, dtype=torch.long, device=owners_B.device)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._group(owners_B)

    def _group(self, owners_B: Tensor) -> None:
        """Each branch's place among its clip's: places_CG lists the branches, padded with branch 0."""
        self.owners_B = owners_B
        counts = [0] * len(self.prefix.mask_CP)
        slots = []
        for owner in owners_B.tolist():
            slots.append(counts[owner])
            counts[owner] += 1
        self.slots_B = torch.tensor(slots, device=owners_B.device)
        places_CG = torch.zeros(len(counts), max(counts), dtype=torch.long, device=owners_B.device)
        places_CG[owners_B, self.slots_B] = torch.arange(len(slots), device=owners_B.device)
        self.places_CG = places_CG
        # Clip after clip, as many branches each: these are grouped where they stand.
        self.is_in_order = places_CG.flatten().tolist() == list(range(len(slots)))
        self.shown: dict[tuple[int | None, torch.dtype], _Shown] = {}  # by a layer's window

    def extend(self, visible_BN: Tensor | None = None) -> None:
        """Announces N new tokens a branch, before the forward that computes them; padding is not visible.

        Without it one token a branch.
        """
        n = 1 if visible_BN is None else visible_BN.shape[1]
        new = slice(self.n_seen, self.n_seen + n)
        self.visible_BS[:, new] = True if visible_BN is None else visible_BN
        self.is_ragged |= visible_BN is not None and not bool(visible_BN.all())
        self.n_seen += n
        new_N = torch.arange(new.start, new.stop, device=self.visible_BS.device)
        if self.fixed and n == len(self.new_N):
            self.new_N.copy_(new_N)
            for (window, dtype), before in self.shown.items():
                now = self._shown(window, dtype)
                for old, mask in ((before.prefix_mask, now.prefix_mask), (before.own_mask, now.own_mask)):
                    if old is not None and mask is not None:
                        old.copy_(mask)
        else:
            self.new_N, self.shown = new_N, {}

    def _seen(self, window: int | None, dtype: torch.dtype) -> _Shown:
        if (window, dtype) not in self.shown:
            self.shown[window, dtype] = self._shown(window, dtype)
        return self.shown[window, dtype]

    def _shown(self, window: int | None, dtype: torch.dtype) -> _Shown:
        n, n_new, n_prefix = self.n_seen, len(self.new_N), self.prefix.mask_CP.shape[1]
        padding_CP = ~self.prefix.mask_CP
        alike = _lowest(padding_CP[:, None, None], dtype) if self.prefix_is_ragged else None
        if n_new == 1 and not self.is_ragged and not self.fixed:
            if window is None:
                return _Shown(slice(0, n_prefix), slice(0, n), alike, None)
            first = min(n_prefix, max(0, n_prefix + n - window))
            near = None if alike is None else alike[..., first:]
            return _Shown(slice(first, n_prefix), slice(max(0, n - window), n), near, None)
        n_own = self.room if self.fixed else n
        visible_BS = self.visible_BS[:, :n_own]
        place_S = torch.arange(n_own, device=visible_BS.device)
        hidden_BNS = (place_S > self.new_N[:, None]) | ~visible_BS[:, None]
        # Padding sees itself, so that its softmax is defined.
        hidden_BNS &= place_S != self.new_N[:, None]
        if window is not None:
            place_BS = visible_BS.cumsum(1) - 1
            place_BN = place_BS[:, n - n_new : n, None]
            # Prefixes end where the branches begin, whatever their lengths.
            far_BNP = place_BN + n_prefix - torch.arange(n_prefix, device=place_BN.device) >= window
            alike = _lowest((far_BNP | padding_CP[self.owners_B][:, None])[self.places_CG], dtype)
            hidden_BNS = hidden_BNS | (place_BN - place_BS[:, None] >= window)
        return _Shown(slice(0, n_prefix), slice(0, n_own), alike, _lowest(hidden_BNS[:, None], dtype))

    def select(self, rows: Tensor) -> None:
        """Keeps only these branches, in this order."""
        self.visible_BS = self.visible_BS[rows]
        self.keys = {layer: keys[rows.to(keys.device)] for layer, keys in self.keys.items()}
        self.values = {layer: values[rows.to(values.device)] for layer, values in self.values.items()}
        self._group(self.owners_B[rows])

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keeps the keys and values of the N newest tokens, B x K x N x W."""
        if layer not in self.keys:
            room = (*key.shape[:2], self.room, key.shape[-1])
            self.keys[layer], self.values[layer] = (
                self.prefix.values[layer].new_zeros(room) for _ in range(2)
            )
        new_N = self.new_N.to(key.device)
        for kept, new in ((self.keys[layer], key), (self.values[layer], value)):
            kept.index_copy_(2, new_N, new.to(kept.dtype))

    def attend(self, layer: int, query: Tensor, scale: float, window: int | None = None) -> Tensor:
        """B x heads x N x W for the N newest tokens, whose keys and values are kept."""
        # On another device only where a layer looks at the keys of one that is there.
        own_keys, own_values, prefix_keys, prefix_values = (
            x[layer].to(query.device) for x in (self.keys, self.values, self.prefix.keys, self.prefix.values)
        )
        query_BKRNW = query.to(own_values.dtype).unflatten(1, (own_keys.shape[1], -1))
        n_shared = query_BKRNW.shape[2]
        shown = self._seen(window, own_values.dtype)
        own = attention_sums(
            query_BKRNW.flatten(2, 3),
            own_keys[:, :, shown.own],
            own_values[:, :, shown.own],
            _for_heads(shown.own_mask, n_shared, query.device),
            scale,
        )
        if shown.prefix.start == shown.prefix.stop:
            return own[0].reshape(query.shape)
        of_clips = attention_sums(
            self._by_clip(query_BKRNW),
            prefix_keys[:, :, shown.prefix],
            prefix_values[:, :, shown.prefix],
            _for_heads(shown.prefix_mask, n_shared, query.device),
            scale,
        )
        of_prefix = tuple(self._by_branch(x, query_BKRNW.shape).flatten(2, 3) for x in of_clips)
        return joined((of_prefix[0], of_prefix[1]), own).reshape(query.shape)

    def attend_memory(self, layer: int, query: Tensor, scale: float) -> Tensor:
        """Cross-attention of the N newest tokens, B x heads x N x W, over their clips' frames."""
        memory = self.prefix.memory
        assert memory is not None
        keys, values = memory.keys[layer], memory.values[layer]
        query_BKRNW = query.to(values.dtype).unflatten(1, (keys.shape[1], -1))
        mask = _lowest(~memory.mask_CP, values.dtype).to(query.device)[:, None, None]
        out, _ = attention_sums(self._by_clip(query_BKRNW), keys.to(values.dtype), values, mask, scale)
        return self._by_branch(out, query_BKRNW.shape).reshape(query.shape)

    def _by_clip(self, x_BKRNW: Tensor) -> Tensor:
        """C x K x (G R N) x W: the rows of one clip's branches side by side."""
        if self.is_in_order:
            grouped = x_BKRNW.unflatten(0, (len(self.places_CG), -1))
        else:
            grouped = x_BKRNW[self.places_CG.to(x_BKRNW.device)]
        return grouped.transpose(1, 2).flatten(2, 4)

    def _by_branch(self, x_CKY: Tensor, shape: torch.Size) -> Tensor:
        """Undoes _by_clip, of B x K x R x N x W and of what has no last axis: B x K x R x N, and the last."""
        _, _, n_shared, n_new, _ = shape
        rows = x_CKY.unflatten(2, (-1, n_shared, n_new)).transpose(1, 2)
        if self.is_in_order:
            return rows.flatten(0, 1)
        return rows[self.owners_B.to(rows.device), self.slots_B.to(rows.device)]


def _for_heads(mask_XGNS: Tensor | None, n_shared: int, device: torch.device) -> Tensor | None:
    """X x 1 x (G R N) x S for R query heads a key head, or X x 1 x 1 x S where all queries see the same."""
    if mask_XGNS is None or mask_XGNS.shape[1] == mask_XGNS.shape[2] == 1:
        return None if mask_XGNS is None else mask_XGNS.to(device)
    expanded = mask_XGNS[:, :, None].expand(-1, -1, n_shared, -1, -1)
    return expanded.flatten(1, 3)[:, None].to(device)


def cached_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branch_cache: BranchCache,
    scaling: float,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: B x heads x N x W -> B x N x heads x W. ModelError as `refuse_unknown`."""
    refuse_unknown(module, more, branch_cache.prefix.memory is not None)
    if branch_cache.prefix.memory is not None and not module.is_causal:
        return branch_cache.attend_memory(module.layer_idx, query, scaling).transpose(1, 2), None
    layer = layer_of_keys(module)
    if layer == module.layer_idx:
        branch_cache.keep(layer, key, value)
    return branch_cache.attend(layer, query, scaling, sliding_window).transpose(1, 2), None


AttentionInterface.register(NAME, cached_attention)
