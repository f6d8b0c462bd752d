"""Flight of the Amazon Queen in small: its file built here by its layout, with digits for voices; and its faults.

The game itself is not shipped; where it was fetched, the last test reads it.
"""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tgsr import audio
from tgsr.data.corpora import amazon_queen
from tgsr.data.corpora.amazon_queen_bundle import SOLD, Bundle, bundle
from tgsr.data.corpora.amazon_queen_package import QUEEN
from tgsr.data.corpora.amazon_queen_script import Line, script
from tgsr.data.corpora.folders import Given
from tgsr.data.corpora.which import clips_of, corpus_of
from tgsr.errors import Bad, CorpusError
from tgsr.models.packaged_weights import cache_folder
from tgsr.records import Clip

SOUND = np.sin(np.arange(4_000) / 5).astype(np.float32) / 2
PERSON, THING = -3, 7  # what an object's picture says that it is


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}h", *numbers)


def texts(at: int, step: int, *rows: bytes | str) -> bytes:
    """Texts with their lengths, each filled up so that the next begins at a multiple of `step`; bytes stay bytes."""
    content = b""
    for row in rows:
        if isinstance(row, str):
            content += bytes([len(row)]) + row.encode()
            content += b"\0" * (-(at + len(content)) % step if row else 0)
        else:
            content += row
    return content


def dialogue(joes: dict[int, str], others: dict[int, str], later: tuple[str, str]) -> bytes:
    def table(at: int, lines: dict[int, str]) -> bytes:
        rows = [row for number, text in lines.items() for row in (words(0, number), text)]
        return texts(at, 4, *rows)

    joe = table(32, joes)
    other = table(32 + len(joe), others)
    ends = (32 + len(joe), 0, 32 + len(joe) + len(other))
    head = words(0, 0, 6, len(joes), len(others), *(0,) * 6, *ends).ljust(32, b"\0")
    return bytes(20) + head + joe + other + texts(ends[2], 2, *later)


def step(who: int, *, frames: int | None = None, source: int = 0) -> bytes:
    """A step of a scene: somebody acts; with frames it is an animation."""
    numbers = [0] * 17
    numbers[0], numbers[4], numbers[5], numbers[12] = (
        who,
        int(frames is not None),
        int(frames is not None),
        source,
    )
    animation = b"" if frames is None else words(1, *(0,) * 9) * frames + words(-2)
    return words(*numbers) + words(1, -1) + animation


def scene(*steps: tuple[bytes, str]) -> bytes:
    acts = b"".join(act for act, _ in steps)
    at = 12 + len(acts) + 2
    said = texts(at, 2, "*FR", *(text for _, text in steps))
    return bytes(20) + words(0, len(steps), 0, 12 + len(acts), at, 0) + acts + words(0) + said


def rooms(*things: tuple[int, int], actors: tuple[tuple[int, int], ...]) -> bytes:
    """One room: its things by name and picture, its actors by place among its persons and name."""
    objects = b"".join(words(name, 0, 0, 0, 0, 1, 0, picture) for name, picture in things)
    head = words(1, 4, len(things), 1) + objects + words(0, 0, 0) + words(0, 0) + words(0, 0)
    commands = b"".join(words(0) + bytes(size) for size in (20, 6, 6, 6, 8))
    people = b"".join(words(1, place, name).ljust(24, b"\0") for place, name in actors)
    tables = bytes(8 * len(things)) + words(0, 0) + commands + words(1, 0)
    return bytes(20) + head + tables + words(len(actors), 1, 4, 1) + people


def flac() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, SOUND, 16_000, format="FLAC")
    return file.getvalue()


def game() -> dict[str, bytes]:
    said = ["It looks nice*03", "Trader Bob", "sign", "bird", "vacuum", "room", *["verb"] * 12]
    said += ["Do you want to RESTART (Y/N)?", *["-"] * 39, "anim", "BOB", "WEDGE-H", "X2_JOE", "TAMMY"]
    parts = {
        "BOB1.DOG": dialogue(
            {0: "Excuse me Bob.*03", 0x1E: "One*00*GDTwo*WT "},
            {0x1E: "*FRWell <gulp>, yes^_."},
            ("Howdy.", "Bye."),
        ),
        "TAM2.DOG": dialogue({0: "0", 0x1E: "Hey!"}, {}, ("", "")),
        "C1A.CUT": scene(
            (step(0), "Look!"),
            (step(2, frames=3), "*"),
            (step(1), "I*05see."),
            (step(-1), "Ha!"),
            (step(-2), "Who am I?"),
            (step(2, source=1), "*"),
            (step(2), "Polly *XY00(237,112)wants."),
            (step(3), "Squawk."),
        ),
        "QUEEN.JAS": rooms((1, PERSON), (2, THING), (3, PERSON), actors=((1, 1), (2, 2), (2, 4))),
        "QUEEN2.JAS": "\r\n".join(said).encode(),
    }
    names = ("06SSSSJ1", "06001EJ1", "06001EJ3", "06001EP2", "06XXXXP1", "06XXXXJ1", "1000SSSS")
    names += ("C1A__011", "C1A__031", "C1A__032", "C1A__041", "C1A__051", "C1A__081", "JOE00011", "JOE00411")
    return parts | dict.fromkeys((f"{name}.SB" for name in names), flac())


