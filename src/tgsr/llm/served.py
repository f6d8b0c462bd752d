"""Text models behind a chat endpoint, and what every text model does: it needs none of the packages of a local one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.rows import json_lines
from tgsr.engine.requests import ask_each
from tgsr.errors import Bad, RecordError
from tgsr.llm.chat import chat_body, read_chat
from tgsr.llm.decoding import Decoding, Failed, written
from tgsr.llm.endpoint import Endpoint

CHARACTERS = 60_000  # of a transcript in a server's prompt; longer ones lose the lines that share least


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """One user turn; `letters`, where there are any, are the only answers that count."""

    text: str
    letters: str = ""


class Llm(Protocol):
    """A text model. What fails is Failed."""

    @property
    def characters(self) -> int:
        """How many characters of a transcript fit into a prompt."""
        ...

    def write(self, text: str, decoding: Decoding, system: str | None = None) -> str | Failed:
        """The model's answer to one user turn, after a system turn where there is one."""
        ...

    def replies(self, prompts: Sequence[TextPrompt], decoding: Decoding) -> list[str | Failed]:
        """One reply to each prompt, in order."""
        ...


def replies_kept(log: Path, model: str, by: str, key: str) -> dict[str, str]:
    """What a model has replied already, of a log whose lines name under `by` who replied and under `key` to what.

    A half-written last line is dropped. RecordError for a line that is no reply; {} where there is no log.
    """
    if not log.exists():
        return {}
    repair_jsonl(log)
    replies: dict[str, str] = {}
    for entry in json_lines(log):
        if isinstance(entry, Bad) or not {by, key, "reply"} <= entry.values.keys():
            problem, remedy = "is no reply that was logged here", "delete that line, or give another --out"
            raise RecordError(None, problem, str(log), entry.line, remedy)
        if entry.values[by] == model:
            replies[str(entry.values[key])] = str(entry.values["reply"])
    return replies


def turns_of(text: str, system: str | None) -> list[dict[str, Any]]:
    """One user turn, after a system turn where there is one."""
    turns = [{"role": "user", "content": text}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


@dataclass
class ServedLlm:
    """A model behind a chat endpoint, which keeps its answers. It writes what it likes: `letters` are in the text."""

    endpoint: Endpoint
    model: str
    characters: int = CHARACTERS

    def write(self, text: str, decoding: Decoding, system: str | None = None) -> str | Failed:
        body = chat_body(self.model, turns_of(text, system), decoding)
        answer = self.endpoint.ask("/chat/completions", body, body, read_chat)
        if isinstance(answer, Failed):
            return answer
        if not answer["text"] and answer.get("truncated"):
            return Failed("no text: the limit was reached while the model thought")
        return written(str(answer["text"]), bool(answer.get("truncated")), str(answer.get("failed") or ""))

    def replies(self, prompts: Sequence[TextPrompt], decoding: Decoding) -> list[str | Failed]:
        at_once = self.endpoint.limits.at_once
        return ask_each(lambda prompt: self.write(prompt.text, decoding), prompts, at_once)
