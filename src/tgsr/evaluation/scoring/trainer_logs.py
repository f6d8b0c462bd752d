"""The completions logs of ms-swift, TRL and verl as responses of ours.

Their formats, read in their code. ms-swift 4.6 appends a line a step to completions.jsonl, a table of columns: step,
prompt, completion, one for each reward function, advantages, solution. TRL 1.16 writes a file a step,
completions/completions_N.parquet, with a row a completion: step, prompt, completion, rewards, what reward functions
log, advantage. verl 0.9 writes N.jsonl a step into trainer.rollout_data_dir or validation_data_dir, with a line a
response: input, output, gts, score, step, what the reward function returned.

TRL's and verl's hold the question where our plug-in was the reward. Else it is found by the prompt, which ends as ours
do, among questions that are given or lie beside the log. Where questions about several clips have one prompt and one
answer, nobody can tell whose clip it was: such a response is only right or wrong, without evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tgsr.choices import correct_letter
from tgsr.data.other_trainers import kept_in
from tgsr.data.plugged_rewards import ASKED
from tgsr.disk.jsonl import Row, first_sign
from tgsr.disk.parquet import is_parquet, pyarrow_for
from tgsr.errors import RecordError
from tgsr.evaluation.scoring.files import Foreign, read_rows
from tgsr.prompts import REASONING_INSTRUCTION, choice_question
from tgsr.records import Question, Response, read_questions
from tgsr.rewards import completion_text

Find = Callable[[str, str | None], Question | None]
REMEDY = "give --questions, or put the questions.jsonl that was exported beside the log"
FILES = ("completions*.jsonl", "completions*.parquet", "[0-9]*.jsonl")  # in a folder


@dataclass(frozen=True, slots=True)
class Logged:
    """One completion of a log: its prompt's text, its own, the right letter where the log has it, and our question."""

    prompt: str
    text: str
    letter: str | None
    kept: object


def is_log(path: Path) -> bool:
    """Whether that is such a log, by what is in it, or a folder of them."""
    if path.is_dir():
        return any(is_log(file) for file in log_files(path))
    if is_parquet(path):
        return _is_logged(set(pyarrow_for("TRL's log").parquet.read_schema(path).names))
    if first_sign(path) != b"{":
        return False
    try:
        _, row = next(read_rows(path))
    except RecordError:
        return False
    return _is_logged(row.keys())


def _is_logged(columns: Set[str]) -> bool:
    """Every log says its steps (Megatron's in ms-swift gen_step), which tables of other programs do not."""
    is_one = {"prompt", "completion"} <= columns or {"input", "output", "score"} <= columns
    return is_one and ("step" in columns or "gen_step" in columns)


def log_files(path: Path) -> list[Path]:
    """The log's files in the order of their steps: of a folder those in it."""
    if not path.is_dir():
        return [path]
    found = {file for name in FILES for file in path.glob(name)}
    return sorted(found, key=lambda file: ([int(n) for n in re.findall(r"\d+", file.stem)], file.name))


def log_name(path: Path) -> str:
    """What the model is called whose responses a log holds: nothing in it says."""
    path = path.resolve()
    return path.name if path.is_dir() else f"{path.parent.name}/{path.stem}"


def read_log(path: Path, questions: Mapping[str, Question] | None = None) -> Iterator[Response | Foreign]:
    """Each completion as a response to its question; Foreign where it is none of `questions`.

    RecordError, with file and line, for a row that is none of these formats, and where a row does not hold its question
    and no questions are given.
    """
    beside = (path if path.is_dir() else path.parent) / "questions.jsonl"
    if questions is None and beside.exists():
        questions = {question.id: question for question in read_questions(beside)}
    find = None if questions is None else _finder(questions.values())
    model = log_name(path)
    for file in log_files(path):
        for line, row in read_rows(file):
            try:
                for logged in _logged(row):
                    yield _answered(logged, model, questions, find)
            except RecordError as error:
                raise error.at(str(file), line) from None


