"""Advantages, loss and KL against hand-worked numbers, finite differences and TRL's own trainer."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tgsr.grpo import (
    Eq6,
    GrpoDiagnostics,
    Responses,
    group_advantages,
    grpo,
    grpo_loss,
    kl_estimate,
    kl_k3,
    rollout_weights,
)

TRL = json.loads((Path(__file__).parent / "parity" / "trl_grpo.json").read_text(encoding="utf-8"))


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch(seed: int = 0, n_sequences: int = 5, n_tokens: int = 4) -> dict[str, Tensor]:
    """Random arguments of `grpo_loss`: ragged, off-policy enough that some tokens are clipped."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_sequences, n_tokens)
    logp_BT = -3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    lengths_B1 = torch.randint(1, n_tokens + 1, (n_sequences, 1), generator=generator)
    return {
        "logp_BT": logp_BT,
        "old_logp_BT": logp_BT + 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64),
        "ref_logp_BT": logp_BT + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64),
        "mask_BT": torch.arange(n_tokens) < lengths_B1,
        "advantages_B": torch.randn(n_sequences, generator=generator, dtype=torch.float64),
    }


def loss_and_gradient(arguments: dict[str, Tensor], **settings: float) -> tuple[Tensor, Tensor]:
    logp_BT = arguments["logp_BT"].clone().requires_grad_()
    loss = grpo_loss(**{**arguments, "logp_BT": logp_BT}, **settings)
    (gradient_BT,) = torch.autograd.grad(loss, logp_BT)
    return loss.detach(), gradient_BT


def diagnostics_of(arguments: dict[str, Tensor], **settings: float) -> GrpoDiagnostics:
    return grpo(Responses(**arguments), Eq6(**settings))[1]


# Eq. 5


def test_advantages_use_the_sample_standard_deviation_plus_eps():
    # Mean 1, squared deviations 1 + 0 + 1; over G - 1 = 2 that is 1, over G it would be 2/3.
    advantages = group_advantages(tensor([[0.0, 1.0, 2.0]]))
    torch.testing.assert_close(advantages, tensor([[-1 / 1.0001, 0.0, 1 / 1.0001]]), rtol=0, atol=1e-12)


def test_each_prompt_is_its_own_group():
    rewards = tensor([[0.0, 1.5], [10.0, 11.5], [5.0, 5.0]])
    advantages = group_advantages(rewards)
    torch.testing.assert_close(advantages[0], advantages[1])
    assert advantages[2].tolist() == [0.0, 0.0]


def test_equal_rewards_get_exact_zeros_though_their_float32_mean_is_off():
    rewards = torch.full((1, 7), 0.1)
    assert (rewards.mean(dim=1) != rewards[:, 0]).all(), "pick a number whose float32 mean is rounded"
    assert group_advantages(rewards).tolist() == [[0.0] * 7]


def test_whole_number_rewards_are_not_divided_as_integers():
    torch.testing.assert_close(
        group_advantages(torch.tensor([[0, 1]])), group_advantages(torch.tensor([[0.0, 1.0]]))
    )


@pytest.mark.parametrize("shape", [(2, 1), (2, 0), (4,), (1, 2, 2)])
def test_a_group_of_one_has_no_relative_reward(shape):
    with pytest.raises(ValueError, match="G >= 2"):
        group_advantages(torch.zeros(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_number_does_not_reach_its_group(bad):
    with pytest.raises(ValueError, match="must be finite"):
        group_advantages(tensor([[0.0, bad]]))


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8), st.floats(-5, 5))
def test_advantages_sum_to_zero_and_ignore_a_constant(rewards, constant):
    advantages = group_advantages(tensor([rewards]))
    assert abs(advantages.sum().item()) < 1e-6
    torch.testing.assert_close(group_advantages(tensor([rewards]) + constant), advantages, rtol=0, atol=1e-6)


# The KL term


def test_kl_is_the_third_estimator():
    # The reference gives the token probability 0.2, the policy 0.1: r = 2.
    kl = kl_k3(tensor([0.1]).log(), tensor([0.2]).log())
    torch.testing.assert_close(kl, tensor([2 - math.log(2) - 1]))


def test_kl_averages_to_the_true_kl_under_the_policy():
    policy, reference = tensor([0.7, 0.2, 0.1]), tensor([0.5, 0.1, 0.4])
    estimate = (policy * kl_k3(policy.log(), reference.log())).sum()
    torch.testing.assert_close(estimate, (policy * (policy / reference).log()).sum())


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_kl_is_never_negative(logp, ref_logp):
    assert kl_k3(tensor([logp]), tensor([ref_logp])).item() >= 0


