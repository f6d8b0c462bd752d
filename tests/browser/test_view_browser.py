"""`tgsr view` in a real browser, with a real server."""

from __future__ import annotations

import http.server
import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the web pages need: pip install -e '.[view]'")

from browser_tools import server

from tgsr import audio
from tgsr.cli import main
from tgsr.data.corpora.spoken_digits import compose
from tgsr.records import Clip, Question, Response, write_jsonl
from tgsr.timeline import Span, Word

WIDE = "W" * 300
HOSTILE = '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'


def run_in(folder: Path, n: int = 60) -> Path:
    """Two models on four clips, many questions; one response is hostile, one clip is gone, one cites beyond the end."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(3):
        samples = (0.2 * np.sin(np.arange(5 * 16000) * (0.05 + 0.03 * k))).astype(np.float32)
        samples[: 2 * 16000] = rng.uniform(-0.02, 0.02, 2 * 16000)
        audio.save_wav(folder / f"{k}.wav", samples)
    rows = []
    for n_question in range(n):
        clip = n_question % 4
        question = Question(
            f"q{n_question:03d}",
            f"c{clip}",
            f"{clip}.wav",
            5.0,
            "choice",
            f"What is heard in {n_question}?",
            "a tone",
            ("a tone", "noise"),
            evidence=(Span(2.0, 5.0),),
            task="tone" if clip else "first",
        )
        good = "From 2.00s to 2.60s there is a tone, and at (3.0s-3.4s).\nFinal answer: (a) a tone"
        bad = "From 0.20s to 9.00s there is noise.\nFinal answer: (b) noise"
        rows.append(Response(question, "steady", good))
        rows.append(Response(question, "shaky", HOSTILE + "\n(b) noise" if n_question == 1 else bad))
    write_jsonl(folder / "predictions.jsonl", rows)
    words = (Word("hum", 2.0, 2.5), Word("tone", 2.6, 4.9))
    write_jsonl(folder / "clips.jsonl", [Clip(f"c{k}", f"{k}.wav", 5.0, words) for k in range(3)])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("view") / "run")


@pytest.fixture(scope="module")
def url(run: Path) -> Any:
    with server("view", str(run), "--port", "0", "--title", "Two models on tones") as (address, _):
        yield address


def ready(page: Any, question: str = "What is heard in 0?") -> None:
    page.wait_for_function(
        f"() => document.querySelector('#item h2')?.textContent === {json.dumps(question)}"
    )


def heard(page: Any) -> tuple[float, bool]:
    found = page.evaluate(
        "() => { const m = document.getElementById('media'); return [m.currentTime, m.paused]; }"
    )
    return float(found[0]), bool(found[1])


def until_paused(page: Any) -> float:
    page.wait_for_function("() => document.getElementById('media').paused")
    return heard(page)[0]


def test_a_cited_span_is_played_to_its_end_and_no_further(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    link = page.locator("section.response a.cite").first
    assert link.inner_text() == "2.00s to 2.60s"
    link.click()
    page.wait_for_function(
        "() => { const m = document.getElementById('media'); return !m.paused && m.currentTime > 2; }"
    )
    assert until_paused(page) == pytest.approx(2.6, abs=0.15)
    assert "span=0" in page.url
    page.wait_for_function("() => !document.querySelector('.band.now')")  # nothing sounds, nothing is lit
    page.locator(".band").first.click()  # the true evidence
    page.wait_for_function("() => !document.getElementById('media').paused")
    page.keyboard.press("Escape")
    assert until_paused(page) < 5


def test_models_stand_side_by_side_with_their_verdicts(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    shown = page.locator("section.response")
    assert [one.get_attribute("aria-label") for one in shown.all()] == [
        "response of steady",
        "response of shaky",
    ]
    assert "right" in shown.nth(0).inner_text()
    assert "wrong" in shown.nth(1).inner_text()
    boxes = [one.bounding_box() for one in shown.all()]
    assert boxes[0]["y"] == boxes[1]["y"]
    crossed = shown.nth(1).locator("a.cite.wrong")
    assert crossed.get_attribute("title") == "runs past the end of the clip"
    assert page.locator(".said-word").all_inner_texts() == ["hum", "tone"]
    assert "off the evidence" in shown.nth(0).locator("h3").inner_text()
    held = shown.nth(0).locator(".citations li").all_inner_texts()
    assert [" ".join(line.split()) for line in held] == [
        "2.00 – 2.60 s off the evidence said there: hum",
        "3.00 – 3.40 s off the evidence said there: nothing",
    ]
    assert "runs past the end of the clip" in shown.nth(1).locator(".citations").inner_text()
    assert page.locator("#measures b").all_inner_texts() == ["steady", "shaky"]


def test_filters_search_and_pages(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    count = page.locator("#count")
    page.wait_for_function("() => document.getElementById('count').textContent === '60 questions'")
    assert page.locator("#list li").count() == 50
    page.get_by_role("button", name="On →").click()
    page.wait_for_function("() => document.querySelectorAll('#list li').length === 10")
    page.fill("#q", "heard in 17")
    page.wait_for_function("() => document.getElementById('count').textContent === '1 question'")
    page.fill("#q", "")
    page.check("#f-wrong")
    page.wait_for_function("() => document.getElementById('count').textContent === '60 questions'")
    page.select_option("#f-model", "steady")
    page.wait_for_function("() => document.getElementById('count').textContent === '0 questions'")
    page.uncheck("#f-wrong")
    page.check("#f-missed")
    page.wait_for_function("() => document.getElementById('count').textContent === '60 questions'")
    page.check("#f-late")
    page.wait_for_function("() => document.getElementById('count').textContent === '0 questions'")
    page.uncheck("#f-missed")
    page.uncheck("#f-late")
    page.select_option("#f-task", "first")
    page.wait_for_function("() => document.getElementById('count').textContent === '15 questions'")
    assert count.get_attribute("aria-live") == "polite"


def test_keys_and_deep_links(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    page.keyboard.press("j")
    ready(page, "What is heard in 1?")
    page.keyboard.press("k")
    ready(page)
    page.keyboard.press("2")
    page.wait_for_function("() => document.getElementById('media')?.currentTime >= 3")
    assert until_paused(page) == pytest.approx(3.4, abs=0.15)
    page.keyboard.press("?")
    assert page.locator("#help").evaluate("e => e.open")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("jjj")
    assert page.locator("#q").input_value() == "jjj"
    again = opened(page.url)
    ready(again)
    again.wait_for_function("() => document.getElementById('media')?.currentTime === 3")
    assert heard(again)[1]  # shown, not played: nobody pressed anything there
    assert again.locator("a.cite.now").inner_text() == "3.0s-3.4s"


def test_keys_pressed_faster_than_the_server_answers(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    page.keyboard.press("j")
    for key in "jjjjkjjkj":
        page.keyboard.press(key)
    ready(page, "What is heard in 6?")
    page.wait_for_function("() => document.querySelectorAll('#media').length === 1")
    assert page.locator("#list [aria-current]").inner_text().startswith("What is heard in 6?")


def test_fewer_seconds_can_be_shown_and_a_span_stays_in_sight(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    page.wait_for_selector(".picture[data-drawn]")
    width = page.locator(".picture").bounding_box()["width"]
    for _ in range(4):
        page.keyboard.press("+")
    page.wait_for_function(
        f"() => document.querySelector('.picture').getBoundingClientRect().width > {15 * width}"
    )
    assert page.get_by_role("button", name="show fewer seconds").is_disabled()
    page.keyboard.press("2")
    page.wait_for_function("() => document.getElementById('media').currentTime > 3")
    page.wait_for_function(
        """() => {
            const band = document.querySelector(".band.now")?.getBoundingClientRect();
            const stage = document.querySelector(".stage").getBoundingClientRect();
            return band && band.left < stage.right && band.right > stage.left;
        }"""
    )
    for _ in range(4):
        page.keyboard.press("-")
    page.wait_for_function(
        f"() => document.querySelector('.picture').getBoundingClientRect().width < {width + 2}"
    )


def test_model_text_is_text(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    page.keyboard.press("j")
    ready(page, "What is heard in 1?")
    assert HOSTILE in page.locator("section.response").nth(1).inner_text()
    assert page.locator("#item img, #item script").count() == 0
    assert page.title() == "Two models on tones"


def test_a_file_in_which_everything_is_hostile(odd: str, opened: Any) -> None:
    """Questions, choices, labels, ids, words and even a model's name are shown as they are."""
    page = opened(odd)
    ready(page, "Six?")
    page.fill("#q", "<img")
    page.wait_for_function("() => document.getElementById('count').textContent === '1 question'")
    page.locator("#list button").click()
    ready(page, HOSTILE)
    shown = page.locator("#item").inner_text()
    assert shown.count(HOSTILE) >= 6
    assert HOSTILE in page.locator("#models").inner_text()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1  # ours
    assert page.title() != "owned"


