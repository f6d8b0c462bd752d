"""Recordings on the page: sent, heard, kept, downloaded, deleted. No test hears, but the one of progress."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

from starlette.testclient import TestClient

from test_cascade import keep, require, said
from tgsr import audio
from tgsr.answering.cascade import forget, load_cascade
from tgsr.cli import main
from tgsr.data.alignments.reading import read_alignment
from tgsr.pages.guard import guard_for
from tgsr.pages.view.ask import Asker
from tgsr.pages.view.index import no_runs
from tgsr.pages.view.recordings import OFFERED, Recording, Shelf, plain_name
from tgsr.pages.view.server import Viewer, app, routes
from tgsr.pages.view.sound import Sounds

HERE = "http://127.0.0.1:8731"
OWN = {"origin": HERE}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Noise, of which a transcript is kept."""
    path = tmp_path / "meeting.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 30), 16000)
    keep(tmp_path / "cache", audio.load(path), said())
    return path


def viewer_of(cache: Path, *given: Path) -> Viewer:
    sounds = Sounds()
    asker = Asker(["cascade"], lambda name: load_cascade(name, cache=cache), sounds)
    return Viewer(no_runs(), no_runs, sounds, asker, Shelf.of(asker, "cascade", cache, given))


@pytest.fixture
def viewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Viewer]:
    require("all-minilm-l6-v2")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = viewer_of(tmp_path / "cache")
    yield made
    made.close()


@pytest.fixture
def client(viewer: Viewer) -> TestClient:
    return client_of(viewer)


def client_of(viewer: Viewer) -> TestClient:
    return TestClient(app(routes(viewer), guard_for("127.0.0.1", 8731)), base_url=HERE)


def send(client: TestClient, content: bytes, name: str = "meeting.wav") -> str:
    answer = client.post("/api/recordings", params={"name": name}, content=content, headers=OWN)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["key"])


def told(client: TestClient, address: str) -> list[tuple[str, dict]]:
    lines = client.get(f"{address}/events").text.splitlines()
    pairs = zip(lines[::3], lines[1::3], strict=False)
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def heard(client: TestClient, key: str) -> dict:
    assert told(client, f"/api/recordings/{key}")[-1] == ("done", {})
    return dict(client.get(f"/api/recordings/{key}").json())


def test_what_is_sent_is_heard_outlined_and_asked_about(client: TestClient, sound: Path) -> None:
    key = send(client, sound.read_bytes())
    names = [name for name, _ in told(client, f"/api/recordings/{key}")]
    assert names == ["queued", "opening", "sound", "hearing", "outlining", "done"]
    row = heard(client, key)
    assert (row["name"], row["kept"], row["seconds"]) == ("meeting.wav", True, 30.0)
    assert [word for word, *_ in row["words"]] == said().text.split()
    assert [parted for *_, parted in row["words"]] == [False] + [True] * (len(row["words"]) - 1)
    assert row["outline"][0]["text"] in said().text
    assert client.get(f"/api/recordings/{key}/sound.wav", headers={"range": "bytes=0-3"}).content == b"RIFF"
    assert len(client.get(f"/api/recordings/{key}/peaks", params={"n": 10}).json()["peaks"]) == 10

    asked = {"recording": key, "question": "When was the budget cut?", "model": "cascade"}
    id_ = client.post("/api/ask", params=asked, headers=OWN).json()["id"]
    name, answer = told(client, f"/api/ask/{id_}")[-1]
    assert name == "done", answer
    assert "The budget was cut" in answer["text"]
    assert answer["spans"][0][0] == 4.0
    located = {"recording": key, "question": "lunch is at noon", "phrase": "1"}
    id_ = client.post("/api/ask", params=located, headers=OWN).json()["id"]
    assert len(told(client, f"/api/ask/{id_}")[-1][1]["spans"]) == 1


