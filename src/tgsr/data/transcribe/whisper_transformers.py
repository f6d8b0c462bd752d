"""Words and their times by transformers' Whisper, in batches: for GPUs, and for any checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.hallucinations import Heard
from tgsr.data.transcribe.transcript import ENGLISH, SURE, Backend, Transcript, judged
from tgsr.data.transcribe.whisper_checkpoint import whisper_for_transformers
from tgsr.data.transcribe.windows import speech_regions
from tgsr.errors import ModelError
from tgsr.records import NO_SPEECH
from tgsr.timeline import Seconds, Word

SOURCE = "whisper-transformers"
SHORTEST: Seconds = 0.02


@dataclass
class TransformersWhisper(Backend):
    """A WhisperForConditionalGeneration by folder or hub id; None is the packaged Whisper base.

    Windows of up to 30 s of speech, as voice activity detection finds it, `at_once` of them a forward; greedy. Words
    get their times from the attention heads that the generation config names (alignment_heads), and their mean
    probability. `language` "en" takes it for granted, None has the first window's language detected. ModelError where
    the model is no Whisper or its generation config lacks the heads.
    """

    name: str | None = None
    language: str | None = None
    at_once: int = 16
    device: str = "cpu"
    source: str = field(default=SOURCE, init=False)

    def __call__(self, samples: np.ndarray) -> Transcript:
        seconds = len(samples) / SAMPLE_RATE
        windows = [(region.start, region.samples) for region in speech_regions(samples)]
        if not windows:
            return Transcript((), seconds, SOURCE, None, (NO_SPEECH,))
        model = self._loaded[0]
        language, sure = self.language, 1.0
        if language is None and model.generation_config.is_multilingual:
            language, sure = _language(model, self._features([windows[0][1]])[0])
            if language != ENGLISH and sure >= SURE:
                return judged((), seconds, SOURCE, language, sure)
        stretches: list[Heard] = []
        for first in range(0, len(windows), self.at_once):
            some = windows[first : first + self.at_once]
            stretches += self._hear(some, seconds)
        return judged(stretches, seconds, SOURCE, language, sure)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        """Model, feature extractor, tokenizer."""
        from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

        name = self.name or str(whisper_for_transformers())
        try:
            model: Any = WhisperForConditionalGeneration.from_pretrained(name, use_safetensors=True)
            parts = WhisperFeatureExtractor.from_pretrained(name), WhisperTokenizer.from_pretrained(name)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{name}: cannot be loaded as a Whisper model: {error}") from error
        if getattr(model.generation_config, "alignment_heads", None) is None:
            raise ModelError(
                f"{name}: generation_config.json has no alignment_heads, by which words get their times; take a "
                "checkpoint that has them (openai/whisper-* do)"
            )
        return (model.to(self.device).eval(), *parts)

    def _features(self, windows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        model, extractor, _ = self._loaded
        how = {"sampling_rate": SAMPLE_RATE, "return_attention_mask": True, "return_tensors": "pt"}
        batch: Any = extractor(windows, **how)
        return batch["input_features"].to(self.device, model.dtype), batch["attention_mask"].to(self.device)

    @torch.no_grad()
    def _hear(self, windows: list[tuple[Seconds, np.ndarray]], seconds: Seconds) -> list[Heard]:
        model, _, tokenizer = self._loaded
        is_multilingual = model.generation_config.is_multilingual
        spoken = {"language": ENGLISH, "task": "transcribe"} if is_multilingual else {}
        features, mask = self._features([samples for _, samples in windows])
        out = model.generate(
            features,
            attention_mask=mask,
            return_token_timestamps=True,
            return_dict_in_generate=True,
            output_scores=True,
            do_sample=False,
            **spoken,
        )
        n_new = len(out["scores"])
        logps_NB = torch.stack([scores.float().log_softmax(-1) for scores in out["scores"]])
        heard = []
        for row, (offset, samples) in enumerate(windows):
            ids = out["sequences"][row][-n_new:]
            # when a token ends, the one before begins it
            times = [offset + float(time) for time in out["token_timestamps"][row][-n_new - 1 :].float()]
            tokens = [
                _Token(int(ids[i]), times[i], times[i + 1], float(logps_NB[i, row, int(ids[i])]))
                for i in range(n_new)
                if int(ids[i]) < tokenizer.eos_token_id
            ]
            words = _words(tokenizer, tokens, min(seconds, offset + len(samples) / SAMPLE_RATE))
            logp = sum(token.logp for token in tokens) / len(tokens) if tokens else None
            heard.append(Heard(tuple(words), logp))
        return heard


class _Token(NamedTuple):
    id: int
    start: Seconds
    end: Seconds
    logp: float


def _words(tokenizer: Any, tokens: list[_Token], ends: Seconds) -> list[Word]:
    """Tokens that belong together as words: a piece that begins with a space begins a word."""
    groups: list[list[_Token]] = []
    for token in tokens:
        if not groups or str(tokenizer.convert_ids_to_tokens(token.id)).startswith("Ġ"):
            groups.append([])
        groups[-1].append(token)
    words = []
    for group in groups:
        text = str(tokenizer.decode([token.id for token in group])).strip()
        start = min(max(0.0, group[0].start), ends - SHORTEST)
        end = min(max(group[-1].end, start + SHORTEST), ends)
        if text and start >= 0:
            confidence = min(1.0, float(np.exp([token.logp for token in group]).mean()))
            words.append(Word(text, start, end, None, SOURCE, confidence))
    return words


@torch.no_grad()
def _language(model: Any, features: Tensor) -> tuple[str, float]:
    """The likeliest language of a window (ISO 639-1) and its probability among all languages."""
    start = torch.tensor([[model.generation_config.decoder_start_token_id]], device=features.device)
    logits = model(input_features=features, decoder_input_ids=start).logits[0, -1].float()
    ids = list(model.generation_config.lang_to_id.values())
    probabilities = logits[ids].softmax(-1)
    best = int(probabilities.argmax())
    return list(model.generation_config.lang_to_id)[best].strip("<|>"), float(probabilities[best])
