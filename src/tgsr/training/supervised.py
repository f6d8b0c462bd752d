"""The supervised loop: texts to be written about clips, by log-likelihood (stage 1, and fine-tuning on responses).

A clip's texts share its prefix. One step is `clips_per_step` clips with all their texts, whatever the number
of processes and of passes; its loss is the mean over the tokens of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from tqdm import tqdm

from tgsr.engine.features import KeptFeatures
from tgsr.engine.shared_prefix import Branch, branch_logps, listen, without_start
from tgsr.models.lalm import Lalm
from tgsr.models.load import save_adapter
from tgsr.models.lora_targets import parts_table
from tgsr.models.placement import Devices, LoadAs
from tgsr.records import Row
from tgsr.training.checkpoints import RunFolder
from tgsr.training.processes import Processes, Tracker, shard_frozen
from tgsr.training.steps import (
    Schedule,
    as_trained,
    chosen_at,
    keep,
    keeping_batch,
    passes,
    require_counts,
    require_optimization,
    require_room,
    restore,
    set_learning_rate,
    step_or_stop,
    steps_per_epoch,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedConfig:
    """Table 5 gives the defaults; it contradicts section 4.2, which says 8 GPUs, 8 a GPU, 4 accumulations."""

    load_as: Annotated[
        LoadAs, "how the base's weights are held; 4bit is for a LoRA and needs CUDA and bitsandbytes"
    ] = "checkpoint"
    devices: Annotated[Devices, "all: the base's layers are spread over this process's GPUs"] = "one"
    epochs: Annotated[int, "passes over the clips"] = 1
    clips_per_step: Annotated[
        int, "clips a step, over all processes, with all their texts; the paper counts texts, 128 a step"
    ] = 8
    clips_at_once: Annotated[int | None, "clips a pass; fewer need less memory and change no number"] = None
    bfloat16: Annotated[
        bool, "products in bfloat16 (table 5); trained weights and their updates stay float32"
    ] = False
    gradient_checkpointing: Annotated[bool, "compute layers twice, keep only their inputs"] = False
    shard: Annotated[bool, "spread the frozen decoder over the processes (FSDP2)"] = False
    learning_rate: Annotated[float, "peak"] = 2e-5
    schedule: Annotated[Schedule, "of the learning rate after the warm-up; the paper is silent"] = "cosine"
    warmup_share: Annotated[float, "of the steps"] = 0.03
    weight_decay: Annotated[float, "the paper is silent"] = 0.0
    clip_norm: Annotated[float, "of the gradient; the paper is silent"] = 1.0
    checkpoint_every: Annotated[int, "steps"] = 50
    tracker: Annotated[Tracker, "where numbers go beside metrics.jsonl; needs its package"] = "none"
    seed: Annotated[int, "of the order, and of the LoRA"] = 0

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "clips_per_step", "clips_at_once", "checkpoint_every")
        require_optimization(self)


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
