"""Words and their times by transformers' Whisper, in batches: for GPUs, and for any checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.again import to_hear_again, with_second
from tgsr.data.transcribe.hallucinations import Heard
from tgsr.data.transcribe.speech import audible, is_speech, speech_probability
from tgsr.data.transcribe.transcript import ENGLISH, Backend, Transcript, heard_as, judged
from tgsr.data.transcribe.windows import Region, most_tokens, speech_regions
from tgsr.errors import ModelError
from tgsr.models.whisper_checkpoint import whisper_for_transformers
from tgsr.records import NO_SPEECH
from tgsr.timeline import Seconds, Word

SOURCE = "whisper-transformers"
SHORTEST: Seconds = 0.02


@dataclass
class TransformersWhisper(Backend):
    """A WhisperForConditionalGeneration by folder or hub id; None is the packaged Whisper base.

    Stretches of up to 29 s of speech, as voice activity detection finds it, `at_once` of them a forward; greedy. Speech
    that has no words then is heard again by itself; what still has none is a hole of the transcript. Words
    get their times from the attention heads that the generation config names (alignment_heads), and their mean
    probability. `language` "en" takes English for granted, "fr" French; None has the first window's language detected,
    and the clip heard in it. ModelError where the model is no Whisper, its generation config lacks the heads, or it
    hears English alone and another language is asked for.
    """

    name: str | None = None
    language: str | None = None
    at_once: int = 16
    device: str = "cpu"
    source: str = field(default=SOURCE, init=False)

    def __call__(self, samples: np.ndarray) -> Transcript:
        seconds = len(samples) / SAMPLE_RATE
        samples = audible(samples)
        probability = speech_probability(samples)
        speech = is_speech(probability)
        regions = speech_regions(samples, 0, probability)
        if not regions:
            return Transcript((), seconds, SOURCE, None, (NO_SPEECH,))
        model = self._loaded[0]
        language, sure = self.language, 1.0
        if language is None and model.generation_config.is_multilingual:
            language, sure = _language(model, self._features([regions[0].samples])[0])
        spoken = heard_as(language, sure)
        if spoken != ENGLISH and not model.generation_config.is_multilingual:
            raise ModelError(f"{self.name}: hears English alone, not {spoken!r}; take a multilingual Whisper")
        heard = self._hear(regions, seconds, spoken)
        again = to_hear_again(0, samples, probability, heard)
        for region, second in zip(again, self._hear(again, seconds, spoken), strict=True):
            heard = with_second(heard, region, second, speech)
        return judged(heard, speech, seconds, SOURCE, language, sure)

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
            problem = "generation_config.json has no alignment_heads, by which words get their times"
            raise ModelError(f"{name}: {problem}; take a checkpoint that has them (openai/whisper-* do)")
        return (model.to(self.device).eval(), *parts)

    def _features(self, windows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        model, extractor, _ = self._loaded
        how = {"sampling_rate": SAMPLE_RATE, "return_attention_mask": True, "return_tensors": "pt"}
        batch: Any = extractor(windows, **how)
        return batch["input_features"].to(self.device, model.dtype), batch["attention_mask"].to(self.device)

    def _hear(self, regions: Sequence[Region], seconds: Seconds, language: str) -> list[Heard]:
        """What is said in each of the regions of a clip of so many seconds, in that language."""
        heard: list[Heard] = []
        for first in range(0, len(regions), self.at_once):
            heard += self._hear_together(regions[first : first + self.at_once], seconds, language)
        return heard

    @torch.no_grad()
    def _hear_together(self, regions: Sequence[Region], seconds: Seconds, language: str) -> list[Heard]:
        model, _, tokenizer = self._loaded
        is_multilingual = model.generation_config.is_multilingual
        spoken = {"language": language, "task": "transcribe"} if is_multilingual else {}
        features, mask = self._features([audible(region.samples) for region in regions])
        n_most = min(most_tokens(regions, language == ENGLISH), model.config.max_target_positions // 2)
        out = model.generate(
            features,
            attention_mask=mask,
            return_token_timestamps=True,
            return_timestamps=True,  # without, Whisper is more often silent
            return_dict_in_generate=True,
            output_scores=True,
            do_sample=False,
            max_new_tokens=n_most,
            **spoken,
        )
        heard = []
        for region, segments in zip(regions, out["segments"], strict=True):
            # what has a larger id is a time
            tokens = [one for one in _tokens(segments, region.start) if one.id < tokenizer.eos_token_id]
            words = _words(tokenizer, tokens, min(seconds, region.start + region.duration))
            logp = sum(token.logp for token in tokens) / len(tokens) if tokens else None
            heard.append(Heard(tuple(words), logp))
        return heard


class _Token(NamedTuple):
    id: int
    start: Seconds
    end: Seconds
    logp: float


def _tokens(segments: Sequence[dict[str, Any]], start: Seconds) -> Iterator[_Token]:
    """All tokens of a window's segments, as generate returns them, with times; the window begins at `start`."""
    n_prompt = 0
    result = None
    for segment in segments:
        if segment["result"] is not result:  # another pass: it went on where the one before ended
            result, n_prompt = segment["result"], segment["idxs"][0]
        first, stop = segment["idxs"]
        times = result["token_timestamps"].float()
        offset = start + float(segment["token_timestamps"][0]) - float(times[first])
        for place in range(first, stop):
            token = int(result["sequences"][place])
            logps = result["scores"][place - n_prompt].float().log_softmax(-1)
            # when a token ends, the one before begins it
            ends = offset + float(times[place])
            yield _Token(token, offset + float(times[place - 1]), ends, float(logps[token]))


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
