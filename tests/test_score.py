"""`tgsr score`: every format as it is, what is counted instead of raised, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tgsr import cli
from tgsr.errors import NothingDone, RecordError
from tgsr.evaluation.owners.meld import EMOTIONS
from tgsr.evaluation.scoring.event_f1 import Collars
from tgsr.evaluation.scoring.metrics import BenchmarkScores, Metrics
from tgsr.evaluation.scoring.score import read_predictions, score, score_file, write_metrics
from tgsr.evaluation.scoring.terminal import summary
from tgsr.records import Question, Response, as_row, write_jsonl
from tgsr.statistics.intervals import mcnemar_exact
from tgsr.timeline import Span

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MMAU, MMAR = DATA / "mmau" / "mmau-test-mini.json", DATA / "mmar" / "MMAR-meta.jsonl"
MELD = DATA / "meld" / "test_sent_emo.csv"

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
    assert (scores.n_without_span, scores.n_invalid, scores.n_past_end) == (2, 1, 0)
    assert "2 without a readable span" in summary(_scored(tmp_path, _phrases(texts)))
    # pooled over the spans: 1 s segments 2, 3 and 3 are hits, of 3 predicted and 8 that there are
    assert scores.segment_f1 == pytest.approx(2 * 3 / (3 + 8))
    assert scores.event_f1 == pytest.approx(2 * 1 / (2 + 4))
    assert {at: mean.value for at, mean in scores.recalls.items()} == {"0.3": 0.5, "0.5": 0.5, "0.7": 0.25}
    # the second starts 1 s late
    by_collar = {at: mean.value for at, mean in scores.event_f1_by_collar.items()}
    assert by_collar == pytest.approx({"0.1": 2 / 6, "0.2": 2 / 6, "0.5": 2 / 6})
    metrics = score(read_predictions(tmp_path / "predictions.jsonl"), collars=Collars((1.0,), 0.5))
    assert metrics.models["mini"].all.phrase.event_f1_by_collar["1"].value == pytest.approx(4 / 6)


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


def test_responses_that_were_cut_off_are_scored_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out, items = tmp_path / "p.jsonl", tmp_path / "metrics.json", tmp_path / "items.jsonl"
    write_jsonl(
        path,
        [Response(CHOICE, "mini", "(b)"), Response(replace(CHOICE, id="q2"), "mini", "So", truncated=True)],
    )
    assert cli.main(["score", str(path), "--out", str(out), "--items", str(items)]) == 0
    model = json.loads(out.read_text())["models"]["mini"]
    assert (model["truncated"], model["n_listed"]["truncated"]) == (["q2"], 1)
    assert (
        "mini: 1 responses cut off at the limit of new tokens, scored as they are: q2"
        in capsys.readouterr().out
    )
    assert [json.loads(line).get("truncated") for line in items.read_text().splitlines()] == [None, True]
    questions = tmp_path / "questions.jsonl"
    write_jsonl(questions, [CHOICE, replace(CHOICE, id="q2")])
    assert score_file(path, questions).models["mini"].truncated == ("q2",)


def test_megabytes_from_a_model_are_scored(tmp_path: Path) -> None:
    text = "from 1 " * 150_000 + "\nFinal answer: (b)"
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
        (json.dumps(as_row(Response(PHRASE, "mini", "x"))) + "\nnot json\n", ":2:", "not JSON"),
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

    monkeypatch.setattr(os, "replace", full_disk)
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


# --- the owners' files, by content -----------------------------------------------------------------------

AIR_ROW = {
    "path": "x.wav",
    "question": "Which emotion?",
    "choice_a": "sad",
    "choice_b": "glad",
    "choice_c": None,
    "choice_d": None,
    "answer_gt": "glad",
    "task_name": "Speaker_Emotion_Recontion",
    "dataset_name": "iemocap",
    "uniq_id": 1,
}
MELD_ROW = {"Sr No.": 1, "Utterance": "Oh no!", "Emotion": "fear", "Dialogue_ID": 0, "Utterance_ID": 1}


def _owner(tmp_path: Path, rows: Sequence[Mapping[str, object]], **how: Any) -> BenchmarkScores:
    """The rows as JSON lines, through the file's way."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    scores = score_file(path, n_resamples=50, **how).benchmark
    assert scores is not None
    return scores


