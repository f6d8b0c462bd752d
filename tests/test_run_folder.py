"""What a run rests on is what it began with: files, sounds, settings; a death at any moment is gone on from."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tgsr.disk.run_folder import RunFolder, open_run
from tgsr.errors import RunError


@dataclass(frozen=True)
class Settings:
    rate: float = 1.0


def described(folder: RunFolder) -> dict[str, Any]:
    return dict(json.loads(folder.described.read_text()))


@pytest.mark.parametrize(
    "left", ["run.json.tmp", ".half-00112233445566aa.json", ".half-12345678-99-001122334455.json"]
)
def test_a_death_before_run_json_was_whole_is_gone_on_from(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text('{"sta')
    folder = open_run(tmp_path, "sta", Settings())
    assert described(folder)["stage"] == "sta"
    assert not (tmp_path / "run.json.tmp").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"a": "\xc3"}',
        b'{"config": 1}',
        b'{"data": [1]}',
        b'{"went_on_with": 5}',
    ],
)
def test_a_damaged_run_json_is_named_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json: .*copy it back"):
        open_run(tmp_path, "sta", Settings())


def test_each_file_of_the_data_is_hashed_and_the_changed_one_is_named(tmp_path: Path) -> None:
    data = [str(tmp_path / "questions.jsonl"), str(tmp_path / "clips.jsonl")]
    for name in data:
        Path(name).write_text("1")
    open_run(tmp_path / "run", "grpo", Settings(), data)
    open_run(tmp_path / "run", "grpo", Settings(), data)
    Path(data[1]).write_text("2")
    with pytest.raises(
        RunError, match=r"other arguments \(data\); changed since it began: [^,]*clips\.jsonl;"
    ):
        open_run(tmp_path / "run", "grpo", Settings(), data)


def test_a_run_of_before_goes_on_and_knows_from_then_on(tmp_path: Path) -> None:
    data = [str(tmp_path / "questions.jsonl"), str(tmp_path / "clips.jsonl")]
    for name in data:
        Path(name).write_text("1")
    folder = open_run(tmp_path / "run", "grpo", Settings(), data[0])  # as it was: the questions alone
    open_run(tmp_path / "run", "grpo", Settings(), data)
    assert set(described(folder)["data"]) == set(data)
    Path(data[1]).write_text("2")
    with pytest.raises(RunError, match=r"clips\.jsonl"):
        open_run(tmp_path / "run", "grpo", Settings(), data)


def test_other_versions_are_said_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = open_run(tmp_path, "sta", Settings())
    now = described(folder)["versions"]
    assert len(now["tgsr's code"]) == 12
    folder.write(described(folder) | {"versions": now | {"torch": "1.0"}})
    open_run(tmp_path, "sta", Settings())
    said = capsys.readouterr().err
    assert f"goes on with tgsr {now['tgsr']}, torch {now['torch']}" in said
    assert "torch 1.0" in said
    open_run(tmp_path, "sta", Settings())
    assert capsys.readouterr().err == ""
    assert described(folder)["versions"]["torch"] == "1.0"
    assert described(folder)["went_on_with"] == [now]


def files_in(folder: Path) -> dict[str, Path]:
    return {f"m/{path.name}": path for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("change", ["same size", "added", "gone"])
def test_a_model_that_changed_in_place_is_refused_by_its_file(tmp_path: Path, change: str) -> None:
    model, folder = tmp_path / "model", open_run(tmp_path / "run", "sta", Settings())
    model.mkdir()
    for name in ("a.safetensors", "b.json"):
        (model / name).write_text("old")
    folder.rest_on("model", files_in(model))
    folder.rest_on("model", files_in(model))
    if change == "same size":
        seen = (model / "a.safetensors").stat()
        (model / "a.safetensors").write_text("new")
        os.utime(model / "a.safetensors", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    elif change == "gone":
        (model / "a.safetensors").unlink()
    else:
        (model / "c.safetensors").write_text("more")
    name = "c" if change == "added" else "a"
    with pytest.raises(
        RunError, match=rf"its model changed since it began: m/{name}\.safetensors; bring back"
    ):
        folder.rest_on("model", files_in(model))


def test_a_copy_with_other_times_is_the_same_and_is_read_once(tmp_path: Path) -> None:
    model, folder = tmp_path / "model", open_run(tmp_path / "run", "sta", Settings())
    model.mkdir()
    (model / "a.safetensors").write_text("old")
    folder.rest_on("model", files_in(model))
    before = described(folder)["model"]
    copy = Path(shutil.copytree(model, tmp_path / "copy", copy_function=shutil.copyfile))
    os.utime(copy / "a.safetensors", (0, 0))
    folder.rest_on("model", files_in(copy))
    after = described(folder)["model"]
    assert after["m/a.safetensors"]["modified_ns"] == 0
    assert after["m/a.safetensors"]["sha256"] == before["m/a.safetensors"]["sha256"]
    # not read again: a hash that is known under these times is taken for it
    folder.write(
        described(folder) | {"model": {"m/a.safetensors": after["m/a.safetensors"] | {"sha256": "known"}}}
    )
    folder.rest_on("model", files_in(copy))


def test_a_clip_that_sounds_otherwise_is_named(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "sta", Settings())
    folder.rest_on_sounds({"a.wav": "1", "b.wav": "2"})
    folder.rest_on_sounds({"b.wav": "2"})  # what is missing now is told elsewhere
    folder.rest_on_sounds({"a.wav": "1", "b.wav": "2", "c.wav": "3"})
    assert described(folder)["sounds"]["n"] == 3
    with pytest.raises(RunError, match=r"its sound changed since it began: b\.wav, c\.wav; bring back"):
        folder.rest_on_sounds({"a.wav": "1", "b.wav": "3", "c.wav": "4"})


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_without_the_list_of_sounds_all_must_be_there(tmp_path: Path, damage: str) -> None:
    folder, sounds = open_run(tmp_path, "sta", Settings()), {"a.wav": "1", "b.wav": "2"}
    for _ in range(2):
        folder.rest_on_sounds(sounds)
        if damage == "gone":
            folder.sounds.unlink()
        else:
            folder.sounds.write_text(folder.sounds.read_text().replace("1", "3"))
    with pytest.raises(RunError, match=r"sounds\.jsonl: is gone or was altered"):
        folder.rest_on_sounds({"a.wav": "1", "b.wav": "3"})


def test_names_beyond_the_third_are_counted(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "sta", Settings())
    folder.rest_on_sounds({str(i): "old" for i in range(9)})
    with pytest.raises(RunError, match="began: 0, 1, 2 and 6 more; "):
        folder.rest_on_sounds({str(i): "new" for i in range(9)})
