"""`tgsr predict`: benchmarks in their owners' files, how choices are asked, what a second run may add."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from local_server import Got, Reply, Server, chat_answer, serving
from test_benchmark_files import mmau_row, sound
from tgsr import cli
from tgsr.answering.open import open_model
from tgsr.answering.predict import predict_to_file
from tgsr.choices import extract_choice
from tgsr.engine.features import FeatureCache
from tgsr.errors import ModelError, OptionError, RecordError
from tgsr.evaluation.benchmarks import questions_of
from tgsr.llm.decoding import GREEDY, Cut, Decoding, Failed
from tgsr.models.lalm import Lalm
from tgsr.prompts import (
    AIRBENCH_INSTRUCTION,
    COT_INSTRUCTION,
    PLAIN_INSTRUCTION,
    QWEN_SYSTEM,
    REASONING_INSTRUCTION,
    airbench_question,
    asked_with,
    prompt_of,
    prompt_text,
    prompted,
    system_of,
)
from tgsr.records import Question, as_row, read_questions, read_responses
from tiny import tiny_lalm


def run(*words: str | Path | int) -> int:
    return cli.main([str(word) for word in words])


def question(n_choices: int = 2, **changes: object) -> Question:
    choices = tuple(f"number {n}" for n in range(n_choices))
    fields = {"id": "q", "clip_id": "c", "audio": "c.wav", "duration": 1.0, "kind": "choice"}
    return Question(**fields | {"question": "Which?", "answer": choices[0], "choices": choices} | changes)  # type: ignore[arg-type]


# --- prompts -------------------------------------------------------------------------------------------------------


def test_every_prompt_lists_the_choices_and_only_one_asks_for_times() -> None:
    texts = {
        prompt: prompted("Which?", ["a dog", "a cat"], prompt) for prompt in ("reasoning", "plain", "cot")
    }  # type: ignore[misc]
    for text, instruction in zip(
        texts.values(), (REASONING_INSTRUCTION, PLAIN_INSTRUCTION, COT_INSTRUCTION), strict=True
    ):
        assert text == f"Which?\n(a) a dog\n(b) a cat\n{instruction}"
    assert "timestamp" in texts["reasoning"]
    assert "time" not in texts["plain"] + texts["cot"]


def test_airbench_is_asked_as_its_owner_asks() -> None:
    assert airbench_question("How many?", ["one", "two"]) == (
        f"{AIRBENCH_INSTRUCTION}\nHow many?\nA. one\nB. two\nC. None\nD. None"
    )
    with pytest.raises(ValueError, match="2 to 4 choices, got 5"):
        airbench_question("How many?", list("abcde"))


def test_the_prompt_is_the_questions_own_and_stays_with_it() -> None:
    lalm = tiny_lalm()
    (asked,) = asked_with([question()], "cot")
    assert prompt_text(lalm, asked).endswith(COT_INSTRUCTION)
    assert prompt_text(lalm, question()).endswith(REASONING_INSTRUCTION)
    assert asked_with([asked], "reasoning") == [question()]
    (twice,) = asked_with([asked], "plain")
    assert (prompt_of(twice), len(twice.labels)) == ("plain", 1)
    phrase = question(kind="phrase", phrase="two", choices=(), answer=None)
    assert asked_with([phrase], "cot") == [phrase]
    with pytest.raises(RecordError, match="'haiku', not one of reasoning, plain, cot, airbench"):
        prompt_text(lalm, question(labels=(("prompt", "haiku"),)))
    with pytest.raises(ModelError, match="2 to 4 choices"):
        prompt_text(lalm, question(5, labels=(("prompt", "airbench"),)))


# --- against a server that answers what it is told -------------------------------------------------------------------


def benchmark(folder: Path, n: int, **changes: object) -> Path:
    """An invented file in MMAU's format, two questions a clip, and its sound files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        mmau_row(f"q{i}", audio_id=f"./test-mini-audios/c{i // 2}.wav", question=f"Who says {i}?", **changes)
        for i in range(n)
    ]
    for i in range(0, n, 2):
        sound(folder / "test-mini-audios" / f"c{i // 2}.wav", seconds=0.5 + i / 10)
    path = folder / "mmau-test-mini.json"
    path.write_text(json.dumps(rows))
    return path


def texts_of(server: Server) -> list[str]:
    parts = [part for got in server.got for part in got.body["messages"][-1]["content"]]
    return [part["text"] for part in parts if part["type"] == "text"]


