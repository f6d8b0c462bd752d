"""What a step's row of the log says: of the policy, of the rewards, of each task, of the seconds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tgsr import rl
from tgsr.engine.features import FeatureCache
from tgsr.engine.sampling import Sampled, entropy, sample, uniforms
from tgsr.engine.shared_prefix import listen
from tgsr.grpo import Responses
from tgsr.records import read_questions
from tgsr.training.config import GrpoConfig
from tgsr.training.stopwatch import Stopwatch
from tgsr.training.trackers import numbers_of
from tiny import logged, questions_in, rewarded_by, tiny_base, tiny_features, tiny_lalm, uneven


def rollout(reward: float, task: str, *, right: float = 0.0, entropies: tuple[float, ...] = ()) -> rl.Rollout:
    sampled = Sampled((5, 6), False, (-1.0, -2.0), entropies=entropies)
    return rl.Rollout("q", task, "", sampled, {"answer": right, "timestamp_grounding": 0.0}, reward, 0.0)


def measured(n: int) -> Responses:
    logp_BT = torch.tensor([[-1.0, -2.0]]).repeat(n, 1)
    return Responses(*[logp_BT] * 3, torch.ones(n, 2, dtype=torch.bool), torch.zeros(n), logp_BT)


CONFIG = GrpoConfig(questions="", group_size=2)


def test_deviations_of_rewards_within_groups_and_between_them() -> None:
    rollouts = [rollout(reward, "") for reward in (0.0, 1.0, 3.0, 3.0)]
    row = rl.log_row(rollouts, [measured(4)], CONFIG)
    assert row["reward_std_within"] == pytest.approx((0.5**0.5 + 0) / 2)  # ddof 1, as in Eq. 5
    assert row["reward_std_between"] == pytest.approx(abs(0.5 - 3.0) / 2**0.5)
    assert rl.log_row(rollouts[:2], [measured(2)], CONFIG)["reward_std_between"] == 0  # one group


def test_what_no_reward_can_teach_is_said() -> None:
    row = {"cut": 3, "equal_groups": 4}
    assert rl.doubts_of(row, 8, 9, CONFIG) == {}
    assert set(rl.doubts_of(row, 8, 10, CONFIG)) == {"idle"}
    (said,) = rl.doubts_of(row | {"cut": 4}, 8, 0, replace(CONFIG, max_new_tokens=7)).values()
    assert said.startswith("4 of 8 responses reached --max-new-tokens 7 before")


def test_accuracy_by_task_counts_responses_and_leaves_out_questions_without_one() -> None:
    rollouts = [rollout(0, "who", right=1), rollout(0, "who"), rollout(0, "after", right=1), rollout(0, "")]
    assert rl.log_row(rollouts, [measured(4)], CONFIG)["accuracy_by_task"] == {"after": 1.0, "who": 0.5}


def test_entropy_is_exact_where_our_sampler_drew_and_else_an_estimate_by_another_name() -> None:
    exact = [rollout(0, "", entropies=(0.5, 1.5)), rollout(0, "", entropies=(1.0, 2.0))]
    row = rl.log_row(exact, [measured(2)], CONFIG)
    assert (row["entropy"], "entropy_sampled" in row) == (1.25, False)
    row = rl.log_row([rollout(0, ""), rollout(0, "")], [measured(2)], CONFIG)
    assert (row["entropy_sampled"], "entropy" in row) == (1.5, False)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_entropy_of_a_distribution(temperature: float) -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf, 0.0], [0.0, 1.0, 2.0, 3.0], [1e4, 0.0, 0.0, 0.0]])
    wanted = torch.distributions.Categorical(logits=logits[1] / temperature).entropy()
    assert entropy(logits, temperature).tolist() == pytest.approx([math.log(3), float(wanted), 0.0])


def test_sampled_entropies_are_those_of_separate_forwards() -> None:
    """One for each token, whoever left the batch before; none where nothing is drawn."""
    lalm = tiny_lalm()
    prefix = listen(lalm, [tiny_features(7, 0)])

    def drawn() -> list[Sampled]:
        draws = {"temperature": 0.7, "top_p": 0.9, "uniform_BN": uniforms(6, 8, 0)}
        return sample(prefix, [0] * 6, [(5,)] * 6, max_new_tokens=8, **draws)  # type: ignore[arg-type]

    lalm.eos_id = drawn()[0].ids[2]  # so that some end before others
    assert len({len(response.ids) for response in drawn()}) > 1
    for response in drawn():
        assert len(response.entropies) == len(response.ids)
        tokens = lalm.embed(torch.tensor((5, *response.ids)))
        row = torch.cat([prefix.rows[0], tokens])[None]
        hidden = lalm.language_model(inputs_embeds=row).last_hidden_state[0, len(prefix.rows[0]) : -1]
        wanted = torch.distributions.Categorical(logits=lalm.lm_head(hidden) / 0.7).entropy()
        assert response.entropies == pytest.approx(wanted.tolist(), abs=1e-4)
    assert sample(prefix, [0], [(5,)], max_new_tokens=3, temperature=0)[0].entropies == ()


def test_a_run_logs_the_seconds_of_each_phase_and_each_task(tmp_path: Path) -> None:
    questions = questions_in(tmp_path, "qa", 2, most=2)
    config = GrpoConfig(questions=str(questions), prompts_per_step=2, group_size=2, max_new_tokens=3)
    cache, out = FeatureCache(tmp_path / "cache"), tmp_path / "run"
    rl.train_grpo(config, out, cache, tiny_base, rewarded_by(uneven))
    (row,) = logged(out, with_seconds=True)
    assert list(row["seconds"]) == ["listen", "sample", "reward", "update"]
    assert row["seconds"]["sample"] > 0
    assert 0 < row["entropy"] < math.log(len(tiny_lalm().tokenizer))
    assert set(row["accuracy_by_task"]) == {question.task for question in read_questions(questions)}


def test_the_page_on_training_names_all_that_a_row_holds(tmp_path: Path) -> None:
    questions = questions_in(tmp_path, "qa", 2, most=2)
    config = GrpoConfig(
        questions=str(questions),
        prompts_per_step=2,
        group_size=2,
        max_new_tokens=3,
        dynamic_sampling=0,
        watch=str(questions),
    )
    rl.train_grpo(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), tiny_base, rewarded_by(uneven))
    row = logged(tmp_path / "run", with_seconds=True)[-1]
    page = (Path(__file__).parents[1] / "docs/training.md").read_text(encoding="utf-8")
    named = {*row, *row["watch"], *row["seconds"]}
    assert {"kl", "tokens_saved", "intervals", "listen"} <= named
    assert [key for key in sorted(named) if f"`{key}`" not in page] == []


def test_a_checkpoint_has_its_seconds_in_the_row_after_it(tmp_path: Path) -> None:
    questions = questions_in(tmp_path, "qa", 2, most=2)
    config = GrpoConfig(
        questions=str(questions), prompts_per_step=1, group_size=2, max_new_tokens=3, checkpoint_every=1
    )
    rl.train_grpo(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), tiny_base, rewarded_by(uneven))
    first, second = (list(row["seconds"]) for row in logged(tmp_path / "run", with_seconds=True))
    assert (first, second) == (["listen", "sample", "reward", "update"], ["save", *first])


def test_laps_of_one_phase_add_up() -> None:
    watch = Stopwatch()
    for phase in ("sample", "update", "sample"):
        watch.lap(phase)
    assert list(watch.seconds) == ["sample", "update"]
    assert all(0 <= seconds < 1 for seconds in watch.seconds.values())


def test_numbers_within_a_row_are_named_as_trackers_group_them() -> None:
    row = {
        "step": 3,
        "loss": 0.5,
        "sampled": "text",
        "watch": {"k": 1.0, "trace_iou": None, "by": {"who": 1}},
    }
    assert numbers_of(row) == {"step": 3, "loss": 0.5, "watch/k": 1.0, "watch/by/who": 1}
