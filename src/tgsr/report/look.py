"""Pages to look through a file of questions or clips and to listen to each: before training, not after.

Each page stands alone, as the report does: nothing is loaded from elsewhere, what files say is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from itertools import zip_longest
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tgsr.choices import letter
from tgsr.data.alignments.cues import joined
from tgsr.disk.jsonl import Row, lines_in, row_of
from tgsr.errors import RecordError
from tgsr.records import Clip, Question, clip_of, moved, question_of, resolve_audio
from tgsr.report.figures import axis_svg, clip_svg, wave_svg
from tgsr.report.items import EmbeddedSound, article, choice_list, cite_button, named_lane, player, sound_of
from tgsr.report.page import write_document
from tgsr.statistics.pictures import MODEL_COLOURS, stated
from tgsr.timeline import END_SLACK, Seconds, Span, Word, in_order

UNSURE = 0.5  # words of less confidence are paler
MOST_BAD = 500  # bad lines that are listed; the rest are counted

# Widths are in pixels of the narrowest picture; a wider one only has more room between the words.
NARROWEST_PX, PX_A_SECOND, WIDEST_PX = 300, 24, 20_000
LETTER_PX, WIDE_LETTER_PX, GAP_PX = 7, 13, 5
ROW_PX, NOTE_PX = 20, 30
MOST_ROWS = 12
MOST_LETTERS = 24

STYLE = """
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; align-items: baseline; margin: 1.2rem 0; }
a { color: inherit; }
a:focus-visible, .wide:focus-visible { outline: 2px solid var(--ink); outline-offset: 2px; }
h3, .said { overflow-wrap: anywhere; }
.wide .lanes { grid-template-columns: 1fr; }
.wide .lanes > span:empty { display: none; }
.wide .lanes .name { position: sticky; left: 0; justify-self: start; margin-top: .3rem; }
.word { cursor: pointer; outline: none; }
.word rect { fill: color-mix(in srgb, var(--tint) 18%, transparent); stroke: none; }
.word .label { fill: var(--ink); font-size: 12px; }
.word.unsure rect { fill: none; stroke: var(--tint); stroke-opacity: .6; stroke-dasharray: 2 3; }
.word.unsure .label { fill: var(--soft); font-style: italic; }
.word:hover rect, .word.near rect, .word.on rect { fill: color-mix(in srgb, var(--tint) 40%, transparent); }
.word:focus-visible rect { stroke: var(--ink); stroke-width: 2; stroke-dasharray: none; stroke-opacity: 1; }
.word[aria-disabled] { cursor: not-allowed; }
.note { visibility: hidden; pointer-events: none; }
.word:hover .note, .word:focus .note { visibility: visible; }
.words:hover .word:focus:not(:hover) .note { visibility: hidden; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .8rem 0 0; font-size: .88rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.bad li { overflow-wrap: anywhere; }
"""

Record = Question | Clip


@dataclass(slots=True)
class Contents:
    """A file after one pass: the questions or clips to show, each with its number, and the lines that are bad."""

    kind: str = ""  # "questions" or "clips", once a row has told
    items: list[tuple[int, Record]] = field(default_factory=list)
    n_items: int = 0  # in the whole file
    bad: list[tuple[int, str]] = field(default_factory=list)  # line and reason
    n_bad: int = 0


def look(
    path: Path,
    out: Path,
    *,
    n_a_page: int = 20,
    first: int = 0,
    n: int = 200,
    seed: int | None = None,
    audio: Path | None = None,
) -> list[Path]:
    """Writes index.html, page-2.html, ... into the folder `out`, and returns them in order.

    `path` holds questions or clips. `n` of its items are shown: those from `first` on (0 is the first), or, with
    `seed`, as many drawn at random from there on, in the file's order. The words of questions are those of the
    clips.jsonl beside them, where there is one; `audio` is the folder that sound has moved to. A second of sound adds
    43 kB to a page. Bad lines are listed at the end of the last page; clips without sound say why. Pages of an
    earlier, longer look stay.

    Raises RecordError where the file is empty or holds neither questions nor clips, and for numbers that
    leave nothing to show; OSError for a file that is not there.
    """
    for name, value, least in (("n_a_page", n_a_page, 1), ("first", first, 0), ("n", n, 1)):
        if value < least:
            raise RecordError(name, f"must be at least {least}, got {value}")
    contents = find_items(path, first, n, seed)
    there = moved([item for _, item in contents.items], audio)
    contents.items = [(number, item) for (number, _), item in zip(contents.items, there, strict=True)]
    clips = clips_beside(path, [item for _, item in contents.items])
    pages = [contents.items[i : i + n_a_page] for i in range(0, len(contents.items), n_a_page)] or [[]]
    written = []
    for index, items in enumerate(tqdm(pages, desc="looking", unit="page", disable=len(pages) < 2)):
        parts = [
            header(path, contents, first, seed, index, len(pages)),
            item_list(path, items, clips),
            bad_list(contents) if index == len(pages) - 1 else "",
            navigation(index, len(pages)),
        ]
        written.append(out / page_name(index))
        write_document(written[-1], f"{path.name}, page {index + 1} of {len(pages)}", parts, more_style=STYLE)
    return written


# --- reading ---------------------------------------------------------------------------------------------


def rows_in(path: Path) -> Iterator[tuple[int, Row | RecordError]]:
    """(line, row) one by one; what is no JSON object comes as the error that it is. Blank lines are skipped."""
    with path.open("rb") as file:
        for line, content in lines_in(file):
            try:
                row = row_of(content.rstrip() + b"\n")  # a file of something else is not half-written
            except RecordError as error:
                yield line, error
            else:
                yield line, row


def kind_of(row: Row) -> str | None:
    """ "questions" or "clips", by the fields that only one of them has; None for neither."""
    if "question" in row and ("clip_id" in row or "kind" in row):
        return "questions"
    if ("audio" in row or "path" in row) and "duration" in row and "question" not in row:
        return "clips"
    return None


def find_items(path: Path, first: int, n: int, seed: int | None) -> Contents:
    """The file's contents after one pass: the first `n` items from `first` on; with a seed, `n` of all these, each as
    likely. The file holds what its first row of either kind is.
    """
    rng = None if seed is None else np.random.default_rng(seed)
    contents, n_seen = Contents(), 0
    for line, row in rows_in(path):
        try:
            if isinstance(row, RecordError):
                raise row
            kind = kind_of(row)
            contents.kind = contents.kind or kind or ""
            if not contents.kind:
                raise RecordError(None, "is no question and no clip")
            if kind not in (contents.kind, None):
                raise RecordError(None, f"is one of {kind} in a file of {contents.kind}")
            item: Record = question_of(row) if contents.kind == "questions" else clip_of(row)
        except RecordError as error:
            contents.n_bad += 1
            if contents.n_bad <= MOST_BAD:
                contents.bad.append((line, str(error)))
            continue
        if contents.n_items >= first:
            n_seen += 1
            if len(contents.items) < n:
                contents.items.append((contents.n_items, item))
            elif rng is not None and (place := int(rng.integers(n_seen))) < n:  # Vitter's algorithm R
                contents.items[place] = (contents.n_items, item)
        contents.n_items += 1
    if not contents.kind:
        bad_line, reason = contents.bad[0] if contents.bad else (None, "")
        problem = f"holds neither questions nor clips; {reason}" if contents.bad else "the file is empty"
        raise RecordError(None, problem, str(path), bad_line, "give a questions.jsonl or a clips.jsonl")
    contents.items.sort(key=lambda numbered: numbered[0])
    return contents


def clips_beside(path: Path, items: Iterable[Record]) -> dict[str, Clip]:
    """The clips that the questions among `items` are about, by id, from the clips.jsonl in the same folder."""
    wanted = {item.clip_id for item in items if isinstance(item, Question)}
    beside = path.with_name("clips.jsonl")
    clips: dict[str, Clip] = {}
    if not wanted or not beside.is_file():
        return clips
    for _, row in rows_in(beside):
        # manifests without ids have paths
        if isinstance(row, RecordError) or wanted.isdisjoint(map(str, map(row.get, ("id", "audio", "path")))):
            continue
        with suppress(RecordError):  # looked at by itself, that file says so
            clip = clip_of(row)
            if clip.id in wanted:
                clips.setdefault(clip.id, clip)
    return clips


def clip_for(item: Record, clips: dict[str, Clip]) -> Clip | None:
    """The item's clip; None where nobody knows it, or where one of that id has another length."""
    if isinstance(item, Clip):
        return item
    clip = clips.get(item.clip_id)
    return clip if clip is not None and abs(clip.duration - item.duration) <= END_SLACK else None


# --- the page --------------------------------------------------------------------------------------------


def page_name(index: int) -> str:
    return "index.html" if index == 0 else f"page-{index + 1}.html"


def header(path: Path, contents: Contents, first: int, seed: int | None, index: int, n_pages: int) -> str:
    n_shown = len(contents.items)
    what = contents.kind if contents.n_items != 1 else contents.kind.removesuffix("s")
    there = f"{contents.n_items} {what}"
    shown = f"{n_shown} of {there}" if n_shown else f"No item from {first} on: there are {there}"
    how = f", drawn at random (seed {seed})" if seed is not None and n_shown else ""
    bad = f" Lines that could not be read: {contents.n_bad}, on the last page." if contents.n_bad else ""
    return (
        f"<header><h1>{escape(path.name)}</h1><p>{shown}{how}.{bad}</p></header>{navigation(index, n_pages)}"
        "<p>Press a word, a bar or a time to hear exactly that; hover over a word, or focus it, for its time, "
        "its source and its confidence. The shaded columns are the evidence. Words in pale italics have a "
        f"confidence below {UNSURE}. <kbd>space</kbd> pauses and resumes, <kbd>esc</kbd> stops.</p>"
    )


def navigation(index: int, n_pages: int) -> str:
    """Links to the pages beside this one; nothing where it is the only one."""
    if n_pages == 1:
        return ""
    links = [f"<span>page {index + 1} of {n_pages}</span>"]
    if index > 0:
        links.insert(0, f'<a rel="prev" href="{page_name(index - 1)}">← previous</a>')
    if index < n_pages - 1:
        links.append(f'<a rel="next" href="{page_name(index + 1)}">next →</a>')
    return f'<nav aria-label="pages">{"".join(links)}</nav>'


def bad_list(contents: Contents) -> str:
    if not contents.n_bad:
        return ""
    rows = "".join(f"<li>line {line}: {escape(reason)}</li>" for line, reason in contents.bad)
    n_more = contents.n_bad - len(contents.bad)
    more = f"<p>And {n_more} more.</p>" if n_more else ""
    return f'<section><h2>Lines that could not be read</h2><ul class="bad">{rows}</ul>{more}</section>'


def item_list(path: Path, items: Sequence[tuple[int, Record]], clips: dict[str, Clip]) -> str:
    """The items in order, then each sound once, however many of the items are about it."""
    sounds: dict[Path, EmbeddedSound] = {}
    articles = []
    for (index, item), following in zip_longest(items, [index for index, _ in items[1:]]):
        sound = sound_of(resolve_audio(item, path), sounds)
        articles.append(item_html(index, following, item, clip_for(item, clips), sound))
    return "\n".join(articles) + "\n" + "".join(sound.element for sound in sounds.values())


# --- one item --------------------------------------------------------------------------------------------


def item_html(
    index: int, following: int | None, item: Record, clip: Clip | None, sound: EmbeddedSound
) -> str:
    """`clip` gives the words and events, where it is known; `following` is the next item's number."""
    skip = "" if following is None else f' · <a href="#item-{following}">next item</a>'
    parts = [f'<p class="why">item {index}{skip}</p>', heading(item), player(item.duration, sound)]
    parts += [lanes_html(item, clip, sound), facts_html(item, clip, sound.samples is not None)]
    return article(parts, item.duration, sound, f"item-{index}")


def heading(item: Record) -> str:
    if isinstance(item, Question):
        choices = choice_list(item, (), ()) if item.choices else ""
        return f'<h3 dir="auto">{escape(item.question)}</h3>{choices}'
    said = item.text if item.text is not None else joined(item.words)
    return f'<h3>{escape(item.id)}</h3><p class="said" dir="auto">{escape(said) or "(no words)"}</p>'


def lanes_html(item: Record, clip: Clip | None, sound: EmbeddedSound) -> str:
    """The waveform, the words of each speaker, events and evidence, and the seconds: one axis, scrolled where long."""
    duration, is_heard = item.duration, sound.samples is not None
    evidence = item.evidence if isinstance(item, Question) else ()
    width = round(min(WIDEST_PX, max(NARROWEST_PX, PX_A_SECOND * duration)))
    room = f'<svg width="{width}" height="0" display="block" aria-hidden="true"></svg>'
    wave = wave_svg(sound.samples, evidence, duration)
    rows = [f'<span></span><span class="room">{room}</span><span></span>{wave}']
    for index, (name, words) in enumerate(by_speaker(() if clip is None else clip.words).items()):
        picture = words_svg(words, colour_of(index), evidence, duration, width, is_heard)
        rows.append(f'<span class="name">{escape(name)}</span>{picture}')
    bands = event_bands(clip) + ([("evidence", "truth", [*evidence])] if evidence else [])
    rows += [named_lane(*lane, evidence, duration, is_heard) for lane in bands]
    rows.append(f"<span></span>{axis_svg(duration)}")
    return f'<div class="wide"><div class="lanes">{"".join(rows)}</div></div>'


def colour_of(index: int) -> str:
    return f"m{index % len(MODEL_COLOURS)}"


def by_speaker(words: Iterable[Word]) -> dict[str, list[Word]]:
    """Words in order of time, a lane a speaker in order of first word; without names they are just words."""
    lanes: dict[str, list[Word]] = {}
    for word in in_order(words):
        lanes.setdefault(word.speaker or "words", []).append(word)
    return lanes


def event_bands(clip: Clip | None) -> list[tuple[str, str, list[Span]]]:
    """The clip's events in order of time, a lane a label: its name, its colour and its spans."""
    lanes: dict[str, list[Span]] = {}
    for event in sorted(() if clip is None else clip.events, key=lambda event: event.start):
        lanes.setdefault(event.label, []).append(event.span)
    return [(name, colour_of(index), spans) for index, (name, spans) in enumerate(lanes.items(), 1)]


def words_svg(
    words: Sequence[Word],
    colour: str,
    evidence: Sequence[Span],
    duration: Seconds,
    width: int,
    is_heard: bool,
) -> str:
    """Words where they are said, in as many rows as they need to be legible, and a line for what is known of one."""
    rows = rows_of(words, duration, width)
    note_top = (max(rows) + 1) * ROW_PX
    placed = zip(words, rows, strict=True)
    drawn = "".join(word_svg(w, row * ROW_PX, note_top, duration, width, is_heard) for w, row in placed)
    return clip_svg(f"words {colour}", note_top + NOTE_PX, evidence, duration, drawn, NOTE_PX)


def rows_of(words: Sequence[Word], duration: Seconds, width: int) -> list[int]:
    """The first row in which each word's label runs into no other; from the twelfth on they may."""
    ends: list[float] = []
    rows = []
    for word in words:
        label = label_px(word.text)
        left = min(word.start / duration * width, width - label)
        row = next((r for r, end in enumerate(ends) if end <= left), len(ends))
        if row == MOST_ROWS:
            row = ends.index(min(ends))
        elif row == len(ends):
            ends.append(0.0)
        ends[row] = max(left + label, word.end / duration * width) + GAP_PX
        rows.append(row)
    return rows


def label_px(text: str) -> int:
    return sum(LETTER_PX if character.isascii() else WIDE_LETTER_PX for character in cut(text))


def cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def word_svg(word: Word, top: int, note_top: int, duration: Seconds, width: int, is_heard: bool) -> str:
    left = min(100.0, 100 * word.start / duration)
    share = max(0.3, min(100.0, 100 * word.end / duration) - left)
    times = f"{word.start:.2f}–{word.end:.2f} s"
    unsure = word.confidence is not None and word.confidence < UNSURE
    known = "no confidence" if word.confidence is None else f"confidence {word.confidence:.2f}"
    known = f"{cut(word.source) if word.source else 'no source'}, {known}"
    at_end = left / 100 * width + label_px(word.text) > width
    place = 'x="100%" text-anchor="end"' if at_end else f'x="{left:.3f}%" dx="2"'
    anchor = "start" if left < 33 else "end" if left > 67 else "middle"
    note = "".join(
        f'<text class="note" x="{left:.3f}%" y="{note_top + y}" text-anchor="{anchor}">{escape(line)}</text>'
        for y, line in ((12, times), (26, known))
    )
    blocked = "" if is_heard and word.start < duration else ' aria-disabled="true"'
    label = escape(f"{'' if blocked else 'play '}{word.text}, {times}, {known}")
    return (
        f'<g class="word{" unsure" if unsure else ""}" role="button" tabindex="0" data-start="{word.start}" '
        f'data-end="{word.end}"{blocked} aria-label="{label}">'
        f'<rect x="{left:.3f}%" width="{share:.3f}%" y="{top + 1}" height="{ROW_PX - 3}" rx="2"/>'
        f'<text class="label" y="{top + 14}" {place}>{escape(cut(word.text))}</text>{note}</g>'
    )


def facts_html(item: Record, clip: Clip | None, is_heard: bool) -> str:
    """What is known besides, each by its name; what nobody knows is left out."""
    facts: list[tuple[str, str]] = []

    def add(name: str, value: str | None) -> None:
        if value:
            facts.append((name, escape(value)))

    if isinstance(item, Question):
        letters = [letter(i) for i, choice in enumerate(item.choices) if choice == item.answer]
        add("answer", " ".join([*(f"({one})" for one in letters), item.answer or ""]))
        add("phrase", item.phrase)
        facts += times_of("evidence", "truth", item.evidence, item.duration, is_heard)
        add("task", item.task)
    for name, colour, spans in event_bands(clip):
        facts += times_of(f"event {name}", colour, spans, item.duration, is_heard)
    add("split", item.split)
    if clip is not None:
        add("speaker", clip.speaker)
        add("labels", ", ".join(f"{name}: {value}" for name, value in clip.labels))
        add("flags", ", ".join(clip.flags))
        add("text", clip.text if isinstance(item, Question) else None)
        for name in ("language", "source", "licence"):
            add(name, getattr(clip, name))
    if isinstance(item, Question):
        add("id", item.id)
        add("clip", item.clip_id)
    add("sound", item.audio)
    rows = "".join(f'<dt>{escape(name)}</dt><dd dir="auto">{value}</dd>' for name, value in facts)
    return f'<dl class="facts">{rows}</dl>'


def times_of(
    name: str, colour: str, spans: Sequence[Span], duration: Seconds, is_heard: bool
) -> list[tuple[str, str]]:
    """The spans' times, each a button that plays it; [] for none."""
    times = [(stated(one.start, one.end, duration), f"{one.start:.2f}–{one.end:.2f} s") for one in spans]
    buttons = [cite_button(span, time, is_heard) for span, time in times]
    return [(name, f'<span class="{colour}">{" ".join(buttons)}</span>')] if buttons else []
