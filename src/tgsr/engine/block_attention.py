"""Where the decoder looks while it reads and writes: attention summed over blocks of the input, layer by layer.

The sums are taken inside attention; no map is ever kept. The fused kernel that computes attention gives each query's
log-sum-exp over the keys it was shown. So the keys are shown block by block: outputs are joined by their log-sum-exps,
and a block's share of attention is exp(its log-sum-exp - that of all keys), which costs next to nothing. What falls on
single frames of the audio (regions) needs their scores: these are computed again for a few queries at a time, and go
into the regions' sums at once. Source: section 5.1, A.2, A.3.

Where the decoder hears by cross-attention, the frames are in no row: blocks are those of self-attention, regions those
of cross-attention, a softmax of its own over the frames alone.

Axes: L layers, M answer tokens of all branches, Q tokens of their questions, S places of the row whose sums are taken,
K blocks, F frames, R regions; in attention N tokens of the row, H heads, G key heads, J heads to one key head
(H = G * J), W head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from tgsr.engine.branch_attention import BranchLayout, branch_attention, flash, join, row_slices, row_starts
from tgsr.engine.shared_prefix import Branch, SharedPrefix, check_branches, forward
from tgsr.errors import ModelError

BLOCKS = ("system", "audio", "question", "output")
SYSTEM, AUDIO, QUESTION, OUTPUT = range(len(BLOCKS))
NAME = "tgsr_block_sums"  # under which transformers knows the function below
SCORES_AT_ONCE = 2**20  # float32 scores that are kept at a time: 4 MB


@dataclass(frozen=True)
class BlockAttention:
    """share_LMK: of the attention that predicts answer token m in layer l, the share that block k receives.

    Means over heads; each token's shares sum to 1. The query is the position that predicts the token, as in
    the attentions that transformers' generate returns. Blocks are BLOCKS: the text before the audio (system
    turn, the user's header), the audio, the question with everything up to the answer, and the answer's own
    earlier tokens. The tokens of branch b are rows first_token[b] and on; n_of_block_BK counts each block's
    positions for branch b (output: those of its whole answer), to compare blocks token by token.

    question_LQK: the same for the tokens of the questions (all that follows the audio, up to the answer) while
    they are read: each one is its own query. Those of branch b are rows first_question[b] and on; their output share
    is 0, and the last of them is also the query of the branch's first answer token.

    Where regions were asked for, region_LMR[b] and region_LQR[b] hold, for branch b alone, the share of attention
    that falls on each of its regions of the audio: answer tokens, and the question's.

    Of a decoder with cross-attention the audio's share is NaN, not defined: its blocks are those of self-attention, the
    shares of the other three sum to 1, and its regions are shares of cross-attention, of which all falls on the audio.
    """

    share_LMK: Tensor
    first_token: tuple[int, ...]
    n_of_block_BK: Tensor
    question_LQK: Tensor
    first_question: tuple[int, ...]
    region_LMR: tuple[Tensor, ...] = ()
    region_LQR: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class _Blocks:
    """Where the blocks are in a batch's row, whose sums are taken, and the sums of each layer that has run.

    audio[c] and tails[c] are the slices of clip c's frames (none, if they are a memory) and of what its prefix holds
    after them; answers[b] of branch b's answer, which its prompt precedes. rows_S are all places after the audio. Of
    branch b, with regions: queries[b], its question's and answer's places, and weights[b], F x R.
    """

    audio: tuple[slice, ...]
    tails: tuple[slice, ...]
    answers: tuple[slice, ...]
    owners: tuple[int, ...]
    rows_S: Tensor
    queries: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    sums: list[Tensor]  # S x K a layer
    of_regions: list[list[Tensor]]  # a branch's queries x R, a layer


@torch.no_grad()
def block_attention(
    prefix: SharedPrefix, branches: Sequence[Branch], regions: Sequence[Tensor] | None = None
) -> BlockAttention:
    """The shares of attention for the questions and answers of `branches`, in one forward.

    regions[b] is F x R: how much of each of its clip's frames belongs to each of branch b's regions (1 for a frame
    inside a span, 0 outside, a fraction at its edges; the unit matrix for every frame by itself). ModelError as
    branch_logps, and for regions that do not fit the frames.
    """
    owners = [branch.owner for branch in branches]
    check_branches(prefix, owners, [b.prompt for b in branches], [len(b.answer) for b in branches])
    blocks = _blocks_of(prefix, branches, regions)
    forward(prefix, branches, attention=NAME, blocks=blocks)
    n_rows = int(blocks.rows_S.max()) + 1
    place_N = torch.full((n_rows,), -1)
    place_N[blocks.rows_S] = torch.arange(len(blocks.rows_S))
    share_LSK = torch.stack(blocks.sums)
    if prefix.memory:
        share_LSK[..., AUDIO] = float("nan")
    asking = [place_N[queries[: -len(b.answer)]] for queries, b in zip(blocks.queries, branches, strict=True)]
    # The token before an answer's token predicts it.
    predicting = [place_N[answer.start - 1 : answer.stop - 1] for answer in blocks.answers]
    # Nothing where no regions were asked for.
    of_regions = [
        (torch.stack(layers), len(b.answer))
        for b, *layers in zip(branches, *blocks.of_regions, strict=True)
        if layers
    ]
    counts_BK = [
        (prefix.n_before, prefix.n_frames[b.owner], len(rows), len(b.answer))
        for b, rows in zip(branches, asking, strict=True)
    ]
    return BlockAttention(
        share_LSK[:, torch.cat(predicting)],
        tuple(row_starts([], [len(b.answer) for b in branches])),
        torch.tensor(counts_BK),
        share_LSK[:, torch.cat(asking)],
        tuple(row_starts([], [len(rows) for rows in asking])),
        tuple(region_LSR[:, -n - 1 : -1] for region_LSR, n in of_regions),
        tuple(region_LSR[:, :-n] for region_LSR, n in of_regions),
    )


def _blocks_of(prefix: SharedPrefix, branches: Sequence[Branch], regions: Sequence[Tensor] | None) -> _Blocks:
    for index, branch in enumerate(branches if regions is not None else []):
        shape, n_frames = tuple(regions[index].shape), prefix.n_frames[branch.owner]  # type: ignore[index]
        if len(shape) != 2 or shape[0] != n_frames:
            raise ModelError(f"branch {index}: regions of shape {shape} over a clip of {n_frames} frames")
    lengths = [len(row) for row in prefix.rows]
    places = row_slices(lengths, [len(b.prompt) + len(b.answer) for b in branches])
    clips, own = places[: len(lengths)], places[len(lengths) :]
    firsts = [clip.start + prefix.n_before for clip in clips]
    in_row = [0] * len(clips) if prefix.memory else prefix.n_frames
    audio = [slice(first, first + n) for first, n in zip(firsts, in_row, strict=True)]
    tails = [slice(frames.stop, clip.stop) for frames, clip in zip(audio, clips, strict=True)]
    answers = [slice(s.start + len(b.prompt), s.stop) for s, b in zip(own, branches, strict=True)]
    queries = [torch.cat([_places(tails[b.owner]), _places(s)]) for s, b in zip(own, branches, strict=True)]
    return _Blocks(
        tuple(audio),
        tuple(tails),
        tuple(answers),
        tuple(b.owner for b in branches),
        torch.cat([_places(row) for row in (*tails, *own)]),
        tuple(queries),
        tuple(regions or ()),
        [],
        [],
    )


def _places(row: slice) -> Tensor:
    return torch.arange(row.start, row.stop)


# --- inside attention --------------------------------------------------------------------------------------


def block_sums(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    """branch_attention, and on the side the sums that `blocks` wants; transformers' attention interface."""
    blocks: _Blocks = more.pop("blocks")
    where: BranchLayout = more["branches"]
    device, window = query.device.type, more.get("sliding_window")
    hears, scale = where.memory and not module.is_causal, more.get("scaling") or query.shape[-1] ** -0.5
    by_kernel = device == "cpu" and window is None and not hears
    if by_kernel:
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
        query, key, value = (x.to(dtype) for x in (query, key, value))
    query_JGNW = query[0].unflatten(0, (key.shape[1], -1)).transpose(0, 1)
    if hears:
        if blocks.weights:
            all_JGN = query_JGNW.new_ones(query_JGNW.shape[:3])
            blocks.of_regions.append(_of_regions(query_JGNW, key[0], all_JGN, where.memory, blocks, scale))
        return branch_attention(module, query, key, value, attention_mask, **more)
    if by_kernel:
        out_JGNW, lse_KJGN = _in_blocks(query_JGNW, key[0], value[0], where, blocks, scale)
        out = out_JGNW.transpose(0, 1).flatten(0, 1).transpose(0, 1)[None]
    else:
        out, _ = branch_attention(module, query, key, value, attention_mask, **more)
        lse_KJGN = _by_scores(query_JGNW, key[0], where, blocks, scale, window)
    share_KJGN = lse_KJGN.softmax(0)
    blocks.sums.append(share_KJGN.mean((1, 2))[:, blocks.rows_S.to(query.device)].T.cpu())
    if blocks.weights and not where.memory:
        audio_JGN = share_KJGN[AUDIO]
        near = None if window is None else (lambda query, key: where.is_near(query, key, window))
        blocks.of_regions.append(
            _of_regions(query_JGNW, key[0], audio_JGN, blocks.audio, blocks, scale, near)
        )
    return out, None


