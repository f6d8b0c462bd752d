"""SIGTERM: the step is finished and saved, and the same command goes on to the numbers of an unbroken run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr import sta
from tgsr.cli import main
from tgsr.engine.features import FeatureCache
from tgsr.errors import Stopped
from tgsr.training.config import StaConfig
from tgsr.training.stop import stop_on_signals
from tiny import logged, questions_in, tiny_base

STA = StaConfig(questions="", epochs=3, clips_per_step=2, learning_rate=1e-3, checkpoint_every=100)


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("sta"), "sta", 3, n_phrases=2)


def n_rows(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines())


def test_a_run_that_is_asked_to_stop_saves_its_step_and_goes_on_from_it(
    phrases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, cache = replace(STA, questions=str(phrases)), FeatureCache(tmp_path / "cache")
    sta.train_sta(config, tmp_path / "whole", cache, tiny_base)
    updates = []

    def ask_in_the_second_step(*_: object) -> None:
        updates.append(1)
        if len(updates) == 2:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    hook = register_optimizer_step_pre_hook(ask_in_the_second_step)
    with pytest.raises(Stopped) as stopped:
        sta.train_sta(config, tmp_path / "broken", cache, tiny_base)
    hook.remove()
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert n_rows(tmp_path / "broken") == len(updates) == 2
    assert "stopped by SIGTERM after step 2, which is saved" in capsys.readouterr().err
    sta.train_sta(config, tmp_path / "broken", cache, tiny_base)
    assert logged(tmp_path / "broken") == logged(tmp_path / "whole")
    broken, whole = (tmp_path / run / "adapter" / "aligner.safetensors" for run in ("broken", "whole"))
    assert broken.read_bytes() == whole.read_bytes()


def test_in_the_last_step_there_is_nothing_left_to_stop(phrases: Path, tmp_path: Path) -> None:
    config, cache = replace(STA, questions=str(phrases), epochs=1), FeatureCache(tmp_path / "cache")

    def ask_in_the_second_step(*_: object) -> None:
        if (tmp_path / "run" / "metrics.jsonl").exists():
            signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(ask_in_the_second_step)
    sta.train_sta(config, tmp_path / "run", cache, tiny_base)
    hook.remove()
    assert n_rows(tmp_path / "run") == 2
    assert (tmp_path / "run" / "adapter" / "adapter.json").exists()


def test_before_the_first_step_a_run_ends_at_once() -> None:
    with pytest.raises(Stopped), stop_on_signals():
        signal.raise_signal(signal.SIGTERM)


TWICE = """
import os, signal, sys
from tgsr.training.stop import stop_on_signals
with stop_on_signals(float(sys.argv[1])) as stop, stop.steps():
    for _ in range(int(sys.argv[2])):
        os.kill(os.getpid(), signal.SIGTERM)
    print(stop.asked)
"""


@pytest.mark.parametrize(
    ("one_request", "n", "code"),
    [("0", 1, 0), ("0", 2, -signal.SIGTERM), ("60", 5, 0)],  # 60: what a launcher passes on is one request
)
def test_a_second_signal_ends_at_once(one_request: str, n: int, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE, one_request, str(n)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout == ("True\n" if code == 0 else "")
    assert done.stderr.count("SIGTERM: ends after this step") == 1


def test_in_another_thread_nothing_is_changed() -> None:
    seen = []

    def look() -> None:
        with stop_on_signals() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_two_commands_on_one_folder_are_one_run_and_sigterm_ends_it_with_143(
    phrases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "sta", "--questions", str(phrases), "--model", "mini", "--out", str(out)]
    words += ["--epochs", "2", "--clips-per-step", "3", "--cache", str(tmp_path / "cache")]
    codes = []

    def start_another_and_stop(*_: object) -> None:
        codes.append(main(words))
        signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(start_another_and_stop)
    codes.append(main(words))
    hook.remove()
    assert codes == [2, 143]
    said = capsys.readouterr().err
    assert f"{out}: is being written by process {os.getpid()} on" in said
    assert "after step 1, which is saved; the same command goes on from there" in said
    assert main(words) == 0
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2]
