"""What is done to a question's clip under each condition of `tgsr control`, and the question as it is asked then."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from tgsr import audio
from tgsr.audio import Samples
from tgsr.data.splits import drawn
from tgsr.disk.sound_folder import SoundFolder
from tgsr.disk.whole import sha256_of
from tgsr.errors import AudioError, OptionError, require
from tgsr.evaluation.controls import FAITHFULNESS, FAMILIES, OF_REASONING, OFFERED, PUBLISHED
from tgsr.evaluation.controls import interventions as on
from tgsr.evaluation.controls.interventions import Fill
from tgsr.evaluation.controls.reasoning import NO_MISTAKE, NO_REASONING, UNCHANGED
from tgsr.records import Question, resolve_audio
from tgsr.timeline import Seconds, Span

OF_EVIDENCE = ("evidence-only", "evidence-cropped", "evidence-removed", "random-removed")

FOLLOWS: Seconds = 0.3  # how far a cited time may be from where the sound went, and still follow it
STAYS: Seconds = 0.1  # how far it may be from where it was, and still stay

NO_EVIDENCE = "no evidence"
NO_ROOM = "no room for a random stretch"
TOO_LONG = "longer than the model hears"
NO_OTHER = "no other clip"
NO_SPEECH = "no recording of the option is in --spoken"
NOT_HEARD = "not heard"
EXPECTED = (NO_EVIDENCE, NO_ROOM, TOO_LONG, NO_OTHER, NO_SPEECH, NO_REASONING, NO_MISTAKE, UNCHANGED)

WhoseEvidence = Literal["cited", "reference"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked. `shifts` in seconds; `draws`: random removals for each question; `pad` on both sides of evidence.

    shares: of a clip that is masked, of a reasoning's words that are cut off or become filler, in per cent; snrs: in
    dB; spoken: the folder of recordings of options, by their texts; rewriter: the LLM that paraphrases and adds
    mistakes. OptionError for settings that no run has.
    """

    evidence: WhoseEvidence = "cited"
    pad: Seconds = 0.1
    fill: Fill = "silence"
    shifts: tuple[Seconds, ...] = (0.5, 1.0, 2.0)
    draws: int = 1
    families: tuple[str, ...] = FAMILIES
    seed: int = 0
    shares: tuple[float, ...] = (20.0, 40.0, 60.0, 80.0, 100.0)
    snrs: tuple[float, ...] = (20.0, 10.0, 0.0, -10.0, -20.0)
    spoken: str | None = None
    rewriter: str | None = None

    def __post_init__(self) -> None:
        require("pad", self.pad, "0 s or more", 0 <= self.pad < math.inf)
        require("draws", self.draws, "1 or more", self.draws >= 1)
        least = f"above {FOLLOWS + STAYS:g} s, or a time that stays could pass for one that follows"
        for option, values, must, fits in (
            ("--shifts", self.shifts, least, lambda delta: FOLLOWS + STAYS < delta < math.inf),
            ("--shares", self.shares, "above 0 and at most 100", lambda share: 0 < share <= 100),
            ("--snrs", self.snrs, "a number of dB", math.isfinite),
        ):
            if not all(map(fits, values)):
                raise OptionError(f"{option} {' '.join(f'{one:g}' for one in values)}: each must be {must}")
        if unknown := [family for family in self.families if family not in (*OFFERED, FAITHFULNESS)]:
            there = f"{', '.join(OFFERED)}, {FAITHFULNESS}"
            raise OptionError(f"--conditions {' '.join(unknown)}: must be of {there}")
        for family, option in (("spoken", "spoken"), ("paraphrased", "rewriter")):
            if family in self.families and getattr(self, option) is None:
                raise OptionError(f"--conditions {family}: needs --{option}")

    @property
    def asked(self) -> tuple[str, ...]:
        """The families that are asked for, in the order of the table; of FAITHFULNESS those that there is all for."""
        needs = {"spoken": self.spoken, "paraphrased": self.rewriter}
        of_word = [f for f in PUBLISHED if FAITHFULNESS in self.families and needs.get(f, "") is not None]
        return tuple(family for family in OFFERED if family in (*self.families, *of_word))


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to alter the sound or the reasoning, of a family of them.

    `delta` is a shift's, `level` a share in per cent or decibels, `is_right` whether the spoken option is.
    """

    name: str
    family: str
    delta: Seconds = 0.0
    level: float = 100.0
    is_right: bool = False

    @property
    def is_of_reasoning(self) -> bool:
        """Whether the sound is as it was, and the model goes on from a reasoning that is given to it."""
        return self.family in ("reasoned", *OF_REASONING)


def conditions_of(settings: Settings, temperature: float = 0.0) -> list[Condition]:
    """All conditions but "original", in the order of the table.

    Where responses are sampled, "repeated" asks about the unaltered clip again: what chance alone changes.
    """
    conditions = [Condition("repeated", "repeated")] if temperature > 0 else []
    shares = sorted(set(settings.shares))
    if set(settings.asked) & set(OF_REASONING):
        conditions.append(Condition("reasoned", "reasoned"))
    for family in settings.asked:
        if family == "shifted":
            deltas = sorted(set(settings.shifts))
            conditions += [Condition(f"shifted-{delta:g}", family, delta) for delta in deltas]
        elif family == "masked":  # all of it: silenced
            conditions += [Condition(f"masked-{s:g}", family, level=s) for s in shares if s < 100]
        elif family == "noisy":
            snrs = sorted(set(settings.snrs), reverse=True)
            conditions += [Condition(f"noisy-{snr:g}dB", family, level=snr) for snr in snrs]
        elif family == "spoken":
            conditions += [
                Condition(f"spoken-{w}", family, is_right=w == "right") for w in ("right", "wrong")
            ]
        elif family == "early":
            conditions += [Condition(f"early-{100 - s:g}", family, level=100 - s) for s in shares]
        elif family == "filler":
            conditions += [Condition(f"filler-{s:g}", family, level=s) for s in shares]
        else:
            conditions.append(Condition(family, family))
        if family == "evidence-removed":
            names = ["random-removed", *(f"random-removed-{n + 1}" for n in range(1, settings.draws))]
            conditions += [Condition(name, "random-removed") for name in names]
    return conditions


@dataclass(frozen=True, slots=True)
class SoundFile:
    """A clip's file as it is: where, the hash of its bytes, its length."""

    path: Path
    sha256: str
    duration: Seconds


