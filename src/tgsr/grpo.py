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
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # at run time only methods of tensors are called: the command line's options come from here
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
        rewards_PG = rewards_PG.float()
    if not rewards_PG.isfinite().all():
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
    return log_r.expm1() - log_r


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


@dataclass(frozen=True, slots=True)
class Eq6:
    """The constants of Eq. 6, table 6's, and options that are not the paper's.

    `epsilon_high` clips upwards at 1 + epsilon_high (DAPO, arXiv 2503.14476, "clip higher"). `normalisation`
    "dapo" is the mean over all tokens of the batch, so that long responses weigh more; "dr_grpo" the sum over
    tokens divided by B * max_tokens, the longest response allowed, so that length has no say at all. `kl` is
    kl_estimate's. With `weight_cap` the policy term is weighed by rollout_weights, for responses that another
    engine sampled. ValueError for epsilon outside (0, 1), epsilon_high not above 0, beta < 0, or "dr_grpo"
    without max_tokens.
    """

    epsilon: float = 0.2
    beta: float = 0.04
    epsilon_high: float | None = None
    normalisation: Normalisation = "grpo"
    max_tokens: int | None = None
    kl: KlEstimator = "k3"
    weight_cap: float | None = None

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < 1 and self.beta >= 0):
            raise ValueError(
                f"need 0 < epsilon < 1 and beta >= 0, got epsilon={self.epsilon}, beta={self.beta}"
            )
        if self.epsilon_high is not None and not self.epsilon_high > 0:
            raise ValueError(f"epsilon_high must be above 0, got {self.epsilon_high}")
        if self.normalisation == "dr_grpo" and (self.max_tokens is None or self.max_tokens < 1):
            raise ValueError(f"dr_grpo divides by the longest response allowed: max_tokens={self.max_tokens}")

    @property
    def upper(self) -> float:
        """The largest ratio that is not clipped."""
        return 1 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)


@dataclass(frozen=True, slots=True)
class Responses:
    """The sampled tokens of B responses: what Eq. 6 is made of.

    Log-probs are those of the sampled tokens, in float32 or wider. `mask_BT` is true (or nonzero) at a response's
    tokens; what stands elsewhere, even inf or NaN, has no influence. `ref_logp_BT` may be None where beta is 0.
    `old_logp_BT` is computed as `logp_BT` is; `sampler_logp_BT` are the numbers that the sampling engine itself
    gave, needed where weight_cap is set. ValueError for shapes that disagree and B = 0.
    """

    logp_BT: Tensor
    old_logp_BT: Tensor
    ref_logp_BT: Tensor | None
    mask_BT: Tensor
    advantages_B: Tensor
    sampler_logp_BT: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.logp_BT.shape
        if len(shape) != 2 or shape[0] == 0:
            raise ValueError(f"logp_BT must be (B, T) with B >= 1, got shape {tuple(shape)}")
        for name in ("old_logp_BT", "ref_logp_BT", "mask_BT", "sampler_logp_BT"):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and tensor.shape != shape:
                raise ValueError(
                    f"{name} must have logp_BT's shape {tuple(shape)}, got {tuple(tensor.shape)}"
                )
        if self.advantages_B.shape != shape[:1]:
            raise ValueError(
                f"advantages_B must be ({shape[0]},), got shape {tuple(self.advantages_B.shape)}"
            )


@dataclass(frozen=True, slots=True)
class GrpoDiagnostics:
    """What one loss was made of: means over the batch's response tokens, each token alike.

    `mean_kl` is the k3 estimate, None without a reference. `clip_fraction` is the share of tokens whose gradient
    the clip removed: the ratio is too high and the advantage positive, or too low and negative. `mean_ratio` is 1
    while policy and sampling policy agree. `drift` is the largest difference between sampler_logp_BT and
    old_logp_BT, in nats, None without the former. All are None where there is no token.
    """

    mean_kl: float | None
    clip_fraction: float | None
    mean_ratio: float | None
    n_tokens: int
    drift: float | None = None


