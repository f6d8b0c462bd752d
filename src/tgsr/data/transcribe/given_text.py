"""A text that is given for a recording of any length, at the times at which a back end heard its words.

Runs of words that only one place of each has anchor the two; what lies between two anchors is matched by itself, so
that an error goes no further than the next anchor. What only one of the two has is a hole, with its words.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import accumulate, pairwise

from tgsr.data.alignments.alignment import UNSEEN
from tgsr.data.alignments.marks import kind
from tgsr.data.transcribe.spelling import in_plain_letters, spell
from tgsr.timeline import Hole, Seconds, Word

TEXT = "text"  # the source of a hole whose words only the text has
ANCHOR = 3  # words in a row that are nowhere else
NEAR = 20  # words: matches that are no further apart, in both, are of one place
FEWEST = 4  # of such matches, where they lie elsewhere than their neighbours say
ALIKE = 0.5  # of the letters of two readings of one place
SURELY_ALIKE = 0.75  # and where the text may not be said at all
A_FEW = 3  # words between two that match are what is said there, however else they were heard
FASTEST = 20.0  # letters a second
UNNOTICED: Seconds = 0.4  # of speech that a back end may have left out without a hole
SHORTEST: Seconds = 0.01

# Not said: marks in brackets, the numbers of footnotes.
MARK = re.compile(r"(?<!\S)(?:\[[^\]]{0,300}\]|<[^>]{0,300}>|\{[^}]{0,300}\})(?=[^\w\s]*(?:\s|$))")
NOTE = re.compile(r"(?<=\S)\[\d{1,3}\]")
# Said or not: asides, words between asterisks, and how a line begins that tells who says it, or when.
ASIDE = re.compile(r"\([^()]{0,300}\)|(?<!\S)\*[^*\n]{1,300}\*")
SIGNS = r"[^\w\n]{0,8}"
CLOCK = r"\d{1,2}(?::\d{2}){1,2}(?:[.,]\d{1,3})?(?!\w)"
CLOCKS = rf"{CLOCK}(?:[^\w\n]{{1,8}}{CLOCK})?"
NAME = r"[^\W\d_][\w.'’-]*(?: (?:(?:and|of|the) )?[^\W_a-zà-ÿ][\w.'’-]*){0,3}"
NAMED = rf"(?:{NAME}(?: ?[\[(][^\])\n]{{0,40}}[\])])?:(?![\w/])|[QA]\.(?=\s))"
LEAD = re.compile(
    rf"^{SIGNS}(?:{NAMED}|{CLOCKS}(?:{SIGNS}{NAMED}|[^\w\n]{{1,8}}{NAME}{SIGNS}$)?|{NAME}[^\w\n]{{1,8}}{CLOCK}{SIGNS}$)"
    rf"|(?<=[.?!…\"”)] ){NAMED}",
    re.MULTILINE,
)
BRACKETS = "()[]{}*_"
OPENING, CLOSING, CURRENCY = "«“„¿¡", "?!:;»”…–—-", "€£$¥₹"  # signs that may stand apart from their word
TOKEN = re.compile(r"\S+?(?:—|--)(?=[^\W\d_])|\S+")  # a dash without blanks joins two words


@dataclass(frozen=True, slots=True)
class Matched:
    """The text's words where they were heard, as first guesses of their times, and what only one of the two has.

    A hole's `source` is TEXT where its words stand in the text and were not heard, the heard words' own where they were
    heard and are not in the text, None where speech has no words in either. `share` is how many of the words, of the
    text or of those heard, whichever are fewer, are in both.
    """

    words: tuple[Word, ...]
    holes: tuple[Hole, ...]
    share: float


@dataclass(frozen=True, slots=True)
class Token:
    """A word as the text has it, and its `spoken` letters.

    Where it `is_sure`, it is said; `is_lead` where it tells who speaks, or when, and is rather not.
    """

    text: str
    letters: str
    is_sure: bool
    is_lead: bool


def tokens_of(text: str) -> list[Token]:
    """The words of a text; none where nothing in it can be said.

    Marks in brackets, numbers of footnotes and signs alone are none; a sign that stands apart goes with its word
    ("Quoi ?", "20 €"). Said or not is what tells, before a line, who says it or when ("Ann: Yes", "Q. Yes", "0:12",
    "Speaker 1  0:12"), and what stands in parentheses or between asterisks.
    """
    text = NOTE.sub("", MARK.sub(" ", UNSEEN.sub("", text)))
    leads, asides = _covered(LEAD, text), _covered(ASIDE, text)
    tokens: list[Token] = []
    before, end = "", 0
    for found in TOKEN.finditer(text):
        bare = found[0].strip(BRACKETS)
        letters = spoken(bare.strip(":"))
        is_lead = bool(leads[found.start()]) or any(map(kind, (bare, found[0])))  # "(laughs)", "SUE:"
        after = tokens[-1].text if tokens and "\n" not in text[end : found.start()] else ""
        if letters:
            is_sure = not (is_lead or asides[found.start()])
            tokens.append(Token(before + found[0], letters, is_sure, is_lead))
            before = ""
        elif set(found[0]) <= set(OPENING):
            before = f"{found[0]} "
        elif after and set(found[0]) <= set(CURRENCY if after[-1].isdigit() else CLOSING):
            whole = f"{after} {found[0]}"
            tokens[-1] = replace(tokens[-1], text=whole, letters=spoken(whole.strip(BRACKETS)))
        end = found.end()
    return tokens


def _covered(pattern: re.Pattern[str], text: str) -> bytearray:
    """1 for each character of the text that the pattern covers, else 0."""
    covered = bytearray(len(text))
    for found in pattern.finditer(text):
        covered[found.start() : found.end()] = b"\1" * len(found[0])
    return covered


def matched(text: str, heard: Sequence[Word], unheard: Sequence[Hole], duration: Seconds) -> Matched:
    """A text against what was heard in a recording of so many seconds; `unheard` is where speech has no words.

    Words are compared as they are spelled when they are said, without case, accents and signs ("21" is twenty-one).
    Between words that match, the text is believed where it reads like what was heard, or where speech without words
    leaves room for it; of what `tokens_of` is not sure of, only what was heard. Names and times that were not are no
    holes.
    """
    tokens = tokens_of(text)
    heard = [word for word in heard if spoken(word.text)]
    said, known = [spoken(word.text) for word in heard], [token.letters for token in tokens]
    pairs = _pairs(known, said)
    n_sure = sum(token.is_sure for token in tokens)
    share = min(1.0, len(pairs) / max(1, min(n_sure, len(said))))
    words: list[Word] = []
    holes: list[Hole] = []
    left = list(unheard)
    for (a, b), (i, j) in pairwise([(-1, -1), *pairs, (len(known), len(said))]):
        if a >= 0:
            words.append(replace(heard[b], text=tokens[a].text))
        before = heard[b].end if b >= 0 else 0.0
        after = max(before, heard[j].start if j < len(heard) else duration)
        there = [hole for hole in unheard if hole.end > before and hole.start < after]
        between = tokens[a + 1 : i]
        doubtful = [token for token in between if not token.is_sure]
        if doubtful and not _alike("".join(known[a + 1 : i]), "".join(said[b + 1 : j]), SURELY_ALIKE):
            between = [token for token in between if token.is_sure]
            if asides := [token.text for token in doubtful if not token.is_lead]:
                holes.append(Hole(before, after, " ".join(asides), None, TEXT))
        some, missing = _between(between, heard[b + 1 : j], before, after, there, bool(pairs))
        words += some
        holes += missing
        if some:  # the text has what was said there
            left = [hole for hole in left if hole not in there]
    return Matched(tuple(words), tuple(sorted([*left, *holes], key=lambda hole: hole.start)), share)


def spoken(text: str) -> str:
    """The letters of a word as it is said, for comparison; "" for what is no word."""
    if kind(text) is not None:
        return ""
    plain = in_plain_letters(text)
    is_spelled = all(one.isascii() for one in plain if one.isalpha() or one.isdecimal())
    return ("".join(spell(text)) if is_spelled else "") or "".join(filter(str.isalnum, text.casefold()))


def _pairs(known: Sequence[str], said: Sequence[str]) -> list[tuple[int, int]]:
    """Which words of the text are which of those heard: places that rise in both."""
    bounds = [(-1, -1), *_anchors(known, said), (len(known), len(said))]
    pairs: list[tuple[int, int]] = []
    for (a, b), (i, j) in pairwise(bounds):
        if a >= 0:
            pairs.append((a, b))
        found = SequenceMatcher(None, known[a + 1 : i], said[b + 1 : j], autojunk=False).get_matching_blocks()
        pairs += [(a + 1 + block.a + n, b + 1 + block.b + n) for block in found for n in range(block.size)]
    return _in_place(pairs)


def _anchors(known: Sequence[str], said: Sequence[str]) -> list[tuple[int, int]]:
    """The longest chain of places at which both have the same ANCHOR words, which neither has elsewhere."""

    def once(words: Sequence[str]) -> dict[tuple[str, ...], int]:
        runs = [tuple(words[n : n + ANCHOR]) for n in range(len(words) - ANCHOR + 1)]
        count = Counter(runs)
        return {run: n for n, run in enumerate(runs) if count[run] == 1}

    there = once(said)
    places = [(n, there[run]) for run, n in once(known).items() if run in there]
    tails: list[int] = []  # the least end of a rising chain of each length, and which place that is
    ends: list[int] = []
    came: list[int] = []
    for index, (_, place) in enumerate(places):
        length = bisect_left(ends, place)
        came.append(tails[length - 1] if length else -1)
        ends[length:], tails[length:] = [place, *ends[length + 1 :]], [index, *tails[length + 1 :]]
    chain: list[tuple[int, int]] = []
    index = tails[-1] if tails else -1
    while index >= 0:
        chain.append(places[index])
        index = came[index]
    return chain[::-1]


def _in_place(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without the few matches that lie far from their neighbours, in the text or in what was heard: they are chance."""
    groups: list[list[tuple[int, int]]] = []
    for pair in pairs:
        last = groups[-1][-1] if groups else None
        if last is None or max(pair[0] - last[0], pair[1] - last[1]) > NEAR:
            groups.append([])
        groups[-1].append(pair)
    if all(len(group) < FEWEST for group in groups):
        return list(pairs)
    return [pair for group in groups if len(group) >= FEWEST for pair in group]


