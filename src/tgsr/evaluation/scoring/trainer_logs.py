"""What other trainers write of our questions, as responses of ours: completions logs, and answers to an exported file.

Their formats, read in their code. ms-swift 4.6 appends a line a step to completions.jsonl, a table of columns: step,
prompt, completion, one for each reward function, advantages, solution. TRL 1.16 writes a file a step,
completions/completions_N.parquet, with a row a completion: step, prompt, completion, rewards, what reward functions
log, advantage. verl 0.9 writes N.jsonl a step into trainer.rollout_data_dir or validation_data_dir, with a line a
response: input, output, gts, score, step, what the reward function returned (of rollouts only with
trainer.use_v1=False). NeMo-RL of August 2026 writes train_data_stepN.jsonl and val_data_stepN.jsonl, with a line a
response: content, rewards and more, each in a list of one; content are the messages, or their contents alone.

Answers: `swift infer` writes the rows that it was given with response, labels and messages; its columns that are
unknown, so `tgsr`, stay with --remove_unused_columns false. LLaMA-Factory's do_predict writes prompt, predict, label.

TRL's and verl's hold the question where our plug-in was the reward, answers where they have the column `tgsr`. Else it
is found by the prompt, among questions that are given or lie beside the file; of several with one prompt those with
the target and the sound that the row names are meant. Where questions about several clips are left that have one
answer, nobody can tell whose clip it was: such a response is only right or wrong, without evidence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from tgsr.data.other_trainers import KEPT, Family, kept_in, prompt_of, target_of
from tgsr.data.plugged_rewards import ASKED
from tgsr.disk.jsonl import Row, first_sign
from tgsr.disk.parquet import is_parquet, pyarrow_for
from tgsr.errors import RecordError
from tgsr.evaluation.scoring.files import Foreign, read_rows
from tgsr.prompts import REASONING_INSTRUCTION, phrase_question_qwen, without_target
from tgsr.records import Question, Response, read_questions
from tgsr.rewards import completion_text

Find = Callable[[str, str | None, str | None], Question | None]
REMEDY = "give --questions, or put the questions.jsonl that was exported beside the log"
# In a folder.
FILES = ("completions*.jsonl", "completions*.parquet", "[0-9]*.jsonl", "train_data_step*.jsonl")
WORDINGS: tuple[Family, ...] = ("qwen_omni", "audio_flamingo3")  # B.1.1's and B.1.2's: all that there are


ANSWERS = ({"response", "messages"}, {"prompt", "predict"}, {"content", "rewards", "idx"})
"""The columns of rows that say no step: ms-swift's, LLaMA-Factory's and NeMo-RL's."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One completion: its prompt's text, its own; where the row has them the target, the sound's path, our question."""

    prompt: str
    text: str
    target: str | None
    sound: str | None
    kept: object


def is_log(path: Path) -> bool:
    """Whether that is such a file, by what is in it, or a folder of logs."""
    if path.is_dir():
        return any(is_log(file) for file in log_files(path))
    if is_parquet(path):
        return _says_its_step(set(pyarrow_for("TRL's log").parquet.read_schema(path).names))
    if first_sign(path) != b"{":
        return False
    try:
        _, row = next(read_rows(path, constants=True))
        return _says_its_step(row.keys()) or _answers_ours(row)
    except RecordError:
        return False


def _says_its_step(columns: Set[str]) -> bool:
    """Logs say their steps (Megatron's in ms-swift gen_step), which tables of other programs do not."""
    is_one = {"prompt", "completion"} <= columns or {"input", "output", "score"} <= columns
    return is_one and ("step" in columns or "gen_step" in columns)


def _answers_ours(row: Row) -> bool:
    """Whether a row that says no step answers what `tgsr export` wrote: such rows answer anything."""
    if not any(columns <= row.keys() for columns in ANSWERS):
        return False
    return any(
        logged.kept is not None or any(mark in _squeezed(logged.prompt) for mark in (_CHOICE, _PHRASE))
        for logged in _logged(row)
    )


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
        for line, row in read_rows(file, constants=True):  # a reward that does not apply is NaN
            try:
                for logged in _logged(row):
                    yield _answered(logged, model, questions, find)
            except RecordError as error:
                raise error.at(str(file), line) from None


def _logged(row: Row) -> Iterator[Logged]:
    """The completions of a row: one, or a table's."""
    if {"prompt", "completion"} <= row.keys():
        names = ("prompt", "completion", "solution")
        columns: dict[str, Any] = {name: row[name] for name in (*names, ASKED) if name in row}
        prompts, said = row["prompt"], row["completion"]
        if not isinstance(prompts, list) or not isinstance(said, list) or _is_messages(said):
            yield _one(columns, *names)
            return
        lengths = {name: len(column) for name, column in columns.items() if isinstance(column, list)}
        if len(set(lengths.values())) > 1:
            raise RecordError("completion", f"the table's columns differ in length: {lengths}")
        for i in range(len(said)):
            yield _one({name: column[i] for name, column in columns.items()}, *names)
    elif {"input", "output"} <= row.keys():
        yield _one(row, "input", "output", "gts")
    elif {"content", "rewards"} <= row.keys():
        yield _of_nemo_rl(row["content"])
    elif {"response", "messages"} <= row.keys():
        asked = [message for message in _items(row["messages"]) if message.get("role") == "user"]
        answered = {"solution": row.get("labels"), **row, "messages": asked}
        yield _one(answered, "messages", "response", "solution")
    elif {"prompt", "predict"} <= row.keys():
        yield _one(row, "prompt", "predict", "label")
    else:
        raise RecordError(None, f"is no row of a completions log, which has {sorted(row)!r:.200}")


