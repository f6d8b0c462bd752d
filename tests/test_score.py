"""`tgsr score`: the three formats as they are, what is counted instead of raised, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tgsr.evaluation import score as score_module
from tgsr.evaluation.score import Metrics, read_predictions, score, write_metrics
from tgsr.records import Question, RecordError, Response, write_jsonl
from tgsr.report.tables import summary
from tgsr.timeline import Span

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MMAU, MMAR = DATA / "mmau" / "mmau-test-mini.json", DATA / "mmar" / "MMAR-meta.jsonl"

PHRASE = Question(
    id="p1",
    clip_id="c1",
    audio="c1.wav",
    duration=10.0,
    kind="phrase",
    question="When is 'hello' said?",
    phrase="hello",
    evidence=(Span(2, 4),),
    split="test",
)
CHOICE = Question(
    id="q1",
    clip_id="c1",
    audio="c1.wav",
    duration=10.0,
    kind="choice",
    question="Who speaks?",
    answer="Woman",
    choices=("Man", "Woman", "Child", "Robot"),
    evidence=(Span(2, 4),),
    task="speaker",
    split="test",
)
ROW = {"id": "r1", "choices": ["Man", "Woman"], "answer": "Woman", "category": "Perception"}
MMAU_ROW = {**ROW, "audio_id": "./test-mini-audios/r1.wav", "task": "speech"}
MMAR_ROW = {**ROW, "audio_path": "./audio/r1.wav", "modality": "speech"}


def _scored(tmp_path: Path, responses: list[Response]) -> Metrics:
    path = tmp_path / "predictions.jsonl"
    write_jsonl(path, responses)
    return score(read_predictions(path), file=path.name, n_resamples=50)


def _phrases(texts: list[str]) -> list[Response]:
    return [
        Response(replace(PHRASE, id=f"p{i}", clip_id=f"c{i}"), "mini", text) for i, text in enumerate(texts)
    ]


def _choices(texts: list[str]) -> list[Response]:
    return [
        Response(replace(CHOICE, id=f"q{i}", clip_id=f"c{i}"), "mini", text) for i, text in enumerate(texts)
    ]


def _benchmark(tmp_path: Path, rows: list[dict[str, object]]) -> Metrics:
    path = tmp_path / "mmau.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return score(read_predictions(path), n_resamples=50)


def test_phrases_are_scored_by_hand(tmp_path: Path) -> None:
    texts = [
        "From 2.0s to 4.0s",
        "starts at 3 seconds and ends at 4 seconds",
        "no idea",
        "From 4.0s to 2.0s, sorry, 2s-4s",
    ]
    scores = _scored(tmp_path, _phrases(texts)).models["mini"].all.phrase
    assert scores is not None
    assert scores.n == scores.iou.n == 4
    assert scores.iou.value == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert scores.f1.value == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert scores.high_overlap.value == 0.25
    assert (scores.n_without_span, scores.n_invalid, scores.n_past_end) == (1, 1, 0)
    # pooled over first intervals: 1 s segments 2, 3 and 3 are hits, of 3 predicted and 8 that there are
    assert scores.segment_f1 == pytest.approx(2 * 3 / (3 + 8))
    assert scores.event_f1 == pytest.approx(2 * 1 / (2 + 4))


def test_an_interval_past_the_end_is_counted(tmp_path: Path) -> None:
    scores = _scored(tmp_path, _phrases(["From 9.0s to 10.04s", "From 9.0s to 10.1s", "From 90s to 91s"]))
    phrase = scores.models["mini"].all.phrase
    assert phrase is not None
    assert (phrase.n_past_end, phrase.iou.value) == (2, 0.0)


def test_a_phrase_nobody_marked_is_unscored_and_not_zero(tmp_path: Path) -> None:
    responses = [
        *_phrases(["From 2s to 4s"]),
        Response(replace(PHRASE, id="x", evidence=()), "mini", "From 2s to 4s"),
    ]
    phrase = _scored(tmp_path, responses).models["mini"].all.phrase
    assert phrase is not None
    assert (phrase.iou.value, phrase.iou.n, phrase.iou.n_unscored) == (1.0, 1, 1)


def test_choices_are_scored_by_both_readings(tmp_path: Path) -> None:
    texts = [
        "From 2.0s to 4.0s she speaks.\nFinal answer: (b) Woman",
        "From 2.0 to 3.0 seconds; from 2.0 to 3.0 seconds\nFinal answer: Woman",
        "(0:02 - 0:04)\nFinal answer: (a) Man",
        "I can't tell.",
    ]
    scores = _scored(tmp_path, _choices(texts)).models["mini"].all.choice
    assert scores is not None
    assert scores.accuracy_official.value == 0.25
    assert scores.accuracy_strict.value == 0.5
    assert scores.chance == 0.25
    assert scores.accuracy_strict_by_task["speaker"].value == 0.5
    assert scores.mentions_official.value == (1 + 4 + 0 + 0) / 4
    assert scores.regions_strict.value == (1 + 1 + 1 + 0) / 4
    assert (scores.share_k1_official.value, scores.share_k1_strict.value) == (0.25, 0.75)
    assert (scores.trace_iou.value, scores.trace_iou.n, scores.trace_iou.n_unscored) == (2.5 / 3, 3, 1)
    assert (scores.n_without_letter, scores.n_without_choice, scores.n_without_span) == (2, 1, 1)


def test_a_backward_interval_lowers_a_trace_like_a_missed_one(tmp_path: Path) -> None:
    texts = ["From 2s to 4s, from 9s to 8s, from 9s to 8s (b)", "From 9s to 8s (b)"]
    scores = _scored(tmp_path, _choices(texts)).models["mini"].all.choice
    assert scores is not None
    assert scores.trace_iou.value == (0.5 + 0.0) / 2
    assert scores.n_invalid == 2


def test_a_fifth_choice_is_right_only_by_our_reading(tmp_path: Path) -> None:
    question = replace(CHOICE, choices=("1", "2", "3", "4", "Woman"))
    scores = (
        _scored(tmp_path, [Response(question, "mini", "Final answer: (e) Woman")]).models["mini"].all.choice
    )
    assert scores is not None
    assert (scores.accuracy_official.value, scores.accuracy_strict.value) == (0.0, 1.0)


def test_repeated_choices_are_right_by_text_and_likelier_by_chance(tmp_path: Path) -> None:
    question = replace(CHOICE, choices=("Man", "Woman", "Woman", "Robot"))
    scores = _scored(tmp_path, [Response(question, "mini", "(c) Woman")]).models["mini"].all.choice
    assert scores is not None
    assert (scores.accuracy_official.value, scores.accuracy_strict.value, scores.chance) == (0.0, 1.0, 0.5)


def test_models_and_splits_are_kept_apart(tmp_path: Path) -> None:
    right, wrong = "(b) Woman", "(a) Man"
    responses = [
        Response(CHOICE, "mini", right),
        Response(CHOICE, "mini:tgsr", wrong),
        Response(replace(CHOICE, id="q2", split="dev"), "mini", wrong),
    ]
    models = _scored(tmp_path, responses).models
    assert set(models) == {"mini", "mini:tgsr"}
    by_split = {split: group.choice for split, group in models["mini"].by_split.items()}
    assert {split: group and group.accuracy_official.value for split, group in by_split.items()} == {
        "dev": 0.0,
        "test": 1.0,
    }
    assert models["mini"].all.phrase is None


def test_models_are_compared_on_the_questions_that_both_answered_once(tmp_path: Path) -> None:
    right, wrong = "(b) Woman", "(a) Man"
    first, second, third, fourth = (replace(CHOICE, id=f"q{n}", clip_id=f"c{n}") for n in range(4))
    responses = [
        *(Response(question, "mini", wrong) for question in (first, second, third)),
        Response(first, "mini:tgsr", right),
        Response(second, "mini:tgsr", wrong),
        *(Response(third, "mini:tgsr", right) for _ in range(2)),  # answered twice: left out
        Response(fourth, "mini:tgsr", right),  # answered by one only
        Response(PHRASE, "mini", "from 2 to 4 seconds"),
        Response(PHRASE, "mini:tgsr", "from 2 to 3 seconds"),
    ]
    metrics = _scored(tmp_path, responses)
    (difference,) = metrics.differences
    assert (difference.model, difference.other) == ("mini", "mini:tgsr")
    assert (difference.n_choices, difference.n_phrases) == (2, 1)
    assert difference.accuracy_official is not None
    assert difference.accuracy_official.value == 0.5
    assert difference.iou is not None
    assert difference.iou.value == -0.5
    assert "mini:tgsr - mini: accuracy 50.0 points" in summary(metrics)
    assert "mini:tgsr - mini: IoU -0.500" in summary(metrics)


def test_a_paired_difference_is_surer_than_two_intervals(tmp_path: Path) -> None:
    """Ten of a hundred questions become right: plain beside the spread of either accuracy."""
    responses = []
    for n in range(100):
        question = replace(CHOICE, id=f"q{n}", clip_id=f"c{n}")
        responses.append(Response(question, "mini", "(b)" if n < 50 else "(a)"))
        responses.append(Response(question, "mini:tgsr", "(b)" if n < 60 else "(a)"))
    metrics = _scored(tmp_path, responses)
    choice = metrics.models["mini"].all.choice
    other = metrics.models["mini:tgsr"].all.choice
    assert choice is not None
    assert other is not None
    assert float(choice.accuracy_official.high or 0) > float(other.accuracy_official.low or 1)
    difference = metrics.differences[0].accuracy_official
    assert difference is not None
    assert float(difference.low or 0) > 0.02


def test_several_answers_and_empty_ones_are_scored_and_listed(tmp_path: Path) -> None:
    model = _scored(
        tmp_path, [Response(CHOICE, "mini", text) for text in ("(b)", "(b)", " \n", "(a)")]
    ).models["mini"]
    assert model.all.choice is not None
    assert (model.all.choice.n, model.all.choice.accuracy_official.value) == (4, 0.5)
    assert (model.several, model.empty) == (("q1",), ("q1",))


def test_ten_megabytes_from_a_model_are_scored(tmp_path: Path) -> None:
    text = "from 1 " * 1_430_000 + "\nFinal answer: (b)"
    scores = _scored(tmp_path, [Response(CHOICE, "mini", text)]).models["mini"].all.choice
    assert scores is not None
    assert scores.accuracy_official.value == 1.0


def test_mmau_is_scored_as_its_scorer_does(tmp_path: Path) -> None:
    rows = [
        {**MMAU_ROW, "model_output": "Woman"},
        {**MMAU_ROW, "id": "r2", "model_output": "(b) Woman", "category": ["Perception", "Reasoning"]},
        {**MMAU_ROW, "id": "r3", "model_output": "The man, not the woman", "task": "sound"},
        {**MMAU_ROW, "id": "r4"},
        {**MMAU_ROW, "id": "r5", "model_output": None},
        {**MMAU_ROW, "id": "r5", "model_output": ""},
    ]
    metrics = _benchmark(tmp_path, rows)
    scores = metrics.benchmark
    assert metrics.format == "mmau"
    assert scores is not None
    assert (scores.n, scores.n_unscored, scores.accuracy_official.n) == (6, 1, 5)
    assert scores.accuracy_official.value == 2 / 5
    assert scores.accuracy_official_by_domain["sound"].value == 0.0
    assert scores.accuracy_official_by_category["Reasoning"].n == 1
    assert scores.accuracy_official_by_category["Perception"].n == 5
    assert scores.accuracy_strict.value == 2 / 5
    assert scores.chance == 0.5
    assert (scores.missing, scores.duplicates, scores.empty) == (("r4",), ("r5",), ("r5", "r5"))


def test_a_whole_completion_fails_the_official_match_but_not_ours(tmp_path: Path) -> None:
    scores = _benchmark(
        tmp_path, [{**MMAU_ROW, "model_output": "No man speaks.\nFinal answer: (b) Woman"}]
    ).benchmark
    assert scores is not None
    assert (scores.accuracy_official.value, scores.accuracy_strict.value) == (0.0, 1.0)


def test_mmar_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "mmar.jsonl"
    rows = [
        {**MMAR_ROW, "answer_prediction": "woman"},
        {**MMAR_ROW, "id": "r\u2028", "answer_prediction": "man"},
    ]
    path.write_text(
        "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    metrics = score(read_predictions(path), n_resamples=50)
    assert metrics.format == "mmar"
    assert metrics.benchmark is not None
    assert metrics.benchmark.accuracy_official_by_domain["speech"].value == 0.5


def test_null_choices_and_odd_predictions_are_scored(tmp_path: Path) -> None:
    rows = [
        {**MMAU_ROW, "choices": ["Man", "Woman", None], "model_output": odd}
        for odd in (7, ["Woman"], "x" * 9)
    ]
    scores = _benchmark(tmp_path, rows).benchmark
    assert scores is not None
    assert (scores.accuracy_official.value, scores.accuracy_official.n) == (1 / 3, 3)
    assert scores.chance == 0.5


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ("", "predictions", "holds no predictions"),
        ("[]", "predictions", "holds no predictions"),
        ("[1, 2", ":1:", "not JSON"),
        ('[{"id": "a"},\n{"id" 3}]', ":2:", "not JSON"),
        ('{"id": "a", "response": "x"}\nnot json\n', ":2:", "not JSON"),
        ("[3]", ":1:", "must be a JSON object"),
        ('{"name": "a"}', ":1:", "none of the known keys"),
        ("[" * 100_000, ":1:", "nested too deeply"),
        (json.dumps([{**MMAU_ROW, "model_output": "x"}, {**MMAU_ROW, "id": None}]), ":2:", '"id"'),
        (json.dumps([{**MMAU_ROW, "choices": "Man"}]), ":1:", '"choices"'),
        (json.dumps({**MMAR_ROW, "answer": 3}), ":1:", '"answer"'),
        ('{"clip_id": "c", "response": "x"}', ":1:", '"id"'),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, content: str, where: str, what: str) -> None:
    path = tmp_path / "predictions"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecordError) as refused:
        read_predictions(path)
    message = str(refused.value)
    assert message.startswith(str(path))
    assert where in message
    assert what in message
    assert "; " in message  # the remedy


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="UTF-8"):
        read_predictions(path)


def test_metrics_are_plain_json(tmp_path: Path) -> None:
    metrics = _scored(tmp_path, [*_phrases(["From 2s to 4s", "none"]), *_choices(["(b)", "\ud800"])])
    path = tmp_path / "new" / "metrics.json"
    write_metrics(metrics, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["models"]["mini"]["all"]["phrase"]["iou"]["value"] == 0.5
    assert content["file"] == "predictions.jsonl"
    assert os.listdir(path.parent) == ["metrics.json"]


def test_a_failed_write_leaves_the_old_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = _scored(tmp_path, _choices(["(b)"]))
    path = tmp_path / "out" / "metrics.json"
    write_metrics(metrics, path)
    before = path.read_bytes()

    def full_disk(source: object, target: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(score_module.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_metrics(replace(metrics, n=99), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["metrics.json"]


@pytest.mark.skipif(not MMAU.exists(), reason=f"needs the benchmark's file {MMAU.name}")
def test_the_right_texts_score_all_of_mmau(tmp_path: Path) -> None:
    rows = json.loads(MMAU.read_text(encoding="utf-8"))
    metrics = _benchmark(tmp_path, [{**row, "model_output": row["answer"]} for row in rows])
    assert metrics.benchmark is not None
    assert metrics.benchmark.accuracy_official.value == 1.0
    assert metrics.benchmark.accuracy_official_by_domain["speech"].n == 333
    assert metrics.benchmark.accuracy_strict.value == 1.0


@pytest.mark.skipif(not MMAR.exists(), reason=f"needs the benchmark's file {MMAR.name}")
def test_mmar_without_predictions_has_nothing_to_score() -> None:
    metrics = score(read_predictions(MMAR), n_resamples=50)
    assert metrics.benchmark is not None
    assert metrics.benchmark.accuracy_official.value is None
    assert metrics.benchmark.accuracy_official_by_domain["speech"].n_unscored == 294
    assert len(metrics.benchmark.missing) == metrics.n
