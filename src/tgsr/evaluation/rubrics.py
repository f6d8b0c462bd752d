"""MMAR's rubrics, as the Interspeech 2026 Audio Reasoning Challenge counts them: what the reasoning of a right answer
is worth.

A wrong answer is 0. Of a right one a judge gives each criterion of the item's rubric a score that it allows; the sum
over the sum of the highest ones is one run's score: 0.2 to 1.0 where there are five criteria of a point each, one of
which is the right choice. Five runs; the mean of the middle three. Source: code/evaluation_rubrics.py of ddlBoJack/MMAR
(26 February 2026); the prompt is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from tgsr.choices import token_match
from tgsr.disk.whole import write_whole
from tgsr.engine.requests import ask_each
from tgsr.errors import Bad, RecordError
from tgsr.evaluation.owners.files import benchmark_questions
from tgsr.evaluation.owners.mmar import thoughts_and_answer
from tgsr.evaluation.owners.owner import BenchmarkQuestion
from tgsr.evaluation.scoring.responses import Answered
from tgsr.llm.decoding import Decoding, Failed
from tgsr.llm.served import Llm
from tgsr.records import Row, write_jsonl
from tgsr.statistics.intervals import Bootstrap, Mean, percent

N_RUNS = 5
N_ATTEMPTS = 3  # for one run, where a reply is no list of scores
SYSTEM = "You grade a model's reasoning about a recording by a rubric, strictly and by what is written alone."
MOST_LISTS = 100  # of a reply, that are looked at: the last ones


@dataclass(frozen=True, slots=True)
class Criterion:
    """One line of an item's rubric: what a point is given for, and the scores that may be given."""

    name: str
    rule: str
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rubric:
    """What a judge is told of an item beside the answer that it grades."""

    question: str
    answer: str
    reference: str
    criteria: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer: right by the owner's match, the score of each run in [0, 1], and why there are fewer than N_RUNS."""

    id: str
    model: str
    clip: str
    modality: str
    is_right: bool
    runs: tuple[float, ...] = ()
    problem: str | None = None

    @property
    def score(self) -> float | None:
        """0 for a wrong answer, the mean of the middle three of five runs for a right one; None where a run failed."""
        if not self.is_right:
            return 0.0
        return middle(self.runs) if len(self.runs) == N_RUNS else None


@dataclass(frozen=True, slots=True)
class RubricScores:
    """One model: `score` over all its answers, wrong ones as 0; `of_right` over the right ones alone."""

    n: int
    n_unscored: int
    score: Mean
    accuracy: Mean
    of_right: Mean
    score_by_modality: dict[str, Mean]


def middle(scores: Sequence[float]) -> float:
    """The mean without the lowest and the highest; of fewer than three the mean of all. ValueError for none."""
    if not scores:
        raise ValueError("needs a score")
    ordered = sorted(scores)
    return fmean(ordered[1:-1] if len(ordered) >= 3 else ordered)


def read_rubrics(path: Path) -> dict[str, tuple[BenchmarkQuestion, Rubric]]:
    """The rubrics of MMAR-meta.jsonl by id. RecordError where no row has one, or where one cannot be used."""
    found: dict[str, tuple[BenchmarkQuestion, Rubric]] = {}
    for question in benchmark_questions(path):
        if isinstance(question, Bad) or not question.entry.values.get("rubric"):
            continue
        values: Mapping[str, Any] = question.entry.values
        try:
            criteria = tuple(
                Criterion(str(row["name"]), str(row["scoring_point"]), tuple(map(float, row["choices"])))
                for row in values["rubric"]
            )
        except (KeyError, TypeError, ValueError) as error:
            problem = f"must be a list of objects with name, scoring_point and choices ({error!r:.80})"
            raise RecordError("rubric", problem, str(path), question.entry.line) from error
        rubric = Rubric(question.question, question.answer, str(values.get("thinking") or ""), criteria)
        found[question.id] = question, rubric
    if not found:
        remedy = "give MMAR-meta.jsonl of February 2026 or later"
        raise RecordError("rubric", "is in no row", str(path), remedy=remedy)
    return found


def prompt_of(rubric: Rubric, thinking: str, answer: str) -> str:
    """What a judge is asked: one score a criterion, as a JSON list in the rubric's order."""
    lines = [
        f"{number}. {one.name}: {one.rule} Allowed scores: {', '.join(f'{score:g}' for score in one.scores)}."
        for number, one in enumerate(rubric.criteria, 1)
    ]
    return (
        "A model was asked about a recording that you cannot hear. Grade what it wrote by the rubric.\n\n"
        f"Question: {rubric.question}\nRight answer: {rubric.answer}\n"
        f"Reference reasoning: {rubric.reference}\n\nRubric:\n{chr(10).join(lines)}\n\n"
        f"The model's reasoning:\n{thinking}\nThe model's answer: {answer}\n\n"
        f"Reply with a JSON list of the {len(lines)} scores in the rubric's order and nothing else, as in "
        f"{json.dumps([int(one.scores[0]) for one in rubric.criteria])}."
    )