def second(got: Got, n_before: int) -> Reply:
    return Reply(chat_answer("They take turns.\nFinal answer: (b) the second speaker"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own: a server's answers are kept there."""
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("cache")
def test_prompts_of_one_model_lie_side_by_side_but_do_not_mix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = benchmark(tmp_path / "b", 4)
    out = tmp_path / "p.jsonl"
    with serving(second) as server:
        model = f"{server.url}/v1#m"
        words = ["predict", "--questions", path, "--model", model, "--out", out]
        assert run(*words, "--limit", 2) == 0
        assert len(read_responses(out)) == 2
        assert run(*words) == 0  # goes on
        assert run(*words, "--prompt", "cot") == 2
        error = capsys.readouterr().err
        assert "has answered here under --prompt reasoning, now it is cot" in error
        assert "--name" in error
        assert run(*words, "--prompt", "cot", "--name", "m cot") == 0
        assert run(*words, "--prompt", "cot", "--name", "m cot") == 0  # nothing is left
        assert run(*words, "--name", "m cot") == 2
        assert run(*words, "--prompt", "plain", "--name", "m cot", "--limit", 1) == 2
        asked = texts_of(server)
    responses = read_responses(out)
    assert len(asked) == len(responses) == 8
    of_name = {name: [r for r in responses if r.model == name] for name in {r.model for r in responses}}
    assert sorted(len(of) for of in of_name.values()) == [4, 4]
    assert {prompt_of(r.question) for r in of_name["m cot"]} == {"cot"}
    assert [text.endswith(COT_INSTRUCTION) for text in asked] == [False] * 4 + [True] * 4


@pytest.mark.usefixtures("cache")
def test_another_benchmark_may_be_asked_another_way_under_the_same_name(tmp_path: Path) -> None:
    mmau = benchmark(tmp_path / "b", 2)
    rows = [
        {
            "path": "a.wav",
            "question": "How many?",
            "choice_a": "one",
            "choice_b": "two",
            "choice_c": None,
            "choice_d": None,
            "answer_gt": "one",
            "task_name": "Speaker_Number_Verification",
            "dataset_name": "voxceleb1",
            "uniq_id": 7,
        }
    ]
    airbench = tmp_path / "Foundation_meta.json"
    airbench.write_text(json.dumps(rows))
    sound(tmp_path / "Foundation" / "Speaker_Number_Verification_voxceleb1" / "a.wav")
    out = tmp_path / "p.jsonl"
    with serving(lambda got, n: Reply(chat_answer("A"))) as server:
        words = ["--model", f"{server.url}/v1#m", "--out", out, "--name", "m"]
        assert run("predict", "--questions", mmau, *words) == 0
        asked = ["predict", "--questions", airbench, "--only", "SNV", "--prompt", "airbench", *words]
        assert run(*asked, "--official", tmp_path / "air.jsonl") == 0
        assert texts_of(server)[-1] == airbench_question("How many?", ["one", "two"])
    assert json.loads((tmp_path / "air.jsonl").read_text()) == rows[0] | {"response": "A"}
    assert len(read_responses(out)) == 3


@pytest.mark.usefixtures("cache")
def test_five_choices_have_no_letter_under_airbenchs_prompt(tmp_path: Path) -> None:
    path = benchmark(tmp_path / "b", 1, choices=list("abcde"), answer="e")
    out = tmp_path / "p.jsonl"
    with serving(second) as server:
        words = ["predict", "--questions", path, "--model", f"{server.url}/v1#m", "--out", out]
        for _ in range(2):
            assert run(*words, "--prompt", "airbench") == 2  # no question got a response
        assert not server.got
    listed = [json.loads(line) for line in (tmp_path / "p.jsonl.errors.jsonl").read_text().splitlines()]
    assert [(row["id"], "2 to 4 choices, got 5" in row["error"]) for row in listed] == [("q0", True)]  # once


@pytest.mark.usefixtures("cache")
def test_what_is_wrong_is_said_before_a_model_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = benchmark(tmp_path / "b", 2)
    with serving(second) as server:
        model = f"{server.url}/v1#m"
        words = ["predict", "--questions", path, "--model", model, "--out", tmp_path / "p.jsonl"]
        for more, says in (
            (["--only", "SNV"], "domain is speech"),
            (["--audio", tmp_path / "nowhere"], "no such folder"),
            (["--limit", "0"], "must be 1 or more"),
        ):
            assert run(*words, *more) == 2
            assert says in capsys.readouterr().err
        ours = tmp_path / "questions.jsonl"
        ours.write_text("")
        assert run(*words[:2], ours, *words[3:], "--official", tmp_path / "o") == 2
        assert "--official" in capsys.readouterr().err
        assert not server.got
    assert not (tmp_path / "p.jsonl").exists()


# --- with the packaged miniature -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("encoder")
def test_an_owners_file_goes_in_and_scores_come_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real speech: composed digits, asked about in MMAU's format; one of its sound files is missing."""
    run("build", "qa", "--digits", 3, "--split", "heldout-speaker", "--out", tmp_path / "q")
    asked = read_questions(tmp_path / "q" / "questions.jsonl")
    (tmp_path / "b").mkdir()
    (tmp_path / "q" / "audio").rename(tmp_path / "b" / "test-mini-audios")
    rows = [
        mmau_row(
            q.id,
            audio_id=f"./test-mini-audios/{Path(q.audio).name}",
            question=q.question,
            choices=[*q.choices, None],
            answer=q.answer,
            **{"sub-category": q.task},
        )
        for q in asked
    ]
    rows += [mmau_row("gone"), mmau_row("music", task="music")]
    path = tmp_path / "b" / "mmau.json"
    path.write_text(json.dumps(rows))
    out, official = tmp_path / "p" / "mmau.jsonl", tmp_path / "p" / "official.json"
    words = ["predict", "--questions", path, "--only", "speech", "--model", "mini:tgsr", "--out", out]
    assert run(*words, "--official", official, "--cache", tmp_path / "cache", "--max-new-tokens", 120) == 0
    assert f"{official}: {len(asked)} of {len(asked)} rows" in capsys.readouterr().out
    responses = read_responses(out)
    assert {r.question.id for r in responses} == {q.id for q in asked}
    assert len({r.question.clip_id for r in responses}) == 3
    for r in responses:
        assert (out.parent / r.question.audio).resolve().parent == tmp_path / "b" / "test-mini-audios"
        assert r.question.labelled("benchmark") == ("mmau",)
    errors = (tmp_path / "p" / "mmau.jsonl.errors.jsonl").read_text()
    assert "no sound file" in errors
    assert "music" not in [json.loads(line)["field"] for line in errors.splitlines()]
    for row, response in zip(json.loads(official.read_text()), responses, strict=True):
        assert row["id"] == response.question.id
        chosen = extract_choice(response.text, response.question.choices)
        assert row["model_output"] == (response.text if chosen is None else response.question.choices[chosen])
    assert run("score", out, "--out", tmp_path / "metrics.json") == 0
    model_scores = json.loads((tmp_path / "metrics.json").read_text())["models"]["mini:tgsr"]
    scores = model_scores["all"]["choice"]
    assert scores["n"] == model_scores["benchmarks"]["mmau"]["n"] == len(asked)
    right = [
        (i := extract_choice(r.text, r.question.choices)) is not None
        and r.question.choices[i] == r.question.answer
        for r in responses
    ]
    assert scores["accuracy_strict"]["value"] == pytest.approx(np.mean(right))
    assert run("score", official, "--out", tmp_path / "official-metrics.json") == 0
    benchmark_scores = json.loads((tmp_path / "official-metrics.json").read_text())["benchmark"]
    assert benchmark_scores["accuracy_strict"]["value"] == pytest.approx(np.mean(right))
    assert benchmark_scores["accuracy_official"] == model_scores["benchmarks"]["mmau"]["accuracy_official"]


def test_the_same_questions_again_from_the_predictions_file(tmp_path: Path) -> None:
    """A predictions file is a questions file too, prompt included."""
    path = benchmark(tmp_path, 2)
    asked = asked_with(questions_of(path), "plain")
    row = {"model": "m", "response": "(a)"}
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({**as_row(q), **row}) + "\n" for q in asked))
    again = questions_of(tmp_path / "p.jsonl", only=["prompt=plain"])
    assert again == asked
    assert [prompt_of(q) for q in again] == ["plain", "plain"]


