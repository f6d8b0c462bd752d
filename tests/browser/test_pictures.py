"""The pictures of docs/: what the packaged miniatures really say about real digits. Only where $TGSR_SCREENSHOTS is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

from browser_tools import server

from tgsr.cli import main
from tgsr.pages.study.design import make_study

FOLDER = Path(os.environ["TGSR_SCREENSHOTS"])
LARGEST = 250_000  # bytes
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder: Any) -> Path:
    """Digits of a speaker whom nobody was trained on, and the two shipped miniatures' responses."""
    folder = tmp_path_factory.mktemp("pictures") / "digits"
    digits = ("--digits", "12", "--split", "heldout-speaker", "--first", "70010", "--out", str(folder / "qa"))
    assert main(["build", "qa", *digits]) == 0
    for model in ("mini:sta", "mini:tgsr"):
        asked = ("--questions", str(folder / "qa" / "questions.jsonl"), "--model", model)
        assert main(["predict", *asked, "--out", str(folder / "predictions.jsonl")]) == 0
    return folder


@pytest.fixture(scope="module")
def url(run: Path) -> Iterator[str]:
    with server(
        "view", str(run), "--port", "0", "--model", "mini:tgsr", "--title", "Digits of a new speaker"
    ) as (address, _):
        yield address


def keep(page: Any, name: str) -> None:
    page.wait_for_timeout(500)  # what moves has come to rest
    content = page.screenshot()
    with Image.open(BytesIO(content)) as whole:
        colours = whole.convert("RGB")
        if len(content) > LARGEST:
            colours = colours.quantize(256, dither=Image.Dither.NONE)
        colours.save(FOLDER / name, optimize=True)
    assert (FOLDER / name).stat().st_size < LARGEST


def shown(page: Any) -> None:
    page.wait_for_selector(".picture[data-drawn]")
    page.wait_for_function("() => document.getElementById('media').readyState > 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_view(url: str, opened: Any, scheme: str) -> None:
    page = opened(url, viewport=WIDE, color_scheme=scheme)
    shown(page)
    page.get_by_role("button", name="right after").first.click()
    shown(page)
    if scheme == "dark":
        page.get_by_role("button", name="Spectrogram").click()
        page.mouse.move(600, 880)
        keep(page, "view-dark.png")
    else:
        page.locator("a.cite").last.hover()
        keep(page, "view.png")


def test_view_narrow(url: str, opened: Any) -> None:
    page = opened(url, viewport=NARROW)
    shown(page)
    page.get_by_role("button", name="right after").first.click()
    shown(page)
    keep(page, "view-narrow.png")


def test_ask(url: str, opened: Any) -> None:
    page = opened(url, viewport={"width": 1200, "height": 780})
    shown(page)
    page.get_by_role("button", name="Ask about it").click()
    page.fill("#ask-question", "Which digit is said right after seven?")
    page.fill("#ask-choices", "eight\nfour\nsix\nnine")
    page.click("#ask-send")
    page.wait_for_selector("#ask-answer a.cite")
    page.wait_for_selector("#ask .picture[data-drawn]")
    keep(page, "ask.png")


def test_recordings(opened: Any) -> None:
    lecture = Path(__file__).parents[2] / "benchmarks/asked/printing-1.opus"
    with server("view", str(lecture), "--port", "0") as (address, _):
        page = opened(address, viewport={"width": 1200, "height": 900})
        page.wait_for_selector("#recording-words .said-word")
        page.wait_for_selector(".picture[data-drawn]")
        page.fill("#recording-question", "Who printed from carved wood long before anyone in Europe?")
        page.click("#recording-ask")
        page.wait_for_selector("#recording-answers li")
        page.locator("#recording-answers .hear").first.click()
        page.wait_for_selector(".said-word.now")
        page.wait_for_timeout(1500)
        keep(page, "recordings.png")


def test_study(run: Path, tmp_path: Path, opened: Any) -> None:
    made = tmp_path / "study"
    make_study([run / "predictions.jsonl"], made, systems=["mini:tgsr"], n_items=2, n_practice=1, n_checks=1)
    with server("study", "serve", str(made), "--port", "0") as (address, _):
        page = opened(address, 8, viewport={"width": 900, "height": 700})
        page.wait_for_selector("#agree")
        keep(page, "study-consent.png")
        page.check("#agree")
        page.get_by_role("button", name="Begin").click()
        for k in range(3):
            page.locator(".stretch button").nth(k).click()
            page.wait_for_function(f"() => document.querySelectorAll('[data-heard]').length === {k + 1}")
        page.locator("#referent input").nth(1).check()
        page.wait_for_selector(".feedback:visible")
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": 900, "height": height})  # else its last line lies across the middle
        keep(page, "study.png")
