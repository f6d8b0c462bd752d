"""Words and their times by Whisper on a CPU: faster-whisper with the packaged Whisper base in int8.

Its times come from cross-attention; docs/data.md has their errors beside those of the other back ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.hallucinations import Heard, doubt
from tgsr.data.transcribe.transcript import ENGLISH, SURE, Transcript, judged
from tgsr.data.transcribe.windows import Placed, Region, packed, region_at, sound_of, speech_regions
from tgsr.models.packaged_weights import whisper
from tgsr.timeline import Seconds, Word

SOURCE = "whisper"
SHORTEST: Seconds = 0.02  # Whisper's step; it gives some words no length at all
PROGRESS_FROM: Seconds = 60.0
SLOW = 0.4  # of the usual number of words a second: some must have been lost


@dataclass
class FasterWhisper:
    """CTranslate2's Whisper. `folder` is a model in its format; None is the packaged Whisper base.

    Speech, as voice activity detection finds it, in windows of 30 s that short clips share, `at_once` windows together.
    Greedy. `language` "en" takes English for granted; None asks Whisper about each clip first, which costs an encoder
    pass a clip, and leaves clips of other languages without words. FetchError where the packaged weights cannot be had.
    """

    folder: Path | None = None
    language: str | None = None
    at_once: int = 8
    threads: int = 0
    source: str = field(default=SOURCE, init=False)

    def __call__(self, samples: np.ndarray) -> Transcript:
        return self.many([samples])[0]

    def many(self, clips: Sequence[np.ndarray]) -> list[Transcript]:
        """Each clip's transcript, in order."""
        model = _model(self.folder, self.threads)
        regions: list[Region] = []
        spoken: list[tuple[str | None, float]] = []
        for index, samples in enumerate(clips):
            of_clip = speech_regions(samples, index) if len(samples) >= 2 * SHORTEST * SAMPLE_RATE else []
            language, sure = self.language, 1.0
            if of_clip and language is None:
                language, sure, _ = model.detect_language(of_clip[0].samples)
            spoken.append((language if of_clip else None, float(sure)))
            if language in (None, ENGLISH) or sure < SURE:
                regions += of_clip
        seconds = sum(len(samples) for samples in clips) / SAMPLE_RATE
        bar = tqdm(desc="hearing", unit="window", disable=seconds < PROGRESS_FROM, leave=False)
        heard = self._hear(model, packed(regions), bar, timestamps=False)
        # A window now and then loses one of its regions, or begins to loop: such a region is heard again by itself.
        rates = [len(stretch.words) / region.duration for region, stretch in zip(regions, heard, strict=True)]
        least = SLOW * float(np.median(rates)) if rates else 0.0
        weak = [i for i, stretch in enumerate(heard) if rates[i] < least or not rates[i] or doubt(stretch)]
        again = self._hear(model, [[Placed(regions[index], 0.0)] for index in weak], bar, timestamps=True)
        for index, second in zip(weak, again, strict=True):
            if doubt(second) is None and (doubt(heard[index]) or len(second.words) > len(heard[index].words)):
                heard[index] = second
        bar.close()
        said = [
            (region.clip, stretch) for region, stretch in zip(regions, heard, strict=True) if stretch.words
        ]
        transcripts = []
        for index, samples in enumerate(clips):
            stretches = [stretch for clip, stretch in said if clip == index]
            transcripts.append(judged(stretches, len(samples) / SAMPLE_RATE, SOURCE, *spoken[index]))
        return transcripts

    def _hear(
        self, model: Any, windows: Sequence[Sequence[Placed]], bar: tqdm[Any], *, timestamps: bool
    ) -> list[Heard]:
        """What is said in each region of the windows, in order; with Whisper's own timestamps it stops at pauses."""
        heard: list[Heard] = []
        for first in range(0, len(windows), self.at_once):
            some = windows[first : first + self.at_once]
            heard += _hear_together(model, some, timestamps)
            bar.update(len(some))
        return heard


def _hear_together(model: Any, windows: Sequence[Sequence[Placed]], timestamps: bool) -> list[Heard]:
    """One batch of windows: what is said in each of their regions."""
    from faster_whisper import BatchedInferencePipeline

    sounds = [sound_of(window) for window in windows]
    offsets = np.cumsum([0, *(len(sound) for sound in sounds)]) / SAMPLE_RATE
    segments, _ = BatchedInferencePipeline(model).transcribe(
        np.concatenate(sounds),
        language=ENGLISH if model.model.is_multilingual else None,
        clip_timestamps=[{"start": a, "end": b} for a, b in pairwise(offsets)],
        beam_size=1,
        temperature=0.0,
        word_timestamps=True,
        without_timestamps=not timestamps,
        batch_size=len(windows),
    )
    words: dict[int, list[Any]] = {}
    numbers: dict[int, tuple[float, float]] = {}
    for segment in segments:
        for word in segment.words or ():
            middle = (float(word.start) + float(word.end)) / 2
            number = min(int(np.searchsorted(offsets, middle, side="right")) - 1, len(windows) - 1)
            place = id(region_at(windows[number], middle - offsets[number]))
            words.setdefault(place, []).append(word)
            numbers[place] = (float(segment.avg_logprob), float(segment.no_speech_prob))
    heard = []
    for window, offset in zip(windows, offsets, strict=False):
        for placed in window:
            start, ends = placed.region.start, placed.region.start + placed.region.duration
            region_words = words_of(words.get(id(placed), ()), start, ends, start - placed.at - offset)
            heard.append(Heard(tuple(region_words), *numbers.get(id(placed), (None, None))))
    return heard


def transcribe(samples: np.ndarray, folder: Path | None = None) -> Transcript:
    """One English recording by the packaged Whisper base, or the faster-whisper model in `folder`."""
    return FasterWhisper(folder, ENGLISH)(samples)


def words_of(words: Iterable[Any], start: Seconds, end: Seconds, shift: Seconds = 0.0) -> list[Word]:
    """faster-whisper's words, `shift` seconds later, as ours: inside [start, end), never without length or text."""
    timed = []
    for word in words:
        first = min(max(start, float(word.start) + shift), end - SHORTEST)
        last = min(max(float(word.end) + shift, first + SHORTEST), end)
        if word.word.strip():
            confidence = round(min(1.0, max(0.0, float(word.probability))), 3)
            timed.append(Word(word.word.strip(), round(first, 3), round(last, 3), None, SOURCE, confidence))
    return timed


@cache
def _model(folder: Path | None, threads: int) -> Any:
    from faster_whisper import WhisperModel

    return WhisperModel(str(folder or whisper()), device="cpu", compute_type="int8", cpu_threads=threads)
