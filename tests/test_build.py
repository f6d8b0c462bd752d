"""An LLM in `tgsr build qa`: what it writes is added, what it answers without audio is left out; a local server."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from local_server import Got, Reply, chat_answer, serving
from tgsr import cli
from tgsr.records import Clip, read_questions, write_jsonl
from tgsr.timeline import Word

SAID = "we meet at noon in the old station hall because the new one is closed"


def clip(name: str) -> Clip:
    words = tuple(
        Word(word, i * 0.5, i * 0.5 + 0.4, None, "exact", 0.9) for i, word in enumerate(SAID.split())
    )
    return Clip(name, f"{name}.wav", 10.0, (Word(name, 8.0, 8.4, None, "exact", 0.9), *words))


DRAFT = {
    "question": "Where do they meet?",
    "answer": "the old station",
    "wrong": ["the new library", "the town square", "the river bridge"],
    "quote": "in the old station hall",
}


def answer(got: Got, n: int) -> Reply:
    """Writes one good draft and one that quotes nobody; without audio it always says where they meet."""
    text = json.dumps(got.body)
    if "cannot hear" not in text:
        return Reply(
            chat_answer(json.dumps(DRAFT) + "\n" + json.dumps({**DRAFT, "quote": "never said by anyone"}))
        )
    return Reply(chat_answer("the old station" if "Where do they meet" in text else "I do not know"))


def test_what_an_llm_writes_is_added_and_what_it_knows_without_audio_is_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TGSR_API_KEY", "k")
    write_jsonl(tmp_path / "clips.jsonl", [clip("ann"), clip("bob")])
    build = ["build", "qa", "--clips", str(tmp_path / "clips.jsonl"), "--out"]
    with serving(answer) as server:
        name = f"{server.url}/v1#writer"
        assert cli.main([*build, str(tmp_path / "open"), "--llm", name]) == 0
        assert cli.main([*build, str(tmp_path / "heard"), "--llm", name, "--text-model", name]) == 0
    questions = read_questions(tmp_path / "open" / "questions.jsonl")
    counts = Counter(question.task for question in questions)
    assert counts["open question"] == 2
    assert counts["said first"] == 2
    (written, _) = (question for question in questions if question.task == "open question")
    assert written.answer == "the old station"
    assert written.evidence[0].start == pytest.approx(2.0)
    reasons = (tmp_path / "open" / "errors.jsonl").read_text()
    assert reasons.count("quote") >= 2
    left = read_questions(tmp_path / "heard" / "questions.jsonl")
    assert "open question" not in {question.task for question in left}
    assert len(left) == len(questions) - 2
    assert (
        "answerable without audio: right in 4 of 4 orders"
        in (tmp_path / "heard" / "errors.jsonl").read_text()
    )
    assert "answerable without audio" in (tmp_path / "heard" / "card.md").read_text()
