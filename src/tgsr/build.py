"""Questions from clips: stage 1's phrases from any clips with word times, both stages' from spoken digits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from tgsr.audio import SAMPLE_RATE
from tgsr.corpora.digit_questions import choice_questions
from tgsr.corpora.spoken_digits import compose
from tgsr.queries import phrase_questions
from tgsr.records import Clip, Question, resolve_audio, write_jsonl


class BuildError(ValueError):
    """Questions that cannot be made or may not be written there; the message says what to do."""


def require_new(out: Path) -> None:
    """Raises BuildError where `out` holds questions already."""
    if (out / "questions.jsonl").exists():
        raise BuildError(f"{out}: holds questions.jsonl already; choose another --out or delete that folder")


def compose_clips(n_clips: int, split: str, first_seed: int, out: Path) -> list[Clip]:
    """n_clips clips of spoken digits as FLAC files in out/audio; files that are whole are kept."""
    (out / "audio").mkdir(parents=True, exist_ok=True)
    clips = []
    for seed in tqdm(range(first_seed, first_seed + n_clips), desc=f"compose {split}", unit="clip"):
        made = compose(seed, split)
        path = out / made.clip.audio
        if not path.exists():
            _write_flac(path, made.samples)
        clips.append(made.clip)
    return clips


def _write_flac(path: Path, samples: np.ndarray) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".flac", delete=False) as half_written:
        pass
    try:
        # As integers: libsndfile scales floats by 32767 on writing and by 32768 on reading.
        pcm = np.round(samples * 32768).clip(-32768, 32767).astype(np.int16)
        soundfile.write(half_written.name, pcm, SAMPLE_RATE, subtype="PCM_16")
        os.replace(half_written.name, path)
    finally:
        Path(half_written.name).unlink(missing_ok=True)


def ask_about(clips: Sequence[Clip], stage: str, phrases_per_clip: int, seed: int) -> list[Question]:
    """stage "sta": phrases of 2-8 words; stage "qa": one question a task that the clip allows."""
    questions: list[Question] = []
    for index, clip in enumerate(clips):
        rng = np.random.default_rng((seed, index))
        if stage == "sta":
            questions += phrase_questions(clip, rng, phrases_per_clip)
        else:
            questions += choice_questions(clip, rng)
    return questions


def write_questions(clips: Sequence[Clip], questions: Sequence[Question], out: Path) -> Path:
    """clips.jsonl and questions.jsonl in `out`. Raises BuildError where there is no question to write."""
    if not questions:
        raise BuildError("no question could be made: the clips need words with times, at least two of them")
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "clips.jsonl", clips)
    write_jsonl(out / "questions.jsonl", questions)
    return out / "questions.jsonl"


def moved(clips: Sequence[Clip], clips_path: Path, out: Path) -> list[Clip]:
    """The clips with their audio's paths as seen from `out`."""
    return [
        replace(c, audio=os.path.relpath(resolve_audio(c, clips_path).resolve(), out.resolve()))
        for c in clips
    ]