def scores_in(reply: str, rubric: Rubric) -> tuple[float, ...] | None:
    """The last list in a reply that has an allowed score for each criterion; None where there is none."""
    places = [place for place, character in enumerate(reply) if character == "["][-MOST_LISTS:]
    for place in reversed(places):
        try:
            values, _ = json.JSONDecoder().raw_decode(reply, place)
        except (ValueError, RecursionError):
            continue
        given = [value.get("score") if isinstance(value, dict) else value for value in values]
        if len(given) == len(rubric.criteria) and all(
            isinstance(value, int | float) and float(value) in one.scores
            for value, one in zip(given, rubric.criteria, strict=True)
        ):
            return tuple(float(value) for value in given if value is not None)
    return None


def share_of(scores: Sequence[float], rubric: Rubric) -> float:
    """What was given over the most that can be, in [0, 1]; 0 where nothing can be."""
    most = sum(max(one.scores) for one in rubric.criteria)
    return sum(scores) / most if most else 0.0


def rate(
    answers: Sequence[Answered], rubrics: Mapping[str, tuple[BenchmarkQuestion, Rubric]], llm: Llm
) -> list[Rated]:
    """Each answer to a question with a rubric, in order. What a server replied is kept by `llm`."""
    rated = []
    for answer in tqdm(answers, desc="rubrics", unit="answer"):
        response = answer.response
        if response.question.id not in rubrics:
            continue
        question, rubric = rubrics[response.question.id]
        modality = next((value for name, value in question.labels if name == "domain"), "")
        common = response.question.id, response.model, response.question.clip_id, modality
        thinking, said = _written(answer)
        if not token_match(said, question.answer, question.choices):
            rated.append(Rated(*common, is_right=False))
            continue
        prompt = prompt_of(rubric, thinking, said)
        runs = ask_each(partial(_run, llm, prompt, rubric), range(N_RUNS), N_RUNS)
        given = tuple(one for one in runs if not isinstance(one, Failed))
        problem = next((one.reason for one in runs if isinstance(one, Failed)), None)
        rated.append(Rated(*common, is_right=True, runs=given, problem=problem))
    return rated


def rubric_scores(rated: Sequence[Rated], bootstrap: Bootstrap) -> RubricScores:
    """One model's means, with intervals over clips."""
    clips = [one.clip for one in rated]
    columns: dict[str, list[float | None]] = {
        "score": [one.score for one in rated],
        "accuracy": [float(one.is_right) for one in rated],
        "of_right": [one.score if one.is_right else None for one in rated],
    }
    modalities = sorted({one.modality for one in rated})
    scores = {name: [one.score if one.modality == name else None for one in rated] for name in modalities}
    n_unscored, means = sum(one.score is None for one in rated), bootstrap.means(columns, clips)
    of_modalities = bootstrap.means(scores, clips)
    return RubricScores(len(rated), n_unscored, **means, score_by_modality=of_modalities)


def submission(answers: Sequence[Answered]) -> list[Row]:
    """The rows of a submission to the challenge: id, thinking_prediction, answer_prediction."""
    parts = [(answer.response.question.id, *_written(answer)) for answer in answers]
    return [
        {"id": id_, "thinking_prediction": thinking, "answer_prediction": said}
        for id_, thinking, said in parts
    ]


def write_rubrics(
    out: Path, models: Mapping[str, Sequence[Rated]], judge: str, seed: int
) -> dict[str, RubricScores]:
    """rubrics.json and rated.jsonl in the folder `out`; what the first of them says."""
    bootstrap = Bootstrap(seed)
    scores = {model: rubric_scores(rated, bootstrap) for model, rated in models.items()}
    found = {"judge": judge, "models": {model: asdict(one) for model, one in scores.items()}}
    write_whole(out / "rubrics.json", json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
    rows = [asdict(one) | {"score": one.score} for rated in models.values() for one in rated]
    write_jsonl(out / "rated.jsonl", rows)
    return scores


def told(model: str, scores: RubricScores) -> str:
    """One model in a line, as the challenge's leaderboard has it: in percent."""
    left = f", {scores.n_unscored} not scored" if scores.n_unscored else ""
    return (
        f"{model}: rubrics {percent(scores.score)}, accuracy {percent(scores.accuracy)} of {scores.n}{left}; "
        f"a right answer's reasoning {percent(scores.of_right)}"
    )


def _written(answer: Answered) -> tuple[str, str]:
    """What the model thought, and what it answered: as it was handed over, where it was."""
    thinking, said = thoughts_and_answer(answer.response.text, answer.response.question.choices)
    return thinking, said if answer.prediction is None else answer.prediction


def _run(llm: Llm, prompt: str, rubric: Rubric, run: int) -> float | Failed:
    """One run's score. Each attempt has a seed of its own: equal requests would have one kept reply."""
    reply: str | Failed = ""
    for attempt in range(N_ATTEMPTS):
        reply = llm.write(prompt, Decoding(max_new_tokens=2048, seed=run + N_RUNS * attempt), SYSTEM)
        if isinstance(reply, Failed):
            return reply
        if (scores := scores_in(reply, rubric)) is not None:
            return share_of(scores, rubric)
    return Failed(f"the judge's reply is no list of {len(rubric.criteria)} allowed scores: {reply!r:.80}")