def _logged(row: Row) -> Iterator[Logged]:
    """The completions of a row: one, or a table's."""
    if {"prompt", "completion"} <= row.keys():
        kept = ("prompt", "completion", "solution", ASKED)
        columns: dict[str, Any] = {name: row[name] for name in kept if name in row}
        if (
            not isinstance(row["prompt"], list)
            or not isinstance(row["completion"], list)
            or _is_messages(row)
        ):
            yield _one(columns, "prompt", "completion", "solution")
            return
        lengths = {name: len(column) for name, column in columns.items() if isinstance(column, list)}
        if len(set(lengths.values())) > 1:
            raise RecordError("completion", f"the table's columns differ in length: {lengths}")
        for i in range(len(row["completion"])):
            yield _one(
                {name: column[i] for name, column in columns.items()}, "prompt", "completion", "solution"
            )
    elif {"input", "output"} <= row.keys():
        yield _one(row, "input", "output", "gts")
    else:
        raise RecordError(None, f"is no row of a completions log, which has {sorted(row)!r:.200}")


def _is_messages(row: Row) -> bool:
    """Whether prompt and completion are one conversation, not columns."""
    completion: Any = row["completion"]
    return bool(completion) and all(isinstance(part, dict) and "role" in part for part in completion)


def _one(row: Mapping[str, Any], prompt: str, completion: str, letter: str) -> Logged:
    asked, right = row[prompt], row.get(letter)
    if isinstance(asked, list):
        asked = completion_text(
            [{**message, "role": "assistant"} for message in asked if isinstance(message, dict)]
        )
    return Logged(
        str(asked),
        completion_text(row[completion]),
        right if isinstance(right, str) else None,
        row.get(ASKED),
    )


# --- whose question it was ---------------------------------------------------------------------------------------


def _answered(
    logged: Logged, model: str, questions: Mapping[str, Question] | None, find: Find | None
) -> Response | Foreign:
    if logged.kept is not None:
        question, _ = kept_in(logged.kept)
        if questions is not None:
            if question.id not in questions:
                return Foreign(question.id, model)
            question = questions[question.id]
        return Response(question, model, logged.text)
    if find is None:
        raise RecordError(None, "does not say which question was asked", remedy=REMEDY)
    found = find(logged.prompt, logged.letter)
    return Foreign(f"{logged.prompt!r:.80}", model) if found is None else Response(found, model, logged.text)


def _finder(questions: Iterable[Question]) -> Find:
    """Which question a prompt asks, given the right letter where it is known; None where it is none, or one of several
    that differ in their answers.
    """
    by_prompt: dict[str, list[Question]] = {}
    for question in questions:
        if question.kind == "choice":
            by_prompt.setdefault(_squeezed(choice_question(question.question, question.choices)), []).append(
                question
            )
    lengths = sorted({len(prompt) for prompt in by_prompt}, reverse=True)
    end = _squeezed(REASONING_INSTRUCTION)

    @lru_cache(maxsize=4096)  # a prompt is answered many times in a row
    def find(prompt: str, letter: str | None) -> Question | None:
        before, there, _ = _squeezed(prompt).rpartition(end)
        squeezed = before + there
        asked = next((by_prompt[squeezed[-n:]] for n in lengths if squeezed[-n:] in by_prompt), [])
        alike = [question for question in asked if letter is None or correct_letter(question) == letter]
        if len({question.answer for question in alike}) != 1:
            return None
        return alike[0] if len(alike) == 1 else _of_any_clip(alike)

    return find


def _of_any_clip(alike: Sequence[Question]) -> Question:
    """The question without what is of one clip, as long as the longest."""
    name = f"{alike[0].id} or {len(alike) - 1} more"
    duration = max(question.duration for question in alike)
    return replace(alike[0], id=name, clip_id=name, audio=name, duration=duration, evidence=())


def _squeezed(text: str) -> str:
    """Without blanks: trainers decode prompts from tokens, and exported ones have a blank in what looks like a mark."""
    return "".join(text.split())