def grpo(responses: Responses, eq6: Eq6) -> tuple[Tensor, GrpoDiagnostics]:
    """The loss to minimise, a scalar: minus Eq. 6, the mean over sequences of each one's token mean; and what it
    was made of.

    A sequence without tokens adds 0 and still counts in the mean. Gradients flow into `logp_BT` only, so on the
    first update after sampling `old_logp_BT` may be `logp_BT` itself: every ratio is 1 then.
    ValueError for beta > 0 without a reference, weight_cap without the sampler's log-probs. Source: Eq. 6.
    """
    if responses.sampler_logp_BT is None and eq6.weight_cap is not None:
        raise ValueError(f"weight_cap={eq6.weight_cap} needs sampler_logp_BT")
    if responses.ref_logp_BT is None and eq6.beta > 0:
        raise ValueError(f"beta={eq6.beta} needs ref_logp_BT; without a reference policy set beta=0")
    mask_BT = responses.mask_BT.bool()
    # Padding is replaced before exp: 0 x inf afterwards would be NaN, in the loss or in its gradient.
    logp_BT = responses.logp_BT.masked_fill(~mask_BT, 0.0)
    old_logp_BT = responses.old_logp_BT.detach().masked_fill(~mask_BT, 0.0)
    advantages_B1 = responses.advantages_B.detach().unsqueeze(1)

    ratio_BT = (logp_BT - old_logp_BT).exp()
    clipped_BT = ratio_BT.clamp(1 - eq6.epsilon, eq6.upper)
    loss_BT = -(ratio_BT * advantages_B1).minimum(clipped_BT * advantages_B1)
    drift = None
    if responses.sampler_logp_BT is not None:
        sampler_logp_BT = responses.sampler_logp_BT.detach().masked_fill(~mask_BT, 0.0)
        if eq6.weight_cap is not None:
            loss_BT = loss_BT * rollout_weights(old_logp_BT, sampler_logp_BT, mask_BT, eq6.weight_cap)
        drift = float((sampler_logp_BT - old_logp_BT).abs().max()) if mask_BT.any() else None
    mean_kl = None
    if responses.ref_logp_BT is not None:
        ref_logp_BT = responses.ref_logp_BT.detach().masked_fill(~mask_BT, 0.0)
        loss_BT = loss_BT + eq6.beta * kl_estimate(logp_BT, ref_logp_BT, eq6.kl)
        mean_kl = _mean(kl_k3(logp_BT.detach(), ref_logp_BT), mask_BT)
    loss_BT = loss_BT.masked_fill(~mask_BT, 0.0)

    if eq6.normalisation == "dapo":
        loss = loss_BT.sum() / mask_BT.sum().clamp(min=1)
    elif eq6.normalisation == "dr_grpo":
        loss = loss_BT.sum() / (len(loss_BT) * (eq6.max_tokens or 1))
    else:
        loss = (loss_BT.sum(dim=1) / mask_BT.sum(dim=1).clamp(min=1)).mean()

    went_far_BT = (ratio_BT > eq6.upper) & (advantages_B1 > 0)
    went_far_BT |= (ratio_BT < 1 - eq6.epsilon) & (advantages_B1 < 0)
    n_tokens = int(mask_BT.sum())
    clip_fraction = int(went_far_BT[mask_BT].sum()) / n_tokens if n_tokens else None
    return loss, GrpoDiagnostics(mean_kl, clip_fraction, _mean(ratio_BT, mask_BT), n_tokens, drift)


def _mean(value_BT: Tensor, mask_BT: Tensor) -> float | None:
    return value_BT.detach()[mask_BT].mean().item() if mask_BT.any() else None


def grpo_loss(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor | None,
    mask_BT: Tensor,
    advantages_B: Tensor,
    epsilon: float = 0.2,
    beta: float = 0.04,
    **options: Any,
) -> Tensor:
    """The loss of `grpo` for tensors that are given one by one; `options` are the other fields of Eq6."""
    responses = Responses(logp_BT, old_logp_BT, ref_logp_BT, mask_BT, advantages_B)
    return grpo(responses, Eq6(epsilon, beta, **options))[0]
