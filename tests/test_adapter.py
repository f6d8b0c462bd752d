"""An adapter from any checkpoint: of the end, of an earlier step, of a run that was stopped or that goes on."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr import rl, sta
from tgsr.cli import main
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RunError, Stopped
from tgsr.models.load import load
from tgsr.models.merge import merge
from tgsr.records import Response, read_questions, write_jsonl
from tgsr.training.adapter import take_adapter
from tgsr.training.checkpoints import load_checkpoint, save_checkpoint
from tgsr.training.config import GrpoConfig, SftConfig, StaConfig
from tgsr.training.sft import train_sft
from tiny import questions_in, rewarded_by, saved, tiny_lalm, uneven

SAVING = {"checkpoint_every": 1, "keep_last": 9}


def trained(stage: str, model: str, folder: Path, out: Path, **settings: int) -> None:
    """A run of three steps at most, or its end."""
    cache, files = FeatureCache(folder / "cache"), {}
    for kind, n_phrases in (("sta", 2), ("qa", 0)):
        files[kind] = folder / kind / "questions.jsonl"
        if not files[kind].exists():
            questions_in(folder / kind, kind, 3, n_phrases=n_phrases, most=6 if n_phrases else 3)
    more = {**SAVING, **settings}
    if stage.startswith("sta"):
        rank = 2 if stage == "sta with a LoRA" else 0
        config = StaConfig(
            questions=str(files["sta"]),
            model=model,
            clips_per_step=1,
            learning_rate=1e-2,
            lora_rank=rank,
            **more,
        )
        sta.train_sta(config, out, cache)
    elif stage == "sft":
        responses = folder / "qa/responses.jsonl"
        write_jsonl(responses, [Response(q, "m", "(b)") for q in read_questions(files["qa"])])
        train_sft(SftConfig(responses=str(responses), model=model, clips_per_step=1, **more), out, cache)
    else:
        grpo = GrpoConfig(
            questions=str(files["qa"]),
            model=model,
            prompts_per_step=1,
            group_size=2,
            max_new_tokens=3,
            **more,
        )
        rl.train_grpo(grpo, out, cache, load, rewarded_by(uneven))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a base model, a stage-1 adapter of it, and the questions of all runs."""
    folder = tmp_path_factory.mktemp("adapters")
    base = saved(tiny_lalm(), folder / "base")
    trained("sta", base, folder, folder / "stage-1")
    return folder


def files_of(adapter: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in adapter.iterdir()}


