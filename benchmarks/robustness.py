"""The same questions about altered sound: noise, level, speed, and the clips by their length.

    python benchmarks/robustness.py runs/phrases/questions.jsonl runs/choices/questions.jsonl --out runs/robust

A folder a condition, each with questions.jsonl, clips.jsonl and audio/: what `tgsr predict` reads. Noise is white, so
many dB below the clip's own power; speed is that of a tape, pitch and all, and moves the times; loud is clipped at 1.
Clips longer than MOST seconds are left out of all conditions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr

from tgsr import audio
from tgsr.cli import script
from tgsr.records import Clip, Question, read_clips, read_questions, resolve_audio, write_jsonl
from tgsr.timeline import Seconds, Span

LONG = 5.0  # seconds; where the clips are parted by their length
MOST = 9.0  # seconds of a clip: made slower it still fits into the 10 s that the miniature hears
Samples = audio.Samples


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to a clip's samples, how much faster it is then, and which clips there are, by their length."""

    change: Callable[[Samples, np.random.Generator], Samples] = lambda samples, _: samples
    speed: float = 1.0
    lengths: tuple[Seconds, Seconds] = (0.0, np.inf)


def with_noise(decibels: float) -> Callable[[Samples, np.random.Generator], Samples]:
    """White noise whose power is so many dB below the clip's."""

    def change(samples: Samples, rng: np.random.Generator) -> Samples:
        level = np.sqrt(np.mean(samples.astype(float) ** 2)) * 10 ** (-decibels / 20)
        return (samples + rng.normal(0, level, len(samples))).clip(-1, 1).astype(np.float32)

    return change


def with_level(decibels: float) -> Callable[[Samples, np.random.Generator], Samples]:
    return lambda samples, _: (samples * 10 ** (decibels / 20)).clip(-1, 1).astype(np.float32)


def at_speed(factor: float) -> Callable[[Samples, np.random.Generator], Samples]:
    rate = audio.SAMPLE_RATE
    return lambda samples, _: soxr.resample(samples, rate * factor, rate).clip(-1, 1).astype(np.float32)


CONDITIONS = {
    "clean": Condition(),
    "noise 20 dB": Condition(with_noise(20)),
    "noise 10 dB": Condition(with_noise(10)),
    "noise 0 dB": Condition(with_noise(0)),
    "20 dB quieter": Condition(with_level(-20)),
    "12 dB louder": Condition(with_level(12)),
    "10 % slower": Condition(at_speed(0.9), speed=0.9),
    "10 % faster": Condition(at_speed(1.1), speed=1.1),
    "at most 5 s": Condition(lengths=(0.0, LONG)),
    "over 5 s": Condition(lengths=(LONG, np.inf)),
}


def folder_of(name: str) -> str:
    """A condition's folder."""
    return name.replace(" %", "").replace(" ", "-")


def moved(span: Span, speed: float, end: Seconds) -> Span:
    return Span(span.start / speed, min(span.end / speed, end))


def alter(
    asked: list[tuple[Path, Question]], clips: dict[str, Clip], condition: Condition, out: Path
) -> None:
    """The questions about clips of the condition's lengths, with their sound, words and times as it has them."""
    heard: dict[str, Clip] = {}
    written: list[Question] = []
    low, high = condition.lengths
    for path, question in asked:
        if not low < question.duration <= high:
            continue
        name, speed = f"audio/{question.clip_id}.flac", condition.speed
        if question.clip_id not in heard:
            clip = clips[question.clip_id]
            rng = np.random.default_rng(sorted(clips).index(clip.id))
            samples = condition.change(audio.load(resolve_audio(question, path)), rng)
            (out / "audio").mkdir(parents=True, exist_ok=True)
            audio.save_flac(out / name, samples)
            end = len(samples) / audio.SAMPLE_RATE
            words = tuple(
                replace(word, start=word.start / speed, end=min(word.end / speed, end)) for word in clip.words
            )
            heard[clip.id] = replace(clip, audio=name, duration=end, words=words)
        end = heard[question.clip_id].duration
        places = tuple(moved(span, speed, end) for span in question.evidence)
        written.append(replace(question, audio=name, duration=end, evidence=places))
    write_jsonl(out / "clips.jsonl", heard.values())
    write_jsonl(out / "questions.jsonl", written)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path, nargs="+", help="clips.jsonl lies beside each")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    asked = [
        (path, question)
        for path in args.questions
        for question in read_questions(path)
        if question.duration <= MOST
    ]
    clips = {clip.id: clip for path in args.questions for clip in read_clips(path.with_name("clips.jsonl"))}
    for name, condition in CONDITIONS.items():
        alter(asked, clips, condition, args.out / folder_of(name))
    print(f"{args.out}: {len(asked)} questions, {len(clips)} clips, {len(CONDITIONS)} conditions")


if __name__ == "__main__":
    raise SystemExit(script(main))
