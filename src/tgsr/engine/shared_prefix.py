"""Listen once, answer many: a clip's prompt and audio as one prefix, everything asked about it as branches.

Axes: C clips, P prefix positions (left-padded), B branches, T branch tokens (right-padded), F frames,
D model width, V vocabulary.

The prefix's keys and values are computed once, with gradients where gradients are wanted, and handed to
each of its branches; log-probs and gradients equal those of separate sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from tgsr.engine.branch_attention import NAME, attention_as, layout, row_starts
from tgsr.models.lalm import Lalm, device_of


class AudioMissing(AssertionError):
    """A sequence without audio embeddings was about to be trained on or sampled from."""


@dataclass(frozen=True)
class SharedPrefix:
    """Keys and values of C prefixes, one tensor pair a layer, each C x heads x P x head width."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask_CP: Tensor
    lengths_C: Tensor

    def of(self, clips: Sequence[int]) -> SharedPrefix:
        """Only these clips, in this order; nothing is copied where these are all."""
        if list(clips) == list(range(len(self.lengths_C))):
            return self
        keys, values = (tuple(layer[list(clips)] for layer in side) for side in (self.keys, self.values))
        return SharedPrefix(keys, values, self.mask_CP[list(clips)], self.lengths_C[list(clips)])


def listen(
    lalm: Lalm,
    audio: Sequence[Tensor],
    *,
    after: Sequence[Sequence[int]] | None = None,
    aligned: bool = False,
) -> SharedPrefix:
    """The prefixes of C clips: the tokens before the audio, the aligned audio embeddings, and `after`.

    `after` holds, clip by clip, tokens that all of its branches begin with (a question that is answered
    many times); without it the prefix ends with the audio.

    `audio` holds the encoder's outputs (F x D_enc), or with `aligned` embeddings that already went
    through the aligner (F x D). Raises AudioMissing where a clip has no frames, ValueError where a
    frame is not finite.
    """
    device = device_of(lalm)
    _, rows = _prefix_rows(lalm, audio, after, aligned)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    n_positions = int(lengths.max())
    embeds = torch.stack([nn.functional.pad(row, (0, 0, n_positions - len(row), 0)) for row in rows])
    mask_CP = torch.arange(n_positions, device=device) >= (n_positions - lengths)[:, None]
    out = lalm.language_model(
        inputs_embeds=embeds,
        attention_mask=None if bool(mask_CP.all()) else mask_CP.long(),
        position_ids=(mask_CP.long().cumsum(-1) - 1).clamp(min=0),
        past_key_values=DynamicCache(),
        use_cache=True,
    )
    layers = out.past_key_values.layers
    return SharedPrefix(
        tuple(layer.keys for layer in layers),
        tuple(layer.values for layer in layers),
        mask_CP,
        lengths,
    )


def _prefix_rows(
    lalm: Lalm, audio: Sequence[Tensor], after: Sequence[Sequence[int]] | None, aligned: bool
) -> tuple[int, list[Tensor]]:
    """Where the frames begin, and each clip's prefix as embeddings: before, frames, after; arguments as in `listen`."""
    device = device_of(lalm)
    head_ND = lalm.embed(torch.tensor(lalm.prompt("").before, device=device))
    rows = []
    for index, frames in enumerate(audio):
        _check_frames(index, frames)
        embedded = frames if aligned else lalm.align(frames)
        tail = torch.tensor(list(after[index]) if after else [], dtype=torch.long, device=device)
        rows.append(torch.cat([head_ND, embedded.to(head_ND.dtype), lalm.embed(tail)]))
    return len(head_ND), rows


def _check_frames(index: int, frames: Tensor) -> None:
    if frames.ndim != 2 or len(frames) == 0:
        raise AudioMissing(f"clip {index} of the batch has no audio frames: shape {tuple(frames.shape)}")
    if not torch.isfinite(frames).all():
        raise ValueError(f"clip {index} of the batch has audio features that are not finite")


