"""MMAU-Pro's instructions that are followed or not, by form alone: 27 constraints as its owner's script checks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_BULLET = re.compile(r"(?:^|\n)\s*\*\s+")
_HIGHLIGHT = re.compile(r"\*[^*]+\*")
_PLACEHOLDER = re.compile(r"\[[^\]]+\]")
_TITLE = re.compile(r"<<[^>]+>>")
_NOT_LETTER = re.compile(r"[^a-zA-Z]")
_NOT_LETTER_OR_BLANK = re.compile(r"[^a-zA-Z ]")
_SENTENCE_END = re.compile(
    r"""(?<!\.\.)[.!?]["'”’)\]]*\s+(?=\S)   # but for an ellipsis
    |[!?](?=["'”’)]+[,;)]*\s)               # inside of a quote, whatever follows it
    |(?<=\.\.)\.\s+(?=[A-Z])""",  # an ellipsis before a capital
    re.VERBOSE,
)
_SHORT = re.compile(r"(?:^|[\s(\"'])(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|i\.e|e\.g|U\.S)\.$")


def follows(text: str, identifier: str, given: Mapping[str, Any], question: str) -> bool | None:
    """Whether a response keeps to the constraint; None where the row lacks the constraint's numbers.

    `given` is the row's kwargs, `question` what a response that repeats its prompt begins with. An identifier that is
    not known is not followed. Source: evaluate_mmau_pro_comprehensive.py of sonalkum/MMAUPro, 25 September 2025.
    """
    rule, needed = RULES.get(identifier, (lambda t, g, q: False, ()))
    numbers = [given.get(name) for name in needed]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        return None
    return bool(rule(text, {name: "" if value is None else value for name, value in given.items()}, question))


def n_sentences(text: str) -> int:
    """Sentences: what ends with a full stop, a question or an exclamation mark before a blank, common abbreviations
    apart. The owner's script asks NLTK's Punkt: of 2,528 paragraphs of a model's reasoning 2,487 have the same number.
    """
    text = text.strip()
    ends = [match.start() + 1 for match in _SENTENCE_END.finditer(text)]
    return sum(_SHORT.search(text[:end]) is None for end in ends) + bool(text)


def _words(text: str) -> int:
    return len(text.split())


def _capitals(text: str) -> int:
    return sum(word.isupper() for word in text.split())


def _n_of(text: str, keyword: str) -> int:
    return len(re.findall(rf"\b{re.escape(keyword.lower())}\b", text.lower()))


def _n_sections(text: str, splitter: str) -> int:
    return sum(bool(one.strip()) for one in re.split(rf"\s*{re.escape(splitter)}\s*", text.strip()))


def _plain(text: str) -> str:
    return _NOT_LETTER_OR_BLANK.sub("", text).lower()


def _are_two(text: str) -> bool:
    parts = text.split("******")
    return len(parts) == 2 and parts[0].lower().strip() != parts[1].lower().strip()


Rule = Callable[[str, Mapping[str, Any], str], object]
RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "Include Keywords": (
        lambda t, g, q: all(one.lower() in t.lower() for one in str(g.get("keywords", "")).split(", ")), (),
    ),
    "Forbidden Words": (
        lambda t, g, q: not any(one.lower() in t.lower() for one in str(g.get("forbidden_words", "")).split(", ")), (),
    ),
    "Keyword Frequency": (lambda t, g, q: _n_of(t, str(g.get("keyword", ""))) == g["N"], ("N",)),
    "Number Paragraphs": (lambda t, g, q: sum(bool(p.strip()) for p in t.split("***")) == g["N"], ("N",)),
    "Number Words (at least)": (lambda t, g, q: _words(t) >= g["N"], ("N",)),
    "Number Words (at most)": (lambda t, g, q: _words(t) <= g["N"], ("N",)),
    "Number Words (range)": (lambda t, g, q: g["N1"] <= _words(t) <= g["N2"], ("N1", "N2")),
    "Number Sentences (at least)": (lambda t, g, q: n_sentences(t) >= g["N"], ("N",)),
    "Number Sentences (at most)": (lambda t, g, q: n_sentences(t) <= g["N"], ("N",)),
    "Number Sentences (range)": (lambda t, g, q: g["N1"] <= n_sentences(t) <= g["N2"], ("N1", "N2")),
    "Postscript": (
        lambda t, g, q: _NOT_LETTER.sub("", str(g.get("postscript_marker", ""))).lower()
        in _NOT_LETTER.sub("", t).lower(), (),
    ),
    "Number Placeholder": (lambda t, g, q: len(_PLACEHOLDER.findall(t)) >= g["N"], ("N",)),
    "Number Bullets": (lambda t, g, q: len(_BULLET.findall(t)) == g["N"], ("N",)),
    "Title": (lambda t, g, q: _TITLE.search(t), ()),
    "Minimum Number Highlighted Section": (lambda t, g, q: len(_HIGHLIGHT.findall(t)) >= g["N"], ("N",)),
    "Multiple Sections": (lambda t, g, q: _n_sections(t, str(g.get("section_splitter", ""))) == g["N"], ("N",)),
    "Repeat Prompt": (lambda t, g, q: t.strip().lower().startswith(q.strip().lower()), ()),
    "Two Responses": (lambda t, g, q: _are_two(t), ()),
    "All Uppercase": (lambda t, g, q: t.isupper(), ()),
    "All Lowercase": (lambda t, g, q: t.islower(), ()),
    "All-capital Words (at least)": (lambda t, g, q: _capitals(t) >= g["N"], ("N",)),
    "All-capital Words (at most)": (lambda t, g, q: _capitals(t) <= g["N"], ("N",)),
    "All-capital Words (range)": (lambda t, g, q: g["N1"] <= _capitals(t) <= g["N2"], ("N1", "N2")),
    "Start Checker": (lambda t, g, q: _plain(t).startswith(_plain(str(g.get("start_phrase", "")))), ()),
    "End Checker": (lambda t, g, q: _plain(t).endswith(_plain(str(g.get("end_phrase", "")))), ()),
    "Quotation": (lambda t, g, q: t.strip().startswith('"') and t.strip().endswith('"'), ()),
    "No Commas": (lambda t, g, q: "," not in t, ()),
}  # fmt: skip
"""By task_identifier: what a response (t) must be, given the row's kwargs (g) and question (q); its numbers' names."""
