"""Sampling many answers after one listening: a prefix is computed once, its branches go on from it.

Axes: B branches, V vocabulary.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tgsr.engine.branch_attention import attention_as
from tgsr.engine.branch_cache import NAME, BranchCache, KeyValues, prefill
from tgsr.engine.plain_decoder import Captured, PlainDecoder, Step, uncovered
from tgsr.engine.relisten import Again, next_again, row_of
from tgsr.engine.shared_prefix import SharedPrefix, check_branches, nucleus, pad_right
from tgsr.errors import ModelError
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.placement import Quantize

log = logging.getLogger(__name__)

LEAVE_AT = 0.75  # branches that have ended leave the batch once at most this share goes on
PADDED = 2**14  # positions up to which a batch is never split for the sake of its padding
NOT_FINITE = (
    "the model's output is not finite (NaN or infinity): its weights or this clip's features are damaged"
)


@dataclass(frozen=True, slots=True)
class Sampled:
    """One branch's new tokens, the end token included where it came; `cut` where the limit came first.

    `failed` says why a response ended by neither: its logits were not finite, so that no token could be told from them.
    It is then closed by an end token that was not drawn, whose log-prob is NaN.

    `logps` are the tokens' log-probs under softmax(logits / temperature) over the whole vocabulary: the
    distribution that branch_logps computes at the same temperature and that GRPO's loss is about. The
    nucleus (top_p) decides what can be drawn and is left out of them, as it is left out of the loss.
    At temperature 0 they are those of temperature 1.

    `entropies` are that distribution's, in nats, where each token was drawn; () where nothing was drawn (temperature 0)
    and where the sampler does not say (a server, transformers' generate).

    `again` are the frames that were heard again between the tokens, and `row` is both together, as a branch's answer.
    """

    ids: tuple[int, ...]
    cut: bool
    logps: tuple[float, ...]
    failed: str = ""
    entropies: tuple[float, ...] = ()
    again: tuple[Again, ...] = ()

    @property
    def row(self) -> tuple[int, ...]:
        return row_of(self.ids, self.again)


def uniforms(n_branches: int, max_new_tokens: int, seed: int) -> Tensor:
    """A random number in [0, 1) for each token that a branch may get: what `sample` draws by."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_branches, max_new_tokens, dtype=torch.float64, generator=generator)


def uniforms_of(names: Sequence[str], max_new_tokens: int, seed: int) -> Tensor:
    """As `uniforms`, each row by its name and the seed alone: whoever else is asked, and in whatever order."""
    digests = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    rows = [np.random.default_rng(int.from_bytes(digest, "big")).random(max_new_tokens) for digest in digests]
    return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True, slots=True)
class ByModules:
    """A decoder by its own modules, whose attention is asked for what stands in a cache of branches."""

    lalm: Lalm
    is_capturable: ClassVar[bool] = False
    reads_prompts: ClassVar[bool] = True

    def prefill(self, prefix: SharedPrefix) -> KeyValues:
        """As PlainDecoder.prefill."""
        return prefill(prefix)

    def logits(self, cache: BranchCache, embeds: Tensor, position_BN: Tensor) -> Tensor:
        """As PlainDecoder.logits."""
        decoder = self.lalm.language_model
        # A layer attends to a memory only where it is given one; whose keys it attends to, the cache says.
        more = {} if cache.prefix.memory is None else {"encoder_hidden_states": embeds[:, :1]}
        with attention_as(decoder, NAME):
            out = decoder(
                inputs_embeds=embeds, position_ids=position_BN, use_cache=False, branch_cache=cache, **more
            )
        return self.lalm.lm_head(out.last_hidden_state[:, -1]).float()

    def steps(self, cache: BranchCache, first: int, n: int) -> Step:
        """As PlainDecoder.steps."""
        return lambda embeds_BD, position_B: self.logits(cache, embeds_BD[:, None], position_B[:, None])


Decoder = PlainDecoder | ByModules


def reader_of(decoder: Decoder, lalm: Lalm) -> Decoder:
    """What prefixes and prompts go through before `decoder` draws."""
    return decoder if decoder.reads_prompts else ByModules(lalm)


def decoder_of(lalm: Lalm, quantize: Quantize | None = None) -> Decoder:
    """What decodes token by token, with the weights and the LoRA of now: plain, where the decoder is known.

    Else its own modules, which is said; ModelError then for int8.
    """
    if (why := uncovered(lalm)) and quantize is not None:
        raise ModelError(f"{lalm.name}: {why}")
    if why:
        log.warning("%s: sampled by its own modules, which is slower: %s", lalm.name, why)
    return ByModules(lalm) if why else PlainDecoder.read(lalm, quantize)


