"""LibriSpeech as OpenSLR ships it: SUBSET/SPEAKER/CHAPTER/ with FLAC files and one .trans.txt, and SPEAKERS.TXT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tgsr.data.corpora.folders import clips, locate, place, sound, unnamed
from tgsr.disk.rows import Entry, OnDisk, lines
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import Clip
from tgsr.timeline import END_SLACK, Seconds, Word

SUBSET = re.compile(r"(train|dev|test)-[\w-]+")
LICENCE = "CC BY 4.0"
ALIGNED = re.compile(r'(\S+) "([^"]*)" "([^"]*)"\s*')


def read(
    folder: Path, *, alignments: Path | None = None, relative_to: Path | None = None
) -> Iterator[Clip | Bad]:
    """Every utterance of every subset in the folder, in order of its transcripts.

    The split is the first part of the subset's name; sex and name of the speaker are labels. Words have times where
    SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.alignment.txt (LibriSpeech-alignments) is in the folder `alignments`, or in
    the corpus itself where that is None; where it cannot be used or disagrees with the transcript, the clip has no
    words and the flag "alignment-left-out". A blank transcript is flagged "empty-text". Bad: a line without a file, a
    file or a chapter without a line.

    Raises CorpusError where the folder holds no subset.
    """
    subsets = sorted(path for path in folder.glob("*") if SUBSET.fullmatch(path.name) and path.is_dir())
    if not subsets:
        names = ", ".join(sorted(path.name for path in folder.glob("*"))[:5])
        expected = "subsets of LibriSpeech (train-clean-100, dev-other, ...)"
        raise CorpusError(folder, expected, names or "nothing")
    speakers = _speakers(folder / "SPEAKERS.TXT")
    ids = OnDisk()
    for subset in subsets:
        for chapter in sorted(subset.glob("*/*/")):
            yield from _chapter(chapter, alignments or folder, relative_to, speakers, ids)


def _chapter(
    chapter: Path,
    alignments: Path,
    relative_to: Path | None,
    speakers: dict[str, tuple[tuple[str, str], ...]],
    ids: OnDisk,
) -> Iterator[Clip | Bad]:
    subset, speaker, number = chapter.parts[-3:]
    transcripts = chapter / f"{speaker}-{number}.trans.txt"
    aligned = alignments / subset / speaker / number / f"{speaker}-{number}.alignment.txt"
    words: dict[str, tuple[Word, ...]] = {}
    for entry in lines(aligned) if aligned.is_file() else ():
        if isinstance(entry, Bad):
            yield entry
            continue
        try:
            utterance, aligned_words = _aligned(entry)
        except ValueError as error:
            yield entry.bad(error)
        else:
            words[utterance] = aligned_words
    named = OnDisk()

    def make(entry: Entry) -> Clip:
        utterance, _, text = entry.text("line").partition(" ")
        path = locate(chapter, f"{utterance}.flac")
        named.put(path.name)
        duration, flags = sound(path)
        if not text:
            flags += ("empty-text",)
        said = words.get(utterance, ())
        if aligned.is_file() and not _fit(said, text, duration):
            said, flags = (), (*flags, "alignment-left-out")
        return Clip(
            id=utterance,
            audio=place(path, relative_to),
            duration=duration,
            words=said,
            split=subset.split("-")[0],
            source=f"LibriSpeech {subset}",
            licence=LICENCE,
            speaker=speaker,
            text=text or None,
            language="en",
            labels=speakers.get(speaker, ()),
            flags=flags,
        )

    if transcripts.is_file():
        yield from clips(lines(transcripts), make, ids)
    else:
        yield Bad(str(transcripts), "the chapter's transcripts are missing")
    yield from unnamed(chapter, named, transcripts.name)


def _fit(words: tuple[Word, ...], text: str, duration: Seconds) -> bool:
    """Whether the words are those of the text and end in the clip."""
    is_inside = all(word.end <= duration + END_SLACK for word in words)
    return is_inside and [word.text for word in words] == text.split()


def _aligned(entry: Entry) -> tuple[str, tuple[Word, ...]]:
    """Utterance and words of `ID ",GO,,ON," "0.49,0.89,1.27,1.64,2.0"`: ends in seconds; empty words are silence."""
    found = ALIGNED.fullmatch(entry.text("line"))
    if found is None:
        raise RecordError("words", 'must be ID "WORD,..." "END,..."')
    texts, ends = found[2].split(","), [float(end) for end in found[3].split(",")]
    if len(texts) != len(ends):
        raise RecordError("words", f"has {len(texts)} words and {len(ends)} ends")
    stretches = zip(texts, (0.0, *ends[:-1]), ends, strict=True)
    return found[1], tuple(
        Word(text, start, end, source="librispeech-alignments") for text, start, end in stretches if text
    )


def _speakers(path: Path) -> dict[str, tuple[tuple[str, str], ...]]:
    """Labels by speaker from SPEAKERS.TXT; none where it is missing. Lines that are no speaker's are skipped."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [[value.strip() for value in line.split("|", 4)] for line in lines if not line.startswith(";")]
    return {row[0]: (("sex", row[1]), ("name", row[4])) for row in rows if len(row) == 5}
