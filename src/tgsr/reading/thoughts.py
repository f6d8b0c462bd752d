"""Where a text stops thinking and begins to answer: the marks by which models part the two."""

from __future__ import annotations

import re

# <think>, <thinking>, <thought>, <seed:think>; Mistral's [THINK]; Kimi's ◁think▷; <|begin_of_thought|>; the channels of
# gpt-oss, which are plain words where a decoder leaves out special tokens, and of Gemma.
_NAME = r"(?:[a-z]{1,8}:)?(?:think(?:ing)?|thoughts?)"
_BEGINS = (
    rf"<{_NAME}>|\[{_NAME}\]|◁think▷|<\|begin_of_(?:thought|thinking)\|>"
    r"|<\|channel\|?>\s?(?:analysis<\|message\|>|thought\b)"
)
_ENDS = (
    rf"</{_NAME}>|\[/{_NAME}\]|◁/think▷|<\|end_of_(?:thought|thinking)\|>|<\|channel\|>\s?final<\|message\|>|<channel\|>"
    r"|\bassistantfinal|(?<=[.!?])assistantfinal"
)
MARK = rf"{_BEGINS}|{_ENDS}"
_BEGIN, _END = re.compile(_BEGINS, re.IGNORECASE), re.compile(_ENDS, re.IGNORECASE)


def after_thoughts(text: str) -> int:
    """Where the last of the thoughts ends, so that what is answered begins; 0 without any that end."""
    return max((match.end() for match in _END.finditer(text)), default=0)


def said_aloud(text: str) -> tuple[int, int, bool]:
    """[begin, end) of what is said beside the thoughts, and whether there is nothing but thoughts that do not end.

    Then [begin, end) are these. What stands before the mark of a closed thought is thought, too: some prompts end with
    the opening one.
    """
    begin, end = after_thoughts(text), len(text)
    opened = _BEGIN.search(text, begin)
    if opened is None:
        return begin, end, False
    is_thinking = not text[begin : opened.start()].strip()
    return (opened.end(), end, True) if is_thinking else (begin, opened.start(), False)


def with_thoughts(thoughts: str, text: str) -> str:
    """All that a model wrote, of what was parted from its text as thoughts: these in <think> tags, which stay open
    where no text follows; the text alone where there are none.
    """
    if not thoughts:
        return text
    return f"<think>\n{thoughts}\n</think>\n\n{text}" if text else f"<think>\n{thoughts}"