def test_kl_of_float32_log_probs_that_almost_agree_is_not_lost_to_rounding():
    # r - log r - 1 = d^2 / 2 for small d = log r; float32's exp(d) - 1 alone is off by 6e-8.
    logp = torch.tensor([-1.0])
    ref_logp = logp + 2.0**-10
    assert kl_k3(logp, ref_logp).item() == pytest.approx(2.0**-21, rel=0.01)


# Eq. 6


def test_loss_worked_by_hand():
    # Two responses of two tokens and one; probabilities chosen so that every ratio is plain.
    logp_BT = tensor([[0.5, 0.3], [0.2, 0.9]]).log()
    old_logp_BT = tensor([[0.4, 0.3], [0.4, 0.9]]).log()  # ratios 1.25 and 1; 0.5
    ref_logp_BT = tensor([[0.5, 0.6], [0.2, 0.1]]).log()  # r 1 and 2; 1
    mask_BT = torch.tensor([[True, True], [True, False]])
    advantages_B = tensor([2.0, -1.0])
    kl = 1 - math.log(2)
    first = (-1.2 * 2 + (-1.0 * 2 + 0.04 * kl)) / 2  # 1.25 is clipped to 1.2; the mean of two tokens
    second = 0.8  # min(-0.5, -0.8): clipped at 0.8; one token
    loss = grpo_loss(logp_BT, old_logp_BT, ref_logp_BT, mask_BT, advantages_B)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-12)
    responses = Responses(logp_BT, old_logp_BT, ref_logp_BT, mask_BT, advantages_B)
    assert grpo(responses, Eq6())[1] == GrpoDiagnostics(
        mean_kl=pytest.approx(kl / 3),
        clip_fraction=pytest.approx(2 / 3),
        mean_ratio=pytest.approx((1.25 + 1 + 0.5) / 3),
        n_tokens=3,
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.1, 1.0, 1.1, 1.1),
        (1.5, 1.0, 1.2, 0.0),  # already more likely by more than epsilon: no further push
        (0.5, 1.0, 0.5, 0.5),  # a good response grown unlikely is still pushed up
        (0.9, -1.0, -0.9, -0.9),
        (0.5, -1.0, -0.8, 0.0),  # already less likely by more than epsilon
        (1.5, -1.0, -1.5, -1.5),  # a bad response grown likely is still pushed down
    ],
)
def test_the_clip_takes_the_gradient_only_where_the_step_already_went_far(ratio, advantage, objective, slope):
    old_logp_BT = tensor([[-2.0]])
    arguments = {
        "logp_BT": old_logp_BT + math.log(ratio),
        "old_logp_BT": old_logp_BT,
        "ref_logp_BT": None,
        "mask_BT": torch.ones(1, 1, dtype=torch.bool),
        "advantages_B": tensor([advantage]),
    }
    loss, gradient_BT = loss_and_gradient(arguments, beta=0.0)
    assert -loss.item() == pytest.approx(objective)
    assert -gradient_BT.item() == pytest.approx(slope)
    assert diagnostics_of(arguments, beta=0.0).clip_fraction == (1.0 if slope == 0 else 0.0)


@pytest.mark.parametrize("beta", [0.0, 0.04, 1.0])
def test_gradient_equals_finite_differences(beta):
    arguments = batch(seed=3)
    _, gradient_BT = loss_and_gradient(arguments, beta=beta)
    assert 0 < diagnostics_of(arguments).clip_fraction < 1, "both branches of the clip must be in the batch"
    step = 1e-6
    for at in [(b, t) for b in range(5) for t in range(4)]:
        nudge_BT = torch.zeros_like(gradient_BT)
        nudge_BT[at] = step
        up, down = (
            grpo_loss(**{**arguments, "logp_BT": arguments["logp_BT"] + sign * nudge_BT}, beta=beta)
            for sign in (1, -1)
        )
        assert gradient_BT[at].item() == pytest.approx((up - down).item() / (2 * step), abs=1e-7)


