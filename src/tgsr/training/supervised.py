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
from tqdm import tqdm

from tgsr.disk.jsonl import Row
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.features import KeptFeatures
from tgsr.engine.shared_prefix import Branch, branch_logps, listen, without_start
from tgsr.models.aligner_and_lora import parts_table
from tgsr.models.lalm import Lalm
from tgsr.models.load import save_adapter
from tgsr.training.batches import chosen_at, passes, require_room, steps_per_epoch
from tgsr.training.config import SupervisedConfig
from tgsr.training.processes import Processes, shard_frozen
from tgsr.training.run import keep, restore
from tgsr.training.steps import as_trained, keeping_batch, set_learning_rate, step_or_stop


@dataclass(frozen=True, slots=True)
class Lesson:
    """One clip and its texts, as branches of clip 0; `ids` name them where a step is reported.

    `after` is what all of its prompts begin with: it follows the audio in the prefix.
    """

    heard: KeptFeatures
    after: tuple[int, ...]
    branches: tuple[Branch, ...]
    ids: tuple[str, ...]


def lesson_of(heard: KeptFeatures, branches: Sequence[Branch], ids: Sequence[str]) -> Lesson:
    """A lesson of whole branches; the start that their prompts share goes into the prefix."""
    after, rest = without_start(branches)
    return Lesson(heard, after, tuple(rest), tuple(ids))


def fit(
    lalm: Lalm,
    lessons: Sequence[Lesson],
    config: SupervisedConfig,
    run: RunFolder,
    processes: Processes,
    title: str,
) -> Path:
    """Trains what requires gradients and saves an adapter; goes on from the last checkpoint. Returns its folder."""
    if processes.main:
        print(parts_table(lalm))
    require_room(
        lalm,
        (
            (name, lesson.heard.n_frames + len(lesson.after) + len(branch.prompt) + len(branch.answer))
            for lesson in lessons
            for name, branch in zip(lesson.ids, lesson.branches, strict=True)
        ),
    )
    weights = {name: w for name, w in lalm.model.named_parameters() if w.requires_grad}
    optimizer = torch.optim.AdamW(
        list(weights.values()), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    an_epoch = steps_per_epoch(len(lessons), config.clips_per_step, processes, config.shard)
    n_steps = config.epochs * an_epoch
    if config.shard:
        shard_frozen(lalm, processes)
    items = [id for lesson in lessons for id in lesson.ids]
    done = restore(run, processes, lalm, optimizer, items)
    bar = tqdm(
        range(done, n_steps), desc=title, unit="step", initial=done, total=n_steps, disable=not processes.main
    )
    for step in bar:
        chosen = chosen_at(step, lessons, config.clips_per_step, an_epoch, config.seed)
        n_tokens = sum(len(branch.answer) for lesson in chosen for branch in lesson.branches)
        mine = chosen[processes.share(len(chosen))]
        learning_rate = set_learning_rate(
            optimizer, config.learning_rate, config.schedule, step, n_steps, config.warmup_share
        )
        optimizer.zero_grad()
        loss = torch.zeros(())
        for some in passes(len(mine), config.clips_at_once):
            branches = together(mine[some])
            with as_trained(lalm, config.bfloat16, config.gradient_checkpointing):
                heard = [lesson.heard.read() for lesson in mine[some]]
                prefix = listen(lalm, heard, after=[lesson.after for lesson in mine[some]])
                logps = branch_logps(prefix, branches)
                # Divided by the whole step's tokens, so that passes of unequal sizes add up to one mean.
                part = -logps.logp_BT.sum() / n_tokens
                part.backward()
            loss += part.detach().cpu()
        processes.sum_gradients(list(weights.values()))
        loss = processes.total(loss).cpu()
        with keeping_batch(run, processes, step, partial(rows_of, lalm, mine)):
            norm = step_or_stop(optimizer, list(weights.values()), loss, config.clip_norm, step)
        processes.log(run, {"step": step + 1, "loss": float(loss), "lr": learning_rate, "grad_norm": norm})
        bar.set_postfix(loss=f"{float(loss):.3f}")
        if processes.main and ((step + 1) % config.checkpoint_every == 0 or step + 1 == n_steps):
            keep(run, step + 1, weights, optimizer, items)
    if processes.main:
        save_adapter(lalm, run.path / "adapter")
    processes.finish()
    return run.path / "adapter"


def together(lessons: Sequence[Lesson]) -> list[Branch]:
    """The lessons' branches as those of one batch, whose clips are the lessons in order."""
    return [replace(branch, owner=clip) for clip, lesson in enumerate(lessons) for branch in lesson.branches]


def rows_of(lalm: Lalm, lessons: Sequence[Lesson]) -> list[Row]:
    """What a step was trained on, for a file that someone will read."""
    return [
        {"id": id, "features": str(lesson.heard.path), "answer": lalm.text(list(branch.answer))}
        for lesson in lessons
        for id, branch in zip(lesson.ids, lesson.branches, strict=True)
    ]
