"""The family whose audio enters by cross-attention: Whisper, tiny and random, and the packaged base where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import Branch, SoftTimes, branch_logps, listen
from tgsr.errors import OptionError
from tgsr.models.lalm import Lalm
from tgsr.records import read_questions
from tgsr.sta import phrase_branch, soft_times_of, train_sta
from tgsr.timeline import Span
from tgsr.training.config import StaConfig
from tgsr.training.run import make_trainable
from tiny import logged, questions_in, tiny_lalm, tiny_whisper

STA = StaConfig(questions="", clips_per_step=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("sta"), "sta", 4, n_phrases=2)


# --- times in words and in tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "written"),
    [
        (7.4, 9.4, "<|7.40|><|9.40|>"),
        (0.0, 0.006, "<|0.00|><|0.02|>"),  # an end after the start, however short the phrase
        (29.98, 30.0, "<|29.98|><|30.00|>"),
        (31.0, 33.0, "<|29.98|><|30.00|>"),  # words that end after the window
    ],
)
def test_times_are_the_two_nearest_tokens(start: float, end: float, written: str) -> None:
    lalm = tiny_whisper()
    lalm.times = "tokens"
    answer = lalm.phrase_answer("seven two", Span(start, end))
    assert answer == written
    ids = lalm.response_tokens(answer)
    assert len(ids) == 2
    assert ids[0] < ids[1]
    assert lalm.text([*ids, lalm.eos_id]) == answer
    assert [lalm.first_tick, lalm.first_tick + 1500] == lalm.response_tokens("<|0.00|><|30.00|>")


def test_stage_1_teaches_time_tokens_that_the_adapter_then_writes(phrases: Path, tmp_path: Path) -> None:
    lalm = tiny_whisper()
    config = replace(STA, questions=str(phrases), times="tokens", soft_times=3.0, epochs=4)
    adapter = train_sta(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), lambda *_: lalm)
    assert json.loads((adapter / "adapter.json").read_text())["times"] == "tokens"
    assert lalm.times == "tokens"
    losses = [float(row["loss"]) for row in logged(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.1
    closing = phrase_branch(lalm, read_questions(phrases)[0]).prompt[-1]
    assert closing == lalm.tokenizer.convert_tokens_to_ids("<|transcribe|>")  # no <|notimestamps|> after it


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_soft_times_are_the_mean_log_prob_under_a_gaussian_over_ticks(spread: float) -> None:
    lalm = tiny_whisper()
    lalm.times = "tokens"
    soft = soft_times_of(lalm, spread)
    assert soft == SoftTimes(lalm.first_tick, 1501, spread)
    prefix = listen(lalm, [torch.randn(40, 32)])
    prompt = lalm.prompt("when?").after
    tick = int(lalm.first_tick) + 20
    (logp,) = branch_logps(prefix, [Branch(0, prompt, (tick,))], soft_times=soft).logp_BT.detach()
    every = [Branch(0, prompt, (tick + n,)) for n in range(-20, 21)]
    near = branch_logps(prefix, every).logp_BT.detach()[:, 0]
    weight = torch.exp(-0.5 * (torch.arange(-20, 21) / spread) ** 2)
    assert float(logp[0]) == pytest.approx(float((weight * near).sum() / weight.sum()), abs=1e-4)
    text = Branch(0, prompt, (5, 6, lalm.eos_id))
    hard, same = (branch_logps(prefix, [text], soft_times=s).logp_BT for s in (None, soft))
    assert torch.equal(hard, same)  # what is no time is as it was


@pytest.mark.parametrize("make", [tiny_whisper, tiny_lalm])
def test_times_that_a_model_cannot_write_are_refused(make: Callable[[], Lalm]) -> None:
    lalm = make()
    with pytest.raises(OptionError, match=r"--soft-times 3: tiny writes times in words; add --times tokens"):
        soft_times_of(lalm, 3.0)
    if lalm.first_tick is None:
        with pytest.raises(OptionError, match="--times tokens: tiny has no tokens for times"):
            make_trainable(lalm, replace(STA, times="tokens"))
    make_trainable(lalm, replace(STA, times="words"))
    assert lalm.times == "words"
    with pytest.raises(OptionError, match=r"--soft-times -1.0: must be 0 or more"):
        replace(STA, soft_times=-1.0)
