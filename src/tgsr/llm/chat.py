"""The chat completions protocol: bodies, replies, and endpoints by their address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tgsr.errors import ModelError
from tgsr.llm.decoding import Decoding
from tgsr.llm.endpoint import Body, Endpoint, Limits, Malformed
from tgsr.reading.thoughts import with_thoughts


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


# How servers say that a reply is whole, and that it was cut at a limit; compared in lower case. OpenAI's words, and
# what others write for the same: Gemini, xAI, Mistral, Anthropic's and Hugging Face's servers, gateways between them.
WHOLE = frozenset({"stop", "end_turn", "stop_sequence", "stop_token", "eos", "eos_token", "complete"})
CUT = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})


def read_chat(answer: Body) -> Body:
    """What a chat completion says: {"text", "thoughts", "tokens"}, with "truncated" or "failed" as `ended` adds them.

    "thoughts" is what a server filed under reasoning, "" for none. Of a spoken answer the text is its transcript. A
    refusal is what the model says: its text, scored as any other. Raises Malformed for a body of another form. A server
    that says nothing of how replies end is taken at its word.
    """
    try:
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason", "stop")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        said, spoken, refusal = (message.get(name) for name in ("content", "audio", "refusal"))
        called = message.get("tool_calls") or message.get("function_call")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Malformed(f"no choices[0].message in {str(answer)[:80]!r}") from error
    aloud, text = _written(said)
    thoughts = (_written(reasoning)[1] if isinstance(reasoning, str | list) else None) or aloud or ""
    if not text and isinstance(spoken, dict) and isinstance(spoken.get("transcript"), str):
        text = spoken["transcript"]
    if not text and isinstance(refusal, str):
        text = refusal or text
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    n_audio = n_tokens(details.get("audio_tokens")) if isinstance(details, dict) else 0
    n_text = max(0, n_tokens(usage.get("prompt_tokens")) - n_audio)
    tokens = {"text": n_text, "audio": n_audio, "out": n_tokens(usage.get("completion_tokens"))}
    # A server may say "stop" where the model waits for what a tool says.
    return ended(text, thoughts.strip(), tokens, "tool_calls" if called else finish)


def ended(text: str | None, thoughts: str, tokens: dict[str, int], finish: object) -> Body:
    """{"text", "thoughts", "tokens"} of a reply, "truncated" where a limit cut it, "failed" where it is no answer.

    No answer is what lacks a text (None), and what the server ended for any other reason than that the model was
    done or the limit reached: filtered, aborted, a call of a tool. `finish` is the server's word for it. Where a model
    was done and all of its words were filed under reasoning, they are its text: servers do so where no end of the
    thinking was marked.
    """
    word = finish.lower() if isinstance(finish, str) else None
    if word in WHOLE and not text and thoughts:
        text, thoughts = thoughts, ""
    read: Body = {"text": text or "", "thoughts": thoughts, "tokens": tokens}
    if word in CUT and (text or thoughts):
        return read | {"truncated": True}
    if word in CUT:
        read["failed"] = f"no text: the server says {finish}; --max-new-tokens gives it room for more"
    elif word not in WHOLE:
        lacks = "no finished answer" if text or thoughts else "no text"
        read["failed"] = f"{lacks}: the server says {finish if word else 'not how it ended'}"
    elif text is None:
        read["failed"] = f"no text: the server says {finish} and sent none"
    return read


def whole_text(answer: Body) -> str:
    """All that a model wrote: its thoughts in <think> tags, which stay open where it was cut within, and its text."""
    return with_thoughts(str(answer.get("thoughts") or ""), str(answer["text"]))


def n_tokens(said: object) -> int:
    """A server's number of tokens; what is no number, or none that can be, counts for 0."""
    if isinstance(said, str) and said.strip().isdecimal() and len(said) < 16:
        return int(said)
    if isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said < 1e15:
        return int(said)
    return 0


def _written(content: Any) -> tuple[str | None, str | None]:
    """What a content holds of thoughts and of text, each None for none: a text, or parts of several types."""
    if content is None or isinstance(content, str):
        return None, content
    if not isinstance(content, list):
        raise Malformed(f"content is {str(content)[:80]!r}")
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for part in content:
        if isinstance(part, str):
            kinds[False].append(part)
            continue
        if not isinstance(part, dict):
            continue
        is_thought = part.get("type") in ("thinking", "reasoning", "thought")
        inner = part.get("thinking") or part.get("reasoning") or part.get("text") or part.get("refusal")
        if isinstance(inner, list):  # Mistral's thoughts are parts again
            inner = "".join(str(p.get("text") or "") for p in inner if isinstance(p, dict))
        if isinstance(inner, str):
            kinds[is_thought].append(inner)
    thoughts, texts = ("".join(pieces) if pieces else None for pieces in (kinds[True], kinds[False]))
    return thoughts, texts


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