@pytest.mark.parametrize("to", OFFERED)
def test_words_are_those_of_transcribe(client: TestClient, sound: Path, tmp_path: Path, to: str) -> None:
    key = send(client, sound.read_bytes(), "Grüße, an\tAlle.wav")
    heard(client, key)
    answer = client.get(f"/api/recordings/{key}/words/{to}")
    suffix = "TextGrid" if to == "textgrid" else to
    assert (
        answer.headers["content-disposition"]
        == f"attachment; filename*=UTF-8''Gr%C3%BC%C3%9Fe%2C%20anAlle.{suffix}"
    )
    path = tmp_path / f"words.{suffix}"
    path.write_bytes(answer.content)
    if to == "txt":
        assert answer.text.splitlines()[1] == "The budget was cut by ten percent in March."
    else:
        (read,) = read_alignment(path).values()
        assert " ".join(word.text for word in read.words) == said().text
    assert client.get(f"/api/recordings/{key}/words/exe").status_code == 404


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"this is no sound" * 100, "audio"), (b"RIFF\x10\x00\x00\x00WAVE", "the recording")],
)
def test_what_is_no_sound_is_said_without_our_path(
    client: TestClient, viewer: Viewer, content: bytes, problem: str
) -> None:
    key = send(client, content, "../../notes.txt")
    name, what = told(client, f"/api/recordings/{key}")[-1]
    assert name == "failed"
    assert problem in what["problem"]
    assert viewer.shelf is not None
    assert str(viewer.shelf.folder) not in what["problem"]
    assert client.get("/api/recordings").json()["recordings"] == []  # it is not kept
    assert client.post(f"/api/recordings/{key}", headers=OWN).status_code == 202
    assert told(client, f"/api/recordings/{key}")[-1] == (name, what)  # and who asks late is told why
    assert not list(viewer.shelf.folder.glob("*"))


def test_nobody_else_on_the_machine_reads_what_is_sent(
    client: TestClient, viewer: Viewer, sound: Path
) -> None:
    post = client.post("/api/recordings", params={"name": "a.wav"}, content=sound.read_bytes(), headers=OWN)
    assert post.status_code == 202
    assert viewer.shelf is not None
    assert stat.S_IMODE(viewer.shelf.folder.stat().st_mode) == 0o700


def test_too_large_empty_and_too_many_are_refused(client: TestClient, viewer: Viewer, sound: Path) -> None:
    assert viewer.shelf is not None
    assert viewer.asker is not None
    viewer.shelf.most_bytes = 2**20 // 2
    answer = client.post("/api/recordings", content=sound.read_bytes(), headers=OWN)
    assert (answer.status_code, answer.json()["problem"]) == (413, "the recording is larger than 0 MB")
    answer = client.post("/api/recordings", content=b"", headers=OWN)
    assert (answer.status_code, answer.json()["problem"]) == (400, "the recording is empty (0 bytes)")
    viewer.shelf.most_bytes = 2**30
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(viewer.asker.arriving())
        assert client.post("/api/recordings", content=b"x", headers=OWN).status_code == 429
    assert not list(viewer.shelf.folder.glob("*"))


def test_other_sites_and_made_up_keys_get_nothing(client: TestClient, sound: Path) -> None:
    key = send(client, sound.read_bytes())
    assert (
        client.post("/api/recordings", content=b"x", headers={"origin": "http://evil.example"}).status_code
        == 403
    )
    assert (
        client.delete(f"/api/recordings/{key}", headers={"origin": "http://evil.example"}).status_code == 403
    )
    for made_up in ("x", "..", "%2e%2e%2fsecret", "0" * 32):
        for address in (f"/api/recordings/{made_up}", f"/api/recordings/{made_up}/words/srt"):
            assert client.get(address).status_code == 404, address
        assert client.delete(f"/api/recordings/{made_up}", headers=OWN).status_code in (404, 405)
    asked = {"recording": "../../x", "question": "What?"}
    assert client.post("/api/ask", params=asked, headers=OWN).status_code == 404


