"""Audiology Verify: is what a response says it hears at a cited interval really there?

Each distinct cited interval is cut out, Whisper writes down what is said in it, and that is compared with the
explanation that the response gives for it. Source: section 5.4 and appendix C.4.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from tgsr import audio
from tgsr.data.transcribe.transcript import Backend
from tgsr.disk.whole import StrPath, write_whole
from tgsr.errors import AudioError
from tgsr.reasoning import ReasoningStep, reasoning_steps, spoken, word_agreement
from tgsr.records import Response, resolve_audio
from tgsr.timeline import ROUNDING, Seconds, is_past_end

SHORTEST: Seconds = 0.1  # of a crop that is heard: nothing is said in less
N_GRAM = 3

PAST_END = "starts at or past the clip's end"
TOO_SHORT = f"shorter than {SHORTEST} s inside the clip"
INVALID = "ends before it starts"
NO_EXPLANATION = "no explanation goes with it"
NO_SOUND = "the clip cannot be heard"


@dataclass(frozen=True, slots=True)
class VerifiedStep:
    """A distinct cited interval with one of its explanations, seconds as they were written.

    `similarity` in [0, 1]; None where `problem` says why.

    `explanation`: the words that the response says are heard there (its quotes where it quotes); `transcript`: what
    Whisper wrote of the crop, "" where nobody speaks, which is a similarity of 0.
    """

    start: Seconds
    end: Seconds
    explanation: str
    transcript: str | None
    similarity: float | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """One response's steps, in order of appearance; () where it cites nothing."""

    response: Response
    steps: tuple[VerifiedStep, ...]

    @property
    def value(self) -> float | None:
        """The mean similarity over the intervals that could be verified, in [0, 1]; None where there are none.

        An interval with several explanations has their mean.
        """
        return self._mean({step: step.similarity for step in self.steps})

    def value_by(self, measure: Callable[[str, str], float]) -> float | None:
        """`value` with another similarity, from the same transcripts."""
        similarities = {step: step.similarity for step in self.steps if step.similarity is not None}
        for step in similarities:
            if step.transcript is not None:
                similarities[step] = measure(step.explanation, step.transcript)
        return self._mean(similarities)

    def _mean(self, similarities: Mapping[VerifiedStep, float | None]) -> float | None:
        """Over the intervals, the mean of their steps' known similarities."""
        by_interval: dict[tuple[Seconds, Seconds], list[float]] = {}
        for step, similarity in similarities.items():
            if similarity is not None:
                by_interval.setdefault((step.start, step.end), []).append(similarity)
        means = [fmean(values) for values in by_interval.values()]
        return fmean(means) if means else None


# --- how alike two texts are -----------------------------------------------------------------------------------


def token_f1(explanation: str, transcript: str) -> float:
    """F1 of the two bags of words, in [0, 1]; 0 where one is empty."""
    a, b = Counter(spoken(explanation)), Counter(spoken(transcript))
    shared = sum((a & b).values())
    return 2 * shared / (sum(a.values()) + sum(b.values())) if shared else 0.0


def containment(explanation: str, transcript: str) -> float:
    """The share of the transcript's words that the explanation has, in [0, 1]; 0 for an empty transcript."""
    a, b = Counter(spoken(explanation)), Counter(spoken(transcript))
    return sum((a & b).values()) / sum(b.values()) if b else 0.0


def in_order(explanation: str, transcript: str) -> float:
    """F1 of the longest common subsequence of words (ROUGE-L), in [0, 1]; 0 where one is empty."""
    return word_agreement(spoken(explanation), spoken(transcript))


def character_cosine(explanation: str, transcript: str) -> float:
    """Cosine of the counts of three characters in a row, blanks between words included, in [0, 1]; 0 for no text.

    Words that are spelt alike count in part ("cleaned", "cleans"), so that Whisper's small errors cost little.
    """
    a, b = _n_grams(explanation), _n_grams(transcript)
    shared = sum(n * b[gram] for gram, n in a.items())
    return shared / (_norm(a) * _norm(b)) if shared else 0.0


def _n_grams(text: str) -> Counter[str]:
    words = spoken(text)
    padded = f" {' '.join(words)} " if words else ""
    return Counter(padded[i : i + N_GRAM] for i in range(len(padded) - N_GRAM + 1))


def _norm(counts: Counter[str]) -> float:
    return float(np.sqrt(sum(n * n for n in counts.values())))


SIMILARITIES: tuple[Callable[[str, str], float], ...] = (token_f1, containment, in_order, character_cosine)
"""What was compared; benchmarks/audiology.py draws their ROC curves, and docs/behaviour.md says why this one."""

