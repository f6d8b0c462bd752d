"""A step over shards: the same rows whatever stopped it, in however many processes, and nothing made twice."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from doubling import Settings, doubled, numbers
from tgsr.data.questions.build import Stage1, phrases_of
from tgsr.data.questions.phrases import Phrases
from tgsr.data.shards import Counts, Made, Step, errors_of, run
from tgsr.data.splits import Split
from tgsr.disk.jsonl import Row
from tgsr.errors import Bad, ShardError


def written(out: Path) -> list[int]:
    return [json.loads(line)["n"] for line in out.read_text().splitlines()]


EXPECTED = [n for n in range(23) if n % 5 != 4]


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_come_out_in_order_and_what_is_left_out_is_listed(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out.jsonl"
    step = Step(doubled, Settings(str(tmp_path / "log")))
    counts = run(step, numbers(23), out, root=tmp_path, rows_per_shard=4, workers=workers)
    assert written(out) == EXPECTED
    assert replace(counts, by_flag={}) == Counts(given=23, kept=19, flagged=10, left_out=4, shards=6, found=0)
    assert sum(counts.by_flag.values()) == 10
    errors = [json.loads(line) for line in errors_of(out).read_text().splitlines()]
    assert [row["error"] for row in errors] == ["is odd"] * 4


def test_what_is_there_is_not_made_again_and_what_changed_is(tmp_path: Path) -> None:
    out, log = tmp_path / "out.jsonl", tmp_path / "log"
    step = Step(doubled, Settings(str(log)))
    run(step, numbers(8), out, root=tmp_path, rows_per_shard=4)
    assert run(step, numbers(11), out, root=tmp_path, rows_per_shard=4).found == 2
    assert log.read_text() == "xxx"
    assert written(out) == [n for n in range(11) if n % 5 != 4]
    assert (
        run(
            Step(doubled, Settings(str(log)), version=2), numbers(8), out, root=tmp_path, rows_per_shard=4
        ).found
        == 0
    )
    shutil.rmtree(tmp_path / ".out.jsonl.shards")
    assert run(step, numbers(8), out, root=tmp_path, rows_per_shard=4).found == 0


def test_shards_that_were_made_before_the_steps_moved_are_found() -> None:
    """The key of commit f651cc2. That of transcripts changes when these do: they are made again."""
    row = {"id": "a", "audio": "nowhere.wav", "duration": 1.0}
    phrases = Step(phrases_of, Stage1(Phrases(), Split()), "tgsr.build.phrases_of")
    assert phrases.key([row], Path("/x")) == "beec18dd33b463174a0b2acb2031da27"


def test_a_changed_sound_file_is_heard_again(tmp_path: Path) -> None:
    sound, out = tmp_path / "a.wav", tmp_path / "out.jsonl"
    sound.write_bytes(b"one")
    step = Step(doubled, Settings(str(tmp_path / "log")))
    rows: list[Row | Bad] = [{"n": 1, "audio": "a.wav"}]
    run(step, rows, out, root=tmp_path)
    assert run(step, rows, out, root=tmp_path).found == 1
    sound.write_bytes(b"another")
    assert run(step, rows, out, root=tmp_path).found == 0


def test_a_reader_s_bad_rows_are_left_out_with_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows: list[Row | Bad] = [{"n": 0}, Bad("a.csv", "is cut off", 3), {"n": 1}]
    counts = run(Step(doubled, Settings(str(tmp_path / "log"))), rows, out, root=tmp_path)
    assert (counts.given, counts.kept, counts.left_out) == (3, 2, 1)
    assert json.loads(errors_of(out).read_text())["line"] == 3


def test_too_many_bad_rows_fail_the_run_after_it_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    step = Step(doubled, Settings(str(tmp_path / "log")))
    with pytest.raises(ShardError, match=r"4 of 23 rows were left out, more than 10%"):
        run(step, numbers(23), out, root=tmp_path, most_bad=0.1)
    assert written(out) == EXPECTED


def test_a_full_disk_is_named_and_what_is_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, n_left = tmp_path / "out.jsonl", [3]
    real = os.fsync

    def full(descriptor: int) -> None:
        n_left[0] -= 1
        if n_left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    step = Step(doubled, Settings(str(tmp_path / "log")))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ShardError,
        match=r"/\.out\.jsonl\.shards/.*: No space left .*; free some space.*shards has what is done",
    ):
        run(step, numbers(23), out, root=tmp_path, rows_per_shard=4)
    assert not out.exists()
    monkeypatch.setattr(os, "fsync", real)
    assert run(step, numbers(23), out, root=tmp_path, rows_per_shard=4).found == 3
    assert written(out) == EXPECTED
    assert not list((tmp_path / ".out.jsonl.shards").glob("half-*"))


def test_a_model_that_was_trained_on_in_its_folder_makes_its_shards_again(tmp_path: Path) -> None:
    model = tmp_path / "model"
    plain = Step(doubled, Settings("log"))
    rows = [{"n": 1}]
    assert replace(plain, models=(str(model), None, "")).key(rows, tmp_path) == plain.key(rows, tmp_path)
    model.mkdir()
    keys = set()
    for weights in ("old", "newer"):
        (model / "model.bin").write_text(weights)
        keys.add(replace(plain, models=(str(model),)).key(rows, tmp_path))
    assert len(keys | {plain.key(rows, tmp_path)}) == 3


def test_no_rows_give_empty_files(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert run(Step(doubled, Settings("log")), [], out, root=tmp_path) == Counts(0, 0, 0, 0, 0, 0)
    assert out.read_text() == ""


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from doubling import Settings, doubled, numbers
from tgsr.data.shards import Step, run

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    step = Step(doubled, Settings(str(folder / "log"), seconds=0.02))
    run(step, numbers(120), folder / "out.jsonl", root=folder, rows_per_shard=3, workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_goes_on_without_lost_or_doubled_rows(tmp_path: Path, workers: int) -> None:
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path), str(workers)]
    kept = tmp_path / ".out.jsonl.shards"
    for n_shards in (4, 15):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(list(kept.glob("[0-9a-f]*"))) < n_shards:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out.jsonl").exists()
    done = len([path for path in kept.iterdir() if not path.name.startswith("half-")])
    assert 15 <= done < 40
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert written(tmp_path / "out.jsonl") == [n for n in range(120) if n % 5 != 4]


ENDED = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from doubling import Settings, doubled, numbers
from tgsr.data.shards import Step, run
from tgsr.training.stop import stop_on_signals

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits it ignored
    folder = Path(sys.argv[2])
    step = Step(doubled, Settings(str(folder / "log"), seconds=0.02))
    try:
        with stop_on_signals():
            run(step, numbers(9000), folder / "out.jsonl", root=folder, rows_per_shard=3, workers=2)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize(
    ("number", "is_of_terminal", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGKILL, False, -signal.SIGKILL)],
)
def test_workers_end_with_their_parent_and_say_nothing(
    tmp_path: Path, number: int, is_of_terminal: bool, code: int
) -> None:
    """Ctrl-C goes to all processes of a terminal, what ends a job or a process without memory to one."""
    script, kept = tmp_path / "run.py", tmp_path / ".out.jsonl.shards"
    script.write_text(ENDED)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, stderr=said, start_new_session=True)
    while process.poll() is None and len(list(kept.glob("[0-9a-f]*"))) < 4:
        time.sleep(0.005)
    (os.killpg if is_of_terminal else os.kill)(process.pid, number)
    assert process.wait() == code
    for _ in range(1000):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert "Traceback" not in (tmp_path / "said").read_text() or number == signal.SIGKILL
    if number != signal.SIGKILL:
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".lock")]
        assert not [name for name in os.listdir(kept) if name.startswith(".half-")]


def killing(settings: Settings, rows: Sequence[Row]) -> Made:
    os.kill(os.getpid(), signal.SIGKILL)
    return Made(())


def test_a_worker_that_the_system_kills_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    step = Step(killing, Settings(str(tmp_path / "log")))
    with pytest.raises(ShardError, match=r"a worker was killed.*fewer --workers; what is done is kept"):
        run(step, numbers(8), tmp_path / "out.jsonl", root=tmp_path, rows_per_shard=4, workers=2)