@pytest.mark.parametrize("as_list", [True, False])
def test_airbench_is_scored_as_its_script_does(tmp_path: Path, as_list: bool) -> None:
    said = ["B", "A. sad", "D", "The answer is B.", "glad", "", None, "Certainly (b) glad", "None"]
    rows = [{**AIR_ROW, "uniq_id": at, "response": text} for at, text in enumerate(said)]
    path = tmp_path / "air"
    path.write_text(json.dumps(rows) if as_list else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    metrics = score(read_predictions(path), n_resamples=50)
    scores = metrics.benchmark
    assert metrics.format == "airbench"
    assert scores is not None
    # read are B, A, D (a null choice: wrong), B and the C of Certainly; null is no prediction
    assert (scores.n, scores.n_unscored, scores.accuracy_official.n) == (9, 4, 5)
    assert scores.accuracy_official.value == 2 / 5
    name = "Speaker_Emotion_Recontion_iemocap"
    assert scores.unreadable == (f"{name}-4", f"{name}-5", f"{name}-8")
    assert (scores.missing, scores.empty) == ((f"{name}-6",), (f"{name}-5",))
    assert scores.accuracy_official_by_task_dataset[name] == scores.accuracy_official
    assert scores.accuracy_official_by_category["Speaker_Emotion_Recontion"].n == 5
    assert scores.speech == scores.accuracy_official
    assert scores.accuracy_strict.value == 4 / 8
    assert scores.why["unreadable left the denominator"] == 3
    assert scores.accuracy_official_of_all is not None
    assert scores.accuracy_official_of_all.value == 2 / 9


def test_a_repeated_choice_of_airbench_has_one_official_letter(tmp_path: Path) -> None:
    repeated = {**AIR_ROW, "choice_c": "glad", "response": "C"}
    scores = _owner(tmp_path, [repeated])
    assert (scores.accuracy_official.value, scores.accuracy_strict.value) == (0.0, 1.0)
    assert scores.why == {"repeated choice text": 1}


def test_meld_has_weighted_and_macro_f1(tmp_path: Path) -> None:
    said = [("fear", "fear"), ("joy", "joy"), ("joy", "neutral"), ("neutral", "neutral"), ("joy", "hm")]
    rows = [
        {**MELD_ROW, "Utterance_ID": at, "Emotion": true, "prediction": text}
        for at, (true, text) in enumerate(said)
    ]
    scores = _owner(tmp_path, rows)
    assert scores.accuracy_official.value == scores.accuracy_strict.value == 3 / 5
    f1 = {"fear": 1.0, "joy": 2 * 1 / (1 + 3), "neutral": 2 * 1 / (2 + 1)}
    assert scores.macro_f1 is not None
    assert scores.weighted_f1 is not None
    assert scores.macro_f1.value == pytest.approx(sum(f1.values()) / 7)
    assert scores.weighted_f1.value == pytest.approx((f1["fear"] + 3 * f1["joy"] + f1["neutral"]) / 5)
    assert scores.always_neutral == 1 / 5
    assert scores.n_without_choice == 1
    assert scores.accuracy_official_by_category["joy"].value == pytest.approx(1 / 3)


def test_melds_table_is_read_with_a_column_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    long = "word " * 40_000
    path.write_text(
        "\ufeffSr No.,Utterance,Emotion,Dialogue_ID,Utterance_ID,prediction\r\n"
        f'1,"Oh, no!",fear,0,1,"{long}\nFinal answer: fear"\r\n2,Hm,joy,0,2,\r\n',
        encoding="utf-8",
    )
    metrics = score_file(path, n_resamples=50)
    assert (metrics.format, metrics.n) == ("meld", 2)
    assert metrics.benchmark is not None
    assert metrics.benchmark.accuracy_official.value == 0.5
    assert metrics.benchmark.empty == ("dia0_utt2",)


@pytest.mark.skipif(not MELD.exists(), reason=f"needs the benchmark's file {MELD.name}")
def test_always_neutral_on_meld(tmp_path: Path) -> None:
    with MELD.open(encoding="utf-8", newline="") as file:
        rows = [{**row, "prediction": "neutral"} for row in csv.DictReader(file)]
    scores = _owner(tmp_path, rows)
    assert scores.n == 2610
    assert scores.accuracy_official.value == scores.always_neutral == pytest.approx(0.481, abs=5e-4)
    share = scores.always_neutral
    assert share is not None
    assert scores.weighted_f1 is not None
    assert scores.weighted_f1.value == pytest.approx(share * 2 * share / (1 + share))
    # without the column nothing was predicted
    assert score_file(MELD, n_resamples=10).benchmark.accuracy_official.value is None  # type: ignore[union-attr]


def test_questions_without_an_answer_are_unscored_and_not_wrong(tmp_path: Path) -> None:
    row = {key: value for key, value in MMAU_ROW.items() if key != "answer"}
    for unknown in (row, {**row, "answer": None}, {**row, "answer": ""}):
        scores = _owner(tmp_path, [{**unknown, "model_output": "Woman"}])
        assert (scores.accuracy_official.value, scores.accuracy_strict.value) == (None, None)
        assert (scores.chance, scores.accuracy_official_of_all.value) == (None, None)  # type: ignore[union-attr]
        assert scores.without_answer == ("r1",)
    no_choice = _owner(tmp_path, [{**AIR_ROW, "answer_gt": "angry", "response": "A"}])
    assert no_choice.accuracy_official.value is None
    assert no_choice.n_listed == {"without_answer": 1}


def test_the_difficulty_of_mmau_is_a_breakdown(tmp_path: Path) -> None:
    rows = [
        {**MMAU_ROW, "id": f"r{at}", "difficulty": level, "model_output": text}
        for at, (level, text) in enumerate([("easy", "Woman"), ("easy", "Man"), ("hard", "Woman")])
    ]
    scores = _owner(tmp_path, rows)
    by = scores.accuracy_official_by_difficulty
    assert {level: mean.value for level, mean in by.items()} == {"easy": 0.5, "hard": 1.0}
    assert set(scores.accuracy_strict_by_difficulty) == {"easy", "hard"}


def test_answers_that_are_unclear_are_counted_beside_the_accuracy(tmp_path: Path) -> None:
    rows = [
        {**MMAU_ROW, "id": f"r{at}", "model_output": text} for at, text in enumerate(["Woman", "A or B", "?"])
    ]
    path = tmp_path / "mmau.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert summary(score_file(path, n_resamples=10)).endswith(", 2 without a clear answer")
    ours = summary(_scored(tmp_path, _choices(["(b) Woman", "not (b)"])))
    assert ours.endswith(", 1 without a clear answer")
    assert "clear answer" not in summary(_scored(tmp_path, _choices(["(b) Woman"])))


def test_predictions_for_other_questions_alone_are_refused(tmp_path: Path) -> None:
    questions, path = tmp_path / "mmau-test-mini.json", tmp_path / "answered.json"
    questions.write_text(json.dumps([MMAU_ROW]), encoding="utf-8")
    path.write_text(json.dumps([{**MMAU_ROW, "id": "x", "model_output": "Woman"}]), encoding="utf-8")
    with pytest.raises(NothingDone, match="none of its 1 predictions is for a question of"):
        score_file(path, questions)


def test_predictions_of_any_type_and_length_are_scored(tmp_path: Path) -> None:
    long = "Woman " * 400_000
    odd = (7, ["Woman"], {"a": "Woman"}, None, True, long, "\ud800", "(a) or (b)")
    rows = [{**MMAU_ROW, "id": f"r{at}", "model_output": value} for at, value in enumerate(odd)]
    scores = _owner(tmp_path, rows)
    assert scores.accuracy_official.n == len(odd)
    assert scores.accuracy_official.value == 3 / len(odd)  # the list, the object and the long text
    assert (scores.empty, scores.several) == (("r3",), ("r7",))


# --- the questions, given apart --------------------------------------------------------------------------


def test_missing_and_foreign_predictions_are_listed(tmp_path: Path) -> None:
    asked = [{**MMAU_ROW, "id": f"r{at}"} for at in range(4)]
    questions = tmp_path / "mmau-test-mini.json"
    questions.write_text(json.dumps(asked), encoding="utf-8")
    tampered = {**MMAU_ROW, "answer": "Man", "choices": ["Man"], "model_output": "Man"}
    rows = [
        {**MMAU_ROW, "id": "r0", "model_output": "Woman"},
        {**tampered, "id": "r1"},  # the questions are the authority
        {"id": "r2", "model_output": "Woman"},  # no more than that is needed
        {**MMAU_ROW, "id": "elsewhere", "model_output": "Woman"},
    ]
    scores = _owner(tmp_path, rows, questions=questions, items=tmp_path / "items.jsonl")
    assert (scores.n, scores.n_unscored, scores.accuracy_official.n) == (4, 1, 3)
    assert scores.accuracy_official.value == 2 / 3
    assert scores.accuracy_official_of_all is not None
    assert scores.accuracy_official_of_all.value == 2 / 4
    assert (scores.missing, scores.foreign) == (("r3",), ("elsewhere",))
    assert scores.n_listed == {"missing": 1, "foreign": 1}
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [(line["id"], line["official"]) for line in lines] == [
        ("r0", True),
        ("r1", False),
        ("r2", True),
        ("r3", None),
    ]


@pytest.mark.parametrize("benchmark", ["airbench", "meld"])
def test_other_owners_files_are_questions_too(tmp_path: Path, benchmark: str) -> None:
    row, key = (AIR_ROW, "response") if benchmark == "airbench" else (MELD_ROW, "prediction")
    number = "uniq_id" if benchmark == "airbench" else "Utterance_ID"
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{**row, number: at} for at in range(3)]), encoding="utf-8")
    right = "B" if benchmark == "airbench" else "fear"
    scores = _owner(tmp_path, [{**row, number: at, key: right} for at in (1, 2, 9)], questions=questions)
    assert (scores.n, scores.n_unscored, scores.accuracy_official.value) == (3, 1, 1.0)
    assert scores.n_listed == {"missing": 1, "foreign": 1}


