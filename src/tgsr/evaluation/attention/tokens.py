"""The tokens of a response by what they write: reasoning, answer, times, the start or end of a span."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tgsr.grounding import Mention, find_mentions
from tgsr.models.lalm import Lalm

PHASES = ("prefill", "all", "reasoning", "answer", "times")
"""The question's own tokens while they are read; all tokens of the response; those before its last line, and those of
it; those that write a cited interval."""
_NUMBER = re.compile(r"[0-9]+(?:[:.,][0-9]+)*")  # seconds or a clock, as grounding.py reads them


@dataclass(frozen=True, slots=True)
class WrittenTokens:
    """A response's text, and the characters [starts[t], ends[t]) that its token t writes; none for its end token."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def pieces(self) -> tuple[str, ...]:
        return tuple(self.text[start:end] for start, end in zip(self.starts, self.ends, strict=True))


def written_tokens(lalm: Lalm, ids: Sequence[int]) -> WrittenTokens:
    """Which token writes what. A character of several tokens belongs to its last one, the prompt's own to none."""
    texts = [lalm.text(list(ids[: n + 1])) for n in range(len(ids))]
    whole = texts[-1] if texts else ""
    # Up to where an unfinished character could begin, what has been written stays.
    ends = [min(len(text.rstrip("\ufffd")), len(whole)) for text in texts]
    return WrittenTokens(whole, (len(lalm.opening), *ends[:-1]), tuple(ends))


def mentions_of(tokens: WrittenTokens) -> list[Mention | None]:
    """For each token the interval that it helps to write, valid or not: any of its characters is the mention's."""
    mentions = find_mentions(tokens.text)
    return [
        next((m for m in mentions if start < end and start < m.text_end and end > m.text_start), None)
        for start, end in zip(tokens.starts, tokens.ends, strict=True)
    ]


def ends_of(tokens: WrittenTokens) -> list[str | None]:
    """For each token which of its mention's two times it helps to write, "start" or "end"; None for all others."""
    ends: list[str | None] = []
    for mention, start, end in zip(mentions_of(tokens), tokens.starts, tokens.ends, strict=True):
        numbers = list(_NUMBER.finditer(tokens.text, mention.text_start, mention.text_end)) if mention else []
        writes = [start < end and start < n.end() and end > n.start() for n in numbers]
        ends.append("start" if writes and writes[0] else "end" if writes and writes[-1] else None)
    return ends


def phases_of(tokens: WrittenTokens) -> dict[str, list[bool]]:
    """For each of PHASES but "prefill", which of the response's tokens belong to it.

    A token belongs to the last line, or to a cited interval, where any of its characters do. The token that ends
    the response, which has no characters, belongs to "all" only.
    """
    text = tokens.text.rstrip()
    last_line = len(text) - len(text.rsplit("\n", 1)[-1])
    is_text = [end > start for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    return {
        "all": [True] * len(is_text),
        "reasoning": [has and end <= last_line for has, end in zip(is_text, tokens.ends, strict=True)],
        "answer": [has and end > last_line for has, end in zip(is_text, tokens.ends, strict=True)],
        "times": [mention is not None for mention in mentions_of(tokens)],
    }
