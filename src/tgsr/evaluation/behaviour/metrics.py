"""What behaviour.json holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from tgsr.statistics.intervals import Mean, percent

CRITERIA = {"verify": "hallucination-free", "consistency": "reasoning to answer"}
"""What of a response these measures ask for, in the words of arXiv 2509.22363 (the second is ours)."""


@dataclass(frozen=True, slots=True)
class Flips:
    """How often a verdict changes where nothing that matters has changed. `rate` over cases with both verdicts.

    `to_yes` counts those that became 1, `to_no` those that became 0: a bias has a direction.
    """

    rate: Mean
    to_yes: int
    to_no: int

    def told(self, variant: str) -> str:
        """The rate and the directions in words for a terminal, after what was varied."""
        return f"{variant}: {percent(self.rate)} of verdicts change ({self.to_yes} to 1, {self.to_no} to 0)"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One model's behaviours over its responses to questions with choices; intervals are over clips.

    accuracy: as `tgsr score` has it officially, of a benchmark's questions by its owner's rule.
    verify: the mean over responses that cite something that could be verified; verify_zero: the same with 0 for
    responses that cite nothing (docs/behaviour.md says which of the two the paper can have meant); verify_by: `verify`
    by each similarity that was compared: does a difference hang on the chosen one? n_unverifiable counts
    cited intervals by what was wrong with them. consistency: over the responses with a verdict; `by_variant` has
    it under the turned order of choices and with the verdicts swapped, `flips` how often a verdict changed; n_unparsed
    are replies that were no verdict, n_failed requests without a reply, n_without_answer responses that name no choice
    clearly or reason nothing, and are not judged; n_cut responses that the limit of new tokens ended. None for what was
    not asked for.
    """

    n: int
    regions_official: Mean
    regions_strict: Mean
    accuracy: Mean
    n_without_span: int = 0
    verify: Mean | None = None
    verify_zero: Mean | None = None
    verify_by: dict[str, Mean] = field(default_factory=dict)
    n_unverifiable: dict[str, int] = field(default_factory=dict)
    consistency: Mean | None = None
    by_variant: dict[str, Mean] = field(default_factory=dict)
    flips: dict[str, Flips] = field(default_factory=dict)
    n_unparsed: int = 0
    n_failed: int = 0
    n_without_answer: int = 0
    n_cut: int = 0
