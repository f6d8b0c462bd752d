"""The study's calls, as a browser makes them."""

import json
import sqlite3

import pytest

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

import anyio
from starlette.applications import Starlette
from starlette.testclient import TestClient

from studies import predictions
from tgsr.pages.guard import guard_for
from tgsr.pages.study.app import Running, routes
from tgsr.pages.study.design import make_study, trials_for
from tgsr.pages.study.store import MEASURES, RATINGS, Store
from tgsr.pages.view.server import app


@pytest.fixture
def running(tmp_path):
    study = make_study([predictions(tmp_path)], tmp_path / "study", n_items=4, seed=1)
    return Running(study, tmp_path / "study", Store.open(tmp_path / "study" / RATINGS, study.id))


@pytest.fixture
def client(running):
    return TestClient(Starlette(routes=routes(running)))


def joined(client) -> str:
    return client.post("/study/api/join", json={"agreed": True}).json()["link"].rsplit("/", 1)[1]


def give(client, token, trial, measure, value, **more):
    body = {"trial": trial, "measure": measure, "value": value, **more}
    return client.post(f"/study/api/{token}/answer", json=body)


def test_a_rater_goes_through_the_whole_study(client, running):
    assert client.get("/study").status_code == 200
    assert "You will listen" in client.get("/study/api/consent").json()["consent"]
    token = joined(client)
    assert client.get(f"/study/r/{token}").status_code == 200
    seen = []
    while not (state := client.get(f"/study/api/{token}").json())["done"]:
        trial = state["trial"]
        seen.append(trial["id"])
        for name in (trial["audio"], *trial["stretches"]):
            heard = client.get(f"/study/media/{token}/{name}")
            assert heard.headers["content-type"] == "audio/wav"
            assert heard.content[:4] == b"RIFF"
        for measure, value in zip(MEASURES, (1, 4, 5), strict=True):
            assert give(client, token, trial["id"], measure, value, seconds=2.5, plays=3).json()["kept"]
    assert seen == [trial.id for trial in trials_for(running.study, 0)]
    answers = running.store.answers()
    assert len(answers) == 3 * len(seen)
    assert {(answer.seconds, answer.plays) for answer in answers} == {(2.5, 3)}


def test_nothing_that_is_sent_tells_the_system_or_the_right_stretch(client, running):
    token = joined(client)
    state = client.get(f"/study/api/{token}")
    for trial in trials_for(running.study, 0):
        for measure in MEASURES:
            give(client, token, trial.id, measure, 1)
        if not (state := client.get(f"/study/api/{token}")).json()["done"]:
            shown = state.json()["trial"]
            assert set(shown) == {
                "id",
                "practice",
                "question",
                "choices",
                "response",
                "audio",
                "stretches",
                "answers",
            }
            assert not any(word in state.text for word in ("sharp", "blunt", '"evidence"', "check-"))


def test_practice_tells_and_the_rest_does_not(client, running):
    token = joined(client)
    practice, rated = running.study.practice[0], trials_for(running.study, 0)[2]
    right = give(client, token, practice.id, "referent", practice.right).json()["feedback"]
    wrong = give(client, token, practice.id, "referent", (practice.right + 1) % 3).json()["feedback"]
    assert right.startswith("That is it.")
    assert wrong.startswith("Not that one.")
    assert client.get(f"/study/api/{token}").json()["trial"]["feedback"].startswith("Not that one.")
    assert "feedback" not in give(client, token, rated.id, "referent", rated.right).json()


def test_a_rater_who_comes_back_goes_on_in_the_middle_of_a_part(client):
    token = joined(client)
    first = client.get(f"/study/api/{token}").json()["trial"]
    give(client, token, first["id"], "referent", 2)
    again = client.get(f"/study/api/{token}").json()["trial"]
    assert again["id"] == first["id"]
    assert again["answers"] == {"referent": 2}


def test_the_choice_of_a_stretch_is_final_once_the_sound_was_played(client, running):
    token = joined(client)
    trial = trials_for(running.study, 0)[0]
    for name in trial.stretches:
        client.get(f"/study/media/{token}/{name}")
    assert give(client, token, trial.id, "referent", 0).status_code == 200
    assert give(client, token, trial.id, "referent", 1).status_code == 200  # not played yet
    assert "locked" not in client.get(f"/study/api/{token}").json()["trial"]
    client.get(f"/study/media/{token}/{trial.audio}")
    refused = give(client, token, trial.id, "referent", 2)
    assert refused.status_code == 423
    assert "final" in refused.text
    again = TestClient(Starlette(routes=routes(Running(running.study, running.folder, running.store))))
    assert give(again, token, trial.id, "referent", 2).status_code == 423  # the server was started anew
    assert again.get(f"/study/api/{token}").json()["trial"]["locked"] is True
    assert give(client, token, trial.id, "helpful", 4).status_code == 200
    assert [(a.measure, a.value) for a in running.store.answers()] == [("referent", 1), ("helpful", 4)]


def test_a_stretch_is_chosen_once_where_the_sound_came_first(client, running):
    token = joined(client)
    trial = trials_for(running.study, 0)[0]
    client.get(f"/study/media/{token}/{trial.audio}")
    assert give(client, token, trial.id, "referent", 0).status_code == 200
    assert give(client, token, trial.id, "referent", 1).status_code == 423


