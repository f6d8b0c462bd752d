"""A clock on the aligned audio: what time it is, added to each frame (`train sta --clock`; not the paper's).

Axes: F frames, D the decoder's width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tgsr.models.lalm import Lalm, device_of
from tgsr.timeline import Seconds

PERIODS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)  # seconds; each further one is twice the one before
WEIGHTS = "clock."  # how its weights begin in an adapter's file of the aligner


class Clock(nn.Module):
    """Times in seconds, F -> what is added to the frames that are heard then, F x D: sinusoids, through one layer."""

    def __init__(self, width: int, periods: Sequence[Seconds]) -> None:
        super().__init__()
        self.periods = tuple(periods)
        self.linear = nn.Linear(2 * len(self.periods), width)

    def forward(self, times: np.ndarray) -> Tensor:
        device = self.linear.weight.device
        seconds_F = torch.tensor(times, dtype=torch.float32, device=device)
        angles = 2 * math.pi * seconds_F[:, None] / torch.tensor(self.periods, device=device)
        return self.linear(torch.cat([angles.sin(), angles.cos()], -1))


def periods(n: int) -> tuple[Seconds, ...]:
    """The n shortest periods."""
    return tuple(
        PERIODS[i] if i < len(PERIODS) else PERIODS[-1] * 2 ** (i + 1 - len(PERIODS)) for i in range(n)
    )


def add_clock(lalm: Lalm, n_periods: int | None = None) -> Clock:
    """The model's clock, float32 and frozen: a new one of zeros, which changes nothing yet, where it has none.

    Its longest period is twice what the model hears at most, or more, so that no two times are alike; or it has
    `n_periods`.
    """
    if lalm.clock is None:
        n = n_periods or len(PERIODS) + max(0, math.ceil(math.log2(2 * lalm.max_seconds / PERIODS[-1])))
        width = lalm.language_model.get_input_embeddings().weight.shape[-1]
        clock = Clock(width, periods(n)).to(device_of(lalm)).requires_grad_(False)
        nn.init.zeros_(clock.linear.weight)
        nn.init.zeros_(clock.linear.bias)
        lalm.inner.add_module("clock", clock)
    clock = lalm.clock
    assert isinstance(clock, Clock)
    return clock


@contextmanager
def clock_off(lalm: Lalm) -> Iterator[None]:
    """Within it the model has no clock: what an official class computes, which knows of none."""
    clock = lalm.clock
    if clock is not None:
        del lalm.inner.clock
    try:
        yield
    finally:
        if clock is not None:
            lalm.inner.add_module("clock", clock)
