"""Decoding many branches from few prefixes: the prefix's keys are read once a clip, never copied to its branches.

Each new token attends to its clip's prefix, together with the clip's other branches in one product, and to
its own branch's tokens; one softmax over both. The numbers are those of a cache a branch.

Axes: C clips, P prefix positions, B branches, G branches of a clip, N new tokens, S own tokens so far,
K key heads, R query heads a key head, W head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache, EncoderDecoderCache

from tgsr.engine.branch_attention import refuse_unknown
from tgsr.engine.shared_prefix import SharedPrefix
from tgsr.models.lalm import device_of

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
    """The prefixes' keys and values, each clip's computed once however many branches it has."""
    if prefix.memory:
        return _prefill_over_memory(prefix)
    lalm, device = prefix.lalm, device_of(prefix.lalm)
    lengths = torch.tensor([len(row) for row in prefix.rows], device=device)
    n_positions = int(lengths.max())
    embeds = torch.stack([nn.functional.pad(row, (0, 0, n_positions - len(row), 0)) for row in prefix.rows])
    mask_CP = torch.arange(n_positions, device=device) >= (n_positions - lengths)[:, None]
    out = lalm.language_model(
        inputs_embeds=embeds,
        attention_mask=None if bool(mask_CP.all()) else mask_CP.long(),
        position_ids=(mask_CP.long().cumsum(-1) - 1).clamp(min=0),
        past_key_values=DynamicCache(),
        use_cache=True,
    )
    layers = out.past_key_values.layers
    return KeyValues(
        tuple(layer.keys for layer in layers), tuple(layer.values for layer in layers), mask_CP, lengths
    )


def _prefill_over_memory(prefix: SharedPrefix) -> KeyValues:
    """Clip by clip: the rows hold a few tokens of text, and no decoder masks another clip's padded frames."""
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
    return _left_padded(rows, _left_padded(memories))


def _left_padded(clips: Sequence[Any], memory: KeyValues | None = None) -> KeyValues:
    """The caches' layers of single clips, 1 x heads x P_c x head width each, under each other."""
    lengths = torch.tensor([layers[0].keys.shape[2] for layers in clips], device=clips[0][0].keys.device)
    longest = int(lengths.max())

    def stacked(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([nn.functional.pad(t, (0, 0, longest - t.shape[2], 0)) for t in tensors])

    keys = tuple(stacked([layer.keys for layer in of_clips]) for of_clips in zip(*clips, strict=True))
    values = tuple(stacked([layer.values for layer in of_clips]) for of_clips in zip(*clips, strict=True))
    mask_CP = torch.arange(longest, device=lengths.device) >= (longest - lengths)[:, None]
    return KeyValues(keys, values, mask_CP, lengths, memory)


def _minus_infinity(hidden: Tensor) -> Tensor:
    """What is added to scores: -inf where hidden, else 0."""
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, float("-inf"))