def test_the_sound_of_one_rater_locks_nobody_elses_choice(client, running):
    one, other = joined(client), joined(client)
    trials = trials_for(running.study, 1)
    client.get(f"/study/media/{one}/{trials_for(running.study, 0)[0].audio}")
    for value in (0, 1):
        assert give(client, other, trials[0].id, "referent", value).status_code == 200


def test_two_tabs_of_one_rater_are_told(client, running):
    token, nobody = joined(client), joined(client)
    trial = trials_for(running.study, 0)[0].id
    assert client.get(f"/study/api/{token}?tab=first&take=1").status_code == 200
    assert give(client, token, trial, "referent", 0, tab="first").status_code == 200
    assert client.get(f"/study/api/{token}?tab=second&take=1").status_code == 200
    for told in (
        give(client, token, trial, "referent", 1, tab="first"),
        client.get(f"/study/api/{token}?tab=first"),
    ):
        assert told.status_code == 409
        assert "another tab" in told.text
    assert give(client, token, trial, "referent", 2, tab="second").status_code == 200
    assert client.get(f"/study/api/{token}?tab=second").json()["trial"]["answers"] == {"referent": 2}
    assert client.get(f"/study/api/{token}?tab=first&take=1").status_code == 200  # "Go on here instead"
    assert give(client, token, trial, "referent", 1, tab="second").status_code == 409
    assert client.get(f"/study/api/{nobody}?tab=first").status_code == 200  # another rater's tab


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"trial": "x", "measure": "helpful", "value": 3}, 400),
        ({"measure": "beauty", "value": 3}, 400),
        ({"measure": "helpful", "value": 6}, 400),
        ({"measure": "helpful", "value": 0}, 400),
        ({"measure": "referent", "value": 3}, 400),
        ({"measure": "helpful", "value": True}, 400),
        ({"measure": "helpful", "value": 2.5}, 400),
        ({"measure": "helpful", "value": "3"}, 400),
    ],
)
def test_answers_that_cannot_be_are_refused(client, running, body, status):
    token = joined(client)
    trial = trials_for(running.study, 0)[0].id
    assert client.post(f"/study/api/{token}/answer", json={"trial": trial, **body}).status_code == status
    assert running.store.answers() == []


def test_another_raters_trials_and_strangers_are_refused(client, running):
    token = joined(client)
    mine = {trial.id for trial in trials_for(running.study, 0)}
    other = next(t for of in running.study.trials.values() for t in of if t.id not in mine)
    assert give(client, token, other.id, "helpful", 3).status_code == 400
    assert client.get("/study/api/nobody").status_code == 404
    assert client.get(f"/study/media/nobody/{other.audio}").status_code == 404
    assert client.post("/study/api/join", json={"agreed": False}).status_code == 400
    assert running.store.n_raters() == 1


@pytest.mark.parametrize(
    "name",
    ["..%2Fstudy.json", "../study.json", "%2e%2e%2fstudy.json", "..%5cstudy.json", "study.json", "x.wav"],
)
def test_only_the_raters_own_sounds_are_served(client, name):
    assert client.get(f"/study/media/{joined(client)}/{name}").status_code == 404
    assert client.get(f"/study/static/{name}").status_code == 404


def test_bodies_that_are_no_answers(client):
    token = joined(client)
    url = f"/study/api/{token}/answer"
    assert (
        client.post(url, content=b"{" * 5000, headers={"content-type": "application/json"}).status_code == 413
    )
    assert (
        client.post(url, content=b"[" * 4000, headers={"content-type": "application/json"}).status_code == 400
    )
    assert client.post(url, content=b"[1]", headers={"content-type": "application/json"}).status_code == 400
    assert client.post(url, data={"value": "3"}).status_code == 415


def test_a_rater_who_goes_away_in_the_middle_of_an_answer_is_no_fault(client, running):
    """Or a phone that loses its network would write a traceback for each choice."""
    gone = {"type": "http.disconnect"}
    told = []

    async def send(message):
        told.append(message)

    async def receive():
        return gone

    path = f"/study/api/{joined(client)}/answer"
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8732"), (b"origin", b"http://127.0.0.1:8732")], "scheme": "http",
        "root_path": "", "http_version": "1.1", "server": ("127.0.0.1", 8732),
    }  # fmt: skip
    anyio.run(app(routes(running), guard_for("127.0.0.1", 8732)), scope, receive, send)
    assert told[0]["status"] == 400
    assert running.store.answers() == []


def test_strange_times_and_plays_are_left_out_and_the_rating_kept(client, running):
    token = joined(client)
    trial = trials_for(running.study, 0)[0].id
    for seconds, plays in ((-1, -1), ("long", "many"), (True, True), (1e400, 10**9), (10**400, None)):
        raw = {"trial": trial, "measure": "helpful", "value": 3, "seconds": seconds, "plays": plays}
        answer = client.post(
            f"/study/api/{token}/answer",
            content=json.dumps(raw),
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 200
    (kept,) = running.store.answers()
    assert (kept.seconds, kept.plays, kept.changes) == (None, None, 4)


def test_a_sound_that_is_gone_and_a_full_disk_are_said(client, running, monkeypatch):
    token = joined(client)
    trial = trials_for(running.study, 0)[0]
    (running.folder / "media" / trial.audio).unlink()
    gone = client.get(f"/study/media/{token}/{trial.audio}")
    assert gone.status_code == 410
    assert "gone" in gone.text

    def full(self, *args):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "add", full)
    answer = give(client, token, trial.id, "helpful", 3)
    assert answer.status_code == 507
    assert "could not keep this (database or disk is full)" in answer.json()["problem"]
