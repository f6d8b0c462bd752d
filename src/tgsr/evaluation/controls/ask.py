"""`tgsr control`: the same questions while the sound is altered. What does an answer rest on?

Attention says where a model looks; only a change of the sound says what it uses. Each question is asked about the clip
as it is and about altered ones (`interventions.py`), and three things are measured: whether the evidence suffices for
the answer, whether the answer needs it, and whether cited times move with the sound. docs/controls.md has the formulas
and what they cannot show. Source: the causal reading of sections 1 and 5.1's "faithful audio grounding", which the
paper infers from attention; sufficiency and necessity as in DeYoung et al. 2020, for seconds instead of words.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from tgsr import audio
from tgsr.answering.predict import predict_to_file
from tgsr.answering.responder import Responder
from tgsr.audio import Samples
from tgsr.choices import correct_letter, extract_choice, official_letter
from tgsr.data.splits import drawn
from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.whole import sha256_of
from tgsr.engine.features import FeatureCache
from tgsr.errors import AudioError, OptionError, RecordError, RunError
from tgsr.evaluation.controls import FAMILIES
from tgsr.evaluation.controls import interventions as on
from tgsr.evaluation.controls.interventions import Fill
from tgsr.grounding import find_mentions, find_spans
from tgsr.llm.decoding import Decoding, Failed
from tgsr.models.lalm import Lalm
from tgsr.overlap import evidence_crop, item_iou
from tgsr.records import Question, Response, append_jsonl, read_responses, resolve_audio, write_jsonl
from tgsr.timeline import Seconds, Span

OF_EVIDENCE = ("evidence-only", "evidence-cropped", "evidence-removed", "random-removed")
OF_PHRASES = ("original", "repeated", "silenced", "swapped", "shifted", "rolled")

FOLLOWS: Seconds = 0.3  # how far a cited time may be from where the sound went, and still follow it
STAYS: Seconds = 0.1  # how far it may be from where it was, and still stay

NO_EVIDENCE = "no evidence"
NO_ROOM = "no room for a random stretch"
TOO_LONG = "longer than the model hears"
NO_OTHER = "no other clip"
NOT_HEARD = "not heard"
EXPECTED = (NO_EVIDENCE, NO_ROOM, TOO_LONG, NO_OTHER)

Evidence = Literal["cited", "reference"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked. `shifts` in seconds; `draws`: random removals for each question; `pad` on both sides of evidence.

    OptionError for settings that no run has.
    """

    evidence: Evidence = "cited"
    pad: Seconds = 0.1
    fill: Fill = "silence"
    shifts: tuple[Seconds, ...] = (0.5, 1.0, 2.0)
    draws: int = 1
    families: tuple[str, ...] = FAMILIES
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.pad) and self.pad >= 0):
            raise OptionError(f"--pad {self.pad}: must be 0 s or more")
        if not all(math.isfinite(delta) and delta > FOLLOWS + STAYS for delta in self.shifts):
            raise OptionError(
                f"--shifts {' '.join(f'{d:g}' for d in self.shifts)}: each must be above {FOLLOWS + STAYS:g} s, "
                "or a time that stays could pass for one that follows"
            )
        if self.draws < 1:
            raise OptionError(f"--draws {self.draws}: must be 1 or more")
        if unknown := [family for family in self.families if family not in FAMILIES]:
            raise OptionError(f"--conditions {' '.join(unknown)}: must be of {', '.join(FAMILIES)}")


@dataclass(frozen=True, slots=True)
class Control:
    """What all answers in one folder have in common, for its run.json: conditions and models may be added later."""

    evidence: Evidence
    pad: Seconds
    fill: Fill
    seed: int
    max_new_tokens: int
    temperature: float
    top_p: float


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to alter the sound, of a family of them; `delta` is a shift's."""

    name: str
    family: str
    delta: Seconds = 0.0


def conditions_of(settings: Settings, temperature: float = 0.0) -> list[Condition]:
    """All conditions but "original", in the order of the table.

    Where responses are sampled, "repeated" asks about the unaltered clip again: what chance alone changes.
    """
    found = [Condition("repeated", "repeated")] if temperature > 0 else []
    for family in FAMILIES:
        if family not in settings.families:
            continue
        if family == "shifted":
            deltas = sorted(set(settings.shifts))
            found += [Condition(f"shifted-{delta:g}", family, delta) for delta in deltas]
        else:
            found.append(Condition(family, family))
        if family == "evidence-removed":
            names = ["random-removed", *(f"random-removed-{n + 1}" for n in range(1, settings.draws))]
            found += [Condition(name, "random-removed") for name in names]
    return found


