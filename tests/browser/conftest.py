"""A real browser and real servers. What has no browser skips these tests, by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000  # ms: a busy machine is no failure
ARGUMENTS = (
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",  # and that is allowed
)
collect_ignore = [] if os.environ.get("TGSR_SCREENSHOTS") else ["test_pictures.py"]
# Counts who wants the microphone, and plays sounds faster.
PREPARED = """
window.microphone = 0;
const ask = navigator.mediaDevices?.getUserMedia, play = HTMLMediaElement.prototype.play;
if (ask) MediaDevices.prototype.getUserMedia = function (...wants) {
  window.microphone += 1;
  return ask.apply(this, wants);
};
HTMLMediaElement.prototype.play = function () { this.playbackRate = RATE; return play.call(this); };
"""


@pytest.fixture(scope="session", autouse=True)  # before any server is started for nothing
def executable() -> str:
    """$TGSR_CHROMIUM, else the one that playwright has installed, else one on the PATH."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: `make test-browser`"
    )
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    for path in (
        os.environ.get("TGSR_CHROMIUM"),
        own if Path(own).exists() else None,
        *map(shutil.which, BROWSERS),
    ):
        if path:
            return path
    pytest.skip("there is no Chromium: `make test-browser` installs one")


@pytest.fixture(scope="module")  # its event loop would be in the way of the tests that follow
def browser(executable: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Watched:
    """A page, and what it should never do: break its policy, throw, show a dialog, or call another machine."""

    def __init__(self, page: Any) -> None:
        self.page, self.wrong = page, []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.wrong.append(f"threw {error}"))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("console", self._said)
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)  # breaches of the policy too

    def _asked(self, request: Any) -> None:
        place = urlsplit(request.url)
        if place.scheme not in ("data", "blob", "file") and place.hostname not in ("127.0.0.1", "localhost"):
            self.wrong.append(f"asked {request.url}")


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """open(url, **options of a context) -> page; at the end nothing may have gone wrong on any of them.

    `rate`: how many times as fast as usual the page's sounds are played.
    """
    contexts, watched = [], []

    def opens(url: str, rate: float = 1, **options: Any) -> Any:
        context = browser.new_context(**options)
        context.add_init_script(PREPARED.replace("RATE", str(rate)))
        contexts.append(context)
        watched.append(Watched(context.new_page()))
        watched[-1].page.goto(url)
        return watched[-1].page

    yield opens
    wrong = [what for one in watched for what in one.wrong]
    for context in contexts:
        context.close()
    assert wrong == []