def test_our_predictions_are_held_against_our_questions(tmp_path: Path) -> None:
    asked = [replace(CHOICE, id=f"q{at}") for at in range(3)] + [PHRASE]
    write_jsonl(tmp_path / "questions.jsonl", asked)
    said = [
        Response(
            replace(asked[0], answer="Man"), "a", "(b) Woman"
        ),  # an older answer: the questions know better
        Response(replace(CHOICE, id="other"), "a", "(b)"),
        *(Response(question, "b", "from 2 to 4 seconds (b)") for question in asked),
    ]
    write_jsonl(tmp_path / "p.jsonl", said)
    models = score_file(tmp_path / "p.jsonl", tmp_path / "questions.jsonl", n_resamples=50).models
    choice = models["a"].all.choice
    assert choice is not None
    assert (choice.n, choice.accuracy_official.value, choice.accuracy_official.n_unscored) == (3, 1.0, 2)
    assert choice.accuracy_official_of_all is not None
    assert choice.accuracy_official_of_all.value == 1 / 3
    assert models["a"].all.phrase is not None
    assert models["a"].all.phrase.iou.value is None
    assert models["a"].all.phrase.iou_of_all.value == 0.0  # type: ignore[union-attr]
    assert (models["a"].missing, models["a"].foreign) == (("q1", "q2", "p1"), ("other",))
    assert models["b"].missing == ()
    assert models["b"].all.choice.accuracy_official_of_all is None  # type: ignore[union-attr]