def test_a_clip_that_is_gone_is_said_and_the_rest_works(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    page.fill("#q", "heard in 3?")
    page.wait_for_function("() => document.getElementById('count').textContent === '1 question'")
    page.locator("#list button").first.click()
    ready(page, "What is heard in 3?")
    told = page.get_by_role("alert").inner_text()
    assert "No sound for this question" in told
    assert "--audio" in told  # what to do
    assert page.locator("section.response").count() == 2
    assert page.locator("a.cite").first.get_attribute("aria-disabled") == "true"


def test_small_and_dark(url: str, opened: Any) -> None:
    page = opened(url, viewport={"width": 400, "height": 900}, color_scheme="dark")
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not page.locator("#more").evaluate("e => e.open")
    page.locator("#list button").nth(1).click()
    ready(page, "What is heard in 1?")
    page.wait_for_function("() => document.querySelector('#item h2').getBoundingClientRect().top < 200")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, background[4:-1].split(","))) < 150


def test_everything_that_can_be_pressed_has_a_name(url: str, opened: Any) -> None:
    page = opened(url)
    ready(page)
    for control in page.locator("button:visible, select:visible, input:visible, a:visible").all():
        name = control.evaluate(
            "e => e.getAttribute('aria-label') || (e.labels?.[0] || e).textContent.trim()"
        )
        assert name, control.evaluate("e => e.outerHTML")
    for landmark in ("main", "banner", "navigation", "complementary", "search"):
        assert page.get_by_role(landmark).count() == 1, landmark


