"""A clock on the aligned audio: stage 1 trains it, adapters carry it, and nothing else knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tgsr.check.check import check
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import listen
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import parts_of
from tgsr.models.clock import PERIODS, Clock, add_clock, periods
from tgsr.models.lalm import Lalm
from tgsr.models.load import fingerprint, load
from tgsr.models.merge import merge
from tgsr.rl import train_grpo
from tgsr.sta import train_sta
from tgsr.training.config import GrpoConfig, StaConfig
from tiny import noise, questions_in, tiny_gemma4, tiny_lalm, tiny_qwen_omni, tiny_whisper


def ticking(lalm: Any) -> Any:
    """The model with a clock that says something."""
    generator = torch.Generator().manual_seed(0)
    clock = add_clock(lalm)
    with torch.no_grad():
        clock.linear.weight.copy_(torch.randn(clock.linear.weight.shape, generator=generator))
    return lalm


def test_it_says_the_seconds_as_sinusoids() -> None:
    clock = Clock(3, (2.0, 0.5))
    with torch.no_grad():
        clock.linear.weight.copy_(torch.eye(4)[:3])
        clock.linear.bias.fill_(1.0)
        said = clock(np.array([0.0, 0.5, 0.125]))
    # 1 + sin of 2 s, sin of 0.5 s and cos of 2 s
    expected = [[1, 1, 2], [2, 1, 1], [1 + np.sin(np.pi / 8), 2, 1 + np.cos(np.pi / 8)]]
    assert torch.allclose(said, torch.tensor(expected, dtype=torch.float32), atol=1e-6)


def test_periods_go_on_to_twice_what_is_heard() -> None:
    assert periods(7) == PERIODS
    assert periods(9)[-3:] == (20.0, 40.0, 80.0)
    for seconds, longest in ((10.0, 20.0), (30.0, 80.0), (600.0, 1280.0), (5.0, 20.0)):
        lalm = tiny_lalm()
        lalm.max_seconds = seconds
        assert add_clock(lalm).periods[-1] == longest


@pytest.mark.parametrize("make", [tiny_lalm, tiny_qwen_omni, tiny_gemma4, tiny_whisper])
def test_a_new_one_changes_nothing_and_one_that_is_there_stays(make: Any) -> None:
    lalm = make()
    features, before = lalm.encode_audio(noise(1.0)), fingerprint(lalm)
    with torch.no_grad():
        aligned = lalm.align(features)
        clock = add_clock(lalm)
        assert torch.equal(lalm.align(features), aligned)
        assert add_clock(lalm) is clock
        ticking(lalm)
        said = clock(lalm.frame_middles(len(aligned)))
        assert torch.allclose(lalm.align(features), aligned + said, atol=1e-6)
        assert torch.equal(lalm.project(features), aligned)
        heard = listen(lalm, [features])
        rows = heard.memory[0] if lalm.cross_attends else heard.rows[0][heard.n_before :]
        assert torch.allclose(rows, lalm.in_row(aligned + said), atol=1e-5)
    assert fingerprint(lalm) == before  # an adapter with a clock goes on the base without
    assert sum(part.n for part in parts_of(lalm) if part.block == "aligner") == sum(
        weight.numel() for module in (lalm.aligner, clock) for weight in module.parameters()
    )


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clock")
    questions = questions_in(folder / "sta", "sta", 2, n_phrases=2)
    config = StaConfig(
        questions=str(questions), clips_per_step=1, learning_rate=1e-2, max_steps=2, model="mini", clock=True
    )
    return train_sta(config, folder / "run", FeatureCache(folder / "cache"))


def of_clock(lalm: Lalm) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in lalm.inner.named_parameters() if name.startswith("clock.")}


def test_stage_1_trains_it_and_stage_2_keeps_it(adapter: Path, tmp_path: Path) -> None:
    lalm = load(str(adapter))
    trained = of_clock(lalm)
    assert set(trained) == {"clock.linear.weight", "clock.linear.bias"}
    assert all(weight.abs().max() > 0 and not weight.requires_grad for weight in trained.values())
    questions = questions_in(tmp_path / "qa", "qa", 2, most=1)
    config = GrpoConfig(
        questions=str(questions),
        model=str(adapter),
        prompts_per_step=1,
        group_size=2,
        max_new_tokens=3,
        max_steps=1,
    )
    after = load(str(train_grpo(config, tmp_path / "run", FeatureCache(tmp_path / "cache"))))
    assert after.base == lalm.base == "mini"
    for name, weight in of_clock(after).items():
        assert torch.equal(weight, trained[name])


def test_stage_1_goes_on_training_one_that_is_there(adapter: Path, tmp_path: Path) -> None:
    questions = questions_in(tmp_path / "sta", "sta", 1, n_phrases=1)
    config = StaConfig(
        questions=str(questions), clips_per_step=1, learning_rate=1e-2, max_steps=1, model=str(adapter)
    )
    again = load(str(train_sta(config, tmp_path / "run", FeatureCache(tmp_path / "cache"))))
    before = of_clock(load(str(adapter)))
    assert all(not torch.equal(weight, before[name]) for name, weight in of_clock(again).items())


def test_a_checkpoint_has_no_place_for_it(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has a clock on its aligned audio"):
        merge(load(str(adapter)), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_check_holds_the_rest_against_the_official_class(tmp_path: Path) -> None:
    lalm = ticking(tiny_lalm())
    clock = lalm.clock
    checked = check(lalm, tmp_path, parts=(1, 2))
    assert checked.passed, [row for row in checked.rows if row.fails]
    assert lalm.clock is clock
