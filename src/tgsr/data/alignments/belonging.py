"""Which alignment belongs to which clip: by its path, else by a name that nothing else has; never by a guess."""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tgsr.data.alignments.alignment import Alignment
from tgsr.data.alignments.lines import CTM_LINE, LABEL_LINE, LIBRISPEECH_LINE, STM_LINE
from tgsr.data.alignments.reading import BY_SUFFIX, read_alignment
from tgsr.data.alignments.timed import UnknownFormat
from tgsr.data.corpora.folders import FORMATS, walk
from tgsr.data.transcribe.repair import WORDS_MISSING, mended
from tgsr.disk.rows import OnDisk
from tgsr.errors import AlignmentError, Bad
from tgsr.records import Clip, as_row, clip_of

OF_MANY = (".ctm", ".stm", ".txt")
PART = re.compile(r"words?|labels|align(?:ed|ments?)?|transcript(?:ion)?|timestamps|sdh|cc", re.IGNORECASE)
# ISO 639-1, and those of 639-2 that subtitles are often named by
LANGUAGES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo "
    "es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka "
    "kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng "
    "nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su "
    "sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu "
    "chi deu eng fra fre ger haw ita jpn kor por rus spa yue zho"
)
LANGUAGE = re.compile(rf"(?:{LANGUAGES.replace(' ', '|')})(?:[-_][a-z0-9]+)*", re.IGNORECASE)
CAPTIONS = (".srt", ".vtt", ".json3", ".json", ".ass", ".ssa", ".sbv", ".lrc", ".ttml", ".dfxp")
RANK = {suffix: rank for rank, suffix in enumerate(BY_SUFFIX)}
NAMED = 5  # in a warning

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A file, or one recording of a file of many, and the names of the clip that it may be about, the surest first."""

    path: Path
    recording: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}: {self.recording}" if self.recording else str(self.path)


def with_alignments(
    clips: Iterable[Clip | Bad], given: Path, source: Path, out: Path
) -> Iterator[Clip | Bad]:
    """The clips with the words that existing alignments give them; those that have none go by as they are.

    `given` is one file, about one recording or many, or a folder of such files. An alignment belongs to the clip whose
    path in the corpus `source`, or id, is its own path in `given` (or the recording that it names), suffixes apart
    (talk.wav.words.json, talk.en.vtt); else to the one whose name only it has. Where several belong to one clip, times
    of words go before cues. The clips' audio starts at the folder `out`.
    What is not used, and clips that have none, are counted in warnings. A file that cannot be read makes its clip Bad.
    Raises AlignmentError where `given` does not exist, or is one file that cannot be read.
    """
    if not given.exists():
        raise AlignmentError("does not exist", "correct the path", file=str(given))
    bad: list[Bad] = []
    sources = list(_sources(given, bad))
    wanted = {name for one in sources for name in one.names}
    wanted |= {_bare(name) for name in wanted}
    root = source if source.is_dir() else source.parent
    held = OnDisk()
    by_path: dict[str, list[int]] = defaultdict(list)
    by_name: dict[str, list[int]] = defaultdict(list)
    n_clips = 0
    for clip in clips:
        if isinstance(clip, Bad):
            bad.append(clip)
            continue
        names = _names_of(clip, root, out)
        for name in names & wanted:
            by_path[name].append(n_clips)
        for name in {_bare(name) for name in names} & wanted:
            by_name[name].append(n_clips)
        held.put(str(n_clips), json.dumps(as_row(clip)))
        n_clips += 1
    yield from bad
    owned = _owned(sources, by_path, by_name)
    if not owned and n_clips == len(sources) == 1 and given.is_file() and not sources[0].recording:
        owned = {0: sources}  # one file for one clip, whatever it is called
    used: set[Source] = set()
    unserved: list[str] = []
    for n in range(n_clips):
        clip = clip_of(json.loads(held.get(str(n))[0]))
        chosen = _chosen(owned.get(n, ()), clip)
        if chosen is None:
            unserved.append(clip.id)
            yield clip
        elif isinstance(chosen, Bad):
            used.update(owned[n])
            yield chosen
        else:
            used.add(chosen[0])
            yield _served(clip, chosen[1])
    _count(given, "alignments are not used", [str(one) for one in sources if one not in used])
    _count(given, "clips have no alignment", unserved)
    if n_clips and not used:
        log.warning("%s: no clip has an alignment: name each as its sound file, or as the clip's id", given)


def _count(given: Path, what: str, names: Sequence[str]) -> None:
    """A warning with how many they are and the first of them; none where there are none."""
    if names:
        first = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        log.warning("%s: %d %s: %s", given, len(names), what, first)


def _sources(given: Path, bad: list[Bad]) -> Iterator[Source]:
    """Every alignment of a file or a folder. One of many recordings that cannot be read is bad, or, alone, an error."""
    for path in [given] if given.is_file() else walk(given, {*BY_SUFFIX, ".txt"}):
        inside = path.relative_to(given.parent if given.is_file() else given)
        if not given.is_file() and path.suffix.casefold() == ".txt" and not _names_recordings(path):
            continue
        if path.suffix.casefold() not in OF_MANY:
            if given.is_file():
                read(path)  # an error ends the run
            yield Source(path, "", _names(inside))
            continue
        try:
            recordings = read(path)
        except AlignmentError as error:
            if given.is_file():
                raise
            bad.append(Bad(str(path), str(error)))
            continue
        for recording in recordings:
            beside = (inside.parent / recording).as_posix()
            names = (beside, _composed(_stem(beside)), _composed(_stem(recording)))
            yield Source(path, recording, tuple(dict.fromkeys(names)) if recording else _names(inside))


@lru_cache(maxsize=8)
def read(path: Path) -> dict[str, Alignment]:
    """`read_alignment`, once for the clips of a file that follow each other."""
    return read_alignment(path)


def _names_recordings(path: Path) -> bool:
    """Whether a text is an alignment by its first line."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        first = next((line.rstrip("\n") for line in lines if line.strip() and not line.startswith(";;")), "")
    return any(pattern.fullmatch(first) for pattern in (LIBRISPEECH_LINE, LABEL_LINE, CTM_LINE, STM_LINE))


