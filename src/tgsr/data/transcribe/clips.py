"""Clips of any corpus with the words that are said in them: what `tgsr transcribe` does to a shard of them."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from tgsr import audio
from tgsr.data.corpora.multispeaker import SPEAKER
from tgsr.data.shards import Made
from tgsr.data.transcribe.forced_alignment import Aligner, aligned, aligned_text, aligner_of
from tgsr.data.transcribe.given_text import matched
from tgsr.data.transcribe.parts import PART, Part, hear_in_parts, later, parts
from tgsr.data.transcribe.repair import SHORTEST, WORDS_MISSING, mended
from tgsr.data.transcribe.speakers import channel_name, loudness, named_by_turns, without_leaks
from tgsr.data.transcribe.speech import FRAME, is_speech, runs, speech_probability
from tgsr.data.transcribe.transcript import ENGLISH, Backend, Transcript, holes_of
from tgsr.data.transcribe.voices import voice_turns
from tgsr.data.transcribe.whisper import HEARING, FasterWhisper
from tgsr.data.transcribe.whisper_timestamped import WhisperTimestamped
from tgsr.disk.jsonl import Row
from tgsr.errors import AudioError, Bad, RecordError
from tgsr.models.packaged_weights import cache_folder
from tgsr.records import (
    NO_SPEECH,
    NOT_ENGLISH,
    SPEAKERS_GUESSED,
    TEXT_DIFFERS,
    TOO_LONG,
    UNALIGNED,
    UNHEARD,
    Clip,
    clip_of,
)
from tgsr.timeline import Hole, Seconds, Span, Word, in_order

BackendName = Literal["faster-whisper", "transformers", "whisper-timestamped"]
Channels = Literal["mixed", "separate"]
PUNCTUATION = ".,!?;:'\""
AT_ONCE: Seconds = 900.0  # of sound, and one clip more
MAX_SECONDS: Seconds = 8 * 3600.0
LONGEST_TEXT: Seconds = 40.0  # that is aligned as a whole; a longer one where its words are heard
SAME_ENOUGH = 0.5  # of the words of two texts


@dataclass(frozen=True, slots=True)
class Transcription:
    """How clips get their words.

    `backend` hears them, with the model in its own format (None: the packaged Whisper base). `align` has the words'
    times looked for again by forced alignment: "pocketsphinx", "ctc:MODEL", "qwen3" (its published model) or
    "qwen3:MODEL", or "none". `language` "en" takes English for granted, "fr" French; "auto" has it detected. Longer
    clips than `max_seconds` are flagged and not heard. `channels` "separate" hears each channel by itself, and names
    words by it. `words_from_text` has a clip's text believed against what is heard, at any length; `by_turns` has words
    named by the clip's turns. `root` is the folder that audio paths start from. What is heard of long recordings, of
    channels, and of a recording whose text is given, is kept in the cache's transcripts/parts.
    `voices` has words named by turns that are guessed from so many voices, 0: as many as differ.
    """

    root: str
    backend: BackendName = "faster-whisper"
    model: str | None = None
    align: str = "pocketsphinx"
    language: str = "auto"
    max_seconds: Seconds = MAX_SECONDS
    device: str = "cpu"
    threads: int = 0
    timestamped_python: str = sys.executable
    channels: Channels = "mixed"
    words_from_text: bool = False
    by_turns: bool = False
    voices: int | None = None


def transcribe_rows(settings: Transcription, rows: Sequence[Row]) -> Made:
    """Each row's clip with its words; a clip whose sound cannot be read is Bad. AT_ONCE of sound is in memory."""
    done: list[Clip] = []
    bad: list[Bad] = []
    waiting: list[tuple[Clip, np.ndarray]] = []
    for row in rows:
        try:
            clip = clip_of(row)
            path = sound_at(settings.root, clip.audio)
            clip = replace(clip, duration=audio.duration(path))
            is_heard = needs_sound(clip, settings)
            several = settings.channels == "separate" and is_heard and audio.n_channels(path) > 1
            if several or (is_heard and (clip.duration > PART or settings.words_from_text)):
                done += together(waiting, settings)
                waiting = []
                done.append(by_channel(clip, path, settings) if several else in_parts(clip, path, settings))
                continue
            samples = audio.load(path, max_seconds=math.inf) if is_heard else np.zeros(0, np.float32)
        except (AudioError, FileNotFoundError) as error:
            bad.append(Bad(str(sound_at(settings.root, str(row.get("audio")))), str(error)))
        except RecordError as error:
            bad.append(Bad(str(row.get("id")), error.problem, None, error.field))
        else:
            waiting.append((clip, samples))
        if sum(clip.duration for clip, samples in waiting if len(samples)) > AT_ONCE:
            done += together(waiting, settings)
            waiting = []
    done += together(waiting, settings)
    if settings.voices is not None:
        done = [with_voices(clip, settings) for clip in done]
    if settings.by_turns or settings.voices is not None:
        done = [replace(clip, words=named_by_turns(clip.words, clip.events)) for clip in done]
    return Made(done, bad)


