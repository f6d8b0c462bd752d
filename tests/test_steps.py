"""Where a run's steps end, at which rate they learn, and when they are saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr import sta
from tgsr.cli import main
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RunError
from tgsr.training.batches import chosen_at, steps_per_epoch
from tgsr.training.checkpoints import Best, kept_checkpoints, load_checkpoint
from tgsr.training.config import StaConfig
from tgsr.training.run import start_run
from tgsr.training.steps import SCHEDULES, Trainer
from tiny import logged, questions_in, tiny_base

STA = StaConfig(
    questions="", epochs=2, clips_per_step=1, learning_rate=1e-2, checkpoint_every=100
)  # six steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    questions_in(folder, "sta", 3, n_phrases=1)
    return folder


def train(folder: Path, out: Path, **settings: Any) -> None:
    config = replace(STA, questions=str(folder / "questions.jsonl"), **settings)
    sta.train_sta(config, out, FeatureCache(folder / "cache"), tiny_base)


def rates(run: Path) -> list[float]:
    return [row["lr"] for row in logged(run)]


def adapter(run: Path) -> bytes:
    """The trained weights of the run's adapter."""
    return (run / "adapter/aligner.safetensors").read_bytes()


def test_a_run_ends_early_by_lower_max_steps_and_raised_again_is_the_run_that_it_would_have_been(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(folder, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def die_in_the_third_step(*_: object) -> None:
        if len(logged(tmp_path / "run") if (tmp_path / "run/metrics.jsonl").exists() else []) == 2:
            raise Killed

    hook = register_optimizer_step_pre_hook(die_in_the_third_step)
    with pytest.raises(Killed):
        train(folder, tmp_path / "run", checkpoint_every=1)
    hook.remove()
    assert not (tmp_path / "run/adapter").exists()
    train(folder, tmp_path / "run", max_steps=4)
    assert (
        "goes on with --max-steps 4, --checkpoint-every 100, which it did not begin with"
        in capsys.readouterr().err
    )
    described = json.loads((tmp_path / "run/run.json").read_text())
    assert described["config_since"] == {"max_steps": 4, "checkpoint_every": 100}
    assert described["config"]["max_steps"] == 0
    assert rates(tmp_path / "run") == rates(tmp_path / "whole")[:4]
    assert adapter(tmp_path / "run") != adapter(tmp_path / "whole")
    train(folder, tmp_path / "run", checkpoint_every=1)
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")
    assert adapter(tmp_path / "run") == adapter(tmp_path / "whole")
    assert "config_since" not in json.loads((tmp_path / "run/run.json").read_text())


def test_max_steps_from_the_start_are_the_plan_and_more_of_them_a_longer_one(
    folder: Path, tmp_path: Path
) -> None:
    run, plan = tmp_path / "run", {"warmup_share": 0.5, "schedule": "linear"}
    train(folder, run, max_steps=4, **plan)
    peak = STA.learning_rate
    assert rates(run) == pytest.approx([peak * warm * (4 - s) / 4 for s, warm in enumerate((0.5, 1, 1, 1))])
    train(folder, run, max_steps=5, **plan)
    assert rates(run)[4:] == pytest.approx([peak * (5 - 4) / 5])
    train(folder, run, max_steps=3, **plan)  # has been passed: nothing is taken back
    train(folder, run, max_steps=6, **plan)
    assert rates(run)[5:] == pytest.approx([peak * (6 - 5) / 6])
    state = load_checkpoint(RunFolder(run))
    assert state is not None
    assert (state["step"], state["planned"]) == (6, 6)


def test_an_end_that_was_passed_is_said_and_the_adapter_is_that_of_the_last_step(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(folder, tmp_path / "run", max_steps=3)
    before = adapter(tmp_path / "run")
    (tmp_path / "run/adapter/aligner.safetensors").unlink()
    train(folder, tmp_path / "run", max_steps=2)
    assert "3 steps are done, more than --max-steps 2: nothing more is trained" in capsys.readouterr().err
    assert adapter(tmp_path / "run") == before
    assert len(logged(tmp_path / "run")) == 3


def test_more_max_steps_than_the_epochs_have_are_none(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", epochs=1, max_steps=50)
    assert rates(tmp_path / "run") == pytest.approx(
        [STA.learning_rate * SCHEDULES["cosine"](step, 3, 0) for step in range(3)]
    )


@pytest.mark.parametrize(
    ("began_sharded", "goes_on", "steps"),
    [
        (False, (1, False), 4),
        (False, (2, False), 4),
        (False, (2, True), 4),  # the last step's two items are one each
        (True, (1, False), 3),  # what was left over of an epoch stays so
        (True, (4, True), 3),
        (False, (4, True), "last step has 2 of the 14 items, which 4 processes cannot share evenly; leave it out"),
        (True, (3, True), "4 items a step must be a multiple of 3 processes"),
        (True, (1, True), "needs several processes.*a run that began with it goes on without"),
    ],
)  # fmt: skip
def test_an_epochs_steps_are_those_that_the_run_began_with(
    began_sharded: bool, goes_on: tuple[int, bool], steps: int | str
) -> None:
    if isinstance(steps, int):
        assert steps_per_epoch(14, 4, *goes_on, began_sharded) == steps
        for epoch in range(2):
            numbers = range(epoch * steps, (epoch + 1) * steps)
            seen = [item for n in numbers for item in chosen_at(n, range(14), 4, steps, seed=0)]
            assert len(set(seen)) == len(seen) == min(14, 4 * steps)  # each once
        return
    with pytest.raises(OptionError, match=steps):
        steps_per_epoch(14, 4, *goes_on, began_sharded)


def test_other_settings_may_not_change(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", max_steps=1)
    for settings in ({"schedule": "constant"}, {"epochs": 3}, {"seed": 1}, {"clips_per_step": 2}):
        with pytest.raises(RunError, match=rf"other arguments \({next(iter(settings))}\)"):
            train(folder, tmp_path / "run", max_steps=2, **settings)


def test_a_constant_rate_warms_up_and_stays_however_long_the_run_gets(folder: Path, tmp_path: Path) -> None:
    settings = {"schedule": "constant", "warmup_share": 0.5}
    train(folder, tmp_path / "run", max_steps=4, **settings)
    train(folder, tmp_path / "run", **settings)
    assert rates(tmp_path / "run") == pytest.approx(
        [STA.learning_rate * share for share in (0.5, 1, 1, 1, 1, 1)]
    )


@pytest.fixture
def trainer(folder: Path, tmp_path: Path) -> Iterator[Trainer[int]]:
    """Six steps without a loss, in a run of stage 1."""
    questions = str(folder / "questions.jsonl")
    config = replace(STA, questions=questions, keep_last=1)
    with start_run(
        "sta", config, questions, tmp_path / "run", FeatureCache(folder / "cache"), tiny_base
    ) as run:
        run.lalm.aligner.requires_grad_(True)
        yield Trainer(run, config, range(3), "abc", 1)


def test_the_best_step_is_saved_and_stays_until_a_better_one_comes(
    trainer: Trainer[int], capsys: pytest.CaptureFixture[str]
) -> None:
    values = [0.2, float("nan"), 0.5, 0.5, 0.4, 0.1]
    kept = []
    for step, _ in trainer.steps("steps"):
        kept.append(list(kept_checkpoints(trainer.run.folder)))
        assert trainer.keep_best("evidence_hit", values[step]) == (step in (0, 2))
    assert kept == [[], [1], [1], [3], [3], [3]]  # before each step; none but the best was due
    assert list(kept_checkpoints(trainer.run.folder)) == [3, 6]
    state = load_checkpoint(trainer.run.folder)
    assert state is not None
    assert Best.of(state) == Best(3, "evidence_hit", 0.5)
    trainer.finish()
    told = capsys.readouterr().err
    assert "adapter/ is of step 6; step 3 was the best by evidence_hit (0.500): `tgsr adapter" in told


@pytest.mark.parametrize(("minutes", "kept"), [(1e-9, [1, 2, 3, 4, 5, 6]), (600.0, [6]), (0.0, [6])])
def test_steps_are_saved_by_the_clock_too(trainer: Trainer[int], minutes: float, kept: list[int]) -> None:
    config = replace(trainer.config, checkpoint_minutes=minutes, keep_last=9)
    for _ in Trainer(trainer.run, config, range(3), "abc", 1).steps("steps"):
        pass
    assert list(kept_checkpoints(trainer.run.folder)) == kept


def test_another_measure_starts_again(trainer: Trainer[int]) -> None:
    offered = [("evidence_hit", 0.3), ("evidence_hit", 0.2), ("accuracy", 0.1), ("accuracy", 0.1)]
    for (step, _), (measure, value) in zip(trainer.steps("steps"), offered, strict=False):
        assert trainer.keep_best(measure, value) == (step in (0, 2))
    assert trainer.best == Best(3, "accuracy", 0.1)


def test_a_run_that_goes_on_knows_its_best_step_and_keeps_fewer_if_told(
    folder: Path, tmp_path: Path, trainer: Trainer[int]
) -> None:
    out = trainer.run.folder
    for step, _ in trainer.steps("steps"):
        trainer.keep_best("accuracy", 1.0 - step)
        if step == 3:
            break
    assert list(kept_checkpoints(out)) == [1]
    going_on = Trainer(trainer.run, trainer.config, range(3), "abc", 1)
    assert going_on.best == Best(1, "accuracy", 1.0)
    for _ in going_on.steps("steps"):
        assert not going_on.keep_best("accuracy", 0.5)
    assert list(kept_checkpoints(out)) == [1, 6]


def test_a_disk_without_room_for_the_checkpoints_is_said_before_the_first_step(
    folder: Path, tmp_path: Path, trainer: Trainer[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "are free" not in capsys.readouterr().err
    aligner = trainer.run.lalm.aligner
    del aligner.linear_1.weight  # in its place one of 2 PB, which takes no memory
    aligner.linear_1.weight = torch.nn.Parameter(torch.empty(1).expand(10**7, 10**7 // 2))
    Trainer(trainer.run, trainer.config, range(3), "abc", 1)
    assert "2 more checkpoints of 600,000,001 MB are to come" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings", [{"max_steps": -1}, {"keep_last": 0}, {"checkpoint_minutes": -0.5}, {"checkpoint_every": 0}]
)
def test_settings_that_save_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(settings)).replace('_', '-')} "):
        replace(STA, **settings)


def test_the_command_line_has_them_for_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    for stage in ("sta", "sft", "grpo"):
        with pytest.raises(SystemExit):
            main(["train", stage, "--help-all"])
        told = capsys.readouterr().out
        for flag in ("--max-steps", "--keep-last", "--checkpoint-minutes", "{cosine,linear,constant}"):
            assert flag in told
