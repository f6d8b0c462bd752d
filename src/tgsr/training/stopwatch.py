"""The seconds of a step, phase by phase."""

from __future__ import annotations

import time


class Stopwatch:
    """Wall seconds by phase, in this process, from its making on.

    What a GPU has been asked for and has not done yet counts where it is waited for.
    """

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """What has passed since the last lap belongs to `phase`."""
        now = time.perf_counter()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now

    @property
    def seconds(self) -> dict[str, float]:
        """Of each phase, to the millisecond."""
        return {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}