def sound_at(root: str, name: str) -> Path:
    """Where the sound is that a file in the folder `root` names, without the way back from there: errors name it."""
    folder, parts = Path(os.path.realpath(root)), Path(name).parts
    while parts[:1] == ("..",):
        folder, parts = folder.parent, parts[1:]
    return folder.joinpath(*parts)


def together(clips: Sequence[tuple[Clip, np.ndarray]], settings: Transcription) -> list[Clip]:
    """The clips with their words, in order; those that must be heard are heard together."""
    done = [without_hearing(clip, samples, settings) for clip, samples in clips]
    left = [index for index, clip in enumerate(done) if clip is None]
    heard = _backend(settings).many([clips[index][1] for index in left]) if left else []
    for index, transcript in zip(left, heard, strict=True):
        done[index] = heard_as(*clips[index], transcript, settings)
    return [clip for clip in done if clip is not None]


def in_parts(clip: Clip, path: Path, settings: Transcription, channel: int | None = None) -> Clip:
    """A clip of any length with its words, in flat memory: it is heard in parts, which a later run finds again."""

    def sound() -> Iterator[Part]:
        return parts(audio.stream(path, channel))

    kept = cache_folder() / "transcripts" / "parts"
    heard = hear_in_parts(sound(), _backend(settings), kept, kept_as(settings), clip.duration, path.name)
    return _timed(clip, sound(), heard, settings)


def kept_as(settings: Transcription) -> str:
    """All that what is heard of a sound depends on, besides the sound: the key of what is kept of it."""
    made = Path(settings.model).stat().st_mtime_ns if settings.model and Path(settings.model).exists() else 0
    return json.dumps((settings.backend, settings.model, made, settings.language, HEARING))


def by_channel(clip: Clip, path: Path, settings: Transcription) -> Clip:
    """The clip with the words of each of its channels, each heard by itself; the channels are the words' speakers."""
    # the clip's text is that of all
    alone = [replace(clip, speaker=channel_name(n), text=None) for n in range(audio.n_channels(path))]
    heard = [in_parts(one, path, settings, channel) for channel, one in enumerate(alone)]
    loud = {one.speaker: loudness(audio.stream(path, n)) for n, one in enumerate(heard)}
    words = tuple(without_leaks([word for one in heard for word in one.words], loud))
    flags = dict.fromkeys(flag for one in heard for flag in one.flags if flag != NO_SPEECH or not words)
    silent = (replace(hole, speaker=one.speaker) for one in heard for hole in one.holes)
    holes = sorted(silent, key=lambda hole: hole.start)
    language = next((one.language for one in heard if one.words), clip.language)
    return replace(clip, words=words, flags=tuple(flags), holes=tuple(holes), language=language)


def with_voices(clip: Clip, settings: Transcription) -> Clip:
    """The clip with the turns of its voices among its events, flagged as a guess; itself where it has no words."""
    if not clip.words:
        return clip
    turns = voice_turns(parts(audio.stream(sound_at(settings.root, clip.audio))), settings.voices or None)
    inside = (replace(turn, end=min(turn.end, clip.duration)) for turn in turns if turn.start < clip.duration)
    others = (event for event in clip.events if not event.label.startswith(SPEAKER))
    return replace(clip, events=(*others, *inside), flags=(*clip.flags, SPEAKERS_GUESSED))


def needs_sound(clip: Clip, settings: Transcription) -> bool:
    """Whether anyone has to listen: not to a clip that has its words, is too long or in another language."""
    return not clip.words and clip.duration <= settings.max_seconds and _is_wanted(clip, settings)


def _is_wanted(clip: Clip, settings: Transcription) -> bool:
    """Not a clip whose publisher says that another language is spoken than English, or the one that is asked for."""
    return clip.language in (None, ENGLISH, settings.language)