def test_a_long_response_weighs_no_more_than_a_short_one():
    logp_BT = tensor([[-1.0, -1.0, -1.0, -1.0], [-1.0, 0.0, 0.0, 0.0]])
    mask_BT = tensor([[1, 1, 1, 1], [1, 0, 0, 0]])
    arguments = {"logp_BT": logp_BT, "old_logp_BT": logp_BT, "ref_logp_BT": logp_BT, "mask_BT": mask_BT}
    _, gradient_BT = loss_and_gradient({**arguments, "advantages_B": tensor([1.0, 1.0])})
    torch.testing.assert_close(gradient_BT.sum(dim=1), tensor([-0.5, -0.5]))


def test_the_ratio_is_to_the_sampling_policy_not_to_the_reference():
    arguments = batch(seed=1)
    moved = {**arguments, "ref_logp_BT": arguments["ref_logp_BT"] - 1}
    torch.testing.assert_close(grpo_loss(**moved, beta=0.0), grpo_loss(**arguments, beta=0.0), rtol=0, atol=0)
    moved = {**arguments, "old_logp_BT": arguments["old_logp_BT"] - 1}
    assert abs(grpo_loss(**moved, beta=0.0) - grpo_loss(**arguments, beta=0.0)) > 0.01


def test_log_probs_as_their_own_denominator_still_learn():
    arguments = batch(seed=2)
    logp_BT = arguments["logp_BT"].clone().requires_grad_()
    grpo_loss(**{**arguments, "logp_BT": logp_BT, "old_logp_BT": logp_BT}, beta=0.0).backward()
    lengths_B1 = arguments["mask_BT"].sum(dim=1, keepdim=True)
    # At ratio 1 this is the plain policy gradient, -A / |tau| / B a token.
    expected_BT = -arguments["advantages_B"].unsqueeze(1) / lengths_B1 / 5 * arguments["mask_BT"]
    torch.testing.assert_close(logp_BT.grad, expected_BT)


def test_equal_rewards_give_no_gradient_but_the_kls():
    arguments = batch(seed=4, n_sequences=4)
    arguments["advantages_B"] = group_advantages(tensor([[1.4, 1.4, 1.4, 1.4]])).flatten()
    _, without_kl_BT = loss_and_gradient(arguments, beta=0.0)
    assert not without_kl_BT.any()
    _, gradient_BT = loss_and_gradient(arguments, beta=0.04)
    # d/dlogp (r - log r - 1) = 1 - r with r = ref / policy
    slope_BT = 1 - (arguments["ref_logp_BT"] - arguments["logp_BT"]).exp()
    lengths_B1 = arguments["mask_BT"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(gradient_BT, 0.04 * slope_BT * arguments["mask_BT"] / lengths_B1 / 4)


@pytest.mark.parametrize("junk", [0.0, -50.0, math.inf, -math.inf, math.nan])
def test_padding_has_no_influence_whatever_stands_in_it(junk):
    arguments = batch(seed=5)
    loss, gradient_BT = loss_and_gradient(arguments)
    padding_BT = ~torch.cat([arguments["mask_BT"], torch.zeros(5, 2, dtype=torch.bool)], dim=1)
    padded = dict(arguments)
    for name in ("logp_BT", "old_logp_BT", "ref_logp_BT"):
        wide_BT = torch.cat([arguments[name], tensor([[junk, junk]] * 5)], dim=1)
        padded[name] = wide_BT.masked_fill(padding_BT, junk)
    padded["mask_BT"] = ~padding_BT
    padded_loss, padded_gradient_BT = loss_and_gradient(padded)
    torch.testing.assert_close(padded_loss, loss)
    torch.testing.assert_close(padded_gradient_BT[:, :4], gradient_BT)
    assert not padded_gradient_BT[padding_BT].any()
    assert diagnostics_of(padded) == diagnostics_of(arguments)


def test_a_response_without_tokens_adds_nothing_and_counts_in_the_mean():
    arguments = batch(seed=6, n_sequences=3)
    loss, gradient_BT = loss_and_gradient(arguments)
    longer = {name: torch.cat([value, torch.full_like(value[:1], 1)]) for name, value in arguments.items()}
    longer["mask_BT"][3] = False
    longer_loss, longer_gradient_BT = loss_and_gradient(longer)
    torch.testing.assert_close(longer_loss, loss * 3 / 4)
    torch.testing.assert_close(longer_gradient_BT[:3], gradient_BT * 3 / 4)
    assert longer_gradient_BT[3].tolist() == [0.0] * 4


@pytest.mark.parametrize("n_tokens", [0, 3])
def test_a_batch_without_any_token_is_zero_and_unscored(n_tokens):
    zeros_BT = torch.zeros(2, n_tokens, dtype=torch.float64)
    arguments = {"logp_BT": zeros_BT, "old_logp_BT": zeros_BT, "ref_logp_BT": zeros_BT}
    arguments |= {"mask_BT": zeros_BT.bool(), "advantages_B": tensor([1.0, -1.0])}
    loss, gradient_BT = loss_and_gradient(arguments)
    assert loss.item() == 0.0
    assert not gradient_BT.any()
    assert diagnostics_of(arguments) == GrpoDiagnostics(None, None, None, n_tokens=0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.permutations(range(5)))
def test_the_order_of_responses_does_not_matter(seed, order):
    arguments = batch(seed)
    loss, gradient_BT = loss_and_gradient(arguments)
    shuffled = {name: value[list(order)] for name, value in arguments.items()}
    shuffled_loss, shuffled_gradient_BT = loss_and_gradient(shuffled)
    torch.testing.assert_close(shuffled_loss, loss)
    torch.testing.assert_close(shuffled_gradient_BT, gradient_BT[list(order)])


def test_a_step_against_the_gradient_makes_the_better_response_likelier():
    logits_BV = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    tokens_BT = torch.tensor([[0], [1]])
    logp_BT = logits_BV.log_softmax(dim=1).gather(1, tokens_BT)
    advantages_B = group_advantages(tensor([[1.4, 0.0]])).flatten()
    grpo_loss(logp_BT, logp_BT, None, torch.ones_like(tokens_BT), advantages_B, beta=0.0).backward()
    after_BT = (logits_BV - 0.1 * logits_BV.grad).log_softmax(dim=1).gather(1, tokens_BT)
    assert after_BT[0] > logp_BT[0]
    assert after_BT[1] < logp_BT[1]


def test_diagnostics_without_a_reference_have_no_kl():
    assert diagnostics_of({**batch(), "ref_logp_BT": None}, beta=0.0).mean_kl is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ref_logp_BT": None}, "beta=0.04 needs ref_logp_BT"),
        ({"advantages_B": torch.zeros(4)}, r"advantages_B must be \(5,\), got shape \(4,\)"),
        ({"advantages_B": torch.zeros(5, 1)}, "advantages_B"),
        ({"old_logp_BT": torch.zeros(5, 3)}, r"old_logp_BT must have .* \(5, 4\), got \(5, 3\)"),
        ({"ref_logp_BT": torch.zeros(1, 4)}, "ref_logp_BT must have"),
        ({"mask_BT": torch.ones(4)}, "mask_BT must have"),
        ({"logp_BT": torch.zeros(0, 4)}, "B >= 1"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"epsilon": 1.5}, "epsilon=1.5"),
        ({"beta": -0.1}, "beta=-0.1"),
    ],
)
def test_shapes_that_would_broadcast_and_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        grpo_loss(**{**batch(), **change})