similarity = in_order


# --- the pipeline ----------------------------------------------------------------------------------------------


def verify(
    responses: Sequence[Response], path: StrPath, cache: Path, backend: Backend, name: str
) -> list[Verified]:
    """Each response's cited intervals, verified, in order.

    `path` is the predictions' file, whose folder relative audio paths start from. `backend` writes the crops down, each
    by itself: in a window that crops share, Whisper goes on from one to the next, and a response's score would depend
    on its neighbours (docs/behaviour.md). What it wrote is kept under `cache` by the sound and by `name`, so that a
    second call hears nothing again and a stop costs one crop. An interval that cannot be verified has its reason;
    nothing that a model wrote raises.
    """
    crops = _Crops(cache / "audiology", name, backend)
    by_clip: dict[Path, list[int]] = {}
    steps = [_distinct(response) for response in responses]
    for index, response in enumerate(responses):
        if steps[index]:
            by_clip.setdefault(resolve_audio(response, path), []).append(index)
    verified = [Verified(response, ()) for response in responses]
    for clip, indexes in tqdm(by_clip.items(), desc="audiology", unit="clip", disable=len(by_clip) < 20):
        samples: audio.Samples | str
        try:
            samples = audio.load(clip)
        except (AudioError, FileNotFoundError) as error:
            samples = f"{NO_SOUND}: {error}"
        for index in indexes:
            of_clip = tuple(_verified(step, samples, crops) for step in steps[index])
            verified[index] = Verified(responses[index], of_clip)
    return verified


def _distinct(response: Response) -> list[ReasoningStep]:
    """Each distinct interval (C.4's region) with each of its different explanations, in order of appearance.

    Of an interval that is cited again what says nothing new is left out: no explanation, or one without a quote
    where another quotes ("so from 1 s to 2 s supports (b)").
    """
    by_interval: dict[tuple[Seconds, Seconds], list[ReasoningStep]] = {}
    for step in reasoning_steps(response.text):
        by_interval.setdefault((step.mention.start, step.mention.end), []).append(step)
    chosen: list[ReasoningStep] = []
    for steps in by_interval.values():
        quoted, heard = [step for step in steps if step.is_quoted], [step for step in steps if step.heard]
        telling = quoted or heard or steps[:1]
        chosen += {step.heard: step for step in reversed(telling)}.values()
    return sorted(chosen, key=lambda step: step.mention.text_start)


def _verified(step: ReasoningStep, samples: audio.Samples | str, crops: _Crops) -> VerifiedStep:
    """The step against what is heard in the clip's samples; a text says why there are none."""
    start, end, explanation = step.mention.start, step.mention.end, " ".join(step.heard)
    if isinstance(samples, str):
        return VerifiedStep(start, end, explanation, None, None, samples)
    duration = len(samples) / audio.SAMPLE_RATE
    problem = _problem(step, duration)
    if problem is not None:
        # Where no sound is there to be wrong about: a cited time past the end is the model's error, and scores 0.
        value = 0.0 if problem in (PAST_END, INVALID) else None
        return VerifiedStep(start, end, explanation, None, value, problem)
    last = min(end, duration)
    transcript = crops.text_of(samples[round(start * audio.SAMPLE_RATE) : round(last * audio.SAMPLE_RATE)])
    late = "runs past the clip's end: its part inside was heard" if is_past_end(end, duration) else None
    return VerifiedStep(start, end, explanation, transcript, similarity(explanation, transcript), late)


def _problem(step: ReasoningStep, duration: Seconds) -> str | None:
    """Why the step cannot be verified on a clip of that length."""
    if not step.mention.is_valid:
        return INVALID
    if step.mention.start >= duration:
        return PAST_END
    if min(step.mention.end, duration) - step.mention.start < SHORTEST - ROUNDING:
        return TOO_SHORT
    return None if step.heard else NO_EXPLANATION


class _Crops:
    """What is said in a crop, kept in one small file each: {"text": ...} under the hash of its sound."""

    def __init__(self, folder: Path, name: str, backend: Backend) -> None:
        self._folder = folder / hashlib.sha256(f"{name}, a crop a window".encode()).hexdigest()[:12]
        self._backend = backend

    def text_of(self, crop: audio.Samples) -> str:
        key = audio.content_hash(crop)
        file = self._folder / key[:2] / f"{key}.json"
        if file.exists():
            return str(json.loads(file.read_text(encoding="utf-8"))["text"])
        text = self._backend(crop.copy()).text
        write_whole(file, json.dumps({"text": text}))
        return text
