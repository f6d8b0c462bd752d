"""A response as reasoning steps: what is said about which span (appendix C.4), and the words of both."""

from __future__ import annotations

import functools
import re
from collections import Counter as Bag
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tgsr.grounding import Mention, find_regions
from tgsr.prompts import REASONING_OPENING
from tgsr.timeline import ROUNDING, Span, Word


@dataclass(frozen=True, slots=True)
class ReasoningStep:
    """C.4's reasoning step: an interval as it was stated, with the words of its explanation.

    `heard` are the words of the quotes in it, as they are spoken; where it quotes nothing, all its words, and
    `is_quoted` is False.
    """

    mention: Mention
    heard: tuple[str, ...]
    is_quoted: bool


def word_agreement(heard: Sequence[str], said: Sequence[str]) -> float:
    """How well two texts agree word by word, in order: 2 LCS / (n + m), in [0, 1]; 0 where one is empty.

    The F1 of the longest common subsequence of their words (ROUGE-L's), which are compared as they are: see `spoken`.
    """
    if not heard or not said:
        return 0.0
    return 2 * common_subsequence(heard, said) / (len(heard) + len(said))


def plain_words(text: str) -> tuple[str, ...]:
    """The text's words as they sound: lower-cased, without punctuation, apostrophes alike."""
    return tuple(_PLAIN_WORD.findall(text.lower().replace("\u2019", "'")))


@functools.lru_cache(maxsize=4096)  # a clip's words are looked up for each response about it
def spoken(text: str) -> tuple[str, ...]:
    """`plain_words` as they are said: numbers in words ("12" is twelve, "7" seven)."""
    return tuple(part for word in plain_words(text) for part in _in_words(word))


@functools.lru_cache(maxsize=65536)
def _in_words(word: str) -> tuple[str, ...]:
    if not word.isascii() or not word.isdigit() or len(word) > 9:
        return (word,)
    return tuple(re.findall(r"[a-z]+", str(numeral_speller().number_to_words(word, andword=""))))


@functools.cache
def numeral_speller() -> Any:
    """inflect's engine, which says numbers in English words; made once, where a text has numbers."""
    from unittest.mock import patch

    import typeguard

    # Its methods have their arguments checked; what puts the checks in reads the whole module again for each of them.
    with patch.object(typeguard, "typechecked", lambda method: method):
        import inflect

    return inflect.engine()


def words_in(words: Sequence[Word], span: Span) -> list[Word]:
    """The words of which at least half lies in the span, in the order given."""
    return [
        word
        for word in words
        if min(span.end, word.end) - max(span.start, word.start) >= 0.5 * (word.end - word.start) - ROUNDING
    ]


def words_said(words: Sequence[Word], span: Span) -> tuple[str, ...]:
    """The plain words that are said in the span, numbers as they are spoken: `words_in` it."""
    return tuple(token for word in words_in(words, span) for token in spoken(word.text))


def places_of(heard: Sequence[str], words: Sequence[Word]) -> list[Span]:
    """Where in the clip `heard` is said: the stretches of as many words that share most words with it.

    `words` in order of time. The order within a stretch doesn't matter (`word_agreement` looks at it). [] where no
    word is shared. Linear in the number of words.
    """
    tokens = [(token, word) for word in words for token in spoken(word.text)]
    n = min(len(heard), len(tokens))
    if not n:
        return []
    wanted, stretch, n_shared = Bag(heard), Bag[str](), 0
    best, places = 0, list[Span]()
    for index, (token, word) in enumerate(tokens):
        n_shared += stretch[token] < wanted[token]
        stretch[token] += 1
        if index >= n:
            gone = tokens[index - n][0]
            stretch[gone] -= 1
            n_shared -= stretch[gone] < wanted[gone]
        if index < n - 1 or not n_shared or n_shared < best:
            continue
        if n_shared > best:
            best, places = n_shared, []
        first = tokens[index - n + 1][1]
        places.append(Span(first.start, max(first.end, word.end)))
    return places


