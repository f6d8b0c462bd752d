"""Models behind an API: Gemini, GPT-4o Audio, and any OpenAI-compatible server that takes audio.

`--model gemini:gemini-2.5-flash` (GEMINI_API_KEY), `openai:gpt-4o-audio-preview` (OPENAI_API_KEY),
`http://HOST:PORT/v1#MODEL` (TGSR_API_KEY where the server wants a key).
"""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tgsr import audio
from tgsr.answering.responder import ClipQuestion, Responder
from tgsr.engine.requests import ask_each
from tgsr.errors import ModelError
from tgsr.llm.chat import bearer, chat_body, chat_endpoint, ended, n_tokens, plain_key, read_chat, whole_text
from tgsr.llm.decoding import Cut, Decoding, Failed
from tgsr.llm.endpoint import Body, Endpoint, Limits, Malformed
from tgsr.prompts import system_of
from tgsr.timeline import Seconds

GEMINI_URL = "https://generativelanguage.googleapis.com"
OPENAI_URL = "https://api.openai.com/v1"
UPLOAD = "/upload/v1beta/files"
INLINE_BYTES = 14_000_000  # of sound: base64 makes it a third more, and Gemini takes 20 MB a request
# Those that may be told not to think. Others have no such budget, or none of 0, and refuse the request that gives one.
NEED_NOT_THINK = re.compile("(?:models/)?gemini-2[.]5-flash(?!.*(?:image|tts|live|audio))")
HEARD: tuple[tuple[str, Seconds], ...] = (
    ("qwen2audio", 30),
    ("gemma3n", 30),
    ("gemma4", 30),
    ("qwen25omni", 300),
    ("qwen3omni", 300),
    ("audioflamingo3", 600),
    ("audioflamingonext", 1800),
    ("musicflamingo", 1200),
    ("voxtral", 2400),
)
"""What their processors hear before they cut sound off, by what is in a model's name less its punctuation."""
ONE_WINDOW: Seconds = 30.0
UPLOAD_SECONDS = 120.0  # how long an uploaded file may take to become usable


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a million tokens: of text and of audio that go in, of all that comes out."""

    text: float
    audio: float
    out: float


PRICES = {"gemini-2.5-flash": Price(0.30, 1.00, 2.50), "gpt-4o-audio-preview": Price(2.50, 40.00, 10.00)}
"""List prices of 2025, to say what a run costs about; the invoice is right, this table may not be."""


@dataclass
class Remote(Responder):
    """One model behind one endpoint. Each question is one request with its clip's sound."""

    name: str
    model: str
    endpoint: Endpoint
    max_seconds: Seconds
    longer: str = "cut it"
    price: Price | None = None
    system: str | None = None
    tokens: dict[str, int] = field(default_factory=lambda: {"text": 0, "audio": 0, "out": 0})

    def __post_init__(self) -> None:
        self.at_once = self.endpoint.limits.at_once
        self._lock = threading.Lock()

    def respond(
        self, clips: Sequence[np.ndarray], questions: Sequence[ClipQuestion], decoding: Decoding
    ) -> list[str | Failed]:
        sounds = [WavFile(audio.wav_bytes(samples), audio.content_hash(samples)) for samples in clips]
        at_once = self.endpoint.limits.at_once
        return ask_each(lambda q: self._ask(sounds[q.clip], q.text, decoding), questions, at_once)

    def _ask(self, sound: WavFile, text: str, decoding: Decoding) -> str | Failed:
        raise NotImplementedError

    def _take(self, answer: Body | Failed) -> str | Failed:
        if isinstance(answer, Failed):
            return answer
        with self._lock:
            for kind in self.tokens:
                self.tokens[kind] += n_tokens(answer.get("tokens", {}).get(kind))
        if answer.get("failed"):
            return Failed(answer["failed"])
        return Cut(whole_text(answer)) if answer.get("truncated") else whole_text(answer)

    def spent(self) -> str:
        """Requests and tokens, of cached answers too; money for the tokens of a model whose price is known."""
        counts, tokens = self.endpoint.counts, self.tokens
        spent = (
            f"{counts['requests']} requests ({counts['retries']} tries again), {counts['cached']} from the cache, "
            f"{counts['failed']} failed, {counts['unfinished']} came back without a finished answer, "
            f"{counts['cut']} cut at the limit; tokens: {tokens['text']:,} text and {tokens['audio']:,} audio in, "
            f"{tokens['out']:,} out"
        )
        if self.price is None:
            return spent
        money = sum(tokens[kind] * getattr(self.price, kind) for kind in tokens) / 1e6
        return f"{spent}; about {money:.4f} US dollars at list prices of 2025, cached answers counted"


