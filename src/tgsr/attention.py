"""Where the decoder looks while it writes: attention summed over blocks of the input, layer by layer.

The sums are taken inside attention, branch by branch; no map is ever kept. Source: section 5.1, A.2, A.3.

Axes: L layers, M answer tokens of all branches, K blocks, H heads, T tokens, P prefix positions, W head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from tgsr.engine.branch_attention import branch_attention
from tgsr.engine.shared_prefix import Branch, SharedPrefix, check_branches, forward, row_starts

BLOCKS = ("system", "audio", "question", "output")
NAME = "tgsr_block_sums"  # under which transformers knows the function below


@dataclass(frozen=True)
class BlockAttention:
    """share_LMK: of the attention that predicts answer token m in layer l, the share that block k receives.

    Means over heads; each token's shares sum to 1. The query is the position that predicts the token, as in
    the attentions that transformers' generate returns. Blocks are BLOCKS: the text before the audio (system
    turn, the user's header), the audio, the question with everything up to the answer, and the answer's own
    earlier tokens. The tokens of branch b are rows first_token[b] and on; n_of_block_BK counts each block's
    positions for branch b (output: those of its whole answer), to compare blocks token by token.
    """

    share_LMK: Tensor
    first_token: tuple[int, ...]
    n_of_block_BK: Tensor


@dataclass(frozen=True)
class _Asked:
    """Which positions of the row predict answers, what they see, and the sums of each layer that has run."""

    queries: tuple[Tensor, ...]  # of branch b: T places in the row
    keys: tuple[Tensor, ...]  # of branch b: its prefix's places, then its own
    blocks: tuple[Tensor, ...]  # of branch b: each key's block
    sums: list[Tensor]


@torch.no_grad()
def block_attention(prefix: SharedPrefix, branches: Sequence[Branch]) -> BlockAttention:
    """The shares of attention for the answers of `branches`, in one forward. ModelError as branch_logps."""
    owners = [branch.owner for branch in branches]
    check_branches(prefix, owners, [b.prompt for b in branches], [len(b.answer) for b in branches])
    prefix_lengths = [len(row) for row in prefix.rows]
    starts = row_starts(prefix_lengths, [len(b.prompt) + len(b.answer) for b in branches])
    queries, keys, blocks = [], [], []
    for start, branch in zip(starts[len(prefix_lengths) :], branches, strict=True):
        n_prefix, n_frames = prefix_lengths[branch.owner], prefix.n_frames[branch.owner]
        n_question = n_prefix - prefix.n_before - n_frames + len(branch.prompt)
        counts = torch.tensor([prefix.n_before, n_frames, n_question, len(branch.answer)])
        own = torch.arange(start, start + len(branch.prompt) + len(branch.answer))
        queries.append(own[len(branch.prompt) - 1 : -1])
        keys.append(torch.cat([starts[branch.owner] + torch.arange(n_prefix), own]))
        blocks.append(torch.arange(len(BLOCKS)).repeat_interleave(counts))
    asked = _Asked(tuple(queries), tuple(keys), tuple(blocks), [])
    forward(prefix, branches, attention=NAME, asked=asked)
    first = row_starts([], [len(branch.answer) for branch in branches])
    counts_BK = torch.stack([torch.bincount(of_branch, minlength=len(BLOCKS)) for of_branch in blocks])
    return BlockAttention(torch.stack(asked.sums), tuple(first), counts_BK)


def block_sums(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """branch_attention, and on the side the sums that `asked` wants; transformers' attention interface."""
    asked: _Asked = more.pop("asked")
    scaling = more.get("scaling") or query.shape[-1] ** -0.5
    n_shared = query.shape[1] // key.shape[1]
    of_layer = []
    for queries, keys, blocks in zip(asked.queries, asked.keys, asked.blocks, strict=True):
        key_HKW = key[0, :, keys.to(key.device)].float().repeat_interleave(n_shared, 0)
        scores_HTK = query[0, :, queries.to(query.device)].float() @ key_HKW.transpose(1, 2) * scaling
        later = keys[None] > queries[:, None]  # a prefix stands before all branches
        weights_HTK = scores_HTK.masked_fill(later.to(query.device), float("-inf")).softmax(-1)
        one_hot_KB = torch.nn.functional.one_hot(blocks, len(BLOCKS)).to(query.device, torch.float32)
        of_layer.append((weights_HTK @ one_hot_KB).mean(0).cpu())
    asked.sums.append(torch.cat(of_layer))
    return branch_attention(module, query, key, value, attention_mask, **more)


AttentionInterface.register(NAME, block_sums)
