"""Questions to the training files of ms-swift, TRL, verl and NeMo-RL, and back.

Prompts and targets are those of our own loops: stage 1's question and answer in the family's words (B.1.1 or B.1.2),
stage 2's choices with the instruction (B.1.3), and the same system turn. A phrase becomes a lesson with its target, a
choice question a prompt with the right letter. `tgsr` holds the whole question as JSON text, and the words of its clip
where they are given: no loader reads it, the reward plug-ins (data/plugins) and `import_back` read nothing else.

Text stays text: where a name in angle brackets would open a place for audio or become a special token, a space goes
after its "<", as our models' prompts have it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

from tgsr import prompts
from tgsr.choices import correct_letter
from tgsr.disk.jsonl import lines_in
from tgsr.disk.parquet import pyarrow_for, write_parquet
from tgsr.errors import OptionError, RecordError
from tgsr.records import NO_SPEECH, Clip, Question, resolve_audio, write_jsonl
from tgsr.timeline import Span, Word

Target = Literal["ms-swift", "trl", "verl", "nemo-rl"]
Family = Literal[
    "qwen_omni", "qwen2_audio", "qwen3_omni", "audio_flamingo3", "music_flamingo", "voxtral", "gemma4",
    "phi4_multimodal", "granite_speech",
]  # fmt: skip
"""By the names of their files in models/, or the hub's."""
NO_TRAINER = {
    "granite_speech": "ms-swift and LLaMA-Factory have no such model, and its chat template takes a turn as one text, "
    "where TRL, verl and NeMo-RL hand over parts; train it with tgsr train",
}
"""Why none of the trainers takes a family."""
FLAMINGOS = ("audio_flamingo3", "music_flamingo")  # in the words of B.1.2, all others in those of B.1.1
Words = Sequence[Word] | None
"""What is said in a clip, () where nothing is; None where nobody knows."""

KEPT = "tgsr"  # the column that holds the question itself
WORDS = "words"  # in it, beside the question's fields: [word, start, end] of its clip
PLACE = "<audio>"  # where the audio goes, in texts that mark it
# Names that ms-swift (swift.template.Template.special_tokens) and verl (RLHFDataset) read in a text as something else.
MARKERS = re.compile(r"<(?=(?:audio|image|video|img|bbox|ref-object|cot-process|start-image)>)")
ROWS_AT_ONCE = 1000  # of a parquet file; so many are in memory
PURPOSE = "verl's Parquet"


def to_ms_swift(question: Question, audio_path: str, family: Family, words: Words = None) -> dict[str, Any]:
    """ms-swift's standard format: messages whose user turn begins with <audio>, and audios.

    A phrase ends in the assistant's turn, for `swift sft`. A choice question has no such turn, for `swift rlhf
    --rlhf_type grpo`, and `solution` holds the letter: columns that the format does not know go to the reward
    functions (`label` it does know, as a number), and so does `tgsr`, which our plug-in reads; sft drops it.
    Source: ms-swift 4.6, docs/source_en/Customization/Custom-dataset.md.
    """
    messages = [*_system(family), {"role": "user", "content": PLACE + _unmarked(prompt_of(question, family))}]
    if question.kind == "phrase":
        messages.append({"role": "assistant", "content": _unmarked(target_of(question, family))})
    row: dict[str, Any] = {"messages": messages, "audios": [audio_path]}
    if question.kind == "choice":
        row["solution"] = target_of(question, family)
    return {**row, KEPT: kept(question, words)}


