"""The two loops on a tiny model: what trains, what is guarded, and going on after a kill."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr import rl, sta
from tgsr.audio import load as load_sound
from tgsr.audio import save_wav
from tgsr.disk.run_folder import RunFolder, open_run
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError, NotFinite, OptionError, RunError
from tgsr.models.aligner_and_lora import lora_off, parts_of, parts_table, with_lora, without_renaming_warning
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.lalm import LORA_TARGETS
from tgsr.models.load import load, load_adapter, multiplies_bfloat16, save_adapter
from tgsr.models.placement import Placement
from tgsr.records import Response, is_held_out, read_questions, write_jsonl
from tgsr.rewards import RewardTerm
from tgsr.training import checkpoints, sft
from tgsr.training.checkpoints import load_checkpoint, save_checkpoint
from tgsr.training.config import GrpoConfig, SftConfig, StaConfig
from tgsr.training.processes import start
from tgsr.training.run import Load, load_to_train
from tgsr.training.steps import cosine, linear, spelled_out, step_or_stop
from tiny import (
    logged,
    questions_in,
    rewarded_by,
    saved,
    tiny_base,
    tiny_features,
    tiny_lalm,
    tiny_qwen_omni,
    uneven,
)

STA = StaConfig(questions="", epochs=2, clips_per_step=2, learning_rate=1e-3, checkpoint_every=1)
GRPO = GrpoConfig(
    questions="", prompts_per_step=2, group_size=3, max_new_tokens=6, learning_rate=1e-2, checkpoint_every=1
)


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("sta"), "sta", 5, n_phrases=3)


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("qa"), "qa", 4, most=6)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """What the tiny model's encoder, which no run changes, makes of the clips."""
    return FeatureCache(tmp_path_factory.mktemp("cache"))


def train_sta(config: StaConfig, out: Path, cache: FeatureCache, load: Load = tiny_base) -> None:
    sta.train_sta(config, out, cache, load)


def train_grpo(
    config: GrpoConfig,
    out: Path,
    cache: FeatureCache,
    load: Load = tiny_base,
    rewards: Callable[..., list[float]] | None = uneven,
) -> None:
    rl.train_grpo(config, out, cache, load, rewarded_by(rewards) if rewards else None)


def weights_of(lalm: AudioFlamingo3) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in lalm.inner.named_parameters()}


FAMILIES = {"audio_flamingo3": tiny_lalm, "qwen_omni": lambda: tiny_qwen_omni(seconds=10)}


