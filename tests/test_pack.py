"""Clips and questions as shards that trainers stream, and back: the same records, the same sound, byte for byte."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from tgsr import cli
from tgsr.data.corpora import huggingface
from tgsr.data.corpora import webdataset as tars
from tgsr.data.corpora.folders import Given
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.pack import pack
from tgsr.data.questions.build import ask_about
from tgsr.disk.lock import held_folder
from tgsr.errors import Bad, PackError
from tgsr.records import Clip, read_clips, write_jsonl
from tgsr.timeline import Event


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    rows = []
    for seed in range(5):
        made = compose(seed, "train", seconds=(3.0, 4.0))
        soundfile.write(tmp_path / made.clip.audio, made.samples, 16_000)
        rows.append(made.clip)
    rows[0] = replace(rows[0], id="with/a slash. and dots", labels=(("emotion", "joy"),), flags=("invented",))
    rows[1] = replace(rows[1], events=(Event("dog", 0.5, 1.0),), text="one two", language="en")
    write_jsonl(tmp_path / "clips.jsonl", rows)
    return tmp_path / "clips.jsonl"


def back(folder: Path, out: Path) -> list[Clip]:
    found = list(tars.read(folder, out, Given(out)))
    assert not [one for one in found if isinstance(one, Bad)]
    return [one for one in found if isinstance(one, Clip)]


def test_what_goes_into_tars_comes_out_again(clips: Path, tmp_path: Path) -> None:
    packed = pack(clips, tmp_path / "tars", "webdataset", samples_per_shard=2)
    assert (packed.samples, packed.shards, packed.left_out) == (5, 3, 0)
    again = back(tmp_path / "tars", tmp_path / "out")
    given = read_clips(clips)
    assert [replace(clip, audio="a") for clip in again] == [replace(clip, audio="a") for clip in given]
    for before, after in zip(given, again, strict=True):
        sound = (tmp_path / "out" / after.audio).read_bytes()
        assert sound == (tmp_path / before.audio).read_bytes()


def test_the_same_rows_give_the_same_bytes_and_are_not_written_again(clips: Path, tmp_path: Path) -> None:
    pack(clips, tmp_path / "a", "webdataset", samples_per_shard=2)
    pack(clips, tmp_path / "b", "webdataset", samples_per_shard=2)
    for name in ("000000.tar", "000001.tar", "000002.tar"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert pack(clips, tmp_path / "a", "webdataset", samples_per_shard=2).found == 3
    (tmp_path / "a" / "000001.tar").unlink()
    assert pack(clips, tmp_path / "a", "webdataset", samples_per_shard=2).found == 2
    assert (tmp_path / "a" / "000001.tar").read_bytes() == (tmp_path / "b" / "000001.tar").read_bytes()


def test_questions_about_a_clip_are_one_sample(clips: Path, tmp_path: Path) -> None:
    questions = ask_about(read_clips(clips), "sta", 2, 0)
    write_jsonl(tmp_path / "questions.jsonl", questions)
    packed = pack(tmp_path / "questions.jsonl", tmp_path / "tars", "webdataset")
    assert (packed.samples, packed.rows) == (5, len(questions))
    with tarfile.open(tmp_path / "tars" / "000000.tar") as tar:
        texts = [name for name in tar.getnames() if name.endswith(".json")]
        content = tar.extractfile(texts[0])
        assert content is not None
        sample = json.loads(content.read())
    assert [question["id"] for question in sample["questions"]] == [
        question.id for question in questions if question.clip_id == sample["id"]
    ]


def test_a_row_without_its_sound_is_listed(clips: Path, tmp_path: Path) -> None:
    (tmp_path / read_clips(clips)[2].audio).unlink()
    with clips.open("a") as file:
        file.write("{broken\n")
    packed = pack(clips, tmp_path / "tars", "webdataset")
    assert (packed.samples, packed.left_out) == (4, 2)
    errors = [json.loads(line) for line in (tmp_path / "tars" / "errors.jsonl").read_text().splitlines()]
    assert {row["line"] for row in errors} == {3, 6}


def test_parquet_as_the_hub_has_it(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet: pip install -e '.[parquet]'")
    pack(clips, tmp_path / "parquet", "parquet", samples_per_shard=2)
    found = list(huggingface.read(tmp_path / "parquet", tmp_path / "out", Given(tmp_path / "out")))
    again = [one for one in found if isinstance(one, Clip)]
    given = read_clips(clips)
    assert [replace(clip, audio="a") for clip in again] == [replace(clip, audio="a") for clip in given]
    for before, after in zip(given, again, strict=True):
        assert (tmp_path / "out" / after.audio).read_bytes() == (tmp_path / before.audio).read_bytes()


def test_what_cannot_be_packed_is_refused(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="found nothing"):
        pack(tmp_path / "no.jsonl", tmp_path / "tars", "webdataset")
    with pytest.raises(PackError, match="1 or more"):
        pack(clips, tmp_path / "tars", "webdataset", samples_per_shard=0)


def test_the_commands(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pack", str(clips), "--to", "webdataset", "--out", str(tmp_path / "tars")]) == 0
    assert "5 samples" in capsys.readouterr().out
    out = tmp_path / "new" / "clips.jsonl"
    assert cli.main(["transcribe", str(tmp_path / "tars"), "--out", str(out)]) == 0
    assert [clip.words for clip in read_clips(out)] == [clip.words for clip in read_clips(clips)]


def test_a_word_without_length_is_a_hole_as_it_is_for_a_build(clips: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in clips.read_text().splitlines()]
    word = rows[2]["words"][1]
    word["end"] = word["start"]
    clips.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert pack(clips, tmp_path / "tars", "webdataset").left_out == 0
    before, after = [one["word"] for one in rows[2]["words"]], back(tmp_path / "tars", tmp_path / "out")[2]
    assert [one.text for one in after.words] == [text for n, text in enumerate(before) if n != 1]
    assert [hole.text for hole in after.holes] == [before[1]]
    assert after.holes[0].start <= word["start"] <= after.holes[0].end
    assert after.flags == ("words-missing",)


def test_of_what_could_not_be_packed_only_the_reasons_stay(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    for sound in (tmp_path / "audio").iterdir():
        sound.rename(sound.with_suffix(".gone"))
    assert cli.main(["pack", str(clips), "--to", "webdataset", "--out", str(out)]) == 2
    assert os.listdir(out) == ["errors.jsonl"]


def test_two_at_once_do_not_pack_into_one_folder(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held_folder(tmp_path / "shards"):
        assert cli.main(["pack", str(clips), "--to", "webdataset", "--out", str(tmp_path / "shards")]) == 2
    assert "shards: is being written by process" in capsys.readouterr().err
