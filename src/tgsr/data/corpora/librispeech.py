"""LibriSpeech as OpenSLR ships it: SUBSET/SPEAKER/CHAPTER/ with FLAC files and one .trans.txt, and SPEAKERS.TXT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tgsr.data.corpora.folders import clips, locate, place, sound, unnamed
from tgsr.data.transcribe.existing_alignments import librispeech_words
from tgsr.disk.rows import Entry, OnDisk, lines
from tgsr.errors import AlignmentError, Bad, CorpusError, RecordError
from tgsr.records import Clip
from tgsr.timeline import END_SLACK, Seconds, Word

SUBSET = re.compile(r"(train|dev|test)-[\w-]+")
LICENCE = "CC BY 4.0"


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
            utterance, aligned_words = librispeech_words(entry.text("line"))
        except AlignmentError as error:
            yield entry.bad(RecordError("words", error.problem))
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
        clip_words = words.get(utterance, ())
        if aligned.is_file() and not _fit(clip_words, text, duration):
            clip_words, flags = (), (*flags, "alignment-left-out")
        return Clip(
            id=utterance,
            audio=place(path, relative_to),
            duration=duration,
            words=clip_words,
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


def _speakers(path: Path) -> dict[str, tuple[tuple[str, str], ...]]:
    """Labels by speaker from SPEAKERS.TXT; none where it is missing. Lines that are no speaker's are skipped."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [[value.strip() for value in line.split("|", 4)] for line in lines if not line.startswith(";")]
    return {row[0]: (("sex", row[1]), ("name", row[4])) for row in rows if len(row) == 5}