@dataclass(frozen=True, slots=True)
class WavFile:
    """A clip as a 16-bit WAV file, and the hash of its samples."""

    wav: bytes = field(repr=False)
    hash: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.wav).decode("ascii")


class OpenAiAudio(Remote):
    """Chat completions with an input_audio part: OpenAI's protocol, which vLLM serves too."""

    def _ask(self, sound: WavFile, text: str, decoding: Decoding) -> str | Failed:
        def body(data: str) -> Body:
            part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
            turns: list[Body] = [{"role": "system", "content": self.system}] if self.system else []
            turns.append({"role": "user", "content": [part, {"type": "text", "text": text}]})
            return chat_body(self.model, turns, decoding)

        answer = self.endpoint.ask("/chat/completions", body(sound.base64), body(sound.hash), read_chat)
        return self._take(answer)


class Gemini(Remote):
    """generateContent; sound goes with the request, or is uploaded first where it is too long for that."""

    inline_bytes = INLINE_BYTES

    def __post_init__(self) -> None:
        super().__post_init__()
        self._uploaded: dict[str, Body | Failed] = {}
        self._uploading = threading.Lock()

    def _ask(self, sound: WavFile, text: str, decoding: Decoding) -> str | Failed:
        path = f"/v1beta/models/{self.model}:generateContent"
        described = self._body({"sound": sound.hash}, text, decoding)
        part: Body | Failed = {"inline_data": {"mime_type": "audio/wav", "data": sound.base64}}
        if len(sound.wav) > self.inline_bytes and self.endpoint.kept(path, described) is None:
            part = self._upload(sound)
            if isinstance(part, Failed):
                return part
        return self._take(self.endpoint.ask(path, self._body(part, text, decoding), described, read_gemini))

    def _body(self, sound: Body | Failed, text: str, decoding: Decoding) -> Body:
        generation: Body = {"maxOutputTokens": decoding.max_new_tokens, "seed": decoding.seed}
        generation |= {"temperature": decoding.temperature, "topP": decoding.top_p}
        if NEED_NOT_THINK.match(self.model):  # thoughts count as output and would use all of it up
            generation["thinkingConfig"] = {"thinkingBudget": 0}
        asked = [{"role": "user", "parts": [sound, {"text": text}]}]
        body: Body = {"contents": asked, "generationConfig": generation}
        return body | ({"systemInstruction": {"parts": [{"text": self.system}]}} if self.system else {})

    def _upload(self, sound: WavFile) -> Body | Failed:
        """The part that names the uploaded sound; each clip is uploaded once."""
        with self._uploading:
            if sound.hash not in self._uploaded:
                self._uploaded[sound.hash] = self._upload_now(sound)
            return self._uploaded[sound.hash]

    def _upload_now(self, sound: WavFile) -> Body | Failed:
        headers = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(len(sound.wav)),
            "X-Goog-Upload-Header-Content-Type": "audio/wav",
        }
        about, wanted = {"file": {"display_name": sound.hash[:40]}}, "x-goog-upload-url"
        send = partial(self.endpoint.send, "POST")
        started = send(UPLOAD, lambda body: body, json=about, headers=headers, wants_header=wanted)
        if isinstance(started, Failed):
            return started
        headers = {"X-Goog-Upload-Offset": "0", "X-Goog-Upload-Command": "upload, finalize"}
        sent = send(str(started[wanted]), _file, content=sound.wav, headers=headers)
        deadline = time.monotonic() + UPLOAD_SECONDS
        while not isinstance(sent, Failed) and sent.get("state") == "PROCESSING":
            if time.monotonic() > deadline:
                problem = f"is still not ready after {UPLOAD_SECONDS:g} s"
                return Failed(f"{self.endpoint.url}: {sent['name']} {problem}")
            time.sleep(min(1.0, self.endpoint.limits.first_wait))
            sent = self.endpoint.send("GET", f"/v1beta/{sent['name']}", _file)
        if isinstance(sent, Failed):
            return sent
        if sent.get("state", "ACTIVE") != "ACTIVE":
            return Failed(f"{self.endpoint.url}: the uploaded sound is {sent['state']}")
        return {"file_data": {"mime_type": "audio/wav", "file_uri": sent["uri"]}}


