"""What each place that a response cites holds: whether it is evidence, and what is said there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgsr.evidence import QUOTE_SHARE, is_hit, said_about
from tgsr.grounding import Mention, find_asked
from tgsr.reasoning import common_subsequence, reasoning_steps, words_said
from tgsr.records import Response
from tgsr.timeline import Word, in_order


@dataclass(frozen=True, slots=True)
class CitedPlace:
    """One interval that a response cites, as it was stated.

    `is_hit`: its IoU with a piece of the evidence is at least 0.5; None where none is marked. `said` are the words in
    it, None where the clip's are unknown. `quoted` are those that the response quotes there, and `is_quote_true`
    whether at least 75 % of them are said, in order, in it with 0.2 s around it; None where nothing is quoted, or
    nobody knows. An interval that ends before it starts is no hit and holds nothing.
    """

    mention: Mention
    is_hit: bool | None
    said: tuple[str, ...] | None
    quoted: tuple[str, ...]
    is_quote_true: bool | None


def cited_places(response: Response, words: Sequence[Word] | None) -> list[CitedPlace]:
    """The places in order of appearance: those of a choice's reasoning, and those that the answer to a phrase gives."""
    question, words = response.question, in_order(words or ())
    if question.kind == "phrase":
        asked = find_asked(response.text, question.phrase)
        return [_place(mention, (), response, words) for mention in asked]
    steps = reasoning_steps(response.text)
    return [_place(one.mention, one.heard if one.is_quoted else (), response, words) for one in steps]


def _place(
    mention: Mention, quoted: tuple[str, ...], response: Response, words: Sequence[Word]
) -> CitedPlace:
    """One place by the clip's words in order of time, none where they are unknown."""
    span, evidence = mention.span, response.question.evidence
    hit = (span is not None and is_hit(span, evidence)) if evidence else None
    if not words:
        return CitedPlace(mention, hit, None, quoted, None)
    is_true = None
    if quoted:
        about = said_about(span, words)
        is_true = common_subsequence(quoted, about) >= QUOTE_SHARE * len(quoted)
    return CitedPlace(mention, hit, words_said(words, span) if span else (), quoted, is_true)