def to_trl(question: Question, audio_path: str, family: Family, words: Words = None) -> dict[str, Any]:
    """TRL's conversational format with parts: {"type": "audio", "audio": path}, then the text.

    A phrase is prompt and completion, for SFT. A choice question is a prompt and `label`, for GRPO: with our plug-in,
    which reads `tgsr`, or with tgsr.rewards' functions as they are.
    JSONL, and read by datasets 4.7 or newer: older ones, and parquet, fill each part with the others' keys, and
    chat templates that ask whether a part has "audio" then see two.
    The prompt reaches the processor's chat template, which loads the path. TRL 1.16 itself knows images only: its
    loss does not pass a model audio, so that training on it needs a trainer that does.
    Source: https://huggingface.co/docs/trl/dataset_formats, prompt-completion and prompt-only.
    """
    row: dict[str, Any] = {"prompt": _in_parts(question, audio_path, family)}
    if question.kind == "phrase":
        completion = [{"type": "text", "text": target_of(question, family)}]
        row["completion"] = [{"role": "assistant", "content": completion}]
    else:
        row["label"] = target_of(question, family)
    return {**row, KEPT: kept(question, words)}


def to_verl(
    question: Question, audio_path: str, family: Family, index: int, words: Words = None
) -> dict[str, Any]:
    """verl's columns for RL; `index` is the row's number.

    ground_truth is the right letter, or stage 1's target. data_source is "tgsr/choice" or "tgsr/phrase", for which verl
    has no reward of its own: our plug-in is its custom_reward_function, which gets extra_info and no other column, so
    that `tgsr` is there as well, with the words. verl's data set for SFT takes no audio.
    Source: https://verl.readthedocs.io/en/latest/preparation/prepare_data.html; `audios` and <audio> as in
    RLHFDataset of verl 0.9.
    """
    user = {"role": "user", "content": PLACE + _unmarked(prompt_of(question, family))}
    extra = {"split": question.split, "index": index, "id": question.id, "task": question.task or ""}
    extra[KEPT] = kept(question, words)
    return {
        "data_source": f"tgsr/{question.kind}",
        "prompt": [*_system(family), user],
        "ability": "timestamp_alignment" if question.kind == "phrase" else "timestamp_grounded_reasoning",
        "reward_model": {"style": "rule", "ground_truth": target_of(question, family)},
        "extra_info": extra,
        "audios": [audio_path],
        KEPT: kept(question),
    }


def to_nemo_rl(question: Question, audio_path: str, family: Family, words: Words = None) -> dict[str, Any]:
    """NeMo-RL's chat format, which its ResponseDataset takes as it is: messages, the assistant's turn last.

    That turn is stage 1's target (SFT) or the right letter (GRPO, where it becomes the environment's ground truth).
    GRPO reads the first two messages only, so that a choice question has no system turn: where the model's chat
    template puts another one than ours, give one there. GRPO also takes audio as samples, from data sets that it knows
    by name: one of your own (dataset_name: package.module.Class) has to load the path. Read by datasets 4.7 or newer:
    older ones refuse a turn of parts beside one of text.
    Source: https://docs.nvidia.com/nemo/rl/latest/guides/grpo.html (Dataset), .../design-docs/chat-datasets.html, and
    .../guides/grpo-audio.html, whose data sets have the same parts for audio and text.
    """
    turns = _in_parts(question, audio_path, family)
    if question.kind == "choice":
        turns = turns[-1:]
    last_turn = {"role": "assistant", "content": target_of(question, family)}
    return {"messages": [*turns, last_turn], KEPT: kept(question, words)}


_TO_JSON = {"ms-swift": to_ms_swift, "trl": to_trl, "nemo-rl": to_nemo_rl}


def export(
    questions: Iterable[Question],
    questions_path: Path,
    target: Target,
    out: Path,
    family: Family,
    words: Mapping[str, Sequence[Word]] | None = None,
) -> Path:
    """Writes `out`, as parquet for verl and JSONL for the others, and returns it.

    `questions_path` is the file that the questions are from: their audio is looked for from its folder and written as
    an absolute path. `words` are those of clips, by the clip's id: rewards that look at the place of a time need them.
    Questions go by one at a time. `out` is replaced as a whole, and stays as it was where anything fails.

    Raises ValueError for an unknown target or family, OptionError for a family of NO_TRAINER, and RecordError where
    there is no question, where one has another kind than those before it (a training file is for one stage), where a
    phrase has no span, and where a question cannot be asked (prompts.py). verl: ImportError without pyarrow.
    """
    _require_one_of("target", target, get_args(Target))
    _require_one_of("family", family, get_args(Family))
    if family in NO_TRAINER:
        raise OptionError(f"--family {family}: {NO_TRAINER[family]}")
    rows = _rows(questions, questions_path, target, family, words or {})
    if target != "verl":
        write_jsonl(out, rows)
        return out
    schema = _verl_schema(pyarrow_for(PURPOSE))
    write_parquet(out, schema, iter(lambda: list(islice(rows, ROWS_AT_ONCE)), []))
    return out


