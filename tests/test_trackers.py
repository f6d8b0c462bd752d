"""Trackers: a run's record goes on where it began, and holds a few texts beside the numbers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr import rl
from tgsr.disk.run_folder import RunFolder, open_run
from tgsr.engine.features import FeatureCache
from tgsr.training.checkpoints import save_checkpoint
from tgsr.training.config import GrpoConfig
from tgsr.training.trackers import markdown, opening
from tiny import logged, questions_in, rewarded_by, tiny_base, uneven


class Killed(BaseException):
    pass


def killed_and_gone_on(tmp_path: Path, tracker: Any) -> Path:
    """A run of four steps that dies in the third, whose last checkpoint is of the first."""
    questions = questions_in(tmp_path, "qa", 2, most=4)
    config = GrpoConfig(
        questions=str(questions),
        prompts_per_step=1,
        group_size=2,
        max_new_tokens=3,
        checkpoint_every=3,
        tracker=tracker,
        watch=str(questions),
        watch_every=2,
    )
    out, cache = tmp_path / "run", FeatureCache(tmp_path / "cache")

    def train(config: GrpoConfig) -> None:
        rl.train_grpo(config, out, cache, tiny_base, rewarded_by(uneven))

    def die(*_: object) -> None:
        if len(logged(out)) == 3:  # of the step 0 and two more
            raise Killed

    train(replace(config, max_steps=1))
    hook = register_optimizer_step_pre_hook(die)
    with pytest.raises(Killed):
        train(config)
    hook.remove()
    train(config)
    return out


def test_the_id_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    folder = open_run(tmp_path, "grpo", GrpoConfig(questions=""))
    first = opening(folder)
    assert opening(RunFolder(tmp_path)) == first
    assert json.loads(folder.described.read_text())["tracked_as"] == first["wandb"]["id"]
    assert (first["wandb"]["resume"], first["trackio"]["resume"]) == ("allow", "allow")
    monkeypatch.setenv("WANDB_RUN_ID", "chosen")  # wandb's own way to say it
    assert opening(folder)["wandb"]["id"] == "chosen"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert opening(folder)["wandb"]["id"] == "chosen"


def test_steps_that_are_made_again_are_those_after_the_last_checkpoint(tmp_path: Path) -> None:
    folder = open_run(tmp_path, "grpo", GrpoConfig(questions=""))
    assert opening(folder)["tensorboard"] == {"purge_step": 0}
    save_checkpoint(folder, 20, {"weights": {}}, keep_last=2)
    assert opening(folder)["tensorboard"] == {"purge_step": 21}


def test_a_table_in_markdown_survives_what_models_write() -> None:
    text = markdown(["step", "response"], [[1, "a | b\nc"], [2, None]])
    assert text == "| step | response |\n| --- | --- |\n| 1 | a \\| b<br>c |\n| 2 | None |"


def test_tensorboard_has_each_step_once_and_the_texts(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = killed_and_gone_on(tmp_path, "tensorboard")
    events = reader.EventAccumulator(str(out / "tgsr-grpo"), size_guidance={"tensors": 0}).Reload()
    rows = logged(out)
    assert [event.step for event in events.Scalars("loss")] == [row["step"] for row in rows if "loss" in row]
    assert [event.step for event in events.Scalars("watch/accuracy")] == [0, 1, 2, 4]
    assert {"seconds/sample", "accuracy_by_task/" + next(iter(rows[-1]["accuracy_by_task"]))} <= set(
        events.Tags()["scalars"]
    )
    looks = events.Tensors("watched/text_summary")
    assert {event.step for event in looks} == {0, 1, 2, 4}
    texts = [event.tensor_proto.string_val[0].decode() for event in looks]
    assert all(text.startswith("| step | id | question |") and text.count("\n") == 5 for text in texts)
    (samples,) = events.Tensors("samples/text_summary")
    assert "| response | reward |" in samples.tensor_proto.string_val[0].decode()


def test_a_wandb_run_goes_on_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    out = killed_and_gone_on(tmp_path, "wandb")
    kept = json.loads((out / "run.json").read_text())["tracked_as"]
    records = sorted(folder.name for folder in (out / "wandb").glob("offline-run-*"))
    assert records
    assert all(name.endswith(f"-{kept}") for name in records)
    tables = list((out / "wandb").glob("offline-run-*/files/media/table/*.table.json"))
    assert {table.name.split("_")[0] for table in tables} == {"samples", "watched"}
    newest = max((table for table in tables if table.name.startswith("watched")), key=os.path.getmtime)
    assert json.loads(newest.read_text())["columns"][:3] == ["step", "id", "question"]