def test_our_predictions_are_held_against_the_owners_questions(tmp_path: Path) -> None:
    questions = tmp_path / "mmau-test-mini.json"
    rows = [{**MMAU_ROW, "id": f"r{at}", "task": "speech" if at else "music"} for at in range(2)]
    questions.write_text(json.dumps(rows), encoding="utf-8")
    said = Response(replace(CHOICE, id="r1", choices=("Man", "Woman")), "m", "Not the man.\n(b) Woman")
    write_jsonl(tmp_path / "p.jsonl", [said])
    scores = score_file(tmp_path / "p.jsonl", questions, n_resamples=50).models["m"].benchmarks["mmau"]
    assert (scores.n, scores.accuracy_official.value, scores.missing) == (2, 1.0, ("r0",))
    assert scores.accuracy_as_is is not None
    assert scores.accuracy_as_is.value == 0.0
    assert scores.why_as_is == {"another choice's words beside the right one": 1}


# --- labels, errors, tests -------------------------------------------------------------------------------


def test_labelled_questions_have_the_owners_number(tmp_path: Path) -> None:
    labels = (("benchmark", "mmar"), ("domain", "speech"), ("category", "x"), ("category", "y"))
    texts = ["No man here.\nFinal answer: (b) Woman", "Woman", "(a) Man", "maybe a woman, maybe a man"]
    responses = [
        Response(replace(response.question, labels=labels), "mini", response.text)
        for response in _choices(texts)
    ]
    model = _scored(tmp_path, responses).models["mini"]
    scores = model.benchmarks["mmar"]
    assert scores.accuracy_official.value == 2 / 4
    assert scores.accuracy_as_is is not None
    assert scores.accuracy_as_is.value == 1 / 4
    assert scores.accuracy_official_by_category["y"].n == 4
    assert scores.speech is not None
    assert scores.n_without_choice == 1
    assert scores.several == ("q3",)
    assert model.all.choice is not None
    assert model.all.choice.accuracy_official.value == 1 / 4  # the authors' letter
    assert model.all.choice.accuracy_by_label["domain"]["speech"].value == 1 / 4
    assert model.all.choice.why == {"text without letter": 1}


