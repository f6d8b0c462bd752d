"""The model under test, one prompt's work, and the ways to do it: with the prefix shared, and as others do it.

"shared" is this package. "usual" is what a correct trainer does with transformers alone: one padded batch of
whole sequences through the official forward, so that the frozen encoder and the prompt are computed for every
sequence; logits only where answers are predicted. "separate" is this package with a copy of the prefix for
every branch and the encoder's output kept: what sharing alone is worth.

Careful others keep the encoder's output too. "careful" shares nothing more: whole sequences, but no mask, torch's
causal kernel, logits where answers are predicted. "kv cache" shares the prefix's keys and values, with gradients,
under a padded batch of branches. "prefix grouper" is the package of that name, where it is installed
(pip install --no-deps prefix-grouper==0.0.1.post1).

Axes: B branches, T answer tokens (right-padded), N tokens of a padded row, P prefix tokens, W audio windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    DynamicCache,
    PreTrainedTokenizerFast,
    Qwen2Config,
    WhisperFeatureExtractor,
)

from tgsr.audio import SAMPLE_RATE
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.questions.build import ask_about
from tgsr.engine.branch_attention import attention_as
from tgsr.engine.shared_prefix import Branch, branch_logps, listen, pad_right, without_start
from tgsr.grpo import grpo_loss
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.audio_flamingo3 import AUDIO_TOKEN, AudioFlamingo3
from tgsr.models.lalm import device_of
from tgsr.models.mini import assets
from tgsr.models.whisper_encoder import spectrogram
from tgsr.prompts import choice_question
from tgsr.sta import phrase_branch
from tgsr.training.cost import ClipTokens, DecoderShape

DECODER_LAYERS, ENCODER_LAYERS, VOCABULARY = 30, 6, 49_152  # SmolLM2-135M, Whisper base, SmolLM2-135M
HEADS, HEAD_WIDTH, HEADS_A_KEY = 9, 64, 3  # SmolLM2-135M
TEMPERATURE, TOP_P = 0.7, 0.9  # table 6


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: the model's depth, the clip, the group and its texts.

    With fewer than 30 decoder layers the encoder's depth and the vocabulary shrink in proportion, so that
    encoder, decoder and head keep the shares of the work that they have in the whole model; exactly so at
    multiples of 5, below which one encoder layer is more than its share.
    """

    layers: int = 5
    seconds: float = 30.0
    group: int = 8
    text: int = 120  # tokens of the prompt that are not audio
    answer: int = 150  # mean tokens of an answer; they range from 2/3 to 4/3 of it
    heads: int = HEADS  # of the decoder, each 64 wide, three to a key
    window: int = 30  # seconds that the encoder hears at once; the usual way pads the clip to whole ones

    @property
    def encoder_layers(self) -> int:
        return max(1, round(ENCODER_LAYERS * self.layers / DECODER_LAYERS))

    @property
    def vocabulary(self) -> int:
        return max(1280, round(VOCABULARY * self.layers / DECODER_LAYERS / 64) * 64)

    @property
    def shape(self) -> DecoderShape:
        width = self.heads * HEAD_WIDTH
        return DecoderShape(self.layers, width, width, width // HEADS_A_KEY, width * 8 // 3, self.vocabulary)


def model_under_test(setting: Setting, trains: str) -> AudioFlamingo3:
    """Audio Flamingo 3's class with Whisper base's encoder and SmolLM2-135M's decoder in shape; random weights.

    `trains` is "lora" (rank 16 on the decoder, not zero) or "aligner" (the decoder frozen).
    """
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(assets()))
    config = AudioFlamingo3Config(
        audio_config=AudioFlamingo3EncoderConfig(
            num_mel_bins=80,
            hidden_size=512,
            num_hidden_layers=setting.encoder_layers,
            num_attention_heads=8,
            intermediate_size=2048,
            max_source_positions=50 * setting.window,
        ),
        text_config=Qwen2Config(
            vocab_size=setting.vocabulary,
            hidden_size=setting.shape.width,
            intermediate_size=setting.shape.feed_forward,
            num_hidden_layers=setting.layers,
            num_attention_heads=setting.heads,
            num_key_value_heads=setting.heads // HEADS_A_KEY,
            max_position_embeddings=32_768,
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        audio_token_id=int(tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)),
    )
    model = AudioFlamingo3ForConditionalGeneration(config)
    with torch.no_grad():
        model.lm_head.weight *= 8  # logits that spread as a trained model's do: a nucleus is a few tokens
    model.eval()
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=setting.window)
    lalm = AudioFlamingo3("under test", model, tokenizer, extractor, max_seconds=600.0)
    make_trainable(lalm, trains)
    return lalm


