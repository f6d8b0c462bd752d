"""What raters are shown: trials from prediction files, and who hears which in what order.

A trial is one model's response about one clip, heard in one condition: the cited evidence alone, or the full clip.
The rater says which of three stretches the reasoning speaks of (referent choice), how much the sound helped to check
the answer (helpfulness) and how well it supports the answer (supportiveness). The paper mentions its human evaluation
and does not describe it: the questions are ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from tqdm import tqdm

from tgsr import audio
from tgsr.disk.whole import write_whole
from tgsr.errors import AudioError, StudyError
from tgsr.grounding import find_mentions, find_spans
from tgsr.overlap import evidence_crop, trace_iou
from tgsr.records import Question, Response, moved, read_responses, resolve_audio
from tgsr.timeline import Seconds, Span

Condition = Literal["evidence", "full"]
Kind = Literal["rated", "practice", "check"]
CONDITIONS: tuple[Condition, ...] = ("evidence", "full")
N_STRETCHES = 3
MASK = "[time]"
SCALE = (1, 5)  # of helpfulness and supportiveness
FILE = "study.json"
CHECK_STRETCH, CHECK_RATING = 1, 2
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_PAIR = rf"{_NUMBER}\s{{0,3}}(?:to|and|until|,|-|–|—)\s{{0,3}}{_NUMBER}"
_TIMES = re.compile(
    rf"\d{{1,3}}:\d\d(?::\d\d)?(?:[.,]\d{{1,3}})?|{_NUMBER}\s{{0,2}}-?(?:seconds?|secs?|s)\b|{_PAIR}(?=\s?[)\]])"
    rf"|(?<=from ){_PAIR}|(?<=between ){_PAIR}|\d{{1,9}}\.\d{{1,9}}",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One response in one condition. `id` tells nothing of the system; `right` is the place of the true stretch.

    `audio`: what is heard for the two ratings; `stretches`: what the referent is chosen from; names of files in media/.
    Of a check, `right` and CHECK_RATING are what its text asks for.
    """

    id: str
    kind: Kind
    item: str
    system: str
    condition: Condition
    question: str
    choices: tuple[str, ...]
    response: str
    audio: str
    stretches: tuple[str, ...]
    right: int
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class Study:
    """`trials[item]` are that item's trials in the order of `cells` (system, condition)."""

    title: str
    seed: int
    systems: tuple[str, ...]
    per_rater: int
    raters_per_trial: int
    trials: dict[str, tuple[Trial, ...]]
    practice: tuple[Trial, ...]
    checks: tuple[Trial, ...]
    left_out: dict[str, int]

    @property
    def cells(self) -> tuple[tuple[str, Condition], ...]:
        return tuple((system, condition) for system in self.systems for condition in CONDITIONS)

    @property
    def n_raters(self) -> int:
        """How many raters give every trial its number of ratings."""
        n_blocks = -(-len(self.trials) // self.per_rater)
        return len(self.cells) * n_blocks * self.raters_per_trial

    @property
    def id(self) -> str:
        """Changes with anything that a rater could notice."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


# --- who hears what ----------------------------------------------------------------------------------------


def trials_for(study: Study, rater: int) -> list[Trial]:
    """The trials of rater number `rater` (from 0) in order: practice first, then rated ones with checks among them.

    No item twice. Items rotate through the cells (a Latin square): as many raters as there are cells hear each item of
    a block once in each cell, and each of them every cell equally often, give or take one: exactly, where a block is a
    multiple of the cells. Orders and the checks'
    places are drawn from the study's seed and the rater's number.
    """
    items = list(study.trials)
    n_cells = len(study.cells)
    block = rater // n_cells * study.per_rater
    chosen = [(block + n) % len(items) for n in range(min(study.per_rater, len(items)))]
    rated = [study.trials[items[index]][(place + rater) % n_cells] for place, index in enumerate(chosen)]
    rng = np.random.default_rng([study.seed, rater])
    ordered: list[Trial] = [rated[n] for n in rng.permutation(len(rated))]
    for check in study.checks:
        ordered.insert(int(rng.integers(1, len(ordered) + 1)), check)
    return [*study.practice, *ordered]


# --- making a study ----------------------------------------------------------------------------------------


def make_study(
    predictions: Sequence[Path],
    out: Path,
    *,
    systems: Sequence[str] = (),
    n_items: int = 30,
    per_rater: int = 0,
    raters_per_trial: int = 3,
    n_practice: int = 2,
    n_checks: int = 2,
    title: str = "Listening study",
    seed: int = 0,
    audio: Path | None = None,
) -> Study:
    """The study whose study.json and media/ are written into the folder `out`.

    `systems` are model names in the files; all if none is given. `audio` is the folder that sound has moved to. Items
    are drawn from the choice questions that all systems answered with at least one valid span inside the clip and
    whose clip has room for two other stretches, one a recording, after those for practice; what is left out is
    counted by its reason. per_rater 0: all items. Raises StudyError for unknown systems, too few items, and a folder
    that holds a study already.
    """
    if (out / FILE).exists():
        raise StudyError(f"{out}: holds a study already; give another --out")
    if per_rater and n_items > 0 and n_items % min(per_rater, n_items):
        reason = "or some parts would get more ratings than others"
        raise StudyError(f"--per-rater {per_rater}: must divide --items {n_items}, {reason}")
    answers, sounds = _by_question(predictions, systems, audio)
    names = tuple(systems) or tuple(dict.fromkeys(chain.from_iterable(answers.values())))
    for flag, n in (("--items", n_items), ("--raters-per-trial", raters_per_trial)):
        if n < 1:
            raise StudyError(f"{flag} {n}: must be 1 or more")
    usable, left_out = _usable(answers, names)
    shuffled = [usable[n] for n in np.random.default_rng(seed).permutation(len(usable))]
    rated: dict[str, tuple[Trial, ...]] = {}
    practice: list[Trial] = []
    recordings: set[str] = set()
    for question in (bar := tqdm(shuffled, desc="study", unit="question")):
        if len(rated) == n_items and len(practice) == n_practice:
            break
        if question.clip_id in recordings:
            left_out["about a recording that is in the study already"] += 1
            continue
        responses = [answers[question.id][name] for name in names]
        trials = _trials_of(responses, sounds[question.id], out / "media", seed)
        if isinstance(trials, str):
            left_out[trials] += 1
            continue
        recordings.add(question.clip_id)
        if len(practice) == n_practice:
            rated[question.id] = tuple(chain.from_iterable(trials))
        else:
            ious = [trace_iou(find_spans(r.text), question.evidence) or 0.0 for r in responses]
            best = trials[ious.index(max(ious))]
            practice.append(_as_practice(best[len(practice) % len(CONDITIONS)]))
    bar.close()
    if len(rated) < n_items:
        reasons = [f"{n}: {reason}" for reason, n in left_out.items()] or ["there are no more questions"]
        raise StudyError(
            f"only {len(rated)} of {n_items} items can be used, beside {len(practice)} for practice "
            f"({', '.join(reasons)}): give fewer --items or --practice, other predictions, or fewer systems"
        )
    # Of practice items, so that no rated one is met a second time; of the first one where there is no practice.
    known = practice or [next(iter(rated.values()))[0]]
    checks = tuple(_as_check(known[n % len(known)], n, seed) for n in range(n_checks))
    parts = (rated, tuple(practice), checks, dict(left_out))
    study = Study(title, seed, names, min(per_rater or n_items, n_items), raters_per_trial, *parts)
    write_whole(out / FILE, json.dumps(asdict(study), ensure_ascii=False, indent=1))
    return study


def read_study(folder: Path) -> Study:
    """The study in a folder. StudyError where there is none, or where it cannot be read."""
    path = folder / FILE
    if not path.is_file():
        raise StudyError(f"{path}: is missing; make a study with `tgsr study make`")
    try:
        return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), Study)
    except (ValueError, msgspec.ValidationError) as error:
        raise StudyError(f"{path}: is no study: {error!r}; make it again with `tgsr study make`") from error


def _by_question(
    predictions: Sequence[Path], systems: Sequence[str], audio: Path | None
) -> tuple[dict[str, dict[str, Response]], dict[str, Path]]:
    """Each choice question's first response of each system, by id, and where its sound lies."""
    answers: dict[str, dict[str, Response]] = {}
    sounds: dict[str, Path] = {}
    models: dict[str, None] = {}
    for path in predictions:
        for response in moved(read_responses(path, several=True), audio):
            models[response.model] = None
            if response.question.kind == "choice" and (not systems or response.model in systems):
                answers.setdefault(response.question.id, {}).setdefault(response.model, response)
                sounds.setdefault(response.question.id, resolve_audio(response, path))
    if unknown := [name for name in systems if name not in models]:
        problem = f"no responses of it; there are {', '.join(models) or 'none'}"
        raise StudyError(f"--systems {', '.join(unknown)}: {problem}")
    return answers, sounds


def _usable(
    answers: Mapping[str, Mapping[str, Response]], systems: Sequence[str]
) -> tuple[list[Question], Counter[str]]:
    """The questions that every system answered with a span inside the clip; how many others, by their reason."""
    usable: list[Question] = []
    left_out: Counter[str] = Counter()
    for responses in answers.values():
        question = next(iter(responses.values())).question
        if len(responses) < len(systems):
            left_out["not answered by every system"] += 1
        elif silent := [name for name in systems if not _cited(responses[name], question.duration)]:
            left_out[f"{silent[0]} cites no span inside the clip"] += 1
        else:
            usable.append(question)
    return usable, left_out


def _cited(response: Response, seconds: Seconds) -> list[Span]:
    return evidence_crop(find_spans(response.text), seconds, pad=0.0)


def _trials_of(
    responses: Sequence[Response], sound: Path, media: Path, seed: int
) -> list[tuple[Trial, ...]] | str:
    """Each response to one question in every condition; or why the question cannot be used."""
    try:
        samples = audio.load(sound)
    except AudioError:
        return "sound cannot be read"
    if not all(_cited(response, len(samples) / audio.SAMPLE_RATE) for response in responses):
        return "a system cites nothing before the sound's end"
    trials = [_trials(response, samples, media, seed) for response in responses]
    return trials if all(trials) else "no room for other stretches"


def _trials(response: Response, samples: audio.Samples, media: Path, seed: int) -> tuple[Trial, ...]:
    """The response in every condition; () where the clip has no room for two stretches besides the cited one."""
    question = response.question
    seconds = len(samples) / audio.SAMPLE_RATE  # of the sound: a row may say another length
    spans = _cited(response, seconds)
    cited = max(spans, key=lambda span: span.duration)
    rng = np.random.default_rng([seed, *hashlib.sha256(f"{question.id} {response.model}".encode()).digest()])
    foils = _foils(cited, spans, seconds, rng)
    if foils is None:
        return ()
    right = int(rng.integers(N_STRETCHES))
    played = [*foils[:right], cited, *foils[right:]]
    stretches = tuple(_keep(media, audio.crop(samples, [span])) for span in played)
    evidence = audio.crop(samples, evidence_crop(find_spans(response.text), seconds))
    sounds = {"evidence": _keep(media, evidence), "full": _keep(media, samples)}
    return tuple(
        Trial(
            id=hashlib.sha256(f"{seed} {question.id} {response.model} {condition}".encode()).hexdigest()[:12],
            kind="rated",
            item=question.id,
            system=response.model,
            condition=condition,
            question=question.question,
            choices=question.choices,
            response=masked(response.text),
            audio=sounds[condition],
            stretches=stretches,
            right=right,
        )
        for condition in CONDITIONS
    )


def _keep(media: Path, samples: audio.Samples) -> str:
    """The file's name in the folder, which tells nothing; the same sound is kept once."""
    name = f"{audio.content_hash(samples)[:20]}.wav"
    if not (media / name).exists():
        audio.save_wav(media / name, samples)
    return name


def masked(text: str) -> str:
    """The text with every stated time as "[time]": read, it would give the stretch away.

    More is hidden than `find_mentions` believes: single times, pairs without a unit, any decimal.
    """
    pieces, position = [], 0
    for mention in find_mentions(text):
        pieces += [_TIMES.sub(MASK, text[position : mention.text_start]), MASK]
        position = mention.text_end
    return "".join(pieces) + _TIMES.sub(MASK, text[position:])


def _foils(
    cited: Span, all_cited: Sequence[Span], seconds: float, rng: np.random.Generator
) -> list[Span] | None:
    """Two stretches as long as the cited one that meet neither it, nor other cited spans, nor each other."""
    length = min(cited.duration, seconds)
    starts = np.arange(0.0, seconds - length + 1e-9, 0.05).tolist()
    stretches = [Span(start, start + length) for start in starts]
    foils: list[Span] = []
    for _ in range(N_STRETCHES - 1):
        taken = (*all_cited, *foils)
        room = [span for span in stretches if all(span.overlap(other) <= 1e-6 for other in taken)]
        if not room:
            return None
        foils.append(room[rng.integers(len(room))])
    return foils


def _as_practice(trial: Trial) -> Trial:
    feedback = (
        f"Stretch {'ABC'[trial.right]} is what this response cites. For the ratings there is no right number: 1 says "
        "that the sound is of no use, or does not support the answer at all; 5 that it is all one needs, or proves the "
        "answer."
    )
    return replace(trial, id=f"practice-{trial.id}", kind="practice", feedback=feedback)


def _as_check(trial: Trial, n: int, seed: int) -> Trial:
    text = (
        f"This is a check that the text is read. Choose stretch {'ABC'[CHECK_STRETCH]}, and {CHECK_RATING} for both "
        "ratings, whatever you hear."
    )
    id_ = hashlib.sha256(f"{seed} check {n}".encode()).hexdigest()[:12]
    return replace(trial, id=id_, kind="check", response=text, right=CHECK_STRETCH, system="", feedback="")