@dataclass(frozen=True, slots=True)
class ControlItem:
    """One question under one condition.

    `skipped` says why there is no response; then all else is None or empty. `answer`: the choice that the response
    ends up with. `is_same`: whether that is the original response's; for a phrase, whether its first interval stays
    in its place; None where the original has none. `cited`: the distinct valid intervals, in order of appearance.
    `spans`: what was kept or removed, or, of the original, the evidence that will be. `expected`: how far the sound
    of each interval that the original cites has moved; None where it was cut in two. `iou`: of a phrase.
    """

    question: Question
    model: str
    condition: str
    skipped: str | None = None
    response: str | None = None
    answer: str | None = None
    is_right: bool | None = None
    is_right_official: bool | None = None
    is_same: bool | None = None
    iou: float | None = None
    cited: tuple[Span, ...] = ()
    spans: tuple[Span, ...] = ()
    expected: tuple[Seconds | None, ...] = ()


# --- altering --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A clip's file as it is: where, the hash of its bytes, its length."""

    path: Path
    sha256: str
    duration: Seconds


def sources_of(questions: Iterable[Question], path: Path) -> dict[str, Source | str]:
    """For each `audio` of the questions its file, or why it cannot be read. `path`: the questions' file."""
    found: dict[str, Source | str] = {}
    for question in questions:
        if question.audio not in found:
            file = resolve_audio(question, path).resolve()
            try:
                seconds = audio.duration(file)
                found[question.audio] = Source(file, sha256_of(file), seconds)
            except AudioError as error:
                found[question.audio] = str(error)
    return found