# Options


def test_normalisations_worked_by_hand():
    # Ratio 1 and no KL: each token's loss is minus its advantage. Two responses, of one and of three tokens.
    logp_BT = torch.zeros(2, 3, dtype=torch.float64)
    mask_BT = torch.tensor([[1, 0, 0], [1, 1, 1]])
    arguments = (logp_BT, logp_BT, None, mask_BT, tensor([1.0, -2.0]))
    assert grpo_loss(*arguments, beta=0.0).item() == pytest.approx((-1 + 2) / 2)
    assert grpo_loss(*arguments, beta=0.0, normalisation="dapo").item() == pytest.approx((-1 + 6) / 4)
    dr_grpo = grpo_loss(*arguments, beta=0.0, normalisation="dr_grpo", max_tokens=5)
    assert dr_grpo.item() == pytest.approx((-1 + 6) / (2 * 5))
    with pytest.raises(ValueError, match="max_tokens"):
        grpo_loss(*arguments, beta=0.0, normalisation="dr_grpo")


def test_a_higher_upper_clip_leaves_room_for_unlikely_tokens():
    ratio = tensor([[math.log(1.25)]])
    arguments = (ratio, torch.zeros_like(ratio), None, torch.ones(1, 1), tensor([1.0]))
    assert grpo_loss(*arguments, beta=0.0).item() == pytest.approx(-1.2)
    assert grpo_loss(*arguments, beta=0.0, epsilon_high=0.28).item() == pytest.approx(-1.25)
    down = (-ratio, *arguments[1:4], tensor([-1.0]))
    assert grpo_loss(*down, beta=0.0).item() == grpo_loss(*down, beta=0.0, epsilon_high=0.28).item()