@torch.no_grad()
def sample(
    prefix: SharedPrefix,
    owners: Sequence[int],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    uniform_BN: Tensor | None = None,
    at_once: int | None = None,
    decoder: Decoder | None = None,
    relisten_frames: int = 0,
) -> list[Sampled]:
    """One continuation a branch: prompts[b] after the prefix of clip owners[b].

    temperature 0 is greedy decoding; above it uniform_BN holds the random numbers, B x max_new_tokens.
    Branches that have ended leave the batch, a quarter of it or more at a time. At most `at_once` branches
    decode together (None: all), for memory's sake: every branch has random numbers of its own, so that no
    draw depends on who else is in the batch. Nor do branches of very different lengths: they are padded to the longest.
    `decoder` is the model's own, read with its weights of now, for a caller that samples by the same ones again, or by
    rounded ones; else it is read here. One that cannot be read (`uncovered`) samples by its own modules, which is said.
    `relisten_frames`: above 0, each span that a response cites is heard again before it goes on, at most so many frames
    in all (engine/relisten.py).
    ModelError for no branches, an empty prompt, or a branch that
    the context has no room for; ValueError for at_once below 1 and for missing random numbers.
    """
    check_branches(prefix, owners, prompts, [max_new_tokens + relisten_frames] * len(prompts))
    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once must be 1 or more, or None for all branches, got {at_once}")
    n = len(prompts)
    if uniform_BN is None:
        if temperature:
            raise ValueError(f"temperature {temperature} needs uniform_BN; see `uniforms`")
        uniform_BN = torch.zeros(n, max_new_tokens)
    if uniform_BN.shape != (n, max_new_tokens):
        raise ValueError(f"uniform_BN must be {n} x {max_new_tokens}, got {tuple(uniform_BN.shape)}")
    at_once = at_once or n
    decoder = decoder or decoder_of(prefix.lalm)
    sampled: dict[int, Sampled] = {}
    lengths = [len(prefix.rows[owner]) + len(prompt) for owner, prompt in zip(owners, prompts, strict=True)]
    for group in of_like_lengths(lengths):
        heard = sorted({owners[b] for b in group})
        keys_and_values = reader_of(decoder, prefix.lalm).prefill(prefix.only(heard))
        for first in range(0, len(group), at_once):
            some = group[first : first + at_once]
            clips = sorted({heard.index(owners[b]) for b in some})
            answers = _sample_together(
                decoder,
                prefix.only([heard[clip] for clip in clips]),
                keys_and_values.of(clips),
                [clips.index(heard.index(owners[b])) for b in some],
                [prompts[b] for b in some],
                uniform_BN[some],
                temperature=temperature,
                top_p=top_p,
                relisten_frames=relisten_frames,
            )
            sampled |= zip(some, answers, strict=True)
    return [sampled[b] for b in range(n)]


