"""A clip's words as other programs read them: subtitles, tiers, tables, labels. `reading` reads them again.

Times are written to the millisecond. What Whisper's and WhisperX' own writers call the same is the same here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from tgsr.data.alignments.cues import USUAL, Format, Layout, Subtitle, is_parted, joined, sentences, subtitles
from tgsr.data.corpora.multispeaker import SPEAKER
from tgsr.data.transcribe.speech import shortened
from tgsr.records import CHANNEL, Clip, as_row
from tgsr.timeline import Seconds, Word, cover, in_order

# a word's values by the names that WhisperX has for them
WHISPERX = {"word": "text", "start": "start", "end": "end", "score": "confidence"}
WHISPERX |= {"speaker": "speaker", "source": "source"}


def written(clip: Clip, to: Format, layout: Layout = USUAL, highlight: bool = False) -> str:
    """The clip's words in a format. `layout` and `highlight` are of srt and vtt alone.

    A clip without words gives a file without any.
    """
    if to in ("srt", "vtt"):
        return _subtitles(clip, to == "srt", layout, highlight)
    return WRITERS[to](clip)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _subtitles(clip: Clip, is_srt: bool, layout: Layout, highlight: bool) -> str:
    """Each cue: its times, its lines, and an empty one. Highlighted, a cue is there once more for every word."""
    plain: Callable[[str], str] = str if is_srt else _escaped
    mark, called = (",", "{}: ") if is_srt else (".", "<v {}>")
    # Whisper's own times begin a word with the pause before it.
    words = [shortened(word) if (word.source or "").startswith("whisper") else word for word in clip.words]
    timed: list[tuple[Seconds, Seconds, Subtitle, Word | None]] = []
    for cue in subtitles(words, layout, clip.duration, names=is_srt):
        timed += _lit(cue) if highlight else [(cue.start, cue.end, cue, None)]
    cues = [] if is_srt else ["WEBVTT\n\n"]
    for n, (start, end, cue, lit) in enumerate(sorted(timed, key=lambda one: one[0]), 1):
        number = f"{n}\n" if is_srt else ""
        who = called.format(plain(cue.speaker)) if cue.speaker else ""
        said = "\n".join(_line(line, lit, plain) for line in cue.lines)
        cues.append(f"{number}{_clock(start, mark)} --> {_clock(end, mark)}\n{who}{said}\n\n")
    return "".join(cues)


def _line(words: Sequence[Word], lit: Word | None, plain: Callable[[str], str]) -> str:
    texts = [plain(word.text.replace("-->", "->")) for word in words]  # an arrow would be read as times
    texts = [f"<u>{text}</u>" if word is lit else text for word, text in zip(words, texts, strict=True)]
    return "".join(f"{' ' * is_parted(words, n)}{text}" for n, text in enumerate(texts))


def _lit(cue: Subtitle) -> Iterator[tuple[Seconds, Seconds, Subtitle, Word | None]]:
    """The cue from word to word, each lit while it is said, none between them."""
    now = cue.start
    for word in cue.words:
        start, end = max(now, word.start), min(word.end, cue.end)
        if start >= end:
            continue
        if start > now:
            yield now, start, cue, None
        yield start, end, cue, word
        now = end
    if now < cue.end:
        yield now, cue.end, cue, None


def _clock(seconds: Seconds, mark: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{mark}{thousandths:03d}"


def _textgrid(clip: Clip) -> str:
    """Praat's long text format: a tier "words", or "NAME - words" for each speaker, "unknown" among others."""
    speakers = list(dict.fromkeys(word.speaker for word in clip.words)) or [None]
    end = max([clip.duration, *(word.end for word in clip.words)])
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.3f}"]
    lines += ["tiers? <exists>", f"size = {len(speakers)}", "item []:"]
    for n, speaker in enumerate(speakers, 1):
        intervals = _intervals([word for word in clip.words if word.speaker == speaker], end)
        name = "words" if speakers == [None] else f"{speaker or 'unknown'} - words"
        lines += [f"    item [{n}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {end:.3f}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for place, (start, stop, text) in enumerate(intervals, 1):
            lines += [f"        intervals [{place}]:", f"            xmin = {start:.3f}"]
            lines += [f"            xmax = {stop:.3f}", f"            text = {_quoted(text)}"]
    return "\n".join(lines) + "\n"


def _intervals(words: Sequence[Word], end: Seconds) -> list[tuple[Seconds, Seconds, str]]:
    """The words and the silences between them, without a gap from 0 to the end: Praat takes nothing else."""
    intervals: list[tuple[Seconds, Seconds, str]] = []
    now = 0.0
    for word in in_order(words):
        start, stop = max(now, round(word.start, 3)), round(word.end, 3)
        if stop <= start:
            continue
        if start > now:
            intervals.append((now, start, ""))
        intervals.append((start, stop, word.text))
        now = stop
    if now < round(end, 3) or not intervals:
        intervals.append((now, end, ""))
    return intervals


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""'))


def _ctm(clip: Clip) -> str:
    """`file channel start duration word confidence`, and `lex speaker` where that is known; no blanks in names."""
    name = "_".join(name_of(clip).split())
    lines = []
    for word in in_order(clip.words):
        channel = CHANNEL.fullmatch(word.speaker or "")
        start, length = f"{word.start:.3f}", f"{round(word.end, 3) - round(word.start, 3):.3f}"
        sure = "NA" if word.confidence is None else f"{word.confidence:.3f}"
        fields = [name, channel[1] if channel else "1", start, length, _bare(word.text), sure]
        lines.append(" ".join([*fields, *(("lex", _bare(word.speaker)) if word.speaker else ())]))
    return _as_lines(lines)


def name_of(clip: Clip) -> str:
    """The recording's name: its file's, without folder and suffix."""
    return re.sub(r"\.\w{1,5}$", "", clip.audio.rpartition("/")[2]) or clip.id


def _bare(text: str) -> str:
    return "_".join(text.split())


def _tsv(clip: Clip) -> str:
    """A word a line, in seconds; what is not known stays empty."""
    lines = ["start\tend\tword\tspeaker\tconfidence"]
    for word in in_order(clip.words):
        sure = "" if word.confidence is None else f"{word.confidence:.3f}"
        lines.append(f"{word.start:.3f}\t{word.end:.3f}\t{word.text}\t{word.speaker or ''}\t{sure}")
    return _as_lines(lines)


def _labels(clip: Clip) -> str:
    """Audacity's label track: a word a label."""
    return _as_lines([f"{word.start:.3f}\t{word.end:.3f}\t{word.text}" for word in in_order(clip.words)])


def _rttm(clip: Clip) -> str:
    """Turns: those that the clip has, else the words of one speaker after another. What `--speakers` reads."""
    events = [event for event in clip.events if event.label.startswith(SPEAKER)]
    turns = [(event.start, event.end, event.label.removeprefix(SPEAKER)) for event in events]
    if not turns:
        for word in in_order(clip.words):
            if word.speaker and turns and turns[-1][2] == word.speaker:
                turns[-1] = (turns[-1][0], max(turns[-1][1], word.end), word.speaker)
            elif word.speaker:
                turns.append((word.start, word.end, word.speaker))
    name = "_".join(name_of(clip).split())
    lines = []
    for start, end, who in sorted(turns):
        length = round(end, 3) - round(start, 3)
        lines.append(f"SPEAKER {name} 1 {start:.3f} {length:.3f} <NA> <NA> {_bare(who)} <NA> <NA>")
    return _as_lines(lines)


def _txt(clip: Clip) -> str:
    """A sentence a line, with the speaker's name where it is known."""
    said = sentences(clip.words)
    return _as_lines([f"{f'{some[0].speaker}: ' if some[0].speaker else ''}{joined(some)}" for some in said])


def _json(clip: Clip) -> str:
    """WhisperX' layout: segments with their words; and what the clip's row has besides: flags, holes, language."""
    row = as_row(clip)
    segments = []
    for some in sentences(clip.words):
        span = cover(word.span for word in some)
        assert span is not None  # a sentence has words
        words = [
            {key: value for key, field in WHISPERX.items() if (value := getattr(word, field)) is not None}
            for word in some
        ]
        who = {} if some[0].speaker is None else {"speaker": some[0].speaker}
        segments.append({"start": span.start, "end": span.end, "text": joined(some), **who, "words": words})
    told = {name: row[name] for name in ("language", "duration", "flags", "holes") if name in row}
    return json.dumps({**told, "segments": segments}, ensure_ascii=False, indent=1) + "\n"


def _as_lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


WRITERS: dict[str, Callable[[Clip], str]] = {
    **{"textgrid": _textgrid, "ctm": _ctm, "tsv": _tsv, "txt": _txt},
    **{"json": _json, "labels": _labels, "rttm": _rttm},
}
