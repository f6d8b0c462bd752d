import csv
import json
import re

import numpy as np
import pytest

from tgsr import audio
from tgsr.cli import main
from tgsr.evaluation.audit import MEASURES, audited, notation, paired
from tgsr.evaluation.scoring.responses import UNKNOWN_LENGTH, Answered, read_answers
from tgsr.grounding import find_points
from tgsr.records import Question, Response, read_responses, write_jsonl
from tgsr.report.audit import audit
from tgsr.statistics.intervals import Bootstrap
from tgsr.timeline import Span, Word

CHOICES = ("red", "green", "blue", "grey")
WORDS = (Word("the", 1.0, 1.2), Word("door", 1.2, 1.6), Word("is", 1.6, 1.8), Word("red", 1.8, 2.4))


def question(name: str = "q", **changed: object) -> Question:
    fields = {"evidence": (Span(1.0, 2.4),), "choices": CHOICES, "answer": "red", **changed}
    return Question(name, f"clip-{name}", f"{name}.wav", 10.0, "choice", "Which colour?", **fields)


def judged(text: str, words: tuple[Word, ...] | None = None, **changed: object):
    return audited(Answered(Response(question(**changed), "m", text)), words)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("At around 0:05 a door closes, and again at 7.5 seconds.", 2),
        ("around the 9-second mark", 1),
        ("- Around 6.2 seconds, the music begins", 1),
        ("[00:05] a tap\n[00:08] another", 2),
        ("It lasts for 3 seconds and repeats every 60 seconds.", 0),
        ("from 0:05 to 0:07", 0),
        ("at 5 seconds intervals, after 2 seconds of silence, for about 9 seconds", 0),
        ("1949 marks the end of it", 0),
        ("at 3 pm, at 16 kHz", 0),
        ("", 0),
    ],
)
def test_single_times_are_places_and_no_lengths(text, n):
    assert len(find_points(text)) == n


@pytest.mark.parametrize(
    ("written", "form"),
    [("0:05-0:10", "N:N-N:N"), ("From 10.74s to 14.74s", "from Ns to Ns"), ("(3.0–4.5 s)", "(N-N s)")],
)
def test_a_notation_is_what_is_written_without_its_numbers(written, form):
    assert notation(written) == form


@pytest.mark.parametrize(
    ("text", "changed", "expected"),
    [
        (
            "From 1.0s to 2.4s it is red.\nFinal answer: (a) red",
            {},
            {"is_wide": False, "answer_first": False},
        ),
        ("(a) red is the answer. From 1.0s to 2.4s it is said.", {}, {"answer_first": True}),
        (
            "From 0.0s to 9.0s it is red. (a)",
            {},
            {"is_wide": True, "is_past_end": False, "evidence_hit": False},
        ),
        ("From 9.0s to 12.0s it is red. (a)", {}, {"is_past_end": True, "is_invalid": False}),
        ("From 5.0s to 4.0s it is red. (a)", {}, {"is_invalid": True, "k_strict": 0, "cites": True}),
        ("From 9s to 12s. (a)", {"labels": (UNKNOWN_LENGTH,)}, {"is_past_end": None, "is_wide": None}),
        ("It is red. (a)", {}, {"is_past_end": None, "cites": False, "answer_first": None}),
        ("So the answer is (b) green.\nFinal answer: (a) red", {}, {"contradicts": True, "strict": True}),
        ("So the answer is (a) red.\nFinal answer: (a) red", {}, {"contradicts": False}),
        ("Green would be odd, and blue too.\nFinal answer: (a) red", {}, {"contradicts": None}),
        ("red or green", {}, {"is_unclear": True, "strict": False, "official": False}),
        ("", {}, {"is_unclear": True, "k_official": 0, "contradicts": None}),
    ],
)
def test_what_is_said_of_one_response(text, changed, expected):
    one = judged(text, **changed)
    assert {name: getattr(one, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "evidence", "paid", "is_ungrounded"),
    [
        ('From 1.0s to 2.4s: "the door is red". (a)', (), 1.5, False),
        ('From 6.0s to 7.4s: "the door is red". (b)', (), 0.5, True),
        ("From 6.0s to 7.4s somebody speaks. (b)", (), 0.5, None),
        ("From 6.0s to 7.4s somebody speaks. (b)", (Span(1.0, 2.4),), 0.5, True),
        ("They grow from 2 to 3 people. (a)", (Span(1.0, 2.4),), 1.5, True),
        ("It is red. (a)", (Span(1.0, 2.4),), 1.0, None),
    ],
)
def test_what_is_paid_for_nothing(text, evidence, paid, is_ungrounded):
    reward = judged(text, WORDS, evidence=evidence).reward
    assert (reward.paid, reward.is_ungrounded) == (paid, is_ungrounded)
    assert reward.blind == 0.75  # a guess among four, and one citation


