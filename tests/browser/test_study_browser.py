"""The listening study in a real browser: raters at once, reloads, a server that dies."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the web pages need: pip install 'tgsr[view]'")

from browser_tools import picture, server

from studies import predictions
from tgsr.study.design import make_study, read_study, trials_for
from tgsr.study.store import RATINGS, Store


@pytest.fixture
def study(tmp_path: Path) -> Path:
    make_study([predictions(tmp_path, n=4)], tmp_path / "study", n_items=2, n_practice=1, n_checks=1, seed=3)
    return tmp_path / "study"


def begin(page: Any) -> str:
    page.check("#agree")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector("#referent")
    return str(page.url)


def listen(page: Any) -> None:
    """Plays all three stretches; until then nothing can be chosen."""
    for button in page.locator(".stretch button").all():
        button.click()
        page.wait_for_function("button => button.dataset.heard === 'yes'", arg=button.element_handle())
    page.wait_for_function("() => !document.querySelector('#referent input').disabled")


def choose(page: Any, measure: str, n: int) -> None:
    page.locator(f"#{measure} input").nth(n).check()
    page.wait_for_function("() => document.getElementById('status').textContent === 'Kept.'")


def rate(page: Any, referent: int, helpful: int, supportive: int) -> None:
    listen(page)
    choose(page, "referent", referent)
    page.get_by_role("button", name="Play the sound").click()
    page.wait_for_function("() => !document.querySelector('#helpful').disabled")
    choose(page, "helpful", helpful - 1)
    choose(page, "supportive", supportive - 1)
    page.get_by_role("button", name="Next").click()


def test_three_raters_at_once_go_through_a_whole_study(study: Path, opened: Any) -> None:
    with server("study", "serve", str(study), "--port", "0") as (url, _):
        pages = [opened(url) for _ in range(3)]
        picture(pages[0], "study-consent.png")
        links = [begin(page) for page in pages]
        assert len(set(links)) == 3
        n_parts = len(trials_for(read_study(study), 0))
        for part in range(n_parts):
            for rater, page in enumerate(pages):
                page.wait_for_function(
                    f"() => document.getElementById('place')?.textContent === 'Part {part + 1} of {n_parts}'"
                )
                if part == 1 and rater == 0:
                    picture(page, "study.png", full_page=True)
                rate(page, (part + rater) % 3, 1 + rater, 5 - rater)
        for page in pages:
            page.wait_for_selector("text=Thank you")
    made = read_study(study)
    answers = Store.open(study / RATINGS, made.id).answers()
    assert len(answers) == 3 * n_parts * 3
    assert {(a.rater, a.value) for a in answers if a.measure == "helpful"} == {(0, 1), (1, 2), (2, 3)}
    assert all(a.plays and a.plays >= 3 and a.seconds for a in answers)
    done = subprocess.run(
        [sys.executable, "-m", "tgsr.cli", "study", "analyse", str(study), "--out", str(study / "analysis")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "3 raters, 3 finished" in done.stdout
    assert (study / "analysis" / "analysis.png").exists()


def test_a_rater_reloads_in_the_middle_and_the_server_dies(study: Path, opened: Any) -> None:
    with server("study", "serve", str(study), "--port", "0") as (url, process):
        port = url.split(":")[2].split("/")[0]
        page = opened(url)
        link = begin(page)
        listen(page)
        choose(page, "referent", 2)
        page.reload()
        page.wait_for_selector("#referent")
        assert page.locator("#referent input").nth(2).is_checked()
        assert page.locator("#helpful input").first.is_disabled()  # not heard since
        page.get_by_role("button", name="Play the sound").click()
        page.wait_for_function("() => !document.querySelector('#helpful').disabled")
        process.kill()
        process.wait()
        page.locator("#helpful input").nth(3).check()
        page.wait_for_selector("text=Not kept")
        assert page.get_by_role("button", name="Next").is_disabled()
    with sqlite3.connect(study / RATINGS) as db:
        assert db.execute("select measure, value from answers").fetchall() == [("referent", 2)]
    with server("study", "serve", str(study), "--port", port):
        page.get_by_role("button", name="Keep it again").click()
        page.wait_for_function("() => document.getElementById('status').textContent === 'Kept.'")
        page.close()  # a closed tab
        again = opened(link)
        again.wait_for_selector("#referent")
        assert again.locator("#helpful input").nth(3).is_checked()
        choose(again, "supportive", 0)
        again.get_by_role("button", name="Next").click()
        again.wait_for_function("() => document.getElementById('place').textContent.startsWith('Part 2')")


def test_nothing_on_the_page_tells_the_system(study: Path, opened: Any) -> None:
    with server("study", "serve", str(study), "--port", "0") as (url, _):
        page = opened(url)
        bodies: list[str] = []
        page.on("response", lambda r: bodies.append(r.text()) if "/api/" in r.url else None)
        begin(page)
        rate(page, 0, 3, 3)
        page.wait_for_function("() => document.getElementById('place').textContent.startsWith('Part 2')")
        for text in (*bodies, page.content()):
            assert "sharp" not in text
            assert "blunt" not in text


def test_small_dark_and_by_keyboard(study: Path, opened: Any) -> None:
    with server("study", "serve", str(study), "--port", "0") as (url, _):
        page = opened(url, viewport={"width": 400, "height": 800}, color_scheme="dark")
        page.focus("#agree")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#referent")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, background[4:-1].split(","))) < 150
        for part in page.locator("fieldset").all():
            assert part.locator("legend").inner_text().strip()
        for control in page.locator("button, input").all():
            name = control.evaluate("e => (e.labels?.[0] || e).textContent.trim()")
            assert name