class BranchCache:
    """The prefixes of C clips, and room for the tokens of B branches, branch b being one of clip owners_B[b]."""

    def __init__(self, prefix: KeyValues, owners_B: Tensor, room: int) -> None:
        self.prefix = prefix
        self.room = room
        self.n_seen = 0
        self.visible_BS = torch.zeros(len(owners_B), room, dtype=torch.bool, device=owners_B.device)
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

    def extend(self, visible_BN: Tensor) -> None:
        """Announces N new tokens a branch, before the forward that computes them; padding is not visible."""
        n = visible_BN.shape[1]
        self.visible_BS[:, self.n_seen : self.n_seen + n] = visible_BN
        self.n_seen += n
        place_S = torch.arange(self.n_seen, device=visible_BN.device)
        later_NS = place_S > place_S[self.n_seen - n :, None]
        hidden_BNS = later_NS | ~self.visible_BS[:, None, : self.n_seen]
        # Padding sees itself, so that its softmax is defined.
        hidden_BNS[:, range(n), range(self.n_seen - n, self.n_seen)] = False
        self.hidden_BNS = hidden_BNS
        self.masks: dict[int | None, tuple[Tensor, Tensor]] = {}  # by a layer's window

    def mask(self, window: int | None) -> tuple[Tensor, Tensor]:
        """What is added to the N newest tokens' scores: over the prefix, B x N x P, and over their own, B x N x S.

        Where all new tokens see the same of the prefix it is B x 1 x P.
        """
        if window not in self.masks:
            self.masks[window] = self._mask(window)
        return self.masks[window]

    def _mask(self, window: int | None) -> tuple[Tensor, Tensor]:
        hidden_BNP, hidden_BNS = ~self.prefix.mask_CP[self.owners_B][:, None], self.hidden_BNS
        if window is not None:
            n_prefix = self.prefix.mask_CP.shape[1]
            place_BS = self.visible_BS[:, : self.n_seen].cumsum(1) - 1
            place_BN = place_BS[:, -self.hidden_BNS.shape[1] :, None]
            # Prefixes end where the branches begin, whatever their lengths.
            hidden_BNP = hidden_BNP | (
                place_BN + n_prefix - torch.arange(n_prefix, device=place_BN.device) >= window
            )
            hidden_BNS = hidden_BNS | (place_BN - place_BS[:, None] >= window)
        return _minus_infinity(hidden_BNP), _minus_infinity(hidden_BNS)

    def select(self, rows: Tensor) -> None:
        """Keeps only these branches, in this order."""
        self.visible_BS = self.visible_BS[rows]
        self.keys = {layer: keys[rows.to(keys.device)] for layer, keys in self.keys.items()}
        self.values = {layer: values[rows.to(values.device)] for layer, values in self.values.items()}
        self._group(self.owners_B[rows])

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        window: int | None = None,
    ) -> Tensor:
        """B x heads x N x W for the N newest tokens, whose keys and values are kept, on the layer's own device."""
        n_branches, _, n_new, width = query.shape
        n_keys = key.shape[1]
        if layer not in self.keys:
            room = (n_branches, n_keys, self.room, width)
            self.keys[layer], self.values[layer] = key.new_empty(room), value.new_empty(room)
        new = slice(self.n_seen - n_new, self.n_seen)
        self.keys[layer][:, :, new], self.values[layer][:, :, new] = key, value
        # On another device only where a layer looks at the keys of one that is there.
        keys_BKSW, values_BKSW = (
            x[layer][:, :, : self.n_seen].to(query.device) for x in (self.keys, self.values)
        )
        query_BKRNW = (query * scaling).view(n_branches, n_keys, -1, n_new, width)
        prefix_keys, prefix_values = (
            x[layer].to(query.device) for x in (self.prefix.keys, self.prefix.values)
        )
        n_prefix = prefix_keys.shape[2]
        prefix_mask_BNP, own_mask_BNS = (mask.to(query.device) for mask in self.mask(window))

        by_clip = self._by_clip(query_BKRNW) @ prefix_keys.transpose(-1, -2)
        scores_prefix = self._by_branch(by_clip, query_BKRNW.shape) + prefix_mask_BNP[:, None, None]
        scores_own = query_BKRNW.flatten(2, 3) @ keys_BKSW.transpose(-1, -2)
        scores_own = scores_own.view(*query_BKRNW.shape[:-1], self.n_seen) + own_mask_BNS[:, None, None]
        weights = torch.cat([scores_prefix, scores_own], -1).float().softmax(-1).to(prefix_values.dtype)
        by_clip = self._by_clip(weights[..., :n_prefix]) @ prefix_values
        from_prefix = self._by_branch(by_clip, query_BKRNW.shape)
        from_own = (weights[..., n_prefix:].flatten(2, 3) @ values_BKSW).view(query_BKRNW.shape)
        return (from_prefix + from_own).flatten(1, 2)

    def attend_memory(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """Cross-attention of the N newest tokens, B x heads x N x W, over their clips' frames."""
        memory = self.prefix.memory
        assert memory is not None
        keys, values = memory.keys[layer], memory.values[layer]
        query_BKRNW = (query * scaling).unflatten(1, (keys.shape[1], -1))
        scores = self._by_clip(query_BKRNW) @ keys.transpose(-1, -2)
        scores += _minus_infinity(~memory.mask_CP).to(scores.device)[:, None, None, :]
        weights = scores.float().softmax(-1).to(values.dtype)
        return self._by_branch(weights @ values, query_BKRNW.shape).flatten(1, 2)

    def _by_clip(self, x_BKRNX: Tensor) -> Tensor:
        """C x K x (G R N) x X: the rows of one clip's branches side by side."""
        return x_BKRNX[self.places_CG.to(x_BKRNX.device)].transpose(1, 2).flatten(2, 4)

    def _by_branch(self, x_CKYX: Tensor, shape: torch.Size) -> Tensor:
        """Undoes _by_clip."""
        n_clips, n_group = self.places_CG.shape
        rows = x_CKYX.view(n_clips, shape[1], n_group, shape[2], shape[3], x_CKYX.shape[-1]).transpose(1, 2)
        return rows[self.owners_B.to(rows.device), self.slots_B.to(rows.device)]


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
    out = branch_cache.attend(layer_of_keys(module), query, key, value, scaling, sliding_window)
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, cached_attention)
