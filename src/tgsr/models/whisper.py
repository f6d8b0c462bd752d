"""Whisper as a large audio-language model: audio that enters by cross-attention, Whisper's own decoder as the LM.

The question stands where Whisper reads the text before a clip, and the answer where it writes the transcript:
<|startofprev|> question <|startoftranscript|><|en|><|transcribe|><|notimestamps|> answer. The encoder's frames, through
a residual two-layer aligner, are what every layer of the decoder looks into; its own row holds text alone.
"""

from __future__ import annotations

import re
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
from transformers.utils import cached_file

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.models.checkpoint import check_sizes, read_weights
from tgsr.models.lalm import Lalm, PromptParts, weights_hash
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_checkpoint import whisper_for_transformers
from tgsr.models.whisper_encoder import encoded
from tgsr.prompts import phrase_answer_qwen
from tgsr.timeline import Seconds, Span

CLASSES = {"whisper": WhisperForConditionalGeneration}
OPENING = ("<|startofprev|>",)
CLOSING = (
    "<|startoftranscript|>",
    "<|en|>",
    "<|transcribe|>",
    "<|notimestamps|>",
)  # the last one: times in words
MAX_SECONDS = 30.0
TICK: Seconds = 0.02  # of Whisper's time tokens, and of its encoder's frames
NEWLINE = "\u010a"  # as byte-level vocabularies spell it
ALIKE = 0.06  # of a row's length: two that were hardly trained apart
N_TICKS = round(MAX_SECONDS / TICK) + 1
TICK_NAME = re.compile(r"<\|(\d{1,2}\.\d\d)\|>")
SECONDS = re.compile(r"(?<![\w.:|])(?:[12]?\d\.\d\d|30\.00)(?![\d|]|\.\d)")


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
    hears_whole = True
    hub_decoder = "model.decoder."
    seconds_per_frame = TICK
    lora_targets = r".*model\.decoder\.layers\.\d+\.((self|encoder)_attn\.(q|k|v|out)_proj|fc[12])"

    max_seconds: float = MAX_SECONDS

    @property
    def audio_tower(self) -> Any:
        return self.inner.model.encoder

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
        hidden = encoded(self.feature_extractor, encoder, samples)
        if not len(hidden):
            raise ModelError(
                f"{self.name} needs 0.01 s of audio or more, got {len(samples) / SAMPLE_RATE:.3f} s"
            )
        return encoder.layer_norm(hidden).float().cpu()

    def prompt(self, text: str) -> PromptParts:
        """Where Whisper reads what was said before the clip: the question, names of special tokens spelled out.

        ModelError where a system turn is set: there is none.
        """
        if self.system:
            raise ModelError(f"{self.name}: Whisper reads no system turn; leave --system out")
        closing = CLOSING if self.times == "words" else CLOSING[:-1]
        after = (*self.plain_tokens(f" {text}"), *map(self._id, closing))
        return PromptParts(tuple(map(self._id, OPENING)), after)

    def tokens(self, text: str) -> list[int]:
        """As every family's, but that seconds with two decimals are one token; to the nearest tick."""
        return super().tokens(with_ticks(text))

    def response_tokens(self, text: str) -> list[int]:
        """As every family's, but that seconds with two decimals are one token; to the nearest tick."""
        return super().response_tokens(with_ticks(text))

    def text(self, ids: list[int]) -> str:
        """As every family's; a time token is a number in words, and its name where times are written in tokens."""
        text = super().text(ids)
        return text if self.times == "tokens" else TICK_NAME.sub(r"\1", text)

    def _id(self, name: str) -> int:
        token: Any = self.tokenizer.convert_tokens_to_ids(name)
        return int(token)

    def open_question(self, question: str) -> str:
        """As it is: the base's lessons answer such questions with words alone (miniature/english_lessons.py)."""
        return question

    def phrase_answer(self, phrase: str, span: Span) -> str:
        """B.1.1's answer, or two time tokens; ValueError as `phrase_answer_qwen` raises it."""
        start = min(round(span.start / TICK), N_TICKS - 2)
        end = min(max(round(span.end / TICK), start + 1), N_TICKS - 1)
        if self.times == "words":
            return phrase_answer_qwen(phrase, Span(start * TICK, end * TICK))
        return tick_name(start) + tick_name(end)