def make_trainable(lalm: AudioFlamingo3, trains: str) -> None:
    """The part that trains, as `model_under_test` names it, in float32; all else is frozen."""
    if trains == "aligner":
        lalm.inner.requires_grad_(False)
        lalm.aligner.float().requires_grad_(True)
        return
    with_lora(lalm, rank=16, alpha=32, seed=0)
    with torch.no_grad():
        for name, weight in lalm.model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.01)


def audio_of(seconds: float, seed: int = 0) -> np.ndarray:
    """Spoken digits over and over, `seconds` of them."""
    return np.resize(compose(seed, "train", seconds=(25.0, 28.0)).samples, round(seconds * SAMPLE_RATE))


@dataclass(frozen=True)
class Case:
    """One prompt and the answers to it: what all sides compute.

    `after` follows the audio and is shared by all branches; `features` is the encoder's output, kept, and
    mels_WMF with mel_mask_WF the official extractor's output, made beforehand too.
    """

    lalm: AudioFlamingo3
    samples: np.ndarray
    after: tuple[int, ...]
    branches: tuple[Branch, ...]
    temperature: float

    @cached_property
    def features(self) -> Tensor:
        return self.lalm.encode_audio(self.samples)

    @cached_property
    def mels(self) -> tuple[Tensor, Tensor]:
        """mels_WMF and mel_mask_WF, where the encoder is: a window for each of the clip's, as long as a whole one."""
        window = self.lalm.feature_extractor.chunk_length * SAMPLE_RATE
        pieces = [self.samples[first : first + window] for first in range(0, len(self.samples), window)]
        batch = spectrogram(self.lalm.feature_extractor, pieces, return_attention_mask=True)
        weight = self.lalm.inner.model.audio_tower.conv1.weight
        mels_WMF = batch["input_features"].to(weight.device, weight.dtype)
        return mels_WMF, batch["attention_mask"].to(weight.device)

    @cached_property
    def prompt(self) -> tuple[int, ...]:
        """The prompt up to where its branches part, with the official placeholders for the audio."""
        placeholders = [self.lalm.inner.config.audio_token_id] * len(self.features)
        return (*self.lalm.prompt("").before, *placeholders, *self.after)

    @property
    def of_cost(self) -> ClipTokens:
        """The same work as training/cost.py counts it."""
        lengths = tuple(len(b.prompt) + len(b.answer) for b in self.branches)
        return ClipTokens(len(self.prompt), lengths, tuple(len(b.answer) for b in self.branches))

    def prepare(self) -> Case:
        """Computes what no side's time counts: features and spectrograms."""
        _ = self.features, self.mels, self.prompt
        return self


