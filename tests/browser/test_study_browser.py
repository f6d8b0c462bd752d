"""The listening study in a real browser: raters at once, reloads, a server that dies."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

from browser_tools import server

from studies import predictions
from tgsr.pages.study.design import make_study, read_study, trials_for
from tgsr.pages.study.store import RATINGS, Store

RATE = 16  # these raters listen fast


def made(folder: Path) -> Path:
    make_study([predictions(folder, n=4)], folder / "study", n_items=2, n_practice=1, n_checks=1, seed=3)
    return folder / "study"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A study that several tests join: its address and folder."""
    study = made(tmp_path_factory.mktemp("study"))
    with server("study", "serve", str(study), "--port", "0") as (url, _):
        yield url, study


@pytest.fixture
def url(shared: tuple[str, Path]) -> str:
    return shared[0]


def begin(page: Any) -> str:
    page.check("#agree")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector("#referent")
    return str(page.url)


def listen(*pages: Any) -> None:
    """Plays all three stretches, on all pages at once; until then nothing can be chosen."""
    for k in range(3):
        for page in pages:
            assert page.locator("#referent input").first.is_disabled()
            page.locator(".stretch button").nth(k).click()
        for page in pages:
            page.wait_for_function(f"() => document.querySelectorAll('[data-heard]').length === {k + 1}")
    for page in pages:
        assert page.locator("#referent input").first.is_enabled()


def hear(*pages: Any) -> None:
    """Plays the sound that is rated; until then it cannot be."""
    for page in pages:
        assert page.locator("#helpful input").first.is_disabled()
        page.get_by_role("button", name="Play the sound").click()
    for page in pages:
        page.wait_for_function("() => !document.querySelector('#helpful').disabled")


def choose(page: Any, measure: str, n: int) -> None:
    page.locator(f"#{measure} input").nth(n).check()
    page.wait_for_function("() => document.getElementById('status').textContent === 'Kept.'")


def rate(*raters: tuple[Any, int, int, int]) -> None:
    """One part by several raters at once: page, referent, helpful, supportive."""
    pages = [page for page, *_ in raters]
    listen(*pages)
    for page, referent, _, _ in raters:
        choose(page, "referent", referent)
    hear(*pages)
    for page, _, helpful, supportive in raters:
        choose(page, "helpful", helpful - 1)
        choose(page, "supportive", supportive - 1)
        page.get_by_role("button", name="Next").click()


def at_part(page: Any, n: int) -> None:
    page.wait_for_function(f"() => document.getElementById('place')?.textContent.startsWith('Part {n} ')")


def test_three_raters_at_once_go_through_a_whole_study(shared: tuple[str, Path], opened: Any) -> None:
    url, folder = shared
    study = read_study(folder)
    first, n_parts = Store.open(folder / RATINGS, study.id).n_raters(), len(trials_for(study, 0))
    pages = [opened(url, RATE) for _ in range(3)]
    links = [begin(page) for page in pages]
    assert len(set(links)) == 3
    for part in range(n_parts):
        for page in pages:
            at_part(page, part + 1)
        rate(*((page, (part + rater) % 3, 1 + rater, 5 - rater) for rater, page in enumerate(pages)))
    for page in pages:
        page.wait_for_selector("text=Thank you")
        assert page.evaluate("window.microphone") == 0
    answers = [a for a in Store.open(folder / RATINGS, study.id).answers() if a.rater >= first]
    assert len(answers) == 3 * n_parts * 3
    assert {(a.rater - first, a.value) for a in answers if a.measure == "helpful"} == {(0, 1), (1, 2), (2, 3)}
    assert all(a.plays and a.plays >= 3 and a.seconds for a in answers)


