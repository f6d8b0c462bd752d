"""verl's and verl-omni's custom reward function, for files that `tgsr export --to verl` wrote.

    reward.custom_reward_function.path=pkg://tgsr.data.plugins.tgsr_verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.reward=grounded

reward_kwargs are settings of `tgsr train grpo` (reward, counter, answer_reader, grounding_weight, k_max, ...); without
any it is Eq. 3. Before verl 0.8 the options have no `reward.` before them. recipes/verl.sh has the whole command.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tgsr.data.other_trainers import KEPT, kept, kept_in
from tgsr.data.plugged_rewards import ASKED, rewards, terms_of

settings_to_terms = lru_cache(maxsize=16)(terms_of)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    reward_router_address: object = None,
    reward_model_tokenizer: object = None,
    **settings: Any,
) -> dict[str, float | str]:
    """`score` is the reward, the weighted sum of the terms; they are beside it by their names, unweighted.

    `acc` is the answer's, which verl's validation reports. verl logs all of it, the question too, for `tgsr score`.
    RecordError for a row that `tgsr export` did not write; of settings the errors of `terms_of`.
    """
    asked = (extra_info or {}).get(KEPT)
    by_term, (score,) = rewards([solution_str], [asked], settings_to_terms(**settings))
    terms = {name: value for name, (value,) in by_term.items()}
    return {"score": score, "acc": terms["answer"], **terms, ASKED: kept(kept_in(asked)[0])}