def test_a_label_of_many_values_is_no_breakdown(tmp_path: Path) -> None:
    responses = [
        Response(replace(CHOICE, id=f"q{at}", labels=(("nr", str(at)), ("half", str(at % 2)))), "mini", "(b)")
        for at in range(31)
    ]
    choice = _scored(tmp_path, responses).models["mini"].all.choice
    assert choice is not None
    assert list(choice.accuracy_by_label) == ["half"]


def test_errors_of_starts_and_ends_are_of_intervals_only(tmp_path: Path) -> None:
    texts = ["From 2.0s to 4.0s", "From 2.5s to 4.1s", "From 1.0s to 7.0s", "From 4s to 2s", "no idea"]
    unknown = Response(replace(PHRASE, id="x", evidence=()), "mini", "From 2s to 4s")
    phrase = _scored(tmp_path, [*_phrases(texts), unknown]).models["mini"].all.phrase
    assert phrase is not None
    assert phrase.start_error is not None
    assert phrase.end_error is not None
    assert (phrase.start_error.n, phrase.start_error.median) == (3, 0.5)
    assert phrase.start_error.p90 == pytest.approx(0.9)
    assert phrase.end_error.median == pytest.approx(0.1)


def test_a_span_of_hours_costs_no_more_than_another(tmp_path: Path) -> None:
    start = time.process_time()
    phrase = _scored(tmp_path, _phrases(["From 0.1s to 999999.0s"] * 200)).models["mini"].all.phrase
    assert time.process_time() - start < 2
    assert phrase is not None
    assert phrase.n_past_end == 200
    assert phrase.segment_f1 == pytest.approx(2 * 400 / (200 * 999_999 + 400))


def test_differences_are_tested_by_question_and_by_clip(tmp_path: Path) -> None:
    """Six clips of five questions: the second model has all of four clips right where the first has none."""
    responses = []
    for at in range(30):
        question = replace(CHOICE, id=f"q{at}", clip_id=f"c{at // 5}")
        responses += [
            Response(question, "a", "(b)" if at >= 20 else "(a)"),
            Response(question, "b", "(b)" if at < 25 else "(a)"),
        ]
        responses += [
            Response(replace(PHRASE, id=f"p{at}", clip_id=f"c{at}"), model, f"from 2 to {end} seconds")
            for model, end in (("a", "3"), ("b", "4"))
        ]
    (difference,) = _scored(tmp_path, responses).differences
    assert (difference.n_only_model, difference.n_only_other) == (5, 20)
    assert difference.p_mcnemar == pytest.approx(mcnemar_exact(5, 20))
    # five clips differ, one of them the other way: 2 * (1 + 5) of 32 changes of sign are as far
    assert difference.p_accuracy_official == pytest.approx(12 / 32, abs=0.02)
    assert difference.p_accuracy_strict == difference.p_accuracy_official
    assert difference.p_iou == pytest.approx(1 / 10_001)


def test_two_models_that_never_differ_have_no_p(tmp_path: Path) -> None:
    (difference,) = _scored(
        tmp_path, [Response(CHOICE, "a", "(b)"), Response(CHOICE, "b", "(b)")]
    ).differences
    assert (difference.p_mcnemar, difference.p_accuracy_official, difference.p_iou) == (None, None, None)
    (apart,) = _scored(tmp_path, [Response(CHOICE, "a", "(b)"), Response(PHRASE, "b", "x")]).differences
    assert (apart.n_choices, apart.accuracy_strict, apart.p_accuracy_strict) == (0, None, None)


# --- long files ------------------------------------------------------------------------------------------


