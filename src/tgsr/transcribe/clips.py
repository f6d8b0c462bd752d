"""Clips of any corpus with the words that are said in them: what `tgsr transcribe` does to a shard of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from tgsr import audio
from tgsr.records import Bad, Clip, RecordError, Row, clip_of
from tgsr.shards import Made
from tgsr.timeline import Seconds, Word
from tgsr.transcribe.align import Aligner, Ctc, PocketSphinx, aligned, aligned_text
from tgsr.transcribe.guard import TEXT_DIFFERS, TOO_LONG
from tgsr.transcribe.mending import mended
from tgsr.transcribe.transcript import Backend
from tgsr.transcribe.whisper import FasterWhisper
from tgsr.transcribe.whisper_timestamped import WhisperTimestamped
from tgsr.transcribe.whisper_transformers import TransformersWhisper

BackendName = Literal["faster-whisper", "transformers", "whisper-timestamped"]
PUNCTUATION = ".,!?;:'\""
SAME_ENOUGH = 0.5  # of the words of two texts


@dataclass(frozen=True, slots=True)
class Transcription:
    """How clips get their words.

    `backend` hears them, with the model in its own format (None: the packaged Whisper base). `align` has the words'
    times looked for again by forced alignment: "pocketsphinx", "ctc:MODEL" or "none". `language` "en" takes English for
    granted; "auto" has it detected, and leaves clips of other languages without words. Longer clips than `max_seconds`
    are flagged and not heard. `root` is the folder that audio paths start from.
    """

    root: str
    backend: BackendName = "faster-whisper"
    model: str | None = None
    align: str = "pocketsphinx"
    language: str = "auto"
    max_seconds: Seconds = 3600.0
    device: str = "cpu"
    threads: int = 0
    timestamped_python: str = sys.executable


def transcribe_rows(settings: Transcription, rows: Sequence[Row]) -> Made:
    """Each row's clip with its words; a clip whose sound cannot be read is Bad."""
    clips: list[Clip] = []
    bad: list[Bad] = []
    for row in rows:
        try:
            clip = clip_of(row)
            samples = audio.load(Path(settings.root) / clip.audio)
        except (audio.AudioError, FileNotFoundError) as error:
            bad.append(Bad(str(Path(settings.root) / str(row.get("audio"))), str(error)))
        except RecordError as error:
            bad.append(Bad(str(row.get("id")), error.problem, None, error.field))
        else:
            clips.append(transcribed(clip, samples, settings))
    return Made(clips, bad)


def transcribed(clip: Clip, samples: np.ndarray, settings: Transcription) -> Clip:
    """The clip with words and flags.

    Words that it has are mended and kept. Where its publisher says what is said, that text is aligned; where this
    fails, or there is none, the back end hears the clip, and a text that shares less than half of its words is flagged.
    """
    seconds = len(samples) / audio.SAMPLE_RATE
    clip = replace(clip, duration=seconds)
    if clip.words:
        words, flags = mended(clip.words, seconds)
        return _with(clip, words, flags)
    if seconds > settings.max_seconds:
        return _with(clip, (), (TOO_LONG,))
    aligner = _aligner(settings)
    if clip.text and aligner and seconds <= 40:
        found = aligned_text(clip.text, samples, aligner)
        if found is not None:
            words, flags = mended(found, seconds)
            return _with(clip, words, flags)
    heard = _backend(settings)(samples)
    words, flags = mended(heard.words, seconds)
    if aligner and words:
        words, more = aligned(words, samples, aligner)
        words, again = mended(words, seconds)
        flags = (*flags, *more, *again)
    if clip.text and _shared(clip.text, heard.text) < SAME_ENOUGH:
        flags = (*flags, TEXT_DIFFERS)
    if clip.speaker:
        words = tuple(replace(word, speaker=word.speaker or clip.speaker) for word in words)
    language = clip.language or heard.language
    return _with(replace(clip, language=language), words, (*heard.flags, *flags))


def _with(clip: Clip, words: tuple[Word, ...], flags: tuple[str, ...]) -> Clip:
    return replace(clip, words=words, flags=tuple(dict.fromkeys((*clip.flags, *flags))))


def _shared(text: str, other: str) -> float:
    """The share of distinct words that two texts have in common, of the larger set; 1 where both are empty."""
    a, b = ({word.strip(PUNCTUATION).lower() for word in said.split()} for said in (text, other))
    return len(a & b) / max(1, len(a), len(b)) if a or b else 1.0


@cache
def _backend(settings: Transcription) -> Backend:
    language = None if settings.language == "auto" else settings.language
    if settings.backend == "transformers":
        return TransformersWhisper(settings.model, language, device=settings.device)
    if settings.backend == "whisper-timestamped":
        return WhisperTimestamped(settings.timestamped_python, settings.model, language)
    return FasterWhisper(
        None if settings.model is None else Path(settings.model), language, threads=settings.threads
    )


@cache
def _aligner(settings: Transcription) -> Aligner | None:
    if settings.align == "none":
        return None
    if settings.align.startswith("ctc:"):
        return Ctc(settings.align.removeprefix("ctc:"), settings.device)
    return PocketSphinx()
