"""`tgsr control`: the same questions while the sound is altered. What does an answer rest on?

Attention says where a model looks; only a change of the sound says what it uses. Each question is asked about the clip
as it is and about altered ones (`interventions.py`), and three things are measured: whether the evidence suffices for
the answer, whether the answer needs it, and whether cited times move with the sound. docs/controls.md has the formulas
and what they cannot show. SoundFile: the causal reading of sections 1 and 5.1's "faithful audio grounding", which the
paper infers from attention; sufficiency and necessity as in DeYoung et al. 2020, for seconds instead of words.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tgsr.answering.predict import predict_to_file, take_given
from tgsr.answering.responder import Responder
from tgsr.choices import correct_letter, extract_choice, official_letter
from tgsr.data.splits import drawn
from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.sound_folder import SoundFolder
from tgsr.engine.features import FeatureCache
from tgsr.errors import RunError
from tgsr.evaluation.behaviour.consistency import reasoning_of
from tgsr.evaluation.controls.alter import (
    NOT_HEARD,
    OF_EVIDENCE,
    STAYS,
    Altered,
    Condition,
    Plan,
    Settings,
    SoundFile,
    WhoseEvidence,
    alter,
    conditions_of,
    others_of,
    sources_of,
    speech_of,
)
from tgsr.evaluation.controls.interventions import Fill
from tgsr.evaluation.controls.reasoning import begun
from tgsr.evaluation.controls.replies import Replies
from tgsr.grounding import find_asked, find_regions, places_stated, valid_spans
from tgsr.llm.decoding import Cut, Decoding, Failed
from tgsr.models.lalm import Lalm
from tgsr.overlap import evidence_crop, place_iou
from tgsr.records import BEGUN, Question, append_jsonl, read_responses, resolve_audio, write_jsonl
from tgsr.timeline import ROUNDING, Seconds, Span

OF_PHRASES = ("original", "repeated", "silenced", "swapped", "shifted", "rolled")


@dataclass(frozen=True, slots=True)
class Control:
    """What all answers in one folder have in common, for its run.json: conditions and models may be added later."""

    evidence: WhoseEvidence
    pad: Seconds
    fill: Fill
    seed: int
    max_new_tokens: int
    temperature: float
    top_p: float
    spoken: str | None = None
    rewriter: str | None = None


@dataclass(frozen=True, slots=True)
class ControlItem:
    """One question under one condition.

    `skipped` says why there is no response; then all else is None or empty. `answer`: the choice that the response
    ends up with. `is_same`: whether that is the original response's; for a phrase, whether its first interval stays
    in its place; None where the original has none. `cited`: the reasoning's distinct valid intervals, in their order.
    `spans`: what was kept or removed, or, of the original, the evidence that will be. `expected`: how far the sound
    of each interval that the original cites has moved; None where it was cut in two. `iou`: of a phrase. `alike`: a
    judge's grade of 1 to 5 for how far its reasoning is that of the original. `is_cut`: whether the limit of new tokens
    ended the response.
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
    alike: int | None = None
    cited: tuple[Span, ...] = ()
    spans: tuple[Span, ...] = ()
    expected: tuple[Seconds | None, ...] = ()
    is_cut: bool = False


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
    rewrite: Replies | None = None,
    judge: Replies | None = None,
) -> list[ControlItem]:
    """Every question under every condition, one item each; the original ones first.

    `path` is the questions' file. `predictions` is a file of responses to the original clips, which stand for new ones
    where they are this model's. `rewrite` is the settings' rewriter; `judge` grades how alike each reasoning about
    altered sound is to the original one. All that is made lies below `out`, and a run that was stopped goes on from
    there. A question whose original has no response is asked no further. RecordError where a prediction answers another
    question, or where none is this model's; RunError where `out` holds answers about other sound.
    """
    folder = out / slug(model.name)
    folder.mkdir(parents=True, exist_ok=True)
    questions = [replace(q, audio=str(resolve_audio(q, path).resolve())) for q in questions]
    sources = sources_of(questions, path)
    others = others_of(sources, settings.seed)
    in_parts = isinstance(model, Lalm) and not model.hears_whole and cache.long_audio == "split"
    room = math.inf if in_parts else model.max_seconds

    if predictions is not None:
        questions = _take_over(predictions, questions, model, folder / "answers-original.jsonl")
    texts = _ask(model, questions, folder, "original", cache, decoding)
    items = [_original(q, sources[q.audio], model.name, texts[q.id], settings) for q in questions]
    answered = [item for item in items if item.response is not None]

    spoken = None if settings.spoken is None else SoundFolder.of(Path(settings.spoken))

    for condition in conditions_of(settings, decoding.temperature):
        altered: dict[str, Altered | str] = {}
        for original in tqdm(answered, desc=f"{condition.name}: sound", unit="question", leave=False):
            question = original.question
            if condition.is_of_reasoning:
                if question.kind == "choice":
                    altered[question.id] = _goes_on(condition, original, settings, rewrite)
            elif question.kind == "choice" or condition.family in OF_PHRASES:
                source, other = sources[question.audio], others.get(question.audio)
                if condition.family == "spoken":
                    other = speech_of(question, condition, spoken, settings.seed)
                sounds = original.spans, source, other
                altered[question.id] = alter(condition, question, *sounds, out, settings, room)
        ready = [change.question for change in altered.values() if isinstance(change, Altered)]
        # Recordings that are there already.
        if condition.family in ("repeated", "swapped") or condition.is_of_reasoning:
            features = cache
        else:
            # sound that depends on what one model cites is heard once; the rest by every model with that encoder
            is_own = settings.evidence == "cited" and condition.family in OF_EVIDENCE
            features = replace(cache, folder=out / "features" / ("own" if is_own else "shared"))
        again = replace(decoding, seed=decoding.seed + 1) if condition.family == "repeated" else decoding
        texts = _ask(model, ready, folder, condition.name, features, again)
        shutil.rmtree(out / "features" / "own", ignore_errors=True)
        for original in answered:
            change = altered.get(original.question.id)
            if isinstance(change, Altered):
                item = _item(change, original, condition.name, texts[change.question.id])
                is_graded = judge is not None and not condition.is_of_reasoning
                items.append(_graded(item, original, judge) if judge and is_graded else item)
            elif change is not None:
                items.append(ControlItem(original.question, model.name, condition.name, skipped=change))
    return items


