"""ms-swift's reward functions tgsr_*, for `swift rlhf --rlhf_type grpo --external_plugins THIS_FILE`.

--dataset is what `tgsr export --to ms-swift` wrote. Eq. 3 is

    --reward_funcs tgsr_answer tgsr_timestamp_grounding

and `--reward grounded` of `tgsr train grpo` is tgsr_answer tgsr_place. Terms have the weight 1 unless --reward_weights
says otherwise. recipes/ms_swift.sh has the whole command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift.rewards import ORM, orms

from tgsr.data.plugged_rewards import STRICT, TERMS, term_rewards
from tgsr.rewards import Completion, RewardTerm


class Term(ORM):
    """One term of the reward; ms-swift makes one of it for each run, and logs it under its class's name."""

    term: RewardTerm

    def __call__(
        self, completions: Sequence[Completion], tgsr: Sequence[object] | None = None, **columns: Any
    ) -> list[float]:
        return term_rewards(self.term, completions, tgsr)


def register(name: str, term: RewardTerm) -> None:
    orms[name] = type(name, (Term,), {"term": term})


for term in TERMS.values():
    register(f"tgsr_{term.name}", term)
for term in STRICT.values():
    register(f"tgsr_{term.name}_strict", term)
