"""Group Relative Policy Optimization as pure tensor functions: advantages, clipped loss, KL.

Axis suffixes: P prompts, G responses to one prompt, B sequences (B = P x G where whole groups are
in the batch), T response tokens, padded to the longest.

Three policies have log-probs here: `logp` is the one being trained, `old_logp` the one that sampled
the responses, `ref_logp` the frozen one that the KL term holds on to. The paper's text calls the
ratio's denominator "the reference policy"; it is the sampling policy here, as in GRPO's own paper
and in TRL: the ratio corrects for who sampled, the KL term for how far training has gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Normalisation = Literal["grpo", "dapo", "dr_grpo"]
KlEstimator = Literal["k1", "k2", "k3"]


def group_advantages(rewards_PG: Tensor, eps: float = 1e-4, *, scale: bool = True) -> Tensor:
    """Reward relative to the other responses to the same prompt: (P, G) -> (P, G).

    Needs G >= 2 and finite rewards, else ValueError; whole numbers and booleans become float32.
    A group of equal rewards gets exact zeros: no gradient but the KL term's. Without `scale` rewards are
    centred and not divided by their group's deviation (Dr. GRPO, arXiv 2503.20783: dividing weighs
    questions that are nearly always or nearly never solved more than others).
    Source: Eq. 5; the sample standard deviation (ddof = 1) and eps are ours, as in TRL.
    """
    if rewards_PG.ndim != 2 or rewards_PG.shape[1] < 2:
        raise ValueError(f"rewards_PG must be (P, G) with G >= 2, got shape {tuple(rewards_PG.shape)}")
    if not rewards_PG.is_floating_point():
        rewards_PG = rewards_PG.to(torch.float32)
    if not torch.isfinite(rewards_PG).all():
        raise ValueError(f"rewards_PG must be finite, got {rewards_PG.tolist()}")
    centred_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    advantages_PG = (
        centred_PG / (rewards_PG.std(dim=1, correction=1, keepdim=True) + eps) if scale else centred_PG
    )
    # The mean of equal float32 rewards can be one rounding step off, which eps = 1e-4 turns into 1e-3.
    equal_P1 = rewards_PG.amax(dim=1, keepdim=True) == rewards_PG.amin(dim=1, keepdim=True)
    return advantages_PG.masked_fill(equal_P1, 0.0)


def kl_k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """KL(policy || reference) estimated at each sampled token, elementwise: r - log r - 1, r = ref / policy.

    Never negative, 0 where the two agree. Unbiased in value for tokens sampled from the policy.
    Source: Eq. 6's D_KL; the estimator, unspecified in the paper, is GRPO's own ("k3"), unweighted.
    """
    log_r = ref_logp - logp
    return torch.expm1(log_r) - log_r


def kl_estimate(logp: Tensor, ref_logp: Tensor, estimator: KlEstimator = "k3") -> Tensor:
    """KL(policy || reference) at each sampled token by one of three estimators.

    k1: -log r, unbiased, of either sign, and useless as a loss: its gradient is that of the log-prob and
    averages to zero. k2: (log r)^2 / 2, biased in value, its gradient is the KL's own. k3: kl_k3.
    Source: Schulman, "Approximating KL Divergence" (2020).
    """
    log_r = ref_logp - logp
    if estimator == "k1":
        return -log_r
    if estimator == "k2":
        return 0.5 * log_r**2
    return kl_k3(logp, ref_logp)


def rollout_weights(logp_BT: Tensor, rollout_logp_BT: Tensor, mask_BT: Tensor, cap: float = 2.0) -> Tensor:
    """Truncated importance weights, trainer / sampler a token, at most `cap`; 1 at padding. No gradient.

    For responses whose sampler computes other log-probs than the trainer (another engine, another
    precision): multiplied into the loss they correct for the difference, and the cap bounds their variance.
    Source: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (2025).
    """
    difference_BT = (logp_BT.detach() - rollout_logp_BT.detach()).masked_fill(~mask_BT.bool(), 0.0)
    return difference_BT.exp().clamp(max=cap)


def grpo_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    mask_BT: Tensor,
    advantages_B: Tensor,
    epsilon: float = 0.2,
    beta: float = 0.04,
    *,
    epsilon_high: float | None = None,
    normalisation: Normalisation = "grpo",
    max_tokens: int | None = None,
    kl: KlEstimator = "k3",
    weights_BT: Tensor | None = None,
) -> Tensor:
    """The loss to minimise, a scalar: minus Eq. 6, the mean over sequences of each one's token mean.

    Log-probs are those of the sampled tokens, in float32 or wider. `mask_BT` is true (or nonzero)
    at the response's tokens; what stands elsewhere, even inf or NaN, has no influence. A sequence
    without tokens adds 0 and still counts in the mean. Gradients flow into `logp_BT` only, so on
    the first update after sampling `old_logp_BT` may be `logp_BT` itself: every ratio is 1 then.
    `ref_logp_BT` may be None where beta is 0.

    Options, none of them the paper's: `epsilon_high` clips upwards at 1 + epsilon_high (DAPO, arXiv
    2503.14476, "clip higher"). `normalisation` "dapo" is the mean over all tokens of the batch, so that long
    responses weigh more; "dr_grpo" the sum over tokens divided by B * max_tokens, the longest response
    allowed, so that length has no say at all. `kl` is kl_estimate's. `weights_BT` multiplies the
    policy term (rollout_weights), not the KL term.

    ValueError for shapes that disagree, B = 0, epsilon outside (0, 1), epsilon_high not above 0, beta < 0,
    beta > 0 without a reference, or "dr_grpo" without max_tokens.
    Source: Eq. 6; defaults from table 6.
    """
    ratio_BT, kl_BT, mask_BT = _ratio_and_kl(
        logp_BT, old_logp_BT, ref_logp_BT, mask_BT, advantages_B, epsilon, beta, kl
    )
    if epsilon_high is not None and not epsilon_high > 0:
        raise ValueError(f"epsilon_high must be above 0, got {epsilon_high}")
    if weights_BT is not None and weights_BT.shape != logp_BT.shape:
        raise ValueError(
            f"weights_BT must have logp_BT's shape {tuple(logp_BT.shape)}, got {tuple(weights_BT.shape)}"
        )
    advantages_B1 = advantages_B.detach().unsqueeze(1)
    clipped_BT = ratio_BT.clamp(1 - epsilon, 1 + (epsilon if epsilon_high is None else epsilon_high))
    loss_BT = -torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)
    if weights_BT is not None:
        loss_BT = loss_BT * weights_BT.detach()
    if kl_BT is not None:
        loss_BT = loss_BT + beta * kl_BT
    loss_BT = loss_BT.masked_fill(~mask_BT, 0.0)
    if normalisation == "dapo":
        return loss_BT.sum() / mask_BT.sum().clamp(min=1)
    if normalisation == "dr_grpo":
        if max_tokens is None or max_tokens < 1:
            raise ValueError(f"dr_grpo divides by the longest response allowed: max_tokens={max_tokens}")
        return loss_BT.sum() / (len(loss_BT) * max_tokens)
    loss_B = loss_BT.sum(dim=1) / mask_BT.sum(dim=1).clamp(min=1)
    return loss_B.mean()


@dataclass(frozen=True, slots=True)
class GrpoDiagnostics:
    """What one loss was made of: means over the batch's response tokens, each token alike.

    `mean_kl` is the k3 estimate, None without a reference. `clip_fraction` is the share of tokens
    whose gradient the clip removed. `mean_ratio` is 1 while policy and sampling policy agree.
    All are None where there is no token.
    """

    mean_kl: float | None
    clip_fraction: float | None
    mean_ratio: float | None
    n_tokens: int


@torch.no_grad()
def grpo_diagnostics(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    mask_BT: Tensor,
    advantages_B: Tensor,
    epsilon: float = 0.2,
    *,
    epsilon_high: float | None = None,
) -> GrpoDiagnostics:
    """Mean KL (k3), clip fraction and mean ratio for `grpo_loss`'s arguments, under its rules and errors.

    A token is clipped where its ratio is above 1 + epsilon (or epsilon_high) and its advantage positive, or
    below 1 - epsilon and negative: only there does the clip take the gradient away.
    """
    ratio_BT, kl_BT, mask_BT = _ratio_and_kl(
        logp_BT, old_logp_BT, ref_logp_BT, mask_BT, advantages_B, epsilon, beta=0.0
    )
    n_tokens = int(mask_BT.sum())
    if n_tokens == 0:
        return GrpoDiagnostics(mean_kl=None, clip_fraction=None, mean_ratio=None, n_tokens=0)
    advantages_B1 = advantages_B.unsqueeze(1)
    upper = 1 + (epsilon if epsilon_high is None else epsilon_high)
    clipped_BT = ((ratio_BT > upper) & (advantages_B1 > 0)) | ((ratio_BT < 1 - epsilon) & (advantages_B1 < 0))
    return GrpoDiagnostics(
        mean_kl=None if kl_BT is None else kl_BT[mask_BT].mean().item(),
        clip_fraction=clipped_BT[mask_BT].sum().item() / n_tokens,
        mean_ratio=ratio_BT[mask_BT].mean().item(),
        n_tokens=n_tokens,
    )


def _ratio_and_kl(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    mask_BT: Tensor,
    advantages_B: Tensor,
    epsilon: float,
    beta: float,
    kl: KlEstimator = "k3",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Checked inputs as ratio (1 at padding), KL (0 at padding; None without reference), boolean mask."""
    if logp_BT.ndim != 2 or logp_BT.shape[0] == 0:
        raise ValueError(f"logp_BT must be (B, T) with B >= 1, got shape {tuple(logp_BT.shape)}")
    expected = {"old_logp_BT": old_logp_BT, "ref_logp_BT": ref_logp_BT, "mask_BT": mask_BT}
    for name, tensor in expected.items():
        if tensor is not None and tensor.shape != logp_BT.shape:
            raise ValueError(
                f"{name} must have logp_BT's shape {tuple(logp_BT.shape)}, got {tuple(tensor.shape)}"
            )
    if advantages_B.shape != logp_BT.shape[:1]:
        raise ValueError(f"advantages_B must be ({logp_BT.shape[0]},), got shape {tuple(advantages_B.shape)}")
    if not (0 < epsilon < 1 and beta >= 0):
        raise ValueError(f"need 0 < epsilon < 1 and beta >= 0, got epsilon={epsilon}, beta={beta}")
    if ref_logp_BT is None and beta > 0:
        raise ValueError(f"beta={beta} needs ref_logp_BT; without a reference policy set beta=0")
    mask_BT = mask_BT.bool()
    # Padding is replaced before exp: 0 x inf afterwards would be NaN, in the loss or in its gradient.
    logp_BT = logp_BT.masked_fill(~mask_BT, 0.0)
    old_logp_BT = old_logp_BT.detach().masked_fill(~mask_BT, 0.0)
    kl_BT = None
    if ref_logp_BT is not None:
        kl_BT = kl_estimate(logp_BT, ref_logp_BT.detach().masked_fill(~mask_BT, 0.0), kl)
    return torch.exp(logp_BT - old_logp_BT), kl_BT, mask_BT