def import_back(path: Path, target: Target) -> Iterator[Question]:
    """The questions of a file that `export` wrote, equal to those that went in, one at a time.

    They come from the column `tgsr`; changes to the others are not seen.
    Raises ValueError for an unknown target; while reading, RecordError for a row without that column or with
    something else in it.
    """
    _require_one_of("target", target, get_args(Target))
    return _questions(path, _parquet_rows(path) if target == "verl" else _jsonl_rows(path))


def known_words(clips: Iterable[Clip]) -> dict[str, tuple[Word, ...]]:
    """The words of each clip by its id; not of a clip without any, unless a step has flagged it as being without
    speech: a reward that nobody can tell must not be 0.
    """
    return {clip.id: clip.words for clip in clips if clip.words or NO_SPEECH in clip.flags}


# --- what is said ----------------------------------------------------------------------------------------------


def prompt_of(question: Question, family: Family) -> str:
    """The user's text, as sta.py and rl.py have it."""
    if question.kind == "choice":
        text = prompts.choice_question(question.question, question.choices)
    elif family in FLAMINGOS:
        text = prompts.phrase_question_af3(str(question.phrase))
    else:
        text = prompts.phrase_question_qwen(str(question.phrase))
    return _plain(text, family)


def target_of(question: Question, family: Family) -> str:
    """Stage 1's target, or the letter of the right choice. RecordError for a phrase that `without_target` refuses."""
    if question.kind == "choice":
        return correct_letter(question)
    if question.is_absent:
        return _plain(prompts.NOT_SAID, family)
    if why := prompts.without_target(question):
        raise RecordError("evidence", why, remedy="leave the question out")
    if family in FLAMINGOS:
        text = prompts.phrase_answer_af3(question.evidence[0])
    else:
        text = prompts.phrase_answer_qwen(str(question.phrase), question.evidence[0])
    return _plain(text, family)


def _plain(text: str, family: Family) -> str:
    """The names of special tokens as text, as the models' `prompt` writes them; Voxtral's tokenizer reads none."""
    if family in FLAMINGOS:
        text = text.replace("<sound>", "< sound >")
    if family in ("audio_flamingo3", "voxtral"):
        return text
    # Gemma 4 has names that open or close with a bar: <|turn>, <turn|>.
    names = r"<(?=\|\w+\|?>|\w+\|>)" if family == "gemma4" else r"<(?=\|\w+\|>)"
    return re.sub(names, "< ", text)


def _unmarked(text: str) -> str:
    return MARKERS.sub("< ", text)


def _system(family: Family) -> list[dict[str, Any]]:
    return [{"role": "system", "content": prompts.QWEN_SYSTEM}] if family == "qwen_omni" else []


def _in_parts(question: Question, audio_path: str, family: Family) -> list[dict[str, Any]]:
    system = prompts.QWEN_SYSTEM if family == "qwen_omni" else None
    messages = prompts.chat_messages(prompt_of(question, family), system)
    messages[-1]["content"][0] = {"type": "audio", "audio": audio_path}
    return messages


# --- the question itself ---------------------------------------------------------------------------------------