def test_it_is_kept_over_a_restart_and_deleted_with_all_that_was_heard(
    client: TestClient, viewer: Viewer, sound: Path, tmp_path: Path
) -> None:
    key = send(client, sound.read_bytes(), "first.wav")
    heard(client, key)
    assert send(client, sound.read_bytes(), "second.wav") == key  # the same sound is kept once
    cache = tmp_path / "cache"
    again = viewer_of(cache)
    with contextlib.closing(again):
        other = client_of(again)
        assert other.get("/api/recordings").json()["recordings"] == [
            {"key": key, "name": "first.wav", "kept": True, "state": "new"}
        ]
        assert other.get(f"/api/recordings/{key}").status_code == 409  # not heard yet
        assert (
            other.delete(f"/api/recordings/{key}", headers=OWN).status_code == 200
        )  # though it was not opened
        assert other.get("/api/recordings").json()["recordings"] == []
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_name_that_is_not_utf_8_is_shown_with_escapes(viewer: Viewer, sound: Path, tmp_path: Path) -> None:
    odd = sound.rename(sound.with_name(os.fsdecode(b"caf\xe9.wav")))
    with contextlib.closing(viewer_of(tmp_path / "cache", odd)) as mine:
        client = client_of(mine)
        (row,) = client.get("/api/recordings").json()["recordings"]
        assert row["name"] == "caf\\udce9.wav"
        assert client.post(f"/api/recordings/{row['key']}", headers=OWN).status_code == 202
        heard(client, row["key"])
        assert client.get(f"/api/recordings/{row['key']}/words/srt").status_code == 200


def test_the_users_own_file_is_heard_and_stays(viewer: Viewer, sound: Path, tmp_path: Path) -> None:
    mine = viewer_of(tmp_path / "cache", sound)
    with contextlib.closing(mine):
        client = client_of(mine)
        (row,) = client.get("/api/recordings").json()["recordings"]
        assert (row["name"], row["kept"]) == ("meeting.wav", False)
        assert client.get("/api/recordings").json()["given"] == row["key"]
        assert client.post(f"/api/recordings/{row['key']}", headers=OWN).status_code == 202
        heard(client, row["key"])
        assert client.delete(f"/api/recordings/{row['key']}", headers=OWN).status_code == 200
    assert sound.exists()
    assert list((tmp_path / "cache" / "transcripts" / "files").iterdir())


@pytest.mark.parametrize("meanwhile", [False, True], ids=["heard", "while it is heard"])
def test_nothing_of_a_deleted_recording_stays_in_memory(
    viewer: Viewer, sound: Path, tmp_path: Path, meanwhile: bool
) -> None:
    shelf = viewer.shelf
    assert shelf is not None
    recording = shelf.keep(Path(shutil.copy(sound, tmp_path / "sent")), "meeting.wav")

    class Events(list[tuple[str, dict[str, object]]]):
        def append(self, event: tuple[str, dict[str, object]]) -> None:
            super().append(event)
            if meanwhile and event[0] == "outlining":
                shelf.delete(recording)

    recording.events = Events()
    shelf.open(recording)
    assert recording.future is not None
    recording.future.result(60)
    cascade = shelf.cascade()
    if not meanwhile:
        assert cascade.files
        assert cascade.by_sound
        assert cascade.kept
        shelf.delete(recording)
    assert (cascade.files, cascade.by_sound, cascade.kept) == ({}, {}, {})
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cancelled_hearing_can_begin_again(viewer: Viewer, sound: Path) -> None:
    assert viewer.shelf is not None
    assert viewer.asker is not None
    begun, go = threading.Event(), threading.Event()
    first = Recording("0", "first", sound, False)
    viewer.asker.hear(first, lambda: bool(begun.set() or go.wait(10)) and None)
    second = Recording("1", "second", sound, False)
    viewer.shelf.open(second)
    assert second.events == [("queued", {"place": 1})]  # one hearing at a time
    second.cancel()
    go.set()
    assert second.events[-1] == ("cancelled", {})
    viewer.shelf.open(second)
    assert second.future is not None
    second.future.result(60)
    assert second.spoken is not None


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("talk.mp3", "talk.mp3"),
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\me\talk.m4a", "talk.m4a"),
        ("a\nb\x00\u202ec.wav", "abc.wav"),
        ("", "recording"),
        ("/", "recording"),
        ("x" * 500 + ".flac", "x" * 115 + ".flac"),
    ],
)
def test_names_are_plain(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_forgetting_what_was_never_heard_is_nothing(tmp_path: Path) -> None:
    forget(tmp_path, tmp_path / "gone.wav")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [((), "--model cascade"), (("--export", "site"), "--export site: is for runs")],
)
def test_nothing_to_show_is_said(
    words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *words]) == 2
    assert problem in capsys.readouterr().err


def test_ctrl_c_before_the_page_is_served_leaves_no_folder_of_sounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Shelf:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Shelf, "of", interrupted)
    assert main(["view", "--model", "cascade", "--port", "0"]) == 130
    assert list(tmp_path.iterdir()) == []