def grpo_case(lalm: AudioFlamingo3, setting: Setting) -> Case:
    """A question about a clip and a group of ragged answers; the question belongs to the prefix.

    Only the prompt's last token begins a branch, as in rl.py.
    """
    asked = lalm.prompt(choice_question("Which digit is said right after seven?", ["one", "two"])).after
    n = setting.text - len(lalm.prompt("").before)
    after = (asked * (n // len(asked) + 1))[-n:]
    rng = np.random.default_rng(0)
    lengths = np.linspace(setting.answer * 2 / 3, setting.answer * 4 / 3, setting.group)
    if setting.group == 1:
        lengths = np.array([float(setting.answer)])
    branches = [
        Branch(0, after[-1:], tuple(rng.integers(10, 1000, round(length)).tolist()))
        for length in rng.permutation(lengths)
    ]
    return Case(lalm, audio_of(setting.seconds), after[:-1], tuple(branches), TEMPERATURE).prepare()


def phrases_case(lalm: AudioFlamingo3, setting: Setting, seed: int = 0) -> Case:
    """Stage 1: phrases of one clip, each with its prompt and its span as the answer.

    What the prompts begin with is in the prefix, as in training/supervised.py.
    """
    clip = compose(seed, "train", seconds=(25.0, 28.0)).clip
    asked = ask_about([clip], "sta", setting.group, 0)
    after, rest = without_start([phrase_branch(lalm, question) for question in asked])
    return Case(lalm, audio_of(setting.seconds, seed), after, tuple(rest), 1.0).prepare()


def shared_logps(case: Case) -> tuple[Tensor, Tensor]:
    """Log-probs of the answers and which are real, B x T each: this package."""
    prefix = listen(case.lalm, [case.features], after=[case.after])
    out = branch_logps(prefix, case.branches, temperature=case.temperature)
    return out.logp_BT, out.mask_BT


def separate_logps(case: Case) -> tuple[Tensor, Tensor]:
    """The same by this package with a prefix for every branch."""
    n = len(case.branches)
    prefix = listen(case.lalm, [case.features] * n, after=[case.after] * n)
    branches = [replace(branch, owner=index) for index, branch in enumerate(case.branches)]
    out = branch_logps(prefix, branches, temperature=case.temperature)
    return out.logp_BT, out.mask_BT


def usual_logps(case: Case) -> tuple[Tensor, Tensor]:
    """The same by transformers' own forward: prompts padded on the left, answers on the right, as TRL does.

    The log-softmax is taken row by row and only of the tokens that were drawn, which needs less memory.
    """
    lalm, n = case.lalm, len(case.branches)
    device = device_of(lalm)
    flipped, real_BP = pad_right(
        [(*case.prompt, *b.prompt)[::-1] for b in case.branches], lalm.pad_id, device
    )
    answers_BT, mask_BT = pad_right([b.answer for b in case.branches], lalm.pad_id, device)
    mels_WMF, mel_mask_WF = case.mels
    out = lalm.model(
        input_ids=torch.cat([flipped.flip(1), answers_BT], 1),
        attention_mask=torch.cat([real_BP.flip(1), mask_BT], 1).long(),
        input_features=mels_WMF.repeat(n, 1, 1),
        input_features_mask=mel_mask_WF.repeat(n, 1),
        logits_to_keep=answers_BT.shape[1] + 1,
        use_cache=False,
    )
    logits_BTV = out.logits[:, :-1] / case.temperature
    picked_BT = logits_BTV.gather(-1, answers_BT[..., None])[..., 0]
    logp_BT = picked_BT - torch.stack([row.logsumexp(-1) for row in logits_BTV])
    return logp_BT.masked_fill(~mask_BT, 0.0), mask_BT


def kv_cache_logps(case: Case) -> tuple[Tensor, Tensor]:
    """The same with the prefix's keys and values, gradients and all, under a right-padded batch of branches."""
    lalm, n = case.lalm, len(case.branches)
    (row_PD,) = listen(lalm, [case.features], after=[case.after]).rows
    kept: Any = DynamicCache()
    lalm.language_model(inputs_embeds=row_PD[None], past_key_values=kept, use_cache=True)
    for layer in kept.layers:
        layer.keys, layer.values = (x.expand(n, -1, -1, -1) for x in (layer.keys, layer.values))
    ids_BN, real_BN = pad_right([(*b.prompt, *b.answer) for b in case.branches], lalm.pad_id, row_PD.device)
    hidden_BND = lalm.language_model(
        inputs_embeds=lalm.embed(ids_BN),
        attention_mask=torch.cat([real_BN.new_ones(n, len(row_PD)), real_BN], 1).long(),
        position_ids=(len(row_PD) + torch.arange(ids_BN.shape[1], device=row_PD.device)).expand(n, -1),
        past_key_values=kept,
        use_cache=True,
    ).last_hidden_state
    places = [predicting(b, 0) for b in case.branches]
    return picked_of(case, [hidden_ND[at] for hidden_ND, at in zip(hidden_BND, places, strict=True)])


def picked_of(case: Case, hidden: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probs as transformers' trainers take them, of each branch's tokens after its outputs, n x D."""
    answers_BT, mask_BT = pad_right([b.answer for b in case.branches], case.lalm.pad_id, hidden[0].device)
    logits_NV = case.lalm.inner.lm_head(torch.cat(list(hidden))) / case.temperature
    picked_N = torch.log_softmax(logits_NV, -1).gather(-1, answers_BT[mask_BT][:, None])[:, 0]
    return picked_N.new_zeros(answers_BT.shape).masked_scatter(mask_BT, picked_N), mask_BT


def predicting(branch: Branch, first: int) -> slice:
    """The places from which the answer of a branch is predicted that begins at `first`."""
    return slice(first + len(branch.prompt) - 1, first + len(branch.prompt) - 1 + len(branch.answer))


def careful_logps(case: Case) -> tuple[Tensor, Tensor]:
    """Without sharing, but with care: the encoder's output kept, no padding on the left, the causal kernel, no mask."""
    lalm = case.lalm
    (row_PD,) = listen(lalm, [case.features], after=[case.after]).rows
    ids_BN, _ = pad_right([(*b.prompt, *b.answer) for b in case.branches], lalm.pad_id, row_PD.device)
    rows_BND = torch.cat([row_PD.expand(len(ids_BN), -1, -1), lalm.embed(ids_BN)], 1)
    hidden_BND = lalm.language_model(inputs_embeds=rows_BND, use_cache=False).last_hidden_state
    places = [predicting(b, len(row_PD)) for b in case.branches]
    return picked_of(case, [hidden_ND[at] for hidden_ND, at in zip(hidden_BND, places, strict=True)])


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    prefix_grouper: Any,
    scaling: float,
    **more: Any,
) -> tuple[Tensor, None]:
    """Prefix Grouper's attention by torch's own kernel: it splits, pads and joins; who sees whom is said here."""

    def attend(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        n, m = q.shape[2], k.shape[2]
        seen: dict[str, Any] = {"is_causal": True}
        if n != m or not bool(real.all()):  # the suffixes: all of the prefix, and themselves up to each token
            seen = {"attn_mask": torch.arange(m) <= m - n + torch.arange(n)[:, None]}
        out = nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling, enable_gqa=True, **seen)
        return out.transpose(1, 2)

    return prefix_grouper.forward(attend, query, key, value), None


AttentionInterface.register("prefix_grouper", grouped_attention)


def prefix_grouper_logps(case: Case) -> tuple[Tensor, Tensor]:
    """By Prefix Grouper (PyPI prefix-grouper 0.0.1.post1), the encoder's output kept."""
    from prefix_grouper import PrefixGrouper

    lalm = case.lalm
    (row_PD,) = listen(lalm, [case.features], after=[case.after]).rows
    texts = [(*b.prompt, *b.answer) for b in case.branches]
    lengths = [len(text) for text in texts]
    ids_N = torch.tensor([token for text in texts for token in text])
    positions = [torch.arange(len(row_PD)), *(len(row_PD) + torch.arange(n) for n in lengths)]
    with attention_as(lalm.language_model, "prefix_grouper"):
        hidden_ND = lalm.language_model(
            inputs_embeds=torch.cat([row_PD, lalm.embed(ids_N)])[None],
            position_ids=torch.cat(positions)[None],
            use_cache=False,
            prefix_grouper=PrefixGrouper([[len(row_PD), *lengths]], padding_mode="right"),
        ).last_hidden_state[0]
    firsts = accumulate(lengths[:-1], initial=len(row_PD))
    return picked_of(
        case, [hidden_ND[predicting(b, first)] for b, first in zip(case.branches, firsts, strict=True)]
    )


Side = Callable[[Case], tuple[Tensor, Tensor]]
SIDES: dict[str, Side] = {
    "shared": shared_logps,
    "usual": usual_logps,
    "separate": separate_logps,
    "kv cache": kv_cache_logps,
    "careful": careful_logps,
    **({"prefix grouper": prefix_grouper_logps} if find_spec("prefix_grouper") else {}),
}
BEST_OTHERS = tuple(side for side in ("prefix grouper", "kv cache", "careful") if side in SIDES)


def loss_of(case: Case, logp_BT: Tensor, mask_BT: Tensor, reference_BT: Tensor | None = None) -> Tensor:
    """GRPO's loss with advantages from a seed, or stage 1's mean over the answers' tokens."""
    if case.temperature == 1.0:
        return -logp_BT.sum() / mask_BT.sum()
    advantages_B = torch.randn(len(logp_BT), generator=torch.Generator().manual_seed(0)).to(logp_BT.device)
    old_BT = logp_BT.detach()
    return grpo_loss(logp_BT, old_BT, old_BT if reference_BT is None else reference_BT, mask_BT, advantages_B)


def update(case: Case, side: str) -> None:
    """Forward and backward; the gradients of the update before are dropped first."""
    case.lalm.model.zero_grad()
    logp_BT, mask_BT = SIDES[side](case)
    loss_of(case, logp_BT, mask_BT).backward()


def check_same(
    case: Case, sides: Sequence[str], tolerance: float = 1e-4, of_gradient: float = 1e-3
) -> dict[str, float]:
    """Largest difference to "shared" in log-probs, nats; RuntimeError where it, or a gradient's, is too large.

    `of_gradient` is the gradients' tolerance, of their largest number.
    """
    differences = {}
    expected: tuple[Tensor, dict[str, Tensor]] | None = None
    for side in ["shared", *sides]:
        case.lalm.model.zero_grad()
        logp_BT, mask_BT = SIDES[side](case)
        loss_of(case, logp_BT, mask_BT).backward()
        named: Any = case.lalm.model.named_parameters()
        gradients = {name: weight.grad.clone() for name, weight in named if weight.grad is not None}
        if expected is None:
            expected = logp_BT.detach(), gradients
            continue
        differences[side] = float((logp_BT.detach() - expected[0]).abs().max())
        largest = max(float(g.abs().max()) for g in expected[1].values())
        of_gradients = max(float((gradients[name] - g).abs().max()) for name, g in expected[1].items())
        if differences[side] > tolerance or of_gradients > of_gradient * largest:
            raise RuntimeError(
                f"{side} and shared differ: log-probs by {differences[side]:.1e}, gradients by "
                f"{of_gradients:.1e} of {largest:.1e}; timing them would compare different work"
            )
    return differences
