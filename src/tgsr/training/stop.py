"""SIGTERM, by which clusters end a job, and its like: what is half-written goes, a step is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tgsr.errors import Stopped

ONE_REQUEST = 1.0  # seconds
"""torchrun passes on what a cluster has sent to each process too, and a closed terminal sends two."""


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
def stop_on_signals(one_request: float = 0.0, numbers: Sequence[int] = (signal.SIGTERM,)) -> Iterator[Stop]:
    """Within it these signals raise Stopped, but at steps only set `asked`; a second one ends the process at once.

    What comes within `one_request` seconds of the first, or ONE_REQUEST where no step is finished, counts as the same
    one. A signal that is ignored (nohup) stays so. Nothing is changed outside of the main thread, where Python hears no
    signals.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def hear(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if stop.asked_at is None:
            stop.asked_at = now
            if not stop.in_steps:
                raise Stopped(number)
            _say(b"SIGTERM: ends after this step, when that is saved; a second one ends it at once")
            if not one_request:
                signal.signal(number, signal.SIG_DFL)
        elif now - stop.asked_at > (one_request if stop.in_steps else ONE_REQUEST):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, hear) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _say(words: bytes) -> None:
    """To stderr, past Python's own writers: the signal may have come in the middle of one."""
    os.write(2, b"\ntgsr: " + words + b"\n")
