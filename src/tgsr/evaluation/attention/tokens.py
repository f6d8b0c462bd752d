"""The tokens of a response by what they write: reasoning, answer, times, the start or end of a span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgsr.grounding import Mention
from tgsr.models.lalm import Lalm
from tgsr.notation.times import Time, plain, times_of

PHASES = ("prefill", "all", "reasoning", "answer", "times")
"""The question's own tokens while they are read; all tokens of the response; those before its last line, and those of
it; those that write a cited interval."""


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


def mentions_of(tokens: WrittenTokens, cited: Sequence[Mention]) -> list[Mention | None]:
    """For each token which of the text's `cited` intervals it helps to write, valid or not: any of its characters is
    the mention's."""
    return [
        next((m for m in cited if start < end and start < m.text_end and end > m.text_start), None)
        for start, end in zip(tokens.starts, tokens.ends, strict=True)
    ]


def ends_of(tokens: WrittenTokens, written: Sequence[Mention | None]) -> list[str | None]:
    """For each token which of its mention's two times it helps to write, "start" or "end"; None for all others.

    `written` is what `mentions_of` gives.

    A time is the end where it has that value ("the first 3 seconds" writes no start), else the start where it has that
    one or comes first (the 1 of "1-2 minutes"). What is neither is a length: the 2 of "at 3 s and lasts for 2 s".
    """
    ends: list[str | None] = [None] * len(tokens.starts)
    times = times_of(plain(tokens.text))
    for token, mention in enumerate(written):
        if mention is not None:
            inside = [time for time in times if mention.text_start <= time.at < mention.text_end]
            for place, time in enumerate(inside):
                if tokens.starts[token] < time.number_stop and tokens.ends[token] > time.at:
                    ends[token] = ends[token] or _end_of(mention, time, place == 0)
    return ends


def _end_of(mention: Mention, time: Time, is_first: bool) -> str | None:
    if time.seconds == mention.end:
        return "end"
    return "start" if is_first or time.seconds == mention.start else None


def phases_of(tokens: WrittenTokens, written: Sequence[Mention | None]) -> dict[str, list[bool]]:
    """For each of PHASES but "prefill", which of the response's tokens belong to it; `written` by `mentions_of`.

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
        "times": [mention is not None for mention in written],
    }
