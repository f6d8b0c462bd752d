"""Which responses fine-tuning learns from: by rejection, as the ablation's reasoning SFT does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tgsr.engine.features import FeatureCache
from tgsr.errors import RunError
from tgsr.records import Question, Response, read_questions, write_jsonl
from tgsr.timeline import Span
from tgsr.training.config import SftConfig
from tgsr.training.sft import left_out_of, reserved_in, train_sft, wanted
from tiny import questions_in, tiny_base, tiny_lalm

ALL = SftConfig(responses="")
STRICT = SftConfig(responses="", right_only=True, without_timestamps=True)
CHOICE = Question("q", "c", "a.wav", 4.0, "choice", "Which?", "two", ("one", "two"))


@pytest.mark.parametrize(
    ("text", "is_wanted"),
    [
        ("The speaker counts.\nFinal answer: (b) two", True),
        ("The speaker counts.\nFinal answer: (a) one", False),
        ("The speaker counts.", False),
        ("From 0.20s to 1.40s he counts.\nFinal answer: (b) two", False),
        ('"two" (1.20 \u2013 1.40 s)\nFinal answer: (b) two', False),  # the strict parser's
        ("from 2 to 3 people\n(b)", False),  # the authors' counter's
        (
            "From 3s to 1s he counts.\nFinal answer: (b) two",
            False,
        ),  # an interval that is none was still cited
    ],
)
def test_what_is_right_and_cites_nothing_is_learned_from(text: str, is_wanted: bool) -> None:
    response = Response(CHOICE, "m", text)
    assert wanted(response, STRICT) == is_wanted
    assert wanted(response, ALL)


def test_a_phrase_has_no_right_letter() -> None:
    phrase = Question("p", "c", "a.wav", 4.0, "phrase", "When?", phrase="two", evidence=(Span(0, 1),))
    assert not wanted(Response(phrase, "m", "(b)"), STRICT)
    assert wanted(Response(phrase, "m", "(b)"), ALL)


def test_a_response_that_was_cut_off_is_left_out_unless_told_otherwise() -> None:
    cut = Response(CHOICE, "m", "The speaker counts.\nFinal answer: (b) two", truncated=True)
    assert not wanted(cut, ALL)
    assert wanted(cut, replace(ALL, keep_truncated=True))
    assert not wanted(replace(cut, text="So"), replace(STRICT, keep_truncated=True))


def test_a_response_to_a_question_for_testing_is_never_learned_from() -> None:
    held_out = Response(replace(CHOICE, split="test"), "m", "Final answer: (b) two")
    assert not wanted(held_out, replace(ALL, keep_truncated=True))
    assert left_out_of([held_out], [], ALL).endswith(
        "1 are left out since they are for testing, by their split"
    )


def test_it_is_said_how_many_are_learned_from_and_none_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = read_questions(questions_in(tmp_path / "qa", "qa", 2, most=4))
    letters = ["abcd"[q.choices.index(str(q.answer))] for q in questions]
    path = tmp_path / "qa" / "responses.jsonl"
    write_jsonl(
        path,
        [
            Response(q, "m", f"So.\n({of if q is questions[0] else 'e'})", truncated=q is questions[1])
            for q, of in zip(questions, letters, strict=True)
        ],
    )
    config = replace(STRICT, responses=str(path))
    adapter = train_sft(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), tiny_base)
    assert (adapter / "adapter_model.safetensors").exists()
    said = f"1 of {len(questions)} responses are learned from; 1 were cut off and are left out (--keep-truncated)"
    assert said in capsys.readouterr().out
    five = [
        replace(q, choices=("v", "w", "x", "y", "z"), answer=answer)
        for q, answer in zip(questions[:4], "zwzv", strict=True)
    ]
    lettered = [Response(q, "m", "(b)") for q in five]
    said = left_out_of(lettered, lettered[:1], config)
    assert said.endswith(
        "; 2 are left out since their question's right answer is beyond (d), which Eq. 1 never pays"
    )
    write_jsonl(path, [Response(q, "m", "So.\n(e)") for q in questions])
    with pytest.raises(RunError, match=f"none of its {len(questions)} responses is wanted; sample more"):
        train_sft(config, tmp_path / "other", FeatureCache(tmp_path / "cache"), tiny_base)


def test_an_empty_response_and_the_names_of_special_tokens_are_said() -> None:
    kept = [Response(CHOICE, "m", text) for text in ("", " \n", "So. (b)<|im_end|>", "So <b>. (b)")]
    assert left_out_of(kept, kept, ALL).endswith(
        "4 of 4 responses are learned from; 2 of them are empty: they teach to say nothing"
    )
    assert "empty" not in left_out_of(kept, kept[2:], ALL)
    lalm = tiny_lalm()
    assert reserved_in(lalm, kept).startswith(
        "1 responses hold names of special tokens, the first <|im_end|>:"
    )
    assert not reserved_in(lalm, [kept[0], kept[3]])
