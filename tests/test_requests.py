"""Many requests at a time: their order, what ends them, and that nobody waits for a silent server at Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tgsr.engine.requests import ask_each
from tgsr.errors import ModelError


def test_answers_come_in_the_order_of_what_was_asked() -> None:
    def ask(n: int) -> int:
        time.sleep(0.01 * (4 - n))
        return n * n

    assert ask_each(ask, [1, 2, 3], 3) == [1, 4, 9]
    assert ask_each(ask, [], 3) == []


def test_after_an_error_what_is_under_way_is_finished_and_nothing_else_begun() -> None:
    ended: list[int] = []

    def ask(n: int) -> None:
        if n == 1:
            raise ModelError("the key is refused")
        time.sleep(0.1)
        ended.append(n)

    with pytest.raises(ModelError, match="the key is refused"):
        ask_each(ask, range(50), 2)
    assert ended == [0]


def test_ctrl_c_does_not_wait_for_a_server_that_is_silent() -> None:
    silent, began = threading.Event(), time.monotonic()

    def ask(n: int) -> None:
        if n == 1:
            os.kill(os.getpid(), signal.SIGINT)
        silent.wait(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            ask_each(ask, range(10), 2)
    finally:
        signal.signal(signal.SIGINT, before)
        silent.set()
    assert time.monotonic() - began < 30
