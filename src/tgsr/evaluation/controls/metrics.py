"""What controls.json holds; docs/controls.md has the formulas and how to read them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tgsr.statistics.intervals import NOT_MEASURED, Mean


@dataclass(frozen=True, slots=True)
class ConditionScores:
    """One condition: `n` responses, of which the limit of new tokens ended `n_cut`; `skipped` questions by reason.

    accuracy: of choices, by our reading of the final answer; accuracy_official: by the authors' letter. same_answer:
    the share of the originals' answers that are given again; originals without a readable one are unscored. iou and
    same_place: of phrases. reasoning_alike: a judge's grades, 1 to 5, of the reasoning beside the original's.
    criterion: what arXiv 2509.22363 tests so, in its words.
    """

    n: int
    skipped: dict[str, int] = field(default_factory=dict)
    accuracy: Mean = NOT_MEASURED
    accuracy_official: Mean = NOT_MEASURED
    same_answer: Mean = NOT_MEASURED
    iou: Mean = NOT_MEASURED
    same_place: Mean = NOT_MEASURED
    reasoning_alike: Mean = NOT_MEASURED
    criterion: str | None = None
    n_cut: int = 0


@dataclass(frozen=True, slots=True)
class Controls:
    """One model. Each mean has a 95 % interval by clip; differences are paired, question by question.

    n: questions with an original response; n_with_evidence: choices with evidence to keep and remove; covered: how
    much of its clip that evidence is. sufficiency: the original answer is given on the evidence alone;
    sufficiency_right: of those originally right; sufficiency_cropped: without its place; sufficiency_over_silence:
    minus the share that give it on silence. changed_removed, changed_random: another answer, or none, without the
    evidence, and without as much of the rest; necessity: their difference. reliance_*: accuracy on the original minus
    on silence, on another clip. text_prior: accuracy on silence minus that of a blind pick. shift_following: of the
    cited intervals and shifts, those whose both ends move by the shift, to FOLLOWS; shift_staying: by less than STAYS;
    shift_lost: that have no counterpart; shift_slope: seconds moved per second shifted. roll_following: the same after
    rolling by half the clip. by_task: accuracy and the means of BY_TASK over each task's choices. p_*: of the paired
    randomisation test by clip; None where nothing differs, and in files of earlier versions.
    """

    n: int
    n_clips: int = 0
    n_choices: int = 0
    n_phrases: int = 0
    n_without_original: int = 0
    n_citing: int = 0
    n_with_evidence: int = 0
    covered: Mean = NOT_MEASURED
    chance: float | None = None
    conditions: dict[str, ConditionScores] = field(default_factory=dict)
    sufficiency: Mean = NOT_MEASURED
    sufficiency_right: Mean = NOT_MEASURED
    sufficiency_cropped: Mean = NOT_MEASURED
    sufficiency_over_silence: Mean = NOT_MEASURED
    necessity: Mean = NOT_MEASURED
    changed_removed: Mean = NOT_MEASURED
    changed_random: Mean = NOT_MEASURED
    reliance_silenced: Mean = NOT_MEASURED
    reliance_swapped: Mean = NOT_MEASURED
    text_prior: Mean = NOT_MEASURED
    shift_following: Mean = NOT_MEASURED
    shift_staying: Mean = NOT_MEASURED
    shift_lost: Mean = NOT_MEASURED
    shift_slope: Mean = NOT_MEASURED
    shift_following_by_kind: dict[str, Mean] = field(default_factory=dict)
    roll_following: Mean = NOT_MEASURED
    by_task: dict[str, dict[str, Mean]] = field(default_factory=dict)
    p_necessity: float | None = None
    p_reliance_silenced: float | None = None
