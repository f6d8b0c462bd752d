"""SIGTERM, by which clusters end a job: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tgsr.errors import Stopped

ONE_REQUEST = 1.0  # seconds; torchrun passes on to its processes what a cluster has sent to each of them too


@dataclass(slots=True)
class Stop:
    """Whether SIGTERM has asked this process to stop, and whether it is at steps, each of which is finished first."""

    in_steps: bool = False
    asked_at: float | None = None

    @property
    def asked(self) -> bool:
        return self.asked_at is not None

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Within it SIGTERM only sets `asked`."""
        self.in_steps = True
        try:
            yield
        finally:
            self.in_steps = False


@contextmanager
def stop_on_sigterm(one_request: float = 0.0) -> Iterator[Stop]:
    """Within it SIGTERM raises Stopped, but at steps only sets `asked`; a second one ends the process at once.

    What comes within `one_request` seconds of the first counts as the same one. Nothing is changed outside of the main
    thread, where Python hears no signals.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def end_at_once() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def hear(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not stop.in_steps:
            _say(b"stopped by SIGTERM; the same command goes on from the last checkpoint")
            raise Stopped
        if stop.asked_at is None:
            stop.asked_at = now
            _say(b"SIGTERM: ends after this step, when that is saved; a second one ends it at once")
            if not one_request:
                end_at_once()
        elif now - stop.asked_at > one_request:
            end_at_once()
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _say(words: bytes) -> None:
    """To stderr, past Python's own writers: the signal may have come in the middle of one."""
    os.write(2, b"\ntgsr: " + words + b"\n")
