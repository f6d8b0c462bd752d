"""Requests to a server that answers with JSON: tried again when it helps, never faster than allowed, asked once.

What a request has brought is kept on disk, so that the same run again costs nothing. The key is read from the
environment, sent in a header, and written nowhere.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx

from tgsr.disk.jsonl import maybe_json
from tgsr.disk.whole import write_whole
from tgsr.engine.requests import FIRST_WAIT, LONGEST_WAIT, N_TRIES, seconds_of, wait_of
from tgsr.errors import ModelError, OptionError, require
from tgsr.llm.decoding import Failed
from tgsr.timeline import Seconds

WORTH_ANOTHER_TRY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
NO_KEY = {401, 403}
KEPT_AS = 2  # 1 kept replies that were no answers as answers
NO_CREDIT = (
    r"insufficient[_ ](?:user_)?(?:quota|credits|balance)|余额不足|billing_(?:hard_limit|not_active)|"
    r"credit balance is too low|\barrearage\b|freetieronly"
)
UNPAID = re.compile(NO_CREDIT, re.IGNORECASE)
"""In the body of any refusal: OpenAI's and DashScope's codes, Anthropic's and gateways' messages."""
USED_UP = re.compile(rf"{NO_CREDIT}|current_quota|billing_|depleted|per[ _-]?day|\bdaily\b", re.IGNORECASE)
"""In the body of a 429: waiting a minute will not help. Gemini's quota ids and gateways' messages too."""
IN_PLACE_OF_AN_ANSWER = ("error_msg", "errors", "base_resp", "detail", "message")
FLAGGED = re.compile("flagged_input|moderation")  # a gateway's 403 for what was asked, not for who asks
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """How a server is asked. OptionError for numbers that cannot be.

    timeout_seconds is for one try from its first byte to its last: a server that trickles does not hold the run up.
    Waits between tries double from first_wait up to longest_wait, with as much chance in them as certainty; a server
    that says how long or until when to wait (Retry-After) is heard, up to longest_wait. max_seconds is the longest clip
    that a served model hears, None where that is not said.
    """

    at_once: int = 8
    requests_per_minute: float | None = None
    timeout_seconds: float = 180.0
    n_tries: int = N_TRIES
    first_wait: float = FIRST_WAIT
    longest_wait: float = LONGEST_WAIT
    max_seconds: Seconds | None = None

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.n_tries < 1:
            raise OptionError(f"--at-once {self.at_once}, {self.n_tries} tries: must be 1 or more")
        rate, longest = self.requests_per_minute, self.max_seconds
        require("per_minute", rate, "above 0", rate is None or rate > 0)
        require("max_seconds", longest, "above 0", longest is None or 0 < longest < math.inf)


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
        self.counts = {"requests": 0, "cached": 0, "retries": 0, "failed": 0, "unfinished": 0, "cut": 0}
        self._lock = threading.Lock()
        self._next_start = 0.0
        self._client = httpx.Client(follow_redirects=False, verify=certificates())

    def ask(self, path: str, body: Body, described: Body, read: Callable[[Body], Body]) -> Body | Failed:
        """The answer to a POST of `body`, as `read` takes it from there; from the cache where it was asked before.

        `described` is the body with sound replaced by its hash: the cache's key. `read` raises Malformed for a body
        that lacks what it should have, and marks a reply that is no finished answer ("failed", "truncated"): it is
        counted and not kept, so that the next call asks again. Failed where all tries failed or the request was
        refused; ModelError where the key was, or its credit is used up: no other request would fare better.
        """
        if (kept := self.kept(path, described)) is not None:
            self._count("cached")
            return kept
        answer = self.send("POST", path, read, json=body)
        if isinstance(answer, Failed):
            self._count("failed")
        elif answer.get("failed") or answer.get("truncated"):
            self._count("unfinished" if answer.get("failed") else "cut")
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
        is_answer = isinstance(answer, dict) and isinstance(answer.get("text"), str)
        return answer if is_answer and not answer.get("failed") and not answer.get("truncated") else None

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
                if 200 <= status < 300:
                    status = status_within(maybe_json(text)) or status
                if status >= 400 and is_unpaid(status, text):
                    raise ModelError(
                        f"{self.url}: the key's credit or quota is used up ({status}: {self._clean(text)}); once there "
                        "is more, or with another key, the same command goes on where it stopped"
                    )
                if (status in NO_KEY and not FLAGGED.search(text)) or (
                    status == 400 and "API_KEY_INVALID" in text
                ):
                    raise ModelError(
                        f"{self.url}: refused the key ({status}: {self._clean(text)}); set {self.key_variable} to one "
                        "that may use this model"
                    )
                if 200 <= status < 300:
                    if wants_header is None:
                        body = maybe_json(text)
                        if not isinstance(body, dict):
                            raise Malformed(f"not a JSON object but {text[:80]!r}")
                        return read(body)
                    if wants_header in answered:
                        return {wants_header: answered[wants_header]}
                    raise Malformed(f"no header {wants_header}")
                reason = f"{status}: {self._clean(text)}"
                if 300 <= status < 400:
                    reason = (
                        f"{status}: it points to {answered.get('location')}; give the server's own address"
                    )
                if status not in WORTH_ANOTHER_TRY:
                    return Failed(f"{self.url}: refused the request: {reason}")
                wait = seconds_of(answered.get("retry-after") or _retry_delay(text))
            except Malformed as error:
                reason = f"a malformed body: {self._clean(str(error))}"
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
        time.sleep(wait_of(n_tried, retry_after, self.limits.first_wait, self.limits.longest_wait))

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _clean(self, text: str) -> str:
        """A server's message without the key in it, in one line that fits an errors file."""
        body = maybe_json(text)
        message = _error(body) or body or text
        if isinstance(message, dict):
            about = message.get("metadata")
            raw = (
                about.get("raw") if isinstance(about, dict) else None
            )  # what a gateway was told by the model's host
            message = message.get("message") or message.get("status_msg") or message
            message = f"{message}: {raw}" if raw else message
        line = " ".join(str(message).split())
        return (line.replace(self.key, "***") if self.key else line)[:300]

    def _file(self, path: str, described: Body) -> Path | None:
        if self.cache is None:
            return None
        request = json.dumps([KEPT_AS, self.url, path, described], sort_keys=True)
        digest = hashlib.sha256(request.encode()).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"


