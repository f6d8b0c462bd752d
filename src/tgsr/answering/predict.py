"""A model's responses to questions: each clip is heard once, all of its questions go on from there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tgsr import audio
from tgsr.answering.responder import ClipQuestion, Responder, require_heard
from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.lock import held
from tgsr.disk.rows import Entry, json_lines
from tgsr.disk.run_folder import changed, hashes_of, read_described
from tgsr.disk.whole import StrPath, write_whole
from tgsr.engine.features import FeatureCache, hear
from tgsr.engine.relisten import most_frames
from tgsr.engine.sampling import Decoder, Sampled, decoder_of, sample, uniforms_of
from tgsr.engine.shared_prefix import Branch, SharedPrefix, branch_logps, common_start, listen
from tgsr.errors import AudioError, ModelError, OptionError, RecordError
from tgsr.llm.decoding import GREEDY, Cut, Decoding, Failed, written
from tgsr.models.lalm import Lalm, context_of
from tgsr.models.load import files_of
from tgsr.prompts import Prompt, prompt_of, prompt_text
from tgsr.records import Question, Response, append_jsonl, begun_of, by_clip, read_responses, resolve_audio


@dataclass(frozen=True, slots=True)
class Unheard:
    """A question without a response, and why: its audio could not be heard, or the model could not be asked."""

    question: Question
    reason: str


# Tokens, from which on a question has a prefix of its own: branches keep scores of all pairs.
LONG_PROMPT = 2048
SIDE_BY_SIDE = "give --name, so that both lie side by side, or another --out"


def respond(
    lalm: Lalm,
    heard: Sequence[Tensor],
    prompts: Sequence[tuple[int, tuple[int, ...]]],
    decoding: Decoding = GREEDY,
    names: Sequence[str] | None = None,
    branches_at_once: int | None = None,
    decoder: Decoder | None = None,
) -> list[str | Failed]:
    """One response for each (clip, prompt's tokens after the audio), as `sampled` draws them."""
    drawn = sampled(lalm, heard, prompts, decoding, names, branches_at_once, decoder)
    return [said_by(lalm, one) for one in drawn]


def as_long_as_fits(
    lalm: Lalm, prompt: Sequence[int], heard: Sequence[Tensor], decoding: Decoding = GREEDY
) -> Decoding:
    """`decoding` with as many new tokens as the context leaves after a prompt about any of these clips; 1 at least."""
    before = len(lalm.prompt("").before) + max(lalm.positions_of(len(frames)) for frames in heard)
    room = context_of(lalm) - before - len(prompt)
    return replace(decoding, max_new_tokens=max(1, min(decoding.max_new_tokens, room)))


def sampled(
    lalm: Lalm,
    heard: Sequence[Tensor],
    prompts: Sequence[tuple[int, tuple[int, ...]]],
    decoding: Decoding = GREEDY,
    names: Sequence[str] | None = None,
    branches_at_once: int | None = None,
    decoder: Decoder | None = None,
) -> list[Sampled]:
    """The new tokens for each (clip, prompt's tokens after the audio); `heard` holds encoder outputs, F x D_enc.

    What a response draws follows from the seed and its name alone, up to rounding; without `names` its place is its
    name. At most `branches_at_once` decode together (None: all). `decoder` is `sample`'s; if not given it is read here.
    """
    prefix, branches = asked(lalm, heard, prompts)
    names = [str(place) for place in range(len(prompts))] if names is None else names
    return sample(
        prefix,
        [owner for owner, _ in branches],
        [prompt for _, prompt in branches],
        max_new_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        uniform_BN=uniforms_of(names, decoding.max_new_tokens, decoding.seed),
        at_once=branches_at_once,
        decoder=decoder or decoder_of(lalm, decoding.quantize),
        relisten_frames=most_frames(lalm, decoding.hears_again),
    )


@torch.no_grad()
def asked(
    lalm: Lalm, heard: Sequence[Tensor], prompts: Sequence[tuple[int, tuple[int, ...]]]
) -> tuple[SharedPrefix, list[tuple[int, tuple[int, ...]]]]:
    """The prefixes of these (clip, prompt's tokens), and each prompt's prefix and what of the prompt follows it."""
    # By clip and, where it has one of its own, question.
    prefixes: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    owners = [(clip, n if len(prompt) > LONG_PROMPT else -1) for n, (clip, prompt) in enumerate(prompts)]
    for owner, (_, prompt) in zip(owners, prompts, strict=True):
        prefixes.setdefault(owner, []).append(prompt)
    after = {owner: common_start(of_prefix) for owner, of_prefix in prefixes.items()}
    prefix = listen(lalm, [heard[clip] for clip, _ in prefixes], after=list(after.values()))
    places = {owner: place for place, owner in enumerate(prefixes)}
    rest = [prompt[len(after[owner]) :] for owner, (_, prompt) in zip(owners, prompts, strict=True)]
    return prefix, [(places[owner], prompt) for owner, prompt in zip(owners, rest, strict=True)]


def rounding(
    lalm: Lalm,
    heard: Sequence[Tensor],
    prompt: tuple[int, tuple[int, ...]],
    decoding: Decoding,
    decoder: Decoder,
) -> str:
    """How far the log-probs of a response that `decoder` draws are from those of the model as it is, in words."""
    (drawn,) = sampled(lalm, heard, [prompt], decoding, decoder=decoder)
    prefix, ((owner, rest),) = asked(lalm, heard, [prompt])
    branch, temperature = Branch(owner, rest, drawn.row), decoding.temperature or 1.0
    with torch.no_grad():
        exact = branch_logps(prefix, [branch], temperature=temperature)
    apart_T = (exact.logp_BT[exact.mask_BT].cpu() - torch.tensor(drawn.logps)).abs()
    return (
        f"{decoding.quantize}: over the {len(drawn.logps)} tokens of a first response log-probs are "
        f"{float(apart_T.mean()):.2g} nats from the exact ones in the mean, {float(apart_T.max()):.2g} at most"
    )


def said_by(lalm: Lalm, one: Sampled) -> str | Failed:
    """What a response's tokens say."""
    return written(lalm.text(list(one.ids)), one.cut, one.failed)


@dataclass(frozen=True, slots=True)
class LalmAnswers:
    """A Lalm's answers: a clip is its encoder's output, a prompt the clip's number and the tokens after the audio."""

    lalm: Lalm
    cache: FeatureCache
    decoding: Decoding
    branches_at_once: int | None = None
    decoder: Decoder | None = None
    at_once: int = 8

    def hear(self, question: Question, path: Path) -> Tensor:
        return hear(self.lalm, question, path, self.cache).read()

    def prompt(self, question: Question, clip: int, features: Tensor) -> tuple[int, tuple[int, ...]]:
        prompt = self.lalm.prompt(prompt_text(self.lalm, question))
        begun = begun_of(question)
        after = (*prompt.after, *(self.lalm.response_tokens(begun) if begun else ()))
        before = len(prompt.before) + self.lalm.positions_of(len(features))
        n_new = self.decoding.max_new_tokens + most_frames(self.lalm, self.decoding.hears_again)
        room = context_of(self.lalm) - before
        if len(after) + n_new > room:
            raise ModelError(
                f"{len(after)} tokens of prompt and {n_new} to come; {self.lalm.name} has room for {room}: "
                "lower --max-new-tokens (or --relisten-seconds), or shorten the question"
            )
        return clip, after

    def answers(
        self, clips: list[Tensor], prompts: list[tuple[int, tuple[int, ...]]], ids: list[str]
    ) -> list[str | Failed]:
        way = self.branches_at_once, self.decoder
        return respond(self.lalm, clips, prompts, self.decoding, ids, *way)


@dataclass(frozen=True, slots=True)
class ResponderAnswers:
    """A responder's answers: a clip is its samples, a prompt a ClipQuestion."""

    responder: Responder
    decoding: Decoding

    @property
    def at_once(self) -> int:
        return self.responder.at_once

    def hear(self, question: Question, path: Path) -> np.ndarray:
        sound = resolve_audio(question, path)
        require_heard(self.responder, audio.duration(sound))
        return audio.load(sound, max_seconds=self.responder.max_seconds)

    def prompt(self, question: Question, clip: int, samples: np.ndarray) -> ClipQuestion:
        text, begun = prompt_text(self.responder, question), begun_of(question)
        if begun and not getattr(self.responder, "goes_on", False):
            raise ModelError(f"{self.responder.name} does not go on from an answer that is begun for it")
        asked = question.question, question.choices, question.phrase, question.id
        return ClipQuestion(clip, text, *asked, begun)

    def answers(
        self, clips: list[np.ndarray], prompts: list[ClipQuestion], ids: list[str]
    ) -> list[str | Failed]:
        return self.responder.respond(clips, prompts, self.decoding)


def predict(
    model: Lalm | Responder,
    questions: Sequence[Question],
    path: Path,
    cache: FeatureCache,
    decoding: Decoding = GREEDY,
    *,
    branches_at_once: int | None = None,
    title: str | None = None,
) -> Iterator[Response | Unheard]:
    """Responses clip by clip, in batches; what cannot be heard or asked comes out with its reason.

    `path` is the questions' file, whose folder relative audio paths start from. `branches_at_once` is `respond`'s, of a
    Lalm; `title` is the progress bar's, "": none.
    """
    clips, decoder = by_clip(questions), None
    if isinstance(model, Lalm):
        most_frames(model, decoding.hears_again)  # refuses before anything is heard
        decoder = decoder_of(model, decoding.quantize) if clips else None
        way: Any = LalmAnswers(model, cache, decoding, branches_at_once, decoder)
    elif decoding.quantize is None and not decoding.relisten:
        way = ResponderAnswers(model, decoding)
    else:
        flag = "--relisten" if decoding.relisten else f"--quantize {decoding.quantize}"
        raise OptionError(f"{flag}: {model.name} is not decoded by us; leave it out")
    desc = f"predict {model.name}" if title is None else title
    bar = tqdm(total=len(clips), desc=desc, unit="clip", disable=not desc, leave=None)
    for first in range(0, len(clips), way.at_once):
        batch = clips[first : first + way.at_once]
        heard: list[Any] = []
        prompts: list[Any] = []
        prompted: list[Question] = []
        for clip in batch:
            try:
                sound = way.hear(clip[0], path)
            except (AudioError, ModelError) as error:
                yield from (Unheard(question, str(error)) for question in clip)
                continue
            for question in clip:
                try:
                    prompts.append(way.prompt(question, len(heard), sound))
                except ModelError as error:
                    yield Unheard(question, str(error))
                else:
                    prompted.append(question)
            heard.append(sound)
        if prompted:
            if isinstance(model, Lalm) and decoder is not None and decoding.quantize and first == 0:
                tqdm.write(rounding(model, heard, prompts[0], decoding, decoder), file=sys.stderr)
            ids = [question.id for question in prompted]
            for question, text in zip(prompted, way.answers(heard, prompts, ids), strict=True):
                if isinstance(text, Failed):
                    yield Unheard(question, text.reason)
                else:
                    whole = f"{begun_of(question)}{text}"
                    yield Response(question, model.name, whole, isinstance(text, Cut), _system_of(model))
        bar.update(len(batch))
    bar.close()


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
    Raises RecordError where `out` is not a file of ours, and where that name has answered there under another prompt
    or another system turn; RunError where another process is answering into `out`.
    """
    name = name or model.name
    with held(out):
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
            before = [response for response in read_responses(out) if response.model == name]
            _require_one_prompt([response.question for response in before], questions, name, out)
            _require_one_system(before, _system_of(model), name, out)
            done = {response.question.id for response in before}
        _require_one_way(out, name, model, decoding, has_answered=bool(done))
        n_done = n_unheard = 0
        left = [question for question in questions if question.id not in done]
        for result in predict(model, left, path, cache, decoding):
            if isinstance(result, Response):
                append_jsonl(out, named(result, name, path, out))
                n_done += 1
            else:
                question, reason = result.question, result.reason
                if (question.id, name, reason.strip()) not in listed:
                    row = {"id": question.id, "audio": question.audio, "model": name, "error": reason}
                    append_jsonl(errors, row)
                n_unheard += 1
        return n_done, n_unheard


def named(response: Response, name: str, path: Path, out: Path) -> Response:
    """The response to a question of the file `path` as a row of the file `out`, under that model's name."""
    sound = os.path.relpath(resolve_audio(response, path).resolve(), out.parent.resolve())
    return replace(response, question=replace(response.question, audio=sound), model=name)


def _require_one_way(
    out: Path, name: str, model: Lalm | Responder, decoding: Decoding, has_answered: bool
) -> None:
    """RecordError where `name` has answered in `out` from other files of the model, or decoded otherwise, than now.

    Both are kept in .OUT.run.json; answers of before that file are taken to be of now.
    """
    if out.exists() and not out.is_file():  # /dev/stdout, a pipe
        return
    described = out.with_name(f".{out.name}.run.json")
    everyones = read_described(described) if described.exists() else {}
    known = everyones.get(name) if has_answered else None
    known = known if isinstance(known, dict) else {}
    decoded = asdict(decoding)
    unused = set() if decoding.temperature else {"temperature", "top_p", "seed"}
    unused |= set() if decoding.relisten else {"relisten", "relisten_seconds"}
    decoded = {key: value for key, value in decoded.items() if value is not None and key not in unused}
    files = hashes_of(files_of(model.name), known.get("files", {}))
    problem = None
    if known and (before := known.get("decoding") or {}) != decoded:
        others = (
            f"--{key.replace('_', '-')} {before.get(key, 'not given')}, now {decoded.get(key, 'not given')}"
            for key in {**before, **decoded}
            if before.get(key) != decoded.get(key)
        )
        problem = f"{name} has answered here with {'; '.join(others)}"
    elif known.get("files") and (names := changed(known["files"], files)):
        problem = f"{name} has answered here before its files changed: {', '.join(names[:3])}"
    if problem is not None:
        raise RecordError(None, problem, str(out), remedy=SIDE_BY_SIDE)
    now = {"decoding": decoded, "files": files}
    if now != everyones.get(name):
        write_whole(described, json.dumps(everyones | {name: now}, indent=2) + "\n")


def _system_of(model: Lalm | Responder) -> str:
    """As a record says it; a responder without the attribute sends no system turn."""
    return getattr(model, "system", None) or ""


def take_given(
    model: Lalm | Responder, questions: Sequence[Question], responses: Sequence[Response], file: StrPath
) -> tuple[list[Question], dict[str, Response]]:
    """The questions with the labels that a model's given responses have, and those responses by question id.

    One of the labels names the prompt; the model gets the system turn (`as_asked`). A question without a response stays
    as it is. RecordError, which names `file`, where no response is the model's, or one answers another question of its
    id.
    """
    given = {response.question.id: response for response in responses if response.model == model.name}
    if not given:
        names = ", ".join(sorted({response.model for response in responses})) or "nobody"
        remedy = "give --model as the predictions name it"
        raise RecordError("model", f"no response of {model.name}, only of {names}", str(file), remedy=remedy)
    as_asked(model, list(given.values()))
    labelled: list[Question] = []
    for question in questions:
        theirs = given[question.id].question if question.id in given else question
        if (theirs.kind, theirs.choices, theirs.phrase) != (question.kind, question.choices, question.phrase):
            field = "choices" if question.kind == "choice" else "phrase"
            of = f"{model.name}'s prediction for {question.id!r}"
            problem = f"{of} answers another question than that of this id"
            raise RecordError(field, problem, str(file), remedy="give the questions that were asked")
        labelled.append(replace(question, labels=theirs.labels))
    return labelled, given


def as_asked(model: Lalm | Responder, responses: Sequence[Response]) -> None:
    """Gives a model of ours the system turn that its responses were asked for with. RecordError where they had several.

    Others keep theirs: who answers beside those responses is held against them by `predict_to_file`.
    """
    turns = {response.system for response in responses if response.system is not None}
    if len(turns) > 1:
        problem = f"responses of {model.name} were asked for with {len(turns)} system turns"
        raise RecordError("system", problem, remedy="look at those of one turn at a time")
    if isinstance(model, Lalm):
        model.system = next(iter(turns), model.system) or None


def _require_one_system(before: Sequence[Response], system: str, name: str, out: Path) -> None:
    """RecordError where a response was asked for with another system turn than now."""
    for response in before:
        if response.system not in (None, system):
            answered = f"{name} has answered question {response.question.id}"
            problem = f"{answered} with the system turn {response.system!r:.80}, now it is {system!r:.80}"
            remedy = f"give the same --system, or {SIDE_BY_SIDE.removeprefix('give ')}"
            raise RecordError(None, problem, str(out), remedy=remedy)


def _require_one_prompt(before: Sequence[Question], now: Sequence[Question], name: str, out: Path) -> None:
    """RecordError where questions of the same benchmark (or of none) were answered under a prompt not asked now."""
    prompts: dict[tuple[str, ...], set[Prompt]] = {}
    by_id = {question.id: prompt_of(question) for question in now if question.kind == "choice"}
    for question in now:
        if question.kind == "choice":
            prompts.setdefault(question.labelled("benchmark"), set()).add(by_id[question.id])
    for question in before:
        benchmark = question.labelled("benchmark")
        if question.kind != "choice" or benchmark not in prompts:
            continue
        prompt = prompt_of(question)
        if prompt not in prompts[benchmark] or by_id.get(question.id, prompt) != prompt:
            asked = by_id.get(question.id) or ", ".join(sorted(prompts[benchmark]))
            problem = f"{name} has answered here under --prompt {prompt}, now it is {asked}"
            raise RecordError(None, problem, str(out), remedy=SIDE_BY_SIDE)