def sources_of(questions: Iterable[Question], path: Path) -> dict[str, SoundFile | str]:
    """For each `audio` of the questions its file, or why it cannot be read. `path`: the questions' file."""
    sources: dict[str, SoundFile | str] = {}
    for question in questions:
        if question.audio not in sources:
            file = resolve_audio(question, path).resolve()
            try:
                duration = audio.duration(file)  # AudioError where there is no file, so it comes first
                sources[question.audio] = SoundFile(file, sha256_of(file), duration)
            except AudioError as error:
                sources[question.audio] = str(error)
    return sources


def others_of(sources: Mapping[str, SoundFile | str], seed: int) -> dict[str, SoundFile]:
    """For each readable `audio` another clip, of other content: a seeded derangement among clips of like length.

    {} where all files have the same content. Files of the same content get the same other clip.
    """
    by_content = {s.sha256: s for s in sources.values() if isinstance(s, SoundFile)}
    durations = {content: source.duration for content, source in by_content.items()}
    others = on.derangement(durations, np.random.default_rng(drawn(seed, "swapped")))
    return {
        name: by_content[others[source.sha256]]
        for name, source in sources.items()
        if isinstance(source, SoundFile) and source.sha256 in others
    }


def speech_of(
    question: Question, condition: Condition, folder: SoundFolder | None, seed: int
) -> SoundFile | None:
    """The recording of the right option, or of a wrong one that the seed draws; None where there is none."""
    wrong = sorted({choice for choice in question.choices if choice != question.answer})
    option = str(question.answer)
    if not condition.is_right:
        rng = np.random.default_rng(drawn(seed, f"spoken {question.id}"))
        option = wrong[int(rng.integers(len(wrong)))] if wrong else option
    path = None if folder is None or (not wrong and not condition.is_right) else folder.find(option)
    try:
        return None if path is None else SoundFile(path, sha256_of(path), audio.duration(path))
    except AudioError:
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a condition makes of one question's clip: `sound` of its samples, `evidence` where the question's lies then.

    `key` names all that the sound depends on besides the clip; `expected` as in ControlItem, for any interval.
    """

    sound: Callable[[Samples], Samples]
    evidence: tuple[Span, ...]
    key: str
    spans: tuple[Span, ...] = ()
    expected: Callable[[Span], Seconds | None] = lambda _: None


def plan(
    condition: Condition,
    evidence: tuple[Span, ...],
    spans: tuple[Span, ...],
    source: SoundFile,
    settings: Settings,
    other: SoundFile | None = None,
) -> Plan | str:
    """The plan, or the reason for which the question is skipped.

    `evidence`: the question's own places, which move with the sound; `spans`: those that are kept or removed,
    padded and disjoint; `other`: what is spoken over it. What is drawn follows from the seed, the condition, the clip
    and the spans alone.
    """
    duration, fill = source.duration, settings.fill
    family = condition.family
    key = f"{condition.name} {fill} {settings.seed}"
    if family in OF_EVIDENCE:
        if not spans:
            return NO_EVIDENCE
        key += " " + " ".join(f"{span.start:.4f}-{span.end:.4f}" for span in spans)
    rng = np.random.default_rng(drawn(settings.seed, f"{source.sha256} {key}"))
    if family == "random-removed":
        elsewhere = on.random_stretches(spans, duration, rng)
        if elsewhere is None:
            return NO_ROOM
        return Plan(lambda x: on.removed(x, elsewhere, fill, rng), evidence, key, elsewhere)
    if family == "evidence-removed":
        return Plan(lambda x: on.removed(x, spans, fill, rng), evidence, key, spans)
    if family == "evidence-only":
        return Plan(lambda x: on.kept(x, spans, fill, rng), evidence, key, spans)
    if family == "evidence-cropped":
        return Plan(lambda x: on.cropped(x, spans), on.cropped_spans(evidence, spans), key, spans)
    if family == "shifted":
        delta = condition.delta
        moved = on.shifted_spans(evidence, delta)
        return Plan(lambda x: on.shifted(x, delta, fill, rng), moved, key, expected=lambda _: delta)
    if family == "rolled":
        half = duration / 2
        moved = on.rolled_spans(evidence, half, duration)
        rolled_by = partial(_rolled_by, half=half, duration=duration)
        return Plan(lambda x: on.rolled(x, half), moved, key, expected=rolled_by)
    if family == "masked":
        stretches = on.scattered(duration, condition.level, rng)
        return Plan(lambda x: on.removed(x, stretches, fill, rng), evidence, key, stretches)
    if family == "noisy":
        return Plan(lambda x: on.noisy(x, condition.level, rng), evidence, key)
    if family == "spoken" and other is not None:
        key += f" {other.sha256}"
        start = float(rng.uniform(0, max(0.0, duration - other.duration)))
        speech = partial(audio.load, other.path, max_seconds=math.inf)
        return Plan(lambda x: on.spoken_over(x, speech(), start), evidence, key)
    if family == "reversed":
        return Plan(on.backwards, on.backwards_spans(evidence, duration), key)
    return Plan(lambda x: on.silenced(x, fill, rng), evidence, key)


def _rolled_by(span: Span, half: Seconds, duration: Seconds) -> Seconds | None:
    """How far rolling by half the clip moves a span; None for one that is cut in two or outside the clip.

    None, too, for clips so short that a span could stay and follow at once.
    """
    moved = on.rolled_spans([span], half, duration)
    return moved[0].start - span.start if len(moved) == 1 and half > FOLLOWS + STAYS else None


@dataclass(frozen=True, slots=True)
class Altered:
    """A question about altered sound, as it is asked, and what was done."""

    question: Question
    plan: Plan


def alter(
    condition: Condition,
    question: Question,
    spans: tuple[Span, ...],
    source: SoundFile | str | None,
    other: SoundFile | None,
    out: Path,
    settings: Settings,
    max_seconds: Seconds,
) -> Altered | str:
    """The question about the altered clip, whose file is written unless it is there; or why there is none.

    The question keeps its id and clip_id. Its audio is an absolute path.
    """
    if not isinstance(source, SoundFile):
        return f"{NOT_HEARD}: {source}"
    if condition.family == "repeated":
        return Altered(replace(question, audio=str(source.path)), Plan(lambda x: x, question.evidence, ""))
    if condition.family == "swapped":
        if other is None:
            return NO_OTHER
        if other.duration > max_seconds:
            return TOO_LONG
        swapped = replace(question, audio=str(other.path), duration=other.duration, evidence=())
        return Altered(swapped, Plan(lambda x: x, (), ""))
    if condition.family == "spoken" and other is None:
        return NO_SPEECH
    planned = plan(condition, question.evidence, spans, source, settings, other)
    if isinstance(planned, str):
        return planned
    if source.duration + condition.delta > max_seconds:
        return TOO_LONG
    name = hashlib.sha256(f"{source.sha256} {planned.key}".encode()).hexdigest()[:24]
    file = (out / "audio" / condition.name / f"{name}.flac").resolve()
    try:
        if not file.exists():
            audio.save_flac(file, planned.sound(audio.load(source.path, max_seconds=math.inf)))
        duration = audio.duration(file)
    except AudioError as error:
        return f"{NOT_HEARD}: {error}"
    inside = (place for place in planned.evidence if place.start < duration)
    places = tuple(Span(place.start, min(place.end, duration)) for place in inside)
    if question.kind == "phrase" and len(places) != len(question.evidence):
        places = ()  # cut in two by the seam
    return Altered(replace(question, audio=str(file), duration=duration, evidence=places), planned)