def without_hearing(clip: Clip, samples: np.ndarray, settings: Transcription) -> Clip | None:
    """The clip with words and flags where no back end is needed, else None.

    Words that it has are mended and kept. Where its publisher says what is said, in English, that text is aligned.
    """
    if clip.words:
        return _with(clip, *mended(clip.words, clip.duration))
    if clip.duration > settings.max_seconds:
        return _with(clip, (), (TOO_LONG,))
    if not _is_wanted(clip, settings):
        return _with(clip, (), (NOT_ENGLISH,))
    return _by_its_text(clip, samples, settings) if clip.language == ENGLISH else None


def _by_its_text(clip: Clip, samples: np.ndarray, settings: Transcription) -> Clip | None:
    """The clip with its publisher's words at the times where they are found; None without a text, or not found."""
    aligner = aligner_of(settings.align, settings.device)
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
    clip = replace(clip, duration=len(samples) / audio.SAMPLE_RATE, language=clip.language or heard.language)
    agrees = bool(clip.text) and bool(heard.words) and _shared(str(clip.text), heard.text) >= SAME_ENOUGH
    is_english = NOT_ENGLISH not in heard.flags
    if agrees and is_english and (by_its_text := _by_its_text(clip, samples, settings)):
        return by_its_text
    return _timed(clip, [Part(0.0, samples)], heard, settings)


def _timed(clip: Clip, sound: Iterable[Part], heard: Transcript, settings: Transcription) -> Clip:
    """The clip with the heard words, or its own text's where it has one that fits them, at the times that forced
    alignment finds in its parts. RecordError where a text that is to be believed does not fit.
    """
    clip = replace(clip, language=clip.language or heard.language)
    words, flags, holes = mended(heard.words, clip.duration)
    flags, holes = (*heard.flags, *flags), (*heard.holes, *holes)
    if clip.text and (clip.duration > LONGEST_TEXT or settings.words_from_text) and words:
        found = matched(clip.text, words, holes, clip.duration)
        if found.share >= SAME_ENOUGH:
            words, holes = found.words, found.holes
            if UNHEARD in flags and not any(hole.text is None for hole in holes):
                flags = tuple(flag for flag in flags if flag != UNHEARD)
        elif settings.words_from_text:
            problem = f"is not what is said here: {found.share:.0%} of its words are heard, in order"
            raise RecordError("text", f"{problem}; give this recording's text, or none")
        else:
            flags = (*flags, TEXT_DIFFERS)
    elif clip.text and _shared(clip.text, heard.text) < SAME_ENOUGH:
        flags = (*flags, TEXT_DIFFERS)
    aligner = aligner_of(settings.align, settings.device)
    spoken = heard.language if NOT_ENGLISH in flags else ENGLISH
    if words and aligner and (aligner.languages is None or spoken in aligner.languages):
        words, more = _aligned_in(sound, words, aligner)
        flags = (*flags, *more)
    elif words and NOT_ENGLISH in flags:
        flags = (*flags, UNALIGNED)
    words, again, more_holes = mended(words, clip.duration)
    holes = (*holes, *more_holes)
    return _with(clip, _spoken_by(clip, words), (*flags, *again), holes)


def _aligned_in(
    sound: Iterable[Part], words: Sequence[Word], aligner: Aligner
) -> tuple[tuple[Word, ...], tuple[str, ...]]:
    """`aligned` in each part of the sound, of the words whose middles are in it."""
    left = deque(in_order(words))
    timed: list[Word] = []
    flags: dict[str, None] = {}
    for part in sound:
        inside: list[Word] = []
        while left and (left[0].start + left[0].end) / 2 < part.end:
            word = left.popleft()
            start = min(max(0.0, word.start - part.start), len(part.samples) / audio.SAMPLE_RATE)
            inside.append(replace(word, start=start, end=max(start + SHORTEST, word.end - part.start)))
        speech = runs(is_speech(speech_probability(part.samples))) if inside else []
        spoken = [Span(first * FRAME, stop * FRAME) for first, stop in speech]
        found, more = aligned(inside, part.samples, aligner, spoken)
        timed += [later(word, part.start) for word in found]
        flags |= dict.fromkeys(more)
    return (*timed, *left), tuple(flags)


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
    folder = None if settings.model is None else Path(settings.model)
    return FasterWhisper(folder, language, threads=settings.threads)