def pad_right(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ragged rows as B x T and the mask of what is real, B x T bool."""
    n = max(len(row) for row in rows)
    ids = torch.full((len(rows), n), value, dtype=torch.long)
    mask = torch.zeros((len(rows), n), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        mask[index, : len(row)] = True
    return ids.to(device), mask.to(device)


@dataclass(frozen=True, slots=True)
class Branch:
    """Something asked about clip `owner` of a batch: the prompt's tokens after the audio, and the answer's."""

    owner: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def of_clips(branches: Sequence[Branch], clips: slice) -> list[Branch]:
    """The branches of some of a batch's clips, as a batch of these clips alone numbers them."""
    inside = range(clips.start, clips.stop)
    return [replace(b, owner=b.owner - clips.start) for b in branches if b.owner in inside]


@dataclass(frozen=True)
class PackedLogps:
    """Log-probs of the answers' tokens of B branches, B x T (0 where mask_BT is False).

    Where they were asked for: `hidden_states`, the embeddings and each layer's output, N x D for all N
    tokens of the batch. The frames of clip c begin at first_frame[c], branch b's tokens at first_token[b].
    """

    logp_BT: Tensor
    mask_BT: Tensor
    first_frame: tuple[int, ...]
    first_token: tuple[int, ...]
    hidden_states: tuple[Tensor, ...] | None = None


def packed_logps(
    lalm: Lalm,
    audio: Sequence[Tensor],
    branches: Sequence[Branch],
    *,
    after: Sequence[Sequence[int]] | None = None,
    aligned: bool = False,
    temperature: float = 1.0,
    output_hidden_states: bool = False,
) -> PackedLogps:
    """Log-probs over branches with one forward over one row: the clips' prefixes, then all branches.

    A branch sees its clip's prefix and itself, and its positions continue the prefix's, so that the numbers
    are those of separate sequences; nothing is padded outside attention. Logits are computed where an
    answer's token is predicted and nowhere else. `audio` and `after` as in `listen`. Raises AudioMissing
    for a clip without frames; ValueError for an empty prompt or answer, or for a branch of no clip.
    """
    device = device_of(lalm)
    n_before, prefixes = _prefix_rows(lalm, audio, after, aligned)
    for index, branch in enumerate(branches):
        if not 0 <= branch.owner < len(audio) or not branch.prompt or not branch.answer:
            raise ValueError(
                f"branch {index}: owner {branch.owner} of {len(audio)} clips, a prompt of {len(branch.prompt)} "
                f"and an answer of {len(branch.answer)} tokens; each branch needs a clip and both texts"
            )
    prefix_lengths = [len(prefix) for prefix in prefixes]
    lengths = [len(branch.prompt) + len(branch.answer) for branch in branches]
    owners = [branch.owner for branch in branches]
    starts = row_starts(prefix_lengths, lengths)
    first_token = starts[len(prefixes) :]
    ids_N = torch.tensor([token for branch in branches for token in (*branch.prompt, *branch.answer)])
    positions = [torch.arange(n) for n in prefix_lengths]
    positions += [prefix_lengths[owner] + torch.arange(n) for owner, n in zip(owners, lengths, strict=True)]
    with attention_as(lalm.language_model, NAME):
        out = lalm.language_model(
            inputs_embeds=torch.cat([*prefixes, lalm.embed(ids_N.to(device))])[None],
            position_ids=torch.cat(positions).to(device)[None],
            use_cache=False,
            output_hidden_states=output_hidden_states,
            branches=layout(prefix_lengths, lengths, owners, device),
        )
    # The token before an answer's token predicts it.
    predicting = [
        torch.arange(start + len(branch.prompt) - 1, start + len(branch.prompt) - 1 + len(branch.answer))
        for start, branch in zip(first_token, branches, strict=True)
    ]
    answer_ids, mask_BT = pad_right([branch.answer for branch in branches], lalm.pad_id, device)
    picked_N = picked_logps(
        lalm.lm_head,
        out.last_hidden_state[0, torch.cat(predicting).to(device)],
        answer_ids[mask_BT],
        temperature,
    )
    logp_BT = torch.zeros(answer_ids.shape, device=device, dtype=picked_N.dtype).masked_scatter(
        mask_BT, picked_N
    )
    hidden_states = tuple(h[0] for h in out.hidden_states) if output_hidden_states else None
    first_frame = tuple(start + n_before for start in starts[: len(prefixes)])
    return PackedLogps(logp_BT, mask_BT, first_frame, tuple(first_token), hidden_states)


LOGITS_AT_ONCE = 2**27  # float32 logits that are kept at a time: 512 MB


def picked_logps(lm_head: nn.Module, hidden_ND: Tensor, ids_N: Tensor, temperature: float) -> Tensor:
    """Log-prob of token ids_N[i] after hidden_ND[i], float32, without keeping all logits.

    N x V logits of a large vocabulary outweigh everything else that an update keeps (1,200 tokens of
    Qwen2.5: 0.7 GB, and as much again for their gradient). Beyond LOGITS_AT_ONCE they are computed in
    pieces, and with gradients again in the backward pass: the same numbers.
    """

    def picked(hidden_MD: Tensor, ids_M: Tensor) -> Tensor:
        logits_MV = lm_head(hidden_MD).float() / temperature
        return torch.log_softmax(logits_MV, -1).gather(-1, ids_M[:, None])[:, 0]

    vocabulary: Any = lm_head.weight
    n_at_once = max(1, LOGITS_AT_ONCE // len(vocabulary))
    if len(ids_N) <= n_at_once:
        return picked(hidden_ND, ids_N)
    pieces = zip(hidden_ND.split(n_at_once), ids_N.split(n_at_once), strict=True)
    return torch.cat([checkpoint(picked, hidden, ids, use_reentrant=False) for hidden, ids in pieces])