def test_a_guess_is_paid_for_one_letter_though_two_have_the_right_text():
    """Eq. 1 compares letters: of four, one is the label."""
    one = question(choices=("red", "red", "blue", "green"), answer="red")
    response = Response(one, "m", "From 1.0s to 2.4s it is red. (b)")
    reward = audited(Answered(response)).reward
    assert (reward.answer, reward.blind) == (0.0, 0.75)


def test_a_share_has_its_test_and_a_number_has_none():
    right, wrong = "From 1s to 2s. (a)", "(b)"
    before = [Answered(Response(question(f"q{n}"), "a", wrong if n < 6 else right)) for n in range(8)]
    after = [Answered(Response(question(f"q{n}"), "b", right)) for n in range(8)]
    pairs = paired(list(map(audited, before)), list(map(audited, after)), Bootstrap(0, 100))
    found = {one.measure: one for one in pairs}
    assert (found["official"].difference.value, found["official"].difference.n) == (0.75, 8)
    assert found["official"].p_mcnemar == pytest.approx(2 / 2**6)
    assert found["k_strict"].p_mcnemar is None


def challenge(folder):
    """MMAR's questions, and a submission in the challenge's form to two of them and to one that is none."""
    asked = [
        {
            "id": f"x{n}", "audio_path": f"./audio/x{n}.wav", "question": "Which colour?", "choices": list(CHOICES),
            "answer": "red", "modality": "speech", "category": "c", "timestamp": stamp,
        }
        for n, stamp in enumerate(("00:00:10,00:00:20", "1:42,1:47;1:51,1:59"))
    ]  # fmt: skip
    rows = [
        {"id": "x0", "thinking_prediction": "At 0:05-0:12 it is red.", "answer_prediction": "red"},
        {"id": "x1", "thinking_prediction": "Around 0:03 somebody laughs.", "answer_prediction": "a red one"},
        {"id": "x9", "thinking_prediction": "", "answer_prediction": "red"},
    ]
    for name, lines in (("meta.jsonl", asked), ("model.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return folder / "meta.jsonl", folder / "model.jsonl"


def test_a_submission_is_read_with_its_thoughts_and_the_lengths_of_its_clips(tmp_path):
    meta, rows = challenge(tmp_path)
    answers = read_answers(rows, tmp_path / "errors.jsonl", questions=meta)
    assert [one.response.question.duration for one in answers] == [10.0, 13.0]
    assert answers[0].response.text == "<think>\nAt 0:05-0:12 it is red.\n</think>\nred"
    assert [one.prediction for one in answers] == ["red", "a red one"]
    assert "is not among the questions" in (tmp_path / "errors.jsonl").read_text()
    first, second = map(audited, answers)
    assert (first.is_past_end, first.is_wide, first.notations) == (True, True, ("N:N-N:N",))
    assert (second.cites, second.n_points, second.official) == (False, 1, True)


def test_the_command_says_what_score_says(tmp_path, capsys):
    meta, rows = challenge(tmp_path)
    out = tmp_path / "out"
    assert main(["audit", str(rows), "--questions", str(meta), "--no-verify", "--out", str(out)]) == 0
    assert main(["score", str(rows), "--questions", str(meta), "--out", str(tmp_path / "m.json")]) == 0
    means = json.loads((out / "audit.json").read_text())["means"]["model"]
    scored = json.loads((tmp_path / "m.json").read_text())["benchmark"]
    assert means["official"]["value"] == scored["accuracy_official"]["value"] == 1.0
    assert means["cites"]["value"] == means["points"]["value"] == 0.5
    assert set(means) == {measure.key for measure in MEASURES}
    with (out / "tables" / "evidence.csv").open(encoding="utf-8") as file:  # its owner's rule there too
        (held,) = csv.DictReader(file)
    assert held["accuracy (%)"] == "100"
    page = (out / "index.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'href="#(item-\d+)"', page))
    assert anchors
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert "of 2 responses 50.0 %" in capsys.readouterr().out
    written = read_responses(out / "predictions" / "predictions-1.jsonl")  # any other command reads them
    assert [one.text for one in written] == [
        one.response.text for one in read_answers(rows, out / "e", None, meta)
    ]


def test_files_are_compared_and_texts_that_may_not_be_shown_are_not_on_the_page(tmp_path):
    audio.save_wav(tmp_path / "q0.wav", np.zeros(160000, np.float32))
    questions = [question(f"q{n}") for n in range(3)]
    for model, text in (("a", "From 1.0s to 2.4s. (a)"), ("b", "(b)")):
        write_jsonl(tmp_path / f"{model}.jsonl", [Response(one, model, text) for one in questions])
    found = audit([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out", without_texts=True)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert [text in page for text in ("From 1.0s", "Which colour?", "q1")] == [False, False, True]
    (cites,) = [one for one in found.differences if one.measure == "cites"]
    assert (cites.model, cites.other, cites.difference.value) == ("a", "b", -1.0)
    tables = (tmp_path / "out" / "tables" / "tables.md").read_text(encoding="utf-8")
    assert "b less a" in tables
    assert str(tmp_path / "q0.wav") in (tmp_path / "out" / "predictions" / "predictions-1.jsonl").read_text()
