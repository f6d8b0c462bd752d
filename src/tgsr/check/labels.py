"""Part 3: what is learned from is the answer and its end, the prompt is masked, and no data writes a special token."""

from __future__ import annotations

import math
import re

from jinja2 import TemplateError

from tgsr.check.bench import Bench
from tgsr.check.rows import Row
from tgsr.models.lalm import Lalm
from tgsr.models.tokens import reserved_names
from tgsr.records import Question, read_questions
from tgsr.sta import phrase_branch

MASKED, LEARNED = "░", "█"  # before text that is only read, and before text that is learned from
N_SHOWN = 2
PROBE = "seven two"  # an answer whose end is looked for in the chat template
MARKUP = re.compile(r"</?\w+>")
MOST_NAMES = 64  # of special tokens that are tried: Whisper has one for each time


def learned_text(lalm: Lalm, question: Question) -> str:
    """A question of stage 1 as it is learned from: the prompt after MASKED, the answer and its end after LEARNED."""
    branch, before = phrase_branch(lalm, question), lalm.prompt("").before
    decode, n_frames = lalm.tokenizer.decode, round(lalm.heard(question.duration) / lalm.seconds_per_frame)
    prompt = f"{decode(list(before))}({n_frames} frames){decode(list(branch.prompt))}"
    return f"{MASKED}{prompt}{LEARNED}{decode(list(branch.answer))}"


def targets(bench: Bench) -> Row:
    """The tokens of stage 1's answers, as text, against the answer that the family is to give; its end comes last."""
    lalm = bench.lalm
    questions = [q for q in read_questions(bench.speech.phrases) if q.kind == "phrase"][:N_SHOWN]
    both = [targets_of(lalm, question) for question in questions]
    # Before it may stand what closes a thought that the prompt has opened, which is markup alone.
    wrong = [
        (expected, found)
        for expected, found in both
        if not found.endswith(expected) or MARKUP.sub("", found.removesuffix(expected)).strip()
    ]
    return Row(
        3,
        "targets",
        learned_text(lalm, questions[0])
        if not wrong
        else f"learned is {wrong[0][1]!r}, the answer is {wrong[0][0]!r}",
        f"the whole answer and its end after {LEARNED}, all else masked ({MASKED})",
        not wrong,
        "answers are shifted, cut, or lack their end: the tokenizer is not the checkpoint's",
        {"n": len(questions)},
    )


def targets_of(lalm: Lalm, question: Question) -> tuple[str, str]:
    """What is to be learned of a phrase, and what its tokens say: the answer, then the name of the end token."""
    answer = lalm.target(question)
    end = str(lalm.tokenizer.decode([lalm.eos_id]))
    ids = list(phrase_branch(lalm, question).answer)
    # As the family reads it: Whisper's times are tokens. Blanks: a tokenizer may put one before the first word.
    found = lalm.text(ids) + (end if ids and ids[-1] == lalm.eos_id else "")
    return f"{answer}{end}".strip(), found.strip()


def end_tokens(bench: Bench) -> Row:
    """Which token closes an assistant's turn in the chat template, and which ones end a response."""
    lalm = bench.lalm
    vocabulary = {token: name for name, token in lalm.tokenizer.get_vocab().items()}
    closing = closing_token(lalm)
    config = getattr(lalm.inner, "generation_config", None)
    listed = getattr(config, "eos_token_id", None)
    wanted = {listed} if isinstance(listed, int) else set(listed or ())
    missing = {token for token in (closing, *wanted) if token is not None and not lalm.ends(token)}
    taught = lalm.eos_id if closing is None else closing
    names = ", ".join(
        vocabulary.get(token, str(token)) for token in dict.fromkeys((lalm.eos_id, *lalm.end_ids))
    )
    number = f"taught is {vocabulary.get(lalm.eos_id, lalm.eos_id)}; a response ends at {names}"
    if missing:
        number += f", not at {', '.join(vocabulary.get(token, str(token)) for token in sorted(missing))}"
    return Row(
        3,
        "end tokens",
        number,
        f"the template closes a turn with {vocabulary.get(taught, taught)}; all of the generation config",
        not missing and lalm.eos_id == taught,
        "responses would run on to the limit, or learn to stop elsewhere: take the tokenizer, chat template and "
        "generation_config.json that came with the weights",
        {"taught": vocabulary.get(lalm.eos_id), "closing": vocabulary.get(taught)},
    )


def closing_token(lalm: Lalm) -> int | None:
    """The special token with which the chat template ends an assistant's turn; None where it closes none."""
    tokenizer = lalm.tokenizer
    if not tokenizer.chat_template:
        return None
    asked = lalm.turns("When?", lalm.system)
    try:
        answer = {"role": "assistant", "content": [{"type": "text", "text": PROBE}]}
        chat = str(tokenizer.apply_chat_template([*asked, answer], tokenize=False))
    except (TemplateError, TypeError):  # a template that knows an answer as one text alone
        chat = str(tokenizer.apply_chat_template([*asked, {**answer, "content": PROBE}], tokenize=False))
    _, said, after = chat.rpartition(PROBE)
    ids = lalm.tokens(after.lstrip()) if said else []
    return ids[0] if ids and ids[0] in set(tokenizer.all_special_ids) else None


def special_tokens(bench: Bench) -> Row:
    """The names of all special tokens, put into a question and into an answer: none may become the token."""
    lalm = bench.lalm
    names = reserved_names(lalm.tokenizer)
    names = names[:: max(1, math.ceil(len(names) / MOST_NAMES))]
    vocabulary = lalm.tokenizer.get_vocab()
    plain = lalm.prompt("x y").after
    got_in = [
        name
        for name in names
        if lalm.prompt(f"x {name} y").after.count(vocabulary[name]) != plain.count(vocabulary[name])
        or vocabulary[name] in lalm.plain_tokens(f"x {name} y")
    ]
    data = [q for q in read_questions(bench.speech.phrases) if q.kind == "phrase"]
    special = set(lalm.tokenizer.all_special_ids) - {lalm.eos_id}
    in_data = [q.id for q in data if special & set(phrase_branch(lalm, q).answer)]
    return Row(
        3,
        "special tokens",
        f"of {len(names)} names in a text {len(got_in)} became tokens; of {len(data)} answers {len(in_data)} hold one"
        + (f", first {(got_in or in_data)[0]}" if got_in or in_data else ""),
        "none",
        not got_in and not in_data,
        "a text could end the turn or ask for a second recording: take the tokenizer that came with the weights",
        {"became_tokens": len(got_in), "answers_with_one": len(in_data)},
    )
