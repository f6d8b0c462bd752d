"""Table 3's behaviours of every model in some prediction files: crops are heard, and a judge is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tgsr.data.transcribe.transcript import Backend
from tgsr.evaluation.behaviour.audiology_verify import Verified, verify
from tgsr.evaluation.behaviour.consistency import VARIANTS, Judged, case_of, judge
from tgsr.evaluation.behaviour.metrics import Behaviour
from tgsr.evaluation.behaviour.table import behaviour
from tgsr.evaluation.scoring.responses import Answered
from tgsr.llm.served import Llm
from tgsr.records import Response


@dataclass(frozen=True, slots=True)
class Hearing:
    """What writes crops down, the name of its weights, and the folder where what was heard is kept."""

    backend: Backend
    weights: str
    cache: Path


@dataclass(frozen=True, slots=True)
class Judging:
    """A judge by its name, the log of its replies, and whether it is asked in another order too."""

    llm: Llm
    name: str
    log: Path
    is_for_bias: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """By model, its numbers and its responses to choices; `verified` and `judged` in the same order, () where nobody
    was asked. None for a response that could not be judged.
    """

    models: dict[str, Behaviour]
    responses: dict[str, list[Response]]
    verified: dict[str, list[Verified]]
    judged: dict[str, list[Judged | None]]


def measure(
    by_file: Mapping[Path, Sequence[Answered]],
    hearing: Hearing | None,
    judging: Judging | None,
    seed: int = 0,
) -> Measured:
    """The behaviours of the answers to choices in each file; those to phrases are passed over."""
    answers: dict[str, list[Answered]] = {}
    verified: dict[str, list[Verified]] = {}
    for path, of_file in by_file.items():
        chosen = [answer for answer in of_file if answer.response.question.kind == "choice"]
        for answer in chosen:
            answers.setdefault(answer.response.model, []).append(answer)
        if hearing is not None:
            texts = [answer.response for answer in chosen]
            for steps in verify(texts, path, hearing.cache, hearing.backend, hearing.weights):
                verified.setdefault(steps.response.model, []).append(steps)
    judged: dict[str, list[Judged | None]] = {}
    models = {}
    responses = {model: [one.response for one in of_model] for model, of_model in answers.items()}
    for model, of_model in responses.items():
        verdicts: list[Judged] | None = None
        if judging is not None:
            cases = [case_of(response) for response in of_model]
            variants = VARIANTS if judging.is_for_bias else VARIANTS[:1]
            asked = [case for case in cases if case is not None]
            verdicts = judge(judging.llm, judging.name, asked, judging.log, variants)
            replies = iter(verdicts)
            judged[model] = [None if case is None else next(replies) for case in cases]
        models[model] = behaviour(answers[model], verified.get(model), verdicts, seed)
    return Measured(models, responses, verified, judged)
