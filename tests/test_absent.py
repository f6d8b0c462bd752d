import json

import pytest

from tgsr.cli import main
from tgsr.data.other_trainers import import_back, target_of
from tgsr.data.questions.absent import Pool, absent_phrases
from tgsr.data.questions.phrases import Said
from tgsr.errors import RecordError
from tgsr.evaluation.scoring.score import Predictions, score
from tgsr.grounding import says_absent
from tgsr.models.load import load
from tgsr.prompts import NOT_SAID
from tgsr.records import (
    ABSENT,
    Clip,
    Question,
    Response,
    question_of,
    read_clips,
    read_questions,
    write_jsonl,
)
from tgsr.sta import phrase_branch
from tgsr.timeline import Hole, Span, Word

TEXT = "she cleaned the house all april and the garden in may"
WORDS = tuple(Word(text, float(n), n + 0.8) for n, text in enumerate(TEXT.split()))
CLIP = Clip("a", "a.wav", 20.0, words=WORDS)


def phrase(text: str, first: int = 0, clip: str = "a", **changed: object) -> Question:
    fields = {"evidence": (Span(first, first + 1.0),), "phrase": text, "split": "train", **changed}
    return Question(f"{clip}-{text}-{first}", clip, f"{clip}.wav", 20.0, "phrase", text, **fields)


OWN = [phrase("cleaned the house", 1), phrase("garden in may", 8)]
OTHERS = [
    phrase(text, clip="b")
    for text in ("the house all april", "a dog barks loudly", "seven more people", "past may")
]


@pytest.mark.parametrize(
    "text",
    [
        NOT_SAID, "It is not said in the clip.", "The phrase doesn't appear in the audio.", "I cannot find it.",
        "not found", "N/A", "None", "null", '{"start": null, "end": null}', "There is no such segment.", "[]", "没有",
        "It is never mentioned.", "That phrase is absent.", "<think>3 to 5 s?</think>\nIt is not present.",
        "The segment starts at 0.00 seconds and ends at 0.00 seconds.",
    ],
)  # fmt: skip
def test_answers_that_say_no(text):
    assert says_absent(text)


@pytest.mark.parametrize(
    "text",
    [
        "The segment starts at 1.20 seconds and ends at 2.40 seconds.", "From 0.0s to 1.0s", "", "Yes.", "3.2, 5.6",
        "It is not said clearly, but from 3.0 s to 4.0 s.", "I hear music.", "at the beginning",
        "The segment it is not found here",
    ],
)  # fmt: skip
def test_answers_that_do_not(text):
    assert not says_absent(text, "it is not found here")


@pytest.mark.parametrize("seed", range(4))
def test_what_is_asked_is_surely_not_said(seed):
    pool = Pool.of([*OWN, *OTHERS], seed).of_split("train")
    made = absent_phrases(CLIP, OWN, pool, 0.75, seed)
    said, own_words = Said(WORDS, ()), [str(one.phrase).split() for one in OWN]
    assert made
    for question in made:
        assert question.is_absent
        assert not said.count([question.phrase])
        assert question.phrase not in (
            "the house all april",
            "past may",
        )  # said here too, and but for one word
        changes = [
            sum(a != b for a, b in zip(own, question.phrase.split(), strict=False)) for own in own_words
        ]
        assert 1 in changes or question.labelled(ABSENT) == ("another clip's",)


def test_a_clip_whose_words_are_not_all_known_is_asked_about_none():
    pool = Pool.of(OTHERS, 0).of_split("train")
    hole = Clip("a", "a.wav", 20.0, words=WORDS, holes=(Hole(12.0, 13.0),))
    assert absent_phrases(hole, OWN, pool, 0.75, 0) == []
    assert absent_phrases(Clip("a", "a.wav", 20.0), OWN, pool, 0.75, 0) == []
    assert Pool.of([phrase("of the test", clip="b", split="test")], 0).of_split("train") == ()


def test_a_share_of_all_phrases_is_not_said(tmp_path, capsys):
    assert main(["build", "sta", "--digits", "8", "--absent", "0.25", "--out", str(tmp_path / "d")]) == 0
    questions = read_questions(tmp_path / "d" / "questions.jsonl")
    n_absent = sum(question.is_absent for question in questions)
    assert 0.15 < n_absent / len(questions) < 0.35
    clips = {clip.id: clip for clip in read_clips(tmp_path / "d" / "clips.jsonl")}
    again = ["build", "sta", "--clips", str(tmp_path / "d" / "clips.jsonl"), "--absent", "0.25"]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    for question in [*questions, *read_questions(tmp_path / "again" / "questions.jsonl")]:
        if question.is_absent:
            assert not Said(clips[question.clip_id].words, ()).count([question.phrase])
    assert main(["build", "qa", "--digits", "5", "--absent", "0.2", "--out", str(tmp_path / "q")]) == 2
    assert "is for `tgsr build sta`" in capsys.readouterr().err


