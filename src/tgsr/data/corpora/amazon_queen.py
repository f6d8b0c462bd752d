"""Flight of the Amazon Queen, talkie version: acted English dialogue, with the game's script and characters."""

from __future__ import annotations

import math
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tgsr import audio
from tgsr.data.corpora.amazon_queen_bundle import bundle
from tgsr.data.corpora.amazon_queen_script import SOUND, Line, script
from tgsr.data.corpora.folders import NOTHING, Given, described, written
from tgsr.disk.rows import Entry
from tgsr.disk.whole import write_whole
from tgsr.errors import AudioError, Bad, RecordError
from tgsr.records import Clip

SOURCE = "Flight of the Amazon Queen"
LICENCE = "freeware (Flight-of-the-Amazon-Queen-License)"
# Who speaks whom, by the game's credits (CREDIT2.CRD); some are said to be spoken by two.
CAST = {
    "Brad Lavelle": "JOE",
    "Tom Hill": "APE DOG EDDY JIM LOU MAN RICO SPARKY WEDGE",
    "Bill Hootkins": "BUD CHEF FRANK JOHN MAN MIKE",
    "Enn Reitel": "AND DEATH HENRY KLUNK RICO",
    "Penelope Keith": "ORACLE",
    "Jon Coleman": "BOB",
    "Debbie Arnold": "AMGUARD LOLA PRIN SHOWERAM",
    "Barry James": "CHIEF IAN",
    "Lisa Valdez": "FAYE RITA",
    "Jessica Martin": "NAOMI SEC ZOMBIE",
    "Regina Reagan": "LOLA TAM WITCH",
    "Mike Hurley": "HUGH KLUNK",
}
# Of the sound as it was sold: 8 bits a sample after a header, whose length its version tells.
SOLD_HZ = 11_025
SOLD_HEADERS = {104: 110, 110: 122}


def read(path: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """A clip for every sound file whose line and speaker the game's script tells, in order of name.

    `path` is Debian's package, a folder that holds it, or one that has queen.1c or queen.1 with ScummVM's queen.tbl.
    The speaker is the character, and where it is said (a dialogue's name, a scene's) the label "scene"; the label
    "actor" is whose voice that is, one of several characters ("A or B" where the credits name two). Sound goes to
    audio/ in `given.relative_to`, as FLAC. Bad: sound without a line (noises of the game), and lines of which the game
    does not tell who says them, as any character's voice might be among them. A line that is only a sound ("<gulp>") is
    flagged "empty-text".

    Raises CorpusError, with the byte, where the file is another one, cut off or altered.
    """
    game = bundle(path)
    lines = script(game)
    known = replace(given, source=SOURCE, licence=given.licence or LICENCE, language="en")
    with tempfile.TemporaryDirectory() as scratch:
        for name in game.of_kind(SOUND):
            stem = name.removesuffix(SOUND)
            entry = Entry(game.path / name)
            try:
                line = lines.get(stem)
                if line is None:
                    raise RecordError("text", "no line of the script: a noise of the game")
                if line.speaker is None:
                    raise RecordError("speaker", f"the game does not tell who says {line.text!r}")
                content = game[name].content if game.is_compressed else _as_wav(game[name].content)
                yield _clip(stem, line, content, Path(scratch) / "sound", known)
            except (AudioError, RecordError) as error:
                yield entry.bad(error)


def _clip(stem: str, line: Line, content: bytes, part: Path, given: Given) -> Clip:
    write_whole(part, content)
    try:
        samples = audio.load(part, max_seconds=math.inf)
    except AudioError as error:
        raise AudioError(f"{stem}{SOUND}", error.found, error.remedy) from None
    values = {"text": line.text or None, "speaker": line.speaker, "scene": line.part.partition(".")[0]}
    values["actor"] = actor_of(line.speaker) or None
    file, seconds = written(samples, stem, given), len(samples) / audio.SAMPLE_RATE
    return described(Entry(part, None, values), stem, file, seconds, (), given)


def actor_of(character: str | None) -> str:
    """Whose voice a character has; "A or B" where the credits name two, "" where they name nobody."""
    return " or ".join(actor for actor, characters in CAST.items() if character in characters.split())


def _as_wav(content: bytes) -> bytes:
    """Sound as it was sold, which is that of 8-bit wav files, with such a header."""
    (version,) = struct.unpack_from("<H", content.ljust(4, b"\0"), 2)
    samples = content[SOLD_HEADERS.get(version, SOLD_HEADERS[104]) :]
    size = len(samples)
    # of 16 bytes: PCM, one channel, rate, bytes a second, block, bits
    form = (16, 1, 1, SOLD_HZ, SOLD_HZ, 1, 8)
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", *form, b"data", size)
    return header + samples