@pytest.mark.parametrize("stage", ["sta", "sta with a LoRA", "sft", "grpo"])
def test_the_last_checkpoint_is_the_adapter_that_the_run_ends_with(
    stage: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, base = tmp_path / "run", folder / ("base" if stage.startswith("sta") else "stage-1/adapter")
    trained(stage, str(base), folder, run)
    assert main(["adapter", str(run)]) == 0
    told = capsys.readouterr()
    n_steps = len((run / "metrics.jsonl").read_text().splitlines())
    assert told.out.splitlines()[-1] == str(run / f"adapter-{n_steps}")
    assert f"{run}: step {n_steps}" in told.err
    assert files_of(run / f"adapter-{n_steps}") == files_of(run / "adapter")
    earlier = take_adapter(run, "1", tmp_path / "out")
    now = files_of(earlier)
    assert now.keys() == files_of(run / "adapter").keys()
    trains = "aligner.safetensors" if stage.startswith("sta") else "adapter_model.safetensors"
    assert now[trains] != files_of(run / "adapter")[trains]
    assert load(str(earlier)).base == str(folder / "base")


def test_an_adapter_of_a_run_that_was_stopped_is_that_of_a_run_that_ended_there(
    folder: Path, tmp_path: Path
) -> None:
    base, seen = str(folder / "base"), []

    def look_and_stop(*_: object) -> None:
        seen.append(1)
        if len(seen) == 2:  # the first step is saved, and the second one goes on
            taken = take_adapter(tmp_path / "run", out=tmp_path / "while it goes on")
            assert load(str(taken)).name == str(taken)
            signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(look_and_stop)
    with pytest.raises(Stopped):
        trained("sta", base, folder, tmp_path / "run")
    hook.remove()
    trained("sta", base, folder, tmp_path / "short", max_steps=2)
    stopped = take_adapter(tmp_path / "run")
    assert stopped.name == "adapter-2"
    merged = merge(load(str(stopped)), tmp_path / "merged")
    assert (merged / "config.json").exists()
    # its rates are those of the run that was planned, three steps long: another one than that of two
    assert (
        files_of(stopped)["aligner.safetensors"]
        != files_of(tmp_path / "short/adapter")["aligner.safetensors"]
    )
    trained("sta", base, folder, tmp_path / "run", max_steps=2)
    assert files_of(stopped) == files_of(tmp_path / "run/adapter")


def test_the_best_step_is_taken_by_that_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(shutil.copytree(folder / "stage-1", tmp_path / "run"))
    with pytest.raises(RunError, match=r"nothing was measured .* those of 1, 2, 3 are kept"):
        take_adapter(run.path, "best")
    state = load_checkpoint(run)
    assert state is not None
    best = {"step": 2, "measure": "evidence_hit", "value": 0.625}
    save_checkpoint(run, 3, {**state, "best": best})
    assert take_adapter(run.path, "best") == run.path / "adapter-2"
    assert files_of(run.path / "adapter-2") == files_of(take_adapter(folder / "stage-1", "2", tmp_path / "2"))
    run.checkpoint(2).unlink()
    with pytest.raises(
        RunError, match=r"step 2 was the best by evidence_hit \(0\.625\), and is gone; those of 3 are"
    ):
        take_adapter(run.path, "best")


def test_what_is_no_run_or_no_step_is_refused_before_a_model_is_loaded(folder: Path, tmp_path: Path) -> None:
    def no_model(*_: object) -> None:
        raise AssertionError("loaded")

    run = shutil.copytree(folder / "stage-1", tmp_path / "run")
    for step, error, says in (
        ("4", RunError, "no checkpoint of step 4; those of 1, 2, 3 are kept"),
        ("0", RunError, "no checkpoint of step 0"),
        ("-1", OptionError, "--step -1: must be a number of steps, last or best"),
        ("newest", OptionError, "--step newest"),
    ):
        with pytest.raises(error, match=says):
            take_adapter(run, step, load=no_model)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="is not empty; choose another"):
        take_adapter(run, out=run / "adapter", load=no_model)  # type: ignore[arg-type]
    for path in run.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(RunError, match="has no checkpoint yet"):
        take_adapter(run, load=no_model)  # type: ignore[arg-type]
    described = json.loads((run / "run.json").read_text())
    for part, says in (
        ({"stage": "base"}, "is of 'base', and only sta, sft, grpo train adapters"),
        ({"config": {**described["config"], "wings": 2}}, "another version of tgsr, by its setting 'wings'"),
        ({"config": {"model": "mini"}}, "by its setting 'questions'"),
    ):
        (run / "run.json").write_text(json.dumps({**described, **part}))
        with pytest.raises(RunError, match=says):
            take_adapter(run, load=no_model)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"no run\.json; give the --out of a `tgsr train"):
        take_adapter(tmp_path, load=no_model)  # type: ignore[arg-type]
    assert not list(run.glob("adapter-*"))


def test_a_model_that_is_another_one_now_is_refused_and_one_that_moved_is_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "base", tmp_path / "here" / "base")
    monkeypatch.chdir(tmp_path / "here")
    trained("sta", "base", folder, tmp_path / "run")
    here = take_adapter(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RunError, match=r"base is not the model that it trains: base/\S+ is missing .*--model"
    ):
        take_adapter(tmp_path / "run")
    (tmp_path / "here" / "base").rename(tmp_path / "moved")
    moved = take_adapter(tmp_path / "run", out=tmp_path / "out", model="moved")
    assert files_of(moved)["aligner.safetensors"] == files_of(here)["aligner.safetensors"]
    assert load(str(moved)).base == str(tmp_path / "moved")
    other = saved(tiny_lalm(seed=1), tmp_path / "other")
    with pytest.raises(RunError, match=r"base/model\.safetensors is missing or another one"):
        take_adapter(tmp_path / "run", model=other)


def test_a_checkpoint_of_other_weights_makes_no_adapter(folder: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(folder / "stage-1", tmp_path / "run"))
    state = load_checkpoint(run)
    assert state is not None
    weights = {name: torch.zeros(2) for name in state["weights"]}
    save_checkpoint(run, 3, {**state, "weights": weights})
    with pytest.raises(RunError, match="holds other weights than train now"):
        take_adapter(run.path)
    assert not list(run.path.glob("adapter-*"))