def tick_name(n: int) -> str:
    """The name of the time token of n * TICK seconds, as Whisper's tokenizers write it."""
    return f"<|{n * TICK:.2f}|>"


def with_ticks(text: str) -> str:
    """The text with the names of time tokens for its seconds: numbers with two decimals, up to thirty.

    Whisper has learned the order of those, and not that of its pieces of two digits: a base that was taught phrases
    for an hour wrote four of these for all hundredths of a second.
    """
    return SECONDS.sub(lambda number: tick_name(round(float(number[0]) / TICK)), text)


def with_time_tokens(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, with Whisper's time tokens after its own: they are written, and read, as text is."""
    tokenizer.add_tokens([AddedToken(tick_name(n), special=False, normalized=False) for n in range(N_TICKS)])
    return tokenizer


@torch.no_grad()
def set_newline_apart(model: Any, newline: int | None) -> None:
    """Gives the newline a row of its own where other tokens have the same, so that line ends can be learned.

    Whisper has heard no line end: that row is as it was before training, and the same in some 60 tokens that stand
    in no text (half bytes, <|startoflm|>), nearly the same in as many again (pieces that longer ones always take up:
    " subur"). The rows are the head's too, so the newline would share what it gets with all of them, whatever a LoRA
    learns. The new row lies as far from the mean of all rows as they do in the median, in a direction that none of
    them takes (pseudo-random, the same everywhere). Nothing is done where no token shares that row, without a newline,
    and where the weights are not here (on "meta").
    """
    rows = model.get_input_embeddings().weight
    if newline is None or rows.device.type == "meta":
        return
    alike = (rows - rows[newline]).norm(dim=1) < ALIKE * rows[newline].norm()
    if alike.sum() > 1:
        mean = rows.mean(0)
        direction = torch.cos(torch.arange(rows.shape[1]) ** 2.0).to(rows)
        rows[newline] = mean + (rows - mean).norm(dim=1).median() * direction / direction.norm()


def load_whisper(name: str = "whisper-base", placement: Placement = AS_SAVED) -> Whisper:
    """A Whisper in transformers' layout, by folder or hub id, frozen, with the aligner that `merge` wrote beside it.

    `whisper-base` is the packaged one (FetchError as `tgsr fetch`). Where there is no aligner it changes nothing yet.
    Raises ModelError for a missing or unreadable file, and where tokenizer or feature extractor belong to other
    weights.
    """
    source = str(whisper_for_transformers()) if name == "whisper-base" else name
    family = "a Whisper model"
    model = read_weights(
        WhisperForConditionalGeneration,
        source,
        family,
        placement,
        unquantized=["model.encoder", "proj_out"],
        layers="model.decoder.layers",
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "decoder_layerdrop"), 0.0),
    )
    try:
        extractor = WhisperFeatureExtractor.from_pretrained(source)
        described = str(cached_file(source, "tokenizer.json"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: cannot be loaded as {family}: {error}") from error
    end = "<|endoftext|>"  # not as a WhisperTokenizer, whose texts leave time tokens out
    tokenizer = with_time_tokens(
        PreTrainedTokenizerFast(tokenizer_file=described, eos_token=end, pad_token=end)
    )
    lacks = sorted({*OPENING, *CLOSING, end} - tokenizer.get_vocab().keys())
    if lacks or len(tokenizer) > model.config.vocab_size:
        missing = "".join(f", no {piece}" for piece in lacks)
        raise ModelError(
            f"{name}: the tokenizer has {len(tokenizer)} pieces{missing}, the model {model.config.vocab_size}: they "
            "are of different models; take the tokenizer that came with the weights"
        )
    check_sizes(name, model.config, tokenizer, extractor)
    if name == "whisper-base":
        model.name_or_path = ""  # PEFT would keep this machine's folder in an adapter's configuration
    set_newline_apart(model, tokenizer.get_vocab().get(NEWLINE))
    model.model.aligner = ResidualAligner(model.config.d_model).requires_grad_(False)
    model.model.aligner.to(model.proj_out.weight.device, model.dtype)
    return Whisper(name, model, tokenizer, extractor)
