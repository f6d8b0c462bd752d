"""A run's settings as the terms of its reward, for our loop and for the plug-ins of other trainers alike."""

from __future__ import annotations

from functools import partial

from tgsr.dense_reward import dense_grounding_reward, grounded_reward
from tgsr.rewards import RewardTerm, answer_reward, timestamp_grounding_reward
from tgsr.training.config import GrpoConfig


def reward_terms(config: GrpoConfig) -> tuple[RewardTerm, ...]:
    """Eq. 3's two terms with the run's weights and counter, and those that look where a response points, if any.

    Without compaction every response with a timestamp earns c_max, however many it has. Table 3 names this
    variant and does not define it.
    """
    grounding = partial(
        timestamp_grounding_reward,
        k_ref=config.k_ref,
        k_max=config.k_max,
        c_max=config.c_max,
        c_min=config.c_min if config.compaction else config.c_max,
        counter=config.counter,
    )
    grounding_weight, dense_weight = config.weights
    terms = [
        RewardTerm("answer", partial(answer_reward, reader=config.answer_reader), config.answer_weight),
        RewardTerm("timestamp_grounding", grounding, grounding_weight),
    ]
    if config.reward == "grounded":
        terms.append(RewardTerm("place", partial(grounded_reward, c_max=config.c_max)))
    if dense_weight:
        dense = partial(dense_grounding_reward, c_max=config.c_max)
        terms.append(RewardTerm("dense_grounding", dense, dense_weight))
    return tuple(terms)
