"""A folder or file has one writer: another one is refused by name, and a death frees it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tgsr.disk.lock import held, held_folder
from tgsr.errors import DiskError, RunError

HOLDER = """
import sys
from tgsr.disk.lock import held
with held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder_of(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `path` until its input ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=pipe, stdout=pipe, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other


def test_another_writer_is_refused_with_process_machine_and_start(tmp_path: Path) -> None:
    with holder_of(tmp_path / "run") as other:
        says = rf"run: is being written by process {other.pid} on .+ since 20\d\d-.*choose another --out"
        with pytest.raises(RunError, match=says), held(tmp_path / "run"):
            pass
        with held(tmp_path / "another"):
            pass
    with held(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_death_frees_it(tmp_path: Path) -> None:
    with holder_of(tmp_path / "run") as other:
        other.kill()
        other.wait()
        assert os.listdir(tmp_path) == [".run.lock"]
        with held(tmp_path / "run"):
            pass
    assert os.listdir(tmp_path) == []


def test_one_folder_under_two_names_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    mine = rf"process {os.getpid()} "
    for name in (Path("."), tmp_path / "link", tmp_path / "run" / ".." / "run"):
        with held_folder(tmp_path / "run"):
            assert os.listdir(tmp_path / "run") == [".lock"]
            with pytest.raises(RunError, match=mine), held_folder(name):
                pass
    assert os.listdir(tmp_path / "run") == []


def test_a_folder_that_was_made_for_its_lock_goes_with_it_unless_it_is_used(tmp_path: Path) -> None:
    with held_folder(tmp_path / "new" / "run"):
        pass
    assert os.listdir(tmp_path / "new") == []
    with held_folder(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "run.json").touch()
    assert os.listdir(tmp_path / "new" / "run") == ["run.json"]


def test_a_folder_in_one_that_cannot_be_written_is_held(tmp_path: Path) -> None:
    """As a volume in a container is: what is around it is somebody else's."""
    (tmp_path / "run").mkdir()
    tmp_path.chmod(0o555)  # a superuser would not notice: nothing but run/ is written to, all the same
    try:
        with held_folder(tmp_path / "run"):
            assert os.listdir(tmp_path) == ["run"]
    finally:
        tmp_path.chmod(0o755)


def test_what_is_no_file_has_as_many_writers_as_like(tmp_path: Path) -> None:
    with held("/dev/null"), held("/dev/null"):
        assert not Path("/dev/.null.lock").exists()


def test_an_error_in_the_block_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), held(tmp_path / "new" / "run"):
        raise ValueError("mine")
    with held(tmp_path / "new" / "run"):
        assert os.listdir(tmp_path / "new") == [".run.lock"]


def test_a_lock_that_cannot_say_who_holds_it_is_not_left_behind(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with (
            pytest.raises(DiskError, match=r"\.run\.lock: File too large; free some space"),
            held(tmp_path / "run"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)
    assert os.listdir(tmp_path) == []


def test_ctrl_c_in_the_instant_before_the_lock_goes_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, n_came = Path.unlink, []

    def come_before(path: Path, missing_ok: bool = False) -> None:
        if not n_came:
            n_came.append(1)
            raise KeyboardInterrupt
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", come_before)
    with pytest.raises(KeyboardInterrupt), held(tmp_path / "answers.jsonl"):
        pass
    assert n_came
    assert os.listdir(tmp_path) == []


def test_ctrl_c_in_the_instant_after_the_lock_went_leaves_the_next_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have made its own by then."""
    real = Path.unlink

    def come_after(path: Path, missing_ok: bool = False) -> None:
        real(path, missing_ok=missing_ok)
        path.write_text("another one's")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", come_after)
    with pytest.raises(KeyboardInterrupt), held(tmp_path / "answers.jsonl"):
        pass
    assert (tmp_path / ".answers.jsonl.lock").read_text() == "another one's"
