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
from tgsr.engine.shared_prefix import Branch, SoftTimes, branch_logps, listen, without_start
from tgsr.models.lalm import Lalm
from tgsr.training.batches import passes, require_room
from tgsr.training.config import SupervisedConfig
from tgsr.training.run import TrainingRun
from tgsr.training.steps import Trainer, as_trained
from tgsr.training.watch import Watch


@dataclass(frozen=True, slots=True)
class ClipTexts:
    """One clip and its texts, as branches of clip 0; `ids` name them where a step is reported.

    `after` is what all of its prompts begin with: it follows the audio in the prefix.
    """

    audio: KeptFeatures
    after: tuple[int, ...]
    branches: tuple[Branch, ...]
    ids: tuple[str, ...]


def clip_texts(audio: KeptFeatures, named: Sequence[tuple[str, Branch]]) -> ClipTexts:
    """A clip with the texts of whole, named branches; the start that their prompts share goes into the prefix."""
    after, rest = without_start([branch for _, branch in named])
    return ClipTexts(audio, after, tuple(rest), tuple(name for name, _ in named))


def fit(
    run: TrainingRun,
    clips: Sequence[ClipTexts],
    config: SupervisedConfig,
    title: str,
    watch: Watch | None = None,
    soft_times: SoftTimes | None = None,
) -> Path:
    """The folder of an adapter that has been fitted to the clips' texts; goes on from the last checkpoint."""
    lalm, processes = run.lalm, run.processes
    sizes = [
        (
            name,
            lalm.positions_of(clip.audio.n_frames)
            + len(clip.after)
            + len(branch.prompt)
            + len(branch.answer),
        )
        for clip in clips
        for name, branch in zip(clip.ids, clip.branches, strict=True)
    ]
    require_room(lalm, sizes)
    names = [name for name, _ in sizes]
    trainer = Trainer(
        run, config, clips, names, config.clips_per_step, weight_decay=config.weight_decay, watch=watch
    )
    for step, chosen in trainer.steps(title):
        mine = chosen[processes.share(len(chosen))]
        n_tokens = sum(len(branch.answer) for clip in chosen for branch in clip.branches)
        trainer.optimizer.zero_grad()
        loss = torch.zeros(())
        for part in passes(len(mine), config.clips_at_once):
            with as_trained(lalm, config):
                audio = [clip.audio.read() for clip in mine[part]]
                prefix = listen(lalm, audio, after=[clip.after for clip in mine[part]])
                logps = branch_logps(prefix, together(mine[part]), soft_times=soft_times)
                # Divided by the whole step's tokens, so that passes of unequal sizes add up to one mean.
                share = -logps.logp_BT.sum() / n_tokens
                share.backward()
            loss += share.detach().cpu()
        update = trainer.update(step, loss, partial(rows_of, lalm, mine))
        trainer.log({"step": step + 1, **update._asdict()}, "loss")
    return trainer.finish()


def together(clips: Sequence[ClipTexts]) -> list[Branch]:
    """The branches of all clips, numbered as those of one batch."""
    return [replace(branch, owner=place) for place, clip in enumerate(clips) for branch in clip.branches]


def rows_of(lalm: Lalm, clips: Sequence[ClipTexts]) -> list[Row]:
    """What a step was trained on, for a file that someone will read."""
    return [
        {"id": id, "features": str(clip.audio.path), "answer": lalm.text(list(branch.answer))}
        for clip in clips
        for id, branch in zip(clip.ids, clip.branches, strict=True)
    ]
