"""WebDataset shards as others write them, whole and damaged, and those that would write where they must not."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import soundfile

from tgsr.data.corpora import webdataset as tars
from tgsr.data.corpora.folders import Given
from tgsr.data.corpora.spoken_digits import compose
from tgsr.errors import Bad, CorpusError
from tgsr.records import Clip, as_row
from tgsr.timeline import Hole

SPOKEN = compose(0, "train", seconds=(2.0, 3.0))


def encoded(format_: str = "FLAC") -> bytes:
    content = io.BytesIO()
    soundfile.write(content, SPOKEN.samples, 16_000, format=format_)
    return content.getvalue()


SOUND = encoded()


def member(name: str, type_: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = type_
    info.linkname = "/etc/passwd" if type_ in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info


def tar(path: Path, *members: tuple[str | tarfile.TarInfo, bytes | str | dict], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name, content in members:
            info = member(name) if isinstance(name, str) else name
            content = json.dumps(content) if isinstance(content, dict) else content
            content = content.encode() if isinstance(content, str) else content
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def parted(read: Iterable[Clip | Bad]) -> tuple[list[Clip], list[Bad]]:
    both = list(read)
    return [r for r in both if isinstance(r, Clip)], [r for r in both if isinstance(r, Bad)]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_samples_of_others_with_what_they_say(tmp_path: Path) -> None:
    said = {"transcript": "one two", "speaker": "ann", "language": "en", "emotion": "joy", "__index": 7}
    path = tar(
        tmp_path / "in" / "a.tar",
        (member("./sub", tarfile.DIRTYPE), b""),
        ("./sub/1.flac", SOUND),
        ("./sub/1.json", said),
        ("./sub/1.npy", b"passed over"),
        ("2.txt", "three\n"),
        ("2.cls", "5"),
        ("2.wav", encoded("WAV")),
        ("._3.wav", b"as macOS adds"),
        ("README", b"no dot"),
        ("3.MP3", encoded("MP3")),
        ("4.json", {"id": "vier", "split": "dev", "text": ""}),
        ("4.left.ogg", encoded("OGG")),
    )
    clips, bad = parted(tars.read(path, tmp_path / "out", Given(tmp_path / "out", source="S")))
    assert bad == []
    assert [(clip.id, clip.audio) for clip in clips] == [
        ("sub/1", "audio/sub%2F1.flac"),
        ("2", "audio/2.wav"),
        ("3", "audio/3.mp3"),
        ("vier", "audio/4.ogg"),
    ]
    first, second, third, fourth = clips
    assert (first.text, first.speaker, first.language, first.source) == ("one two", "ann", "en", "S")
    assert first.labels == (("emotion", "joy"),)
    assert (second.text, second.labels) == ("three", (("cls", "5"),))
    assert (third.text, third.flags, third.split) == (None, (), "train")
    assert (fourth.text, fourth.flags, fourth.split) == (None, ("empty-text",), "dev")
    assert first.duration == SPOKEN.clip.duration
    assert (tmp_path / "out" / first.audio).read_bytes() == SOUND


def test_our_clips_keep_all_their_fields(tmp_path: Path) -> None:
    row = dict(as_row(SPOKEN.clip)) | {"labels": {"emotion": "joy"}, "flags": ["no-text"]}
    row["events"] = [{"label": "click", "start": 0.5, "end": 0.75}]
    row["holes"] = [{"start": 0.5, "end": 0.5, "text": "not", "speaker": "ann"}, {"start": 0.5, "end": 0.75}]
    path = tar(tmp_path / "a.tar", ("k.json", row), ("k.flac", SOUND))
    (clip,) = tars.read(path, tmp_path / "out", Given(tmp_path / "out"))
    assert isinstance(clip, Clip)
    assert dict(as_row(clip)) == row | {"audio": "audio/k.flac"}


def test_a_clips_words_without_times_leave_holes(tmp_path: Path) -> None:
    row = dict(as_row(SPOKEN.clip))
    row["words"] = [
        {"word": "did", "start": 0.1, "end": 0.2},
        {"word": "not"},
        {"word": "say", "start": 0.2, "end": 0.3},
    ]
    path = tar(tmp_path / "a.tar", ("k.json", row), ("k.flac", SOUND))
    (clip,) = tars.read(path, tmp_path / "out", Given(tmp_path / "out"))
    assert isinstance(clip, Clip)
    assert ([word.text for word in clip.words], clip.holes) == (["did", "say"], (Hole(0.2, 0.2, "not"),))


def test_a_record_and_a_sound_of_other_lengths(tmp_path: Path) -> None:
    row = dict(as_row(SPOKEN.clip)) | {"duration": 60.0}
    (bad,) = tars.read(tar(tmp_path / "a.tar", ("k.json", row), ("k.flac", SOUND)), tmp_path / "out")
    assert isinstance(bad, Bad)
    assert (bad.field, files(tmp_path / "out")) == ("duration", [])


@pytest.mark.parametrize(
    ("members", "field", "said"),
    [
        ([("k.json", {})], "audio", "no sound file"),
        ([("k.flac", SOUND), ("k.wav", SOUND)], "audio", "2 sound files (k.flac, k.wav)"),
        ([("k.left.flac", SOUND), ("k.right.flac", SOUND)], "audio", "2 sound files"),
        ([("k.json", "{"), ("k.flac", SOUND)], ".json", "is not JSON"),
        ([("k.json", "[1]"), ("k.flac", SOUND)], ".json", "must be a JSON object"),
        ([("k.json", "[" * 100_000), ("k.flac", SOUND)], ".json", "is not JSON"),
        ([("k.json", {}), ("k.b.json", {}), ("k.flac", SOUND)], None, "two .json files"),
        ([("k.txt", b"\xff"), ("k.flac", SOUND)], ".txt", "not UTF-8"),
        ([("k.flac", b"no sound")], "audio", "k.flac: "),
        ([("k.flac", b"")], "audio", "k.flac: "),
        ([("k.json", {"id": "k", "duration": 2.0, "words": [1]}), ("k.flac", SOUND)], "words", "an object"),
        ([("k.json", '{"id": "\\ud800"}'), ("k.flac", SOUND)], "id", "UTF-8"),
        ([("k.json", {"id": "ok"}), ("k.flac", SOUND)], "id", "'ok' was already at a.tar:1"),
        ([("k" * 201 + ".flac", SOUND)], None, "too long"),
        ([("../k.flac", SOUND)], None, "leads out of the folder"),
        ([("../k.flac", SOUND), ("../k.json", {})], None, "leads out of the folder"),
        ([("a/../../../k.flac", SOUND)], None, "leads out of the folder"),
        ([("/tmp/k.flac", SOUND)], None, "leads out of the folder"),
        ([(member("k.flac", tarfile.SYMTYPE), b"")], None, "is a link"),
        ([(member("k.flac", tarfile.LNKTYPE), b"")], None, "is a link"),
        ([(member("k", tarfile.SYMTYPE), b"")], None, "is a link"),
        ([(member("k.flac", tarfile.CHRTYPE), b"")], None, "is a device"),
        ([(member("k.flac", tarfile.FIFOTYPE), b"")], None, "is a device"),
        ([("k.flac", SOUND), (member("k.json", tarfile.SYMTYPE), b"")], None, "is a link"),
    ],
)
def test_a_bad_sample_costs_itself_alone_and_writes_nothing(
    tmp_path: Path, members: list, field: str | None, said: str
) -> None:
    path = tar(tmp_path / "in" / "a.tar", ("ok.flac", SOUND), *members, ("last.flac", SOUND))
    clips, bad = parted(tars.read(path, tmp_path / "out"))
    assert [clip.id for clip in clips] == ["ok", "last"]
    assert [(b.file, b.line, b.field) for b in bad] == [(str(path), 2, field)]
    assert said in bad[0].error
    assert files(tmp_path) == ["in/a.tar", "out/audio/last.flac", "out/audio/ok.flac"]


def test_names_that_another_system_would_take_for_folders_stay_names(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("..\\x.flac", SOUND), ("c:\\y.flac", SOUND), ("z\n.flac", SOUND))
    clips, bad = parted(tars.read(path, tmp_path / "out"))
    assert (len(clips), bad) == (2, [])  # the first begins with a dot, as hidden ones do
    assert files(tmp_path / "out") == ["audio/c%3A%5Cy.flac", "audio/z%0A.flac"]


def test_a_link_that_lies_where_sound_is_written_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out" / "audio").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere.flac"
    elsewhere.write_bytes(b"precious")
    (tmp_path / "out" / "audio" / "k.flac").symlink_to(elsewhere)
    assert len(list(tars.read(tar(tmp_path / "a.tar", ("k.flac", SOUND)), tmp_path / "out"))) == 1
    assert elsewhere.read_bytes() == b"precious"
    assert (tmp_path / "out" / "audio" / "k.flac").read_bytes() == SOUND


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_is_cut_anywhere_gives_what_is_whole(tmp_path: Path, mode: str) -> None:
    names = [f"{n}.flac" for n in range(3)]
    whole = tar(tmp_path / "whole.tar", *((name, SOUND) for name in names), mode=mode).read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    tar(folder / "b.tar", ("last.flac", SOUND))
    # Of a compressed tar the last bytes are its end alone: all samples are whole before them.
    content = len(whole) - 1024 if mode == "w:gz" else 3 * (512 + -(-len(SOUND) // 512) * 512)
    numbers = set()
    for cut in [0, 1, 511, 512, *range(1000, content, content // 12), content // 3, content - 1]:
        (folder / "a.tar").write_bytes(whole[:cut])
        clips, bad = parted(tars.read(folder, tmp_path / "out"))
        assert [clip.id for clip in clips] == [*(f"{n}" for n in range(len(clips) - 1)), "last"]
        assert len(bad) == 1, cut
        assert "cannot be read further" in bad[0].error
        numbers.add(len(clips) - 1)
    assert numbers >= {0, 1, 2}
    assert [path for path in files(tmp_path / "out") if "half" in path] == []


def test_a_broken_header_between_members_is_no_end(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *((f"{n}.flac", SOUND) for n in range(3)))
    content = bytearray(path.read_bytes())
    at = 2 * (512 + -(-len(SOUND) // 512) * 512)
    content[at + 5] ^= 0xFF
    path.write_bytes(content)
    clips, bad = parted(tars.read(path, tmp_path / "out"))
    assert [clip.id for clip in clips] == ["0"]  # more of "1" may have followed
    assert "in the sample '1'" in bad[0].error


def test_a_folder_of_tars_with_compressed_ones_in_order_of_path(tmp_path: Path) -> None:
    tar(tmp_path / "in" / "b.tar.gz", ("2.flac", SOUND), mode="w:gz")
    tar(tmp_path / "in" / "a" / "c.tar", ("1.flac", SOUND))
    tar(tmp_path / "in" / "d.tar")
    (tmp_path / "in" / "e.tar").write_bytes(b"no tar at all")
    clips, bad = parted(tars.read(tmp_path / "in", tmp_path / "out"))
    assert [clip.id for clip in clips] == ["1", "2"]
    assert [Path(b.file).name for b in bad] == ["e.tar"]


def test_where_there_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"")
    for path in (tmp_path, tmp_path / "a.zip", tmp_path / "nowhere.tar"):
        with pytest.raises(CorpusError, match=r"expected \.tar, "):
            next(tars.read(path, tmp_path / "out"))


def test_reading_again_keeps_the_same_files_and_replaces_others(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", ("1.flac", SOUND), ("2.flac", SOUND))
    first = list(tars.read(path, tmp_path / "out"))
    same, other = tmp_path / "out" / "audio" / "1.flac", tmp_path / "out" / "audio" / "2.flac"
    was = same.stat().st_ino
    other.write_bytes(SOUND[:100])
    assert list(tars.read(path, tmp_path / "out")) == first
    assert (same.stat().st_ino, other.read_bytes()) == (was, SOUND)


def test_stopping_early_leaves_nothing_half_written(tmp_path: Path) -> None:
    reading = tars.read(tar(tmp_path / "a.tar", ("1.flac", SOUND), ("2.flac", SOUND)), tmp_path / "out")
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert [path.name for path in (tmp_path / "out" / "audio").iterdir()] == ["1.flac"]
