"""Requests to servers: how long to wait before another try, and many at a time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from email.utils import mktime_tz, parsedate_tz
from typing import TypeVar

from tgsr.timeline import Seconds

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
N_TRIES = 6
FIRST_WAIT: Seconds = 1.0
LONGEST_WAIT: Seconds = 60.0


def wait_of(
    n_tried: int, retry_after: Seconds | None, first: Seconds = FIRST_WAIT, longest: Seconds = LONGEST_WAIT
) -> Seconds:
    """How long to wait after so many tries before this one, 0 or more: `first`, doubled each time up to `longest`, with
    as much chance in it as certainty; as long as the server says where that is longer, but no longer than `longest`.
    """
    wait = min(longest, first * 2**n_tried) * (0.5 + random.random() / 2)
    return wait if retry_after is None else min(max(wait, retry_after), longest)


def seconds_of(retry_after: str | None) -> Seconds | None:
    """Retry-After in seconds, whether it says how many or until when (RFC 9110, 10.2.3); None for anything else."""
    if retry_after is None:
        return None
    try:
        if (until := parsedate_tz(retry_after)) is not None:
            return max(0.0, mktime_tz(until) - time.time())
        return max(0.0, float(retry_after))
    except ValueError:  # neither, or a year that there is not
        return None


def ask_each(ask: Callable[[Asked], Answered], asked: Sequence[Asked], at_once: int) -> list[Answered]:
    """`ask` of each, in order, at_once at a time. After the first error, which is raised, none is begun.

    At Ctrl-C nobody waits for the requests that are under way, which a silent server may hold for minutes.
    """
    is_over = threading.Event()
    answers: list[Future[Answered]] = [Future() for _ in asked]
    waiting = iter(list(zip(asked, answers, strict=True)))  # of a list: each thread gets another one

    def work() -> None:
        for one, answer in waiting:
            if is_over.is_set():
                return
            try:
                answer.set_result(ask(one))
            except BaseException as error:  # whatever it is, it is raised in the thread that waits
                is_over.set()
                answer.set_exception(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(asked)))]
    for worker in workers:
        worker.start()
    try:
        wait(answers, return_when=FIRST_EXCEPTION)
    finally:
        is_over.set()
    for worker in workers:
        worker.join()  # what is under way is kept for the next run
    for answer in answers:
        if answer.done():
            answer.result()
    return [answer.result() for answer in answers]
