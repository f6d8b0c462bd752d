"""The supervised loop: texts to be written about clips, by log-likelihood (stage 1, and fine-tuning on responses).

A clip's texts share its prefix. One step is `clips_per_step` clips with all their texts, whatever the number
of processes and of passes; its loss is the mean over the tokens of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from tgsr.disk.jsonl import Row
from tgsr.engine.features import KeptFeatures
from tgsr.engine.shared_prefix import Branch, branch_logps, listen, without_start
from tgsr.models.lalm import Lalm
from tgsr.training.batches import passes, require_room
from tgsr.training.config import SupervisedConfig
from tgsr.training.run import TrainingRun
from tgsr.training.steps import Trainer, as_trained


@dataclass(frozen=True, slots=True)
class Lesson:
    """One clip and its texts, as branches of clip 0; `ids` name them where a step is reported.

    `after` is what all of its prompts begin with: it follows the audio in the prefix.
    """

    audio: KeptFeatures
    after: tuple[int, ...]
    branches: tuple[Branch, ...]
    ids: tuple[str, ...]


def lesson_of(audio: KeptFeatures, branches: Sequence[Branch], ids: Sequence[str]) -> Lesson:
    """A lesson of whole branches; the start that their prompts share goes into the prefix."""
    after, rest = without_start(branches)
    return Lesson(audio, after, tuple(rest), tuple(ids))


def fit(run: TrainingRun, lessons: Sequence[Lesson], config: SupervisedConfig, title: str) -> Path:
    """The folder of an adapter that has been fitted to the lessons; goes on from the last checkpoint."""
    lalm, processes = run.lalm, run.processes
    named_branches = [
        (name, lesson, branch)
        for lesson in lessons
        for name, branch in zip(lesson.ids, lesson.branches, strict=True)
    ]
    require_room(
        lalm,
        (
            (name, lesson.audio.n_frames + len(lesson.after) + len(branch.prompt) + len(branch.answer))
            for name, lesson, branch in named_branches
        ),
    )
    names = [name for name, _, _ in named_branches]
    trainer = Trainer(run, config, lessons, names, config.clips_per_step, weight_decay=config.weight_decay)
    for step, chosen in trainer.steps(title):
        mine = chosen[processes.share(len(chosen))]
        n_tokens = sum(len(branch.answer) for lesson in chosen for branch in lesson.branches)
        trainer.optimizer.zero_grad()
        loss = torch.zeros(())
        for clips in passes(len(mine), config.clips_at_once):
            with as_trained(lalm, config):
                audio = [lesson.audio.read() for lesson in mine[clips]]
                prefix = listen(lalm, audio, after=[lesson.after for lesson in mine[clips]])
                logps = branch_logps(prefix, together(mine[clips]))
                # Divided by the whole step's tokens, so that passes of unequal sizes add up to one mean.
                part = -logps.logp_BT.sum() / n_tokens
                part.backward()
            loss += part.detach().cpu()
        update = trainer.update(step, loss, partial(rows_of, lalm, mine))
        row = {
            "step": step + 1,
            "loss": update.loss,
            "lr": update.learning_rate,
            "grad_norm": update.grad_norm,
        }
        trainer.log(row, "loss")
    return trainer.finish()


def together(lessons: Sequence[Lesson]) -> list[Branch]:
    """The lessons' branches as those of one batch, whose clips are the lessons in order."""
    return [replace(branch, owner=clip) for clip, lesson in enumerate(lessons) for branch in lesson.branches]


def rows_of(lalm: Lalm, lessons: Sequence[Lesson]) -> list[Row]:
    """What a step was trained on, for a file that someone will read."""
    return [
        {"id": id, "features": str(lesson.audio.path), "answer": lalm.text(list(branch.answer))}
        for lesson in lessons
        for id, branch in zip(lesson.ids, lesson.branches, strict=True)
    ]
