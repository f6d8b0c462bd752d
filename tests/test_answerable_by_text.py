"""Without the audio: a question that is answered in every order goes, one that was guessed once stays."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from local_server import Got, Reply, chat_answer, serving
from tgsr.choices import extract_choice
from tgsr.data.questions.answerable_by_text import TextOnly, heard_only, in_turn, is_right, without_audio
from tgsr.data.shards import Step, run
from tgsr.errors import ModelError
from tgsr.llm.by_name import llm_of
from tgsr.llm.decoding import GREEDY
from tgsr.llm.served import TextPrompt
from tgsr.llm.text_models import LocalLlm
from tgsr.records import Question, as_row, read_questions
from tgsr.timeline import Span
from tiny import omni_tokenizer


def save_tiny_llm(folder: Path) -> None:
    """A random Llama with a chat template, as transformers saves it."""
    tokenizer = omni_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def asked(id_: str, text: str, choices: tuple[str, ...], answer: str) -> Question:
    return Question(
        id_, "c", "c.wav", 9.0, "choice", text, answer, choices, evidence=(Span(1.0, 2.0),), task="open"
    )


CAPITAL = asked("capital", "What is the capital of France?", ("Rome", "Paris", "Oslo", "Bern"), "Paris")
COLOUR = asked("colour", "Which folder is wanted?", ("red", "blue", "green", "old"), "green")
TWO = asked("two", "Is it day or night?", ("day", "night"), "night")
PHRASE = Question("p", "c", "c.wav", 9.0, "phrase", "the red", phrase="the red", evidence=(Span(1.0, 2.0),))


def choices_in(got: Got) -> list[str]:
    """The choices in the order in which the server sees them."""
    lines = got.body["messages"][0]["content"].splitlines()
    return [line[4:] for line in lines if line.startswith("(")]


def test_what_is_known_without_audio_goes_and_the_rest_stays(tmp_path: Path) -> None:
    """The server knows of France, always says (a) of colours, and writes nonsense about day and night."""

    def answer(got: Got, _: int) -> Reply:
        choices = choices_in(got)
        if "Paris" in choices:
            return Reply(chat_answer(f"The answer is ({'abcd'[choices.index('Paris')]})."))
        return Reply(chat_answer("(a)" if "red" in choices else "Who can say?"))

    out = tmp_path / "heard.jsonl"
    rows = [as_row(question) for question in (COLOUR, CAPITAL, PHRASE, TWO)]
    with serving(answer) as server:
        step = Step(heard_only, TextOnly(f"{server.url}/v1#big", tmp_path / "cache"))
        counts = run(step, rows, out, root=tmp_path)
        made = heard_only(step.settings, rows)
    assert read_questions(out) == list(made.rows) == [COLOUR, PHRASE, TWO]
    assert (counts.kept, counts.left_out) == (3, 1)
    assert [(one.file, one.error) for one in made.bad] == [
        ("capital", "answerable without audio: right in 4 of 4 orders of its choices")
    ]
    assert len(server.got) == 4 + 1 + 1  # one wrong reply is enough
    firsts = [choices_in(got)[0] for got in server.got if "Paris" in choices_in(got)]
    assert sorted(firsts) == sorted(CAPITAL.choices)


def test_fewer_choices_than_orders_are_asked_in_each_order_once(tmp_path: Path) -> None:
    def answer(got: Got, _: int) -> Reply:
        return Reply(chat_answer("ab"[choices_in(got).index("night")]))

    with serving(answer) as server:
        made = heard_only(TextOnly(f"{server.url}/v1#big", tmp_path), [as_row(TWO)])
    assert made.rows == []
    assert "right in 2 of 2 orders" in made.bad[0].error
    assert len(server.got) == 2


def test_a_request_that_fails_keeps_its_question_and_says_so(tmp_path: Path) -> None:
    """Right three times and refused the fourth: nobody knows, and nobody loses a question."""

    def answer(got: Got, n_before: int) -> Reply:
        if n_before == 3:
            return Reply({"error": {"message": "no more money"}}, 400)
        return Reply(chat_answer("abcd"[choices_in(got).index("Paris")]))

    with serving(answer) as server:
        made = heard_only(TextOnly(f"{server.url}/v1#big", tmp_path), [as_row(CAPITAL)])
    assert made.rows == [CAPITAL]
    assert made.bad[0].file == "capital"
    assert made.bad[0].error.startswith("not tested without audio, and kept: ")
    assert "no more money" in made.bad[0].error


def test_a_reply_with_half_of_a_character_is_read_and_kept(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(chat_answer("no idea \ud83d"))) as server:
        settings = TextOnly(f"{server.url}/v1#big", tmp_path)
        assert heard_only(settings, [as_row(CAPITAL)]) == heard_only(settings, [as_row(CAPITAL)])
        assert len(server.got) == 1


def test_as_another_process_gets_it_the_same_stays(tmp_path: Path) -> None:
    save_tiny_llm(tmp_path / "llm")
    step = Step(heard_only, TextOnly(str(tmp_path / "llm"), tmp_path))
    rows = [as_row(question) for question in (COLOUR, CAPITAL, TWO, PHRASE)]
    sent = pickle.loads(pickle.dumps(step))
    run(sent, rows, tmp_path / "two" / "out.jsonl", root=tmp_path, rows_per_shard=2)
    assert read_questions(tmp_path / "two" / "out.jsonl") == list(heard_only(step.settings, rows).rows)


def test_choices_turn_and_replies_are_read_in_their_order() -> None:
    assert in_turn(("a", "b", "c"), 1) == ("b", "c", "a")
    prompt = without_audio(COLOUR, 3)
    assert "Which folder is wanted?\n(a) old\n(b) red\n(c) blue\n(d) green\n" in prompt.text
    assert prompt.letters == "abcd"
    for reply in ("d", "(D)", " d.\n", "**D**", "green", "Answer: (d) green"):
        assert is_right(reply, COLOUR, 3), reply
    for reply in ("c", "", "e", "red", "either (a) or (d)", "{}", "\ud800"):
        assert not is_right(reply, COLOUR, 3), reply


def test_a_letter_is_the_choice_at_that_letter_even_where_choices_are_letters() -> None:
    spelled = asked("letters", "Which letter is heard first?", ("b", "a"), "a")
    assert extract_choice("b", spelled.choices) == 0  # read as a text
    assert is_right("b", spelled, 0)  # asked for a letter


def test_choices_that_repeat_are_right_by_their_text() -> None:
    twice = asked("twice", "Which?", ("x y", "z", "x y"), "x y")
    assert is_right("a", twice, 0)
    assert is_right("c", twice, 0)
    assert not is_right("b", twice, 0)


def test_a_local_llm_says_the_likeliest_letter(tmp_path: Path) -> None:
    save_tiny_llm(tmp_path / "llm")
    llm = llm_of(str(tmp_path / "llm"), tmp_path)
    assert isinstance(llm, LocalLlm)
    assert llm_of(str(tmp_path / "llm"), tmp_path) is llm
    prompts = [without_audio(CAPITAL, order) for order in range(4)]
    found = llm.replies(prompts, GREEDY)
    for prompt, reply in zip(prompts, found, strict=True):  # held against the cascade's own likelihoods
        likely = llm.likely([prompt.text] * 4, list(prompt.letters))
        assert reply == prompt.letters[likely.index(max(likely))]
    assert found == [llm.replies([prompt], GREEDY)[0] for prompt in prompts]  # neighbours change nothing
    assert llm.replies([TextPrompt("words " * 5000, "ab")], GREEDY)[0] in ("a", "b")


def test_with_a_local_llm_what_stays_and_what_goes_is_all_there_was(tmp_path: Path) -> None:
    save_tiny_llm(tmp_path / "llm")
    questions = [COLOUR, CAPITAL, TWO, PHRASE]
    settings = TextOnly(str(tmp_path / "llm"), tmp_path)
    made = heard_only(settings, [as_row(question) for question in questions])
    assert made == heard_only(settings, [as_row(question) for question in questions])
    kept = {question.id for question in made.rows if isinstance(question, Question)}
    assert kept | {one.file for one in made.bad} == {question.id for question in questions}
    once = heard_only(TextOnly(str(tmp_path / "llm"), tmp_path, n_orders=1), [as_row(q) for q in questions])
    assert len(once.rows) <= len(made.rows)  # one order lets more guesses pass for answers


def test_what_cannot_be_asked_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded as a text model"):
        llm_of(str(tmp_path / "nothing"), tmp_path)
    with pytest.raises(ModelError, match="needs a URL and a model"):
        llm_of("http://localhost:1/v1", tmp_path)
    with pytest.raises(ValueError, match="n_orders must be 1 or more"):
        TextOnly("nobody", tmp_path, 0)
