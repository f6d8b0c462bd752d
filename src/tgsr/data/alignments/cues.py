"""Words as subtitles: which of them are shown together, on which lines, and from when to when."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Literal, get_args

from tgsr.errors import OptionError
from tgsr.timeline import Seconds, Word, in_order

Format = Literal["srt", "vtt", "textgrid", "ctm", "tsv", "txt", "json", "labels", "rttm"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[Format, str] = {to: f".{to}" for to in FORMATS}
SUFFIXES |= {"textgrid": ".TextGrid", "labels": ".labels.txt"}
"""What `writing` writes; named here, where a command reads its flags without numpy."""

LONG_PAUSE: Seconds = 1.0  # that no cue goes across
PAUSE: Seconds = 0.3  # at which a cue rather ends than elsewhere
SHORTEST: Seconds = 1.0  # for which a cue is shown, where nothing else follows sooner
ABBREVIATED = ("Mr.", "Mrs.", "Ms.", "Dr.", "St.", "Prof.", "No.", "vs.")
CLOSING = "\"'”’»)]}"
JOINED = re.compile(r"[^\W\d_](?:—|--)$")
# What a line may begin with, and what it should not end with: a sense is kept together.
BEFORE = {
    *("and", "but", "or", "nor", "so", "because", "although", "though", "while", "when", "where", "which"),
    *("who", "that", "if", "unless", "until", "since", "than", "then", "as", "with", "without", "from"),
    *("into", "about", "after", "before"),
}
NEVER_LAST = {
    *("a", "an", "the", "my", "your", "his", "her", "its", "our", "their", "this", "these", "those", "of"),
    *("to", "in", "on", "at", "by", "for", "very", "mr", "mrs", "dr"),
}
# What a break costs, in the unit of a cue more.
CLAUSE, CONJUNCTION, ANYWHERE, SPLIT_SENSE = 0.5, 1.0, 2.0, 4.0
PAUSED = 0.3  # of that, where the speaker pauses
TWO_SENTENCES = 0.6  # in one cue
TOO_FAST, TOO_SHORT = 6.0, 6.0


@dataclass(frozen=True, slots=True)
class Layout:
    """What a cue of subtitles may hold. The defaults are the usual rules of subtitling (Netflix, BBC, Amara).

    A wide character (Chinese, Japanese, Korean) counts as two. A word that is longer than a line stands alone on it.
    Speech that is faster than `max_characters_per_second` keeps its words and is shown for as long as it lasts.
    Raises OptionError for what no cue can keep to.
    """

    max_line_width: Annotated[int, "characters of a line of subtitles, at most"] = 42
    max_line_count: Annotated[int, "lines of a cue, at most"] = 2
    max_cue_seconds: Annotated[float, "a cue is shown, at most"] = 7.0
    max_cue_words: Annotated[int | None, "words of a cue, at most; no bound if not given"] = None
    max_characters_per_second: Annotated[
        float, "that are to be read; a cue stays longer where there is time"
    ] = 17.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = SHORTEST if field.name == "max_cue_seconds" else 1
            if value is not None and not least <= value < math.inf:
                raise OptionError(f"--{field.name.replace('_', '-')} {value}: must be {least:g} or more")


USUAL = Layout()


@dataclass(frozen=True, slots=True)
class Subtitle:
    """Words that are shown together, line by line, from `start` to `end`; all are one speaker's."""

    start: Seconds
    end: Seconds
    lines: tuple[tuple[Word, ...], ...]

    @property
    def speaker(self) -> str | None:
        return self.lines[0][0].speaker

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for line in self.lines for word in line)