def test_the_spectrogram_can_be_shown(url: str, opened: Any) -> None:
    page = opened(url, viewport={"width": 1200, "height": 900}, color_scheme="dark")
    ready(page)
    page.wait_for_function("() => document.getElementById('media').readyState > 1")
    before = page.locator(".picture").bounding_box()["height"]
    page.get_by_role("button", name="Spectrogram").click()
    page.wait_for_function(
        f"() => document.querySelector('.picture').getBoundingClientRect().height > {before + 100}"
    )
    page.get_by_role("button", name="Spectrogram").click()
    page.wait_for_function(
        f"() => document.querySelector('.picture').getBoundingClientRect().height < {before + 50}"
    )


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Six channels at 48 kHz, twenty minutes, a file of another length than its row says, one all hostile; texts that
    are wide, or run from right to left.
    """
    folder = tmp_path_factory.mktemp("odd")
    loud = 0.3 * np.sin(np.arange(2 * 48000) * 0.05)
    soundfile.write(folder / "six.wav", np.stack([loud] * 6, axis=1), 48000)
    slow = np.tile(np.sin(np.arange(4000) * 0.3).astype(np.float32) * 0.2, 600)  # 20 min at 2 kHz
    soundfile.write(folder / "long.flac", slow, 2000)
    rows = []
    for name, file, seconds, text in (
        ("Six?", "six.wav", 2.0, "0.5s - 0.9s\n(a) a"),
        ("Long?", "long.flac", 1200.0, "From 900.0s to 900.5s.\n(a) a"),
        ("Other?", "six.wav", 4.0, "From 0.5s to 1.0s.\n(a) a"),
    ):
        question = Question(name, name, file, seconds, "choice", name, "a", ("a", "b"))
        rows.append(Response(question, "m", text))
    hostile = Question(
        f"id{HOSTILE}", "c", "six.wav", 2.0, "choice", HOSTILE, HOSTILE, (HOSTILE, "b"), task=HOSTILE,
        labels=((HOSTILE, HOSTILE),),
    )  # fmt: skip
    rows.append(Response(hostile, HOSTILE, f"{HOSTILE} 0.1s - 0.4s"))
    for name, asked, answer in (("wide", WIDE, WIDE), ("arabic", "ماذا قيل؟", "نعم!")):
        question = Question(name, name, "six.wav", 2.0, "choice", asked, answer, (answer, "b"))
        rows.append(Response(question, "m", "0.1s - 0.4s"))
    write_jsonl(folder / "predictions.jsonl", rows)
    said = {
        "c": (Word(HOSTILE, 0.1, 0.4),),
        "wide": (Word("今日", 0.1, 0.4), Word("は", 0.4, 0.6), Word("雨", 0.6, 0.9), Word("OK", 1.0, 1.3)),
        "arabic": (Word("نعم", 0.1, 0.4), Word("لا", 0.5, 0.9)),
    }
    clips = [Clip(name, "six.wav", 2.0, words) for name, words in said.items()]
    many = tuple(Word(f"word{n}", 0.4 * n, 0.4 * n + 0.3) for n in range(3000))
    write_jsonl(folder / "clips.jsonl", [*clips, Clip("Long?", "long.flac", 1200.0, many)])
    with server("view", str(folder), "--port", "0") as (address, _):
        yield address


def test_six_channels_and_a_long_clip(odd: str, opened: Any) -> None:
    """48 kHz in six channels is heard; twenty minutes are streamed, with peaks from the server."""
    page = opened(odd)
    for question, end in (("Six?", 0.9), ("Long?", 900.5)):
        ready(page, question)
        page.wait_for_function("() => document.getElementById('media')?.readyState > 0")
        page.wait_for_selector(".picture[data-drawn]")
        page.keyboard.press("1")
        page.wait_for_function(f"() => document.getElementById('media').currentTime > {end - 0.4}")
        assert until_paused(page) == pytest.approx(end, abs=0.15)
        page.keyboard.press("j")
        if question == "Six?":
            ready(page, "Long?")
            assert "streamed" in page.locator(".controls").inner_text()


def test_the_words_of_a_long_clip_are_followed_and_are_one_stop_of_tab(odd: str, opened: Any) -> None:
    page = opened(odd)
    page.get_by_role("button", name="Long?").click()
    ready(page, "Long?")
    page.wait_for_selector(".picture[data-drawn]")
    assert page.locator(".said-word[tabindex='0']").all_inner_texts() == ["word0"]
    page.locator(".said-word").first.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "word1"
    page.locator("body").click(position={"x": 1, "y": 1})
    page.keyboard.press("1")  # from 900.0 to 900.5 s
    page.wait_for_function(
        """() => {
            const word = document.querySelector(".said-word.now")?.getBoundingClientRect();
            const box = document.querySelector(".words").getBoundingClientRect();
            return word && word.top >= box.top - 1 && word.bottom <= box.bottom + 1;
        }"""
    )
    assert page.locator(".said-word.now").inner_text() in ("word2250", "word2251")


def test_texts_of_any_script_stay_on_the_page_and_run_as_they_are_read(odd: str, opened: Any) -> None:
    page = opened(odd, viewport={"width": 400, "height": 900})
    page.fill("#q", "wide")
    page.wait_for_function("() => document.getElementById('count').textContent === '1 question'")
    page.locator("#list button").click()
    ready(page, WIDE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator(".words").text_content() == "今日は雨 OK"  # blanks stand where the script writes some
    page.fill("#q", "arabic")
    page.wait_for_function("() => document.getElementById('list').textContent.includes('ماذا')")
    page.locator("#list button").click()
    ready(page, "ماذا قيل؟")
    first, second = (word.bounding_box()["x"] for word in page.locator(".said-word").all())
    assert first > second
    of_choices = "all => all.map((one) => getComputedStyle(one).direction)"
    assert page.locator(".choices bdi").evaluate_all(of_choices) == ["rtl", "ltr"]


def test_a_file_of_another_length_is_said_and_shown_at_its_own_scale(odd: str, opened: Any) -> None:
    page = opened(odd)
    ready(page, "Six?")
    page.get_by_role("button", name="Other?").click()
    ready(page, "Other?")
    assert "the file lasts 2.00 s, its row says 4.00 s" in page.get_by_role("alert").inner_text()
    band, rail = page.locator(".band").bounding_box(), page.locator(".rail").bounding_box()
    assert band["x"] - rail["x"] == pytest.approx(rail["width"] / 4, abs=2)  # 0.5 s of the 2 s that are there


def test_an_export_needs_a_file_server_only(run: Path, tmp_path: Path, opened: Any) -> None:
    assert main(["view", str(run), "--export", str(tmp_path / "site")]) == 0
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path / "site")))
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        page = opened(f"http://127.0.0.1:{site.server_port}/")
        ready(page)
        page.keyboard.press("1")
        page.wait_for_function("() => document.getElementById('media')?.currentTime > 2")
        assert until_paused(page) == pytest.approx(2.6, abs=0.15)
        page.check("#f-wrong")
        page.select_option("#f-model", "steady")
        page.wait_for_function("() => document.getElementById('count').textContent === '0 questions'")
        page.uncheck("#f-wrong")
        page.check("#f-misquoted")
        page.wait_for_function("() => document.getElementById('count').textContent === '45 questions'")
        page.uncheck("#f-misquoted")
        page.select_option("#f-model", "shaky")
        page.check("#f-late")
        page.wait_for_function("() => document.getElementById('count').textContent === '59 questions'")
        page.uncheck("#f-late")
        page.select_option("#f-sort", "away")
        page.wait_for_selector("#list li:first-child >> text=heard in 1?")  # cites nothing
        page.fill("#q", "noise")
        page.wait_for_function("() => document.getElementById('count').textContent === '60 questions'")
        assert page.locator("#reload").is_hidden()
    finally:
        site.shutdown()
        site.server_close()


# --- ask -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, encoder: Any) -> Any:
    """A page with the miniature behind it, a clip of digits to be asked about, its first two, and its process."""
    folder = tmp_path_factory.mktemp("asking")
    made = compose(70_010, "heldout-speaker", seconds=(4.0, 5.0))
    audio.save_wav(folder / "digits.wav", made.samples)
    said = made.clip.words[0].text, made.clip.words[1].text
    run = run_in(folder / "run", 2)
    with server("view", str(run), "--port", "0", "--model", "mini:tgsr") as (address, process):
        yield address, folder / "digits.wav", said, process


def at_ask(page: Any) -> None:
    ready(page)
    page.get_by_role("button", name="Ask", exact=True).first.click()


def answered(page: Any) -> str:
    page.wait_for_function(
        "() => document.getElementById('ask-cancel').hidden"
        " && /to listen to|cites no span/.test(document.getElementById('ask-progress').textContent)"
    )
    return str(page.locator("#ask-answer").inner_text())


def test_a_question_is_answered_while_one_looks_on(asking: Any, opened: Any) -> None:
    address, clip, (first, second), _ = asking
    page = opened(address)
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => window.seen.push(document.getElementById('ask-answer').textContent.length))
                .observe(document.getElementById('ask'), { childList: true, subtree: true });
        }"""
    )
    at_ask(page)
    page.set_input_files("#ask-file", str(clip))
    assert "digits.wav" in page.locator("#ask-name").inner_text()
    page.fill("#ask-question", f"Which digit is said right after {first}?")
    page.fill("#ask-choices", f"{second}\nzero" if second != "zero" else "zero\none")
    page.click("#ask-send")
    assert "Final answer" in answered(page)
    assert len(set(page.evaluate("window.seen"))) > 5  # it was written piece by piece
    cited = page.locator("#ask-answer a.cite")
    assert cited.count() >= 1
    page.wait_for_selector("#ask .picture[data-drawn]")
    cited.first.click()
    page.wait_for_function("() => document.getElementById('ask-media').currentTime > 0")