@pytest.mark.parametrize("family", FAMILIES)
def test_stage_1_changes_the_aligner_and_nothing_else(
    family: str, phrases: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    lalm = FAMILIES[family]()
    before = weights_of(lalm)
    config = replace(STA, questions=str(phrases), epochs=10, learning_rate=1e-2)
    train_sta(config, tmp_path / "run", cache, lambda *_: lalm)
    changed = {name for name, weight in weights_of(lalm).items() if not torch.equal(weight, before[name])}
    aligner = {"audio_flamingo3": "model.multi_modal_projector.", "qwen_omni": "model.audio_tower.proj."}[
        family
    ]
    assert changed == {name for name in before if name.startswith(aligner)}
    losses = [float(str(row["loss"])) for row in logged(tmp_path / "run")]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1  # the same clips: three steps are an epoch


@pytest.mark.parametrize("family", FAMILIES)
def test_stage_2_changes_the_lora_and_nothing_else(
    family: str, choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    lalm = FAMILIES[family]()
    before = weights_of(lalm)
    config = replace(GRPO, questions=str(choices))
    train_grpo(config, tmp_path / "run", cache, lambda *_: lalm)
    after = {name.replace(".base_layer", ""): w for name, w in lalm.model.get_base_model().named_parameters()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    lora = {name: weight for name, weight in after.items() if ".lora_" in name}
    assert set(after) == set(before) | set(lora)
    assert len(lora) == 2 * 7 * 2  # layers, matrices, two factors each
    assert all(name.startswith("model.language_model.layers.") for name in lora)
    assert all(weight.abs().max() > 0 for name, weight in lora.items() if ".lora_B." in name)


def test_a_reward_of_ones_own_alone_trains_and_is_logged_by_its_name(
    choices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(GRPO, questions=str(choices), max_steps=1)
    rl.train_grpo(
        config,
        tmp_path / "run",
        FeatureCache(tmp_path / "cache"),
        tiny_base,
        [RewardTerm("mine", uneven, 2.0)],
    )
    (row,) = logged(tmp_path / "run")
    assert (row["mine_reward"], row["reward"], row["accuracy_by_task"]) == (1.0, 2.0, {})
    assert row["grad_norm"] > 0
    assert not {"accuracy", "grounding_reward"} & set(row)
    assert row["cut"] >= 3
    said = f"warning: step 1: {row['cut']} of 6 responses reached --max-new-tokens 6 before their end"
    assert capsys.readouterr().out.count(said) == 1
    abstains = [RewardTerm("mine", lambda completions, **_: [None] * len(completions))]
    with pytest.raises(ValueError, match="'mine' must return a finite reward for each of the 6 completions"):
        rl.train_grpo(config, tmp_path / "none", FeatureCache(tmp_path / "cache"), tiny_base, abstains)


def test_rewards_move_the_policy_towards_what_is_rewarded(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    """The whole loop learns: a reward for short answers of one token makes that token likely."""
    lalm = tiny_lalm()
    wanted = lalm.tokens("(")[0]

    def brackets(completions: list[str], **columns: object) -> list[float]:
        return [float(text.count("(")) for text in completions]

    config = replace(
        GRPO, questions=str(choices), epochs=12, group_size=8, learning_rate=3e-2, top_p=1.0, beta=0.0
    )
    train_grpo(config, tmp_path / "run", cache, lambda *_: lalm, brackets)
    seen = [float(str(row["reward"])) for row in logged(tmp_path / "run")]
    assert wanted != lalm.eos_id
    assert np.mean(seen[-6:]) > np.mean(seen[:6]) + 1


def test_equal_rewards_and_no_kl_leave_the_model_alone(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    def equal(completions: list[str], **columns: object) -> list[float]:
        return [1.0] * len(completions)

    config = replace(GRPO, questions=str(choices), beta=0.0)
    train_grpo(config, tmp_path / "run", cache, rewards=equal)
    rows = logged(tmp_path / "run")
    assert all(row["grad_norm"] == 0 for row in rows)
    assert all(row["equal_groups"] == 2 for row in rows)
    assert not any("kl" in row for row in rows)  # without its weight there is no reference


def equal_about(durations: set[float]) -> Callable[..., list[float]]:
    """A reward that is equal for all responses about clips of these lengths, else by a response's length."""

    def reward(completions: list[str], duration: list[float], **columns: object) -> list[float]:
        return [
            1.0 if d in durations else float(len(text) % 3)
            for text, d in zip(completions, duration, strict=True)
        ]

    return reward


def test_equal_groups_are_left_out_of_the_update_and_of_its_count(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    """Without KL they have no gradient, so that what changes is what the loss is divided by."""
    questions = read_questions(choices)
    n = len(questions)
    reward = equal_about({questions[0].duration})
    config = replace(GRPO, questions=str(choices), prompts_per_step=n, beta=0.0, group_size=4)
    for name, dynamic_sampling in (("paper", None), ("left out", 0)):
        changed = replace(config, dynamic_sampling=dynamic_sampling)
        train_grpo(changed, tmp_path / name, cache, rewards=reward)
    (paper,), (left_out,) = logged(tmp_path / "paper"), logged(tmp_path / "left out")
    n_equal = int(str(paper["equal_groups"]))
    assert 1 <= n_equal < n
    assert "tokens_saved" not in paper
    assert (left_out["drawn_groups"], left_out["learned_groups"]) == (0, n - n_equal)
    assert 0 < int(str(left_out["tokens_saved"])) <= n_equal * 4 * 6
    for name in ("reward", "accuracy", "tokens", "equal_groups"):  # of all that was sampled
        assert left_out[name] == paper[name]
    for name in ("loss", "grad_norm"):
        ratio = float(str(left_out[name])) / float(str(paper[name]))
        assert ratio == pytest.approx(n / (n - n_equal), rel=1e-3)


def test_other_questions_are_drawn_for_equal_groups_until_the_step_is_full(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    questions = read_questions(choices)
    durations = [q.duration for q in questions]
    reward = equal_about(set(durations) - {max(durations, key=durations.count)})
    config = replace(GRPO, questions=str(choices), group_size=6, max_steps=2, dynamic_sampling=5)
    train_grpo(config, tmp_path / "run", cache, rewards=reward)
    rows = logged(tmp_path / "run")
    for row in rows:
        drawn, learned = int(str(row["drawn_groups"])), int(str(row["learned_groups"]))
        assert learned == 2 + drawn - int(str(row["equal_groups"]))
        assert learned == 2 or drawn == len(questions) - 2  # no other questions are left
    assert any(int(str(row["drawn_groups"])) for row in rows)
    train_grpo(config, tmp_path / "again", cache, rewards=reward)
    assert [row["loss"] for row in logged(tmp_path / "again")] == [row["loss"] for row in rows]


def test_a_step_of_equal_groups_alone_makes_no_update(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    """Not even the KL's, or the optimizer's momentum's."""
    lalm = tiny_lalm()
    config = replace(GRPO, questions=str(choices), dynamic_sampling=1, max_steps=1)
    train_grpo(config, tmp_path / "run", cache, lambda *_: lalm, rewards=equal_about(set()))
    before = weights_of(lalm)
    more = replace(config, max_steps=2)
    everything = {q.duration for q in read_questions(choices)}
    again = tiny_lalm()
    train_grpo(
        more,
        tmp_path / "run",
        cache,
        lambda *_: again,
        rewards=equal_about(everything),
    )
    row = logged(tmp_path / "run")[-1]
    assert (row["step"], row["grad_norm"], row["learned_groups"], row["drawn_groups"]) == (2, 0, 0, 2)
    assert "kl" not in row
    assert row["tokens_saved"] == pytest.approx(float(str(row["tokens"])) * (2 + 2) * 3)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(again).items())


def test_a_group_whose_responses_are_all_cut_and_masked_is_left_out_too(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    """Its rewards differ, and it has no gradient all the same: another question is drawn for it."""
    lalm = tiny_lalm()
    lalm.eos_id = -1  # no token: each response is cut
    config = replace(GRPO, questions=str(choices), dynamic_sampling=1, max_steps=1, group_size=6)
    for name, mask_cut, learned in (("taught", False, 2), ("masked", True, 0)):
        train_grpo(
            replace(config, mask_cut=mask_cut),
            tmp_path / name,
            cache,
            lambda *_: copy.deepcopy(lalm),
            rewards=equal_about(set()),
        )
        (row,) = logged(tmp_path / name)
        assert (row["equal_groups"], row["learned_groups"], row["drawn_groups"]) == (0, learned, 2 - learned)
        assert ("kl" in row) == (learned > 0)


@pytest.mark.parametrize(
    "options",
    [
        {"updates_per_rollout": 3},
        {"normalisation": "dapo", "epsilon_high": 0.28},
        {"normalisation": "dr_grpo", "scale_rewards": False},
        {"kl": "k2"},
        {"mask_cut": True},
    ],
)
def test_each_option_trains_and_is_another_loss(
    options: dict[str, object], choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    config = replace(GRPO, questions=str(choices), max_steps=2, max_new_tokens=12)
    # An end that is drawn now and then: by tokens and by responses is the same where all are cut.
    drawn: list[int] = []
    listening, ending = tiny_lalm(), tiny_lalm()
    listening.text = lambda ids: drawn.extend(ids) or ""  # type: ignore[method-assign]
    train_grpo(replace(config, max_steps=1), tmp_path / "first", cache, lambda *_: listening)
    ending.eos_id = max(set(drawn), key=drawn.count)
    for name, changed in (("plain", config), ("other", replace(config, **options))):  # type: ignore[arg-type]
        train_grpo(changed, tmp_path / name, cache, lambda *_: copy.deepcopy(ending))
    plain, other = logged(tmp_path / "plain"), logged(tmp_path / "other")
    assert plain[0]["reward"] == other[0]["reward"]  # the first responses are the same
    assert 0 < int(str(plain[0]["cut"])) < 6
    assert plain[1]["loss"] != pytest.approx(other[1]["loss"], rel=1e-4)
    assert all(0 <= float(str(row["drift"])) < 1e-4 for row in [*plain, *other])
    if "updates_per_rollout" in options:  # later updates have left the policy that sampled
        assert float(str(other[1]["kl"])) > float(str(plain[1]["kl"]))


LESS_MEMORY = {
    "responses": ("grpo", {"branches_at_once": 2}, 1e-5),
    "prompts": ("grpo", {"prompts_at_once": 1}, 1e-5),
    "prompts, by tokens": ("grpo", {"prompts_at_once": 1, "normalisation": "dapo"}, 1e-5),
    "layers": ("grpo", {"gradient_checkpointing": True}, 1e-5),
    "clips": ("sta", {"clips_at_once": 1}, 1e-5),
    "layers of stage 1": ("sta", {"gradient_checkpointing": True}, 1e-5),
    "bfloat16": ("grpo", {"bfloat16": True}, 0.02),
    "bfloat16 in stage 1": ("sta", {"bfloat16": True}, 0.02),
}


@pytest.mark.parametrize(
    ("units", "told"),
    [({"avx512_bf16": True}, ""), ({"avx512_f": True, "amx_bf16": False}, "--bfloat16: this CPU")],
)
def test_a_cpu_that_does_not_multiply_bfloat16_is_told_of(
    units: dict[str, bool], told: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    config = replace(STA, model=str(saved(tiny_lalm(), tmp_path / "base")), bfloat16=True)
    load_to_train(config, start(tmp_path))
    assert told in capsys.readouterr().err
    assert multiplies_bfloat16("cuda")
    assert multiplies_bfloat16() is (not told)


@pytest.mark.parametrize("case", LESS_MEMORY)
def test_what_saves_memory_changes_no_number(
    case: str, phrases: Path, choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    stage, options, tolerance = LESS_MEMORY[case]
    for name in ("plain", "other"):
        if stage == "sta":
            config = replace(STA, questions=str(phrases))
            train_sta(config if name == "plain" else replace(config, **options), tmp_path / name, cache)
        else:
            same: dict[str, Any] = {k: v for k, v in options.items() if k == "normalisation"}
            if case == "bfloat16":
                same["top_p"] = 1e-6  # the likeliest tokens: both learn from the same responses
            grpo = replace(GRPO, questions=str(choices), max_steps=2, **same)
            train_grpo(grpo if name == "plain" else replace(grpo, **options), tmp_path / name, cache)
    rows, others = logged(tmp_path / "plain"), logged(tmp_path / "other")
    assert len(rows) == len(others) >= 2
    n_equal = 1 if "bfloat16" in case else 2  # rounding differs, and so will what is sampled next
    for row, other in zip(rows[:n_equal], others[:n_equal], strict=True):
        for name in ("loss", "grad_norm"):
            assert float(str(row[name])) == pytest.approx(
                float(str(other[name])), abs=tolerance, rel=tolerance
            )


@pytest.mark.parametrize("normalisation", ["grpo", "dapo"])
def test_a_group_that_is_split_over_passes_has_the_gradient_of_the_whole(
    normalisation: str, choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    """Of the first update and of the second one on the same responses, some of which are shorter."""
    gradients: list[list[torch.Tensor]] = []

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        gradients.append([w.grad.clone() for w in optimizer.param_groups[0]["params"]])

    ending = tiny_lalm()
    ending.eos_id = ending.tokens("5")[0]
    config = replace(
        GRPO, questions=str(choices), max_steps=1, max_new_tokens=12, clip_norm=1e9, updates_per_rollout=2
    )
    config = replace(config, normalisation=normalisation, temperature=3.0, top_p=1.0, learning_rate=1e-4)  # type: ignore[arg-type]
    hook = register_optimizer_step_pre_hook(keep)
    passes: dict[str, Any] = {"whole": {}, "2": {"prompts_at_once": 1, "responses_at_once": 2}}
    passes["4"] = {"responses_at_once": 4}
    for name, at_once in passes.items():  # of groups of three: 4 are a group and a part of the next
        train_grpo(replace(config, **at_once), tmp_path / name, cache, lambda *_: copy.deepcopy(ending))
    hook.remove()
    assert 0 < int(logged(tmp_path / "whole")[0]["cut"]) < 6
    whole = gradients[:2]
    assert all(max(float(g.abs().max()) for g in update) > 1e-3 for update in whole)
    for n, name in enumerate(list(passes)[1:], 1):
        for update, other in zip(whole, gradients[2 * n : 2 * n + 2], strict=True):
            for gradient, theirs in zip(update, other, strict=True):
                assert torch.allclose(gradient, theirs, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("stage", ["sta", "grpo"])
def test_a_killed_run_goes_on_with_the_numbers_of_an_unbroken_one(
    stage: str, phrases: Path, choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:

    def train(out: Path) -> None:
        if stage == "sta":
            train_sta(replace(STA, questions=str(phrases)), out, cache)
        else:
            train_grpo(replace(GRPO, questions=str(choices)), out, cache, rewards=None)

    train(tmp_path / "whole")

    class Killed(BaseException):
        pass

    def die_in_the_third_step(*_: object) -> None:
        if (tmp_path / "broken/metrics.jsonl").exists() and len(logged(tmp_path / "broken")) == 2:
            raise Killed

    hook = register_optimizer_step_pre_hook(die_in_the_third_step)
    with pytest.raises(Killed):
        train(tmp_path / "broken")
    hook.remove()
    for step in (3, 4):  # logged, but in no checkpoint
        RunFolder(tmp_path / "broken").log({"step": step, "loss": 99.0})
    train(tmp_path / "broken")
    assert logged(tmp_path / "broken") == logged(tmp_path / "whole")
    for name in ("aligner.safetensors", *(["adapter_model.safetensors"] if stage == "grpo" else [])):
        whole, broken = (tmp_path / run / "adapter" / name for run in ("whole", "broken"))
        assert whole.read_bytes() == broken.read_bytes()


def write_checkpoints(folder: RunFolder, written: int) -> None:
    """One after the other, each of its step's number alone; a byte into the pipe for each."""
    for step in range(1, 10**6):
        parts = {
            str(n): torch.full((20_000,), float(step)) for n in range(10)
        }  # small: threads survive no fork
        save_checkpoint(folder, step, {"weights": parts})
        os.write(written, b".")


def test_kill_9_while_checkpoints_are_written_leaves_a_whole_one(tmp_path: Path) -> None:
    reader, written = os.pipe()
    writer = os.fork()
    if not writer:
        try:
            write_checkpoints(RunFolder(tmp_path), written)
        finally:
            os._exit(1)
    os.close(written)
    for _ in range(5):
        assert os.read(reader, 1)
    time.sleep(0.02)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.close(reader)
    state = load_checkpoint(RunFolder(tmp_path))
    assert state is not None
    assert state["step"] >= 5
    assert all((part == state["step"]).all() for part in state["weights"].values())


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    save_checkpoint(folder, 1, {"weights": {"w": torch.ones(3)}})

    def no_space(state: object, stream: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", no_space)
    with pytest.raises(RunError, match=r"No space left.*the last checkpoint is whole"):
        save_checkpoint(folder, 2, {"weights": {"w": torch.zeros(3)}})
    monkeypatch.undo()
    state = load_checkpoint(folder)
    assert state is not None
    assert state["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_really_full_device_is_reported_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1.pt").symlink_to("/dev/full")
    with pytest.raises(RunError, match="free some space"):
        save_checkpoint(RunFolder(tmp_path), 1, {"weights": {"w": torch.ones(100_000)}})


def test_a_cut_off_checkpoint_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    save_checkpoint(folder, 1, {"weights": {"w": torch.ones(1000)}})
    folder.checkpoint(1).write_bytes(folder.checkpoint(1).read_bytes()[:500])
    with pytest.raises(RunError, match=r"not a whole checkpoint.*delete it"):
        load_checkpoint(folder)


def test_a_run_with_other_arguments_is_refused_not_overwritten(tmp_path: Path) -> None:
    open_run(tmp_path / "run", "sta", STA)
    open_run(tmp_path / "run", "sta", STA)
    with pytest.raises(RunError, match="learning_rate"):
        open_run(tmp_path / "run", "sta", replace(STA, learning_rate=5.0))
    with pytest.raises(RunError, match="other arguments"):
        open_run(tmp_path / "run", "grpo", GRPO)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"no run\.json"):
        open_run(tmp_path, "sta", STA)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_setting_that_was_added_since_stops_no_run(tmp_path: Path) -> None:
    open_run(tmp_path / "run", "grpo", GRPO)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    del described["config"]["compaction"]  # as a run of before has it
    (tmp_path / "run" / "run.json").write_text(json.dumps(described))
    open_run(tmp_path / "run", "grpo", GRPO)
    with pytest.raises(RunError, match=r"other arguments \(compaction\)"):
        open_run(tmp_path / "run", "grpo", replace(GRPO, compaction=False))


def test_a_loss_that_is_not_finite_stops_before_the_weights(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    loss = (weight * float("nan")).sum()
    loss.backward()
    with pytest.raises(NotFinite, match="step 7"):
        step_or_stop(optimizer, [weight], loss, 1.0, 7)
    assert torch.equal(weight.detach(), torch.ones(2))


@pytest.mark.parametrize("stage", ["sta", "grpo"])
def test_a_step_that_is_not_finite_leaves_its_batch_and_the_weights_before(
    stage: str, phrases: Path, choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    lalm = tiny_lalm()

    def overflow(head: torch.nn.Module, inputs: object, logits: torch.Tensor) -> torch.Tensor:
        """In the second step what is learned from is not finite; what is sampled is."""
        is_second = load_checkpoint(RunFolder(out)) is not None
        return logits * float("inf") if is_second and torch.is_grad_enabled() else logits

    lalm.lm_head.register_forward_hook(overflow)
    train: Any = train_sta if stage == "sta" else train_grpo
    config: Any = (
        replace(STA, questions=str(phrases)) if stage == "sta" else replace(GRPO, questions=str(choices))
    )
    with pytest.raises(NotFinite, match=r"step 1: .*its batch: .*not-finite-step-1\.jsonl"):
        train(config, out, cache, lambda *_: lalm)
    batch = [json.loads(line) for line in (out / "not-finite-step-1.jsonl").read_text().splitlines()]
    wanted = {"id", "answer"} if stage == "sta" else {"question", "response", "rewards", "ids", "logps"}
    assert batch
    assert all(wanted <= row.keys() for row in batch)
    state = load_checkpoint(RunFolder(out))
    assert state is not None
    assert state["step"] == 1
    assert all(torch.isfinite(weight).all() for weight in state["weights"].values())


def test_responses_that_are_not_finite_stop_the_run_and_are_saved(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    lalm, out = tiny_lalm(), tmp_path / "run"
    with torch.no_grad():
        lalm.lm_head.weight[7] = float("nan")
    with pytest.raises(NotFinite, match=r"its batch: .*not-finite-step-0\.jsonl"):
        train_grpo(replace(GRPO, questions=str(choices)), out, cache, lambda *_: lalm)
    batch = [json.loads(line) for line in (out / "not-finite-step-0.jsonl").read_text().splitlines()]
    assert len(batch) == GRPO.prompts_per_step * GRPO.group_size
    assert all(row["logps"] == ["nan"] and "not finite" in row["failed"] for row in batch)


def test_numbers_that_json_lacks_are_spelled_out() -> None:
    row = {"a": float("nan"), "b": [1.5, float("inf"), {"c": (-float("inf"), 2)}], "d": "nan"}
    assert spelled_out(row) == {"a": "nan", "b": [1.5, "inf", {"c": ["-inf", 2]}], "d": "nan"}


@pytest.mark.parametrize("stage", ["sta", "grpo"])
def test_a_checkpoint_of_other_weights_is_refused_by_name(
    stage: str, phrases: Path, choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train: Any = train_sta if stage == "sta" else train_grpo
    config: Any = (
        replace(STA, questions=str(phrases)) if stage == "sta" else replace(GRPO, questions=str(choices))
    )
    train(config, out, cache)
    state = load_checkpoint(RunFolder(out))
    assert state is not None
    name = min(state["weights"])
    for changed in (
        {name + ".default": state["weights"][name]},  # as a newer PEFT might call it
        {},  # one that was not trained then
        {name: state["weights"][name][..., :1].clone()},
    ):
        weights = {n: w for n, w in state["weights"].items() if n != name} | changed
        save_checkpoint(RunFolder(out), int(state["step"]), {**state, "weights": weights})
        with pytest.raises(RunError, match=f"other weights than train now, first {re.escape(name)}"):
            train(config, out, cache)


def test_what_rounded_matrices_draw_is_weighed_and_their_drift_logged(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    config = replace(GRPO, questions=str(choices), max_steps=1)
    drifts = []
    for quantize in (None, "int8"):
        out = tmp_path / str(quantize)
        train_grpo(replace(config, quantize=quantize), out, cache)
        drifts.append(logged(out)[0]["drift"])
    assert drifts[0] < 1e-4 < drifts[1]
    assert (config.eq6.weight_cap, replace(config, quantize="int8").eq6.weight_cap) == (
        None,
        config.weight_cap,
    )
    with pytest.raises(OptionError, match="--quantize int8: must be without --vllm"):
        replace(config, quantize="int8", vllm="http://127.0.0.1:8000")


def test_grpo_says_which_right_answers_the_official_reward_never_pays(
    choices: Path, cache: FeatureCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = read_questions(choices)
    five = [replace(q, choices=("v", "w", "x", "y", str(q.answer))) for q in questions[:2]]
    path = choices.parent / "five.jsonl"
    write_jsonl(path, [*five, *questions[2:]])
    config = replace(GRPO, questions=str(path), max_steps=1)
    train_grpo(config, tmp_path / "official", cache)
    said = capsys.readouterr().out
    assert f"2 of {len(questions)} questions have a right answer beyond (d)" in said
    assert "--answer-reader strict" in said
    strict = replace(config, answer_reader="strict")
    train_grpo(strict, tmp_path / "strict", cache)
    assert "beyond (d)" not in capsys.readouterr().out
    (answer, *_) = rl.reward_terms(strict)
    columns = {"label": ["e"], "choices": [five[0].choices]}
    assert answer.function(completions=["So: (e)"], **columns) == [1.0]
    assert rl.reward_terms(config)[0].function(completions=["So: (e)"], **columns) == [0.0]


def test_clips_that_cannot_be_heard_are_recorded_and_the_run_goes_on(
    phrases: Path, cache: FeatureCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in phrases.read_text().splitlines()]
    save_wav(tmp_path / "long.wav", np.full(11 * 16_000, 0.1, np.float32))
    for row in rows:
        row["audio"] = str(phrases.parent / row["audio"])
    gone, long = rows[0]["audio"], rows[-1]["audio"]
    for row in rows:
        row["duration"] = 11.0 if row["audio"] == long else row["duration"]
        row["audio"] = {gone: "gone.wav", long: "long.wav"}.get(row["audio"], row["audio"])
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(STA, questions=str(questions), epochs=1)
    train_sta(config, tmp_path / "run", cache)
    errors = [json.loads(line) for line in (tmp_path / "run" / "errors.jsonl").read_text().splitlines()]
    assert {row["audio"] for row in errors} == {"gone.wav", "long.wav"}
    assert any("hears 10 s, the audio lasts 11.00 s" in row["error"] for row in errors)
    assert "2 clips are left out" in capsys.readouterr().out
    assert len(logged(tmp_path / "run")) == 2  # three clips are left, two a step

    split = FeatureCache(tmp_path / "cache", long_audio="split")
    train_sta(config, tmp_path / "split", split)
    assert len((tmp_path / "split" / "errors.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("stage", ["sta", "grpo", "sft"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"audio": "gone.wav"}, "gone.wav: no such file"),
        ({"duration": 9000.0}, 'and its row\'s "duration" is 9000'),
    ],
)
def test_that_no_clip_can_be_heard_is_said_before_a_model_is_loaded(
    phrases: Path, choices: Path, tmp_path: Path, stage: str, change: dict[str, object], says: str
) -> None:
    given = phrases if stage == "sta" else choices
    rows = [replace(q, audio=str(given.parent / q.audio)) for q in read_questions(given)]
    rows = [replace(row, **change) for row in rows]
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows if stage != "sft" else [Response(row, "m", "a") for row in rows])
    n_clips = len({row.audio for row in rows})

    def load(*_: object) -> AudioFlamingo3:
        raise AssertionError("loaded")

    train, config = {
        "sta": (sta.train_sta, STA),
        "grpo": (rl.train_grpo, GRPO),
        "sft": (sft.train_sft, SftConfig(responses=str(path))),
    }[stage]
    config = config if stage == "sft" else replace(config, questions=str(path))
    with pytest.raises(
        RunError, match=rf"rows.jsonl: none of its {n_clips} clips can be heard; the first: .*{says}"
    ):
        train(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), load)
    assert not (tmp_path / "run").exists()


def test_what_is_for_testing_is_not_trained_on(
    phrases: Path, choices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor what is of another kind; a corpus' own splits are in one file, as `tgsr build` writes it."""
    learned, held_out, tested = read_questions(phrases)[:3]
    rows = [
        learned,
        replace(held_out, split="dev-clean"),
        replace(tested, split="test"),
        *read_questions(choices),
    ]
    rows = [
        replace(q, audio=str((phrases if q.kind == "phrase" else choices).parent / q.audio)) for q in rows
    ]
    rows = [replace(q, id=f"{q.kind} {q.id}", clip_id=f"{q.kind} {q.clip_id}") for q in rows]
    mixed = tmp_path / "mixed.jsonl"
    write_jsonl(mixed, rows)
    cache = FeatureCache(tmp_path / "cache")
    train_sta(replace(STA, questions=str(mixed), epochs=1), tmp_path / "sta", cache)
    left_out = (
        f"{len(rows) - 1} of {len(rows)} questions are left out: {len(rows) - 3} are no phrase with its span"
    )
    assert f"{left_out}; 2 are for testing, by their split (dev-clean, test)" in capsys.readouterr().out
    (row,) = logged(tmp_path / "sta")
    lalm = tiny_base()
    audio = cache.keep(lalm, load_sound(rows[0].audio)).read()
    only = branch_logps(listen(lalm, [audio]), [sta.phrase_branch(lalm, learned)])
    assert row["loss"] == pytest.approx(-float(only.logp_BT[only.mask_BT].mean()), abs=1e-5)

    for q in rows:
        assert is_held_out(q) == (q.split != "train")
    names = ("test", "Test-other", "validation", "eval_1", "heldout-speaker", "held_out", "dev")
    assert all(is_held_out(replace(learned, split=name)) for name in names)
    assert not any(
        is_held_out(replace(learned, split=name)) for name in ("train", "devil", "all", "evaluated")
    )
    write_jsonl(mixed, rows[1:])
    with pytest.raises(RunError, match=r"no phrase with its span to train on.*2 are for testing"):
        train_sta(replace(STA, questions=str(mixed)), tmp_path / "none", cache)


def test_times_of_another_sound_or_in_another_unit_are_not_taught(phrases: Path, tmp_path: Path) -> None:
    """A row in milliseconds beside others of its clip in seconds; a recording of which the times' clip is a part."""
    rows = [json.loads(line) for line in phrases.read_text().splitlines()]
    for row in rows:
        row["audio"] = str(phrases.parent / row["audio"])
    thousandths, part = rows[1], rows[-1]
    save_wav(tmp_path / "whole.wav", np.full(9 * 16_000, 0.1, np.float32))
    thousandths["duration"] *= 1000
    thousandths["evidence"] = [[1000 * time for time in thousandths["evidence"][0]]]
    for row in rows[:-1]:
        row["duration"] += 0.4 if row["audio"] != part["audio"] else 0  # a header of mp3, rounding
    rows = [row for row in rows[:-1] if row["audio"] != part["audio"]] + [part | {"audio": "whole.wav"}]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_sta(
        replace(STA, questions=str(questions), epochs=1), tmp_path / "run", FeatureCache(tmp_path / "cache")
    )
    errors = [json.loads(line) for line in (tmp_path / "run" / "errors.jsonl").read_text().splitlines()]
    assert [row["audio"] for row in errors] == [thousandths["audio"], "whole.wav"]
    assert "give times in seconds, of this very file" in errors[0]["error"]
    assert "lasts 9.00 s, and its row's" in errors[1]["error"]
    assert len(logged(tmp_path / "run")) == 2  # three clips are left, two a step


def test_another_trainers_dropout_drops_nothing_where_layers_are_checkpointed(
    phrases: Path, tmp_path: Path
) -> None:
    theirs = LoraConfig(r=2, target_modules=LORA_TARGETS, init_lora_weights=False, lora_dropout=0.5)
    computed: list[str] = []

    def with_their_lora(*_: object) -> AudioFlamingo3:
        lalm = tiny_base()
        torch.manual_seed(0)
        with without_renaming_warning():
            lalm.model = get_peft_model(lalm.inner, theirs).eval()
        norm = lalm.language_model.layers[0].input_layernorm
        norm.register_forward_pre_hook(lambda *_: computed.append(name))
        return lalm

    for name in ("plain", "checkpointed"):
        config = replace(STA, questions=str(phrases), max_steps=2, gradient_checkpointing=name != "plain")
        train_sta(config, tmp_path / name, FeatureCache(tmp_path / "cache"), with_their_lora)
    plain, checkpointed = logged(tmp_path / "plain"), logged(tmp_path / "checkpointed")
    assert [row["loss"] for row in checkpointed] == pytest.approx([row["loss"] for row in plain], abs=1e-5)
    assert computed.count("checkpointed") == 2 * computed.count("plain") > 0  # again in the backward pass


def test_fine_tuning_learns_to_write_the_responses(
    choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    lalm = tiny_lalm()
    before = weights_of(lalm)
    questions = read_questions(choices)
    responses = [
        Response(q, "someone", f"From 0.10s to 0.90s. Final answer: (b) {i}") for i, q in enumerate(questions)
    ]
    path = choices.parent / "responses.jsonl"
    write_jsonl(path, responses)
    config = SftConfig(
        responses=str(path), epochs=25, clips_per_step=4, learning_rate=1e-2, schedule="linear"
    )
    sft.train_sft(config, tmp_path / "run", cache, lambda *_: lalm)
    rows = logged(tmp_path / "run")
    assert float(str(rows[-1]["loss"])) < 0.5 * float(str(rows[0]["loss"]))
    assert float(str(rows[-1]["lr"])) < 0.1 * 1e-2
    after = {name.replace(".base_layer", ""): w for name, w in lalm.model.get_base_model().named_parameters()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()


def test_numbers_go_to_tensorboard_too(phrases: Path, cache: FeatureCache, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = replace(STA, questions=str(phrases), epochs=1, tracker="tensorboard")
    train_sta(config, tmp_path / "run", cache)
    (folder,) = (tmp_path / "run").glob("tgsr-sta")
    events = reader.EventAccumulator(str(folder)).Reload()
    seen = [event.value for event in events.Scalars("loss")]
    assert seen == pytest.approx([float(str(row["loss"])) for row in logged(tmp_path / "run")], rel=1e-6)


def test_a_tracker_without_its_package_is_named(phrases: Path, cache: FeatureCache, tmp_path: Path) -> None:
    if importlib.util.find_spec("trackio"):
        pytest.skip("trackio is installed")
    with pytest.raises(RunError, match=r"tracker trackio: .*the extra 'trackio' of tgsr"):
        train_sta(
            replace(STA, questions=str(phrases), tracker="trackio"),
            tmp_path / "run",
            cache,
        )


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    lalm, other = load(saved(tiny_lalm(), tmp_path / "base")), tiny_lalm()
    with_lora(lalm, 4, 8, 0)
    save_adapter(lalm, tmp_path / "adapter")
    assert load_adapter(tmp_path / "adapter", "mine").name == "mine"
    other.language_model.norm.weight.data += 0.01  # the same shapes, trained a little further
    saved(other, tmp_path / "base")
    with pytest.raises(ModelError, match=r"trained on another model than .*base is now"):
        load_adapter(tmp_path / "adapter", "mine")


def test_a_bfloat16_base_keeps_the_aligner_as_it_was_trained(tmp_path: Path) -> None:
    """One step of table 5's learning rate is less than bfloat16 can tell apart."""
    in_bfloat16 = Placement("bfloat16")
    trained = load(saved(tiny_lalm(), tmp_path / "base"), in_bfloat16)
    trained.aligner.float()
    trained.aligner.linear_1.weight.data += 2e-5
    save_adapter(trained, tmp_path / "adapter")
    loaded = load_adapter(tmp_path / "adapter", "again", in_bfloat16)
    assert torch.equal(loaded.aligner.linear_1.weight, trained.aligner.linear_1.weight)
    loaded.aligner.requires_grad_(True)
    prefix = listen(loaded, [tiny_features(8, 0)])
    with torch.autocast("cpu", torch.bfloat16):
        branch_logps(prefix, [Branch(0, (5, 6), (7,))]).logp_BT.sum().backward()
    assert loaded.aligner.linear_1.weight.grad is not None


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"group_size": 1}, "--group-size 1: must be 2 or more"),
        ({"temperature": 0.0}, "--temperature 0.0: must be above 0"),
        ({"prompts_at_once": -1}, "--prompts-at-once -1: must be 1 or more"),
        ({"updates_per_rollout": 0}, "--updates-per-rollout 0: must be 1 or more"),
        ({"weight_cap": 0.5}, "--weight-cap 0.5: must be 1 or more"),
        ({"epsilon": 1.5}, "--epsilon 1.5: must be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_flag(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        replace(GRPO, **setting)


def test_settings_of_stage_1_too() -> None:
    with pytest.raises(OptionError, match="--clips-at-once -1: must be 1 or more"):
        replace(STA, clips_at_once=-1)


@pytest.mark.parametrize("stage", ["sta", "grpo"])
def test_what_has_no_room_in_the_context_is_named_before_any_step(
    stage: str, phrases: Path, choices: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    def short(name: str, *_: object) -> AudioFlamingo3:
        lalm = tiny_lalm()
        lalm.language_model.config.max_position_embeddings = 150
        return lalm

    train: Any = train_sta if stage == "sta" else train_grpo
    config: Any = (
        replace(STA, questions=str(phrases)) if stage == "sta" else replace(GRPO, questions=str(choices))
    )
    with pytest.raises(RunError, match=r"digits-.*: needs \d+ tokens with its audio, tiny's context has 150"):
        train(config, tmp_path / "run", cache, short)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_other_data_under_the_same_name_is_another_run(
    phrases: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [json.loads(line) for line in phrases.read_text().splitlines()]
    for row in rows:
        row["audio"] = str(phrases.parent / row["audio"])
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(STA, questions=str(questions), epochs=1)
    train_sta(config, tmp_path / "run", cache)
    with pytest.raises(RunError, match="other arguments"):
        train_sta(config, tmp_path / "run", replace(cache, long_audio="split"))
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    with pytest.raises(RunError, match=r"other arguments \(data\)"):
        train_sta(config, tmp_path / "run", cache)


def test_a_clip_that_went_missing_does_not_change_a_run_in_silence(
    phrases: Path, cache: FeatureCache, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(phrases.parent, tmp_path / "data"))
    config = replace(STA, questions=str(data / phrases.name), epochs=1)
    train_sta(config, tmp_path / "run", cache)
    (data / read_questions(config.questions)[0].audio).unlink()
    with pytest.raises(RunError, match="made with other clips or questions"):
        train_sta(config, tmp_path / "run", cache)


def test_the_linear_course_ends_at_zero() -> None:
    course = [linear(step, 100, 10) for step in range(101)]
    assert course[0] == pytest.approx(0.1)
    assert course[50] == pytest.approx(0.5)
    assert course[100] == 0


def test_the_learning_rate_warms_up_and_falls() -> None:
    course = [cosine(step, 100, 10) for step in range(100)]
    assert course[0] == pytest.approx(0.1)
    assert max(course) == pytest.approx(course[9], abs=0.03)
    assert course[-1] < 0.06
    assert course[10:] == sorted(course[10:], reverse=True)


def test_the_reference_policy_is_the_model_without_its_lora() -> None:
    lalm = tiny_lalm()
    clips, branches = [tiny_features(8, 0)], [Branch(0, lalm.prompt("When?").after, (5, 6, 7))]
    plain = branch_logps(listen(lalm, clips), branches).logp_BT
    with_lora(lalm, 4, 8, 0)
    for name, weight in lalm.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight)
    assert (branch_logps(listen(lalm, clips), branches).logp_BT - plain).abs().max() > 1e-2
    with lora_off(lalm):
        assert torch.allclose(branch_logps(listen(lalm, clips), branches).logp_BT, plain, atol=1e-6)


def test_the_table_of_what_trains_counts_each_block() -> None:
    lalm = tiny_lalm()
    n_before = sum(weight.numel() for weight in lalm.model.parameters())
    lalm.inner.requires_grad_(False)
    assert [part.n_trained for part in parts_of(lalm)] == [0, 0, 0, 0]
    lalm.aligner.requires_grad_(True)
    of = {part.block: part for part in parts_of(lalm)}
    assert of["aligner"].n_trained == of["aligner"].n == 16 * 32 + 32 + 32 * 32 + 32
    assert of["aligner"].trained == tuple(f"model.multi_modal_projector.linear_{index}" for index in (1, 2))
    with_lora(lalm, 4, 8, 0)
    of = {part.block: part for part in parts_of(lalm)}
    assert {block: part.n_trained for block, part in of.items() if part.n_trained} == {"LoRA": of["LoRA"].n}
    assert sum(part.n for part in of.values()) == n_before + of["LoRA"].n
    assert "model.language_model.layers.*.self_attn.q_proj" in of["LoRA"].trained
    assert f"{of['LoRA'].n:,}" in parts_table(lalm)


def test_a_saved_adapter_holds_safetensors_only(tmp_path: Path) -> None:
    lalm = tiny_lalm()
    with_lora(lalm, 4, 8, 0)
    save_adapter(lalm, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "adapter.json",
        "aligner.safetensors",
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_second_lora_is_refused() -> None:
    lalm = tiny_lalm()
    with_lora(lalm, 4, 8, 0)
    with pytest.raises(ModelError, match=r"has a LoRA already; .* or from what `tgsr merge`"):
        with_lora(lalm, 4, 8, 0)
