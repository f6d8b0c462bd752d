"""A real HTTP server on this machine: it speaks as Gemini and OpenAI-compatible servers do, bad days included."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import soundfile

Body = dict[str, Any]


@dataclass
class Got:
    """One request as the server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Body:
        return dict(json.loads(self.raw))


@dataclass
class Reply:
    """What the server does: a status and body; `cut` after so many bytes; a `pause` between single bytes."""

    body: bytes | str | Body = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause: float | None = None

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass
class Server:
    """`url` of the running server, and what it got so far; `most_at_once` is how many requests overlapped."""

    url: str
    got: list[Got] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def serving(answer: Callable[[Got, int], Reply]) -> Iterator[Server]:
    """Serves until the block ends; `answer` gets each request and how many came before it."""
    lock, now = threading.Lock(), [0]
    server = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            got = Got(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, raw)
            with lock:
                n_before = len(server.got)
                server.got.append(got)
                now[0] += 1
                server.most_at_once = max(server.most_at_once, now[0])
            try:
                self._reply(answer(got, n_before))
            finally:
                with lock:
                    now[0] -= 1

        do_POST = do_GET = do_DELETE = _any

        def _reply(self, reply: Reply) -> None:
            content = reply.content
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.close_connection = reply.cut is not None or reply.pause is not None
            if reply.pause is None:
                self.wfile.write(content[: reply.cut])
                return
            for byte in content:
                time.sleep(reply.pause)
                try:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                except OSError:  # the client has given up, as it should
                    return

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    server.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        running.shutdown()
        running.server_close()


def chat_answer(text: str | None, finish: str = "stop", audio_tokens: int = 20) -> Body:
    """A chat completion in OpenAI's form."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "test",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": 50 + audio_tokens,
            "completion_tokens": 7,
            "total_tokens": 57 + audio_tokens,
            "prompt_tokens_details": {"audio_tokens": audio_tokens, "cached_tokens": 0},
        },
    }


def gemini_answer(text: str | None, finish: str = "STOP") -> Body:
    """A generateContent answer; None is a candidate without parts."""
    content: Body = {"role": "model"} | ({} if text is None else {"parts": [{"text": text}]})
    return {
        "candidates": [{"content": content, "finishReason": finish, "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 90,
            "candidatesTokenCount": 6,
            "totalTokenCount": 96,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 26},
                {"modality": "AUDIO", "tokenCount": 64},
            ],
        },
        "modelVersion": "gemini-2.5-flash",
    }


def sound_in(body: Body) -> tuple[Any, int]:
    """Samples and rate of the WAV in a request of either protocol."""
    if "messages" in body:
        part = next(p for p in body["messages"][-1]["content"] if p["type"] == "input_audio")
        assert part["input_audio"]["format"] == "wav"
        data = part["input_audio"]["data"]
    else:
        part = next(p for p in body["contents"][0]["parts"] if "inline_data" in p)
        assert part["inline_data"]["mime_type"] == "audio/wav"
        data = part["inline_data"]["data"]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    return samples, rate
