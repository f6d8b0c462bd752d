"""The asking page in a real browser: a recording is sent, heard, asked about, read along, downloaded, deleted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

import uvicorn

from tgsr.answering.cascade import load_cascade
from tgsr.errors import ModelError
from tgsr.models.packaged_weights import cache_folder
from tgsr.pages.guard import guard_for
from tgsr.pages.view.ask import Asker
from tgsr.pages.view.index import no_runs, read_index
from tgsr.pages.view.recordings import Shelf
from tgsr.pages.view.server import Viewer, app, bound, routes, server_config
from tgsr.pages.view.sound import Sounds
from tgsr.records import Question, Response, write_jsonl

CLIP = (
    Path(__file__).parents[2] / "src/tgsr/assets/english/458-126290-0000.opus"
)  # "... you will be caught in a trap ..."


@contextmanager
def served(viewer: Viewer) -> Iterator[str]:
    """The viewer's address: a server in this process, which has loaded most of it already."""
    listening = bound("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = uvicorn.Server(server_config(app(routes(viewer), guard_for("127.0.0.1", port))))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()
    viewer.close()
    listening.close()


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The server as `tgsr view --model cascade` starts it."""
    for name in ("whisper-base", "all-minilm-l6-v2"):
        if not (cache_folder() / name).exists():
            pytest.skip(f"{cache_folder() / name} is not there: `make fetch` downloads it, once")
    cache = tmp_path_factory.mktemp("cache")
    sounds = Sounds()
    asker = Asker(["cascade"], lambda name: load_cascade(name, cache=cache), sounds)
    viewer = Viewer(no_runs(), no_runs, sounds, asker, Shelf.of(asker, "cascade", cache))
    with served(viewer) as address:
        yield address, cache


def playing(page: Any) -> tuple[float, bool]:
    at, paused = page.evaluate(
        "() => { const media = document.getElementById('recording-media'); return [media.currentTime, media.paused]; }"
    )
    return at, not paused


def test_from_an_upload_to_the_words_that_are_lit(page_of: Any, opened: Any, tmp_path: Path) -> None:
    address, cache = page_of
    page = opened(address, accept_downloads=True)
    page.wait_for_selector("#recording-drop")
    assert not page.locator("#look").is_visible()  # there is no run
    page.set_input_files("#recording-file", str(CLIP))
    page.wait_for_selector("#recording-state:has-text('Hearing')")  # it says how far it is
    page.wait_for_selector("#recording-words .said-word")
    assert "caught in" in " ".join(page.locator("#recording-words").inner_text().split())

    page.fill("#recording-question", "caught in a trap")
    page.check("#recording-phrase")
    page.press("#recording-question", "Enter")
    page.wait_for_selector("#recording-answers li")
    assert "starts at" in page.locator("#recording-answers li").first.inner_text()
    page.locator("#recording-answers .hear").first.click()
    page.wait_for_selector(".said-word.now")  # what is said now is lit
    page.wait_for_function(
        "() => document.getElementById('recording-media').paused"
    )  # and it ends with the evidence
    at, _ = playing(page)
    assert 9.0 < at < 10.2

    word = page.locator(".said-word", has_text="venture").first
    word.click()
    page.wait_for_function("() => !document.getElementById('recording-media').paused")
    at, _ = playing(page)
    assert 3.0 < at < 9.0
    page.wait_for_selector(".said-word.now")
    assert page.locator(".said-word.now").count() == 1

    with page.expect_download() as download:
        page.locator(".downloads a", has_text="SRT").click()
    assert download.value.suggested_filename == "458-126290-0000.srt"
    content = Path(download.value.path()).read_text(encoding="utf-8")
    assert content.startswith("1\n00:00:0")
    assert "caught in" in " ".join(content.split())

    # The keyboard alone: words by arrows, the sound by the space bar, a line of the outline by its link.
    page.keyboard.press("Escape")
    page.click("#recording-name")
    page.keyboard.press("Space")
    page.wait_for_function("() => !document.getElementById('recording-media').paused")
    page.keyboard.press("Space")
    page.wait_for_function("() => document.getElementById('recording-media').paused")
    page.locator(".said-word").first.focus()
    page.keyboard.press("ArrowRight")
    place = "[...document.querySelectorAll('.said-word')].indexOf(document.activeElement)"
    assert page.evaluate(place) == 1
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.getElementById('recording-media').paused")
    page.locator("#recording-outline a").first.press("Enter")
    assert "recording=" in page.url

    # A link leads back to the recording, which is kept, and to its place.
    again = opened(page.url.partition("#")[0] + f"#{page.url.partition('#')[2].partition('&')[0]}&t=5")
    again.wait_for_selector("#recording-words .said-word")
    again.wait_for_function(
        "() => Math.abs(document.getElementById('recording-media').currentTime - 5) < 0.1"
    )

    page.click("#recording-delete")
    page.click("#recording-delete")
    page.wait_for_selector("#recording-delete", state="detached")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_link_leads_to_its_recording_where_a_run_is_shown_too(opened: Any, tmp_path: Path) -> None:
    def unheard(name: str) -> Any:
        raise ModelError("no model is opened here")

    question = Question("q", "c", str(CLIP), 10.0, "choice", "What is said?", "a", ("a", "b"))
    write_jsonl(tmp_path / "predictions.jsonl", [Response(question, "m", "a")])
    sounds = Sounds()
    asker = Asker(["cascade"], unheard, sounds)
    shelf = Shelf.of(asker, "cascade", tmp_path / "cache", [CLIP])
    with served(Viewer(read_index([tmp_path]), no_runs, sounds, asker, shelf)) as address:
        page = opened(f"{address}#recording={next(iter(shelf.recordings))}&t=5")
        page.wait_for_selector(f"#recording-problem:has-text('{CLIP.name}')")
        assert not page.locator("#look").is_visible()
        page = opened(address)
        page.wait_for_function("() => document.querySelector('#item h2')?.textContent === 'What is said?'")


def test_what_cannot_be_heard_is_said_in_words_on_a_phone_in_the_dark(page_of: Any, opened: Any) -> None:
    page = opened(page_of[0], viewport={"width": 380, "height": 700}, color_scheme="dark")
    page.wait_for_selector("#recording-drop")

    def told(name: str, content: bytes) -> str:
        page.set_input_files(
            "#recording-file", files=[{"name": name, "mimeType": "audio/wav", "buffer": content}]
        )
        page.wait_for_selector(f"#recording-problem:has-text('{name}')")
        return str(page.locator("#recording-problem").inner_text())

    assert "is empty (0 bytes)" in told("empty.wav", b"")
    assert "audio" in told("notes.txt", b"no sound at all")
    assert page.locator(".desk").is_hidden()
    problem = page.evaluate(
        """async () => {
            const drop = document.getElementById("recording-drop");
            const data = { files: [{ name: "huge.mp4", size: 2 * 2 ** 30 }] };
            const event = new Event("drop", { bubbles: true, cancelable: true });
            Object.defineProperty(event, "dataTransfer", { value: data });
            drop.dispatchEvent(event);
            return document.getElementById("recording-problem").textContent;
        }"""
    )
    assert problem.startswith("huge.mp4 has 2048 MB; 1024 MB can be sent.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 380  # nothing has to be scrolled sideways
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("#recordings button, #recordings input, #recordings a")]
            .filter((one) => one.offsetParent)
            .filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