# Quotes end in their line; single quotes are no apostrophes: nothing of a word is outside of them.
_QUOTE = re.compile(
    r"\"([^\"\n]{1,4000})\"|\u201c([^\u201d\n]{1,4000})\u201d|``([^`'\n]{1,400})''"
    r"|\u201e([^\u201c\u201d\n]{1,4000})[\u201c\u201d]|\u00ab([^\u00bb\n]{1,4000})\u00bb|\u00bb([^\u00ab\u00bb\n]{1,4000})\u00ab"
    r"|\u2039([^\u203a\n]{1,4000})\u203a|\u300c([^\u300d\n]{1,4000})\u300d|\u300e([^\u300f\n]{1,4000})\u300f"
    r"|(?<!\w)['\u2018](?=\S)([^\n]{1,400}?)['\u2019](?!\w)"
)
# What stands in quotation marks and is no speech: the option that is chosen, (b) "seven", the answer is "seven".
_OPTION_BEFORE = re.compile(
    r"(?:\([A-Ja-j]\)|\b(?:options?|choices?|answer)\b(?:\s+[A-J]\b)?(?:\s+(?:is|would be|must be))?)[\s:,*]{0,4}$",
    re.IGNORECASE,
)
# A JSON object, and what it holds: fields, and objects of times alone.
_TIMES = (
    r"\{(?:\s{0,20}[\"']\w{1,40}[\"']\s{0,20}:\s{0,20}[\"']?[\d.:s ]{1,20}[\"']?\s{0,20},?){1,4}\s{0,20}\}"
)
_OBJECT = re.compile(rf"\{{(?:[^{{}}]|{_TIMES})*\}}")
_FIELD = re.compile(
    r"[\"'](\w{1,40})[\"']\s*:\s*(?:\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'(?=\s*[,}])|[-+\d.eE]+|)"
)
_ESCAPED = re.compile(r"\\([\"nt])")
_SPEECH_FIELD = re.compile(
    r"(?:^|_)(?:quot\w*|text|transcript\w*|words?|said|speech|utterance|phrase|heard|content|spoken)(?:_|$)",
    re.IGNORECASE,
)
# A sentence of such words alone speaks of the one before it: "This is heard from 2 to 3 s."
_POINTING = frozenset(
    re.findall(
        r"\w+",
        "this that it these those they the is was are were be can in of phrase quote line words statement sentence "
        "part segment audio clip heard said happens happened occurs occurred appears spoken found located runs lasts "
        "time times timestamp timestamps interval span start end seconds",
    )
)
_SECTION = re.compile(
    r"</?(?:think(?:ing)?|reason(?:ing)?|summary|caption|evidence|conclusion|answer)>", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]\u201d\u2019]{0,4}(?=\s)|\n+")
# Full stops that end no sentence: always, before a small letter, before a number, before a name.
_ABBREVIATIONS = tuple(
    (re.compile(rf"(?<!\w)(?:{words})\.$"), re.compile(rf"\s+{follows}"))
    for words, follows in (
        (r"Mr|Mrs|Ms|Mx|Dr|Prof|St|Mt|Sgt|Lt|Col|Gen|Capt|Rev|Hon|Gov|Sen|Messrs|vs|approx|cf|e\.g|i\.e", ""),
        (r"etc|[ap]\.m|Jr|Sr|Inc|Ltd|Co|U\.S|U\.K|secs?|min|ca|et al", "[a-z0-9]"),
        (r"[Nn]os?|[Ff]igs?|pp?|[Vv]ol|[Cc]h", r"\d"),
        (
            r"(?<!peaker )(?<!ption )(?<!erson )(?<!nswer )(?<!hoice )(?<!egment )[A-Z]",
            "[A-Z]",
        ),  # not Speaker A
    )
)
_QUOTE_ENDS = re.compile(r"[.!?][\"'\u201d\u2019]{1,2}\s{1,4}[A-Z]")
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # written without blanks: each character is taken for a word
_PLAIN_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:'[^\W_{_CJK}]+)*")
_NOTATION = re.compile(
    r"(?:\b(?:is|are|from|between|during|start(?:s|ing)?|begin(?:s|ning)?|at|in|timestamps?|the|segment)\b\s{0,4})+"
    r"[(\[<\s\"':,-]{0,8}$",
    re.IGNORECASE,
)
_JOINERS = frozenset(("and", "or", "then", "again", "also", "to", "from", "between"))


