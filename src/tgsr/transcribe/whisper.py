"""Words and their times by Whisper on a CPU: faster-whisper with the packaged Whisper base in int8.

Its times come from cross-attention; docs/data.md has their errors beside those of the other back ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tgsr.audio import SAMPLE_RATE
from tgsr.timeline import Seconds, Word
from tgsr.transcribe.guard import NO_SPEECH, Heard
from tgsr.transcribe.transcript import ENGLISH, Transcript, judged
from tgsr.weights import whisper

SOURCE = "whisper"
SHORTEST: Seconds = 0.02  # Whisper's step; it gives some words no length at all
PROGRESS_FROM: Seconds = 60.0


@dataclass
class FasterWhisper:
    """CTranslate2's Whisper. `folder` is a model in its format; None is the packaged Whisper base.

    Windows of up to 30 s of speech, as voice activity detection finds it, `at_once` of them together. Greedy, so that
    the same sound gives the same words. `language` "en" takes the speaker's English for granted; None asks Whisper
    first, which costs an encoder pass, and leaves clips of other languages without words. FetchError where the packaged
    weights cannot be had.
    """

    folder: Path | None = None
    language: str | None = None
    at_once: int = 8
    threads: int = 0
    source: str = field(default=SOURCE, init=False)

    def __call__(self, samples: np.ndarray) -> Transcript:
        seconds = len(samples) / SAMPLE_RATE
        if seconds < 2 * SHORTEST:
            return Transcript((), seconds, SOURCE, None, (NO_SPEECH,))
        # One window has nothing to be batched with, and Whisper's own loop finds the words' starts a little better.
        batched = seconds > 30
        model = _model(str(self.folder or whisper()), self.threads, batched)
        segments, info = model.transcribe(
            samples,
            language=self.language,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,  # a mistake would otherwise be repeated to the end
            word_timestamps=True,
            vad_filter=True,
            **({"batch_size": self.at_once} if batched else {}),
        )
        stretches = []
        with tqdm(
            total=round(seconds), desc="transcribing", unit="s", disable=seconds < PROGRESS_FROM, leave=False
        ) as bar:
            for segment in segments:
                words = tuple(words_of(segment.words or (), seconds))
                stretches.append(Heard(words, segment.avg_logprob, segment.no_speech_prob))
                bar.update(min(round(segment.end), round(seconds)) - bar.n)
        return judged(stretches, seconds, SOURCE, info.language, float(info.language_probability))


def transcribe(samples: np.ndarray, folder: Path | None = None) -> Transcript:
    """One English recording by the packaged Whisper base, or the faster-whisper model in `folder`."""
    return FasterWhisper(folder, ENGLISH)(samples)


def words_of(words: Iterable[Any], seconds: Seconds) -> list[Word]:
    """faster-whisper's words as ours: inside the clip, never without length, blank ones left out."""
    found = []
    for word in words:
        start = min(max(0.0, float(word.start)), seconds - SHORTEST)
        end = min(max(float(word.end), start + SHORTEST), seconds)
        if word.word.strip():
            confidence = min(1.0, max(0.0, float(word.probability)))
            found.append(Word(word.word.strip(), start, end, None, SOURCE, confidence))
    return found


@cache
def _model(folder: str, threads: int, batched: bool) -> Any:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    if batched:
        return BatchedInferencePipeline(_model(folder, threads, False))
    return WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads)
