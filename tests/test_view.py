"""`tgsr view`: the index, the sound, the calls and the exported folder."""

import contextlib
import json
import os
import threading
import time
import tracemalloc
import wave
from functools import partial

import numpy as np
import pytest
import soundfile as sf
import torch

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

import anyio
from starlette.testclient import TestClient

from studies import predictions
from tgsr import audio
from tgsr.cli import main
from tgsr.errors import AudioError, ModelError, StudyError, ViewError
from tgsr.evaluation.scoring.score import Predictions, score
from tgsr.llm.decoding import Cut
from tgsr.models.load import load
from tgsr.pages.guard import guard_for
from tgsr.pages.study.design import make_study
from tgsr.pages.study.serve import consent_of, kept_token
from tgsr.pages.view import ask as asking
from tgsr.pages.view.ask import Asker, Busy, suffix_of
from tgsr.pages.view.export import export
from tgsr.pages.view.index import Query, item_row, mention_rows, read_index, select, summary_row
from tgsr.pages.view.server import Viewer, app, routes
from tgsr.pages.view.sound import HEADER_BYTES, BrowserSound, Sounds, file_of, read_bytes, wav_header
from tgsr.records import Clip, Question, Response, write_jsonl
from tgsr.timeline import Span, Word
from tiny import tiny_lalm

HERE = "http://127.0.0.1:8731"
NASTY = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
OWN = {"origin": HERE}


def choice(id_: str, sound: str = "a.wav", seconds: float = 6.0, **more) -> Question:
    given = {"answer": "yes", "choices": ("yes", "no"), "evidence": (Span(1.0, 2.0),)} | more
    return Question(id_, f"c-{sound}", sound, seconds, "choice", f"What is said in {id_}?", **given)


def phrase(id_: str, sound: str = "a.wav", seconds: float = 6.0) -> Question:
    return Question(
        id_,
        f"c-{sound}",
        sound,
        seconds,
        "phrase",
        "Where is it said?",
        phrase="it",
        evidence=(Span(1.0, 2.0),),
    )


def noise(path, seconds: float = 6.0) -> None:
    rng = np.random.default_rng(1)
    audio.save_wav(path, rng.uniform(-0.5, 0.5, round(seconds * 16000)).astype("float32"))


def viewer_of(*runs, **more) -> Viewer:
    read = partial(read_index, runs, **more)
    return Viewer(read(), read)


def client_of(viewer: Viewer) -> TestClient:
    return TestClient(app(routes(viewer), guard_for("127.0.0.1", 8731)), base_url=HERE)


@pytest.fixture
def run(tmp_path):
    """A run folder of two models on twelve clips of noise."""
    folder = tmp_path / "run"
    folder.mkdir()
    predictions(folder)
    return folder


@pytest.fixture
def viewer(run):
    made = viewer_of(run)
    yield made
    made.close()