def test_the_kls_gradient_is_right_on_average_for_k2_and_k3_and_none_for_k1():
    # All tokens of a vocabulary of four, each weighted by its probability: the exact expectation.
    logits, ref = tensor([0.3, -1.0, 0.7, 0.1]).requires_grad_(), tensor([0.0, 0.5, -0.2, 0.4]).log_softmax(0)
    logp = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((logp.exp() * (logp - ref)).sum(), logits, retain_graph=True)
    gradients = {}
    for estimator in ("k1", "k2", "k3"):
        expected = (logp.detach().exp() * kl_estimate(logp, ref, estimator)).sum()
        (gradients[estimator],) = torch.autograd.grad(expected, logits, retain_graph=True)
    torch.testing.assert_close(gradients["k2"], exact)
    torch.testing.assert_close(gradients["k1"], torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    # k3's is the gradient of the other direction, KL(reference || policy).
    (other,) = torch.autograd.grad((ref.exp() * (ref - logp)).sum(), logits)
    torch.testing.assert_close(gradients["k3"], other)


def test_rollout_weights_undo_another_engines_log_probs_up_to_the_cap():
    ours, theirs = tensor([[-1.0, -2.0, -0.1, 7.0]]), tensor([[-1.5, -1.0, -3.0, math.nan]])
    weights = rollout_weights(ours, theirs, torch.tensor([[1, 1, 1, 0]]))
    torch.testing.assert_close(weights, tensor([[math.exp(0.5), math.exp(-1.0), 2.0, 1.0]]))
    responses = Responses(ours, ours, None, torch.tensor([[1, 1, 1, 0]]), tensor([1.0]), theirs)
    weighted, diagnostics = grpo(responses, Eq6(beta=0.0, weight_cap=2.0))
    assert diagnostics.drift == pytest.approx(2.9)
    assert weighted.item() == pytest.approx(-weights[0, :3].mean().item())


# TRL's own trainer on the same numbers; tests/parity/trl_grpo.py wrote the file.


def test_advantages_equal_trls():
    advantages = group_advantages(torch.tensor(TRL["rewards_PG"])).flatten()  # float32, as in TRL
    torch.testing.assert_close(advantages, torch.tensor(TRL["advantages_B"]), rtol=0, atol=1e-6)


def test_unscaled_advantages_equal_trls():
    advantages = group_advantages(torch.tensor(TRL["rewards_PG"]), scale=False).flatten()
    torch.testing.assert_close(advantages, torch.tensor(TRL["unscaled_advantages_B"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "case",
    TRL["cases"],
    ids=lambda case: f"{case['normalisation']},beta={case['beta']},on_policy={case['on_policy']}",
)
def test_loss_gradient_and_diagnostics_equal_trls(case):
    arguments = {name: tensor(TRL[name]) for name in ("logp_BT", "ref_logp_BT", "mask_BT", "advantages_B")}
    arguments["old_logp_BT"] = arguments["logp_BT"] if case["on_policy"] else tensor(TRL["old_logp_BT"])
    loss, gradient_BT = loss_and_gradient(
        arguments,
        epsilon=case["epsilon"],
        epsilon_high=case["epsilon_high"],
        beta=case["beta"],
        normalisation=case["normalisation"],
        max_tokens=len(TRL["mask_BT"][0]),
    )
    assert loss.item() == pytest.approx(case["loss"], rel=0, abs=1e-6)
    torch.testing.assert_close(gradient_BT, tensor(case["gradient_BT"]), rtol=0, atol=1e-6)
    diagnostics = diagnostics_of(arguments, epsilon=case["epsilon"], epsilon_high=case["epsilon_high"])
    assert diagnostics.clip_fraction == pytest.approx(case["clip_fraction"], abs=1e-6)
    if case["mean_kl"] is not None:
        assert diagnostics.mean_kl == pytest.approx(case["mean_kl"], abs=1e-6)


def test_the_parity_file_exercises_what_it_is_for():
    lengths = {sum(row) for row in TRL["mask_BT"]}
    assert {0, 1, 6} <= lengths, "ragged, with an empty and a full response"
    assert any(len(set(rewards)) == 1 for rewards in TRL["rewards_PG"]), "a group of equal rewards"
    clip_fractions = [case["clip_fraction"] for case in TRL["cases"] if not case["on_policy"]]
    assert clip_fractions
    assert all(0.1 < fraction < 0.9 for fraction in clip_fractions)
