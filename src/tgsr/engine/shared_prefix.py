"""Listen once, answer many: a clip's prompt and audio as one prefix, everything asked about it as branches.

Axes: C clips, B branches, T branch tokens (right-padded), F frames, N tokens, D model width, V vocabulary.

A prefix goes through the decoder once, together with its branches; log-probs and gradients equal those of
separate sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from tgsr.engine.branch_attention import NAME, attention_as, layout, row_starts, with_last
from tgsr.engine.lean_layers import lean
from tgsr.errors import ModelError
from tgsr.models.lalm import Lalm, context_of, device_of

Picked = Callable[[Tensor, Tensor], Tensor]  # rows M x D and ids M, to log-probs M


class AudioMissing(AssertionError):
    """A sequence without audio embeddings was about to be trained on or sampled from."""


@dataclass(frozen=True)
class SharedPrefix:
    """C clips as the decoder hears them: each clip's row of embeddings, N_c x D, which all of its branches follow.

    A row holds the text before the audio, the aligned frames (clip c's begin at n_before and are
    n_frames[c]; gradients reach the aligner) and whatever all of the clip's branches begin with. Log-probs,
    sampling, scoring and attention analysis take this one object: branch_logps, sampling.sample,
    attention.block_attention.

    Where the decoder hears by cross-attention (`Lalm.cross_attends`), a clip's aligned frames are its memory,
    F_c x D, and its row holds text alone.
    """

    lalm: Lalm
    rows: tuple[Tensor, ...]
    n_before: int
    n_frames: tuple[int, ...]
    memory: tuple[Tensor, ...] = ()

    def of(self, clips: slice) -> SharedPrefix:
        """Only these clips; nothing is copied."""
        return self.only(range(len(self.rows))[clips])

    def only(self, clips: Sequence[int]) -> SharedPrefix:
        """Only these clips, in this order; nothing is copied."""
        rows = tuple(self.rows[clip] for clip in clips)
        memory = tuple(self.memory[clip] for clip in clips) if self.memory else ()
        return replace(self, rows=rows, n_frames=tuple(self.n_frames[clip] for clip in clips), memory=memory)

    def embed(self, ids: Tensor, owners: Tensor) -> Tensor:
        """Ids as they stand in the rows of their clips, `owners` of the same shape; -1 - f is frame f of the clip."""
        embeds, is_frame = self.lalm.embed(ids.clamp(min=0)), ids < 0
        if not bool(is_frame.any()):
            return embeds
        places = zip(owners[is_frame].tolist(), ids[is_frame].tolist(), strict=True)
        frames = torch.stack([self.rows[owner][self.n_before - 1 - id_] for owner, id_ in places])
        return embeds.index_put((is_frame,), frames.to(embeds.dtype))

    def and_also(self, more: SharedPrefix) -> SharedPrefix:
        """These clips and then those; nothing is copied."""
        return replace(
            self,
            rows=(*self.rows, *more.rows),
            n_frames=(*self.n_frames, *more.n_frames),
            memory=(*self.memory, *more.memory),
        )


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
    through the aligner (F x D). Raises AudioMissing where a clip has no frames, ModelError where a
    frame is not finite.
    """
    device = device_of(lalm)
    head_ND = lalm.embed(torch.tensor(lalm.prompt("").before, device=device))
    rows, memory = [], []
    for index, frames in enumerate(audio):
        if frames.ndim != 2 or len(frames) == 0:
            raise AudioMissing(f"clip {index} of the batch has no audio frames: shape {tuple(frames.shape)}")
        if not torch.isfinite(frames).all():
            raise ModelError(
                f"clip {index} of the batch has audio features that are not finite; look at its sound file"
            )
        embedded = (frames if aligned else lalm.align(frames)).to(head_ND.dtype)
        tail = torch.tensor(list(after[index]) if after else [], dtype=torch.long, device=device)
        if lalm.cross_attends:
            memory.append(embedded)
            rows.append(torch.cat([head_ND, lalm.embed(tail)]))
        else:
            rows.append(torch.cat([head_ND, lalm.in_row(embedded), lalm.embed(tail)]))
    n_frames = tuple(len(frames) for frames in audio)
    return SharedPrefix(lalm, tuple(rows), len(head_ND), n_frames, tuple(memory))


