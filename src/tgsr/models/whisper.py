"""Whisper as a large audio-language model: audio that enters by cross-attention, Whisper's own decoder as the LM.

The question stands where Whisper reads the text before a clip, and the answer where it writes the transcript:
<|startofprev|> question <|startoftranscript|><|en|><|transcribe|><|notimestamps|> answer. The encoder's frames, through
a residual two-layer aligner, are what every layer of the decoder looks into; its own row holds text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AddedToken,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.models.lalm import Lalm, PromptParts, weights_hash
from tgsr.models.whisper_checkpoint import whisper_for_transformers
from tgsr.prompts import phrase_answer_qwen, phrase_question_qwen
from tgsr.timeline import Seconds, Span

MAX_SECONDS = 30.0
TICK: Seconds = 0.02  # of Whisper's time tokens, and of its encoder's frames
N_TICKS = round(MAX_SECONDS / TICK) + 1


class ResidualAligner(nn.Module):
    """x + two linear layers, F x D -> F x D: the identity until it is trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, width)
        self.linear_2 = nn.Linear(width, width)
        nn.init.zeros_(self.linear_2.weight)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, frames_FD: Tensor) -> Tensor:
        return frames_FD + self.linear_2(nn.functional.gelu(self.linear_1(frames_FD)))


@dataclass
class Whisper(Lalm):
    """One loaded model of the family, with an aligner of ours between its encoder and its decoder.

    Only the frames that hold audio go through the encoder, without the padding to 30 s that Whisper was trained with:
    a clip's frames cost what the clip lasts.
    """

    cross_attends = True
    hub_decoder = "model.decoder."
    seconds_per_frame = TICK
    lora_targets = r".*model\.decoder\.layers\.\d+\.((self|encoder)_attn\.(q|k|v|out)_proj|fc[12])"

    max_seconds: float = MAX_SECONDS

    @property
    def aligner(self) -> Any:
        return self.inner.model.aligner

    @property
    def language_model(self) -> Any:
        return self.inner.model.decoder

    @property
    def lm_head(self) -> nn.Module:
        return self.inner.proj_out

    @cached_property
    def encoder_key(self) -> str:
        """A hash of the encoder's weights."""
        return weights_hash("whisper", self.inner.model.encoder.state_dict().items())

    @property
    def first_tick(self) -> int:
        """The time token of 0 s; that of n * TICK seconds is n further."""
        return self._id(tick_name(0))

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        self.refuse_long(samples)
        encoder = self.inner.model.encoder
        batch = self.feature_extractor(
            samples, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt"
        )
        n_frames = (int(batch["attention_mask"].sum()) - 1) // 2 + 1
        if n_frames < 1:
            raise ModelError(
                f"{self.name} needs 0.01 s of audio or more, got {len(samples) / SAMPLE_RATE:.3f} s"
            )
        # Four more than there are, so that the convolutions see at the end what they see in a whole window.
        mels = batch["input_features"][..., : 2 * n_frames + 4].to(
            encoder.conv1.weight.device, encoder.conv1.weight.dtype
        )
        hidden = nn.functional.gelu(encoder.conv2(nn.functional.gelu(encoder.conv1(mels)))).permute(0, 2, 1)
        hidden = hidden[:, :n_frames] + encoder.embed_positions.weight[:n_frames]
        for layer in encoder.layers:
            hidden = layer(hidden, None)
        return encoder.layer_norm(hidden)[0].float().cpu()

    def prompt(self, text: str) -> PromptParts:
        """Where Whisper reads what was said before the clip: the question, names of special tokens spelled out."""
        names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
        closing = [self._id(name) for name in (names if self.times == "words" else names[:-1])]
        return PromptParts((self._id("<|startofprev|>"),), (*self.plain_tokens(f" {text}"), *closing))

    def _id(self, name: str) -> int:
        token: Any = self.tokenizer.convert_tokens_to_ids(name)
        return int(token)

    def phrase_question(self, phrase: str) -> str:
        """Qwen2.5-Omni's words (B.1.1), the shorter ones."""
        return phrase_question_qwen(phrase)

    def phrase_answer(self, phrase: str, span: Span) -> str:
        """B.1.1's answer, or two time tokens; ValueError as `phrase_answer_qwen` raises it."""
        answer = phrase_answer_qwen(phrase, span)
        if self.times == "words":
            return answer
        start = min(round(span.start / TICK), N_TICKS - 2)
        return tick_name(start) + tick_name(min(max(round(span.end / TICK), start + 1), N_TICKS - 1))


def tick_name(n: int) -> str:
    """The name of the time token of n * TICK seconds, as Whisper's tokenizers write it."""
    return f"<|{n * TICK:.2f}|>"


def with_time_tokens(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, with Whisper's time tokens after its own: they are written, and read, as text is."""
    tokenizer.add_tokens([AddedToken(tick_name(n), special=False, normalized=False) for n in range(N_TICKS)])
    return tokenizer


def load_whisper(name: str = "whisper-base") -> Whisper:
    """The packaged Whisper base, frozen, with an aligner that changes nothing yet. FetchError as `tgsr fetch`."""
    folder = str(whisper_for_transformers())
    model = WhisperForConditionalGeneration.from_pretrained(folder).float().eval()
    model.requires_grad_(False)
    model.model.aligner = ResidualAligner(model.config.d_model).requires_grad_(False)
    end = "<|endoftext|>"  # not as a WhisperTokenizer, whose texts leave time tokens out
    tokenizer = with_time_tokens(
        PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", eos_token=end, pad_token=end)
    )
    if len(tokenizer) != model.config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} pieces, the model {model.config.vocab_size}"
        )
    return Whisper(name, model, tokenizer, WhisperFeatureExtractor.from_pretrained(folder))