# --- what a record says of how it was made -------------------------------------------------------------------------


@dataclass
class Halting:
    """A model that only answers: the limit cuts every second answer off."""

    name: str = "halting"
    max_seconds: float = 60.0
    at_once: int = 2
    system: str | None = None

    def phrase_question(self, phrase: str) -> str:
        return phrase

    def respond(self, clips: object, questions: Sequence[object], decoding: object) -> list[str | Failed]:
        return [Cut("so far") if index % 2 else "all of it" for index, _ in enumerate(questions)]


def test_a_cut_response_says_so_in_its_record_and_a_whole_one_does_not(tmp_path: Path) -> None:
    path, out = benchmark(tmp_path / "b", 4), tmp_path / "p.jsonl"
    asked = questions_of(path, None, errors=tmp_path / "errors.jsonl")
    predict_to_file(Halting(), asked, path, out, FeatureCache(tmp_path), GREEDY)
    assert [response.truncated for response in read_responses(out)] == [False, True] * 2
    assert ['"truncated":true' in line.replace(": ", ":") for line in out.read_text().splitlines()] == [
        False,
        True,
    ] * 2


def test_every_record_has_its_system_turn_and_two_of_them_do_not_mix(tmp_path: Path) -> None:
    path, out = benchmark(tmp_path / "b", 4), tmp_path / "p.jsonl"
    asked = questions_of(path, None, errors=tmp_path / "errors.jsonl")
    cache = FeatureCache(tmp_path)
    predict_to_file(Halting(), asked[:2], path, out, cache, GREEDY)
    assert [json.loads(line)["system"] for line in out.read_text().splitlines()] == ["", ""]
    with pytest.raises(RecordError, match=r"system turn '', now it is 'Be brief\.'"):
        predict_to_file(Halting(system="Be brief."), asked, path, out, cache, GREEDY)
    predict_to_file(Halting(system="Be brief."), asked, path, out, cache, GREEDY, name="brief")
    assert [response.system for response in read_responses(out)] == [""] * 2 + ["Be brief."] * 4


