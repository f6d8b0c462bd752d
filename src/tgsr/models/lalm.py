"""What the stages need of a model family, and no more.

A family is a class with these members (see audio_flamingo3.py for the first). Shapes: F audio frames,
D_enc the encoder's width, D the language model's width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.timeline import Span


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A chat prompt, cut where the audio's embeddings go: token ids before and after them.

    `before` (system text, the user's header) is the same for all questions, so that it belongs to the
    prefix that they share; `after` (the question, the assistant's header) begins a branch.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]


class Lalm(Protocol):
    """A large audio-language model: frozen encoder, aligner, language model."""

    name: str
    model: Any  # the transformers model, in PEFT's wrapper once it has a LoRA
    tokenizer: Any
    base: str  # what an adapter of this model goes on top of: the model under all adapters
    hub_decoder: str  # how names of the decoder's weights begin in the hub's checkpoints
    max_seconds: float
    seconds_per_frame: float
    eos_id: int
    pad_id: int

    @property
    def inner(self) -> Any:
        """The transformers model under PEFT's wrapper, if there is one."""
        ...

    @property
    def language_model(self) -> Any:
        """The decoder without its head: takes inputs_embeds, attention_mask, position_ids, past_key_values.

        It chooses its attention by config._attn_implementation and hands unknown keywords on to it, as
        transformers' decoders do: the engine's own attention functions rest on both.
        """
        ...

    @property
    def lm_head(self) -> nn.Module: ...

    @property
    def aligner(self) -> Any:
        """The only part that stage 1 trains (table 5)."""
        ...

    @property
    def lora_targets(self) -> str:
        """A pattern of module names: the language model's layers and none of the tower's (table 6)."""
        ...

    @property
    def encoder_key(self) -> str:
        """Changes when the encoder's weights or its input features do: half of the cache's key."""
        ...

    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono -> F x D_enc, frozen, float32 on the CPU. Raises ModelError past max_seconds."""
        ...

    def align(self, features_FE: Tensor) -> Tensor:
        """F x D_enc (or a batch of it) -> F x D, with gradients to the aligner."""
        ...

    def prompt(self, text: str) -> PromptParts: ...

    def phrase_question(self, phrase: str) -> str:
        """Stage 1's question in this family's words (B.1.1, B.1.2)."""
        ...

    def phrase_answer(self, phrase: str, span: Span) -> str:
        """Stage 1's target in this family's words."""
        ...

    def tokens(self, text: str) -> list[int]:
        """Token ids of a plain piece of text: nothing added at either end."""
        ...

    def text(self, ids: list[int]) -> str:
        """The text of generated ids, without special tokens."""
        ...

    def embed(self, ids: Tensor) -> Tensor: ...


class TransformersLalm:
    """What families have in common whose transformers model is laid out as model.language_model and lm_head.

    A family's dataclass gives the fields, and what is its own: the aligner, the encoder, the prompt.
    """

    name: str
    model: Any
    tokenizer: Any
    max_seconds: float

    @property
    def inner(self) -> Any:
        """The model under PEFT's wrapper, if there is one."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def language_model(self) -> Any:
        return self.inner.model.language_model

    @property
    def lm_head(self) -> nn.Module:
        head: nn.Module = self.inner.lm_head
        return head

    @property
    def lora_targets(self) -> str:
        return r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.language_model.get_input_embeddings()(ids)
        return embedded


def is_lalm(model: object) -> TypeGuard[Lalm]:
    """Whether a model can be trained and looked into; others only answer (responder.py)."""
    return hasattr(model, "encode_audio")


def refuse_long(lalm: Lalm | TransformersLalm, samples: np.ndarray) -> None:
    """ModelError for 16 kHz samples that last longer than the model hears: processors cut without an error."""
    seconds = len(samples) / SAMPLE_RATE
    if seconds > lalm.max_seconds:
        raise ModelError(
            f"{lalm.name} hears {lalm.max_seconds:g} s, the audio lasts {seconds:.2f} s: cut it "
            "(tgsr ask --start/--end), hear it in parts (--long-audio split), or take a model that hears more"
        )


def weights_hash(about: str, weights: Iterable[tuple[str, Tensor]]) -> str:
    """Sixteen digits that change with `about`, and with any weight's name or float32 value."""
    digest = hashlib.sha256(about.encode())
    for name, weight in sorted(weights, key=lambda named: named[0]):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().to(torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def context_of(lalm: Lalm) -> int:
    """How many positions the decoder has: text, audio and answer together."""
    return int(lalm.language_model.config.max_position_embeddings)


def device_of(lalm: Lalm) -> torch.device:
    """Where tokens go in and the decoder's output comes out, however its layers are spread."""
    return next(lalm.model.parameters()).device


def n_spread(lalm: Lalm) -> tuple[int, int]:
    """How many devices hold the model, and how many of its modules wait in the host's memory for their turn."""
    places = list((getattr(lalm.inner, "hf_device_map", None) or {}).values())
    waiting = sum(place in ("cpu", "disk") for place in places) if len(set(places)) > 1 else 0
    return len(set(places)) or 1, waiting
