"""The chat completions protocol: bodies, replies, and endpoints by their address."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from tgsr.errors import ModelError
from tgsr.llm.decoding import Decoding
from tgsr.llm.endpoint import Body, Endpoint, Limits, Malformed


def chat_body(model: str, messages: list[Body], decoding: Decoding) -> Body:
    """A request for a chat completion."""
    body: Body = {
        "model": model,
        "messages": messages,
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed,
    }
    if "audio" in model:  # OpenAI's audio models would speak unless told not to
        body["modalities"] = ["text"]
    return body


def read_chat(answer: Body) -> Body:
    """Text and tokens of a chat completion.

    A refusal is what the model says: its text, scored as any other. No text at all is an empty response, unless the
    server says that it cut or filtered it: then the model was not heard.
    """
    try:
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content") or message.get("refusal") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Malformed(f"no choices[0].message in {str(answer)[:80]!r}") from error
    if isinstance(text, list):  # parts
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if not isinstance(text, str):
        raise Malformed(f"content is {str(text)[:80]!r}")
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    n_audio = int((details if isinstance(details, dict) else {}).get("audio_tokens") or 0)
    n_text = int(usage.get("prompt_tokens") or 0) - n_audio
    tokens = {"text": n_text, "audio": n_audio, "out": int(usage.get("completion_tokens") or 0)}
    read: Body = {"text": text, "tokens": tokens}
    if not text and finish in ("content_filter", "length"):
        read["failed"] = f"no text: the server says {finish}"
    return read


def chat_endpoint(name: str, *, cache: Path, limits: Limits | None = None) -> tuple[Endpoint, str]:
    """Endpoint and model of http://HOST:PORT/v1#MODEL. The key of another service is never sent there."""
    url, _, model = name.partition("#")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ModelError(f"{name}: is no URL ({error}); as in http://localhost:8000/v1#MODEL") from error
    if not model or not parts.netloc or parts.scheme not in ("http", "https"):
        raise ModelError(f"{name}: needs a URL and a model, as in http://localhost:8000/v1#MODEL")
    if parts.username or parts.password or parts.query:
        raise ModelError(f"{parts.netloc.rpartition('@')[2]}: no key in the URL; set TGSR_API_KEY")
    key = os.environ.get("TGSR_API_KEY", "")
    limits, answers = limits or Limits(), cache / "responses"
    return Endpoint(url.rstrip("/"), bearer(key), key, "TGSR_API_KEY", limits, answers), model


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key; none for no key."""
    return {"authorization": f"Bearer {plain_key('TGSR_API_KEY', key)}"} if key else {}


def plain_key(variable: str, key: str) -> str:
    """The key, if it can stand in a header. ModelError otherwise, which does not show it."""
    if not (key.isascii() and key.isprintable()):
        raise ModelError(
            f"{variable}: holds characters that no key has (an ellipsis, a line break?); set it again"
        )
    return key