def test_a_rater_reloads_in_the_middle_and_the_server_dies(tmp_path: Path, opened: Any) -> None:
    study = made(tmp_path)
    with server("study", "serve", str(study), "--port", "0") as (url, process):
        port = url.split(":")[2].split("/")[0]
        page = opened(url, RATE)
        link = begin(page)
        listen(page)
        choose(page, "referent", 2)
        page.reload()
        page.wait_for_selector("#referent")
        assert page.locator("#referent input").nth(2).is_checked()
        hear(page)  # again
        process.kill()
        process.wait()
        page.locator("#helpful input").nth(3).check()
        page.wait_for_selector("text=Not kept: the study does not answer.")
        page.get_by_role("button", name="Keep it again").click()
        page.wait_for_selector("text=Not kept: the study does not answer.")
        assert page.get_by_role("button", name="Next").is_disabled()
    with sqlite3.connect(study / RATINGS) as db:
        assert db.execute("select measure, value from answers").fetchall() == [("referent", 2)]
    with server("study", "serve", str(study), "--port", port):
        choose(page, "supportive", 0)  # what was not kept goes along
        with sqlite3.connect(study / RATINGS) as db:
            kept = db.execute("select measure, value from answers").fetchall()
        assert kept == [("referent", 2), ("helpful", 4), ("supportive", 1)]
        page.close()  # a closed tab
        at_part(opened(link), 2)


def test_the_choice_of_a_stretch_is_final_once_the_sound_is_played(url: str, opened: Any) -> None:
    page = opened(url, RATE)
    begin(page)
    listen(page)
    choose(page, "referent", 1)
    choose(page, "referent", 2)
    page.get_by_role("button", name="Play the sound").click()
    page.wait_for_function("() => document.querySelector('#referent input').disabled")
    page.wait_for_function("() => !document.querySelector('#helpful').disabled")  # heard to its end
    page.reload()
    page.wait_for_selector("#referent")
    assert page.locator("#referent input").nth(2).is_checked()
    assert page.locator("#referent input").nth(0).is_disabled()


def test_two_tabs_of_one_rater_are_told(url: str, opened: Any) -> None:
    page = opened(url, RATE)
    link = begin(page)
    beside = page.context.new_page()
    beside.goto(link)
    beside.wait_for_selector("#referent")
    page.wait_for_selector("#elsewhere")  # told by the other tab
    elsewhere = opened(link, RATE)  # another browser: the first one is told with its next answer
    elsewhere.wait_for_selector("#referent")
    listen(beside)
    beside.locator("#referent input").nth(1).click()  # not `check`: the page goes
    beside.wait_for_selector("#elsewhere")
    beside.get_by_role("button", name="Go on here instead").click()
    beside.wait_for_selector("#referent")
    assert beside.locator("#referent input:checked").count() == 0
    rate((beside, 0, 3, 3))
    at_part(beside, 2)


def test_a_sound_that_was_only_begun_was_not_heard(url: str, opened: Any) -> None:
    page = opened(url, 0.25)
    begin(page)
    button = page.locator(".stretch button").first
    button.click()
    page.wait_for_selector(".stretch button[aria-pressed=true]")
    button.click()
    page.wait_for_selector(".stretch button[aria-pressed=false]")
    assert button.get_attribute("data-heard") is None
    assert page.locator("#referent input").first.is_disabled()


def test_nothing_on_the_page_tells_the_system(url: str, opened: Any) -> None:
    page = opened(url, RATE)
    bodies: list[str] = []
    page.on("response", lambda r: bodies.append(r.text()) if "/api/" in r.url else None)
    begin(page)
    rate((page, 0, 3, 3))
    at_part(page, 2)
    for text in (*bodies, page.content()):
        assert "sharp" not in text
        assert "blunt" not in text


def test_small_dark_and_by_keyboard(url: str, opened: Any) -> None:
    page = opened(url, viewport={"width": 400, "height": 800}, color_scheme="dark")
    page.wait_for_selector("#agree")
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
        assert control.evaluate("e => (e.labels?.[0] || e).textContent.trim()")
    for part, ends in (
        ("helpful", ("not at all", "all I need")),
        ("supportive", ("not at all", "it proves it")),
    ):
        for end in ends:  # of a scale of bare numbers: whoever cannot see them is told too
            assert end in page.locator(f"#{part}").aria_snapshot()
