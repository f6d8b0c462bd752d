"""Captions: SRT and WebVTT. What a cue shows again is read once."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise, zip_longest

from tgsr.data.alignments.marks import kind
from tgsr.data.alignments.timed import DECIMALS, Cue, Timed, shared_out
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

SRT, VTT = "srt", "vtt"

CLOCK = r"-?(?:\d{1,4}:)?\d{1,2}:(?:\d{2}(?:[.,]\d+)?|\d[.,]\d+)"
TIMING = re.compile(rf"\s*({CLOCK})\s*-->\s*({CLOCK})(?:\s.*)?")
# What is longer in brackets than 200 characters is none of these: time stays linear in the text.
BREAK = re.compile(r"(?<!:)\\N")  # SubStation's, which converters leave
INLINE = re.compile(rf"<({CLOCK})>")
VOICE = re.compile(r"<v(?:\.[^\s>]{0,200})?\s+([^>]{0,200})>")
SPLIT = re.compile(rf"(<{CLOCK}>|</?v(?:[.\s][^>]{{0,200}})?>|\n)")
HIGHLIGHT = re.compile(r"<(?:u|b|font|c\.)\b[^>]{0,200}>|\{[^}]{0,200}\\1?c&[^}]{0,200}\}")
LOWLIGHT = re.compile(r"</(?:u|b|font|c)>|\{\\r[^}]{0,200}\}")
TAGS = "[abcipsu]|br|div|em|font|lang|rt|ruby|span|strong"
MARKUP = re.compile(rf"</?(?:{TAGS})\b[^>]{{0,200}}>|\{{\\[^}}]{{0,200}}\}}")
ON, OFF = "\ue000", "\ue001"  # where a highlight begins and ends, in private characters
MARK = re.compile(
    r"<(?!v[.\s>])[A-Za-z][^>]{0,200}>|\[[^\]]{0,200}\](?!:)|\([^)]{0,200}\)|\{[^}]{0,200}\}|(?<!\S)\*[^*\n]{1,200}\*(?!\S)"
)
ASIDE = r"(?:\s*[\[(][^\[\]()\n]{0,60}[\])]\s*)?"  # JOHN (on phone):
SPEAKER = re.compile(rf"\s*(?:[-–—]\s*|>>+\s*)?\[?([^\W\d][^:\[\](\n]{{0,39}})\]?{ASIDE}:(?:\s+|$)")
NUMBERED = re.compile(r"\s*speaker[ _-]?\w+\s*", re.IGNORECASE)
TITLED = re.compile(r"[^\W\d_a-zà-ÿ][\w.'-]*(?: (?:and |of |the )?[^\W\d_a-zà-ÿ][\w.'-]*){0,3}")
CHANGE = re.compile(r"\s*(?:[-–—](?=\s*(?:[^\W\d_]|[\[(]))|>>+|\[[^\]]{0,200}\](?=\s*\S))\s*")
TIMING_REMEDY = "a cue's times are 00:00:01,000 --> 00:00:02,000"
ABUTS: Seconds = 0.1


@dataclass(frozen=True, slots=True)
class Shown:
    """A cue as the file has it: what it shows from when to when."""

    start: Seconds
    end: Seconds
    lines: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class _Token:
    """A word or mark of a cue; `since` is the time inside the cue after which it comes."""

    text: str
    speaker: str | None
    since: Seconds
    is_lit: bool


@dataclass(frozen=True, slots=True)
class _Cue:
    """What a cue shows, as words and marks."""

    shown: Shown
    tokens: tuple[_Token, ...]

    @property
    def texts(self) -> list[str]:
        return [token.text for token in self.tokens]

    @property
    def lit(self) -> int | None:
        """Which word is highlighted, where it is one alone."""
        lit = [n for n, token in enumerate(self.tokens) if token.is_lit]
        return lit[0] if len(lit) == 1 else None


def srt(text: str, source: str = SRT) -> Iterator[Timed]:
    """The words of cues. Times between them, and those of a highlighted word, are used as they are.

    <v NAME> and NAME: tell the speaker for the rest of the cue.
    """
    lines = text.split("\n")
    cues = [n for n, line in enumerate(lines) if "-->" in line]
    if not cues and not text.lstrip().startswith("WEBVTT"):
        raise AlignmentError("has no cue", TIMING_REMEDY)
    is_numbered = bool(cues) and lines[max(0, cues[0] - 1)].strip().isdigit()
    shown = []
    for n, following in pairwise([*cues, len(lines)]):
        times = TIMING.fullmatch(lines[n])
        if times is None:
            raise AlignmentError(f"times cannot be read: {lines[n]:.60}", TIMING_REMEDY, n + 1)
        body = lines[n + 1 : following]
        if source == VTT:
            body = _block(body)
        elif is_numbered and following < len(lines) and body and body[-1].strip().isdigit():
            body.pop()  # the next cue's number
        broken = [part for line in body for part in BREAK.split(line)]
        shown.append(Shown(seconds(times[1]), seconds(times[2]), tuple(broken), n + 1))
    return read(source, shown)


def _block(body: list[str]) -> list[str]:
    """A cue's lines up to an empty one, with which some begin; after it comes a note, or the next cue's name."""
    first = next((n for n, line in enumerate(body) if line), len(body))
    stop = body.index("", first) if "" in body[first:] else len(body)
    block = body[first:stop]
    is_name = first > 0 and stop == len(body) and len(block) == 1
    is_note = first > 0 and "".join(block[:1]).startswith("NOTE")
    return [] if is_name or is_note else block


vtt = partial(srt, source=VTT)


def seconds(clock: str) -> Seconds:
    """Seconds of "1:02:03,5", "02:03.5" or "-00:00:01,000"."""
    parts = clock.lstrip("-").replace(",", ".").split(":")
    total = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    return round(-total if clock.startswith("-") else total, DECIMALS)


# What is shown, and what of it is new


def read(source: str, shown: Sequence[Shown]) -> Iterator[Timed]:
    """Every cue's words. Captions that roll, grow or light up word by word show words again: these are read once."""
    # Some are there twice; without a time of its own, a cue of the same words is another.
    known: dict[tuple[Seconds, Seconds, object], Shown] = {}
    for n, cue in enumerate(shown):
        known[cue.start, cue.end, cue.lines if cue.end > cue.start else n] = cue
    shown = list(known.values())
    begun = [[SPEAKER.match(MARKUP.sub("", line)) for line in cue.lines] for cue in shown]
    prefixes = [match[1].strip() for of_cue in begun for match in of_cue if match]
    is_named = len(shown) > 1 and all(any(of_cue[:1]) for of_cue in begun)
    names = {name for name, n in Counter(prefixes).items() if (n > 1 or is_named) and TITLED.fullmatch(name)}
    shown = _pieced(shown)
    if any(INLINE.search(line) for cue in shown for line in cue.lines):
        shown = _rolled(shown)
    cues = [_Cue(cue, tuple(_tokens(cue, names))) for cue in shown]
    groups = _lit_groups(cues)
    if any(_moves_on(group) for group in groups):
        for group in groups:
            is_lit = any(cue.lit is not None for cue in group)
            yield from _lit_up(source, group) if is_lit else _shared(source, group[:1])
    else:
        yield from _shared(source, _new(cues))


