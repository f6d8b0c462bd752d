"""Phrases in a long recording: Whisper's times of the cascade, and those of a model that listens there again.

    python benchmarks/refined.py [--model mini-en:tokens] [--clips CLIPS.jsonl ...] [--phrases 6]

Clips with words and times, one after the other with pauses between them, are one recording for each file; without
--clips it is the shipped sentences of the held-out voices. Of each clip some phrases of 2 to 6 words are asked that are
said once in the recording. Printed of those that the cascade finds: IoU with its 95 % interval, share with IoU >= 0.7,
median and 90th percentile of the errors of starts and ends, in seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tgsr import audio
from tgsr.answering.cascade import Cascade, found, load_cascade
from tgsr.answering.in_windows import refined
from tgsr.cli import script
from tgsr.data.corpora.spoken_english import sentences
from tgsr.data.questions.phrases import phrase_questions
from tgsr.miniature.english_lessons import plainly
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.models.packaged_weights import cache_folder
from tgsr.records import Clip, read_clips, resolve_audio
from tgsr.timeline import Span

PAUSE = (0.3, 1.5)  # seconds between two clips


@dataclass(frozen=True, slots=True)
class Asked:
    """A phrase and where it is said in the recording."""

    phrase: str
    truth: Span


def recording(
    path: Path, clips: Sequence[Clip], n: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[Asked]]:
    """The clips' samples joined, and up to n phrases of each clip that are said once."""
    parts: list[np.ndarray] = []
    asked: list[Asked] = []
    said: list[str] = []
    at = 0
    for clip in map(plainly, clips):
        samples = audio.load(resolve_audio(clip, path))
        pause = audio.silence(float(rng.uniform(*PAUSE)))
        shift = (at + len(pause)) / audio.SAMPLE_RATE
        for question in phrase_questions(clip, rng, n, n_max=6):
            (span,) = question.evidence
            asked.append(Asked(str(question.phrase), Span(span.start + shift, span.end + shift)))
        said += [word.text for word in clip.words]
        parts += [pause, samples]
        at += len(pause) + len(samples)
    text = f" {' '.join(said)} "
    return np.concatenate(parts), [one for one in asked if text.count(f" {one.phrase} ") == 1]


def row(name: str, spans: Sequence[Span], truths: Sequence[Span]) -> str:
    ious = np.array([span.iou(truth) for span, truth in zip(spans, truths, strict=True)])
    draws = np.random.default_rng(0).integers(len(ious), size=(2000, len(ious)))
    low, high = np.quantile(ious[draws].mean(1), (0.025, 0.975))
    starts, ends = (
        np.array(
            [
                abs(getattr(span, side) - getattr(truth, side))
                for span, truth in zip(spans, truths, strict=True)
            ]
        )
        for side in ("start", "end")
    )
    errors = [float(np.quantile(off, share)) for off in (starts, ends) for share in (0.5, 0.9)]
    return (
        f"| {name} | {len(ious)} | {ious.mean():.3f} [{low:.3f}, {high:.3f}] | {100 * (ious >= 0.7).mean():.1f} % | "
        f"{' | '.join(f'{error:.3f}' for error in errors)} |"
    )


def compare(
    cascade: Cascade, listener: Lalm, samples: np.ndarray, asked: Sequence[Asked]
) -> tuple[list[Span], ...]:
    """Of the phrases that the cascade finds: their true spans, the cascade's, and the listener's."""
    words = cascade.transcript(samples).words
    truths, whispers, listeners = [], [], []
    for one in asked:
        if (span := found(one.phrase, words)) is None:
            continue
        truths.append(one.truth)
        whispers.append(span)
        listeners.append(refined(listener, samples, one.phrase, span))
    print(
        f"{len(samples) / audio.SAMPLE_RATE:.0f} s, {len(asked)} phrases, {len(truths)} found by the cascade"
    )
    return truths, whispers, listeners


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini-en:tokens")
    parser.add_argument("--clips", type=Path, nargs="+", default=[sentences()])
    parser.add_argument("--phrases", type=int, default=6)
    args = parser.parse_args()
    measure(load(args.model), args.clips, args.phrases)


def measure(listener: Lalm, paths: Sequence[Path], n_phrases: int) -> None:
    cascade = load_cascade("cascade", cache=cache_folder())
    columns: list[list[Span]] = [[], [], []]
    for path in paths:
        clips = [clip for clip in read_clips(path) if clip.split == "test"]
        samples, asked = recording(path, clips, n_phrases, np.random.default_rng(0))
        for column, spans in zip(columns, compare(cascade, listener, samples, asked), strict=True):
            column += spans
    truths, whispers, listeners = columns
    print("| times by | phrases | IoU | IoU >= 0.7 | start, median | start, 90 % | end, median | end, 90 % |")
    print("|---|---|---|---|---|---|---|---|")
    print(row("cascade", whispers, truths))
    print(row(f"cascade+{listener.name}", listeners, truths))


if __name__ == "__main__":
    raise SystemExit(script(main))