def _goes_on(
    condition: Condition, original: ControlItem, settings: Settings, rewrite: Replies | None
) -> Altered | str:
    """The question about the same sound whose response begins with the altered reasoning, or why there is none."""
    question = original.question
    rng = np.random.default_rng(drawn(settings.seed, f"{question.id} {condition.family}"))
    response = str(original.response)
    text, why = begun(condition.family, condition.level, response, question.choices, rng, rewrite)
    if why:
        return why
    labelled = replace(question, labels=(*question.labels, (BEGUN, text)))
    return Altered(labelled, Plan(lambda x: x, question.evidence, ""))


def slug(name: str) -> str:
    """A model's name as that of a folder."""
    return re.sub(r"[^\w.-]+", "_", name)[-100:].strip("._") or "model"


def drop_features(out: Path) -> None:
    """Deletes the encoder's outputs for altered sound: nobody else asks for them, and they are large."""
    shutil.rmtree(out / "features", ignore_errors=True)


def _take_over(
    predictions: Path, asked: Sequence[Question], model: Lalm | Responder, answers: Path
) -> list[Question]:
    """Appends given responses to `answers` as if they had been asked for; those that are there are left alone.

    Returns the questions, with the labels of those that were answered: one of them names the prompt. The model gets the
    system turn that they were asked with.
    """
    labelled, given = take_given(model, asked, read_responses(predictions), predictions)
    done: set[str] = set()
    if answers.exists():
        repair_jsonl(answers)
        done = {r.question.id for r in read_responses(answers) if r.model == model.name}
    for question in labelled:
        if question.id in given and question.id not in done:
            here = _seen_from(answers.parent, question)
            append_jsonl(answers, replace(given[question.id], question=here))
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
        texts[id_] = Cut(response.text) if response.truncated else response.text
    return texts


# --- reading answers -------------------------------------------------------------------------------------


def _original(
    question: Question, source: SoundFile | str, model: str, text: str | Failed, settings: Settings
) -> ControlItem:
    if isinstance(text, Failed):
        return ControlItem(question, model, "original", skipped=f"{NOT_HEARD}: {text.reason}")
    item = _read(ControlItem(question, model, "original"), text)
    places = item.cited if settings.evidence == "cited" else question.evidence
    duration = source.duration if isinstance(source, SoundFile) else question.duration
    spans = tuple(evidence_crop(places, duration, settings.pad))
    return replace(item, is_same=None if item.answer is None else True, spans=spans)


def _item(altered: Altered, original: ControlItem, condition: str, text: str | Failed) -> ControlItem:
    item = ControlItem(altered.question, original.model, condition, spans=altered.plan.spans)
    if isinstance(text, Failed):
        return replace(item, skipped=f"{NOT_HEARD}: {text.reason}")
    item = _read(item, text)
    if original.question.kind == "phrase":
        stays = displacement(original.cited[0], item.cited[0]) if original.cited and item.cited else None
        is_same = bool(stays and max(map(abs, stays)) < STAYS - ROUNDING) if original.cited else None
    else:
        is_same = item.answer == original.answer if original.answer is not None else None
    return replace(item, is_same=is_same, expected=tuple(map(altered.plan.expected, original.cited)))


def _read(item: ControlItem, text: str) -> ControlItem:
    """The item with what the response says. A choice that cannot be read is a wrong one."""
    question, item = item.question, replace(item, response=str(text), is_cut=isinstance(text, Cut))
    if question.kind == "phrase":
        given = tuple(places_stated(find_asked(text, question.phrase), len(question.evidence)))
        iou = place_iou(given, question.evidence) if question.evidence else None
        return replace(item, cited=given, iou=iou)
    cited = tuple(dict.fromkeys(valid_spans(find_regions(text))))
    index = extract_choice(text, question.choices)
    chosen = None if index is None else question.choices[index]
    return replace(
        item,
        cited=cited,
        answer=chosen,
        is_right=chosen == question.answer,
        is_right_official=official_letter(text) == correct_letter(question),
    )


def _graded(item: ControlItem, original: ControlItem, judge: Replies) -> ControlItem:
    """The item with the judge's grade; a phrase, and what has no reasoning or response, has none."""
    question = original.question
    texts = [reasoning_of(str(one.response or ""), question.choices) for one in (original, item)]
    if question.kind != "choice" or not all(texts):
        return item
    return replace(item, alike=judge.alike(question.question, *texts))


def displacement(before: Span, after: Span) -> tuple[Seconds, Seconds]:
    """How far the start and the end are from where they were, in seconds; later is positive."""
    return after.start - before.start, after.end - before.end