def _in_blocks(
    query_JGNW: Tensor, key_GNW: Tensor, value_GNW: Tensor, where: BranchLayout, blocks: _Blocks, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention's output, J x G x N x W, and each block's log-sum-exp for each query, K x J x G x N.

    The keys are shown block by block to torch's fused kernel. The system's and the frames' own queries, whose sums
    nobody asks for, have theirs under SYSTEM. -inf: a block without keys that the query sees.
    """
    out = torch.zeros_like(query_JGNW)
    lse_JGN = query_JGNW.new_full(query_JGNW.shape[:3], float("-inf"), dtype=torch.float32)
    of_block = lse_JGN.new_full((len(BLOCKS), *lse_JGN.shape), float("-inf"))

    def show(queries: slice, keys: slice, block: int, causal: bool = False) -> None:
        if queries.start == queries.stop or keys.start == keys.stop:
            return
        k, v = (x[:, keys].expand(len(query_JGNW), -1, -1, -1) for x in (key_GNW, value_GNW))
        shown, lse = flash(query_JGNW[:, :, queries], k, v, is_causal=causal, scale=scale)
        join(out[:, :, queries], lse_JGN[:, :, queries], shown, lse)
        of_block[block, :, :, queries] = torch.logaddexp(of_block[block, :, :, queries], lse)

    for prefix, audio, tail, runs in zip(where.prefixes, blocks.audio, blocks.tails, where.runs, strict=True):
        show(slice(prefix.start, audio.stop), slice(prefix.start, audio.stop), SYSTEM, causal=True)
        for queries in (tail, *runs):
            show(queries, slice(prefix.start, audio.start), SYSTEM)
            show(queries, audio, AUDIO)
            show(queries, tail, QUESTION, causal=queries is tail)
    for own, answer in zip(where.branches, blocks.answers, strict=True):
        prompt = slice(own.start, answer.start)
        show(prompt, prompt, QUESTION, causal=True)
        show(answer, prompt, QUESTION)
        show(answer, answer, OUTPUT, causal=True)
    return out, of_block


def _by_scores(
    query_JGNW: Tensor,
    key_GNW: Tensor,
    where: BranchLayout,
    blocks: _Blocks,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """The same log-sum-exps from scores, on any device, for the places after the audio; 0 for the others.

    Of a layer with a sliding window: -inf for a block that lies before it.

    The kernels of other devices give no log-sum-exps that could be used alike, so that a few queries' scores are
    computed again at a time.
    """
    dtype = torch.promote_types(query_JGNW.dtype, torch.float32)
    lse_KJGN = query_JGNW.new_zeros((len(BLOCKS), *query_JGNW.shape[:3]), dtype=dtype)
    n_heads = query_JGNW.shape[0] * query_JGNW.shape[1]
    clips = range(len(where.prefixes))
    parts = [(clip, blocks.tails[clip], None) for clip in clips]
    parts += [
        (clip, own, answer)  # type: ignore[misc]
        for clip, own, answer in zip(blocks.owners, where.branches, blocks.answers, strict=True)
    ]
    for clip, rows, answer in parts:
        prefix, audio = where.prefixes[clip], blocks.audio[clip]
        keys = [slice(prefix.start, audio.start), audio, blocks.tails[clip]]
        if answer is not None:
            keys += [slice(rows.start, answer.start), answer]
        n_keys = sum(block.stop - block.start for block in keys)
        n_at_once = max(1, SCORES_AT_ONCE // (n_heads * n_keys))
        for first in range(rows.start, rows.stop, n_at_once):
            some = slice(first, min(first + n_at_once, rows.stop))
            places = _places(some).to(query_JGNW.device)[:, None]
            of_keys = []
            for block in keys:
                key_GWK = key_GNW[:, block].to(dtype).transpose(1, 2)
                scores = query_JGNW[:, :, some].to(dtype) @ key_GWK * scale
                key_places = _places(block).to(scores.device)
                hidden = key_places > places  # a prefix stands before all branches
                if window is not None:
                    hidden |= ~where.is_near(places, key_places, window)
                of_keys.append(scores.masked_fill(hidden, float("-inf")).logsumexp(-1))
            if len(of_keys) == 5:
                of_keys[2:4] = [torch.logaddexp(of_keys[2], of_keys[3])]
            else:
                of_keys.append(torch.full_like(of_keys[0], float("-inf")))
            lse_KJGN[..., some] = torch.stack(of_keys)
    return lse_KJGN


def _of_regions(
    query_JGNW: Tensor,
    key_GNW: Tensor,
    audio_JGN: Tensor,
    frames: Sequence[slice],
    blocks: _Blocks,
    scale: float,
    is_near: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """Each branch's queries x R: what falls on its regions, means over heads.

    frames[c] is where clip c's frames stand among the keys; audio_JGN, their share of each query's attention, is what
    they divide among themselves. `is_near` says which places of the row lie in a query's sliding window.
    """
    n_shared, n_groups = query_JGNW.shape[:2]
    of_branches = []
    for owner, queries, weights in zip(blocks.owners, blocks.queries, blocks.weights, strict=True):
        key_GWF = key_GNW[:, frames[owner]].float().transpose(1, 2)
        weights_FR = weights.to(key_GWF.device, torch.float32)
        n_at_once = max(1, SCORES_AT_ONCE // (n_shared * n_groups * len(weights_FR)))
        sums = []
        for places in queries.to(key_GWF.device).split(n_at_once):
            query_GSW = query_JGNW[:, :, places].float().transpose(0, 1).flatten(1, 2) * scale
            of_audio_GS1 = audio_JGN[:, :, places].transpose(0, 1).flatten(1, 2)[..., None]
            scores_GSF = query_GSW @ key_GWF
            if is_near is not None:
                hidden_SF = ~is_near(places[:, None], _places(frames[owner]).to(places.device))
                # Finite: where no frame is near, all are hidden alike, and divide a share of 0.
                scores_GSF.masked_fill_(hidden_SF.repeat(n_shared, 1), torch.finfo(scores_GSF.dtype).min)
            share_GSF = scores_GSF.softmax(-1).mul_(of_audio_GS1)
            share_SF = share_GSF.unflatten(1, (n_shared, -1)).mean((0, 1))
            sums.append((share_SF @ weights_FR).cpu())
        of_branches.append(torch.cat(sums))
    return of_branches


AttentionInterface.register(NAME, block_sums)