def subtitles(
    words: Sequence[Word], layout: Layout, duration: Seconds = math.inf, names: bool = False
) -> list[Subtitle]:
    """Every word in one cue, cues in order of their starts. No words give no cues.

    A cue begins with its first word and never goes across a pause of LONG_PAUSE, or another speaker's words; it ends
    where a sentence or clause does, if it can. It stays after its last word for as long as it takes to read, but not
    into the next cue, nor past `duration`. Cues of two speakers overlap where both speak. `names` leaves room for
    "NAME: " on its first line.
    """
    shown: list[tuple[tuple[Word, ...], ...]] = []
    for run in runs(words):
        label = f"{run[0].speaker}: " if names and run[0].speaker else ""
        shown += [_lines(cue, layout, width(label)) for cue in _cut(run, layout, width(label))]
    shown.sort(key=lambda lines: lines[0][0].start)
    cues = []
    for n, lines in enumerate(shown):
        start, said = lines[0][0].start, max(word.end for line in lines for word in line)
        starts = (after[0][0].start for after in shown[n + 1 :])
        following = next((after for after in starts if after >= said), math.inf)
        n_read = sum(width(joined(line)) for line in lines)
        wanted = max(said, start + max(SHORTEST, n_read / layout.max_characters_per_second))
        end = min(wanted, max(said, min(following, duration)), start + layout.max_cue_seconds)
        cues.append(Subtitle(start, end, lines))
    return cues


def runs(words: Sequence[Word]) -> list[list[Word]]:
    """The words of each speaker between long pauses and the words that others say meanwhile, in order of their starts.

    Who speaks at the same time as another goes on: only a word that lies between two of a speaker's words parts them.
    """
    cut: list[list[Word]] = []
    current: dict[str | None, list[Word]] = {}
    # when the first of the others' words since a speaker's last one ended
    between: dict[str | None, Seconds] = {}
    for word in in_order(words):
        run = current.get(word.speaker)
        is_parted_by_others = between.get(word.speaker, math.inf) <= word.start
        if run is None or word.start - run[-1].end >= LONG_PAUSE or is_parted_by_others:
            run = current[word.speaker] = []
            cut.append(run)
        run.append(word)
        between.pop(word.speaker, None)
        for speaker, other in current.items():
            if speaker != word.speaker and other[-1].end <= word.start:
                between.setdefault(speaker, word.end)
    return cut


def sentences(words: Sequence[Word]) -> list[list[Word]]:
    """The runs of `runs`, cut where sentences end."""
    cut: list[list[Word]] = []
    for run in runs(words):
        cut.append([])
        for word in run:
            if cut[-1] and ends_sentence(cut[-1][-1].text):
                cut.append([])
            cut[-1].append(word)
    return sorted(cut, key=lambda sentence: sentence[0].start)


@lru_cache(maxsize=1 << 14)
def ends_sentence(text: str) -> bool:
    """Whether a sentence ends with the word: not with "Dr.", nor with "1.", which begins a line of a list."""
    bare = text.rstrip(CLOSING)
    if bare in ABBREVIATED or re.fullmatch(r"\(?\d{1,2}\.|[A-Z]\.", bare):
        return False
    return bare.endswith((".", "?", "!", "…", "。", "？", "！", "।", "؟"))


def joined(words: Sequence[Word]) -> str:
    """The words as a text. Scripts that write no blanks between words (Chinese, Japanese, Thai, ...) get none."""
    return "".join(f"{' ' * is_parted(words, n)}{word.text}" for n, word in enumerate(words))


def is_parted(words: Sequence[Word], n: int) -> bool:
    """Whether there is a blank before the word: not between two of such scripts, nor after a dash that joins them."""
    if n == 0:
        return False
    before, text = words[n - 1].text, words[n].text
    is_joined = text[0].islower() and JOINED.search(before) is not None
    return not (is_joined or (_is_unspaced(before[-1]) and _is_unspaced(text[0])))


@lru_cache(maxsize=1 << 12)
def _is_unspaced(character: str) -> bool:
    point = ord(character)
    is_korean = 0x1100 <= point < 0x1200 or 0xAC00 <= point < 0xD7B0
    wide = unicodedata.east_asian_width(character) in "WF" and not is_korean
    return wide or 0x0E00 <= point < 0x0F00 or 0x1000 <= point < 0x10A0 or 0x1780 <= point < 0x1800