def test_false_alarms_stand_beside_the_iou_of_what_is_said():
    absent = [phrase(f"not {n}", n, evidence=(), labels=((ABSENT, "x"),)) for n in range(4)]
    texts = [NOT_SAID, "From 1.0s to 2.0s", "From 1.0s to 2.0s, or 3.0s to 4.0s", "I hear music."]
    said = [phrase("one", 1), phrase("two", 2)]
    answers = ["From 1.0s to 2.0s", NOT_SAID]
    responses = [Response(q, "m", t) for q, t in zip([*absent, *said], [*texts, *answers], strict=True)]
    scores = score(Predictions("tgsr", responses=tuple(responses))).models["m"].all.phrase
    assert (scores.n, scores.iou.value, scores.n_without_span) == (2, 0.5, 1)
    assert (scores.false_alarm.value, scores.rejected.value, scores.false_alarm.n) == (0.5, 0.25, 4)
    assert scores.missed.value == 0.5


def test_phrases_without_a_place_are_in_no_difference_of_places():
    gone = phrase("a dog barks", evidence=(), labels=((ABSENT, "x"),))
    told = {OWN[0]: "From 1.0s to 2.0s.", OWN[1]: "From 8.0s to 9.0s.", gone: "It is not said."}
    responses = [Response(question, model, text) for model in ("m", "n") for question, text in told.items()]
    (found,) = score(Predictions("tgsr", responses=tuple(responses))).differences
    assert (found.n_phrases, found.iou.n, found.iou.n_unscored) == (2, 2, 0)


def test_stage_1_is_taught_to_say_no():
    question = phrase("a dog barks", evidence=(), labels=((ABSENT, "another clip's"),))
    lalm = load("mini")
    answer = phrase_branch(lalm, question).answer
    assert lalm.text(list(answer[:-1])).strip() == NOT_SAID
    assert target_of(question, "qwen2_5_omni") == NOT_SAID
    row = {**json.loads('{"kind": "phrase", "labels": {"absent": "x"}}'), "evidence": [[0, 1]]}
    row |= {"id": "q", "clip_id": "a", "audio": "a.wav", "duration": 20, "question": "x", "phrase": "x"}
    with pytest.raises(RecordError, match="has none"):
        question_of(row)


def test_a_changed_word_is_written_as_the_one_that_it_replaces() -> None:
    words = tuple(Word(word.text.upper(), word.start, word.end) for word in WORDS)
    own = [phrase("CLEANED THE HOUSE,", 1)]
    pool = (("A DOG BARKS LOUDLY", "b", "train"),)
    for seed in range(8):
        made = absent_phrases(Clip("a", "a.wav", 20.0, words), own, pool, 0.75, seed)
        changed = [str(q.phrase) for q in made if q.labelled(ABSENT) == ("one word changed",)]
        assert changed == [text.upper() for text in changed]
        assert all(text.endswith(",") for text in changed)


def test_a_phrase_that_sounds_like_one_that_is_said_is_not_absent() -> None:
    words = tuple(
        Word(text, float(n), n + 0.8) for n, text in enumerate(["2", "people", "saw", "their", "sons"])
    )
    clip, pool = Clip("a", "a.wav", 20.0, words), (("two people", "b", "train"), ("there suns", "b", "train"))
    for seed in range(8):
        made = absent_phrases(clip, [phrase("people saw", 1)], pool, 0.75, seed)
        assert {"two people", "there suns"}.isdisjoint(str(question.phrase) for question in made)


def test_another_trainer_is_taught_as_ours_is_what_is_not_said(tmp_path, capsys):
    """They have no span, as phrases that nobody has found, which are left out."""
    unknown = phrase("never found", evidence=())
    absent = [phrase("a dog barks", evidence=(), labels=((ABSENT, "text"),))]
    write_jsonl(tmp_path / "questions.jsonl", [*OWN, *absent, unknown])
    out = tmp_path / "swift.jsonl"
    assert main(["export", str(tmp_path / "questions.jsonl"), "--to", "ms-swift", "--out", str(out)]) == 0
    assert "3 questions; 1 phrases without a span left out" in capsys.readouterr().out
    assert list(import_back(out, "ms-swift")) == [*OWN, *absent]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[-1]["messages"][-1] == {"role": "assistant", "content": NOT_SAID}