def kept(question: Question, words: Words = None) -> str:
    """One text, not an object: loaders that give columns a type would fill in or cast its fields."""
    row = {name: getattr(question, name) for name in Question.__dataclass_fields__}
    row["evidence"] = [[span.start, span.end] for span in question.evidence]
    if words is not None:
        row[WORDS] = [[word.text, word.start, word.end] for word in words]
    return json.dumps({name: value for name, value in row.items() if value is not None})


def kept_in(stored: object) -> tuple[Question, tuple[Word, ...] | None]:
    """The question that `kept` wrote and its clip's words, None where nobody knew them. RecordError for others."""
    if stored is None:
        raise RecordError(KEPT, "is missing", remedy="only files that `tgsr export` wrote can be read back")
    try:
        fields = json.loads(stored)  # type: ignore[arg-type]  # no text is a TypeError
        said = fields.pop(WORDS, None)
        words = None if said is None else tuple(Word(text, start, end) for text, start, end in said)
        fields["choices"] = tuple(fields.get("choices", ()))
        fields["evidence"] = tuple(Span(start, end) for start, end in fields.get("evidence", ()))
        fields["labels"] = tuple((str(name), str(value)) for name, value in fields.get("labels", ()))
        return Question(**fields), words
    except RecordError:
        raise
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise RecordError(KEPT, f"is no question: {error}", remedy="export the questions again") from None


def _questions(path: Path, rows: Iterator[tuple[int, object]]) -> Iterator[Question]:
    for number, row in rows:
        try:
            question, _ = kept_in(row.get(KEPT) if isinstance(row, dict) else None)
        except RecordError as error:
            raise error.at(str(path), number) from None
        yield question


# --- files -----------------------------------------------------------------------------------------------------


def _rows(
    questions: Iterable[Question],
    path: Path,
    target: Target,
    family: Family,
    words: Mapping[str, Sequence[Word]],
) -> Iterator[dict[str, Any]]:
    file = str(path)
    kind = None
    for index, question in enumerate(questions):
        if kind not in (None, question.kind):
            problem = f"question {question.id!r} is a {question.kind}, those before it are not: a file is for one stage"
            raise RecordError(None, problem, file, remedy="export the kinds apart")
        kind = question.kind
        audio_path = os.path.abspath(resolve_audio(question, path))
        said = words.get(question.clip_id)
        try:
            if target == "verl":
                row = to_verl(question, audio_path, family, index, said)
                # parquet has no place for half of a surrogate pair
                json.dumps(row, ensure_ascii=False).encode()
            else:
                row = _TO_JSON[target](question, audio_path, family, said)
        except ValueError as error:
            problem = error.problem if isinstance(error, RecordError) else str(error)
            problem = f"question {question.id!r}: {problem}"
            raise RecordError(None, problem, file, remedy="correct it or leave it out") from error
        yield row
    if kind is None:
        raise RecordError(None, "no question to export", file, remedy="give a file that has some")


def _jsonl_rows(path: Path) -> Iterator[tuple[int, object]]:
    with path.open("rb") as file:
        for line, content in lines_in(file):
            try:
                yield line, json.loads(content)
            except (ValueError, RecursionError) as error:
                raise RecordError(None, f"is not JSON ({error})", str(path), line) from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, object]]:
    with pyarrow_for(PURPOSE).parquet.ParquetFile(path) as file:
        columns = [KEPT] if KEPT in file.schema_arrow.names else []
        batches = file.iter_batches(ROWS_AT_ONCE, columns=columns)
        yield from enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1)


def _verl_schema(pyarrow: Any) -> Any:
    text = pyarrow.string()
    message = pyarrow.struct([("role", text), ("content", text)])
    extra = [("split", text), ("index", pyarrow.int64()), ("id", text), ("task", text), (KEPT, text)]
    columns = [("data_source", text), ("prompt", pyarrow.list_(message)), ("ability", text)]
    columns += [("reward_model", pyarrow.struct([("style", text), ("ground_truth", text)]))]
    columns += [("extra_info", pyarrow.struct(extra)), ("audios", pyarrow.list_(text)), (KEPT, text)]
    return pyarrow.schema(columns)


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
