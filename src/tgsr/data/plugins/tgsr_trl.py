"""TRL's reward functions, for `trl grpo --reward_funcs tgsr.data.plugins.tgsr_trl.answer ...` or GRPOTrainer.

The data set is what `tgsr export --to trl` wrote. Eq. 3 is `answer` and `timestamp_grounding`, `--reward grounded` of
`tgsr train grpo` is `answer` and `place`; --reward_weights weighs them. recipes/trl.sh has the whole command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tgsr.data.other_trainers import kept, kept_in
from tgsr.data.plugged_rewards import ASKED, STRICT, TERMS, term_rewards
from tgsr.rewards import Completion, RewardTerm

Reward = Callable[..., list[float]]


def _of(term: RewardTerm, name: str) -> Reward:
    def reward(
        completions: Sequence[Completion], tgsr: Sequence[object] | None = None, **columns: Any
    ) -> list[float]:
        return term_rewards(term, completions, tgsr)

    reward.__name__ = name  # what TRL logs it under
    return reward


def answer(
    completions: Sequence[Completion],
    tgsr: Sequence[object] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float]:
    """Eq. 1, which every reward of ours has; with --log_completions the log gets the question, for `tgsr score`."""
    values = term_rewards(TERMS["answer"], completions, tgsr)
    if log_extra is not None and tgsr is not None:
        log_extra(ASKED, [kept(kept_in(one)[0]) for one in tgsr])
    return values


timestamp_grounding = _of(TERMS["timestamp_grounding"], "timestamp_grounding")
place = _of(TERMS["place"], "place")
dense_grounding = _of(TERMS["dense_grounding"], "dense_grounding")
answer_strict = _of(STRICT["answer"], "answer_strict")
timestamp_grounding_strict = _of(STRICT["timestamp_grounding"], "timestamp_grounding_strict")
