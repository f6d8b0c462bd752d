"""What every training loop does around its loss: the learning rate's course, and one guarded update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from tgsr.disk.jsonl import Row
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.branch_attention import NAME as BRANCHES
from tgsr.engine.branch_attention import attention_as
from tgsr.errors import NotFinite
from tgsr.models.aligner_and_lora import without_renaming_warning
from tgsr.models.lalm import Lalm, device_of
from tgsr.records import write_jsonl
from tgsr.training.config import Schedule
from tgsr.training.processes import Processes

T = TypeVar("T")


def cosine(step: int, n_steps: int, n_warmup: int, floor: float = 0.05) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then a half cosine down to `floor`."""
    warm = min(1.0, (step + 1) / max(1, n_warmup))
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, n_steps)))))


def linear(step: int, n_steps: int, n_warmup: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then linearly down to zero after the last step."""
    warm = min(1.0, (step + 1) / max(1, n_warmup))
    return warm * (n_steps - step) / max(1, n_steps)


SCHEDULES = {"cosine": cosine, "linear": linear}


def set_learning_rate(
    optimizer: torch.optim.Optimizer,
    peak: float,
    schedule: Schedule,
    step: int,
    n_steps: int,
    warmup_share: float,
) -> float:
    """Gives the optimizer this step's learning rate and returns it."""
    learning_rate = peak * SCHEDULES[schedule](step, n_steps, round(warmup_share * n_steps))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    return learning_rate


def step_or_stop(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], loss: Tensor, clip_norm: float, step: int
) -> float:
    """One update with clipped gradients; returns their norm before clipping. NotFinite instead of a bad update."""
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    value = float(loss.detach())
    if not (math.isfinite(norm) and math.isfinite(value)):
        raise NotFinite(
            f"step {step}: loss {value}, gradient norm {norm}; the weights are those before this update. "
            "Lower the learning rate, or look at this step's clips"
        )
    optimizer.step()
    return norm


@contextmanager
def keeping_batch(
    run: RunFolder, processes: Processes, step: int, rows: Callable[[], list[Row]]
) -> Iterator[None]:
    """Where the block raises NotFinite, all processes' `rows` of the step are written beside the run and named.

    A gradient that is summed over the processes is not finite in all of them, so that all arrive here.
    """
    try:
        yield
    except NotFinite as error:
        batch = run.path / f"not-finite-step-{step}.jsonl"
        gathered = processes.gather(rows())
        if processes.main:
            write_jsonl(batch, gathered)
        raise NotFinite(f"{error}; its batch: {batch}") from error


@contextmanager
def as_trained(lalm: Lalm, bfloat16: bool, gradient_checkpointing: bool) -> Iterator[None]:
    """Within it, the decoder computes in bfloat16 and keeps only its layers' inputs, each where asked.

    Checkpointed layers are computed again in the backward pass: the same numbers for a third more work.
    The decoder has no dropout, so that switching it to training mode, which checkpointing needs, changes nothing.
    """
    decoder = lalm.language_model
    if gradient_checkpointing:
        with without_renaming_warning():
            decoder.gradient_checkpointing_enable({"use_reentrant": False})
        decoder.train()
    try:
        # The backward pass computes checkpointed layers again: by the same attention as the forward did.
        with (
            attention_as(decoder, BRANCHES),
            torch.autocast(device_of(lalm).type, torch.bfloat16, enabled=bfloat16),
        ):
            yield
    finally:
        if gradient_checkpointing:
            with without_renaming_warning():
                decoder.gradient_checkpointing_disable()
            decoder.eval()
