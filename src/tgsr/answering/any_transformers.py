"""Any audio model that transformers drives by AutoProcessor and apply_chat_template: it answers, no more.

Nothing here knows a family. The processor writes the prompt with a place for audio, turns sound into features and
opens as many places as there are frames; the model's own generate answers.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soxr
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from tgsr.answering.responder import ClipQuestion, Responder
from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.llm.decoding import Decoding, Failed
from tgsr.llm.text_models import generated
from tgsr.models.checkpoint import check_sizes, read_weights
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.tokens import broken_up, chat_text, reserved_names
from tgsr.prompts import chat_messages

PICTURES = ("image_processor", "video_processor")


@dataclass
class Generic(Responder):
    """One loaded model and its processor. One question at a time, so that no padding matters."""

    name: str
    model: Any = field(repr=False)
    processor: Any = field(repr=False)
    max_seconds: float
    rate: int
    audio_id: int  # the token that stands for a frame of audio
    at_once: int = 4
    system: str | None = None

    def respond(
        self, clips: Sequence[np.ndarray], questions: Sequence[ClipQuestion], decoding: Decoding
    ) -> list[str | Failed]:
        return [self._answer(clips[question.clip], question, decoding) for question in questions]

    def _answer(self, samples: np.ndarray, question: ClipQuestion, decoding: Decoding) -> str | Failed:
        seconds = len(samples) / SAMPLE_RATE
        if seconds > self.max_seconds:
            return Failed(f"{self.name} hears {self.max_seconds:g} s, the audio lasts {seconds:.2f} s")
        try:
            inputs = self.inputs(samples, question.text)
        except ModelError:
            raise  # the model's own fault: no other clip would fare better
        except (ValueError, RuntimeError, IndexError) as error:  # a clip that is too short, for example
            return Failed(f"{self.name}: the processor refuses the clip: {error}")
        room = self.context - decoding.max_new_tokens
        if (n := inputs["input_ids"].shape[1]) > room:
            return Failed(f"{n} tokens of sound and prompt; {self.name} has room for {room}")
        return generated(self.model, self.processor.tokenizer, inputs, decoding, question.id)

    @property
    def context(self) -> float:
        """How many positions its decoder was trained for; past them it would go on, and write nonsense."""
        text = self.model.config.get_text_config()
        return float(getattr(text, "max_position_embeddings", None) or math.inf)

    def inputs(self, samples: np.ndarray, text: str) -> Any:
        """The model's inputs for one clip and one question; a processor that drops the sound is an error.

        Names of special tokens in the text get a blank after their first character: the processor would take them for
        the tokens, and its own for places of more sound.
        """
        places = (str(v) for k, v in vars(self.processor).items() if k.endswith("_token") and v)
        names = (*reserved_names(self.processor.tokenizer), *(name for name in places if len(name) > 1))
        text = broken_up(text, names, " ")
        system = None if self.system is None else broken_up(self.system, names, " ")
        if self.rate != SAMPLE_RATE:
            samples = soxr.resample(samples, SAMPLE_RATE, self.rate)
        prompt = chat_text(self.processor, chat_messages(text, system), system, self.name)
        batch: Any = self.processor(
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
        processor = _processor(name, config)
    except ImportError as error:
        raise ModelError(
            f"{name}: its processor needs a package that is not installed: {_first_line(error)}. Serve the model with "
            "vLLM and name it http://HOST:PORT/v1#MODEL, or import its predictions (tgsr import)"
        ) from error
    except ModelError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: has no processor that can be loaded: {_first_line(error)}") from error
    audio_id, rate, seconds = _hearing(name, config, processor)
    extractor = getattr(processor, "feature_extractor", None) or processor.audio_processor
    check_sizes(name, config, processor.tokenizer, extractor)
    cls, kind = _class_of(name, config), f"a {config.model_type} model"
    model = read_weights(cls, name, kind, placement, unquantized=["lm_head"], layers=None)
    if placement.devices == "one" and placement.load_as != "4bit":
        model.to("cuda" if torch.cuda.is_available() else "cpu")
    generic = Generic(name, model, processor, seconds, rate, audio_id)
    try:
        generic.inputs(np.zeros(SAMPLE_RATE, np.float32), "?")
    except (ValueError, RuntimeError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        problem = f"its processor cannot take a second of silence: {_first_line(error)}"
        raise ModelError(f"{name}: {problem}") from error
    return generic


def _processor(name: str, config: Any) -> Any:
    """The model's processor; where its parts for pictures need torchvision and there is none, the same without them."""
    try:
        return AutoProcessor.from_pretrained(name)
    except (ImportError, ValueError):
        whole: Any = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(config.model_type, ""), None)
        if whole is None or importlib.util.find_spec("torchvision"):
            raise

    class Hearing(whole):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name not in PICTURES:
                return super().check_argument_for_proper_class(argument_name, argument)
            return None

    takes = inspect.signature(whole.__init__).parameters
    sound = "audio_processor" if "audio_processor" in takes else "feature_extractor"
    parts: dict[str, Any] = {argument: None for argument in PICTURES if argument in takes}
    parts[sound] = AutoFeatureExtractor.from_pretrained(name)
    parts["tokenizer"] = AutoTokenizer.from_pretrained(name)
    template = ProcessorMixin.get_processor_dict(name)[0].get("chat_template")
    return Hearing(**parts, chat_template=template or parts["tokenizer"].chat_template)


def _class_of(name: str, config: Any) -> Any:
    if type(config) not in AutoModelForMultimodalLM._model_mapping:
        raise ModelError(
            f"{name}: is of type {config.model_type}, which transformers has no class for that takes sound and writes "
            "text; predictions that were made elsewhere can be imported (tgsr import)"
        )
    return AutoModelForMultimodalLM


def _hearing(name: str, config: Any, processor: Any) -> tuple[int, int, float]:
    """The audio token's id, the sampling rate, and how many seconds are heard before something is cut off."""
    extractor = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
    tokenizer = getattr(processor, "tokenizer", None)
    if extractor is None or tokenizer is None:
        kind = type(processor).__name__
        raise ModelError(f"{name}: its processor ({kind}) takes no audio; give an audio model")
    if not getattr(processor, "chat_template", None):
        raise ModelError(f"{name}: its processor has no chat template; download the model's files again")
    token = getattr(processor, "audio_token", None)
    parts = (config, getattr(config, "audio_config", None))
    names = ("audio_token_id", "audio_token_index")
    expected = next((getattr(part, key) for part in parts for key in names if hasattr(part, key)), None)
    audio_id = getattr(processor, "audio_token_id", None)
    if token:
        audio_id = tokenizer.get_vocab().get(token)
    audio_id = expected if audio_id is None and not token else audio_id
    if audio_id is None or (expected is not None and audio_id != expected):
        raise ModelError(
            f"{name}: the processor's audio token {token!r} has the id {audio_id}, the weights expect {expected}; take "
            "the processor that came with the weights"
        )
    seconds = getattr(processor, "max_audio_len", None) or getattr(extractor, "chunk_length", None)
    return int(audio_id), int(extractor.sampling_rate), float(seconds or 3600.0)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip()[:300]