@lru_cache(maxsize=1 << 14)
def width(text: str) -> int:
    """How much of a line the text takes: wide characters count as two, marks that stand on others as none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _break_cost(word: Word, following: Word) -> float:
    """What it costs to end a line or a cue between two words of a run: 0 at a sentence's end."""
    if ends_sentence(word.text):
        return 0.0
    bare = word.text.rstrip(CLOSING)
    last, first = bare.casefold(), following.text.casefold().lstrip("\"'“‘(")
    if bare.endswith((",", ";", ":", "—", "–", "、", "，", "；", "،")):
        cost = CLAUSE
    elif last in NEVER_LAST:
        cost = SPLIT_SENSE
    else:
        cost = CONJUNCTION if first.rstrip(",") in BEFORE else ANYWHERE
    return cost * PAUSED if following.start - word.end >= PAUSE else cost


def _cut(run: Sequence[Word], layout: Layout, label: int) -> list[Sequence[Word]]:
    """The run in cues, by the cheapest breaks: each costs 1, and more where it parts what belongs together.

    Costs also: speech that cannot be read in the time until the next cue, or is shown for less than SHORTEST.
    """
    widths = _widths(run)
    ends = [0, *accumulate(blank + wide for blank, wide in widths)]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(run) + 1):
        after = run[stop].start if stop < len(run) else run[-1].end + LONG_PAUSE
        parted = _break_cost(run[stop - 1], run[stop]) if stop < len(run) else 0.0
        costs: list[tuple[float, int]] = []
        n_sentences = 0
        for first in range(stop - 1, -1, -1):
            n_sentences += first < stop - 1 and ends_sentence(run[first].text)
            n_read = ends[stop] - ends[first] - widths[first][0]
            if first < stop - 1 and not (
                run[stop - 1].end - run[first].start <= layout.max_cue_seconds
                and (layout.max_cue_words is None or stop - first <= layout.max_cue_words)
                and n_read + label <= (layout.max_line_width + 1) * layout.max_line_count
                and _n_lines(widths[first:stop], layout.max_line_width, label) <= layout.max_line_count
            ):
                break
            shown = max(after - run[first].start, 0.01)
            hurry = max(0.0, n_read / shown / layout.max_characters_per_second - 1) * TOO_FAST
            brief = max(0.0, 1 - shown / SHORTEST) * TOO_SHORT
            costs.append((best[first][0] + 1 + parted + hurry + brief + TWO_SENTENCES * n_sentences, first))
        best.append(min(costs))
    cues: list[Sequence[Word]] = []
    stop = len(run)
    while stop:
        first = best[stop][1]
        cues.append(run[first:stop])
        stop = first
    return cues[::-1]


def _widths(words: Sequence[Word]) -> list[tuple[int, int]]:
    """The width of each word, and of the blank before it."""
    return [(int(is_parted(words, n)), width(word.text)) for n, word in enumerate(words)]


def _n_lines(widths: Sequence[tuple[int, int]], most: int, label: int) -> int:
    """How few lines hold words of these widths; a longer word has one to itself."""
    n, at = 1, label
    for place, (blank, wide) in enumerate(widths):
        if place and at + blank + wide > most:
            n, at = n + 1, wide
        else:
            at += blank * (place > 0) + wide
    return n


def _lines(words: Sequence[Word], layout: Layout, label: int) -> tuple[tuple[Word, ...], ...]:
    """The words on as few lines as hold them, broken where it costs least and lines are about as long."""
    n_lines = _n_lines(_widths(words), layout.max_line_width, label)
    # best[n][stop]: the cheapest n lines of the first `stop` words, and where the last of them begins
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for _ in range(n_lines):
        following: dict[int, tuple[float, int]] = {}
        for first, (cost, _) in best[-1].items():
            for stop in range(first + 1, len(words) + 1):
                wide = width(joined(words[first:stop])) + (label if first == 0 else 0)
                if wide > layout.max_line_width and stop > first + 1:
                    break
                parted = _break_cost(words[stop - 1], words[stop]) if stop < len(words) else 0.0
                # the sum of squares is least where lines are alike
                uneven = (wide / layout.max_line_width) ** 2
                following[stop] = min(following.get(stop, (math.inf, 0)), (cost + parted + 4 * uneven, first))
        best.append(following)
    lines: list[tuple[Word, ...]] = []
    stop = len(words)
    for of_n in reversed(best[1:]):
        first = of_n[stop][1]
        lines.append(tuple(words[first:stop]))
        stop = first
    return tuple(lines[::-1])