def reasoning_steps(text: str) -> list[ReasoningStep]:
    """The intervals that a text states, each with its explanation, in order of appearance. Source: C.4.

    A step's text is its sentence without the interval; a sentence may end in its line or at . ! ?, but not
    inside a quote. Of several intervals in one sentence each has the words after it, or those before it
    where the quotes come first ("one" (1-2 s), "two" (3-4 s)); two intervals with nothing but "and" between
    share an explanation. A sentence that is an interval alone is explained by what follows, up to the next
    interval, or, where nothing follows the last one, by the quote before it; the response's last line, where the
    answer is, explains nothing, and nor does B.1.3's opening.
    An interval in the answer's line is no step (`find_regions`). A sentence that only points back ("This is heard from
    1 to 2 s.") is explained by the quotes of the one before it. A JSON object is one sentence; its quotes are its
    fields of speech ("quote", "text"). Beside another quote an option in quotation marks, (b) "seven", is none.
    """
    return list(_steps(text))


@functools.lru_cache(maxsize=64)  # as `find_mentions`
def _steps(text: str) -> tuple[ReasoningStep, ...]:
    text = text.replace(REASONING_OPENING, "\n" * len(REASONING_OPENING))
    mentions = find_regions(text)
    text = _SECTION.sub(lambda tag: " " * len(tag[0]), text)
    objects = [match.span() for match in _OBJECT.finditer(text) if _FIELD.search(match[0])]
    text = _OBJECT.sub(_plain_object, text)
    sentences = _sentences(text, mentions, objects)
    last_line = text.rstrip().rfind("\n") + 1
    is_quote_first = _is_quote_first(text, mentions, max(last_line, sentences[-1][0]))
    steps: list[ReasoningStep] = []
    n_before = 0
    previous = ""
    for first, stop in sentences:
        inside = []
        while n_before < len(mentions) and mentions[n_before].text_start < stop:
            inside.append(mentions[n_before])
            n_before += 1
        if not inside:
            previous = text[first:stop] if text[first:stop].strip() else previous
            continue
        texts = _explanations(text, first, stop, inside)
        is_alone = not any(map(plain_words, texts))
        if _QUOTE.search(previous) and (is_quote_first if is_alone else all(map(_only_points, texts))):
            texts = [previous] * len(inside)
        elif is_alone:
            answer = last_line if last_line >= stop else sentences[-1][0]
            end = mentions[n_before].text_start if n_before < len(mentions) else answer
            texts = [_without_notation(text[stop : max(stop, end)])] * len(inside)
        previous = ""
        for mention, explanation in zip(inside, texts, strict=True):
            heard = spoken(" ".join(_quotes_in(explanation)))
            steps.append(ReasoningStep(mention, heard or spoken(explanation), bool(heard)))
    return tuple(steps)


def _is_quote_first(text: str, mentions: Sequence[Mention], answer: int) -> bool:
    """Whether nothing is said between the last interval and the answer."""
    return bool(mentions) and not plain_words(text[mentions[-1].text_end : answer])


def _only_points(part: str) -> bool:
    return _POINTING.issuperset(plain_words(part)) and not _QUOTE.search(part)


def _quotes_in(text: str) -> list[str]:
    """What stands in the text's quotation marks: the options that it chooses only where it quotes nothing else."""
    quotes = list(_QUOTE.finditer(text))
    heard = [q for q in quotes if not _OPTION_BEFORE.search(text[max(0, q.start() - 40) : q.start()])]
    return ["".join(quote.groups("")) for quote in heard or quotes]


