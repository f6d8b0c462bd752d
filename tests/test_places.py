"""LAT-Bench's TAG, SpotSound-Bench and AEGBench: where a sound is, in seconds or minutes, once or several times."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tgsr.data.other_trainers import target_of
from tgsr.engine.features import FeatureCache
from tgsr.errors import Bad, RecordError, RunError
from tgsr.evaluation.benchmarks import questions_of
from tgsr.evaluation.owners.files import benchmark_questions
from tgsr.evaluation.owners.grounding import lat_iou, official_iou_of, spans_of, whole_seconds
from tgsr.evaluation.scoring.importing import import_predictions
from tgsr.evaluation.scoring.items import item_line, score_response
from tgsr.evaluation.scoring.score import read_predictions, score
from tgsr.overlap import set_iou
from tgsr.records import Question, Response, write_jsonl
from tgsr.sta import train_sta
from tgsr.timeline import Span
from tgsr.training.config import StaConfig

ASKED = (
    "<audio>Please listen to the audio carefully and locate the section with a whistle. Please strictly output the "
    "result in the format of [Start Time - End Time]. Do not output any extra explanatory text."
)
LAT = {
    "messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": "[00:12 - 00:22]"}],
    "audios": ["Bench_EN_1"],
}
SPOT = {"audio_path": "audio/x.wav", "caption": "dog barking", "annotations": [[1.5, 2.5]]}
AEG = {
    "id": "clip-1", "audio_path": "audio/src/y.wav", "duration": 10, "categories": ["bark", "missing"],
    "clips": [{"category": "bark", "start": 1, "end": 2.0}, {"category": "bark", "start": "0:05", "end": "0:06"}],
}  # fmt: skip

# What parse_time_span and compute_iou of eval-TAG.py (28 April 2026) give, run apart from here; None: left out.
OF_LAT = [
    ("[11:13 - 12:13]", "[11:13 - 12:13]", 1.0),
    ("[00:10-00:20]", "[00:12-00:22]", 0.6666666666666666),
    ("It is from 0:10 - 0:20.", "[00:12 - 00:22]", 0.6666666666666666),
    ("10 to 20 s", "[00:12 - 00:22]", None),
    ("[01:02:03 - 01:03:03]", "[01:02:03 - 01:03:03]", 0.0),
    ("[00:20 - 00:10]", "[00:12 - 00:22]", 0.0),
    ("[00:00 - 00:00]", "[00:12 - 00:22]", 0.0),
    ("[0:30 - 0:40]", "[00:12 - 00:22]", 0.0),
    ("first 00:01 - 00:02, then 00:12 - 00:22", "[00:12 - 00:22]", 0.0),
    ("", "[00:12 - 00:22]", None),
    ("00:12–00:22", "[00:12 - 00:22]", None),
]


@pytest.mark.parametrize(("text", "reference", "iou"), OF_LAT)
def test_lat_benchs_script(text, reference, iou):
    assert lat_iou(text, reference) == iou


def written(path: Path, rows: object, how: str = "lines") -> Path:
    lines = rows if isinstance(rows, list) else [rows]
    texts = {
        "lines": "".join(json.dumps(row) + "\n" for row in lines),
        "bom": "\ufeff" + "".join(json.dumps(row) + "\r\n" for row in lines),
        "list": json.dumps(lines, indent=1),
        "items": json.dumps({"revision": 3, "items": lines}, indent=1),
    }
    path.write_bytes(texts[how].encode())
    return path


@pytest.mark.parametrize("how", ["lines", "bom", "list", "items"])
@pytest.mark.parametrize(
    ("row", "name", "phrase", "spans", "place"),
    [
        (LAT, "lat-bench-tag", "the section with a whistle", [(12, 22)], "Bench_EN_1.wav"),
        (SPOT, "spotsound-bench", "dog barking", [(1.5, 2.5)], "audio/x.wav"),
        (AEG, "aegbench", "bark", [(1, 2), (5, 6)], "audio/src/y.wav"),
    ],
)
def test_a_row_becomes_a_phrase_with_its_places(tmp_path, row, name, phrase, spans, place, how):
    (asked,) = benchmark_questions(written(tmp_path / "file", row, how))
    question = asked.about("a.wav", 30.0)
    assert (question.split, question.phrase, question.kind) == (name, phrase, "phrase")
    assert [(span.start, span.end) for span in question.evidence] == spans
    assert asked.places[0] == place
    assert (official_iou_of(question) is lat_iou) == (name == "lat-bench-tag")


@pytest.mark.parametrize(
    ("times", "spans"),
    [
        ([1, 2], [(1, 2)]), ([["0:01", "0:02.5"]], [(1, 2.5)]), ([{"start": 1, "end": 2}], [(1, 2)]),
        ("[00:01 - 00:02]", [(1, 2)]), ("from 1.20s to 2.50s, from 5.00s to 6.00s", [(1.2, 2.5), (5, 6)]),
    ],
)  # fmt: skip
def test_times_are_read_however_they_are_written(times, spans):
    assert [(span.start, span.end) for span in spans_of(times)] == spans


@pytest.mark.parametrize("times", [[[2, 1]], [[1]], [[None, 2]], [[-1, 2]], [["x", "y"]], [[1, "inf"]]])
def test_what_is_no_interval_is_said(times):
    with pytest.raises(RecordError, match="no interval"):
        spans_of(times)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**SPOT, "annotations": []}, "says no interval"),
        ({**SPOT, "caption": " "}, "must be text"),
        ({**LAT, "audios": []}, "ask about a sound"),
        ({**LAT, "audios": ["a", "b"]}, "one sound"),
        ({**LAT, "messages": [LAT["messages"][0]]}, "no interval"),
        ({**LAT, "messages": "x"}, "one sound"),
        ({**AEG, "clips": None}, "must be lists"),
        ({"unlike": 1}, "has the keys"),
    ],
)
def test_a_bad_row_is_listed_and_the_others_go_on(tmp_path, row, says):
    good = next(one for one in (LAT, SPOT, AEG) if one.keys() & row.keys() or "unlike" in row)
    found = list(benchmark_questions(written(tmp_path / "file", [good, row])))
    assert [says in one.error for one in found if isinstance(one, Bad)] == [True]
    assert len(found) == 2


def test_evidence_is_cut_to_the_sound_and_must_lie_in_it(tmp_path):
    (asked,) = benchmark_questions(written(tmp_path / "file", LAT))
    assert asked.about("a.wav", 20.5).evidence == (Span(12, 20.5),)
    with pytest.raises(RecordError, match=r"at 12 s, and the sound lasts 10\.00 s"):
        asked.about("a.wav", 10.0)


def test_a_missing_sound_says_where_was_looked(tmp_path):
    with pytest.raises(RecordError, match=r"looked for .*audio/x\.wav"):
        questions_of(written(tmp_path / "file", SPOT))


def question(*spans: tuple[float, float], reference: str = "") -> Question:
    labels = (("benchmark", "lat-bench-tag"),) if reference else ()
    evidence = tuple(Span(*span) for span in spans)
    return Question(
        "q", "c", "a.wav", 60.0, "phrase", "bark", answer=reference or None, phrase="bark", evidence=evidence,
        split="s", labels=labels,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "iou"),
    [
        ("<answer>[[1, 2], [5, 6]]</answer>", 1.0),
        ("from 1.00s to 2.00s, from 5.00s to 7.00s", 2 / 3),
        ("[1, 2]", 0.5),
        ("<answer>[]</answer>", 0.0),
        ("[[0, 10]]", 0.2),
    ],
)
def test_all_places_of_an_answer_count_where_all_are_asked_for(text, iou):
    (item,) = score_response(Response(question((1, 2), (5, 6)), "m", text))
    assert item.iou == pytest.approx(iou)
    assert (item.errors, item.has_official) == (None, False)
    assert set_iou([], [Span(1, 2)]) == set_iou([Span(1, 2)], []) == 0


def test_one_place_stays_one_answer():
    (item,) = score_response(Response(question((1, 2)), "m", "[[1, 2], [5, 6]]"))
    assert (item.iou, item.is_without_span) == (0.0, True)


def test_the_owners_mean_is_of_the_span_in_whole_seconds_and_of_the_whole_text():
    texts = ["The segment starts at 12.2 seconds and ends at 21.9 seconds.", "[00:12 - 00:22]", "nowhere"]
    responses = [
        Response(question((12, 22), reference="[00:12 - 00:22]"), f"m{n}", text)
        for n, text in enumerate(texts)
    ]
    items = [score_response(response)[0] for response in responses]
    assert [(item.iou_official, item.iou_as_is) for item in items] == [(1.0, None), (1.0, 1.0), (None, None)]
    assert item_line(items[:1])["iou_official"] == 1.0
    assert whole_seconds(Span(59.6, 61)) == "[01:00 - 01:01]"


def test_a_place_must_be_one_to_be_taught(tmp_path):
    short = "begins and ends at the same hundredth of a second"  # nothing that can be written lies between
    for spans, has in (((), "no span"), (((1, 2), (5, 6)), "2 spans"), (((1.001, 1.0042),), short)):
        with pytest.raises(RecordError, match=has):
            target_of(question(*spans), "qwen2.5-omni")
        if not spans:
            continue
        bad = question(*spans)
        write_jsonl(tmp_path / "q.jsonl", [bad, replace(bad, id="r")])
        with pytest.raises(RunError, match=rf"'q' has .*{has}.*\(2 in all\): leave it out"):
            train_sta(
                StaConfig(questions=str(tmp_path / "q.jsonl")), tmp_path / "out", FeatureCache(tmp_path)
            )
    assert target_of(question((1.004, 1.006)), "qwen2.5-omni").endswith(
        "at 1.00 seconds and ends at 1.01 seconds."
    )


def test_their_files_of_predictions_are_imported_before_they_are_scored(tmp_path):
    with pytest.raises(RecordError, match="tgsr import"):
        score(read_predictions(written(tmp_path / "p.jsonl", {**LAT, "response": "[00:10 - 00:20]"})))


@pytest.mark.parametrize(
    "row",
    [
        {"response": "[00:10 - 00:20]", "labels": "[00:12 - 00:22]", **LAT},
        {
            "query": ASKED, "ground_truth": "[00:12 - 00:22]", "audio_path": "/x/Bench_EN_1.wav",
            "final_prediction": "[00:10 - 00:20]", "all_audio_paths": ["/x/1.wav", "/tmp/crop.mp3"],
        },
    ],
)  # fmt: skip
def test_what_their_programs_write_is_imported_and_scored(tmp_path, row):
    done = import_predictions(
        written(tmp_path / "r.jsonl", [row, {**row, "labels": "none", "ground_truth": "none"}]),
        tmp_path / "out.jsonl",
        model="m",
        columns={"duration": "=30"},
    )
    assert (done.format, done.n, done.n_bad, done.unknown) == ("tgsr", 1, 1, ())
    assert "'none' says no interval" in (tmp_path / "out.jsonl.errors.jsonl").read_text("utf-8")
    scores = score(read_predictions(tmp_path / "out.jsonl")).models["m"]
    assert scores.by_split.keys() == {"lat-bench-tag"}
    assert scores.all.phrase.iou.value == pytest.approx(2 / 3)
    assert scores.all.phrase.official["iou"].value == pytest.approx(2 / 3)
    assert scores.all.phrase.official["R@0.7"].value == 0


def test_predictions_are_joined_by_their_sound_and_what_was_asked(tmp_path):
    asked = written(tmp_path / "aeg.json", AEG, "items")
    rows = [
        {"audio_path": "elsewhere/y.wav", "category": name, "response": "[[1, 2], [5, 6]]"}
        for name in AEG["categories"]
    ]
    done = import_predictions(
        written(tmp_path / "p.jsonl", rows), tmp_path / "out.jsonl", model="m", questions=asked
    )
    assert (done.n, done.n_bad) == (1, 1)  # nothing is known of the other category
    assert score(read_predictions(tmp_path / "out.jsonl")).models["m"].all.phrase.iou.value == 1.0