def test_the_sound_of_a_question_and_a_phrase_can_be_asked_about(asking: Any, opened: Any) -> None:
    page = opened(asking[0])
    ready(page)
    page.get_by_role("button", name="Ask about it").click()
    assert page.locator("#ask-name").inner_text() == "the sound of c0"
    page.check("#ask-phrase")
    assert page.locator("#ask-choices").is_disabled()
    page.fill("#ask-question", "one two")
    page.click("#ask-send")
    assert answered(page)


def test_what_a_microphone_hears_can_be_asked_about(asking: Any, opened: Any) -> None:
    page = opened(asking[0])
    at_ask(page)
    page.click("#ask-record")
    page.wait_for_selector("text=Stop recording")
    page.wait_for_timeout(700)
    page.click("#ask-record")
    page.wait_for_selector("text=recorded here")
    page.fill("#ask-question", "What is said?")
    page.click("#ask-send")
    assert answered(page)
    assert page.evaluate("window.microphone") == 1


def test_a_question_can_be_cancelled_and_no_sound_is_said(asking: Any, opened: Any) -> None:
    address, clip, *_ = asking
    page = opened(address)
    at_ask(page)
    page.fill("#ask-question", "What is said?")
    page.click("#ask-send")
    page.wait_for_selector("text=Choose or record something first.")
    page.set_input_files(
        "#ask-file", files=[{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no sound"}]
    )
    page.click("#ask-send")
    page.wait_for_function("() => !document.getElementById('ask-send').disabled")
    assert "the recording" in page.locator("#ask-progress").inner_text()
    page.set_input_files("#ask-file", str(clip))
    page.click("#ask-send")
    page.click("#ask-cancel")
    page.wait_for_function("() => document.getElementById('ask-progress').textContent === 'Cancelled.'")
    assert page.locator("#ask-send").is_enabled()


def test_a_full_queue_and_a_server_that_goes_are_said(asking: Any, opened: Any) -> None:
    """The last test with this server: it is killed while it writes."""
    address, clip, _, process = asking
    page = opened(address)
    at_ask(page)
    page.set_input_files("#ask-file", str(clip))
    page.fill("#ask-question", "What is said?")
    page.evaluate(
        """async () => {
            const { items } = await (await fetch("api/items")).json();
            window.statuses = [];
            window.filling = setInterval(async () => {  // answers may come faster than one click: it's kept full
                const asked = await fetch(`api/ask?question=What&key=${items[0].key}`, { method: "POST" });
                window.statuses.push(asked.status);
            }, 20);
        }"""
    )
    page.wait_for_function("() => window.statuses.includes(429)")
    page.wait_for_function(
        """() => {
            const { textContent } = document.getElementById("ask-progress");
            if (textContent.includes("as many questions wait as may")) return true;
            const { hidden } = document.getElementById("ask-cancel");
            document.getElementById(hidden ? "ask-send" : "ask-cancel").click();  // one that came in is taken back
            return false;
        }""",
        polling=200,
    )
    page.evaluate("clearInterval(window.filling)")
    page.wait_for_function(
        """() => {
            if (!document.getElementById("ask-cancel").hidden) return true;
            document.getElementById("ask-send").click();
            return false;
        }""",
        polling=200,
    )
    process.kill()
    process.wait()
    page.wait_for_selector("text=the server does not answer")
    assert page.locator("#ask-send").is_enabled()
    page.get_by_role("button", name="Look").click()
    page.keyboard.press("j")
    page.wait_for_selector("#item >> text=the server does not answer")