def _error(body: Any) -> Any:
    """The error that a body holds, whatever its status: at the top, in its first choice, or in a list; else None.

    Where there is no answer, what gateways write in place of one counts too.
    """
    if isinstance(body, list):
        return _error(body[0]) if body else None
    if not isinstance(body, dict):
        return None
    if body.get("object") == "error":  # vLLM
        return body
    choices = body.get("choices")
    of_choice = choices[0].get("error") if choices and _is_list_of_dicts(choices) else None
    error = body.get("error") or of_choice or None
    if error is None and not choices and not body.get("candidates"):
        error = next((body[name] for name in IN_PLACE_OF_AN_ANSWER if body.get(name)), None)
    return error


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def status_within(body: Any) -> int | None:
    """The status of an error inside a body that was sent as a success (gateways do); None where there is none."""
    if (error := _error(body)) is None:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    code = int(code) if isinstance(code, str) and re.fullmatch("[45][0-9]{2}", code) else code
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return 402 if USED_UP.search(str(error)) else 502


def is_unpaid(status: int, text: str) -> bool:
    """Whether a refusal says that credit or a quota is used up, which no later request changes soon.

    `text` is its body. What another refusal than a 429 says counts where it is its error: it may repeat the request.
    """
    if status == 402:
        return True
    body = maybe_json(text)
    if status == 429:
        return bool(USED_UP.search(str(body or text)))
    return status < 500 and bool(UNPAID.search(str(_error(body) or "")))


@functools.cache
def certificates() -> ssl.SSLContext:
    """What servers' certificates are held against, read once a process: a client by itself reads it for 60 ms."""
    return httpx.create_ssl_context()


def _retry_delay(text: str) -> str | None:
    """Gemini's word, in a 429's body, for how many seconds to wait."""
    match = re.search(r'"retryDelay":\s*"([0-9.]{1,12})s"', text)
    return match[1] if match else None