def _plain_object(match: re.Match[str]) -> str:
    """A JSON object's texts, of the same length; only speech stands in quotes, and its answer is left out."""
    names = [field[1] for field in _FIELD.finditer(match[0])]

    def value(field: re.Match[str]) -> str:
        is_answer = field[1].lower() == "answer" and len(names) > 1
        said = None if is_answer else field[2] or field[3]
        if not said:
            return " " * len(field[0])
        is_speech = _SPEECH_FIELD.search(field[1]) and not find_regions(said)
        inner, mark = ("  ", '"') if is_speech else (' "', " ")
        said = _ESCAPED.sub(lambda escaped: inner if escaped[1] == '"' else "  ", said)
        return f"{mark}{said}{mark}".rjust(len(field[0]))

    return _FIELD.sub(value, match[0]).replace("\n", " ") if names else match[0]


def _sentences(
    text: str, mentions: Sequence[Mention], objects: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Where each sentence begins and stops: at a line break, at . ! ? outside quotes and intervals, around a JSON
    object, and at the end of a quote that ends so where a capital follows.
    """
    quotes = [match.span() for match in _QUOTE.finditer(text)]
    closed = sorted((*quotes, *objects, *((mention.text_start, mention.text_end) for mention in mentions)))
    stops = [bound for one in objects for bound in one]
    stops += [stop for _, stop in quotes if _QUOTE_ENDS.search(text[max(0, stop - 4) : stop + 6])]
    furthest = n_begun = 0
    for match in _SENTENCE_END.finditer(text):
        while n_begun < len(closed) and closed[n_begun][0] <= match.start():
            furthest = max(furthest, closed[n_begun][1])
            n_begun += 1
        if match.start() >= furthest and not _is_abbreviated(text, match):
            stops.append(match.end())
    return list(pairwise((0, *sorted(set(stops) - {0, len(text)}), len(text))))


def _is_abbreviated(text: str, end: re.Match[str]) -> bool:
    """Whether the full stop belongs to an abbreviation and the sentence goes on."""
    if end[0] != ".":
        return False
    before = text[max(0, end.end() - 24) : end.end()]
    return any(word.search(before) and follows.match(text, end.end()) for word, follows in _ABBREVIATIONS)


def _explanations(text: str, first: int, stop: int, mentions: Sequence[Mention]) -> list[str]:
    """For each of a sentence's mentions the part of the sentence that explains it."""
    cuts = [first, *(cut for m in mentions for cut in (m.text_start, m.text_end)), stop]
    parts = [text[cuts[i] : cuts[i + 1]] for i in range(0, len(cuts), 2)]
    parts = [*map(_without_notation, parts[:-1]), parts[-1]]
    if len(mentions) == 1:
        return [f"{parts[0]} {parts[1]}"]
    quoted = [bool(_quotes_in(part)) for part in parts]
    if quoted.count(False) == 1:  # one quote for each interval, before it or after it
        del parts[quoted.index(False)]
        return parts
    quoted = [quoted[0], quoted[-1]]
    comes_first = quoted == [True, False] or (
        not any(quoted) and bool(plain_words(parts[0])) and not plain_words(parts[-1])
    )
    own = parts[:-1] if comes_first else parts[:0:-1]
    shared: list[str] = []
    for part in own:
        is_empty = _JOINERS.issuperset(plain_words(part))
        shared.append(shared[-1] if is_empty and shared else part)
    return shared if comes_first else shared[::-1]


def _without_notation(part: str) -> str:
    """The part without the words that belong to the interval after it: "from", "starts at", an open bracket.

    What a quote ends with belongs to it ('"when it starts" (1-2 s)').
    """
    quoted = max((match.end() for match in _QUOTE.finditer(part)), default=0)
    kept = max(quoted, len(part) - 80)
    return part[:kept] + _NOTATION.sub("", part[kept:])


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """How many words both have in the same order, with others between or not: the longest common subsequence's length.

    A row of the usual table at a time, as the bits of one number.
    """
    places: dict[str, int] = {}
    for index, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << index
    all_ones = (1 << len(a)) - 1
    row = all_ones  # a zero where the length grows
    for token in b:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & all_ones
    return len(a) - row.bit_count()
