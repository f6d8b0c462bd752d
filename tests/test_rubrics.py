import json

import pytest

from local_server import Got, Reply, chat_answer, serving
from tgsr.cli import main
from tgsr.errors import RecordError
from tgsr.evaluation.owners.mmar import thoughts_and_answer
from tgsr.evaluation.rubrics import Criterion, Rated, Rubric, middle, read_rubrics, scores_in, share_of

FIVE = Rubric(
    "Which?", "red", "it is said", tuple(Criterion(f"c{n}", "a point", (0.0, 1.0)) for n in range(5))
)
UNEQUAL = Rubric("Which?", "red", "", (Criterion("a", "", (0.0, 1.0, 2.0)), Criterion("b", "", (0.0, 3.0))))


@pytest.mark.parametrize(
    ("reply", "scores"),
    [
        ("[1, 0, 1, 1, 1]", (1, 0, 1, 1, 1)),
        ("I would say [1, 0] ... so:\n[1, 1, 1, 1, 0]", (1, 1, 1, 1, 0)),
        (
            '[{"name": "c0", "score": 1}, {"score": 0}, {"score": 0}, {"score": 0}, {"score": 1}]',
            (1, 0, 0, 0, 1),
        ),
        (json.dumps([{"name": "c", "score": 1, "justification": "as [1] says"}] * 5), (1,) * 5),
        ("[" * 9999, None),
        ("[1, 0, 1, 1]", None),
        ("[1, 0, 1, 1, 2]", None),
        ("[1, 0, 1, 1, null]", None),
        ("4 of 5", None),
        ("", None),
    ],
)
def test_a_reply_is_one_allowed_score_a_criterion(reply, scores):
    assert scores_in(reply, FIVE) == scores


@pytest.mark.parametrize(
    ("rubric", "scores", "share"),
    [(FIVE, (1, 0, 0, 0, 0), 0.2), (FIVE, (1,) * 5, 1.0), (UNEQUAL, (1, 3), 0.8)],
)
def test_a_run_is_what_was_given_over_what_can_be(rubric, scores, share):
    assert share_of(scores, rubric) == pytest.approx(share)


def test_of_five_runs_the_middle_three_count():
    assert middle([0.2, 1.0, 0.6, 0.8, 0.4]) == pytest.approx(0.6)
    assert middle([0.2, 0.4]) == pytest.approx(0.3)
    right = Rated("a", "m", "c", "speech", True, (1.0, 0.8, 0.8, 0.8, 0.0))
    assert right.score == pytest.approx(0.8)
    assert Rated("a", "m", "c", "speech", True, (1.0, 0.8)).score is None  # not evaluated, as its owner says
    assert Rated("a", "m", "c", "speech", False).score == 0.0


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("<think>\nIt rings.\n</think>\nred", ("It rings.", "red")),
        ("It rings from 1.0s to 2.0s.\nFinal answer: (b) red", ("It rings from 1.0s to 2.0s.", "red")),
        ("no idea", ("", "no idea")),
    ],
)
def test_a_completion_is_parted_as_the_challenge_wants_it(text, parted):
    assert thoughts_and_answer(text, ("green", "red")) == parted


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asked(n: int, **changed: object) -> dict[str, object]:
    criteria = [{"name": f"c{k}", "scoring_point": "a point", "choices": [0, 1]} for k in range(5)]
    row = {
        "id": f"x{n}",
        "audio_path": f"./audio/x{n}.wav",
        "question": "Which?",
        "choices": ["red", "green"],
    }
    row |= {"answer": "red", "modality": "speech", "category": "c", "timestamp": "00:00:00,00:00:10"}
    return {**row, "rubric": criteria, "thinking": "It is said.", **changed}


def test_five_runs_of_a_judge_over_http(tmp_path, capsys):
    meta = written(tmp_path / "meta.jsonl", [asked(n) for n in range(3)])
    rows = [("x0", "I hear it.", "red"), ("x1", "I hear it.", "green"), ("x2", "no list", "red")]
    names = ("id", "thinking_prediction", "answer_prediction")
    sent = written(tmp_path / "model.jsonl", [dict(zip(names, row, strict=True)) for row in rows])

    def judge(got: Got, n_before: int) -> Reply:
        text, seed = got.body["messages"][-1]["content"], got.body["seed"]
        assert "thinks" not in text
        given = [[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 1, 1, 0, 1], [1, 1, 0, 0, 1]][
            seed % 5
        ]
        return Reply(chat_answer("a fine piece" if "no list" in text else json.dumps(given)))

    with serving(judge) as server:
        given = ["rubrics", str(sent), "--questions", str(meta), "--out", str(tmp_path / "out")]
        assert (
            main([*given, "--judge", f"{server.url}/v1#j", "--submission", str(tmp_path / "again.jsonl")])
            == 0
        )
        asked_first = len(server.got)
        assert main([*given, "--judge", f"{server.url}/v1#j"]) == 0
        assert len(server.got) == asked_first == 5 + 5 * 3  # right ones alone; what was replied is kept
    (scores,) = json.loads((tmp_path / "out" / "rubrics.json").read_text())["models"].values()
    assert (scores["n"], scores["n_unscored"]) == (3, 1)
    assert scores["of_right"]["value"] == pytest.approx((0.8 + 0.8 + 0.6) / 3)
    assert scores["score"]["value"] == pytest.approx(scores["of_right"]["value"] / 2)
    assert (tmp_path / "again.jsonl").read_text() == sent.read_text()
    assert "1 not scored" in capsys.readouterr().out


def test_a_file_without_rubrics_is_said_so(tmp_path):
    with pytest.raises(RecordError, match="is in no row"):
        read_rubrics(written(tmp_path / "old.jsonl", [asked(0, rubric=None)]))
    with pytest.raises(RecordError, match=r"bad\.jsonl:1.*scoring_point"):
        read_rubrics(written(tmp_path / "bad.jsonl", [asked(0, rubric=[{"name": "a"}])]))


def test_a_submission_needs_no_rubrics(tmp_path, capsys):
    """The challenge's own test file has none."""
    meta = written(tmp_path / "meta.jsonl", [asked(0, rubric=None)])
    rows = [{"id": "x0", "thinking_prediction": "I hear it.", "answer_prediction": "red"}]
    sent = written(tmp_path / "model.jsonl", rows)
    given = ["rubrics", str(sent), "--questions", str(meta), "--out", str(tmp_path / "out")]
    assert main([*given, "--submission", str(tmp_path / "again.jsonl")]) == 0
    assert (tmp_path / "again.jsonl").read_text() == sent.read_text()
    assert main([*given, "--judge", "http://127.0.0.1:9/v1#j"]) == 2
    assert "is in no row" in capsys.readouterr().err
    assert main(given) == 2
    assert "give --judge, --submission, or both" in capsys.readouterr().err


def test_of_no_answer_there_is_no_submission(tmp_path, capsys):
    meta = written(tmp_path / "meta.jsonl", [asked(0)])
    (tmp_path / "none.jsonl").touch()
    given = [
        "rubrics",
        str(tmp_path / "none.jsonl"),
        "--questions",
        str(meta),
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*given, "--submission", str(tmp_path / "again.jsonl")]) == 2
    assert capsys.readouterr().err == f"tgsr: {tmp_path / 'none.jsonl'}: holds no answer\n"
    assert not (tmp_path / "again.jsonl").exists()
