"""LibriSpeech as OpenSLR ships it: SUBSET/SPEAKER/CHAPTER/ with FLAC files and one .trans.txt, and SPEAKERS.TXT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tgsr.data.alignments.alignment import kept
from tgsr.data.alignments.lines import librispeech
from tgsr.data.corpora.folders import NOTHING, Given, clips, described, locate, sound, unnamed
from tgsr.disk.rows import Entry, OnDisk, lines, made
from tgsr.errors import AlignmentError, Bad, CorpusError, RecordError
from tgsr.records import Clip
from tgsr.timeline import END_SLACK, Seconds, Word

SUBSET = re.compile(r"(train|dev|test)-[\w-]+")
LICENCE = "CC BY 4.0"


def read(folder: Path, given: Given = NOTHING, *, alignments: Path | None = None) -> Iterator[Clip | Bad]:
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
        split, source = subset.name.split("-")[0], f"LibriSpeech {subset.name}"
        known = replace(given, split=split, source=source, licence=LICENCE, language="en")
        for chapter in sorted(subset.glob("*/*/")):
            yield from _chapter(chapter, alignments or folder, known, speakers, ids)


def _chapter(
    chapter: Path, alignments: Path, given: Given, speakers: dict[str, dict[str, str]], ids: OnDisk
) -> Iterator[Clip | Bad]:
    subset, speaker, number = chapter.parts[-3:]
    transcripts = chapter / f"{speaker}-{number}.trans.txt"
    aligned = alignments / subset / speaker / number / f"{speaker}-{number}.alignment.txt"
    words: dict[str, tuple[Word, ...]] = {}
    for line in made(lines(aligned), _aligned_line) if aligned.is_file() else ():
        if isinstance(line, Bad):
            yield line
        else:
            words[line[0]] = line[1]
    named = OnDisk()

    def make(entry: Entry) -> Clip:
        utterance, _, text = entry.text("line").partition(" ")
        path = locate(chapter, f"{utterance}.flac")
        named.put(path.name)
        row = Entry(entry.file, entry.line, {"text": text, "speaker": speaker, **speakers.get(speaker, {})})
        clip = described(row, utterance, path, *sound(path), given)
        clip_words = words.get(utterance, ())
        if aligned.is_file() and not _fit(clip_words, text, clip.duration):
            return replace(clip, flags=(*clip.flags, "alignment-left-out"))
        return replace(clip, words=clip_words)

    if transcripts.is_file():
        yield from clips(lines(transcripts), make, ids)
    else:
        yield Bad(str(transcripts), "the chapter's transcripts are missing")
    yield from unnamed(chapter, named, transcripts.name)


def _aligned_line(entry: Entry) -> tuple[str, tuple[Word, ...]]:
    """Recording and words of one line. RecordError where it is no such line."""
    try:
        rows = list(librispeech(entry.text("line")))
        return rows[0].recording, kept(rows).alignment.words
    except AlignmentError as error:
        raise RecordError("words", error.problem) from None


def _fit(words: tuple[Word, ...], text: str, duration: Seconds) -> bool:
    """Whether the words are those of the text and end in the clip."""
    is_inside = all(word.end <= duration + END_SLACK for word in words)
    return is_inside and [word.text for word in words] == text.split()


def _speakers(path: Path) -> dict[str, dict[str, str]]:
    """Labels by speaker from SPEAKERS.TXT; none where it is missing. Lines that are no speaker's are skipped."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [[value.strip() for value in line.split("|", 4)] for line in lines if not line.startswith(";")]
    return {row[0]: {"sex": row[1], "name": row[4]} for row in rows if len(row) == 5}
