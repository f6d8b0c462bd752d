"""A report on a phone: its real page in a real browser, with every kind of section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from test_report import NASTY, full_run
from tgsr.records import Question, Response, write_jsonl
from tgsr.report.write import report

PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    title = "A_title_without_a_blank_that_is_much_longer_than_a_phone_is_wide"
    return report([full_run(folder)], folder / "page.html", title=title, published=True)


def test_nothing_is_wider_than_a_phone(opened: Any, page_file: Path) -> None:
    page = opened(page_file.as_uri(), viewport=PHONE)
    page.evaluate("() => document.querySelectorAll('details').forEach(folded => folded.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    wide = """() => [...document.querySelectorAll('h1, h2, h3, caption, table, .wide:has(> table), td, th')]
      .filter(box => box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).position !== 'absolute')
      .map(box => box.tagName + ': ' + box.textContent.slice(0, 40))"""
    assert page.evaluate(wide) == []
    head = page.locator("#controls td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert head == '"sufficiency"'


def test_no_choice_and_no_id_is_wider_than_a_phone(opened: Any, tmp_path: Path) -> None:
    question = Question("i" * 300, "c", "a.wav", 5.0, "choice", "Which?", "W" * 300, ("W" * 300, "b"))
    write_jsonl(tmp_path / "predictions.jsonl", [Response(question, "m", "(a)")])
    page = opened(report([tmp_path], tmp_path / "page.html", title="Wide").as_uri(), viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_verdict_stands_first_with_its_date_and_version(opened: Any, page_file: Path) -> None:
    page = opened(page_file.as_uri(), viewport=PHONE)
    assert page.locator("h2").first.text_content() == "What the numbers say"
    assert "Made by tgsr" in page.locator("#verdict p").first.text_content()
    assert NASTY in page.locator("#verdict").text_content()