def others_of(sources: Mapping[str, Source | str], seed: int) -> dict[str, Source]:
    """For each readable `audio` another clip, of other content: a seeded derangement among clips of like length.

    {} where all files have the same content. Files of the same content get the same other clip.
    """
    by_content = {s.sha256: s for s in sources.values() if isinstance(s, Source)}
    durations = {content: source.duration for content, source in by_content.items()}
    others = on.derangement(durations, np.random.default_rng(drawn(seed, "swapped")))
    return {
        name: by_content[others[source.sha256]]
        for name, source in sources.items()
        if isinstance(source, Source) and source.sha256 in others
    }


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
    source: Source,
    settings: Settings,
) -> Plan | str:
    """The plan, or the reason for which the question is skipped.

    `evidence`: the question's own places, which move with the sound; `spans`: those that are kept or removed,
    padded and disjoint. What is drawn follows from the seed, the condition, the clip and the spans alone.
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
        stretches = on.random_stretches(spans, duration, rng)
        if stretches is None:
            return NO_ROOM
        return Plan(lambda x: on.removed(x, stretches, fill, rng), evidence, key, stretches)
    if family == "evidence-removed":
        return Plan(lambda x: on.removed(x, spans, fill, rng), evidence, key, spans)
    if family == "evidence-only":
        return Plan(lambda x: on.kept(x, spans, fill, rng), evidence, key, spans)
    if family == "evidence-cropped":
        return Plan(lambda x: on.cropped(x, spans), on.cropped_spans(evidence, spans), key, spans)
    if family == "shifted":
        delta = condition.delta
        return Plan(
            lambda x: on.shifted(x, delta, fill, rng),
            on.shifted_spans(evidence, delta),
            key,
            expected=lambda _: delta,
        )
    if family == "rolled":
        half = duration / 2
        return Plan(
            lambda x: on.rolled(x, half),
            on.rolled_spans(evidence, half, duration),
            key,
            expected=lambda span: _rolled_by(span, half, duration),
        )
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
    source: Source | str | None,
    other: Source | None,
    out: Path,
    settings: Settings,
    max_seconds: Seconds,
) -> Altered | str:
    """The question about the altered clip, whose file is written unless it is there; or why there is none.

    The question keeps its id and clip_id. Its audio is an absolute path.
    """
    if not isinstance(source, Source):
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
    planned = plan(condition, question.evidence, spans, source, settings)
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
    places = tuple(
        Span(place.start, min(place.end, duration)) for place in planned.evidence if place.start < duration
    )
    if question.kind == "phrase" and len(places) != 1:
        places = ()  # cut in two by the seam
    return Altered(replace(question, audio=str(file), duration=duration, evidence=places), planned)


# --- asking ----------------------------------------------------------------------------------------------


def control(
    model: Lalm | Responder,
    questions: Sequence[Question],
    path: Path,
    out: Path,
    cache: FeatureCache,
    decoding: Decoding,
    settings: Settings,
    predictions: Path | None = None,
) -> list[ControlItem]:
    """Every question under every condition, one item each; the original ones first.

    `path` is the questions' file. `predictions` is a file of responses to the original clips, which stand for new ones
    where they are this model's. All that is made lies below `out`, and a run that was stopped goes on from there. A
    question whose original has no response is asked no further. RecordError where a prediction answers another
    question, or where none is this model's; RunError where `out` holds answers about other sound.
    """
    folder = out / slug(model.name)
    folder.mkdir(parents=True, exist_ok=True)
    sources = sources_of(questions, path)
    others = others_of(sources, settings.seed)
    source_of = {question.id: sources[question.audio] for question in questions}
    other_of = {question.id: others.get(question.audio) for question in questions}
    room = math.inf if isinstance(model, Lalm) and cache.long_audio == "split" else model.max_seconds

    asked = [replace(q, audio=str(resolve_audio(q, path).resolve())) for q in questions]
    if predictions is not None:
        asked = _take_over(predictions, asked, model.name, folder / "answers-original.jsonl")
    texts = _ask(model, asked, folder, "original", cache, decoding)
    items = [_original(q, source_of[q.id], model.name, texts[q.id], settings) for q in asked]
    answered = [item for item in items if item.response is not None]

    for condition in conditions_of(settings, decoding.temperature):
        altered: dict[str, Altered | str] = {}
        for original in tqdm(answered, desc=f"{condition.name}: sound", unit="question", leave=False):
            question = original.question
            if question.kind == "choice" or condition.family in OF_PHRASES:
                source, other = source_of[question.id], other_of[question.id]
                altered[question.id] = alter(
                    condition, question, original.spans, source, other, out, settings, room
                )
        ready = [found.question for found in altered.values() if isinstance(found, Altered)]
        own = settings.evidence == "cited" and condition.family in OF_EVIDENCE
        is_as_before = condition.family in ("repeated", "swapped")  # recordings that are there already
        features = cache if is_as_before else replace(cache, folder=_features(out, own))
        again = replace(decoding, seed=decoding.seed + 1) if condition.family == "repeated" else decoding
        texts = _ask(model, ready, folder, condition.name, features, again)
        if own:
            shutil.rmtree(_features(out, own), ignore_errors=True)
        for original in answered:
            found = altered.get(original.question.id)
            if isinstance(found, Altered):
                items.append(_item(found, original, condition.name, texts[found.question.id]))
            elif found is not None:
                items.append(ControlItem(original.question, model.name, condition.name, skipped=found))
    return items


def slug(name: str) -> str:
    """A model's name as that of a folder."""
    return re.sub(r"[^\w.-]+", "_", name)[-100:].strip("._") or "model"


def drop_features(out: Path) -> None:
    """Deletes the encoder's outputs for altered sound: nobody else asks for them, and they are large."""
    shutil.rmtree(out / "features", ignore_errors=True)


def _features(out: Path, own: bool) -> Path:
    """Sound that depends on what one model cites is heard once; the rest by every model with that encoder."""
    return out / "features" / ("own" if own else "shared")


def _take_over(predictions: Path, asked: Sequence[Question], model: str, answers: Path) -> list[Question]:
    """Appends given responses to `answers` as if they had been asked for; those that are there are left alone.

    Returns the questions, with the labels of those that were answered: one of them names the prompt.
    """
    file = str(predictions)
    responses = read_responses(predictions)
    given = {response.question.id: response for response in responses if response.model == model}
    if not given:
        names = ", ".join(sorted({response.model for response in responses})) or "nobody"
        raise RecordError(
            "model",
            f"no response of {model}, only of {names}",
            file,
            remedy="give --model as the predictions name it",
        )
    done: set[str] = set()
    if answers.exists():
        repair_jsonl(answers)
        done = {r.question.id for r in read_responses(answers) if r.model == model}
    labelled: list[Question] = []
    for question in asked:
        response = given.get(question.id)
        if response is None:
            labelled.append(question)
            continue
        theirs = response.question
        if (theirs.kind, theirs.choices, theirs.phrase) != (question.kind, question.choices, question.phrase):
            raise RecordError(
                "choices" if question.kind == "choice" else "phrase",
                f"{model}'s prediction for {question.id!r} answers another question than that of this id",
                file,
                remedy="give the questions that were asked",
            )
        labelled.append(replace(question, labels=theirs.labels))
        if question.id not in done:
            append_jsonl(answers, Response(_seen_from(answers.parent, labelled[-1]), model, response.text))
    return labelled


