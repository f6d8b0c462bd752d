"""What `tgsr score` says of citations: the clips' words are found, and named where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tgsr import cli
from tgsr.errors import RecordError
from tgsr.evaluation.scoring.metrics import ChoiceScores, Metrics
from tgsr.evaluation.scoring.score import read_predictions, score, score_file, write_metrics
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.evaluation.scoring.terminal import notes, summary
from tgsr.records import Clip, Question, Response, write_jsonl
from tgsr.report.results import read_metrics
from tgsr.timeline import Span, Word

TRACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "tgsr" / "traces_20.json"
WORDS = (Word("One,", 1.0, 1.4), Word("seven.", 2.0, 2.4), Word("Eight", 3.0, 3.4))
TRUE = 'From 2.0s to 3.4s, he says "seven eight".\nFinal answer: (a) eight'
FALSE = 'From 1.0s to 2.0s, he says "seven eight".\nFinal answer: (a) eight'
BLIND = "Final answer: (a) eight"


def question(number: int, **changes: Any) -> Question:
    asked = Question(
        id=f"q{number}",
        clip_id=f"c{number}",
        audio=f"audio/c{number}.wav",
        duration=5.0,
        kind="choice",
        question="Which digit is said after seven?",
        answer="eight",
        choices=("eight", "one"),
        evidence=(Span(2.0, 3.4),),
    )
    return replace(asked, **changes)


def clip(number: int, words: tuple[Word, ...] = WORDS, **changes: Any) -> Clip:
    return replace(Clip(f"c{number}", f"audio/c{number}.wav", 5.0, words), **changes)


def responses(*texts: str, model: str = "m") -> list[Response]:
    return [Response(question(number), model, text) for number, text in enumerate(texts)]


def choice(metrics: Metrics, model: str = "m") -> ChoiceScores:
    scores = metrics.models[model].all.choice
    assert scores is not None
    assert scores.evidence is not None
    return scores


@pytest.mark.parametrize(
    ("clips", "questions", "predictions", "audio"),
    [
        ("", "", "", "audio"),
        ("data", "data", "runs/m", "../../data/audio"),  # beside the sound that predictions name
        ("data/audio", "data", "runs/m", "../../data/audio"),
        ("data", "data", "runs/m", "elsewhere"),  # beside the questions
    ],
)
def test_the_clips_beside_the_questions_or_their_sound_are_found(
    tmp_path: Path, clips: str, questions: str, predictions: str, audio: str
) -> None:
    for folder in (clips, questions, predictions):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    write_jsonl(tmp_path / clips / "clips.jsonl", map(clip, range(3)))
    write_jsonl(tmp_path / questions / "questions.jsonl", map(question, range(3)))
    rows = [
        replace(response, question=replace(response.question, audio=f"{audio}/c{number}.wav"))
        for number, response in enumerate(responses(TRUE, FALSE, BLIND))
    ]
    write_jsonl(tmp_path / predictions / "p.jsonl", rows)
    asked = tmp_path / questions / "questions.jsonl" if audio == "elsewhere" else None
    metrics = score_file(tmp_path / predictions / "p.jsonl", asked, n_resamples=20)
    assert metrics.clips == (str(tmp_path / clips / "clips.jsonl"),)
    evidence = choice(metrics).evidence
    assert evidence is not None
    assert (evidence.n_with_words, evidence.quote_truth.value) == (3, pytest.approx(1 / 3))
    assert evidence.evidence_hit.value == pytest.approx(1 / 3)


def test_given_clips_are_the_only_ones_and_may_be_several(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", responses(TRUE, TRUE, TRUE))
    write_jsonl(tmp_path / "clips.jsonl", [clip(2)])
    write_jsonl(tmp_path / "a.jsonl", [clip(0)])
    write_jsonl(tmp_path / "b.jsonl", [clip(1)])
    out = tmp_path / "m.json"
    given = ["--clips", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    assert cli.main(["score", str(tmp_path / "p.jsonl"), *given, "--out", str(out)]) == 0
    evidence = choice(read_metrics(out)).evidence
    assert evidence is not None
    assert evidence.n_with_words == 2


@pytest.mark.parametrize(
    "known",
    [
        [],
        [replace(clip(0), id="another", audio="x.wav")],
        [replace(clip(0), duration=9.0)],  # of that id, but another recording
        [clip(0, ())],  # nobody has transcribed it, or nobody speaks
    ],
)
def test_where_no_words_are_known_the_measures_say_so_and_are_not_zero(
    tmp_path: Path, known: list[Clip]
) -> None:
    write_jsonl(tmp_path / "p.jsonl", responses(TRUE))
    if known:
        write_jsonl(tmp_path / "clips.jsonl", known)
    metrics = score_file(tmp_path / "p.jsonl", n_resamples=20)
    evidence = choice(metrics).evidence
    assert evidence is not None
    assert (evidence.quote_truth.value, evidence.first_place.value, evidence.start_error.n) == (None, None, 0)
    assert evidence.evidence_hit.value == 1.0
    assert "no words known" in summary(metrics)
    assert metrics.no_words is not None
    assert ("clips.jsonl has no clip" if known else "no clips.jsonl lies beside") in metrics.no_words


def test_a_clip_of_another_id_is_known_by_its_sound(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "clips.jsonl", [replace(clip(0), id="speech/c0", audio="wherever/c0.flac")])
    spoken = Spoken(clips=[tmp_path / "clips.jsonl"])
    assert spoken.words_of(question(0)) == WORDS
    assert spoken.words_of(question(1)) is None


def test_a_bad_row_of_given_clips_is_named_and_one_that_was_only_found_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    write_jsonl(path, [clip(0)])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "c1", "audio": "audio/c1.wav", "dura')
    beside = Spoken(beside=[tmp_path / "questions.jsonl"])
    assert (beside.words_of(question(0)), beside.words_of(question(1))) == (WORDS, None)
    with pytest.raises(RecordError, match=r"clips\.jsonl:2"):
        Spoken(clips=[path]).words_of(question(0))


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "holds no clips"), ('{"id": "c0", "audio": "c0.wav", "duration": -1}\n', ":1.*duration")],
)
def test_given_clips_that_are_none_are_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "clips.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecordError, match=told):
        Spoken(clips=[path]).words_of(question(0))


def test_two_models_are_compared_by_their_evidence(tmp_path: Path) -> None:
    n = 12
    rows = [*responses(*[FALSE] * n, model="paper"), *responses(*[TRUE] * n, model="grounded")]
    write_jsonl(tmp_path / "p.jsonl", rows)
    write_jsonl(tmp_path / "clips.jsonl", map(clip, range(n)))
    metrics = score_file(tmp_path / "p.jsonl", n_resamples=20)
    (difference,) = metrics.differences
    assert difference.evidence_hit is not None
    assert difference.quote_truth is not None
    assert (difference.evidence_hit.value, difference.quote_truth.value) == (1.0, 1.0)
    assert difference.p_evidence_hit == difference.p_quote_truth
    assert difference.p_evidence_hit is not None
    assert difference.p_evidence_hit < 0.01
    told = "\n".join([summary(metrics), *notes(metrics)])
    assert "grounded - paper: evidence hit 100.0 points [100.0, 100.0], 12 choices, paired" in told
    assert "grounded - paper: evidence hit: p < 0.001 swapping clips" in told


def test_lines_begin_with_evidence_and_say_when_k_hides_that_it_is_lost(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", responses(*[FALSE] * 8))
    write_jsonl(tmp_path / "clips.jsonl", map(clip, range(8)))
    lines = summary(score_file(tmp_path / "p.jsonl", n_resamples=20)).split("\n")
    assert lines[0].startswith(
        "m, train: evidence hit 0.0 % [0.0, 0.0] of 8 questions with evidence, trace IoU 0.000"
    )
    assert "quote truth 0.0 %" in lines[1]
    assert "and end 1.40 s off (0.0 % [0.0, 0.0] within 0.1 s)" in lines[1]
    assert "first citation at the clip's first word or at 0: 100.0 %" in lines[2]
    assert "k looks perfect (one citation in 100 %), but it does not point at the evidence" in lines[4]


def test_a_model_that_cites_nothing_has_one_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", responses(BLIND, BLIND))
    first, second = summary(score_file(tmp_path / "p.jsonl", n_resamples=20)).split("\n")
    assert first == "m, train: no response cites any seconds: evidence hit 0 of 2 questions with evidence"
    assert second.startswith("m, train: 2 choices: accuracy 100.0 %")


def test_items_say_what_became_of_each_citation(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", responses(TRUE, FALSE, BLIND))
    write_jsonl(tmp_path / "clips.jsonl", map(clip, range(3)))
    score_file(tmp_path / "p.jsonl", items=tmp_path / "items.jsonl", n_resamples=20)
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["evidence_hit"] for row in rows] == [True, False, False]
    assert [row["quote_truth"] for row in rows] == [True, False, False]
    assert [row["first_place"] for row in rows] == [False, True, None]
    assert [len(row["quote_errors"]) for row in rows] == [1, 1, 0]
    assert rows[1]["quote_errors"][0] == pytest.approx([-1.0, -1.4])


def test_metrics_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", responses(TRUE))
    path = tmp_path / "metrics.json"
    write_metrics(score_file(tmp_path / "p.jsonl", n_resamples=20), path)
    written = json.loads(path.read_text(encoding="utf-8"))
    del written["clips"], written["no_words"]
    for group in (written["models"]["m"]["all"], *written["models"]["m"]["by_split"].values()):
        del group["choice"]["evidence"]
    path.write_text(json.dumps(written), encoding="utf-8")
    metrics = read_metrics(path)
    assert metrics.models["m"].all.choice is not None
    assert metrics.models["m"].all.choice.evidence is None
    assert "evidence hit" not in summary(metrics)


def test_sampled_answers_and_missing_ones_are_counted_where_they_belong(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "q.jsonl", map(question, range(3)))
    write_jsonl(tmp_path / "p.jsonl", [*responses(TRUE, FALSE), *responses(FALSE)])
    metrics = score_file(tmp_path / "p.jsonl", tmp_path / "q.jsonl", n_resamples=20)
    evidence = choice(metrics).evidence
    assert evidence is not None
    assert (evidence.n, evidence.evidence_hit.value) == (3, pytest.approx(1 / 3))


# --- traces that lie beside predictions ------------------------------------------------------------------


def _traces(*traces: tuple[str, str]) -> list[dict[str, object]]:
    row = {"choices": ["Man", "Woman"], "answer": "Woman", "model_output": "Woman", "task": "speech"}
    return [
        {
            **row,
            "id": f"r{n}",
            "audio_id": f"./a/r{n}.wav",
            "model_prediction": text,
            "gt_transcription": said,
        }
        for n, (text, said) in enumerate(traces)
    ]


def test_published_traces_are_held_against_their_segments(tmp_path: Path) -> None:
    said = '"Where are you going?" (0.50-1.70 s), "I am going home now." (2.00-4.00 s)'
    rows = _traces(
        ('From 2.0s to 4.0s, the speaker says, "I am going home now."\n(b)', said),
        ('From 0.5s to 1.7s, the speaker says, "I am going home now."\n(b)', said),
        ('From 0.5s to 2.7s, the speaker says, "Where are you".\n(b)', said),
    )
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    metrics = score(read_predictions(path), n_resamples=20)
    assert metrics.benchmark is not None
    evidence = metrics.benchmark.evidence
    assert evidence is not None
    assert evidence.trace_iou.value == pytest.approx((1 + 1 + 1.2 / 2.2) / 3)
    assert evidence.quote_truth.value == pytest.approx(2 / 3)
    assert (evidence.start_error.n, evidence.end_error.n) == (3, 2)  # "you" ends inside a segment
    told = summary(metrics)
    assert told.startswith("traces: evidence hit 100.0 %")
    assert "nobody marked which segment a question rests on" in told
    assert "how long the clips are is not known" in told
    assert "past the clip's end" not in told


def test_an_owners_file_is_held_against_given_clips(tmp_path: Path) -> None:
    rows = [
        {**row, "audio_id": f"./sounds/c{n}.wav"}
        for n, row in enumerate(_traces(("", ""), ("", ""), ("", "")))
    ]
    for row, text in zip(rows, (TRUE, FALSE, "Woman"), strict=True):
        del row["gt_transcription"]
        row["model_output"] = text
    path = tmp_path / "mmau.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    write_jsonl(tmp_path / "spoken.jsonl", [clip(0, id="x", audio="a/c0.flac"), clip(1), clip(2)])
    metrics = score_file(path, clips=[tmp_path / "spoken.jsonl"], n_resamples=20)
    assert metrics.benchmark is not None
    evidence = metrics.benchmark.evidence
    assert evidence is not None
    assert (evidence.n_with_words, evidence.quote_truth.value) == (3, pytest.approx(1 / 3))
    assert evidence.evidence_hit.value is None
    assert "predictions: quote truth 33.3 %" in summary(metrics)
    write_jsonl(tmp_path / "spoken.jsonl", [clip(7)])
    assert "no words known" in summary(score_file(path, clips=[tmp_path / "spoken.jsonl"], n_resamples=20))
    assert "no words known" not in summary(
        score_file(path, n_resamples=20)
    )  # nobody expects words of letters


def test_rows_without_a_transcript_have_no_traces(tmp_path: Path) -> None:
    rows = _traces(("From 2s to 4s", "no times in it"), ("From 2s to 4s", ""))
    del rows[1]["gt_transcription"]
    path = tmp_path / "traces.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    metrics = score(read_predictions(path), n_resamples=20)
    assert metrics.benchmark is not None
    assert metrics.benchmark.evidence is None


@pytest.mark.skipif(not TRACES.exists(), reason=f"needs the authors' 20 traces: {TRACES.name}")
def test_the_authors_traces_have_their_own_trace_iou() -> None:
    metrics = score(read_predictions(TRACES), n_resamples=20)
    traces = json.loads(TRACES.read_text(encoding="utf-8"))
    assert metrics.benchmark is not None
    evidence = metrics.benchmark.evidence
    assert evidence is not None
    mean = sum(trace["avg_iou"] for trace in traces) / len(traces)
    assert evidence.trace_iou.value == pytest.approx(mean, abs=6e-5)
    assert (evidence.n_with_words, evidence.n_citations) == (20, 29)
    assert evidence.above_chance.low is not None
    assert evidence.above_chance.low > 0.1
