"""Ctrl-C, SIGTERM, SIGHUP, a full disk while files are written: nothing is half, the command goes on to the same."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tgsr.cli import main
from tgsr.disk.whole import write_whole
from tiny import questions_in

COMMANDS = {
    "build": "build sta --clips {clips} --rows-per-shard 1 --absent 0.5 --out {out}/sta",
    "digits": "build qa --digits 2 --out {out}/qa",
    "pack": "pack {clips} --to webdataset --samples-per-shard 1 --out {out}/packed",
    "export": "export {questions} --to trl --out {out}/trl.jsonl",
    "look": "look {questions} --n 2 --out {out}/look",
}
KEEPING = ("build", "digits", "pack")
SIGNALS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "stopped by SIGTERM",
    signal.SIGHUP: "stopped by SIGHUP",
}


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """A job in the background inherits some of them ignored, as what `nohup` starts does."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("questions"), "sta", 2, n_phrases=2)


@pytest.fixture
def ended(questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command of COMMANDS in a folder; `at` and `number`: that signal comes as it renames its `at`-th file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(
        "tgsr.data.questions.build.plot", lambda _, path: write_whole(path, "a picture")
    )  # slow
    real, n_renamed = os.replace, [0]

    def run(name: str, out: str, at: int = 0, number: int = 0) -> int:
        def rename(*paths: object) -> None:
            n_renamed[0] += 1
            if n_renamed[0] == at:
                signal.raise_signal(number)
            real(*paths)

        n_renamed[0] = 0
        monkeypatch.setattr(os, "replace", rename)
        words = COMMANDS[name].format(clips=questions.with_name("clips.jsonl"), questions=questions, out=out)
        return main(words.split())

    run.n_renamed = lambda: n_renamed[0]
    return run


def files(folder: Path) -> dict[str, bytes]:
    """What lies in a folder; a card names the command, and with it the folder."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "card.md")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def left(folder: Path) -> list[str]:
    """What only something unfinished, or still running, has."""
    names = [path.name for path in folder.rglob("*")]
    return [name for name in names if name.startswith(".half-") or name.endswith(".lock")] + os.listdir("tmp")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_at_any_file_leaves_nothing_half_and_the_command_goes_on_to_the_same_bytes(
    name: str, ended: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(name, "undisturbed") == 0
    n_files = ended.n_renamed()
    before = [signal.getsignal(number) for number in SIGNALS]
    for (number, said), at in zip(SIGNALS.items(), (1, n_files // 2 + 1, n_files), strict=True):
        assert ended(name, out := f"stopped-{number}", at, number) == 128 + number
        last = capfd.readouterr().err.splitlines()[-1]
        assert last.startswith(f"tgsr: {said}; ")
        assert ("goes on from there" in last) == (name in KEEPING)
        assert ("nothing is half-written" in last) == (name not in KEEPING)
        assert not left(tmp_path / out)
        assert set(files(tmp_path / out)) <= set(files(tmp_path / "undisturbed"))
        assert ended(name, out) == 0
        assert files(tmp_path / out) == files(tmp_path / "undisturbed")
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if name != "build"]
)  # whose plots take their time
def test_a_full_disk_is_named_with_the_file_and_the_command_goes_on_from_there(
    name: str, ended: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """RLIMIT_FSIZE stands for the disk: each file has room for some bytes."""
    assert ended(name, "undisturbed") == 0
    sizes = sorted(map(len, files(tmp_path / "undisturbed").values()))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for room in (sizes[-1] // 2, sizes[-1] - 1):
            capfd.readouterr()
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
            code = ended(name, f"full-{room}")
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            last = capfd.readouterr().err.splitlines()[-1]
            assert code == 2
            assert f"full-{room}/" in last
            assert "File too large; free some space and run the same command again" in last
            assert not left(tmp_path / f"full-{room}")
            assert ended(name, f"full-{room}") == 0
            assert files(tmp_path / f"full-{room}") == files(tmp_path / "undisturbed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handled)


def test_ctrl_c_while_a_command_is_read_has_no_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tgsr.cli.import_module", lambda name: signal.raise_signal(signal.SIGINT))
    assert main(["score", "p.jsonl"]) == 130
    assert (
        capsys.readouterr().err
        == "\ntgsr: interrupted; nothing is half-written, and the same command begins anew\n"
    )


def test_what_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nohup tgsr ...` outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr("tgsr.cli.import_module", lambda name: signal.raise_signal(signal.SIGHUP) or exit(7))
    try:
        with pytest.raises(SystemExit) as ended:
            main(["score", "p.jsonl"])
        assert ended.value.code == 7
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