def _pieced(shown: Sequence[Shown]) -> Sequence[Shown]:
    """whisper.cpp's cues of a token each (-ml 1) joined to words: a token that begins a word begins with a blank."""
    texts = ["".join(cue.lines) for cue in shown]
    if not is_by_token(texts):
        return shown
    words: list[Shown] = []
    for cue, text in zip(shown, texts, strict=True):
        if words and text and not text.startswith(" "):
            words[-1] = replace(words[-1], end=cue.end, lines=(words[-1].lines[0] + text,))
        else:
            words.append(replace(cue, lines=(text,)))
    return words


def is_by_token(texts: Sequence[str]) -> bool:
    """Whether each text is one token, of which those that begin words, at least half, begin with a blank."""
    n_begun = sum(text[:1] == " " for text in texts)
    return all(len(text.split()) < 2 for text in texts) and 2 * n_begun >= len(texts)


def _rolled(shown: Sequence[Shown]) -> list[Shown]:
    """Without the lines that stood in the cue before, and now have no times of their own."""
    new: list[Shown] = []
    before: set[str] = set()
    for cue in shown:
        kept = tuple(line for line in cue.lines if INLINE.search(line) or _bare(line) not in before)
        new.append(Shown(cue.start, cue.end, kept, cue.line))
        before = {_bare(line) for line in cue.lines}
    return new


def _bare(line: str) -> str:
    return " ".join(MARKUP.sub("", INLINE.sub("", line)).split())


def _new(cues: Sequence[_Cue]) -> Sequence[_Cue]:
    """The cues without the words that they show again, where half of them begin with what the one before ends with."""
    repeated = [0] * min(1, len(cues))
    for before, cue in pairwise(cues):
        abuts = cue.shown.start <= before.shown.end + ABUTS
        repeated.append(_overlap(before.texts, cue.texts) if abuts else 0)
    grows = any(1 < n < len(cue.tokens) for n, cue in zip(repeated, cues, strict=True))
    if not grows or 2 * sum(n > 1 for n in repeated) < len(cues) - 1:
        return cues
    return [replace(cue, tokens=cue.tokens[n:]) for n, cue in zip(repeated, cues, strict=True)]


def _overlap(old: Sequence[str], new: Sequence[str]) -> int:
    """How many of the last words of one cue are the first of the next."""
    return next((n for n in range(min(len(old), len(new)), 0, -1) if old[-n:] == new[:n]), 0)