def _names(inside: Path) -> tuple[str, ...]:
    """The path without its suffix, then without each further part that says what the file is, not what it is about."""
    names = [_composed(inside.with_suffix("").as_posix())]
    while True:
        stem, dot, part = names[-1].rpartition(".")
        is_language = inside.suffix.casefold() in CAPTIONS and LANGUAGE.fullmatch(part)
        is_known = PART.fullmatch(part) or f".{part.casefold()}" in FORMATS or is_language
        if not dot or not _bare(stem) or not is_known:
            return tuple(names)
        names.append(stem)


def _names_of(clip: Clip, root: Path, out: Path) -> set[str]:
    """The clip's path in its corpus and its id, each with and without the suffix of a sound."""
    path = os.path.normpath(out / clip.audio)
    inside = [os.path.relpath(to(path), to(root)) for to in (os.path.abspath, os.path.realpath)]
    names = (clip.id, *(Path(name).as_posix() for name in inside))
    return {_composed(name) for whole in names for name in (whole, _stem(whole))}


def _composed(name: str) -> str:
    """The name with its accents composed: some file systems take them apart."""
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    """The name without the suffix of a sound."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.casefold()}" in FORMATS else name


def _bare(name: str) -> str:
    return name.rpartition("/")[2]


def _owned(
    sources: Sequence[Source], by_path: dict[str, list[int]], by_name: dict[str, list[int]]
) -> dict[int, list[Source]]:
    """The alignments of each clip. What may be about several clips, or has a double in another folder, is no one's."""
    at_path: dict[int, list[Source]] = defaultdict(list)
    named: dict[int, list[Source]] = defaultdict(list)
    for one in sources:
        path = next((name for name in one.names if name in by_path), None)
        name = next((bare for name in one.names if (bare := _bare(name)) in by_name), None)
        owners = set(by_path[path]) if path is not None else set(by_name[name]) if name is not None else set()
        if len(owners) == 1:
            (at_path if path is not None else named)[owners.pop()].append(one)
    for n, several in named.items():
        if n not in at_path and len({one.path.parent for one in several}) == 1:
            at_path[n] = several
    return at_path


def _chosen(sources: Sequence[Source], clip: Clip) -> tuple[Source, Alignment] | Bad | None:
    """The best of a clip's alignments: with times of words, then by format; None where several may be meant."""
    found: list[tuple[tuple[bool, int], Source, Alignment]] = []
    errors: list[Bad] = []
    for one in sources:
        try:
            alignment = _fitting(one, clip)
        except UnknownFormat:
            continue  # another kind of file: it is counted with those that are not used
        except AlignmentError as error:
            errors.append(Bad(str(one.path), str(error)))
        else:
            rank = RANK.get(one.path.suffix.casefold(), len(RANK))
            found.append(((alignment.is_guessed, rank), one, alignment))
    if not found:
        return errors[0] if errors else None
    best = min(rank for rank, *_ in found)
    equals = [(one, alignment) for rank, one, alignment in found if rank == best]
    if clip.language and len(equals) > 1:
        spoken = [(one, a) for one, a in equals if f".{clip.language}" in one.path.name.casefold()]
        equals = spoken or equals
    return equals[0] if len({alignment.words for _, alignment in equals}) == 1 else None


def _fitting(source: Source, clip: Clip) -> Alignment:
    """The alignment. Raises AlignmentError where it has words, but none at a time that the clip has."""
    alignment = read(source.path)[source.recording]
    words, _ = alignment.on(clip.duration)
    if alignment.missing and not words:
        raise AlignmentError("no word has a time that can be used", "align it again", file=str(source.path))
    if words and all(word.start >= clip.duration for word in words):
        problem = f"all words lie after the recording's end, {clip.duration:g} s"
        remedy = "give times in seconds, of this recording"
        raise AlignmentError(problem, remedy, file=str(source.path))
    return alignment


def _served(clip: Clip, alignment: Alignment) -> Clip:
    words, holes = alignment.on(clip.duration)
    fitting, flags, more = mended(words, clip.duration)
    holes = (*holes, *more)
    flags = tuple(dict.fromkeys((*clip.flags, *flags, *((WORDS_MISSING,) if holes else ()))))
    return replace(clip, words=fitting, flags=flags, holes=holes)
