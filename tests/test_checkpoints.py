"""What a run goes on from: a damaged checkpoint is refused, a damaged log is noticed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tgsr.disk.run_folder import RunFolder
from tgsr.errors import RunError
from tgsr.training.checkpoints import Best, kept_checkpoints, load_checkpoint, remove_old, save_checkpoint

STATE = {"weights": {"w": torch.arange(300.0), "b": torch.ones(3)}, "items": "ab", "optimizer": {"lr": [0.1]}}


def folder_of(path: Path, n_steps: int = 4) -> RunFolder:
    """A run of so many steps, the last of them saved."""
    folder = RunFolder(path)
    for step in range(1, n_steps + 1):
        folder.log({"step": step, "loss": 1 / step})
    save_checkpoint(folder, n_steps, STATE)
    return folder


def is_state(state: dict[str, object] | None) -> bool:
    assert state is not None
    weights = state.pop("weights")
    assert isinstance(weights, dict)
    same = all(torch.equal(weights[name], weight) for name, weight in STATE["weights"].items())  # type: ignore[attr-defined]
    return same and state == {"step": 4, "items": "ab", "optimizer": {"lr": [0.1]}}


@pytest.mark.parametrize("part", ["anywhere", "its head and its table of contents"])
def test_no_bit_of_a_checkpoint_changes_unnoticed(tmp_path: Path, part: str) -> None:
    folder = folder_of(tmp_path)
    content, rng = folder.checkpoint(4).read_bytes(), np.random.default_rng(0)
    places = rng.integers(len(content), size=250)
    if part != "anywhere":
        ends = [*range(600), *range(len(content) - 1200, len(content))]
        places = rng.choice(ends, 250, replace=False)
    reasons = []
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        folder.checkpoint(4).write_bytes(damaged)
        try:
            assert is_state(load_checkpoint(folder))  # the bit meant nothing: padding, a date
        except RunError as error:
            reasons.append(str(error))
    assert len(reasons) > 50
    assert all("not a whole checkpoint" in reason and "copy it back" in reason for reason in reasons)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 50])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoint(4).write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoint-4\.pt: not a whole checkpoint .*delete it to start over"):
        load_checkpoint(folder)


@pytest.mark.parametrize("state", [{"weights": {}}, {"step": None}, ["a"]])
def test_a_file_of_torch_that_is_no_checkpoint_is_named(tmp_path: Path, state: object) -> None:
    torch.save(state, RunFolder(tmp_path).checkpoint(7))
    with pytest.raises(RunError, match="not a whole checkpoint"):
        load_checkpoint(RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (None, r"the rows of 4 steps \(1, 2, 3 \.\.\.\) are lost"),
        ('{"step": 1}\n{"step": 2}\n{"st', r"the rows of 2 steps \(3, 4\) are lost"),
        ('{"step": 1}\n{"step": 2}\n{"step": 2}\n{"step": 4}\n', r"1 steps \(3\) are lost"),
        ('{"step": 1}\n{"step": 2}\n{"step": 2}\n{"step": 4}\n', r"1 steps \(2\) are there several times"),
    ],
)
def test_rows_of_the_log_that_were_lost_or_doubled_are_said(
    tmp_path: Path, rows: str | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path)
    folder.metrics.unlink()
    if rows is not None:
        folder.metrics.write_text(rows)
    assert is_state(load_checkpoint(folder))
    said = capsys.readouterr().err
    assert "metrics.jsonl: the rows of" in said
    assert re.search(says, said)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (b'{"loss": 1.0}', r'"step" must be a number of steps, got None'),
        (b'{"step": "2"}', r'"step" must be a number of steps, got \'2\''),
        (b'{"step": true}', r'"step" must be'),
        (b'{"step": 2, "loss": \xff}', "byte 0xff at 20 is not UTF-8"),
        (b'{"step": 2, "loss"', "is not JSON"),
        (b'{"step": 2, "loss": NaN}', "NaN is not a number"),
        (b"\x00\x00\x00", "is not JSON"),
        (b"[2]", "must be a JSON object"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, row: bytes, says: str) -> None:
    folder = folder_of(tmp_path)
    rows = folder.metrics.read_bytes().splitlines()
    folder.metrics.write_bytes(b"\n".join([rows[0], row, *rows[2:]]) + b"\n")
    with pytest.raises(RunError, match=rf"metrics\.jsonl:2: .*{says}.*take the line out"):
        load_checkpoint(folder)


def test_rows_after_the_checkpoint_are_dropped_and_said_nothing_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path)
    before = folder.metrics.read_bytes()
    folder.log({"step": 5, "loss": 0.0})
    assert is_state(load_checkpoint(folder))
    assert folder.metrics.read_bytes() == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("knows_of_it", "n_looks"), [(True, 1), (False, 0)])
def test_a_late_look_is_no_doubled_row_and_is_made_again_where_a_death_came_before_its_checkpoint(
    tmp_path: Path, knows_of_it: bool, n_looks: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2):
        folder.log({"step": step, "loss": 1.0, "seconds": {}})
    save_checkpoint(folder, 2, {"unwatched": True})
    folder.log({"step": 2, "watch": {"n": 1}, "seconds": {}})  # where SIGTERM came in the look after step 2
    if knows_of_it:
        save_checkpoint(folder, 2, {"unwatched": False})
    assert load_checkpoint(folder) is not None
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] + [2] * n_looks
    assert capsys.readouterr().err == ""


def test_without_a_checkpoint_no_row_is_kept_not_even_of_step_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base's row of step 0 is logged before the first step, by every start."""
    folder = RunFolder(tmp_path)
    for step in (0, 1, 2):
        folder.log({"step": step})
    assert load_checkpoint(folder) is None
    assert not folder.metrics.exists()
    assert "has no checkpoint; its 3 logged steps are made again" in capsys.readouterr().err