def _many(n: int) -> list[Response]:
    """Two models; phrases, choices and a benchmark's; repeated, empty, backward, late and unmarked ones."""
    rng = random.Random(0)
    responses = []
    for at in range(n):
        question_number = at // 2
        model = "a" if at % 2 or rng.random() < 0.05 else "b"
        clip = f"c{question_number // 3}"
        if question_number % 3 == 0:
            evidence = (Span(2, 4),) if rng.random() < 0.9 else ()
            split = "test" if question_number % 2 else "dev"
            question = replace(PHRASE, id=f"p{question_number}", clip_id=clip, evidence=evidence, split=split)
            start = round(rng.uniform(0, 6), 2)
            text = rng.choice([f"{start}s - {start + 2:.2f}s", "From 2s to 4s", "4s - 2s", "9s - 20s", ""])
        else:
            labels = (("benchmark", "mmau"), ("category", rng.choice("xy"))) if question_number % 2 else ()
            question = replace(CHOICE, id=f"q{question_number}", clip_id=clip, labels=labels)
            text = rng.choice(
                ["From 2s to 4s. (b) Woman", "(a)", "Woman", "Woman, not man", "(a) or (b)", "", "(b) Man"]
            )
        responses.append(Response(question, model, text))
    return responses


def test_a_file_is_scored_as_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    write_jsonl(path, _many(600))
    metrics = score_file(path, n_resamples=50)
    assert metrics == score(read_predictions(path), file=str(path), n_resamples=50)
    assert metrics.models["a"].benchmarks["mmau"].n > 50
    assert metrics.differences[0].n_phrases > 50


def test_melds_f1_have_intervals_around_them(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [
        {
            **MELD_ROW,
            "Utterance_ID": at,
            "Emotion": rng.choice(EMOTIONS),
            "prediction": rng.choice([*EMOTIONS, "?"]),
        }
        for at in range(600)
    ]
    scores = _owner(tmp_path, rows)
    for mean in (scores.macro_f1, scores.weighted_f1):
        assert mean is not None
        assert mean.low < mean.value < mean.high  # type: ignore[operator]


def test_lists_of_ids_end_at_a_thousand(tmp_path: Path) -> None:
    rows = [{**MMAU_ROW, "id": f"r{at}", "model_output": ""} for at in range(1500)]
    scores = _owner(tmp_path, rows)
    assert scores.empty == tuple(f"r{at}" for at in range(1000))
    assert scores.n_listed == {"empty": 1500}


def test_a_json_list_is_read_whatever_stands_around_it(tmp_path: Path) -> None:
    rows = [
        {**MMAU_ROW, "id": f"r{at}", "model_output": "Woman " * (at % 5 * 50_000 + 1)} for at in range(20)
    ]
    path = tmp_path / "mmau.json"
    path.write_text("\ufeff " + json.dumps(rows, indent=1), encoding="utf-8")
    read = read_predictions(path).rows
    assert [row.id for row in read] == [f"r{at}" for at in range(20)]
    assert [len(row.prediction) for row in read] == [len(str(row["model_output"])) for row in rows]


def test_right_answers_without_letters_are_not_said_to_be_wrong_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A spreadsheet's answers are texts: Eq. 1 wants a letter, a reader does not."""
    row = {"clip_id": "c", "audio": "c.wav", "duration": 9.5, "kind": "choice", "question": "Who?"}
    row |= {"choices": ["A man", "A woman"], "answer": "A man", "model": "m"}
    answers = {"q1": "A man", "q2": "(a) A man"}
    rows = [json.dumps(row | {"id": name, "response": text}) for name, text in answers.items()]
    (tmp_path / "p.jsonl").write_text("\n".join(rows) + "\n")
    assert cli.main(["score", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "m.json")]) == 0
    told = capsys.readouterr().out
    assert "2 choices: accuracy 50.0 %" in told
    assert "strict, 100.0 %" in told
    assert "m: official and strict differ on: 1 (text without letter)" in told


def test_the_command_writes_scores_and_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out, items = tmp_path / "p.jsonl", tmp_path / "metrics.json", tmp_path / "items.jsonl"
    write_jsonl(path, [*_phrases(["From 2s to 4s"]), *_choices(["(b)", "Woman", ""])])
    assert cli.main(["score", str(path), "--out", str(out), "--items", str(items)]) == 0
    said = capsys.readouterr().out
    assert "mini: 1 empty predictions: q2" in said
    assert str(out) in said
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["phrase", "choice", "choice", "choice"]
    assert lines[0]["first"] == [2.0, 4.0]
    assert [line["chosen"] for line in lines[1:]] == ["Woman", "Woman", None]
    assert [line["why"] for line in lines[1:]] == [None, "text without letter", None]
    assert json.loads(out.read_text())["bootstrap"] == "multinomial"
    assert sorted(os.listdir(tmp_path)) == ["items.jsonl", "metrics.json", "p.jsonl"]
