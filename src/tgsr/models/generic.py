"""Any audio model that transformers drives by AutoProcessor and apply_chat_template: it answers, no more.

Nothing here knows a family. The processor writes the prompt with a place for audio, turns sound into features and
opens as many places as there are frames; the model's own generate answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soxr
import torch
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor

from tgsr.audio import SAMPLE_RATE
from tgsr.models.checkpoint import AS_SAVED, Placement, read_weights
from tgsr.models.lalm import ModelError
from tgsr.models.responder import Asked, Decoding, Failed
from tgsr.prompts import chat_messages, phrase_question_af3

THINKERS = {"qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration"}
"""Models that also speak: the part that reads and writes, without the rest."""


@dataclass
class Generic:
    """One loaded model and its processor; a Responder. One question at a time, so that no padding matters."""

    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    max_seconds: float
    rate: int
    audio_id: int  # the token that stands for a frame of audio
    at_once: int = 4

    def phrase_question(self, phrase: str) -> str:
        """B.1.2's, which says in which form to answer."""
        return phrase_question_af3(phrase)

    def respond(
        self, clips: Sequence[np.ndarray], asked: Sequence[Asked], decoding: Decoding
    ) -> list[str | Failed]:
        return [self._answer(clips[one.clip], one.text, decoding) for one in asked]

    def _answer(self, samples: np.ndarray, text: str, decoding: Decoding) -> str | Failed:
        seconds = len(samples) / SAMPLE_RATE
        if seconds > self.max_seconds:
            return Failed(f"{self.name} hears {self.max_seconds:g} s, the audio lasts {seconds:.2f} s")
        try:
            inputs = self.inputs(samples, text)
        except ValueError as error:  # a clip that the processor cannot take, such as one that is too short
            return Failed(f"{self.name}: the processor refuses the clip: {error}")
        sampled: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if decoding.temperature:
            torch.manual_seed(decoding.seed)
            sampled = {
                "do_sample": True,
                "temperature": decoding.temperature,
                "top_p": decoding.top_p,
                "top_k": 0,
            }
        with torch.no_grad():
            out = self.model.generate(**inputs, max_new_tokens=decoding.max_new_tokens, **sampled)
        new = out[0, inputs["input_ids"].shape[1] :]
        return str(self.processor.tokenizer.decode(new, skip_special_tokens=True))

    def spent(self) -> str:
        return ""

    def inputs(self, samples: np.ndarray, text: str) -> Any:
        """The model's inputs for one clip and one question; a processor that drops the sound is an error."""
        if self.rate != SAMPLE_RATE:
            samples = soxr.resample(samples, SAMPLE_RATE, self.rate)
        prompt = self.processor.apply_chat_template(
            chat_messages(text), tokenize=False, add_generation_prompt=True
        )
        batch = self.processor(
            text=[prompt], audio=[samples], audio_kwargs={"sampling_rate": self.rate}, return_tensors="pt"
        )
        n_places = int((batch["input_ids"] == self.audio_id).sum())
        features = [name for name in batch if name not in ("input_ids", "attention_mask", "token_type_ids")]
        if not n_places or not features:
            raise ModelError(
                f"{self.name}: its processor made {n_places} places for audio and the inputs {sorted(batch)}: the "
                "sound was dropped; take the chat template and processor that came with the model"
            )
        return batch.to(self.model.device, self.model.dtype)  # BatchFeature casts what is not whole numbers


def load_generic(name: str, placement: Placement = AS_SAVED) -> Generic:
    """By folder or hub id. ModelError for a model that takes no audio, and for parts that cannot be loaded."""
    try:
        config = AutoConfig.from_pretrained(name)
        processor = AutoProcessor.from_pretrained(name)
    except ImportError as error:
        raise ModelError(
            f"{name}: its processor needs a package that is not installed: {_first_line(error)}. Serve the model with "
            "vLLM and name it http://HOST:PORT/v1#MODEL, or import its predictions (tgsr import)"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: has no processor that can be loaded: {_first_line(error)}") from error
    audio_id, rate, seconds = _hearing(name, config, processor)
    model = read_weights(
        _class_of(name, config),
        name,
        f"a {config.model_type} model",
        placement,
        unquantized=["lm_head"],
        layers=None,
    )
    if placement.devices == "one" and placement.load_as != "4bit":
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Generic(name, model, processor, seconds, rate, audio_id)


def _class_of(name: str, config: Any) -> Any:
    import transformers

    if config.model_type in THINKERS:
        return getattr(transformers, THINKERS[config.model_type])
    if type(config) not in AutoModelForMultimodalLM._model_mapping:
        raise ModelError(
            f"{name}: is of type {config.model_type}, which transformers has no class for that takes sound and writes "
            "text; predictions that were made elsewhere can be imported (tgsr import)"
        )
    return AutoModelForMultimodalLM


def _hearing(name: str, config: Any, processor: Any) -> tuple[int, int, float]:
    """The audio token's id, the sampling rate, and how many seconds are heard before something is cut off."""
    extractor = getattr(processor, "feature_extractor", None)
    tokenizer = getattr(processor, "tokenizer", None)
    if extractor is None or tokenizer is None:
        raise ModelError(
            f"{name}: its processor ({type(processor).__name__}) takes no audio; give an audio model"
        )
    if not getattr(processor, "chat_template", None):
        raise ModelError(f"{name}: its processor has no chat template; download the model's files again")
    token = getattr(processor, "audio_token", None)
    inner = getattr(config, "thinker_config", config)
    expected = getattr(inner, "audio_token_id", None) or getattr(inner, "audio_token_index", None)
    audio_id = tokenizer.get_vocab().get(token) if token else expected
    if audio_id is None or (expected is not None and audio_id != expected):
        raise ModelError(
            f"{name}: the processor's audio token {token!r} has the id {audio_id}, the weights expect {expected}; take "
            "the processor that came with the weights"
        )
    seconds = getattr(processor, "max_audio_len", None) or getattr(extractor, "chunk_length", None)
    return int(audio_id), int(extractor.sampling_rate), float(seconds or 3600.0)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :300
    ]
