"""A model's responses to questions: each clip is heard once, all of its questions go on from there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tgsr import audio
from tgsr.answering.responder import Asked, Responder
from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.rows import Entry, json_lines
from tgsr.engine.features import FeatureCache, hear
from tgsr.engine.sampling import sample, uniforms
from tgsr.engine.shared_prefix import common_start, listen
from tgsr.errors import AudioError, ModelError, RecordError
from tgsr.llm.decoding import GREEDY, Decoding, Failed
from tgsr.models.lalm import Lalm, context_of
from tgsr.prompts import Prompt, prompt_of, prompt_text
from tgsr.records import Question, Response, append_jsonl, read_responses, resolve_audio


@dataclass(frozen=True, slots=True)
class Unheard:
    """A question without a response, and why: its audio could not be heard, or the model could not be asked."""

    question: Question
    reason: str


def respond(
    lalm: Lalm,
    heard: Sequence[Tensor],
    asked: Sequence[tuple[int, tuple[int, ...]]],
    decoding: Decoding = GREEDY,
) -> list[str]:
    """One response for each (clip, prompt's tokens after the audio); `heard` holds encoder outputs, F x D_enc."""
    of_clip: dict[int, list[tuple[int, ...]]] = {}
    for owner, prompt in asked:
        of_clip.setdefault(owner, []).append(prompt)
    after = [common_start(of_clip[clip]) if clip in of_clip else () for clip in range(len(heard))]
    with torch.no_grad():
        prefix = listen(lalm, heard, after=after)
    sampled = sample(
        prefix,
        [owner for owner, _ in asked],
        [prompt[len(after[owner]) :] for owner, prompt in asked],
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        uniform_BN=uniforms(len(asked), decoding.max_new_tokens, decoding.seed),
    )
    return [lalm.text(list(s.ids)) for s in sampled]


def predict(
    lalm: Lalm,
    questions: Sequence[Question],
    path: Path,
    cache: FeatureCache,
    decoding: Decoding = GREEDY,
    clips_per_batch: int = 8,
) -> Iterator[Response | Unheard]:
    """Responses clip by clip, in batches; what cannot be heard comes out with its reason.

    `path` is the questions' file, whose folder relative audio paths start from.
    """
    clips: dict[str, list[Question]] = {}
    for question in questions:
        clips.setdefault(question.audio, []).append(question)
    groups = list(clips.values())
    bar = tqdm(total=len(groups), desc=f"predict {lalm.name}", unit="clip")
    for first in range(0, len(groups), clips_per_batch):
        heard: list[Tensor] = []
        asked: list[tuple[int, tuple[int, ...]]] = []
        answered: list[Question] = []
        for of_clip in groups[first : first + clips_per_batch]:
            try:
                features = hear(lalm, of_clip[0], path, cache).read()
            except (AudioError, ModelError) as error:
                yield from (Unheard(question, str(error)) for question in of_clip)
                continue
            room = context_of(lalm) - len(lalm.prompt("").before) - len(features) - decoding.max_new_tokens
            for question in of_clip:
                try:
                    prompt = lalm.prompt(prompt_text(lalm, question)).after
                except ModelError as error:
                    yield Unheard(question, str(error))
                    continue
                if len(prompt) > room:
                    reason = f"{len(prompt)} tokens of prompt; {lalm.name} has room for {room}"
                    yield Unheard(question, reason)
                else:
                    asked.append((len(heard), prompt))
                    answered.append(question)
            heard.append(features)
        if asked:
            # Each batch draws from a stream of its own, named by its first question.
            seed = zlib.crc32(f"{decoding.seed} {answered[0].id}".encode())
            texts = respond(lalm, heard, asked, replace(decoding, seed=seed))
            yield from (Response(q, lalm.name, text) for q, text in zip(answered, texts, strict=True))
        bar.update(len(groups[first : first + clips_per_batch]))
    bar.close()


def predict_by_responder(
    responder: Responder, questions: Sequence[Question], path: Path, decoding: Decoding = GREEDY
) -> Iterator[Response | Unheard]:
    """`predict` for a model that only answers: the same order, `responder.at_once` clips together."""
    clips: dict[str, list[Question]] = {}
    for question in questions:
        clips.setdefault(question.audio, []).append(question)
    groups = list(clips.values())
    bar = tqdm(total=len(groups), desc=f"predict {responder.name}", unit="clip")
    for first in range(0, len(groups), responder.at_once):
        heard: list[np.ndarray] = []
        asked: list[Asked] = []
        answered: list[Question] = []
        for of_clip in groups[first : first + responder.at_once]:
            try:
                samples = audio.load(resolve_audio(of_clip[0], path), max_seconds=responder.max_seconds)
            except (AudioError, FileNotFoundError) as error:
                yield from (Unheard(question, str(error)) for question in of_clip)
                continue
            for question in of_clip:
                try:
                    asked.append(as_asked(responder, question, len(heard)))
                except ModelError as error:
                    yield Unheard(question, str(error))
                else:
                    answered.append(question)
            heard.append(samples)
        for question, text in zip(answered, responder.respond(heard, asked, decoding), strict=True):
            if isinstance(text, Failed):
                yield Unheard(question, text.reason)
            else:
                yield Response(question, responder.name, text)
        bar.update(len(groups[first : first + responder.at_once]))
    bar.close()


def as_asked(responder: Responder, question: Question, clip: int) -> Asked:
    """The question about clip `clip` as a responder gets it."""
    return Asked(clip, prompt_text(responder, question), question.question, question.choices, question.phrase)


def predict_to_file(
    model: Lalm | Responder,
    questions: Sequence[Question],
    path: Path,
    out: Path,
    cache: FeatureCache,
    decoding: Decoding,
    *,
    name: str | None = None,
) -> tuple[int, int]:
    """Responses appended to `out`; returns how many were written and how many questions were left without one.

    They carry `name`, or the model's own: runs of one model under several prompts lie in one file under several
    names. Goes on where an earlier call stopped: questions that have an answer of that name in `out` are left
    alone. Unheard ones go to `out`.errors.jsonl, each once for the same reason, and the next call tries them again.
    Raises RecordError where `out` is not a file of ours, and where that name has answered there under another prompt.
    """
    name = name or model.name
    done: set[str] = set()
    errors = out.with_name(out.name + ".errors.jsonl")
    if errors.exists():
        repair_jsonl(errors)
    listed = {
        (entry.maybe("id"), entry.maybe("model"), entry.maybe("error"))
        for entry in (json_lines(errors) if errors.exists() else ())
        if isinstance(entry, Entry)
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        repair_jsonl(out)
        before = [r.question for r in read_responses(out) if r.model == name]
        _require_one_prompt(before, questions, name, out)
        done = {question.id for question in before}
    n_done = n_unheard = 0
    left = [question for question in questions if question.id not in done]
    if isinstance(model, Lalm):
        results = predict(model, left, path, cache, decoding)
    else:
        results = predict_by_responder(model, left, path, decoding)
    for result in results:
        if isinstance(result, Response):
            append_jsonl(out, _from(replace(result, model=name), path, out))
            n_done += 1
        else:
            row = {
                "id": result.question.id,
                "audio": result.question.audio,
                "model": name,
                "error": result.reason,
            }
            if (result.question.id, name, result.reason.strip()) not in listed:
                append_jsonl(errors, row)
            n_unheard += 1
    return n_done, n_unheard


def _require_one_prompt(before: Sequence[Question], now: Sequence[Question], name: str, out: Path) -> None:
    """RecordError where questions of the same benchmark (or of none) were answered under a prompt not asked now."""
    asked: dict[tuple[str, ...], set[Prompt]] = {}
    of_id = {question.id: prompt_of(question) for question in now if question.kind == "choice"}
    for question in now:
        if question.kind == "choice":
            asked.setdefault(question.labelled("benchmark"), set()).add(of_id[question.id])
    for question in before:
        key = question.labelled("benchmark")
        if question.kind != "choice" or key not in asked:
            continue
        prompt = prompt_of(question)
        if prompt not in asked[key] or of_id.get(question.id, prompt) != prompt:
            raise RecordError(
                None,
                f"{name} has answered here under --prompt {prompt}, now it is "
                f"{of_id.get(question.id) or ', '.join(sorted(asked[key]))}",
                str(out),
                remedy="give --name, so that both lie side by side, or another --out",
            )


def _from(response: Response, path: Path, out: Path) -> Response:
    """The response with its audio's path as seen from `out`'s folder."""
    relative = os.path.relpath(resolve_audio(response, path).resolve(), out.parent.resolve())
    return replace(response, question=replace(response.question, audio=relative))