def _seen_from(folder: Path, question: Question) -> Question:
    return replace(question, audio=os.path.relpath(question.audio, folder.resolve()))


def _ask(
    model: Lalm | Responder,
    questions: Sequence[Question],
    folder: Path,
    condition: str,
    cache: FeatureCache,
    decoding: Decoding,
) -> dict[str, str | Failed]:
    """The model's responses by question id. RunError where `folder` holds answers about other sound."""
    path, answers = folder / f"questions-{condition}.jsonl", folder / f"answers-{condition}.jsonl"
    local = [_seen_from(folder, question) for question in questions]
    write_jsonl(path, local)
    if not local:
        return {}
    predict_to_file(model, local, path, answers, cache, decoding)
    texts: dict[str, str | Failed] = {question.id: Failed("no response") for question in local}
    errors = answers.with_name(answers.name + ".errors.jsonl")
    if errors.exists():
        repair_jsonl(errors)
        rows = [json.loads(line) for line in errors.read_text(encoding="utf-8").splitlines()]
        texts |= {row["id"]: Failed(row["error"]) for row in rows}
    heard = {question.id: question.audio for question in local}
    for response in read_responses(answers) if answers.exists() else []:
        id_ = response.question.id
        if response.model != model.name or id_ not in heard:
            continue
        if response.question.audio != heard[id_]:
            raise RunError(
                f"{answers}: answers {id_!r} about {response.question.audio}, now it would be {heard[id_]}: "
                "the questions' sound or the original answers have changed; choose another --out"
            )
        texts[id_] = response.text
    return texts


# --- reading answers -------------------------------------------------------------------------------------


def _original(
    question: Question, source: Source | str, model: str, text: str | Failed, settings: Settings
) -> ControlItem:
    if isinstance(text, Failed):
        return ControlItem(question, model, "original", skipped=f"{NOT_HEARD}: {text.reason}")
    item = _read(ControlItem(question, model, "original"), question, text)
    places = item.cited if settings.evidence == "cited" else question.evidence
    duration = source.duration if isinstance(source, Source) else question.duration
    spans = tuple(evidence_crop(places, duration, settings.pad))
    return replace(item, is_same=None if item.answer is None else True, spans=spans)


def _item(altered: Altered, original: ControlItem, condition: str, text: str | Failed) -> ControlItem:
    item = ControlItem(altered.question, original.model, condition, spans=altered.plan.spans)
    if isinstance(text, Failed):
        return replace(item, skipped=f"{NOT_HEARD}: {text.reason}")
    item = replace(
        _read(item, altered.question, text),
        expected=tuple(altered.plan.expected(span) for span in original.cited),
    )
    if original.question.kind == "phrase":
        stays = displacement(original.cited[0], item.cited[0]) if original.cited and item.cited else None
        is_same = bool(stays and max(map(abs, stays)) < STAYS) if original.cited else None
    else:
        is_same = item.answer == original.answer if original.answer is not None else None
    return replace(item, is_same=is_same)


def _read(item: ControlItem, question: Question, text: str) -> ControlItem:
    """The item with what the response says. A choice that cannot be read is a wrong one."""
    cited = tuple(dict.fromkeys(find_spans(text)))
    if question.kind == "phrase":
        mentions = find_mentions(text)
        first = mentions[0].span if mentions else None
        iou = item_iou([first] if first else [], question.evidence[0]) if question.evidence else None
        return replace(item, response=text, cited=cited, iou=iou)
    index = extract_choice(text, question.choices)
    chosen = None if index is None else question.choices[index]
    right = correct_letter(question)
    return replace(
        item,
        response=text,
        cited=cited,
        answer=chosen,
        is_right=chosen == question.answer,
        is_right_official=official_letter(text) == right,
    )


def displacement(before: Span, after: Span) -> tuple[Seconds, Seconds]:
    """How far the start and the end are from where they were, in seconds; later is positive."""
    return after.start - before.start, after.end - before.end