def _between(
    tokens: Sequence[Token],
    heard: Sequence[Word],
    before: Seconds,
    after: Seconds,
    unheard: Sequence[Hole],
    is_anchored: bool,
) -> tuple[list[Word], list[Hole]]:
    """Words and holes of a stretch between two matches: what the text has there, and what was heard there."""
    known, said = "".join(token.letters for token in tokens), "".join(spoken(word.text) for word in heard)
    if tokens and heard:
        few = is_anchored and len(tokens) <= A_FEW and len(heard) <= A_FEW
        if (few and max(len(known), len(said)) <= 2 * min(len(known), len(said)) + 2) or _alike(known, said):
            return _shared_out(tokens, heard[0].start, heard[-1].end, heard[0].source), []
    elif tokens and is_anchored:
        room = sum(min(hole.end, after) - max(hole.start, before) for hole in unheard)
        needed = len(known) / FASTEST
        if needed <= room + UNNOTICED:
            start = max(unheard[0].start, before) if unheard else max(0.0, (before + after - needed) / 2)
            end = min(unheard[-1].end, after) if unheard else start + needed
            return _shared_out(tokens, start, max(end, start + SHORTEST * len(tokens)), None), []
    holes = []
    if heard:
        heard_as = " ".join(word.text for word in heard)
        holes.append(Hole(heard[0].start, heard[-1].end, heard_as, heard[0].speaker, heard[0].source))
    if tokens:
        holes.append(Hole(before, after, " ".join(token.text for token in tokens), None, TEXT))
    return [], holes


