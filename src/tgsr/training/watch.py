"""A training that is watched: what the model reaches on held-out questions, now and then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Watch:
    """`look` measures the model as it is, after so many steps, and is called by all processes together.

    What it returns is the log's "watch", {} where there is nothing to log; only the main process's counts. It is called
    before the first step, after each `every` and after the last. The checkpoint is kept at which the measure `best_by`
    was highest.
    """

    every: int
    best_by: str
    look: Callable[[int], dict[str, Any]]