def pad_left(rows: Sequence[Sequence[int]], value: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ragged rows as B x T that end together, and the mask of what is real, B x T bool."""
    ids_BT, is_real_BT = pad_right([row[::-1] for row in rows], value, device)
    return ids_BT.flip(1), is_real_BT.flip(1)


def of_like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Places of rows that are padded together, in groups: a very long one does not make all others as long.

    A group is at most half padding, unless it is small.
    """
    groups: list[list[int]] = [[]]
    real = 0  # positions of the last group's rows, without their padding
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        real += lengths[place]
        if groups[-1] and (len(groups[-1]) + 1) * lengths[place] > max(PADDED, 2 * real):
            groups.append([])
            real = lengths[place]
        groups[-1].append(place)
    return [sorted(group) for group in groups]


def _sample_together(
    decoder: Decoder,
    prefix: SharedPrefix,
    kept: KeyValues,
    owners: Sequence[int],
    prompts: Sequence[Sequence[int]],
    uniform_BN: Tensor,
    *,
    temperature: float,
    top_p: float,
    relisten_frames: int,
) -> list[Sampled]:
    """`sample` for one batch, whose clips' keys are `kept`.

    A branch that has cited takes its frames in while others draw; together, where all that go on wait for theirs.
    """
    lalm, device = prefix.lalm, device_of(prefix.lalm)
    max_new_tokens = uniform_BN.shape[1]
    most = max_new_tokens + relisten_frames
    owners_B = torch.tensor(list(owners), device=device)
    ids_BT, visible_BT = pad_left(prompts, lalm.pad_id, device)
    n_prompt = ids_BT.shape[1]
    is_captured = device.type == "cuda" and decoder.is_capturable
    cache = BranchCache(kept, owners_B, n_prompt + most, fixed=is_captured)
    length_B, n_prompt_B = kept.lengths_C[owners_B], visible_BT.sum(1)
    start_B = length_B + n_prompt_B - n_prompt  # of the row, its padding included

    # The prompts, all their tokens at once; then token by token.
    cache.extend(visible_BT)
    logits_BV = reader_of(decoder, lalm).logits(
        cache,
        prefix.embed(ids_BT, owners_B[:, None].expand_as(ids_BT)),
        (start_B[:, None] + torch.arange(n_prompt, device=device)).clamp(min=0),
    )
    position_B = length_B + n_prompt_B
    first = int(position_B.min())
    step = decoder.steps(cache, first, int(position_B.max()) + most - first)
    captured: Captured | None = None
    uniform_BN = uniform_BN.to(device)
    new: list[list[int]] = [[] for _ in prompts]
    logps: list[list[float]] = [[] for _ in prompts]
    entropies: list[list[float]] = [[] for _ in prompts]
    failed = [""] * len(prompts)
    again: list[list[Again]] = [[] for _ in prompts]
    fed: list[list[int]] = [[] for _ in prompts]  # what a branch still takes in before its next draw
    done = [False] * len(prompts)
    alive = list(range(len(prompts)))
    alive_B = torch.arange(len(prompts), device=device)
    while True:
        place_B = torch.tensor([min(len(new[b]), max_new_tokens - 1) for b in alive], device=device)
        next_B, logp_B = draw(logits_BV, temperature, top_p, uniform_BN[alive_B, place_B])
        entropy_B = entropy(logits_BV, temperature).tolist() if temperature else [None] * len(alive)
        for b, token, logp, spread in zip(alive, next_B.tolist(), logp_B.tolist(), entropy_B, strict=True):
            if fed[b] or done[b]:
                continue
            if not math.isfinite(logp):
                failed[b], token = NOT_FINITE, lalm.eos_id
            new[b].append(token)
            logps[b].append(logp)
            entropies[b] += [] if spread is None else [spread]
            fed[b] = [token]
            done[b] = _ended(lalm, new[b]) or len(new[b]) == max_new_tokens
            if relisten_frames and not done[b]:
                n_frames = prefix.n_frames[owners[b]]
                if heard := next_again(lalm, new[b], again[b], n_frames, relisten_frames):
                    again[b].append(heard)
                    fed[b] += heard.ids
        keep = [row for row, b in enumerate(alive) if not done[b]]
        if not keep:
            break
        if len(keep) <= LEAVE_AT * len(alive):
            rows = torch.tensor(keep, device=device)
            cache.select(rows)
            position_B, alive_B = position_B[rows], alive_B[rows]
            alive = [alive[row] for row in keep]
            captured = None
        n_fed = min(len(fed[b]) for b in alive if not done[b])
        ids_BN = torch.tensor(
            [[lalm.eos_id] * n_fed if done[b] else fed[b][:n_fed] for b in alive], device=device
        )
        fed = [ids[n_fed:] for ids in fed]
        embeds_BND = prefix.embed(ids_BN, cache.owners_B[:, None].expand_as(ids_BN))
        if n_fed > 1:
            captured = None
            cache.extend(torch.ones_like(ids_BN, dtype=torch.bool))
            logits_BV = decoder.logits(
                cache, embeds_BND, position_B[:, None] + torch.arange(n_fed, device=device)
            )
        else:
            cache.extend()
            if is_captured and captured is None:
                captured = Captured(step, embeds_BND[:, 0], position_B)
            logits_BV = (captured or step)(embeds_BND[:, 0], position_B)
        position_B = position_B + n_fed
    return [
        Sampled(tuple(ids), not _ended(lalm, ids), tuple(of_ids), reason, tuple(spread), tuple(heard_again))
        for ids, of_ids, reason, spread, heard_again in zip(new, logps, failed, entropies, again, strict=True)
    ]


def _ended(lalm: Lalm, ids: list[int]) -> bool:
    return bool(ids) and lalm.ends(ids[-1])


def entropy(logits_BV: Tensor, temperature: float) -> Tensor:
    """The entropy of softmax(logits / temperature) over the whole vocabulary, B, in nats; a logit of -inf adds 0."""
    return torch.special.entr((logits_BV / temperature).softmax(-1)).sum(-1)


def draw(logits_BV: Tensor, temperature: float, top_p: float, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of each branch and its log-prob; uniform_B in [0, 1) picks it from the cumulated nucleus.

    The log-prob is finite where the branch's logits are, and else NaN: the token then means nothing.
    """
    scaled_BV = logits_BV / (temperature or 1.0)
    if temperature == 0:
        next_B = scaled_BV.argmax(-1)
    else:
        logits_BK, ids_BK = nucleus(scaled_BV, top_p)
        cumulated_BK = logits_BK.softmax(-1).double().cumsum(-1)
        drawn_B1 = (uniform_B * cumulated_BK[:, -1])[:, None]
        place_B1 = torch.searchsorted(cumulated_BK, drawn_B1, right=True).clamp(max=ids_BK.shape[1] - 1)
        next_B = ids_BK.gather(-1, place_B1)[:, 0]
    logp_B = scaled_BV.gather(-1, next_B[:, None])[:, 0] - scaled_BV.logsumexp(-1)
    return next_B, logp_B