def _alike(known: str, said: str, least: float = ALIKE) -> bool:
    """Whether two readings have `least` of their letters in common, in order."""
    if 2 * min(len(known), len(said)) < max(len(known), len(said)):
        return False
    return SequenceMatcher(None, known, said, autojunk=False).ratio() >= least


def _shared_out(tokens: Sequence[Token], start: Seconds, end: Seconds, source: str | None) -> list[Word]:
    """The time between two times by the words' number of letters."""
    ends = [0, *accumulate(len(token.letters) for token in tokens)]
    times = [round(start + (end - start) * n / ends[-1], 3) for n in ends]
    return [
        Word(token.text, first, max(last, first + SHORTEST), None, source)
        for token, (first, last) in zip(tokens, pairwise(times), strict=True)
    ]


def gap_lines(holes: Sequence[Hole]) -> list[str]:
    """What is in the sound and not in the text, the other way round, or has no time, with its seconds: a line each."""
    lines = []
    for hole in holes:
        if hole.text is None:
            continue
        told = {TEXT: "in the text, not heard", None: "has no time"}
        what = told.get(hole.source, "heard, not in the text")
        words = re.sub(r"^(.{60}\S*)\s.*?(\S*.{30})$", r"\1 ... \2", hole.text)
        lines.append(f"{hole.start:.2f} - {hole.end:.2f} s: {what}: {words}")
    return lines