def packed(parts: dict[str, bytes], start: int) -> tuple[bytes, bytes]:
    """The table of the parts, and what it lists from that byte on."""
    rows, content = b"", b""
    for name, part in parts.items():
        rows += struct.pack(">12sBII", name.encode(), 1, start + len(content), len(part))
        content += part
    return struct.pack(">H", len(parts)) + rows, content


def queen_1c(parts: dict[str, bytes], version: bytes = b"CEM10") -> bytes:
    table, content = packed(parts, 13 + 2 + 21 * len(parts))
    return b"QTBL" + version + b"\0\0\0\1" + table + content


def package(content: bytes) -> bytes:
    """A Debian package with the game's file in it."""

    def tar(**files: bytes) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:xz") as archive:
            for name, inside in files.items():
                member = tarfile.TarInfo(f"./usr/share/{name.replace('_', '.')}")
                member.size = len(inside)
                archive.addfile(member, io.BytesIO(inside))
        return file.getvalue()

    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar(control=b"x"),
        "data.tar.xz": tar(queen_1c=content),
    }
    archive = b"!<arch>\n"
    for name, inside in members.items():
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(inside):<10}`\n".encode()
        archive += inside + b"\n" * (len(inside) % 2)
    return archive


SCRIPT = {
    "06SSSSJ1": Line("Excuse me Bob.", "JOE", "BOB1.DOG"),
    "06001EJ1": Line("One", "JOE", "BOB1.DOG"),
    "06001EJ3": Line("Two", "JOE", "BOB1.DOG"),
    "06001EP2": Line("Well, yes.", "BOB", "BOB1.DOG"),
    "06XXXXP1": Line("Howdy.", "BOB", "BOB1.DOG"),
    "06XXXXJ1": Line("Bye.", "JOE", "BOB1.DOG"),
    "C1A__011": Line("Look!", "JOE", "C1A.CUT"),
    "C1A__031": Line("I", "BOB", "C1A.CUT"),
    "C1A__032": Line("see.", "BOB", "C1A.CUT"),
    "C1A__041": Line("Ha!", "JOE", "C1A.CUT"),
    "C1A__051": Line("Who am I?", None, "C1A.CUT"),
    "C1A__081": Line("Squawk.", None, "C1A.CUT"),
    "JOE00011": Line("Do you want to RESTART (Y/N)?", "JOE", "QUEEN2.JAS"),
    "JOE00411": Line("It looks nice", "JOE", "QUEEN2.JAS"),
}


def test_each_sound_files_line_and_who_says_it() -> None:
    assert script(Bundle(Path("queen.1c"), queen_1c(game()))) == SCRIPT


@pytest.mark.parametrize(
    "form", ["queen.1c", "usr/share/scummvm/flight/queen.1c", "share/queen.1c", QUEEN.file, "queen.1"]
)
def test_the_bundle_the_package_and_the_version_that_was_sold_are_one_corpus(
    form: str, tmp_path: Path
) -> None:
    parts = game()
    file = tmp_path / "in" / form
    file.parent.mkdir(parents=True)
    if form == "queen.1":
        raw = (
            b"\0\0"
            + struct.pack("<H", 104)
            + bytes(106)
            + (SOUND[::2] * 128 + 128).astype(np.uint8).tobytes()
        )
        table, content = packed({n: raw if n.endswith(".SB") else part for n, part in parts.items()}, 0)
        (file.parent / "QUEEN.TBL").write_bytes(b"QTBL".ljust(SOLD, b"\0") + table)
        file.write_bytes(content)
    else:
        file.write_bytes(package(queen_1c(parts)) if form.endswith(".deb") else queen_1c(parts))
    assert corpus_of(file) == "amazon-queen"
    assert (corpus_of(tmp_path / "in") == "amazon-queen") == (not form.startswith("share"))
    both = list(clips_of(tmp_path / "in", "amazon-queen", tmp_path / "out"))
    clips, bad = ([one for one in both if isinstance(one, kind)] for kind in (Clip, Bad))
    told = {name: line for name, line in SCRIPT.items() if line.speaker}
    assert {clip.id: (clip.text, clip.speaker) for clip in clips} == {
        name: (line.text, line.speaker) for name, line in told.items()
    }
    assert [(Path(one.file).name, one.field) for one in bad] == [
        ("1000SSSS.SB", "text"), ("C1A__051.SB", "speaker"), ("C1A__081.SB", "speaker")
    ]  # fmt: skip
    seconds = 2_000 / 11_025 if form == "queen.1" else 0.25
    heard = audio.load(tmp_path / "out" / clips[0].audio)
    assert clips[0].duration == len(heard) / 16_000 == pytest.approx(seconds, abs=1e-4)
    assert np.abs(heard).max() == pytest.approx(0.5, abs=0.05)
    (bobs, *_) = (clip for clip in clips if clip.speaker == "BOB")
    assert (bobs.labels, bobs.language) == ((("scene", "BOB1"), ("actor", "Jon Coleman")), "en")


def test_a_sound_that_is_damaged_is_told_and_the_others_read(tmp_path: Path) -> None:
    (tmp_path / "queen.1c").write_bytes(queen_1c(game() | {"C1A__011.SB": b"no sound at all" * 20}))
    both = list(amazon_queen.read(tmp_path, Given(tmp_path)))
    assert sum(isinstance(one, Clip) for one in both) == 11
    (told,) = (one for one in both if isinstance(one, Bad) and one.field == "audio")
    assert told.file.endswith("C1A__011.SB")
    assert told.error.startswith("C1A__011.SB: ")


def test_sound_that_is_there_already_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "queen.1c").write_bytes(queen_1c(game()))
    times = []
    for _ in range(2):
        clips = [clip for clip in amazon_queen.read(tmp_path, Given(tmp_path)) if isinstance(clip, Clip)]
        times.append([(tmp_path / clip.audio).stat().st_mtime_ns for clip in clips])
    assert times[0] == times[1]


def test_a_file_that_is_cut_off_anywhere_is_told_and_the_byte(tmp_path: Path) -> None:
    whole, archive = queen_1c(game()), package(queen_1c(game()))
    for length in range(0, len(whole), 97):
        with pytest.raises(CorpusError, match=r"queen\.1c"):
            Bundle(tmp_path / "queen.1c", whole[:length])
    for length in range(0, len(archive) - 1, 97):
        (tmp_path / QUEEN.file).write_bytes(archive[:length])
        with pytest.raises(CorpusError, match="amazon-queen"):
            bundle(tmp_path)


def test_a_file_that_was_altered_is_told_or_read_never_more() -> None:
    parts = game()
    told = set()
    for name in ("BOB1.DOG", "C1A.CUT", "QUEEN.JAS", "QUEEN2.JAS"):
        for at in range(20, len(parts[name]), 3):
            for byte in (0x00, 0x7F, 0xFF):
                altered = parts[name][:at] + bytes([byte]) + parts[name][at + 1 :]
                try:
                    script(Bundle(Path("queen.1c"), queen_1c(parts | {name: altered})))
                except CorpusError as error:
                    told.add(Path(error.path.partition(",")[0]).name)
    assert told >= {"BOB1.DOG", "C1A.CUT", "QUEEN.JAS", "QUEEN2.JAS"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("queen.1c", queen_1c(game(), b"PEM10"), "the version 'PEM10'"),
        ("queen.1c", queen_1c(game(), b"CGM10"), "the version 'CGM10'"),
        ("queen.1c", b"RIFF" + bytes(40), "begins with b'RIFF'"),
        ("queen.1", bytes(40), "queen.tbl beside it"),
        (QUEEN.file, b"<html>", "begins with b'<html>'"),
        (QUEEN.file, package(b"")[:8] + b"x" * 200, "no header of a member at byte 8"),
        ("readme.txt", b"", "found neither"),
    ],
)
def test_another_version_and_another_file_are_told(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=says):
        list(amazon_queen.read(tmp_path))


def test_the_game_itself() -> None:
    file = cache_folder() / "amazon-queen" / QUEEN.file
    if not file.is_file():
        pytest.skip(f"{file} is not there: `tgsr fetch amazon-queen` downloads it, once")
    lines = script(bundle(file))
    assert len(lines) == 6_587
    assert sum(line.speaker is None for line in lines.values()) == 124
    characters = {line.speaker for line in lines.values()} - {None}
    assert {name for name in characters if not amazon_queen.actor_of(name)} == {"LARIS", "SKULL"}
    assert {name for names in amazon_queen.CAST.values() for name in names.split()} < characters
    assert amazon_queen.actor_of("LOLA") == "Debbie Arnold or Regina Reagan"
    assert lines["680007P3"] == Line('We\'re going to the "Three Toed Sloth" restaurant.', "BOB", "BOB4.DOG")
    assert lines["C13B_021"] == Line("I wouldn't get too close to him.", "TAM", "C13B.CUT")