def _lit_groups(cues: Sequence[_Cue]) -> list[list[_Cue]]:
    """Neighbouring cues that show the same while the highlight moves on; where it moves back, it is said again."""
    groups: list[list[_Cue]] = []
    last: int | None = None
    for cue in cues:
        lit = cue.lit
        is_again = lit is not None and last is not None and lit <= last
        if not groups or groups[-1][0].texts != cue.texts or is_again:
            groups.append([])
            last = None
        groups[-1].append(cue)
        last = last if lit is None else lit
    return groups


def _moves_on(group: Sequence[_Cue]) -> bool:
    """Whether the highlight goes through the cues, or off a single word that stays on, without a gap."""
    if len(group) < 2 or group[0].lit is None:
        return False
    return len(group[0].tokens) > 1 or group[1].shown.start <= group[0].shown.end + ABUTS


def _lit_up(source: str, group: Sequence[_Cue]) -> Iterator[Timed]:
    """The words of cues that show the same: each at the time of the cue in which it alone is highlighted."""
    when = {cue.lit: cue.shown for cue in group if cue.lit is not None}
    for n, token in enumerate(group[0].tokens):
        cue = when.get(n)
        start, end = (cue.start, cue.end) if cue else (None, None)
        yield Timed(source, token.text, start, end, (cue or group[0].shown).line, token.speaker)


def _shared(source: str, cues: Sequence[_Cue]) -> Iterator[Timed]:
    """The time between two times of a cue, shared out over the words between them; a cue ends where the next begins.

    Where a cue's times run backwards, its words have none.
    """
    stretches: list[Cue] = []
    starts = [cue.shown.start for cue in cues]
    for cue, following in zip_longest(cues, starts[1:]):
        end = cue.shown.end
        if following is not None and cue.shown.start < following < end:
            end = following
        parts = [(since, list(part)) for since, part in groupby(cue.tokens, key=lambda token: token.since)]
        bounds = [*(since for since, _ in parts), end]
        runs_back = any(b < a for a, b in pairwise(bounds))
        for (since, part), finish in zip(parts, bounds[1:], strict=True):
            words = tuple((token.text, token.speaker) for token in part)
            start, finish = (None, None) if runs_back else (since, finish)
            stretches.append(Cue(source, words, start, finish, cue.shown.line, len(parts) > 1))
    return shared_out(stretches)


def _tokens(cue: Shown, names: set[str]) -> list[_Token]:
    """A cue's words and marks with their speakers. A mark of several words is one; a change of speaker is a mark."""
    text = html.unescape(html.unescape("\n".join(cue.lines)))
    text = MARKUP.sub("", LOWLIGHT.sub(OFF, HIGHLIGHT.sub(ON, text)))
    text = MARK.sub(lambda mark: f" {'_'.join(mark[0].split())} ", text)
    tokens: list[_Token] = []
    speaker: str | None = None
    since, is_on, begins = cue.start, False, True
    for piece in SPLIT.split(text):
        if inline := INLINE.fullmatch(piece):
            since = seconds(inline[1])
            tokens.append(_Token("", speaker, since, False))
        elif piece == "\n":
            begins = True
        elif SPLIT.fullmatch(piece):
            voice = VOICE.fullmatch(piece)
            speaker = voice[1].strip() or None if voice else None
        elif piece.strip():
            marks: list[str] = []
            if begins:
                speaker, marks, piece = _named(piece, speaker, names)
                begins = False
            tokens += [_Token(mark, None, since, False) for mark in marks]
            for word in piece.split():
                is_lit = is_on or ON in word
                is_on = word.rfind(ON) > word.rfind(OFF) if ON in word or OFF in word else is_on
                speaker = None if word == ">>" else speaker
                if bare := word.replace(ON, "").replace(OFF, ""):
                    tokens.append(_Token(bare, speaker, since, is_lit and kind(bare) is None))
    return tokens


def _named(line: str, speaker: str | None, names: set[str]) -> tuple[str | None, list[str], str]:
    """Who speaks from a line's beginning on, what mark stands there, and the rest of the line.

    A name in capitals, "Speaker 1", one that begins several lines, or any where every cue begins with one, is the
    speaker. Another word with a capital and a colon may be said or not: an unknown mark. So is a new speaker without
    one ("- Hi", ">> Hi", "[MAN] Hi").
    """
    bare = line.replace(ON, "").replace(OFF, "")
    if prefix := SPEAKER.match(bare):
        name, rest = prefix[1].strip(), _after(line, prefix.end())
        if name.isupper() or NUMBERED.fullmatch(name) or name in names:
            return name, [], rest
        if TITLED.fullmatch(name):
            return None, [">>"], rest
    if change := CHANGE.match(bare):
        return None, [">>"], _after(line, change.end())
    return speaker, [], line


def _after(line: str, n: int) -> str:
    """The line without its first n characters; where highlights begin and end stays known."""
    marks, place = "", 0
    while n:
        if line[place] in (ON, OFF):
            marks += line[place]
        else:
            n -= 1
        place += 1
    return marks + line[place:]