class InterruptedWrite:
    """Stands for Ctrl-C in the middle of a write, which a writer tells as an error of its own."""

    def __reduce__(self) -> str:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")


def test_ctrl_c_in_the_middle_of_a_checkpoint_is_no_full_disk(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, 5, {"weights": InterruptedWrite()})
    assert is_state(load_checkpoint(folder))
    assert [json.loads(row)["step"] for row in folder.metrics.read_text().splitlines()] == [1, 2, 3, 4]


def steps_kept(folder: RunFolder) -> list[int]:
    return list(kept_checkpoints(folder))


def test_the_last_few_checkpoints_are_kept_and_the_best_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    best = {"step": 8, "measure": "evidence_hit", "value": 0.5}
    for step in range(8, 14):
        save_checkpoint(folder, step, {"best": best}, keep_last=2)
    assert steps_kept(folder) == [8, 12, 13]  # by number, where names would put 8 last
    save_checkpoint(folder, 14, {"best": {**best, "step": 14, "value": 0.6}}, keep_last=2)
    assert steps_kept(folder) == [13, 14]
    remove_old(folder, 1, Best(13, "evidence_hit", 0.6))
    assert steps_kept(folder) == [13, 14]
    state = load_checkpoint(folder)
    assert state is not None
    assert Best.of(state) == Best(14, "evidence_hit", 0.6)


def test_files_that_only_look_like_checkpoints_are_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    names = (
        "checkpoint-best.pt",
        "checkpoint-007.pt",
        "checkpoint-3.pt.bak",
        ".half-3.pt",
        "my-checkpoint-1.pt",
    )
    for name in names:
        (tmp_path / name).write_text("mine")
    for step in (9, 10):
        save_checkpoint(folder, step, {})
    assert steps_kept(folder) == [10]
    assert all((tmp_path / name).read_text() == "mine" for name in names)


def test_a_run_of_an_earlier_version_goes_on_from_its_only_checkpoint(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.checkpoint(4).rename(tmp_path / "checkpoint.pt")
    assert steps_kept(folder) == [4]
    assert is_state(load_checkpoint(folder))
    save_checkpoint(folder, 6, STATE, keep_last=2)
    assert steps_kept(folder) == [4, 6]
    save_checkpoint(folder, 8, STATE, keep_last=2)
    assert steps_kept(folder) == [6, 8]
    assert not (tmp_path / "checkpoint.pt").exists()


def test_where_the_newest_is_damaged_an_older_one_is_pointed_to(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save_checkpoint(folder, 5, STATE, keep_last=2)
    folder.checkpoint(5).write_bytes(b"half")
    with pytest.raises(RunError, match=r"checkpoint-5\.pt: not a whole .*or delete it to go on from step 4"):
        load_checkpoint(folder)
    folder.checkpoint(5).unlink()
    assert is_state(load_checkpoint(folder))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_why_a_checkpoint_could_not_be_written_is_said(tmp_path: Path) -> None:
    """torch's own word for a full disk is "unexpected pos 576 vs 534"."""
    (tmp_path / "checkpoint-1.pt").symlink_to("/dev/full")
    with pytest.raises(
        RunError, match=r"could not be written \(No space left on device\); the last checkpoint"
    ):
        save_checkpoint(RunFolder(tmp_path), 1, {"weights": {"w": torch.ones(1_000_000)}})