def pad_right(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ragged rows as B x T and the mask of what is real, B x T bool."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = pad_sequence([torch.tensor(list(row), dtype=torch.long) for row in rows], True, value)
    return ids.to(device), (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)


@dataclass(frozen=True, slots=True)
class Branch:
    """Something asked about clip `owner` of a batch: the prompt's tokens after the audio, and the answer's.

    Among them -1 - f stands for frame f of the clip, heard again (engine/relisten.py).
    """

    owner: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def of_clips(branches: Sequence[Branch], clips: slice) -> list[Branch]:
    """The branches of some of a batch's clips, as a batch of these clips alone numbers them."""
    inside = range(clips.start, clips.stop)
    return [replace(b, owner=b.owner - clips.start) for b in branches if b.owner in inside]


def common_start(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens that all prompts of a clip begin with, but for each one's last: `listen`'s `after` for it.

    What the branches no longer hold is computed once for all of them; the numbers are the same.
    """
    n = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0]
    n = next((i for i in range(n) if any(prompt[i] != first[i] for prompt in prompts)), max(n, 0))
    return tuple(first[:n])


def without_start(branches: Sequence[Branch]) -> tuple[tuple[int, ...], list[Branch]]:
    """common_start of one clip's branches, and the branches without it."""
    start = common_start([branch.prompt for branch in branches])
    return start, [replace(branch, prompt=branch.prompt[len(start) :]) for branch in branches]


@dataclass(frozen=True, slots=True)
class SoftTimes:
    """Tokens that name times one tick apart, `n` of them from `first` on: a near one is nearly right.

    The target of such a token is a Gaussian over all of them, `spread` ticks wide (TEMPO, 2026).
    """

    first: int
    n: int
    spread: float

    def of(self, logp_MV: Tensor, ids_M: Tensor) -> Tensor:
        """The log-probs of tokens ids_M, M; of a time the mean under its Gaussian."""
        ticks = torch.arange(self.n, device=ids_M.device)
        target_MK = torch.softmax(-0.5 * ((ticks - (ids_M[:, None] - self.first)) / self.spread) ** 2, -1)
        soft_M = (target_MK * logp_MV[:, self.first : self.first + self.n]).sum(-1)
        is_time_M = (ids_M >= self.first) & (ids_M < self.first + self.n)
        return torch.where(is_time_M, soft_M, logp_MV.gather(-1, ids_M[:, None])[:, 0])


@dataclass(frozen=True)
class BranchLogps:
    """Log-probs of the answers' tokens of B branches, B x T (0 where mask_BT is False: at padding, at frames).

    Where they were asked for: nucleus_BT, the log of the nucleus' mass before each of those tokens, without
    gradient (added to log-probs that were renormalised within the nucleus it undoes that); `hidden_states`,
    the embeddings and each layer's output, N x D for all N tokens of the batch. The frames of clip c begin at
    first_frame[c], branch b's tokens at first_token[b].
    """

    logp_BT: Tensor
    mask_BT: Tensor
    first_frame: tuple[int, ...]
    first_token: tuple[int, ...]
    nucleus_BT: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def check_branches(
    prefix: SharedPrefix, owners: Sequence[int], prompts: Sequence[Sequence[int]], n_new: Sequence[int]
) -> None:
    """ModelError for no branches, an empty text, a branch of no clip, or one longer than the context.

    n_new[b] tokens follow prompts[b]: an answer, or the room that sampling needs.
    """
    if not prompts:
        raise ModelError("a batch without branches: each clip needs at least one question or phrase")
    context = context_of(prefix.lalm)
    for index, (owner, prompt, n) in enumerate(zip(owners, prompts, n_new, strict=True)):
        if not 0 <= owner < len(prefix.rows) or not prompt or not n:
            raise ModelError(
                f"branch {index}: owner {owner} of {len(prefix.rows)} clips, a prompt of {len(prompt)} and "
                f"an answer of {n} tokens; each branch needs a clip and both texts"
            )
        n_prefix = len(prefix.rows[owner])
        if n_prefix + len(prompt) + n > context:
            raise ModelError(
                f"branch {index}: {n_prefix} tokens of prefix (audio and text), {len(prompt)} of prompt and "
                f"{n} of answer are more than {prefix.lalm.name}'s context of {context}; "
                "cut the clip, shorten the text or lower the number of new tokens"
            )


@dataclass(frozen=True)
class Forward:
    """A batch's row after the decoder: its output, and where each prefix and each branch begins in it."""

    out: Any
    prefix_starts: tuple[int, ...]
    branch_starts: tuple[int, ...]

    def predicting(self, branches: Sequence[Branch]) -> list[slice]:
        """Where each branch's answer is predicted: the token before an answer's token predicts it."""
        firsts = [start + len(b.prompt) - 1 for start, b in zip(self.branch_starts, branches, strict=True)]
        return [slice(first, first + len(b.answer)) for first, b in zip(firsts, branches, strict=True)]


def forward(
    prefix: SharedPrefix,
    branches: Sequence[Branch],
    *,
    attention: str = NAME,
    output_hidden_states: bool = False,
    predicting: bool = False,
    **more: Any,
) -> Forward:
    """One forward over one row: the clips' prefixes, then all branches. ModelError as check_branches says.

    `attention` names a function of transformers' attention interface that understands `branches`; it gets
    `more` too. `predicting`: only the outputs at `Forward.predicting` are wanted, and there may be no others.
    """
    lalm, device = prefix.lalm, device_of(prefix.lalm)
    owners = [branch.owner for branch in branches]
    check_branches(prefix, owners, [b.prompt for b in branches], [len(b.answer) for b in branches])
    prefix_lengths = [len(row) for row in prefix.rows]
    # From an answer's last token nothing is predicted.
    texts = [(*branch.prompt, *(branch.answer[:-1] if predicting else branch.answer)) for branch in branches]
    lengths = [len(text) for text in texts]
    starts = row_starts(prefix_lengths, lengths)
    ids_N = torch.tensor([token for text in texts for token in text])
    owners_N = torch.tensor(owners).repeat_interleave(torch.tensor(lengths)).to(device)
    where = layout(prefix_lengths, lengths, owners, device, [len(frames) for frames in prefix.memory])
    n_clips = len(prefix.rows)
    done = Forward(None, tuple(starts[:n_clips]), tuple(starts[n_clips:]))
    if predicting:
        where = with_last(where, done.predicting(branches))
    if prefix.memory:
        more["encoder_hidden_states"] = torch.cat(prefix.memory)[None]
    decoder = lalm.language_model
    with lean(decoder) if attention == NAME else attention_as(decoder, attention):
        out = decoder(
            inputs_embeds=torch.cat([*prefix.rows, prefix.embed(ids_N.to(device), owners_N)])[None],
            position_ids=where.position_N[None],
            use_cache=False,
            output_hidden_states=output_hidden_states,
            branches=where,
            **more,
        )
    return replace(done, out=out)


def branch_logps(
    prefix: SharedPrefix,
    branches: Sequence[Branch],
    *,
    temperature: float = 1.0,
    nucleus_of: float | None = None,
    output_hidden_states: bool = False,
    soft_times: SoftTimes | None = None,
) -> BranchLogps:
    """Log-probs over branches with one forward over one row: the clips' prefixes, then all branches.

    A branch sees its clip's prefix and itself, and its positions continue the prefix's, so that the numbers
    are those of separate sequences; nothing is padded outside attention. Logits are computed where an
    answer's token is predicted and nowhere else. `nucleus_of` is a top_p whose mass is wanted too; with `soft_times`
    the log-prob of a time token is a mean over near ones. Raises ModelError as check_branches does.
    """
    lalm, device = prefix.lalm, device_of(prefix.lalm)
    done = forward(
        prefix, branches, output_hidden_states=output_hidden_states, predicting=not output_hidden_states
    )
    answer_ids, mask_BT = pad_right([branch.answer for branch in branches], lalm.pad_id, device)
    hidden_ND = done.out.last_hidden_state[0]
    if len(hidden_ND) > sum(len(branch.answer) for branch in branches):  # the last layer has computed all
        places = [torch.arange(some.start, some.stop) for some in done.predicting(branches)]
        hidden_ND = hidden_ND[torch.cat(places).to(device)]
    is_token_BT = mask_BT & (answer_ids >= 0)
    hidden_ND, mask_BT = hidden_ND[is_token_BT[mask_BT]], is_token_BT

    def spread(value_N: Tensor) -> Tensor:
        return torch.zeros(mask_BT.shape, device=device).masked_scatter(mask_BT, value_N)

    logp_BT = spread(
        picked_logps(lalm.lm_head, hidden_ND, answer_ids[mask_BT], temperature, soft_times=soft_times)
    )
    nucleus_BT = None
    if nucleus_of is not None:
        nucleus_BT = spread(nucleus_logp(lalm.lm_head, hidden_ND, temperature, nucleus_of))
    hidden_states = tuple(h[0] for h in done.out.hidden_states) if output_hidden_states else None
    first_frame = tuple(start + prefix.n_before for start in done.prefix_starts)
    return BranchLogps(logp_BT, mask_BT, first_frame, done.branch_starts, nucleus_BT, hidden_states)


LOGITS_AT_ONCE = 2**21  # on a CPU, 8 MB in float32: what is done with them stays in its cache
LOGITS_AT_ONCE_GPU = 2**27


class _Picked(torch.autograd.Function):
    """log-probs of tokens with their gradients, both in the forward pass: N x D is kept and no logits are.

    A token's log-prob depends on its own row of hidden_ND alone, so that the backward pass only multiplies the rows.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, ids_N: Tensor, picked: Picked, n_at_once: int) -> Tensor:
        slope_ND, logps = torch.empty_like(hidden_ND), []
        for first in range(0, len(ids_N), n_at_once):
            some = slice(first, first + n_at_once)
            hidden_MD = hidden_ND[some].detach().requires_grad_()
            with torch.enable_grad():
                logp_M = picked(hidden_MD, ids_N[some])
            (slope_ND[some],) = torch.autograd.grad(logp_M, hidden_MD, torch.ones_like(logp_M))
            logps.append(logp_M.detach())
        ctx.save_for_backward(slope_ND)
        return torch.cat(logps)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (slope_ND,) = ctx.saved_tensors
        return (slope_ND * grads[0][:, None]).to(slope_ND.dtype), None, None, None


def picked_logps(
    lm_head: nn.Module,
    hidden_ND: Tensor,
    ids_N: Tensor,
    temperature: float,
    logits_at_once: int | None = None,
    soft_times: SoftTimes | None = None,
) -> Tensor:
    """Log-prob of token ids_N[i] after hidden_ND[i], float32, without keeping all logits.

    N x V logits of a large vocabulary outweigh everything else that an update keeps (1,200 tokens of
    Qwen2.5: 0.7 GB, and as much again for their gradient). They are computed in pieces of logits_at_once; under a
    frozen head each piece's gradient too, else they are computed again in the backward pass: the same numbers.
    """

    def picked(hidden_MD: Tensor, ids_M: Tensor) -> Tensor:
        logits_MV = lm_head(hidden_MD).float()
        if temperature != 1:
            logits_MV = logits_MV / temperature
        logp_MV = torch.log_softmax(logits_MV, -1)
        return soft_times.of(logp_MV, ids_M) if soft_times else logp_MV.gather(-1, ids_M[:, None])[:, 0]

    vocabulary: Any = lm_head.weight
    if logits_at_once is None:
        logits_at_once = LOGITS_AT_ONCE if hidden_ND.device.type == "cpu" else LOGITS_AT_ONCE_GPU
    n_at_once = max(1, logits_at_once // len(vocabulary))
    needs_gradient = torch.is_grad_enabled()
    if (
        needs_gradient
        and not any(weight.requires_grad for weight in lm_head.parameters())
        and hidden_ND.requires_grad
    ):
        logp_N: Tensor = _Picked.apply(hidden_ND, ids_N, picked, n_at_once)
        return logp_N
    pieces = zip(hidden_ND.split(n_at_once), ids_N.split(n_at_once), strict=True)
    if needs_gradient and len(ids_N) > n_at_once:
        return torch.cat([checkpoint(picked, hidden, ids, use_reentrant=False) for hidden, ids in pieces])
    return torch.cat([picked(hidden, ids) for hidden, ids in pieces])


NUCLEUS = 256  # tokens among which a nucleus is looked for first: it is seldom larger, and a vocabulary slow to sort


def nucleus(logits_BV: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest most probable tokens whose mass reaches top_p (1: all): logits and ids, each B x K.

    In the vocabulary's order. K is the same for all rows: a row's logits of tokens that are outside its nucleus are
    -inf.
    """
    if top_p >= 1:
        return logits_BV, torch.arange(logits_BV.shape[1], device=logits_BV.device).expand_as(logits_BV)
    total_B1 = logits_BV.logsumexp(-1, keepdim=True)
    for n in (NUCLEUS, logits_BV.shape[1]):
        logits_BK, ids_BK = logits_BV.topk(min(n, logits_BV.shape[1]))
        probability_BK = (logits_BK - total_B1).exp()
        mass_BK = probability_BK.cumsum(-1)
        if (mass_BK[:, -1] >= top_p).all():
            break
    outside_BK = mass_BK - probability_BK >= top_p
    ids_BK, order_BK = ids_BK.sort(-1)
    return logits_BK.masked_fill(outside_BK, float("-inf")).gather(-1, order_BK), ids_BK


@torch.no_grad()
def nucleus_logp(lm_head: nn.Module, hidden_ND: Tensor, temperature: float, top_p: float) -> Tensor:
    """The log of the nucleus' mass under softmax(logits / temperature) after each hidden_ND, N; at most 0."""
    vocabulary: Any = lm_head.weight
    masses = []
    for hidden_MD in hidden_ND.split(max(1, LOGITS_AT_ONCE // len(vocabulary))):
        logits_MV = lm_head(hidden_MD).float() / temperature
        masses.append(nucleus(logits_MV, top_p)[0].logsumexp(-1) - logits_MV.logsumexp(-1))
    return torch.cat(masses)
