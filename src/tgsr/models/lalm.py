"""What the stages need of a model family, and no more.

A family is a subclass of Lalm in a file of its own: audio_flamingo3.py, qwen_omni.py and their neighbours. Shapes:
F audio frames, D_enc the encoder's width, D the language model's width.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.models.tokens import end_ids, ids_between_marks, marked_chat, plain_ids, written_text
from tgsr.prompts import (
    NOT_SAID,
    Times,
    chat_messages,
    open_question,
    phrase_answer_qwen,
    phrase_question_qwen,
)
from tgsr.timeline import Span

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase, WhisperFeatureExtractor

    from tgsr.records import Question


THOUGHT_OPENED = re.compile(r"<think(?:ing)?>\s*\Z")
# The language model's layers. The audio towers have layers of the same names, which are left alone.
LORA_TARGETS = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A chat prompt, cut where the audio's embeddings go: token ids before and after them.

    `before` (system text, the user's header) is the same for all questions, so that it belongs to the
    prefix that they share; `after` (the question, the assistant's header) begins a branch.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass
class Lalm(ABC):
    """A large audio-language model: frozen encoder, aligner, language model.

    A family says how sound is encoded, and how it is spoken to. The rest is how transformers lays out most of its audio
    models: model.audio_tower, model.multi_modal_projector, model.language_model, lm_head.
    """

    audio_token: ClassVar[str]  # where the audio's embeddings go, in the text that the chat template writes
    hub_decoder: ClassVar[str] = "language_model.model."  # how its weights begin in the hub's checkpoints
    hashed_as: ClassVar[str]  # of a family whose `encoder_key` is the usual one
    seconds_per_frame: ClassVar[float] = 0.04
    filled_up: ClassVar[float] = 0.0  # seconds: to a multiple of so many a clip is filled up, and heard
    cross_attends: ClassVar[bool] = (
        False  # the frames are a memory to look into, not part of the decoder's row
    )
    hears_whole: ClassVar[bool] = False  # frames know their time: those of two pieces do not join
    lora_targets: ClassVar[str] = LORA_TARGETS  # stage 2's matrices, as a pattern of module names
    # Modules that never get a LoRA, whatever PEFT makes of that pattern.
    lora_excludes: ClassVar[str | None] = None

    name: str
    model: Any  # the transformers model, in PEFT's wrapper once it has a LoRA
    tokenizer: PreTrainedTokenizerBase
    feature_extractor: WhisperFeatureExtractor
    max_seconds: float  # official processors cut longer audio off, we refuse it
    system: str | None = None  # the system turn; None leaves that turn to the chat template
    base: str = ""  # what an adapter of this model goes on top of: the model under all adapters
    merged: str = ""  # the hash of an adapter that was merged into it
    times: Times = "words"  # "tokens" where the model has a `first_tick`

    def __post_init__(self) -> None:
        """Each of `end_ids` ends what is written; `eos_id`, the one that the chat template closes a turn with (the
        tokenizer's own, where it closes none), ends what is taught. Padding is masked, whatever it is. `opening` is
        what the template writes of the response, "<think>" and a line break where it opens the model's thinking.
        """
        self.end_ids = end_ids(self.model, self.tokenizer)
        if not self.end_ids:
            raise ModelError(
                f"{self.name}: the tokenizer has no end token; take the one that came with the model"
            )
        closing = self.prompt("").after if self.tokenizer.chat_template else ()
        opened = THOUGHT_OPENED.search(str(self.tokenizer.decode(list(closing))))
        self.opening = opened[0] if opened else ""
        self.eos_id = next((token for token in closing if token in self.end_ids), self.end_ids[0])
        pad = cast(int | None, self.tokenizer.pad_token_id)
        self.pad_id = self.eos_id if pad is None else int(pad)

    @property
    def audio_id(self) -> int:
        """The token that stands for a frame in the official class's rows."""
        return int(self.inner.config.audio_token_id)

    @property
    def audio_tower(self) -> Any:
        """What hears; an Omni's ends in the aligner."""
        return self.inner.model.audio_tower

    @property
    def aligner(self) -> Any:
        """The only part that stage 1 trains (table 5)."""
        return self.inner.model.multi_modal_projector

    @property
    def first_tick(self) -> int | None:
        """The token of 0 s, where the tokenizer has one for each time that can be written; else None."""
        return None

    @cached_property
    def encoder_key(self) -> str:
        """Changes when the encoder's weights or its input features do: half of the cache's key."""
        about = f"{self.hashed_as} {self.feature_extractor.chunk_length}"
        return weights_hash(about, self.audio_tower.state_dict().items())

    @abstractmethod
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono -> F x D_enc, frozen, float32 on the CPU, F 12.5 to 50 a second.

        Raises ModelError past max_seconds, and for audio that is too short for one frame.
        """

    def phrase_question(self, phrase: str) -> str:
        """Stage 1's question: in B.1.1's words, where a family has none of its own."""
        return phrase_question_qwen(phrase)

    def phrase_answer(self, phrase: str, span: Span) -> str:
        """Stage 1's target, in the words of `phrase_question`."""
        return phrase_answer_qwen(phrase, span)

    def target(self, question: Question) -> str:
        """Stage 1's target for a phrase: where it is, or that it is not said."""
        if question.is_absent:
            return NOT_SAID
        return self.phrase_answer(str(question.phrase), question.evidence[0])

    def open_question(self, question: str) -> str:
        """A question without choices; a family that was taught to answer some as they are leaves it so."""
        return open_question(question)

    @property
    def inner(self) -> Any:
        """The transformers model under PEFT's wrapper, if there is one."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def language_model(self) -> Any:
        """The decoder without its head: takes inputs_embeds, attention_mask, position_ids, past_key_values.

        It chooses its attention by config._attn_implementation and hands unknown keywords on to it, as
        transformers' decoders do: the engine's own attention functions rest on both.
        """
        return self.inner.model.language_model

    @property
    def lm_head(self) -> nn.Module:
        return self.inner.lm_head

    @property
    def ties_head(self) -> bool:
        """Whether the head's matrix is the embedding's, too."""
        return bool(self.lm_head.weight is self.language_model.get_input_embeddings().weight)

    @property
    def audio_place(self) -> str:
        """What the chat template writes where the audio's embeddings go."""
        return self.audio_token

    def frame_edges(self, n_frames: int) -> np.ndarray:
        """Where each of a clip's frames begins and the last one ends: n_frames + 1 times in seconds."""
        return np.arange(n_frames + 1) * self.seconds_per_frame

    @classmethod
    def heard(cls, seconds: float) -> float:
        """How many seconds of frames a clip that lasts `seconds` has."""
        return math.ceil(seconds / cls.filled_up) * cls.filled_up if cls.filled_up else seconds

    def positions_of(self, n_frames: int) -> int:
        """How many of the decoder's positions a clip's frames take."""
        return 0 if self.cross_attends else n_frames

    def frame_middles(self, n_frames: int) -> np.ndarray:
        """The middles of a clip's frames, in seconds."""
        edges = self.frame_edges(n_frames)
        return (edges[:-1] + edges[1:]) / 2

    @property
    def clock(self) -> Any:
        """What says of each aligned frame when it is (models/clock.py); None as a rule."""
        return getattr(self.inner, "clock", None)

    def align(self, features_FE: Tensor) -> Tensor:
        """F x D_enc (or a batch of it) -> F x D, with gradients to the aligner, and to the clock where there is one."""
        frames_FD = self.project(features_FE)
        if self.clock is None:
            return frames_FD
        return frames_FD + self.clock(self.frame_middles(frames_FD.shape[-2])).to(frames_FD)

    def project(self, features_FE: Tensor) -> Tensor:
        """What the aligner alone makes of F x D_enc (or a batch of it): F x D."""
        weight = next(self.aligner.parameters())
        return self.aligner(features_FE.to(weight.device, weight.dtype))

    def in_row(self, frames_FD: Tensor) -> Tensor:
        """A clip's aligned frames as they stand in the decoder's row, F x as wide as `embed` makes tokens."""
        return frames_FD

    def turns(self, text: str, system: str | None) -> list[dict[str, Any]]:
        """The chat that the template reads: a system turn, unless it is None; a place for audio, then the text."""
        return chat_messages(text, system)

    def prompt(self, text: str) -> PromptParts:
        """The chat prompt in two parts; names of special tokens in the text are characters like all others.

        ModelError where the chat template has not exactly one place for audio, and as `chat_text` raises.
        """
        chat, mark = marked_chat(self.tokenizer, self.turns, text, self.system, self.name)
        before, *rest = chat.split(self.audio_place)
        if len(rest) != 1:
            raise ModelError(
                f"{self.name}: the chat template makes {len(rest)} places for audio ({self.audio_place}), a prompt has "
                "exactly one; take the template of the model's own processor"
            )
        before_ids, after_ids = (ids_between_marks(self.tokenizer, part, mark) for part in (before, rest[0]))
        return PromptParts(tuple(before_ids), tuple(after_ids))

    def tokens(self, text: str) -> list[int]:
        """Token ids of a piece of a chat: nothing added at either end, names of special tokens read as these."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def plain_tokens(self, text: str) -> list[int]:
        """Token ids of what somebody says or writes: names of special tokens are spelled out."""
        return plain_ids(self.tokenizer, text)

    def response_tokens(self, text: str) -> list[int]:
        """Token ids of what a model wrote: for markup such as <think> its token, special tokens' names spelled out.

        What the prompt has written of it already is left out. Where the prompt opens a thought and the text neither
        opens nor ends one, the thought is closed first: what follows is an answer.
        """
        tag = self.opening.rstrip()
        end = f"</{tag[1:]}"
        if tag and not text.startswith(tag) and end not in text:
            text = f"\n{end}\n\n{text}"
        text = text.removeprefix(self.opening) if text.startswith(self.opening) else text.removeprefix(tag)
        return plain_ids(self.tokenizer, text, markup=False)

    def ends(self, token: int) -> bool:
        """Whether a response ends with this token."""
        return token == self.eos_id or token in self.end_ids

    def text(self, ids: list[int]) -> str:
        """The response that generated ids are: with what the prompt opened it with, without special tokens and what
        ended it."""
        return self.opening + written_text(self.tokenizer, ids, {self.eos_id, *self.end_ids})

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids of any shape as they stand in the decoder's row."""
        return self.language_model.get_input_embeddings()(ids)

    def refuse_long(self, samples: np.ndarray) -> None:
        """ModelError for 16 kHz samples that last longer than the model hears: processors cut without an error."""
        seconds = len(samples) / SAMPLE_RATE
        if seconds > self.max_seconds:
            in_windows, in_parts = "windows (tgsr ask --long-audio windows)", "parts (--long-audio split)"
            how = in_windows if self.hears_whole else in_parts
            raise ModelError(
                f"{self.name} hears {self.max_seconds:g} s, the audio lasts {seconds:.2f} s: cut it "
                f"(tgsr ask --start/--end), hear it in {how}, or take a model that hears more"
            )


def too_short(name: str, samples: np.ndarray, n_least: int = 320) -> ModelError:
    """The error for no more than `n_least` samples; the default does not fill one pooled frame of a Whisper encoder."""
    least, seconds = n_least / SAMPLE_RATE, len(samples) / SAMPLE_RATE
    return ModelError(f"{name} needs more than {least:g} s of audio, got {seconds:.4f} s")


@contextmanager
def writing_times(lalm: Lalm, times: Times) -> Iterator[None]:
    """Within it, the model is asked for times as words or as tokens, whatever it was taught."""
    before, lalm.times = lalm.times, times
    try:
        yield
    finally:
        lalm.times = before


def weights_hash(about: str, weights: Iterable[tuple[str, Tensor]]) -> str:
    """Sixteen digits that change with `about`, and with any weight's name or float32 value."""
    digest = hashlib.sha256(about.encode())
    for name, weight in sorted(weights, key=lambda named: named[0]):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def context_of(lalm: Lalm) -> int:
    """How many positions the decoder has: text, audio (unless it is a memory) and answer together.

    With rotary factors of two kinds only those of the first: past them all positions of a row are turned by the second.
    """
    config = lalm.language_model.config
    if lalm.cross_attends:
        return int(config.max_target_positions)
    is_longrope = (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "longrope"
    return int(config.original_max_position_embeddings if is_longrope else config.max_position_embeddings)


def device_of(lalm: Lalm) -> torch.device:
    """Where tokens go in and the decoder's output comes out, however its layers are spread."""
    return next(lalm.model.parameters()).device


def n_spread(lalm: Lalm) -> tuple[int, int]:
    """How many devices hold the model, and how many of its modules wait in the host's memory for their turn."""
    places = list((getattr(lalm.inner, "hf_device_map", None) or {}).values())
    waiting = sum(place in ("cpu", "disk") for place in places) if len(set(places)) > 1 else 0
    return len(set(places)) or 1, waiting
