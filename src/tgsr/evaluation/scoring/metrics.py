"""What metrics.json holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tgsr.evidence import EvidenceScores
from tgsr.statistics.intervals import NOT_MEASURED, Mean, Quantiles

Format = Literal["tgsr", "mmau", "mmau-pro", "mmar", "mmsu", "airbench", "daily-omni", "meld"]


@dataclass(frozen=True, slots=True)
class PhraseScores:
    """Table 1: the span that each response gives against the phrase's own.

    A response without a readable span has IoU 0: `n_without_span` counts those that state no interval, several
    different ones, or one that ends before it starts (`n_invalid`). `n_past_end` counts responses with an
    interval that ends more than 0.05 s after its clip. The two sound event detection scores are pooled, over the
    same spans; None where nothing was predicted. The errors are absolute, of the responses with a span.
    `iou_of_all` counts unanswered questions as 0; None where all were answered. recalls: the share with an IoU of at
    least 0.3, 0.5 and 0.7, which others call R@0.3 and so on, and `iou` their mIoU. event_f1_by_collar: event_f1 by the
    collar in seconds, with its interval.

    All this is of the phrases that are said. Of those that are not: false_alarm, the share to which an interval is
    given, and rejected, to which the answer is that they are not said; the rest says neither. missed: the share of said
    ones to which that is the answer.

    Of questions with several places (a benchmark's) all spans of the answer are held against all of them. official: the
    owner's mean IoU and recalls by its own script, where the questions' benchmark has one that is known, of the
    answer's span in whole seconds (iou_as_is: of the whole text); n_unscored are the answers that it leaves out.
    """

    n: int
    iou: Mean
    f1: Mean
    high_overlap: Mean
    segment_f1: float | None
    event_f1: float | None
    n_without_span: int
    n_invalid: int
    n_past_end: int
    start_error: Quantiles | None = None
    end_error: Quantiles | None = None
    iou_of_all: Mean | None = None
    recalls: dict[str, Mean] = field(default_factory=dict)
    event_f1_by_collar: dict[str, Mean] = field(default_factory=dict)
    false_alarm: Mean = NOT_MEASURED
    rejected: Mean = NOT_MEASURED
    missed: Mean = NOT_MEASURED
    official: dict[str, Mean] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """Stage 2: answers and the regions that the reasoning explores.

    accuracy_official: the authors' letter against the right option's; accuracy_strict: our reading of
    the final answer. chance: the mean share of right options. mentions_official and regions_strict: k,
    by both counters; share_k1_*: how often it is exactly 1. trace_iou: against the questions' evidence;
    an invalid interval counts as one of IoU 0, a trace without intervals is unscored.
    accuracy_by_label: official accuracy by the questions' labels, of those with at most 30 values. why: the
    reasons for which official and strict differ. accuracy_*_of_all count unanswered questions as wrong; None
    where all were answered. evidence: how often what is cited is evidence; None in files of earlier versions.
    """

    n: int
    accuracy_official: Mean
    accuracy_strict: Mean
    chance: float | None
    accuracy_official_by_task: dict[str, Mean]
    accuracy_strict_by_task: dict[str, Mean]
    mentions_official: Mean
    regions_strict: Mean
    share_k1_official: Mean
    share_k1_strict: Mean
    trace_iou: Mean
    n_without_letter: int
    n_without_choice: int
    n_without_span: int
    n_invalid: int
    n_past_end: int
    accuracy_by_label: dict[str, dict[str, Mean]] = field(default_factory=dict)
    why: dict[str, int] = field(default_factory=dict)
    accuracy_official_of_all: Mean | None = None
    accuracy_strict_of_all: Mean | None = None
    evidence: EvidenceScores | None = None


@dataclass(frozen=True, slots=True)
class GroupScores:
    """One model's responses, all of them or those of one split; None where there are none of a kind."""

    phrase: PhraseScores | None
    choice: ChoiceScores | None


@dataclass(frozen=True, slots=True)
class BenchmarkScores:
    """A benchmark by its owner's rule and by ours.

    accuracy_official: of the owner's file, what its script says of the text; of responses of ours, what it says of
    the option that each ends up with, and accuracy_as_is of the whole completions (None for an owner's file).
    What the script leaves out (no prediction, in AIR-Bench also no letter) is `n_unscored`; accuracy_*_of_all count it
    as wrong. why: the reasons for which official and strict differ; why_as_is the same of accuracy_as_is.

    A row of several categories counts in each of them. speech is accuracy_official_by_domain["speech"]. Of MELD, whose
    owners score no texts, official is strict, weighted_f1 and macro_f1 are over the seven emotions, and always_neutral
    is the accuracy of that answer. evidence: of traces beside the predictions, against the clip's segments.

    The lists hold ids in the file's order, at most 1000 of each; `n_listed` has the whole counts. missing: no
    prediction; duplicates: an id that occurs again, every row of which is scored, as the official scorers do; empty;
    several: the text names several options; unreadable: AIR-Bench reads no letter; without_answer: nobody says what is
    right; foreign: not among the questions, and not scored.
    """

    n: int
    n_unscored: int
    accuracy_official: Mean
    accuracy_strict: Mean
    chance: float | None
    accuracy_official_by_domain: dict[str, Mean]
    accuracy_official_by_category: dict[str, Mean]
    accuracy_strict_by_domain: dict[str, Mean]
    accuracy_strict_by_category: dict[str, Mean]
    n_without_choice: int
    missing: tuple[str, ...]
    duplicates: tuple[str, ...]
    empty: tuple[str, ...]
    several: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    without_answer: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    n_listed: dict[str, int] = field(default_factory=dict)
    accuracy_as_is: Mean | None = None
    accuracy_official_of_all: Mean | None = None
    accuracy_strict_of_all: Mean | None = None
    accuracy_official_by_sub_category: dict[str, Mean] = field(default_factory=dict)
    accuracy_strict_by_sub_category: dict[str, Mean] = field(default_factory=dict)
    accuracy_official_by_difficulty: dict[str, Mean] = field(default_factory=dict)
    accuracy_strict_by_difficulty: dict[str, Mean] = field(default_factory=dict)
    accuracy_official_by_task_dataset: dict[str, Mean] = field(default_factory=dict)
    accuracy_strict_by_task_dataset: dict[str, Mean] = field(default_factory=dict)
    speech: Mean | None = None
    why: dict[str, int] = field(default_factory=dict)
    why_as_is: dict[str, int] = field(default_factory=dict)
    weighted_f1: Mean | None = None
    macro_f1: Mean | None = None
    always_neutral: float | None = None
    evidence: EvidenceScores | None = None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model in a file of ours; `several` lists questions answered more than once, every answer scored, `truncated`
    responses that the limit of new tokens cut off: scored as they are, but their answer may be missing.

    `benchmarks` are the questions that are labelled as a benchmark's, by its owner's rule. With the questions at hand,
    `missing` are those that the model left out, and `foreign` the answers to others, which are not scored. Lists hold
    at most 1000 ids; `n_listed` has the whole counts.
    """

    all: GroupScores
    by_split: dict[str, GroupScores]
    several: tuple[str, ...]
    empty: tuple[str, ...]
    benchmarks: dict[str, BenchmarkScores] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    n_listed: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """`other` minus `model` on the questions that both answered once, paired; intervals over clips.

    Two models' own intervals overlap long before their difference is in doubt: much of each is which
    questions were asked, and that is the same for both. None where they share no question of the kind.

    n_only_model and n_only_other: questions that only one of them has right, officially; p_mcnemar: the exact test on
    these, as if questions were independent. The other p are of the paired randomisation test, which swaps whole clips;
    None where no clip differs. evidence_hit, quote_truth and their p: on those of the questions where both are known.
    n_phrases: those that are said somewhere.
    """

    model: str
    other: str
    n_choices: int
    accuracy_official: Mean | None
    n_phrases: int
    iou: Mean | None
    accuracy_strict: Mean | None = None
    n_only_model: int = 0
    n_only_other: int = 0
    p_mcnemar: float | None = None
    p_accuracy_official: float | None = None
    p_accuracy_strict: float | None = None
    p_iou: float | None = None
    evidence_hit: Mean | None = None
    quote_truth: Mean | None = None
    p_evidence_hit: float | None = None
    p_quote_truth: float | None = None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What metrics.json holds: `models` and `differences` for a file of ours, `benchmark` for an owner's file.

    `bootstrap` says how intervals were drawn: "multinomial" with replacement; "poisson" is in the files of earlier
    versions only. `questions` is the file that said what was asked, where one was given. `clips` are the files that the
    clips' words are from, `no_words` why there are none.
    """

    file: str
    format: Format
    n: int
    models: dict[str, ModelScores]
    benchmark: BenchmarkScores | None
    differences: tuple[Difference, ...] = ()
    bootstrap: Literal["multinomial", "poisson"] = "multinomial"
    questions: str | None = None
    clips: tuple[str, ...] = ()
    no_words: str | None = None
