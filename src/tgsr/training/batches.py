"""The clips and questions of one step: heard, chosen by the step's number, cut into passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from tgsr.audio import duration
from tgsr.disk.jsonl import Row
from tgsr.engine.features import KeptFeatures, hear, require_lasting
from tgsr.errors import AudioError, ModelError, OptionError, RunError
from tgsr.models.lalm import Lalm, context_of
from tgsr.records import Question, by_clip, is_held_out, resolve_audio, write_jsonl
from tgsr.training.run import TrainingRun

T = TypeVar("T")
DURATION_SLACK = 0.5  # seconds: headers of mp3 and rounded durations are off by less


def hear_clips(run: TrainingRun, questions: Sequence[Question], path: str) -> dict[str, KeptFeatures]:
    """The encoder's output of each clip, on disk: the processes share the work, and read what any of them wrote.

    A clip that cannot be read, is too long or is not as long as its questions say is left out and recorded in the run's
    errors.jsonl. Raises RunError where none is left, and where one sounds otherwise than when the run began.
    """
    processes, errors = run.processes, run.folder.path / "errors.jsonl"
    clips = by_clip(questions)
    mine = clips[processes.share(len(clips))]
    features: list[tuple[str, KeptFeatures]] = []
    unheard: list[Row] = []
    for clip in tqdm(mine, desc="listening", unit="clip", disable=not processes.main):
        about, audio = clip[0], clip[0].audio
        try:
            for about in {question.duration: question for question in clip}.values():  # as a rule one
                kept = hear(run.lalm, about, path, run.cache, DURATION_SLACK)
            features.append((audio, kept))
        except (AudioError, ModelError, FileNotFoundError) as error:
            unheard.append({"clip": about.clip_id, "audio": audio, "error": str(error)})
    unheard = processes.gather(unheard)
    features_by_audio = dict(processes.gather(features))
    with processes.main_first():
        run.folder.rest_on_sounds({audio: kept.path.stem for audio, kept in features_by_audio.items()})
    if unheard and processes.main:
        write_jsonl(errors, unheard)
        print(f"{len(unheard)} clips are left out: {errors}")
    if not features_by_audio:
        raise RunError(f"{path}: none of its {len(clips)} clips can be heard; see {errors}")
    return features_by_audio


def require_sound(questions: Sequence[Question], path: str) -> None:
    """RunError where no clip can be heard by any model, before one is loaded; the first that can be ends the search."""
    clips = by_clip(questions)
    first: AudioError | None = None
    for clip in clips:
        sound = resolve_audio(clip[0], path)
        try:
            seconds = duration(sound)
            for question in clip:
                require_lasting(sound, seconds, question, DURATION_SLACK)
            return
        except AudioError as error:
            first = first or error
    raise RunError(f"{path}: none of its {len(clips)} clips can be heard; the first: {first}")


def to_learn(
    questions: Sequence[Question], path: str, what: str, is_one: Callable[[Question], bool]
) -> tuple[list[Question], str]:
    """The questions that are trained on, and what is said of the others: another kind, a split for testing.

    RunError where none is left.
    """
    of_kind = [question for question in questions if is_one(question)]
    learned = [question for question in of_kind if not is_held_out(question)]
    held_out = sorted({question.split for question in of_kind if is_held_out(question)})
    why = [f"{len(questions) - len(of_kind)} are no {what}"] if len(of_kind) < len(questions) else []
    if held_out:
        why.append(f"{len(of_kind) - len(learned)} are for testing, by their split ({', '.join(held_out)})")
    said = f"{len(questions) - len(learned)} of {len(questions)} questions are left out: {'; '.join(why)}"
    if not learned:
        raise RunError(
            f"{path}: no {what} to train on; make some with `tgsr build`" + (f" ({said})" if why else "")
        )
    return learned, said if why else ""


def require_room(lalm: Lalm, n_tokens: Iterable[tuple[str, int]]) -> None:
    """RunError for the first item that the context cannot hold: its name, its tokens from the audio on."""
    context, n_before = context_of(lalm), len(lalm.prompt("").before)
    for name, n in n_tokens:
        if n_before + n > context:
            raise RunError(
                f"{name}: needs {n_before + n} tokens with its audio, {lalm.name}'s context has {context}; "
                "leave it out, cut its clip or allow fewer new tokens"
            )


def chosen_at(step: int, items: Sequence[T], per_step: int, steps_per_epoch: int, seed: int) -> list[T]:
    """The items of a step: each epoch's order is its own, and follows from the seed and the epoch's number."""
    epoch, place = divmod(step, steps_per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(items))
    return [items[i] for i in order[place * per_step : (place + 1) * per_step]]


def steps_per_epoch(n_items: int, per_step: int, n_processes: int, shard: bool, began_sharded: bool) -> int:
    """How many steps see all items once, the last one perhaps fewer than the others.

    Sharded processes gather layers together and must do the same number of passes, so that each step is divided
    evenly: in a run that began so each is full, and a rest waits for another epoch's order. That stays so, whatever
    the run goes on with: its steps are those of a run that was never stopped. OptionError where that cannot be.
    """
    rest = 0 if began_sharded else n_items % per_step
    if shard and n_processes == 1:
        raise OptionError(
            "--shard: needs several processes; start them with torchrun --nproc-per-node N -m tgsr.cli, or leave it "
            "out: a run that began with it goes on without"
        )
    if shard and (per_step % n_processes or n_items < per_step):
        raise OptionError(
            f"--shard: {per_step} items a step must be a multiple of {n_processes} processes, "
            f"and no more than there are, {n_items}"
        )
    if shard and rest % n_processes:
        raise OptionError(
            f"--shard: the run began without it, and an epoch's last step has {rest} of the {n_items} items, which "
            f"{n_processes} processes cannot share evenly; leave it out, or start as many processes as divide that"
        )
    return n_items // per_step if began_sharded else math.ceil(n_items / per_step)


def passes(n: int, at_once: int | None) -> list[slice]:
    """A step's n clips in pieces of at most `at_once`, one after the other; None: all in one; n may be 0."""
    size = at_once or max(1, n)
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]