def _of_nemo_rl(content: Any) -> Logged:
    """Messages, or the contents of a question, its answer and what our environment says to it, which is nothing."""
    while isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, list) or len(content) < 2:
        raise RecordError("content", f"must be a question and its answer, got {content!r:.80}")
    if not _is_messages(content):
        content = [{"role": "user", "content": content[0]}, {"role": "assistant", "content": content[1]}]
    asked = [message for message in content if message["role"] == "user"]
    return _one({"asked": asked, "said": content}, "asked", "said", "")


def _is_messages(said: Any) -> bool:
    """Whether that is one conversation, not columns or contents."""
    return bool(said) and all(isinstance(part, dict) and "role" in part for part in said)


def _one(row: Mapping[str, Any], prompt: str, completion: str, target: str) -> Logged:
    asked, right, sounds, kept = (
        row[prompt],
        row.get(target),
        row.get("audios"),
        row.get(ASKED) or row.get(KEPT),
    )
    if isinstance(asked, list):
        asked = completion_text([{**message, "role": "assistant"} for message in _items(asked)])
    sound = sounds[0] if isinstance(sounds, list) and len(sounds) == 1 else None
    sound = sound.get("path") if isinstance(sound, dict) else sound
    right, sound = (text if isinstance(text, str) else None for text in (right, sound))
    return Logged(str(asked), completion_text(row[completion]), right, sound, kept)


def _items(messages: Any) -> list[dict[str, Any]]:
    return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []


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
    found = find(logged.prompt, logged.target, logged.sound)
    return Foreign(f"{logged.prompt!r:.80}", model) if found is None else Response(found, model, logged.text)


def _finder(questions: Iterable[Question]) -> Find:
    """Which question a prompt asks, given its target and sound where they are known; None where it is none, or one of
    several that differ in their answers.
    """
    by_prompt: dict[str, dict[str, Question]] = {}
    for question in questions:
        for wording in WORDINGS:
            by_prompt.setdefault(_squeezed(prompt_of(question, wording)), {})[question.id] = question
    lengths = sorted({len(prompt) for prompt in by_prompt}, reverse=True)

    def asked(prompt: str) -> list[Question]:
        """A choice's prompt ends as ours do, a phrase's begins so; chat templates write around them."""
        squeezed = _squeezed(prompt)
        before, there, _ = squeezed.rpartition(_CHOICE)
        if there:
            pieces = ((before + there)[-n:] for n in lengths)
        else:
            rest = squeezed[squeezed.rfind(_PHRASE) :]
            # Not the phrase's next word.
            pieces = (rest[:n] for n in lengths if rest[n : n + 1] in ("", "<", "["))
        return list(next((by_prompt[piece] for piece in pieces if piece in by_prompt), {}).values())

    @lru_cache(maxsize=4096)  # a prompt is answered many times in a row
    def find(prompt: str, target: str | None, sound: str | None) -> Question | None:
        alike = asked(prompt)
        if target is not None:
            alike = [question for question in alike if _squeezed(target) in _targets(question)]
        if sound is not None:
            near = [_n_common(Path(question.audio), Path(sound)) for question in alike]
            alike = [question for question, n in zip(alike, near, strict=True) if n and n == max(near)]
        if len(alike) < 2:
            return alike[0] if alike else None
        is_told = alike[0].kind == "choice" and len({question.answer for question in alike}) == 1
        return _of_any_clip(alike) if is_told else None

    return find


def _targets(question: Question) -> set[str]:
    """What an exported row has for a target, without blanks; none of a question that has none."""
    if question.answer is None if question.kind == "choice" else without_target(question):
        return set()
    return {_squeezed(target_of(question, wording)) for wording in WORDINGS}


def _n_common(one: Path, other: Path) -> int:
    """How many of the names at the ends of two paths are the same: the file's without its suffix, then the folders'."""
    pairs = zip(reversed(one.with_suffix("").parts), reversed(other.with_suffix("").parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _of_any_clip(alike: Sequence[Question]) -> Question:
    """The question without what is of one clip, as long as the longest."""
    name = f"{alike[0].id} or {len(alike) - 1} more"
    duration = max(question.duration for question in alike)
    return replace(alike[0], id=name, clip_id=name, audio=name, duration=duration, evidence=())


def _squeezed(text: str) -> str:
    """Without blanks: trainers decode prompts from tokens, and exported ones have a blank in what looks like a mark."""
    return "".join(text.split())


_CHOICE, _PHRASE = _squeezed(REASONING_INSTRUCTION), _squeezed(phrase_question_qwen("x"))[:-1]
