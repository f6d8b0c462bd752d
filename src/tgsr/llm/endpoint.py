"""Requests to a server that answers with JSON: tried again when it helps, never faster than allowed, asked once.

What a request has brought is kept on disk, so that the same run again costs nothing. The key is read from the
environment, sent in a header, and written nowhere.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tgsr.disk.whole import write_whole
from tgsr.errors import ModelError, OptionError
from tgsr.llm.decoding import Failed

WORTH_ANOTHER_TRY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
NO_KEY = {401, 403}
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """How a server is asked. OptionError for numbers that cannot be.

    timeout_seconds is for one try from its first byte to its last: a server that trickles does not hold the run up.
    Waits between tries double from first_wait up to longest_wait, with as much chance in them as certainty; a server
    that says how long to wait (Retry-After) is heard, up to longest_wait.
    """

    at_once: int = 8
    requests_per_minute: float | None = None
    timeout_seconds: float = 180.0
    n_tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.n_tries < 1:
            raise OptionError(f"--at-once {self.at_once}, {self.n_tries} tries: must be 1 or more")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise OptionError(f"--per-minute {self.requests_per_minute}: must be above 0")


class Malformed(Exception):
    """A body that is not what the protocol says: worth another try."""


@dataclass
class Endpoint:
    """One server. `headers` may hold the key; `cache` is a folder, None keeps nothing."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    key: str = field(repr=False)
    key_variable: str
    limits: Limits
    cache: Path | None

    def __post_init__(self) -> None:
        self.counts = {"requests": 0, "cached": 0, "retries": 0, "failed": 0}
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._client = httpx.Client(follow_redirects=False)

    def ask(self, path: str, body: Body, described: Body, read: Callable[[Body], Body]) -> Body | Failed:
        """The answer to a POST of `body`, as `read` takes it from there; from the cache where it was asked before.

        `described` is the body with sound replaced by its hash: the cache's key. `read` raises Malformed for a body
        that lacks what it should have. Failed where all tries failed or the request was refused; ModelError where
        the key was: no other request would fare better.
        """
        if (kept := self.kept(path, described)) is not None:
            self._count("cached")
            return kept
        answer = self.send("POST", path, read, json=body)
        if isinstance(answer, Failed):
            self._count("failed")
        elif (file := self._file(path, described)) is not None:
            write_whole(file, json.dumps(answer))
        return answer

    def kept(self, path: str, described: Body) -> Body | None:
        """The answer in the cache; None where there is none, or a damaged one, which is asked for again."""
        if (file := self._file(path, described)) is None:
            return None
        try:
            answer = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return answer if isinstance(answer, dict) and isinstance(answer.get("text"), str) else None

    def send(
        self,
        method: str,
        path: str,
        read: Callable[[Body], Body],
        *,
        wants_header: str | None = None,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> Body | Failed:
        """The answer to one request with its retries, nothing kept; `content` is httpx's (json, content).

        With `wants_header` the answer is that header, under its name, and the body is not read.
        """
        reason = ""
        for n_tried in range(self.limits.n_tries):
            if n_tried:
                self._count("retries")
            self._wait_for_turn()
            wait = None
            try:
                status, text, answered = self._try(method, path, headers or {}, content)
                if status in NO_KEY or (status == 400 and "API_KEY_INVALID" in text):
                    raise ModelError(
                        f"{self.url}: refused the key ({status}: {self._clean(text)}); set {self.key_variable} to one "
                        "that may use this model"
                    )
                if 200 <= status < 300:
                    if wants_header is None:
                        body = _json(text)
                        if not isinstance(body, dict):
                            raise Malformed(f"not a JSON object but {text[:80]!r}")
                        return read(body)
                    if wants_header in answered:
                        return {wants_header: answered[wants_header]}
                    raise Malformed(f"no header {wants_header}")
                reason = f"{status}: {self._clean(text)}"
                if status not in WORTH_ANOTHER_TRY:
                    return Failed(f"{self.url}: refused the request: {reason}")
                wait = _seconds(answered.get("retry-after"))
            except Malformed as error:
                reason = f"a malformed body: {error}"
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {self._clean(str(error))}"
            if n_tried + 1 < self.limits.n_tries:
                self._pause(n_tried, wait)
        return Failed(f"{self.url}: gave up after {self.limits.n_tries} tries, the last one: {reason}")

    def _try(
        self, method: str, path: str, headers: Mapping[str, str], content: Mapping[str, Any]
    ) -> tuple[int, str, Any]:
        """Status, body and headers of one try that is cut off at the deadline."""
        self._count("requests")
        deadline = time.monotonic() + self.limits.timeout_seconds
        url = path if path.startswith("http") else self.url + path
        pieces = []
        both = {**self.headers, **headers}
        with self._client.stream(
            method, url, headers=both, timeout=self.limits.timeout_seconds, **content
        ) as answer:
            for piece in answer.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"not finished after {self.limits.timeout_seconds:g} s")
            text = b"".join(pieces).decode("utf-8", errors="replace")
            return answer.status_code, text, answer.headers

    def _wait_for_turn(self) -> None:
        if self.limits.requests_per_minute is None:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 60.0 / self.limits.requests_per_minute
        time.sleep(start - now)

    def _pause(self, n_tried: int, retry_after: float | None) -> None:
        wait = min(self.limits.longest_wait, self.limits.first_wait * 2**n_tried)
        wait = wait * (0.5 + random.random() / 2)
        time.sleep(wait if retry_after is None else min(max(wait, retry_after), self.limits.longest_wait))

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _clean(self, text: str) -> str:
        """A server's message without the key in it, in one line that fits an errors file."""
        body = _json(text)
        message = body.get("error", body) if isinstance(body, dict) else text
        if isinstance(message, dict):
            message = message.get("message", message)
        line = " ".join(str(message).split())
        return (line.replace(self.key, "***") if self.key else line)[:300]

    def _file(self, path: str, described: Body) -> Path | None:
        if self.cache is None:
            return None
        request = json.dumps([self.url, path, described], sort_keys=True)
        digest = hashlib.sha256(request.encode()).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, is not read."""
    try:
        return max(0.0, float(retry_after)) if retry_after is not None else None
    except ValueError:
        return None