@pytest.fixture
def client(viewer):
    return client_of(viewer)


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory, monkeypatch):
    """Converted clips go where pytest clears up."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))


# --- the index -------------------------------------------------------------------------------------------


def test_verdicts_are_the_scores(tmp_path):
    """The same numbers as `tgsr score` for each response by itself."""
    texts = [
        "From 1.0s to 2.0s, yes.\nFinal answer: (a) yes",
        "(1.0s - 1.5s) and (4.0s - 5.0s).\nFinal answer: (b) no",
        "yes",
        "",
        "From 5.0s to 2.0s.\nFinal answer: (a) yes",
        "It starts at 1.1 seconds and ends at 2.0 seconds.",
        "It starts at 3.0 seconds and ends at 4.0 seconds.",
    ]
    responses = [Response(choice(f"c{i}"), "m", text) for i, text in enumerate(texts)]
    responses += [Response(phrase(f"p{i}"), "m", text) for i, text in enumerate(texts)]
    write_jsonl(tmp_path / "predictions.jsonl", responses)
    index = read_index([tmp_path])
    assert [item.question.id for item in index.items] == [r.question.id for r in responses]
    for item, response in zip(index.items, responses, strict=True):
        verdict, scores = (
            item.verdicts["m"],
            score(Predictions("tgsr", (response,)), n_resamples=1).models["m"].all,
        )
        if response.question.kind == "phrase":
            assert verdict.iou == scores.phrase.iou.value
            assert verdict.right == (scores.phrase.high_overlap.value == 1)
        else:
            assert verdict.iou == scores.choice.trace_iou.value
            assert verdict.right == (scores.choice.accuracy_official.value == 1)
            assert verdict.k == scores.choice.mentions_official.value


def test_what_is_not_known_is_neither_right_nor_wrong(tmp_path):
    question = Question("p", "c", "a.wav", 6.0, "phrase", "Where?", phrase="it")
    write_jsonl(tmp_path / "predictions.jsonl", [Response(question, "m", "from 1.0s to 2.0s")])
    index = read_index([tmp_path])
    verdict = index.items[0].verdicts["m"]
    assert (verdict.right, verdict.iou, verdict.grounded, verdict.quality) == (None, None, True, None)
    assert select(index, Query(wrong=True)) == []


def test_filters_and_orders(tmp_path):
    good, bad, empty = (
        "From 1.0s to 2.0s.\nFinal answer: (a) yes",
        "From 4s to 5s.\nFinal answer: (b) no",
        "a",
    )
    late = "From 9.0s to 10.0s.\nFinal answer: (a) yes"  # past the clip's end: nothing to be heard
    rows = [
        Response(choice("1", task="who", labels=(("category", "a"), ("category", "b"))), "first", bad),
        Response(choice("1", task="who", labels=(("category", "a"), ("category", "b"))), "last", good),
        Response(choice("2", split="test"), "first", good),
        Response(choice("2", split="test"), "last", bad),
        Response(choice("3", evidence=()), "first", late),
        Response(choice("3", evidence=()), "last", late),
        Response(phrase("4"), "first", "From 1.0s to 2.0s"),
        Response(choice("5"), "last", empty),
    ]
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    index = read_index([tmp_path])

    def ids(**asked):
        return "".join(item.question.id for item in select(index, Query(**asked)))

    assert index.models == ("first", "last")
    assert ids() == "12345"
    assert ids(wrong=True) == "25"  # of the last model
    assert ids(wrong=True, model="first") == "1"
    assert ids(model="first") == "1234"
    assert ids(model="nobody") == ""
    assert ids(ungrounded=True) == "235"
    assert ids(disagree=True) == "12"
    assert ids(kind="phrase") == "4"
    assert ids(task="who") == "1"
    assert ids(split="test") == "2"
    assert ids(labels=(("category", "a"), ("category", "b"))) == "1"
    assert ids(labels=(("category", "c"),)) == ""
    assert ids(text="SAID IN 3") == "3"
    assert ids(text="4s to 5S") == "12"
    assert ids(text="no such words") == ""
    assert ids(sort="best") == "13254"  # the phrase has no response of the last model
    assert ids(sort="worst") == "25134"
    assert ids(sort="worst", model="first") == "1234"


def test_responses_are_found_by_what_their_places_hold(tmp_path):
    said = (Word("no", 0.2, 0.8), Word("yes", 1.0, 1.9), Word("sir", 4.0, 4.8))
    texts = {
        "1": 'From 1.0s to 2.0s, "yes".\n(a) yes',
        "2": 'From 4.0s to 5.0s, "sir".\n(a) yes',  # true, and no evidence
        "3": 'From 1.0s to 2.0s, "sir".\n(a) yes',  # the evidence, and it is not said there
        "4": 'From 1.0s to 2.0s, "yes", and from 50.0s to 60.0s.\n(a) yes',
        "5": "(a) yes",
    }
    write_jsonl(tmp_path / "predictions.jsonl", [Response(choice(k), "m", text) for k, text in texts.items()])
    unheard = read_index([tmp_path])
    assert [item.verdicts["m"].quoted for item in unheard.items] == [None] * 5
    assert "what is quoted" not in unheard.measures[0].text
    write_jsonl(tmp_path / "clips.jsonl", [Clip("c-a.wav", "a.wav", 6.0, said)])
    index = read_index([tmp_path])

    def ids(**asked):
        return "".join(item.question.id for item in select(index, Query(**asked)))

    assert ids(missed=True) == "25"
    assert ids(misquoted=True) == "35"
    assert ids(late=True) == "4"
    assert ids(missed=True, misquoted=True) == "5"
    assert ids(sort="away") == "25413"
    (measured,) = index.measures
    assert measured.text.startswith(
        "the evidence is cited in 60.0 % of 5 questions; what is quoted is said there in"
    )
    assert measured.warning is None
    third, fourth = (item_row(index, item)["responses"][0]["mentions"] for item in index.items[2:4])
    assert [(m["hit"], m["said"], m["quoted"], m["quote_true"]) for m in third] == [
        (True, "yes", "sir", False)
    ]
    assert [(m["hit"], m["said"], m["problem"]) for m in fourth] == [
        (True, "yes", None),
        (False, "", "lies past the end of the clip"),
    ]


def test_a_model_that_cites_one_place_for_everything_is_warned_of(tmp_path):
    rows = [
        Response(
            choice(str(k), f"{k}.wav", evidence=(Span(k, k + 1.0),)), "stuck", "From 5.0s to 5.9s.\n(a) yes"
        )
        for k in range(5)
    ]
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    (measured,) = read_index([tmp_path]).measures
    assert "k looks perfect" in measured.warning
    write_jsonl(tmp_path / "predictions.jsonl", [Response(phrase("p"), "m", "1.0 to 2.0")])
    assert read_index([tmp_path]).measures == ()  # there is nothing to measure so


def test_half_written_and_bad_rows_are_noted_and_the_rest_is_shown(run):
    path = run / "predictions.jsonl"
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    lines[3] = b'{"id": "x"}\n'
    lines[5] = b"\xff\xfe not text\n"
    path.write_bytes(b"".join(lines) + content.splitlines()[0][:50])
    index = read_index([run])
    assert len(index.items) == 12
    assert sum(len(item.responses) for item in index.items) == 22
    assert [note.split(": ")[0] for note in index.notes] == [f"{path}:4", f"{path}:6", f"{path}:25"]
    assert "half-written" in index.notes[-1]


def test_many_bad_rows_are_counted(tmp_path):
    (tmp_path / "predictions.jsonl").write_text("{}\n" * 500)
    index = read_index([tmp_path])
    assert index.items == ()
    assert len(index.notes) == 21
    assert "480 more" in index.notes[-1]


def test_a_run_without_predictions_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="tgsr predict"):
        read_index([tmp_path])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_index([tmp_path / "nowhere"])
    (tmp_path / "predictions.jsonl").touch()
    with pytest.raises(FileNotFoundError, match="no-clips"):
        read_index([tmp_path], clips=[tmp_path / "no-clips.jsonl"])


def test_keys_stay_when_the_file_grows_and_two_files_of_one_clip_are_one_item(run):
    before = [item.key for item in read_index([run]).items]
    (run / "deeper").mkdir()
    rows = [Response(choice("new"), "sharp", "yes")]
    write_jsonl(run / "deeper" / "predictions-more.jsonl", rows)
    again = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    for row in again:
        row |= {"model": "third", "audio": f"../{row['audio']}"}
    write_jsonl(run / "deeper" / "predictions.jsonl", again)
    index = read_index([run])
    assert {item.key for item in index.items} == {*before, index.items[0].key, index.items[-1].key}
    assert set(before) < {item.key for item in index.items}
    assert len(index.items) == 13
    assert {len(item.responses) for item in index.items} == {1, 3}


def test_words_come_from_the_clips_file_beside_the_run_and_of_no_other_clip(run, tmp_path):
    words = (Word("yes", 1.0, 1.5, speaker="A"),)
    clips = [Clip("c0", "0.wav", 6.0, words), Clip("c1", "1.wav", 9.0, words), Clip("c2", "2.wav", 6.0)]
    write_jsonl(tmp_path / "clips.jsonl", clips)
    (tmp_path / "clips-bad.jsonl").write_text('{"id": 3}\n')
    index = read_index([run])
    assert index.words_of(index.items[0]) == words
    assert index.words_of(index.items[1]) is None  # another length: another corpus's c1
    assert index.words_of(index.items[2]) is None
    assert "clips-bad.jsonl:1" in index.notes[0]
    elsewhere = tmp_path / "else" / "my.jsonl"
    write_jsonl(elsewhere, [Clip("c2", "2.wav", 6.0, words)])
    index = read_index([run], clips=[elsewhere])
    assert index.words_of(index.items[0]) is None
    assert index.words_of(index.items[2]) == words


def test_words_say_where_their_script_writes_blanks(tmp_path):
    """Chinese, Japanese and Thai write none between words."""
    noise(tmp_path / "a.wav")
    write_jsonl(tmp_path / "predictions.jsonl", [Response(choice("q"), "m", "yes")])
    texts = ("今日", "は", "雨", "OK", "so", "สวัสดี", "ครับ")
    words = tuple(Word(text, n / 2, n / 2 + 0.4) for n, text in enumerate(texts))
    write_jsonl(tmp_path / "clips.jsonl", [Clip("c-a.wav", "a.wav", 6.0, words)])
    index = read_index([tmp_path])
    parted = [word["parted"] for word in item_row(index, index.items[0])["words"]]
    assert parted == [False, False, False, True, True, True, False]


def test_mentions_count_as_javascript_does():
    row = mention_rows("👩‍🔬 from 1.0s to 2.0s, 🎉 from 3.0s to 9.0s, from 2s to 1s", 6.0)
    text = "👩‍🔬 from 1.0s to 2.0s, 🎉 from 3.0s to 9.0s, from 2s to 1s".encode("utf-16-le")
    told = [text[2 * m["text_start"] : 2 * m["text_end"]].decode("utf-16-le") for m in row]
    assert told == ["1.0s to 2.0s", "3.0s to 9.0s", "2s to 1s"]
    assert [m["problem"] for m in row] == [None, "runs past the end of the clip", "ends before it starts"]
    assert [m["audible"] for m in row] == [True, True, False]


def test_a_page_of_thousands_of_items_is_found_at_once(tmp_path):
    rows = [
        Response(
            choice(f"{i}", f"{i}.wav", task=f"t{i % 5}"),
            f"m{m}",
            f"From {i % 9}.0s to 9.5s, {i}. " * 9 + "yes",
        )
        for i in range(600)
        for m in range(3)
    ]
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    index = read_index([tmp_path])
    for query in (Query(), Query(text="no such words"), Query(wrong=True, sort="worst", task="t1")):
        start = time.perf_counter()
        for item in select(index, query)[:50]:
            summary_row(item)
        assert time.perf_counter() - start < 0.1  # 3 ms here; 20 ms for 10,000 items


# --- calls -----------------------------------------------------------------------------------------------


def test_a_browser_gets_the_run_its_items_and_one_of_them(client):
    told = client.get("/api/run").json()
    assert told["models"] == [{"name": "sharp", "n": 12}, {"name": "blunt", "n": 12}]
    assert (told["n_items"], told["kinds"], told["ask"], told["notes"]) == (12, ["choice"], None, [])
    page = client.get("/api/items?page=1&size=5&wrong=1&sort=worst").json()
    assert (page["n"], page["page"], page["size"], len(page["items"])) == (12, 1, 5, 5)
    assert client.get("/api/items?wrong=1&model=sharp").json()["n"] == 0
    assert client.get("/api/items?page=99").json()["items"] == []
    first = client.get("/api/items").json()["items"][0]
    assert first["verdicts"]["sharp"] == {
        "right": True, "iou": 1.0, "k": 1, "grounded": True, "hit": True, "quoted": None, "late": False
    }  # fmt: skip
    item = client.get(f"/api/item/{first['key']}").json()
    assert item["evidence"] == [[1.0, 2.0]]
    assert item["words"] is None
    assert item["sound"] == {"ok": True, "problem": None, "seconds": 6.0, "long": False}
    response = item["responses"][1]
    assert (response["model"], response["right"], response["chosen"]) == ("blunt", False, "no")
    mention = response["mentions"][0]
    assert response["text"][mention["text_start"] : mention["text_end"]] == "4.00s to 5.00s"


@pytest.mark.parametrize(
    "query", ["page=-1", "page=x", "size=0", "size=100000", "sort=random", "label=x", "page=9999999999999"]
)
def test_a_query_that_cannot_be_is_said(client, query):
    answer = client.get(f"/api/items?{query}")
    assert answer.status_code == 400
    assert answer.json()["problem"]


def test_texts_travel_as_json_alone(tmp_path):
    lone = "\ud800"  # half of a surrogate pair, which UTF-8 cannot hold
    question = choice(NASTY, task=NASTY, labels=((NASTY, NASTY),), choices=("yes", NASTY))
    write_jsonl(tmp_path / "predictions.jsonl", [Response(question, NASTY, NASTY + lone)])
    client = client_of(viewer_of(tmp_path))
    key = client.get("/api/items", params={"q": NASTY, "label": f"{NASTY}:{NASTY}"}).json()["items"][0]["key"]
    for path in ("/api/run", "/api/items", f"/api/item/{key}"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert NASTY in json.dumps(answer.json(), ensure_ascii=False).replace('\\"', '"')
    assert client.get(f"/api/item/{key}").json()["responses"][0]["text"] == NASTY + lone


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static/%2Fetc%2Fpasswd",
        "/static//etc/passwd", "/static/vendor/../../server.py", "/static/index.html%00.js", "/static/",
        "/sound/../../etc/passwd.wav", "/sound/..%2f..%2fetc%2fpasswd.wav", "/sound/%2Fetc%2Fpasswd.wav",
        "/sound/0.wav", "/api/item/..%2f0", "/api/peaks/%2e%2e", "/api/item/", "/run/0.wav", "/0.wav",
    ],
)  # fmt: skip
def test_no_path_reaches_a_file(client, run, path):
    assert client.get(path).status_code == 404


def test_the_page_has_its_nonce_and_its_files_are_there(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "CSP-NONCE" not in page.text
    nonce = page.headers["content-security-policy"].split("'nonce-")[1].split("'")[0]
    assert f'content="{nonce}"' in page.text
    assert client.get("/static/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/static/app.css").headers["content-type"].startswith("text/css")
    assert client.get("/static/index.html").status_code == 404  # its nonce would be missing


def test_a_file_that_has_grown_is_read_again(client, run):
    path = run / "predictions.jsonl"
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[0].replace(b'"q0"', b'"q99"')[:-9])
    told = client.post("/api/reload", headers=OWN).json()
    assert told["n_items"] == 12
    assert "half-written" in told["notes"][0]
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[0][-9:] + b"\n")
    told = client.post("/api/reload", headers=OWN).json()
    assert (told["n_items"], told["notes"]) == (13, [])
    path.unlink()
    assert client.post("/api/reload", headers=OWN).status_code == 410
    assert client.get("/api/run").json()["n_items"] == 13
    assert client.post("/api/reload").status_code == 403


# --- sound -----------------------------------------------------------------------------------------------


def test_sound_is_served_whole_and_in_ranges(client):
    key = client.get("/api/items").json()["items"][0]["key"]
    whole = client.get(f"/sound/{key}.wav")
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["accept-ranges"] == "bytes"
    assert len(whole.content) == HEADER_BYTES + 2 * 6 * 16000
    part = client.get(f"/sound/{key}.wav", headers={"range": "bytes=1000-1999"})
    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole.content)}"
    assert part.content == whole.content[1000:2000]
    beyond = client.get(f"/sound/{key}.wav", headers={"range": "bytes=9999999-"})
    assert beyond.status_code == 416
    peaks = client.get(f"/api/peaks/{key}?n=7").json()
    assert len(peaks["peaks"]) == 7
    assert peaks["seconds"] == 6.0
    assert client.get(f"/api/peaks/{key}?n=0").status_code == 400


def test_the_head_of_a_long_clip_decodes_nothing(client, monkeypatch):
    """A player that asks for the length of three hours is told it at once."""
    monkeypatch.setattr("tgsr.pages.view.sound.MAX_SECONDS", 1.0)  # the clips have 6 s
    key = client.get("/api/items").json()["items"][0]["key"]
    whole = client.get(f"/sound/{key}.wav")
    assert whole.headers["content-length"] == str(len(whole.content))
    monkeypatch.setattr("tgsr.pages.view.sound.audio.load", None)
    for wanted in ({}, {"range": "bytes=0-1"}):
        head = client.head(f"/sound/{key}.wav", headers=wanted)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "accept-ranges"):
            assert head.headers[name] == whole.headers[name]


def test_any_rate_and_number_of_channels_becomes_mono_at_16_khz(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(48000 * 2) / 48000) * 0.5
    sf.write(tmp_path / "six.wav", np.stack([tone] * 6, axis=1), 48000)
    write_jsonl(
        tmp_path / "predictions.jsonl", [Response(choice("q", "six.wav", 2.0, evidence=()), "m", "yes")]
    )
    client = client_of(viewer_of(tmp_path))
    key = client.get("/api/items").json()["items"][0]["key"]
    (tmp_path / "got.wav").write_bytes(client.get(f"/sound/{key}.wav").content)
    with wave.open(str(tmp_path / "got.wav")) as got:
        assert (got.getnchannels(), got.getframerate(), got.getnframes()) == (1, 16000, 32000)
    heard, _ = sf.read(tmp_path / "got.wav")
    assert np.argmax(np.abs(np.fft.rfft(heard))) == 880  # 440 Hz over 2 s


def test_a_missing_or_broken_recording_is_said_and_the_rest_works(run):
    (run / "0.wav").unlink()
    (run / "1.wav").write_bytes(b"not audio at all")
    (run / "2.wav").write_bytes((run / "2.wav").read_bytes()[:20000])
    noise(run / "3.wav", 4.0)
    client = client_of(viewer_of(run))
    found = client.get("/api/items").json()["items"]
    told = [client.get(f"/api/item/{item['key']}").json() for item in found[:5]]
    assert [item["sound"]["ok"] for item in told] == [False, False, False, True, True]
    assert "--audio" in told[0]["sound"]["problem"]
    assert "cut off" in told[2]["sound"]["problem"]
    assert "lasts 4.00 s, its row says 6.00 s" in told[3]["sound"]["problem"]
    assert told[0]["responses"][0]["text"]
    for item in told[:3]:
        answer = client.get(f"/sound/{item['key']}.wav")
        assert answer.status_code == 422
        assert answer.json()["problem"] == item["sound"]["problem"]


def test_a_moved_recording_is_found_below_an_audio_root(run, tmp_path):
    moved = tmp_path / "moved" / "deep"
    moved.mkdir(parents=True)
    for path in run.glob("*.wav"):
        path.rename(moved / path.name)
    index = read_index([run], audio_roots=[moved])
    assert file_of(index, index.items[3]) == moved / "3.wav"
    index = read_index([run])
    with pytest.raises(AudioError, match="--audio"):
        file_of(index, index.items[3])


def test_a_row_may_name_a_file_outside_of_the_run_but_a_link_may_not_lead_there(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    noise(other / "a.wav")
    noise(run / "here.wav")
    (run / "link.wav").symlink_to(other / "a.wav")
    (run / "folder").symlink_to(other)
    (run / "inside.wav").symlink_to(run / "here.wav")
    os.mkfifo(run / "pipe.wav")
    names = ["../other/a.wav", str(other / "a.wav"), "inside.wav", "link.wav", "folder/a.wav", "pipe.wav"]
    write_jsonl(run / "predictions.jsonl", [Response(choice(n, n), "m", "yes") for n in names])
    index = read_index([run])
    assert [file_of(index, item).name for item in index.items[:3]] == ["a.wav", "a.wav", "here.wav"]
    for item in index.items[3:5]:
        with pytest.raises(AudioError, match=f"leads out of the run.*--audio {other}"):
            file_of(index, item)
    with pytest.raises(AudioError, match="a pipe"):
        file_of(index, index.items[5])
    index = read_index([run], audio_roots=[other])
    assert {file_of(index, item).name for item in index.items[3:5]} == {"a.wav"}


def test_prediction_files_behind_links_that_leave_the_run_are_left_out(run, tmp_path):
    (tmp_path / "secret.jsonl").write_text("a secret\n")
    (run / "predictions-x.jsonl").symlink_to(tmp_path / "secret.jsonl")
    index = read_index([run])
    assert "leads out of the run" in index.notes[0]
    assert "a secret" not in "".join(index.notes)


def test_three_hours_are_heard_anywhere_in_little_memory(tmp_path):
    """Silence with one second of tone after two hours."""
    rate, hours, at = 2000, 3, 7200
    with sf.SoundFile(tmp_path / "long.flac", "w", rate, 1, subtype="PCM_16") as file:
        for minute in range(hours * 60):
            block = np.zeros(60 * rate, np.int16)
            if minute * 60 == at:
                block[:rate] = 16000 * np.sin(2 * np.pi * 200 * np.arange(rate) / rate)
            file.write(block)
    seconds = hours * 3600.0
    write_jsonl(tmp_path / "predictions.jsonl", [Response(choice("q", "long.flac", seconds), "m", "yes")])
    client = client_of(viewer_of(tmp_path))
    key = client.get("/api/items").json()["items"][0]["key"]
    tracemalloc.start()
    assert client.get(f"/api/item/{key}").json()["sound"] == {
        "ok": True, "problem": None, "seconds": seconds, "long": True,
    }  # fmt: skip
    n_bytes = HEADER_BYTES + 2 * 16000 * hours * 3600
    first = HEADER_BYTES + 2 * 16000 * (at - 1)
    answer = client.get(f"/sound/{key}.wav", headers={"range": f"bytes={first}-{first + 3 * 32000 - 1}"})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {first}-{first + 95999}/{n_bytes}"
    heard = np.frombuffer(answer.content, "<i2").reshape(3, 16000).astype(float)
    loud = np.sqrt((heard**2).mean(axis=1))
    assert loud[1] > 10_000
    assert loud[0] < 500  # the filter rings a little
    assert loud[2] < 500
    start = client.get(f"/sound/{key}.wav", headers={"range": "bytes=0-43"}).content
    assert start == wav_header(16000 * hours * 3600)
    last = client.get(f"/sound/{key}.wav", headers={"range": "bytes=-10"})
    assert last.content == bytes(10)
    assert client.get(f"/sound/{key}.wav", headers={"range": f"bytes={n_bytes}-"}).status_code == 416
    peaks = client.get(f"/api/peaks/{key}?n=180").json()["peaks"]
    assert [i for i, (_, high) in enumerate(peaks) if high > 0.4] == [at // 60]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6  # whole, it would be 691 MB of floats


@pytest.mark.parametrize("rate", [16000, 44100])
def test_blocks_of_a_long_clip_join_without_a_click(tmp_path, rate):
    rng = np.random.default_rng(2)
    sf.write(tmp_path / "a.flac", rng.uniform(-0.3, 0.3, round(95.3 * rate)), rate)
    whole = audio.load(tmp_path / "a.flac")
    sound = BrowserSound(tmp_path / "a.flac", len(whole), None)
    content = b"".join(read_bytes(sound, 0, sound.n_bytes))
    assert len(content) == sound.n_bytes
    got = np.frombuffer(content[HEADER_BYTES:], "<i2") / 32768
    assert np.abs(got - whole).max() < 2 / 32768
    some = b"".join(read_bytes(sound, 20, 2_000_001))
    assert some == content[20:2_000_001]


def test_converted_clips_make_room_for_others(tmp_path):
    sounds = Sounds(most_kept=300_000)
    for name in "abcd":
        noise(tmp_path / f"{name}.wav", 4.0)
    made = [sounds.open(tmp_path / f"{name}.wav") for name in "abcd"]
    assert [sound.wav.exists() for sound in made] == [False, False, True, True]
    assert sounds.open(tmp_path / "d.wav") is made[3]
    noise(tmp_path / "d.wav", 2.0)  # another recording under its name
    assert sounds.open(tmp_path / "d.wav").seconds == 2.0
    sounds.close()
    assert not sounds.folder.exists()


# --- asking ----------------------------------------------------------------------------------------------


class Parrot:
    """Answers when it may; what it was asked is kept."""

    name, max_seconds, at_once = "parrot", 600.0, 1

    def __init__(self):
        self.may_answer, self.asked = threading.Event(), []

    def phrase_question(self, phrase):
        return f"Where is {phrase}?"

    def respond(self, clips, asked, decoding):
        self.may_answer.wait(20)
        self.asked += [(len(clips[0]), one.text) for one in asked]
        texts = ["From 1.0s to 2.0s it says so." for _ in asked]
        return [Cut(text) if "long" in one.text else text for one, text in zip(asked, texts, strict=True)]

    def spent(self):
        return ""


@pytest.fixture
def parrot(viewer):
    model = Parrot()

    def open_model(name):
        if name == "broken":
            raise ModelError("broken: cannot be had; get another")
        return model

    viewer.asker = Asker(["parrot", "broken"], open_model, viewer.sounds)
    yield model
    model.may_answer.set()


def events_of(client, id_: str) -> list[tuple[str, dict]]:
    text = client.get(f"/api/ask/{id_}/events").text
    parts = [part.split("\n") for part in text.split("\n\n") if part.startswith("event")]
    return [(name.removeprefix("event: "), json.loads(told.removeprefix("data: "))) for name, told in parts]


def test_a_question_about_an_upload_is_answered(client, parrot, run):
    parrot.may_answer.set()
    asked = {"question": "What is said?", "choice": ["yes", "no"], "model": "parrot"}
    assert client.get("/api/run").json()["ask"]["models"] == ["parrot", "broken"]
    answer = client.post("/api/ask", params=asked, content=(run / "0.wav").read_bytes(), headers=OWN)
    assert answer.status_code == 202
    id_ = answer.json()["id"]
    told = events_of(client, id_)
    assert [name for name, _ in told] == ["queued", "heard", "done"]
    assert told[0][1] == {"place": 0}
    assert told[1][1] == {"seconds": 6.0}
    done = told[2][1]
    assert done["text"] == "From 1.0s to 2.0s it says so."
    assert done["truncated"] is False
    assert done["spans"] == [[1.0, 2.0]]
    assert done["evidence"] == [[0.5, 2.5]]
    assert done["mentions"][0]["text_start"] == 5
    assert parrot.asked[0][0] == 6 * 16000
    assert "(a) yes" in parrot.asked[0][1]
    assert len(client.get(f"/api/ask/{id_}/sound.wav").content) == HEADER_BYTES + 2 * 6 * 16000
    assert len(client.get(f"/api/ask/{id_}/peaks?n=5").json()["peaks"]) == 5
    assert [name for name, _ in events_of(client, id_)] == [
        "queued",
        "heard",
        "done",
    ]  # told again from the first


def test_an_answer_that_was_cut_says_so(client, parrot, run):
    parrot.may_answer.set()
    sound = (run / "0.wav").read_bytes()
    id_ = client.post("/api/ask?question=A long one", content=sound, headers=OWN).json()["id"]
    assert events_of(client, id_)[-1][1]["truncated"] is True


def test_an_item_can_be_asked_about_without_an_upload(client, parrot):
    parrot.may_answer.set()
    key = client.get("/api/items").json()["items"][0]["key"]
    id_ = client.post("/api/ask", params={"question": "it", "phrase": "1", "key": key}, headers=OWN).json()[
        "id"
    ]
    assert events_of(client, id_)[-1][0] == "done"
    assert parrot.asked[0][1] == "Where is it?"
    assert client.post("/api/ask", params={"question": "it", "key": "x"}, headers=OWN).status_code == 404


def test_the_queue_is_limited_and_waiting_questions_can_be_cancelled(client, viewer, parrot):
    key = client.get("/api/items").json()["items"][0]["key"]
    asked = {"question": "What?", "key": key}
    ids = [
        client.post("/api/ask", params=asked, headers=OWN).json()["id"] for _ in range(asking.MOST_WAITING)
    ]
    full = client.post("/api/ask", params=asked, headers=OWN)
    assert full.status_code == 429
    assert "try again" in full.json()["problem"]
    with pytest.raises(Busy):
        viewer.asker.require_room()
    assert client.delete(f"/api/ask/{ids[3]}", headers=OWN).json() == {"cancelled": True}
    assert client.delete(f"/api/ask/{ids[4]}").status_code == 403
    assert events_of(client, ids[3]) == [("queued", {"place": 3}), ("cancelled", {})]
    assert viewer.asker.job(ids[4]).events[-1] == ("queued", {"place": 3})
    client.delete(f"/api/ask/{ids[0]}", headers=OWN)  # under way
    parrot.may_answer.set()
    assert events_of(client, ids[0])[-1] == ("cancelled", {})
    assert [events_of(client, id_)[-1][0] for id_ in (*ids[1:3], *ids[4:])] == ["done"] * 6
    assert len(parrot.asked) == 7


def test_what_cannot_be_asked_is_said(client, viewer, parrot, run):
    parrot.may_answer.set()
    sound = (run / "0.wav").read_bytes()

    def post(content=sound, **asked):
        return client.post("/api/ask", params=asked, content=content, headers=OWN)

    assert post(question=" ").status_code == 400
    assert post(question="a", choice=["one"]).status_code == 400
    assert post(question="a", phrase="1", choice=["one", "two"]).status_code == 400
    assert "start `tgsr view`" in post(question="a", model="other").json()["problem"]
    assert post(question="a" * 5000).status_code == 422
    assert post(b"", question="a").status_code == 400
    viewer.asker.most_bytes = 1000
    assert post(question="a").status_code == 413
    viewer.asker.most_bytes = asking.MOST_BYTES
    failed = events_of(client, post(question="a", model="broken").json()["id"])[-1]
    assert failed == ("failed", {"problem": "broken: cannot be had; get another"})
    failed = events_of(client, post(b"no sound", question="a").json()["id"])[-1]
    assert failed[0] == "failed"
    assert failed[1]["problem"].startswith("the recording: not audio")
    viewer.asker.most_seconds = 3.0
    assert "longer than the 3 s" in events_of(client, post(question="a").json()["id"])[-1][1]["problem"]
    viewer.asker.close()
    viewer.asker._worker.shutdown(wait=True)  # the last question's end was told before its upload went
    assert len(uploads(viewer)) == 1  # of what was heard, though no model was had
    assert parrot.asked == []
    assert client.get("/api/ask/nobody/events").status_code == 404


def uploads(viewer) -> list[str]:
    return [path.name for path in viewer.sounds.folder.glob("upload-*")]


def test_the_upload_of_a_refused_question_is_not_kept(client, viewer, parrot, run):
    sound = (run / "0.wav").read_bytes()
    for asked, status in (
        ({"question": "a", "model": "other"}, 422),
        ({"question": "a" * 5000}, 422),
        ({"question": " "}, 400),
    ):
        assert client.post("/api/ask", params=asked, content=sound, headers=OWN).status_code == status
        assert uploads(viewer) == []
    assert client.post("/api/ask?question=a", content=b"", headers=OWN).status_code == 400
    viewer.asker.most_bytes = 1000
    assert client.post("/api/ask?question=a", content=sound, headers=OWN).status_code == 413
    assert uploads(viewer) == []


def test_an_upload_counts_as_a_question_while_it_arrives(client, viewer, parrot, run):
    sound = (run / "0.wav").read_bytes()
    with contextlib.ExitStack() as stack:
        arriving = [stack.enter_context(viewer.asker.arriving()) for _ in range(asking.MOST_WAITING)]
        for path in arriving:
            path.write_bytes(b"half")
        assert client.post("/api/ask?question=a", content=sound, headers=OWN).status_code == 429
        key = client.get("/api/items").json()["items"][0]["key"]
        asked = {"question": "What?", "key": key}
        assert client.post("/api/ask", params=asked, headers=OWN).status_code == 429
        assert len(uploads(viewer)) == asking.MOST_WAITING
    assert uploads(viewer) == []  # none became a question
    assert client.post("/api/ask?question=a", content=sound, headers=OWN).status_code == 202
    assert len(uploads(viewer)) == 1


def test_a_caller_who_goes_away_in_the_middle_leaves_no_upload(viewer, parrot):
    messages = [{"type": "http.request", "body": b"RIFF", "more_body": True}, {"type": "http.disconnect"}]
    told = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        told.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/api/ask", "raw_path": b"/api/ask", "query_string": b"question=a",
        "headers": [(b"host", HERE.removeprefix("http://").encode()), (b"origin", HERE.encode())], "scheme": "http",
        "root_path": "", "http_version": "1.1", "server": ("127.0.0.1", 8731),
    }  # fmt: skip
    anyio.run(app(routes(viewer), guard_for("127.0.0.1", 8731)), scope, receive, send)
    assert told[0]["status"] == 400
    assert uploads(viewer) == []
    viewer.asker.require_room()


def test_a_server_without_a_model_says_so(client):
    answer = client.post("/api/ask?question=a", content=b"x", headers=OWN)
    assert answer.status_code == 404
    assert "--model" in answer.json()["problem"]


def test_what_a_browser_records_is_heard(client, parrot, tmp_path):
    """A webm recording as MediaRecorder writes it into a stream: opus, no length in the header."""
    av = pytest.importorskip("av")
    path = tmp_path / "recorded.webm"
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as out:
        stream = out.add_stream("libopus", rate=48000, layout="mono")
        for i in range(100):
            samples = (8000 * np.sin(np.arange(i * 960, (i + 1) * 960) * 0.05)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.rate, frame.pts = 48000, i * 960
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    parrot.may_answer.set()
    answer = client.post("/api/ask?question=a", content=path.read_bytes(), headers=OWN)
    told = dict(events_of(client, answer.json()["id"]))
    assert "done" in told
    assert told["heard"]["seconds"] == pytest.approx(2.0, abs=0.05)


def test_the_kind_of_an_upload_is_told_by_its_content():
    assert suffix_of(b"\x1a\x45\xdf\xa3" + bytes(12)) == ".webm"
    assert suffix_of(b"\0\0\0\x20ftypM4A ") == ".mp4"
    assert suffix_of(b"RIFF\0\0\0\0AVI LIST") == ".avi"
    assert suffix_of(b"RIFF\0\0\0\0WAVEfmt ") == ".wav"
    assert suffix_of(b"\xff\xf1\x50\x80") == ".aac"
    assert suffix_of(b"\xff\xfb\x90\x00") == ".wav"  # an mp3, which libsndfile reads
    assert suffix_of(b"") == ".wav"


def test_a_models_text_comes_as_it_is_written_and_stops_when_cancelled(client, viewer, encoder, monkeypatch):
    lalm = load("mini:tgsr")
    viewer.asker = Asker(["mini:tgsr"], lambda name: lalm, viewer.sounds)
    key = client.get("/api/items").json()["items"][0]["key"]
    asked = {"question": "Which digit is said first?", "choice": ["one", "two"], "key": key}
    id_ = client.post("/api/ask", params=asked, headers=OWN).json()["id"]
    told = events_of(client, id_)
    pieces = [what["piece"] for name, what in told if name == "text"]
    done = told[-1][1]
    assert told[-1][0] == "done"
    assert len(pieces) > 5
    assert "".join(pieces) == done["text"]
    spans = [what["spans"] for name, what in told if name == "spans"]
    assert (spans[-1] if spans else []) == done["spans"]

    job = None
    tell = asking.PendingQuestion.tell

    def tell_and_cancel(self, name, **what):
        tell(self, name, **what)
        if name == "text":
            self.cancel()

    monkeypatch.setattr(asking.PendingQuestion, "tell", tell_and_cancel)
    job = client.post("/api/ask", params=asked, headers=OWN).json()["id"]
    names = [name for name, _ in events_of(client, job)]
    assert names.count("text") == 1
    assert names[-1] == "cancelled"
    assert not lalm.lm_head._forward_hooks


def test_no_text_is_streamed_from_logits_that_are_not_finite(client, viewer):
    lalm = tiny_lalm()
    with torch.no_grad():
        lalm.lm_head.weight[3] = float("nan")
    viewer.asker = Asker(["tiny"], lambda name: lalm, viewer.sounds)
    key = client.get("/api/items").json()["items"][0]["key"]
    asked = {"question": "Who?", "key": key}
    told = events_of(client, client.post("/api/ask", params=asked, headers=OWN).json()["id"])
    assert told[-1][0] == "failed"
    assert "not finite" in told[-1][1]["problem"]
    assert "text" not in dict(told)


# --- the exported folder ---------------------------------------------------------------------------------


def test_the_exported_folder_holds_all_that_the_page_asks_for(run, tmp_path):
    (run / "0.wav").unlink()
    out = tmp_path / "site"
    index = read_index([run])
    assert export(index, out) == (11, 1)
    assert '<meta name="tgsr-static" content="1">' in (out / "index.html").read_text()
    assert "CSP-NONCE" not in (out / "index.html").read_text()
    assert (out / "static" / "app.js").is_file()
    assert json.loads((out / "api/run.json").read_text())["ask"] is None
    items = json.loads((out / "api/items.json").read_text())["items"]
    assert len(items) == 12
    assert items[1]["wrong"] == {"sharp": False, "blunt": True}
    assert items[1]["disagree"] is True
    assert "what is said in 1?" in items[1]["search"]
    for item in items:
        told = json.loads((out / f"api/item/{item['key']}.json").read_text())
        if told["id"] == "q0":
            assert told["sound"]["ok"] is False
            assert str(tmp_path) not in json.dumps(told)
            continue
        assert (out / told["sound"]["file"]).stat().st_size == HEADER_BYTES + 2 * 6 * 16000
        assert len(json.loads((out / f"api/peaks/{item['key']}.json").read_text())["peaks"]) == 1200
    assert export(index, out) == (11, 1)  # again, over itself


def test_an_exported_folder_does_not_say_where_files_lay(tmp_path):
    run, outside = tmp_path / "my run", tmp_path / "not yours"
    for folder in (run, outside):
        folder.mkdir()
    noise(outside / "real.wav")
    (run / "link.wav").symlink_to(outside / "real.wav")
    rows = [Response(choice(name, name), "m", "yes") for name in ("link.wav", str(outside / "gone.wav"))]
    write_jsonl(run / "predictions.jsonl", rows)
    with (run / "predictions.jsonl").open("a") as file:
        file.write("{}\n")
    (run / "predictions-2.jsonl").symlink_to(outside / "predictions.jsonl")
    write_jsonl(outside / "predictions.jsonl", rows)
    export(read_index([run]), tmp_path / "site")
    site = tmp_path / "site" / "api"
    row = json.loads((site / "run.json").read_text())
    items = [json.loads(path.read_text()) for path in (site / "item").iterdir()]
    problems = {item["sound"]["problem"] for item in items}
    link = "link.wav: is a link that leads out of the run, to real.wav; pass --audio not yours"
    assert problems == {
        link,
        "gone.wav: no such file; if it was moved, pass --audio FOLDER, where it now lies",
    }
    assert any(note.startswith("predictions.jsonl:3: left out: ") for note in row["notes"])
    assert str(tmp_path) not in json.dumps([row["notes"], *problems])


def test_one_clip_of_many_questions_is_exported_once(tmp_path):
    noise(tmp_path / "a.wav")
    write_jsonl(tmp_path / "predictions.jsonl", [Response(choice(f"q{i}"), "m", "yes") for i in range(5)])
    assert export(read_index([tmp_path]), tmp_path / "site") == (5, 0)
    assert len(list((tmp_path / "site" / "sound").iterdir())) == 1
    assert len(list((tmp_path / "site" / "api" / "peaks").iterdir())) == 5


def test_an_export_goes_over_nothing_else(run, tmp_path):
    index = read_index([run])
    with pytest.raises(ViewError, match="new folder"):
        export(index, run)
    with pytest.raises(ViewError, match="is a file"):
        export(index, run / "0.wav")
    assert (run / "predictions.jsonl").is_file()


# --- commands --------------------------------------------------------------------------------------------


def test_the_command_says_what_is_wrong(run, tmp_path, capsys, monkeypatch):
    assert main(["view", str(tmp_path / "nowhere"), "--port", "0"]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["view", str(run), "--port", "99999"]) == 2
    assert "--port 99999" in capsys.readouterr().err
    assert main(["view", str(run), "--export", str(tmp_path / "site")]) == 0
    assert "12 items with sound" in capsys.readouterr().out
    monkeypatch.setattr("tgsr.commands.pages.find_spec", lambda name: None)
    assert main(["view", str(run)]) == 2
    assert "the extra 'view' of tgsr: pip install -e " in capsys.readouterr().err
    assert main(["study", "serve", str(run)]) == 2
    assert "the extra 'view' of tgsr: pip install -e " in capsys.readouterr().err


def test_a_study_keeps_its_token_and_takes_a_consent_of_its_own(run, tmp_path):
    make_study([run / "predictions.jsonl"], tmp_path / "study", n_items=4, seed=1)
    token = kept_token(tmp_path / "study")
    assert len(token) >= 32
    assert kept_token(tmp_path / "study") == token
    assert (tmp_path / "study" / "server-token.txt").stat().st_mode & 0o077 == 0
    (tmp_path / "study" / "server-token.txt").write_text("short")
    with pytest.raises(StudyError, match="delete it"):
        kept_token(tmp_path / "study")
    (tmp_path / "consent.txt").write_text(" I agree. \n")
    assert consent_of(tmp_path / "consent.txt") == "I agree."
    assert "listen" in consent_of(None)
    (tmp_path / "consent.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="UTF-8"):
        consent_of(tmp_path / "consent.txt")
    (tmp_path / "consent.txt").write_text("  ")
    with pytest.raises(StudyError, match="0 characters"):
        consent_of(tmp_path / "consent.txt")


def test_a_benchmarks_own_file_is_looked_at_as_it_is(tmp_path):
    rows = [
        {"id": f"r{n}", "audio_id": f"./audio/r{n}.wav", "question": "Who?", "choices": ["Man", "Woman"]}
        | {"answer": "Woman", "task": "speech", **output}
        for n, output in enumerate([{"model_output": "Woman"}, {"model_output": "(a) Man"}, {}])
    ]
    path = tmp_path / "mmau.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    index = read_index([path])
    assert [item.question.id for item in index.items] == ["r0", "r1"]
    assert index.models == ("mmau",)
    assert index.notes == (f"{path}:3: left out: is missing: no prediction",)
