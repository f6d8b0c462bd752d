"""Questions in sets, each scored by itself: a split of ours, or a part of a benchmark that table 2 has a column for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from tgsr.evaluation.owners.files import owner_of_question
from tgsr.evaluation.owners.owner import Benchmark, BenchmarkRow
from tgsr.evaluation.scoring.items import ScoredAnswer, score_response, score_row
from tgsr.evaluation.scoring.metrics import BenchmarkScores, ChoiceScores, Difference, Metrics, PhraseScores
from tgsr.evaluation.scoring.score import Predictions, score
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.records import Question, Response
from tgsr.statistics.intervals import Bootstrap, Mean

BENCHMARKS = {
    "mmau": "MMAU-mini", "mmau-pro": "MMAU-Pro", "mmar": "MMAR", "mmsu": "MMSU", "airbench": "AIR-Bench",
    "daily-omni": "Daily-Omni", "meld": "MELD",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a benchmark that table 2 has a column for: questions of whose kind one of `words` speaks.

    A question's kinds are its domains, of AIR-Bench its tasks; `words` are in lower case, () is all of the benchmark.
    """

    key: str
    name: str
    benchmark: str
    words: tuple[str, ...] = ()


# Speaker_Emotion_Recontion is how the benchmark spells it.
PARTS = (
    Part("mmau", "MMAU-mini Speech", "mmau", ("speech",)),
    Part("mmar", "MMAR Speech", "mmar", ("speech",)),
    Part("ser", "AIR-Bench SER", "airbench", ("ser", "speaker_emotion_recontion", "speaker_emotion_recognition")),
    Part("snv", "AIR-Bench SNV", "airbench", ("snv", "speaker_number_verification")),
    Part("sic", "AIR-Bench SIC", "airbench", ("sic", "speaker_intent_classification")),
    Part("meld", "MELD", "meld"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A prediction file that was read: its first 12 digits of SHA-256 say which version of it.

    `rows` where it is a benchmark's own file, which names no model: it goes by the file's name, `model`.
    """

    path: Path
    digest: str
    responses: tuple[Response, ...] = ()
    rows: tuple[BenchmarkRow, ...] = ()
    benchmark: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """One set of questions with the scores of each model that answered it.

    A split of ours (`benchmark` is None: phrase and choice), or a part of a benchmark (official and strict accuracy;
    `scores` where they are of that part alone). `differences` are paired, on these questions.
    """

    key: str
    name: str
    benchmark: str | None = None
    phrase: dict[str, PhraseScores] = field(default_factory=dict)
    choice: dict[str, ChoiceScores] = field(default_factory=dict)
    official: dict[str, Mean] = field(default_factory=dict)
    strict: dict[str, Mean] = field(default_factory=dict)
    scores: dict[str, BenchmarkScores] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    @property
    def models(self) -> set[str]:
        return {*self.phrase, *self.choice, *self.official}


def part_of(question: Question) -> Part | None:
    """Where in table 2 a question belongs; None for one of ours."""
    owner = owner_of_question(question)
    if owner is None:
        return None
    benchmark = owner.name
    if benchmark == "meld" and question.split != "test":
        return Part(f"meld-{question.split}", f"MELD {question.split}", "meld")
    names = ("category", "column") if benchmark == "airbench" else ("domain",)
    kinds = [kind for name in names for kind in question.labelled(name)]
    return _part(benchmark, kinds or ((question.task,) if question.task else ()))


def key_of(question: Question) -> str:
    """The key of the set that a question belongs to."""
    part = part_of(question)
    return f"split {question.split}" if part is None else part.key


def _part(benchmark: str, kinds: Sequence[str]) -> Part:
    """The part of questions of these kinds (AIR-Bench: tasks, else domains), of its own where table 2 has none."""
    for part in PARTS:
        if part.benchmark == benchmark and (not part.words or {k.lower() for k in kinds} & set(part.words)):
            return part
    kind = kinds[0] if kinds else "other questions"
    return Part(f"{benchmark}-{kind}", f"{BENCHMARKS[benchmark]}, {kind}", benchmark)


def score_sources(
    sources: Sequence[Source], models: Sequence[str], seed: int, spoken: Spoken
) -> list[QuestionSet]:
    """Each set of questions scored by itself: splits of ours in order of name, then benchmarks in table 2's order.

    Models are scored in the order in which they are shown, so that differences are to earlier ones.
    """
    ours: dict[str, list[Response]] = {}
    theirs: dict[Part, list[Response]] = {}
    rows: dict[Part, dict[str, list[BenchmarkRow]]] = {}
    responses = [response for source in sources for response in source.responses]
    for response in sorted(responses, key=lambda response: models.index(response.model)):
        part = part_of(response.question)
        if part is None:
            ours.setdefault(response.question.split, []).append(response)
        else:
            theirs.setdefault(part, []).append(response)
    for source in sources:
        for row in source.rows:
            kinds = row.labelled("category" if source.benchmark == "airbench" else "domain")
            rows.setdefault(_part(source.benchmark, kinds), {}).setdefault(source.model, []).append(row)
    sets = [_score_split(split, ours[split], seed, spoken) for split in sorted(ours)]
    parts = sorted({*theirs, *rows}, key=_in_table_2)
    for part in parts:
        sets.append(_score_part(part, theirs.get(part, []), rows.get(part, {}), models, seed, spoken))
    return sets


def _in_table_2(questions: Part | QuestionSet) -> tuple[int, str]:
    """A sorting key: table 2's columns in its order, then the others by theirs."""
    keys = [part.key for part in PARTS]
    return keys.index(questions.key) if questions.key in keys else len(keys), questions.key


def _score_split(split: str, responses: Sequence[Response], seed: int, spoken: Spoken) -> QuestionSet:
    metrics = score(Predictions("tgsr", responses=tuple(responses)), seed=seed, spoken=spoken)
    groups = {model: scores.all for model, scores in metrics.models.items()}
    return QuestionSet(
        key=f"split {split}",
        name=split,
        phrase={model: group.phrase for model, group in groups.items() if group.phrase is not None},
        choice={model: group.choice for model, group in groups.items() if group.choice is not None},
        differences=metrics.differences,
    )


def _score_part(
    part: Part,
    responses: Sequence[Response],
    rows: Mapping[str, Sequence[BenchmarkRow]],
    models: Sequence[str],
    seed: int,
    spoken: Spoken,
) -> QuestionSet:
    """Responses of ours, and owners' files by model. A model that is in both keeps the scores of its responses."""
    benchmark = cast(Benchmark, part.benchmark)
    scores: dict[str, BenchmarkScores] = {}
    answers: dict[str, list[ScoredAnswer]] = {}
    choice: dict[str, ChoiceScores] = {}
    for model, model_rows in rows.items():
        of_file = score(Predictions(benchmark, rows=tuple(model_rows)), seed=seed, spoken=spoken).benchmark
        if of_file is not None:
            scores[model] = of_file
        answers[model] = [score_row(row, benchmark, model) for row in model_rows]
    metrics = score(Predictions("tgsr", responses=tuple(responses)), seed=seed, spoken=spoken)
    for model, model_scores in metrics.models.items():
        scores[model] = model_scores.benchmarks[benchmark]
        if model_scores.all.choice is not None:
            choice[model] = model_scores.all.choice
        own = (response for response in responses if response.model == model)
        items = [item for response in own for item in score_response(response)]
        answers[model] = [item for item in items if isinstance(item, ScoredAnswer)]
    shown = [model for model in models if model in answers]
    differences = [_answer_difference(shown[0], other, answers, seed) for other in shown[1:]]
    return replace(_benchmark_set(part, scores), choice=choice, differences=tuple(differences))


def _answer_difference(
    model: str, other: str, answers: Mapping[str, Sequence[ScoredAnswer]], seed: int
) -> Difference:
    """Official accuracy by the owner's rule, on questions that both answered once and it scored of both."""

    def answered_once(name: str) -> dict[str, ScoredAnswer]:
        n_answers = Counter(item.id for item in answers[name])
        return {i.id: i for i in answers[name] if n_answers[i.id] == 1 and i.official is not None}

    before, after = answered_once(model), answered_once(other)
    ids = [id_ for id_ in before if id_ in after]
    values = [float(bool(after[id_].official)) - float(bool(before[id_].official)) for id_ in ids]
    clips = [before[id_].clip for id_ in ids]
    mean, p = Bootstrap(seed).paired(values, clips)
    return Difference(model, other, len(ids), mean, n_phrases=0, iou=None, p_accuracy_official=p)


def _benchmark_set(part: Part, scores: dict[str, BenchmarkScores]) -> QuestionSet:
    return QuestionSet(
        key=part.key,
        name=part.name,
        benchmark=part.benchmark,
        official={model: model_scores.accuracy_official for model, model_scores in scores.items()},
        strict={model: model_scores.accuracy_strict for model, model_scores in scores.items()},
        scores=scores,
    )


def sets_of(metrics: Metrics, label_of: Mapping[str, str]) -> list[QuestionSet]:
    """The question sets of a metrics.json, under the shown names.

    Its differences are over all of its questions and by the authors' letter, so they are kept only where those are one
    set of ours.
    """
    splits: dict[str, QuestionSet] = {}
    parts: dict[str, QuestionSet] = {}
    for model, label in label_of.items():
        if (model_scores := metrics.models.get(model)) is None:
            continue
        n_in_benchmarks = sum(scores.n for scores in model_scores.benchmarks.values())
        n_choices = 0 if model_scores.all.choice is None else model_scores.all.choice.n
        for split, group in model_scores.by_split.items():
            questions = splits.setdefault(split, QuestionSet(f"split {split}", split))
            if group.phrase is not None:
                questions.phrase[label] = group.phrase
            if group.choice is not None and n_in_benchmarks < n_choices:  # else there is no question of ours
                questions.choice[label] = group.choice
        for benchmark, scores in model_scores.benchmarks.items():
            for part, official, strict in _parts_of(benchmark, scores):
                questions = parts.setdefault(part.key, _benchmark_set(part, {}))
                questions.official[label], questions.strict[label] = official, strict
                if official.n + official.n_unscored == scores.n:  # the part is all that was asked
                    questions.scores[label] = scores
    sets = [questions for questions in (*splits.values(), *parts.values()) if questions.models]
    if len(sets) == 1 and sets[0].benchmark is None:
        known = [d for d in metrics.differences if d.model in label_of and d.other in label_of]
        differences = [replace(d, model=label_of[d.model], other=label_of[d.other]) for d in known]
        sets = [replace(sets[0], differences=tuple(differences))]
    return sets


def _parts_of(benchmark: str, scores: BenchmarkScores) -> list[tuple[Part, Mean, Mean]]:
    """What a whole benchmark's scores say of its parts: official and strict accuracy."""
    if benchmark == "airbench":
        official, strict = scores.accuracy_official_by_category, scores.accuracy_strict_by_category
    else:
        official, strict = scores.accuracy_official_by_domain, scores.accuracy_strict_by_domain
    if benchmark == "meld" or not official:
        return [(_part(benchmark, ()), scores.accuracy_official, scores.accuracy_strict)]
    return [(_part(benchmark, (kind,)), mean, strict[kind]) for kind, mean in official.items()]


def merge_sets(
    sets: Sequence[QuestionSet], more: Iterable[QuestionSet], file: str, notes: list[str]
) -> list[QuestionSet]:
    """`more` beside `sets`; a model that a set has already keeps its scores: predictions come before summaries."""
    merged = {questions.key: questions for questions in sets}
    for questions in more:
        known = merged.get(questions.key)
        if known is None:
            merged[questions.key] = questions
            continue
        in_both = questions.models & known.models
        if in_both and questions.models - known.models:
            said = f"its scores of {', '.join(sorted(in_both))} are left out: there are others already"
            notes.append(f"{file}: {questions.name}: {said}")
        by_model: dict[str, Any] = {
            name: getattr(questions, name) | getattr(known, name)
            for name in ("phrase", "choice", "official", "strict", "scores")
        }
        differences = known.differences or questions.differences
        merged[questions.key] = replace(known, **by_model, differences=differences)
    ours = [questions for questions in merged.values() if questions.benchmark is None]
    theirs = [questions for questions in merged.values() if questions.benchmark is not None]
    return [*ours, *sorted(theirs, key=_in_table_2)]


def difference_to(first: str, other: str, among: QuestionSet) -> Difference | None:
    """`other` less `first` on one set's questions, whichever way round it was computed; None where it was not."""
    for difference in among.differences:
        if (difference.model, difference.other) == (first, other):
            return difference
        if (difference.model, difference.other) == (other, first):
            names = ("accuracy_official", "accuracy_strict", "iou", "evidence_hit", "quote_truth")
            turned: dict[str, Any] = {name: _negated(getattr(difference, name)) for name in names}
            turned |= {"n_only_model": difference.n_only_other, "n_only_other": difference.n_only_model}
            return replace(difference, model=first, other=other, **turned)
    return None


def _negated(mean: Mean | None) -> Mean | None:
    if mean is None or mean.value is None:
        return mean
    # 0 less it: a difference of 0 would become -0.0
    low, high = (None if end is None else 0 - end for end in (mean.high, mean.low))
    return replace(mean, value=0 - mean.value, low=low, high=high)