@pytest.mark.parametrize("change", ["decoding", "weights", "nothing"])
def test_answers_of_other_weights_or_decoding_do_not_mix(tmp_path: Path, change: str) -> None:
    path, out, folder = benchmark(tmp_path / "b", 4), tmp_path / "p.jsonl", tmp_path / "model"
    asked = questions_of(path, None, errors=tmp_path / "errors.jsonl")
    cache, model, decoding = FeatureCache(tmp_path), Halting(name=str(folder)), GREEDY
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_text("old")
    predict_to_file(model, asked[:2], path, out, cache, decoding)
    if change == "weights":
        weights.write_text("new")  # trained on, under the same name
    elif change == "decoding":
        decoding = replace(GREEDY, temperature=0.7)
    else:
        decoding = replace(GREEDY, seed=7)  # of which greedy answers know nothing
        os.utime(weights, (0, 0))
    if change == "nothing":
        assert predict_to_file(model, asked, path, out, cache, decoding) == (2, 0)
        return
    says = (
        r"before its files changed: .*model\.safetensors"
        if change == "weights"
        else r"--temperature not given, now 0\.7"
    )
    with pytest.raises(RecordError, match=rf"{says}.*--name"):
        predict_to_file(model, asked, path, out, cache, decoding)
    assert predict_to_file(model, asked, path, out, cache, decoding, name="other") == (4, 0)
    out.unlink()
    assert predict_to_file(model, asked, path, out, cache, decoding) == (4, 0)  # nothing to mix with


def test_rounded_matrices_say_how_far_they_are_and_do_not_mix_with_exact_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, cache = benchmark(tmp_path / "b", 2), tmp_path / "p.jsonl", FeatureCache(tmp_path)
    asked = questions_of(path, None, errors=tmp_path / "errors.jsonl")
    rounded = Decoding(max_new_tokens=3, quantize="int8")
    assert predict_to_file(tiny_lalm(), asked[:1], path, out, cache, rounded) == (1, 0)
    said = re.search(
        r"int8: over the \d tokens .* (\S+) nats .* mean, (\S+) at most", capsys.readouterr().err
    )
    assert said is not None
    assert 0 < float(said[1]) <= float(said[2]) < 0.5
    with pytest.raises(RecordError, match="here with --quantize int8, now not given"):
        predict_to_file(tiny_lalm(), asked, path, out, cache, replace(rounded, quantize=None))
    with pytest.raises(OptionError, match=r"--quantize int8: .* is not decoded by us"):
        predict_to_file(Halting(), asked, path, tmp_path / "other.jsonl", cache, rounded)


def test_answers_of_before_are_gone_on_with(tmp_path: Path) -> None:
    path, out, cache = benchmark(tmp_path / "b", 4), tmp_path / "p.jsonl", FeatureCache(tmp_path)
    asked = questions_of(path, None, errors=tmp_path / "errors.jsonl")
    predict_to_file(Halting(), asked[:2], path, out, cache, GREEDY)
    (tmp_path / ".p.jsonl.run.json").unlink()
    assert predict_to_file(Halting(), asked, path, out, cache, replace(GREEDY, temperature=1.0)) == (2, 0)


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen2.5-Omni-7B", "qwen2_5_omni", "http://localhost:8000/v1#Qwen2.5-Omni-3B-AWQ"]
)
def test_an_omni_is_known_by_its_name(name: str) -> None:
    assert system_of(name) == QWEN_SYSTEM


@pytest.mark.parametrize("name", ["mini", "Qwen/Qwen3-Omni-30B", "Qwen2.5-7B", "gpt-4o-audio-preview"])
def test_other_models_keep_their_templates_system_turn(name: str) -> None:
    assert system_of(name) is None


def test_one_setting_is_every_models_system_turn(tmp_path: Path) -> None:
    served = open_model("http://localhost:1/v1#m", tmp_path, system="Be brief.")
    local = open_model("mini:tgsr", tmp_path, system="Be brief.")
    assert served.system == local.system == "Be brief."
    assert isinstance(local, Lalm)
    before = local.tokenizer.decode(local.prompt("?").before)
    assert before.startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert open_model("mini:tgsr", tmp_path, system="").system is None
