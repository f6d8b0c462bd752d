"""Clips of any corpus with the words that are said in them: what `tgsr transcribe` does to a shard of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from tgsr import audio
from tgsr.data.shards import Made
from tgsr.data.transcribe.forced_alignment import Aligner, Ctc, PocketSphinx, aligned, aligned_text
from tgsr.data.transcribe.repair import WORDS_MISSING, mended
from tgsr.data.transcribe.speech import is_speech, speech_probability
from tgsr.data.transcribe.transcript import ENGLISH, Backend, Transcript, holes_of
from tgsr.data.transcribe.whisper import FasterWhisper
from tgsr.data.transcribe.whisper_timestamped import WhisperTimestamped
from tgsr.disk.jsonl import Row
from tgsr.errors import AudioError, Bad, RecordError
from tgsr.records import NOT_ENGLISH, TEXT_DIFFERS, TOO_LONG, UNHEARD, Clip, clip_of
from tgsr.timeline import Hole, Seconds, Word

BackendName = Literal["faster-whisper", "transformers", "whisper-timestamped"]
PUNCTUATION = ".,!?;:'\""
AT_ONCE: Seconds = 900.0  # of sound, and one clip more
LONGEST_TEXT: Seconds = 40.0  # that is aligned as a whole
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
    """Each row's clip with its words; a clip whose sound cannot be read is Bad. AT_ONCE of sound is in memory."""
    done: list[Clip] = []
    bad: list[Bad] = []
    waiting: list[tuple[Clip, np.ndarray]] = []
    for row in rows:
        try:
            clip = clip_of(row)
            path = Path(settings.root) / clip.audio
            clip = replace(clip, duration=audio.duration(path))
            is_heard = needs_sound(clip, settings)
            samples = audio.load(path, max_seconds=math.inf) if is_heard else np.zeros(0, np.float32)
        except (AudioError, FileNotFoundError) as error:
            bad.append(Bad(str(Path(settings.root) / str(row.get("audio"))), str(error)))
        except RecordError as error:
            bad.append(Bad(str(row.get("id")), error.problem, None, error.field))
        else:
            waiting.append((clip, samples))
        if sum(clip.duration for clip, samples in waiting if len(samples)) > AT_ONCE:
            done += together(waiting, settings)
            waiting = []
    return Made([*done, *together(waiting, settings)], bad)


def together(clips: Sequence[tuple[Clip, np.ndarray]], settings: Transcription) -> list[Clip]:
    """The clips with their words, in order; those that must be heard are heard together."""
    done = [without_hearing(clip, samples, settings) for clip, samples in clips]
    left = [index for index, clip in enumerate(done) if clip is None]
    heard = _backend(settings).many([clips[index][1] for index in left]) if left else []
    for index, transcript in zip(left, heard, strict=True):
        done[index] = heard_as(*clips[index], transcript, settings)
    return [clip for clip in done if clip is not None]


def needs_sound(clip: Clip, settings: Transcription) -> bool:
    """Whether anyone has to listen: not to a clip that has its words, is too long or in another language."""
    return not clip.words and clip.duration <= settings.max_seconds and clip.language in (None, ENGLISH)


def without_hearing(clip: Clip, samples: np.ndarray, settings: Transcription) -> Clip | None:
    """The clip with words and flags where no back end is needed, else None.

    Words that it has are mended and kept. Where its publisher says what is said, in English, that text is aligned.
    """
    if clip.words:
        return _with(clip, *mended(clip.words, clip.duration))
    if clip.duration > settings.max_seconds:
        return _with(clip, (), (TOO_LONG,))
    if clip.language not in (None, ENGLISH):
        return _with(clip, (), (NOT_ENGLISH,))
    return _by_its_text(clip, samples, settings) if clip.language == ENGLISH else None


def _by_its_text(clip: Clip, samples: np.ndarray, settings: Transcription) -> Clip | None:
    """The clip with its publisher's words at the times where they are found; None without a text, or not found."""
    aligner = _aligner(settings)
    if not clip.text or aligner is None or clip.duration > LONGEST_TEXT:
        return None
    alignment = aligned_text(clip.text, samples, aligner)
    if alignment is None:
        return None
    words, missing = alignment.on(clip.duration)
    missing = tuple(replace(hole, speaker=clip.speaker) for hole in missing)
    words, flags, holes = mended(_spoken_by(clip, words), clip.duration)
    # A text that lacks some of what is said is aligned all the same.
    unheard = holes_of(is_speech(speech_probability(samples)), words, clip.duration)
    return _with(clip, words, (*flags, *((UNHEARD,) if unheard else ())), (*missing, *holes, *unheard))


def heard_as(clip: Clip, samples: np.ndarray, heard: Transcript, settings: Transcription) -> Clip:
    """The clip with what a back end heard; flagged where its publisher's text shares less than half of the words."""
    seconds = len(samples) / audio.SAMPLE_RATE
    clip = replace(clip, duration=seconds, language=clip.language or heard.language)
    agrees = bool(clip.text) and bool(heard.words) and _shared(str(clip.text), heard.text) >= SAME_ENOUGH
    if agrees and (by_its_text := _by_its_text(clip, samples, settings)):
        return by_its_text
    words, flags, holes = mended(heard.words, seconds)
    aligner = _aligner(settings)
    if aligner and words:
        words, more = aligned(words, samples, aligner)
        words, again, more_holes = mended(words, seconds)
        flags, holes = (*flags, *more, *again), (*holes, *more_holes)
    if clip.text and _shared(clip.text, heard.text) < SAME_ENOUGH:
        flags = (*flags, TEXT_DIFFERS)
    return _with(clip, _spoken_by(clip, words), (*heard.flags, *flags), (*heard.holes, *holes))


def _spoken_by(clip: Clip, words: tuple[Word, ...]) -> tuple[Word, ...]:
    if not clip.speaker:
        return words
    return tuple(replace(word, speaker=word.speaker or clip.speaker) for word in words)


def _with(clip: Clip, words: tuple[Word, ...], flags: tuple[str, ...], holes: tuple[Hole, ...] = ()) -> Clip:
    """The clip with its words, and with these flags and holes besides those that it had."""
    holes = tuple(dict.fromkeys((*clip.holes, *holes)))
    flags = (*clip.flags, *flags, *((WORDS_MISSING,) if holes else ()))
    return replace(clip, words=words, flags=tuple(dict.fromkeys(flags)), holes=holes)


def _shared(text: str, other: str) -> float:
    """The share of distinct words that two texts have in common, of the larger set; 1 where both are empty."""
    a, b = ({word.strip(PUNCTUATION).lower() for word in said.split()} for said in (text, other))
    return len(a & b) / max(1, len(a), len(b)) if a or b else 1.0


@cache
def _backend(settings: Transcription) -> Backend:
    language = None if settings.language == "auto" else settings.language
    if settings.backend == "transformers":
        from tgsr.data.transcribe.whisper_transformers import TransformersWhisper

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