def _file(body: Body) -> Body:
    file = body.get("file", body)
    if not isinstance(file, dict) or not file.get("uri") or not file.get("name"):
        raise Malformed(f"no file in {str(body)[:80]!r}")
    return file


def read_gemini(answer: Body) -> Body:
    """What a generateContent answer says, as `read_chat`; one without a word, or blocked, was not a response.

    Gemini says of every whole answer that it is (finishReason), and sometimes sends STOP without a part, or with an
    empty one: nobody has heard the model then.
    """
    usage = answer.get("usageMetadata")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("promptTokensDetails")
    of_audio = [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []
    n_audio = sum(n_tokens(d.get("tokenCount")) for d in of_audio if d.get("modality") == "AUDIO")
    n_text = max(0, n_tokens(usage.get("promptTokenCount")) - n_audio)
    n_out = n_tokens(usage.get("candidatesTokenCount")) + n_tokens(usage.get("thoughtsTokenCount"))
    tokens = {"text": n_text, "audio": n_audio, "out": n_out}
    feedback = answer.get("promptFeedback")
    if isinstance(feedback, dict) and (blocked := feedback.get("blockReason")):
        return {"text": "", "tokens": tokens, "failed": f"the request was blocked: {blocked}"}
    try:
        candidate = answer["candidates"][0]
        parts = (candidate.get("content") or {}).get("parts") or []
        text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
        finish = candidate.get("finishReason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Malformed(f"no candidates in {str(answer)[:80]!r}") from error
    return ended(text or None, "", tokens, finish)


# --- names -------------------------------------------------------------------------------------------------


def is_remote(name: str) -> bool:
    return name.startswith(("gemini:", "openai:", "http://", "https://"))


def load_remote(name: str, *, cache: Path, limits: Limits | None = None) -> Remote:
    """The model called `name`. ModelError without its key, or for a name that is none of the three forms."""
    limits, answers = limits or Limits(), cache / "responses"
    kind, _, model = name.partition(":")
    if kind in ("gemini", "openai") and not model.strip():
        examples = "gemini:gemini-2.5-flash, openai:gpt-4o-audio-preview"
        raise ModelError(f"{name}: says no model; for example {examples}")
    if kind == "gemini":
        key = _key("GEMINI_API_KEY", "GOOGLE_API_KEY")
        url = os.environ.get("GEMINI_BASE_URL", GEMINI_URL).rstrip("/")
        endpoint = Endpoint(url, {"x-goog-api-key": key}, key, "GEMINI_API_KEY", limits, answers)
        return Gemini(name, model, endpoint, limits.max_seconds or 9.5 * 3600, price=PRICES.get(model))
    if kind == "openai":
        key = _key("OPENAI_API_KEY")
        url = os.environ.get("OPENAI_BASE_URL", OPENAI_URL).rstrip("/")
        endpoint = Endpoint(url, bearer(key), key, "OPENAI_API_KEY", limits, answers)
        if url == OPENAI_URL or model.startswith("gpt-"):
            most = limits.max_seconds or INLINE_BYTES / 2 / audio.SAMPLE_RATE
            return OpenAiAudio(name, model, endpoint, most, price=PRICES.get(model))
    else:
        endpoint, model = chat_endpoint(name, cache=cache, limits=limits)
    return OpenAiAudio(name, model, endpoint, *heard_by(model, limits), system=system_of(model))


def heard_by(model: str, limits: Limits) -> tuple[Seconds, str]:
    """How long a clip a served model hears, and what to do about a longer one.

    What the user says, or what is known of the family, by the model's name. Servers cut the rest off without a word;
    of a model that is not known it is only sure that it hears one window of Whisper's encoder.
    """
    known = re.sub("[^a-z0-9]", "", model.lower())
    of_family = next((seconds for family, seconds in HEARD if family in known), None)
    remedy = "cut it, or say with --max-seconds how much the served model hears"
    if limits.max_seconds is None and of_family is None:
        remedy = f"nobody has said how much the served model hears: {remedy}"
    return limits.max_seconds or of_family or ONE_WINDOW, remedy


def _key(*variables: str) -> str:
    for variable in variables:
        if key := os.environ.get(variable, "").strip():
            return plain_key(variable, key)
    raise ModelError(
        f"{variables[0]} is not set: export it with your key; it is sent to that service and kept nowhere"
    )
