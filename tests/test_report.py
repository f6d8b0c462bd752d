import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from page_reader import Page
from tgsr import audio
from tgsr.choices import letter
from tgsr.corpora.spoken_digits import DigitClip, compose
from tgsr.evaluation.score import read_predictions, score
from tgsr.records import Question, RecordError, Response, write_jsonl
from tgsr.report.figures import MODEL_COLOURS, Curve, curve_panel, smoothed, stated, ticks, waveform_figure
from tgsr.report.items import choose_items, group_by_question
from tgsr.report.page import content_hash, read_curves, write_page
from tgsr.timeline import Span

MODELS = ("mini", "mini:sta", "mini:tgsr")


def clip_in(folder: Path, seed: int = 1) -> DigitClip:
    made = compose(seed, "heldout-recordings")
    (folder / "audio").mkdir(exist_ok=True)
    made = replace(made, clip=replace(made.clip, audio=f"audio/{made.clip.id}.wav"))
    audio.save_wav(folder / made.clip.audio, made.samples)
    return made


def phrase(made: DigitClip, name: str = "phrase") -> Question:
    words = made.clip.words[:2]
    text = " ".join(word.text for word in words)
    span = Span(words[0].start, words[-1].end)
    clip = made.clip
    return Question(
        f"{clip.id}-{name}", clip.id, clip.audio, clip.duration, "phrase", text,
        phrase=text, evidence=(span,), task="phrase", split=clip.split,
    )  # fmt: skip


def choice(made: DigitClip, name: str = "choice") -> Question:
    clip = made.clip
    return Question(
        f"{clip.id}-{name}", clip.id, clip.audio, clip.duration, "choice", "Which is first?",
        answer="b & c", choices=("a", "b & c", "d"), evidence=(clip.words[0].span,), task="first", split=clip.split,
    )  # fmt: skip


def page_of(
    folder: Path, responses: Sequence[Response], curves: Sequence[Curve] = (), **options: int
) -> Page:
    write_jsonl(folder / "predictions.jsonl", responses)
    write_page(folder / "page.html", [folder / "predictions.jsonl"], curves, title="A <b>run</b>", **options)
    page = Page(folder / "page.html")
    # the html parser closes nothing by itself: what is still open was never closed
    assert [tag for tag, _ in page.open] == []
    return page


def exact(question: Question) -> str:
    span = question.evidence[0]
    return f"From {span.start} s to {span.end} s."


def test_markup_in_a_models_text_stays_text(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    hostile = (
        "<script>alert(1)</script><img src=x onerror='alert(2)'> \"quoted\" 'too' &amp; "
        '<b onclick="x">from 0.2 s to 0.5 s</b> </p></article><!-- \u202e ]]>\nFinal answer: (b) b & c'
    )
    nasty = "evil\"><script>alert('model')</script>"
    page = page_of(tmp_path, [Response(choice(made), nasty, hostile)])
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not [attrs for _, attrs, _ in page.elements if any(name.startswith("on") for name in attrs)]
    assert page.all("p", "text")[0][1] == hostile
    assert nasty in page.text
    (cite, words) = page.all("span", "cite")[0]
    assert words == "0.2 s to 0.5 s"
    assert (cite["data-start"], cite["data-end"]) == ("0.2", "0.5")


def test_half_a_surrogate_pair_in_a_response_does_not_break_the_page(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    page = page_of(tmp_path, [Response(choice(made), "mini", "so \ud83d from 0.1 s to 0.3 s")])
    assert len(page.all("span", "cite")) == 1


def test_nothing_is_loaded_from_elsewhere_and_only_our_script_may_run(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    page = page_of(tmp_path, [Response(phrase(made), m, exact(phrase(made))) for m in MODELS])
    sources = [
        attrs[key] for _, attrs, _ in page.elements for key in ("src", "href", "data") if attrs.get(key)
    ]
    assert len(sources) == 1
    assert str(sources[0]).startswith("data:audio/wav;base64,")
    rest = re.sub(r"data:audio/wav;base64,[\w+/=]+", "", page.html)
    assert not re.search(r"https?:|url\(|@import|@font-face|<link|<iframe", rest)
    policy = next(attrs["content"] for attrs, _ in page.all("meta") if attrs.get("http-equiv"))
    assert "default-src 'none'" in str(policy)
    assert f"script-src '{content_hash(page.all('script')[0][1])}'" in str(policy)
    assert f"style-src '{content_hash(page.all('style')[0][1])}'" in str(policy)
    assert not [attrs for _, attrs, _ in page.elements if "style" in attrs]  # the policy forbids them


def test_every_mention_is_a_button_and_an_impossible_one_is_crossed_out(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    length = made.clip.duration
    text = f"From 0.2 s to 0.5 s, [1.0s - 1.5s], 3.0 to 2.0 seconds, from 0.5 s to {length + 2} s, 900-901 s."
    page = page_of(tmp_path, [Response(choice(made), "mini", text)])
    cites = page.all("span", "cite")
    assert all(attrs["role"] == "button" and attrs["tabindex"] == "0" for attrs, _ in cites)
    stated_times = [(float(str(a["data-start"])), float(str(a["data-end"]))) for a, _ in cites]
    assert stated_times == [(0.2, 0.5), (1.0, 1.5), (3.0, 2.0), (0.5, length + 2), (900.0, 901.0)]
    assert [words for _, words in page.all("s")] == [words for _, words in cites[2:]]
    blocked = [attrs.get("aria-disabled") for attrs, _ in cites]
    assert blocked == [None, None, "true", None, "true"]  # half of the fourth can be heard
    lanes = [a for a, _ in page.all("g", "band") if str(a["aria-label"]).startswith("mini")]
    assert sorted((a["class"], a["data-start"]) for a in lanes) == sorted(
        [
            ("band", "0.2"),
            ("band", "1.0"),
            ("band wrong", "3.0"),
            ("band wrong", "0.5"),
            ("band wrong", "900.0"),
        ]
    )
    assert page.all("p", "text")[0][1] == text


def test_an_end_that_is_only_rounded_past_the_clip_is_no_error() -> None:
    assert stated(1.0, 2.04, 2.0).problem is None
    assert stated(1.0, 2.06, 2.0).problem == "runs past the end of the clip"
    assert not stated(2.0, 3.0, 2.0).is_audible
    assert not stated(-1.0, 1.0, 2.0).is_audible


def test_bars_never_leave_the_picture(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    length = made.clip.duration
    text = f"From 0 s to 0.001 s, from {length - 0.001:.3f} s to {length:.3f} s, from 1 s to 99 s, 99-98 s."
    page = page_of(tmp_path, [Response(choice(made), "mini", text)])
    bars = [a for a, _ in page.all("rect") if a.get("rx")]
    assert len(bars) == 5  # and the evidence
    for bar in bars:
        left, width = (float(str(bar[key]).rstrip("%")) for key in ("x", "width"))
        assert left >= 0
        assert width > 0
        assert left + width <= 100.01


def test_a_clip_is_there_once_however_many_questions_are_about_it(tmp_path: Path) -> None:
    one, other = clip_in(tmp_path, 1), clip_in(tmp_path, 2)
    questions = [phrase(one), choice(one), phrase(other)]
    page = page_of(tmp_path, [Response(q, m, "From 0.1 s to 0.4 s.") for q in questions for m in MODELS])
    sounds = [attrs["id"] for attrs, _ in page.all("audio")]
    items = [attrs["data-audio"] for attrs, _ in page.all("article")]
    assert len(sounds) == len(set(sounds)) == 2
    assert len(items) == 3
    assert set(items) == set(sounds)


def test_one_question_in_two_folders_is_one_item(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    question = phrase(made)
    (tmp_path / "deep").mkdir()
    elsewhere = replace(question, audio=f"../{question.audio}")
    write_jsonl(tmp_path / "a.jsonl", [Response(question, "mini", "From 0.1 s to 0.4 s.")])
    write_jsonl(tmp_path / "deep" / "b.jsonl", [Response(elsewhere, "mini:sta", "From 0.1 s to 0.4 s.")])
    out = tmp_path / "new" / "page.html"
    write_page(out, [tmp_path / "a.jsonl", tmp_path / "deep" / "b.jsonl"], [], title="t")
    page = Page(out)
    assert len(page.all("article")) == 1
    assert len(page.all("div", "response")) == 2
    assert not list(out.parent.glob("*.tmp"))


def test_a_clip_that_is_missing_is_said_on_its_item_and_the_others_play(tmp_path: Path) -> None:
    one, other = clip_in(tmp_path, 1), clip_in(tmp_path, 2)
    (tmp_path / one.clip.audio).unlink()
    page = page_of(tmp_path, [Response(phrase(m), "mini", "From 0.1 s to 0.4 s.") for m in (one, other)])
    notes = page.all("p", "unheard")
    assert len(notes) == 1
    assert "no such file" in notes[0][1]
    assert one.clip.id in notes[0][1]
    assert len(page.all("audio")) == 1
    assert sorted(str(attrs.get("aria-disabled")) for attrs, _ in page.all("span", "cite")) == [
        "None",
        "true",
    ]


def test_a_page_without_any_response_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, [])
    assert "no responses" in page.text
    write_page(tmp_path / "none.html", [], [], title="nothing")
    assert "no responses" in Page(tmp_path / "none.html").text


@pytest.mark.parametrize(
    ("make", "there", "absent"), [(phrase, "phrase", "answer"), (choice, "answer", "phrase")]
)
def test_a_kind_of_question_that_nobody_asked_has_no_table(
    make: type, there: str, absent: str, tmp_path: Path
) -> None:
    made = clip_in(tmp_path)
    page = page_of(tmp_path, [Response(make(made), "mini", "")])
    heads = {"phrase": "Where is this phrase said?", "answer": "Which answer is right, and what supports it?"}
    found = [text for _, text in page.all("h2")]
    assert heads[there] in found
    assert heads[absent] not in found
    assert "(an empty response)" in page.text


def test_the_tables_numbers_are_the_scores_own(tmp_path: Path) -> None:
    made = [clip_in(tmp_path, seed) for seed in range(4)]
    questions = [phrase(m) for m in made] + [choice(m) for m in made]
    texts = {"mini": "From 0.1 s to 0.4 s.\n(a)", "mini:tgsr": "From 0.3 s to 0.9 s.\n(b)"}
    page = page_of(tmp_path, [Response(q, m, text) for m, text in texts.items() for q in questions])
    models = score(read_predictions(tmp_path / "predictions.jsonl")).models
    cells = [text for _, text in page.all("td")]
    for model in texts:
        group = models[model].by_split["heldout-recordings"]
        assert group.phrase is not None
        assert group.choice is not None
        iou, trace = group.phrase.iou, group.choice.trace_iou
        assert f"{iou.value:.3f}{iou.low:.3f}–{iou.high:.3f}" in cells
        assert f"{trace.value:.3f}{trace.low:.3f}–{trace.high:.3f}" in cells
    assert "100.0100.0–100.0" in cells  # mini:tgsr is always right
    assert "33.3" in cells  # by chance, of three


def test_models_are_compared_on_the_same_questions(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    question = choice(made)
    wrong = next(c for c in question.choices if c != question.answer)
    texts = {"mini": wrong, "mini:tgsr": str(question.answer)}
    responses = [
        Response(question, model, f"Final answer: {text} ({letter(question.choices.index(text))})")
        for model, text in texts.items()
    ]
    page = page_of(tmp_path, responses)
    captions = [text for _, text in page.all("caption")]
    assert any("Difference in accuracy" in text for text in captions)
    assert "mini:tgsr less mini" in [text for _, text in page.all("th")]
    assert [text for _, text in page.all("td")].count("100.0") >= 1
    alone = page_of(tmp_path, responses[:1])
    assert not any("Difference in accuracy" in text for _, text in alone.all("caption"))


def test_items_are_chosen_by_rules_that_hold_and_by_the_seed(tmp_path: Path) -> None:
    made = [clip_in(tmp_path, seed) for seed in range(12)]
    questions = [phrase(m) for m in made] + [choice(m) for m in made]
    responses = []
    for index, question in enumerate(questions):
        right = exact(question) if question.kind == "phrase" else "(b)"
        wrong = "From 0 s to 0.01 s." if question.kind == "phrase" else "(a)"
        responses.append(Response(question, "first", wrong if index % 2 else right))
        responses.append(Response(question, "last", wrong if index % 3 == 0 else right))
    asked = group_by_question([(tmp_path / "p.jsonl", responses)])
    number = {question.id: index for index, question in enumerate(questions)}
    items = choose_items(asked, ["first", "last"], 9, 0)
    by_rule: dict[str, list[int]] = {}
    for item, rule in items:
        by_rule.setdefault(rule, []).append(number[item.question.id])
    assert {rule: len(found) for rule, found in by_rule.items()} == {
        "last is right, first is wrong": 3,
        "last is wrong": 3,
        "chosen at random": 3,
    }
    assert all(i % 2 and i % 3 for i in by_rule["last is right, first is wrong"])
    assert all(i % 3 == 0 for i in by_rule["last is wrong"])
    assert len({item.question.id for item, _ in items}) == 9
    assert {item.question.kind for item, rule in items if rule == "last is wrong"} == {"phrase", "choice"}
    assert choose_items(asked, ["first", "last"], 9, 0) == items
    assert choose_items(asked, ["first", "last"], 9, 1) != items
    assert len(choose_items(asked, ["first", "last"], 99, 0)) == len(questions)


def test_a_log_that_is_still_written_to_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    content = b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0, "kl": null}\n{"step": 3, "lo'
    log.write_bytes(content)
    assert read_curves(log, ("loss", "kl", "reward")) == [
        Curve("loss", "step", "loss", (1.0, 2.0), (2.0, 1.0))
    ]
    assert log.read_bytes() == content


@pytest.mark.parametrize(
    ("line", "says"),
    [('{"step": 2, "lo', "JSON"), ('{"loss": 1}', "step"), ('{"step": 2, "loss": "x"}', "loss")],
)
def test_a_broken_line_of_a_log_is_named(line: str, says: str, tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(f'{{"step": 1, "loss": 2.0}}\n{line}\n{{"step": 3, "loss": 1.0}}\n')
    with pytest.raises(RecordError, match=rf"metrics\.jsonl:2: .*{says}"):
        read_curves(log, ("loss",))


def test_a_curve_of_one_point_and_one_with_nan_can_be_drawn() -> None:
    flat = curve_panel(Curve("a<b", "step", "loss", (5.0,), (1.0,)))
    assert "a&lt;b" in flat
    assert "nan" not in flat
    broken = curve_panel(Curve("loss", "step", "loss", (1.0, 2.0, 3.0), (1.0, float("nan"), 2.0)))
    assert "1 of 3 points are not finite" in broken
    assert not re.search(r'd="[^"]*nan', broken)
    assert "<svg" not in curve_panel(Curve("loss", "step", "loss", (1.0,), (float("inf"),)))


def test_smoothing_keeps_a_constant_and_averages_neighbours() -> None:
    assert smoothed([2.0] * 50) == [2.0] * 50
    assert smoothed([0.0, 3.0, 0.0]) == [1.5, 1.0, 1.5]


@pytest.mark.parametrize("duration", [0.3, 1.0, 2.0, 9.7, 10.0, 61.0, 600.0])
def test_ticks_are_few_and_inside_the_clip(duration: float) -> None:
    times = ticks(duration)
    assert times[0] == 0
    assert 2 <= len(times) <= 12
    assert times[-1] <= duration


def test_a_model_has_one_colour_in_the_page_and_in_the_figure() -> None:
    style = (Path(stated.__code__.co_filename).parent / "page.css").read_text()
    light = style[: style.index("@media")]
    assert tuple(re.findall(r"--m\d: (#\w+)", light)) == MODEL_COLOURS


def test_entities_that_a_model_wrote_are_shown_as_it_wrote_them(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    page = page_of(tmp_path, [Response(choice(made), "mini", "&lt;b&gt; from 0.1 s to 0.2 s")])
    assert page.all("p", "text")[0][1] == "&lt;b&gt; from 0.1 s to 0.2 s"
    assert "b & c" in page.all("ul", "choices")[0][1]


def test_a_figure_for_the_readme_is_a_png_of_its_lanes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = compose(1, "heldout-recordings")
    spans = [word.span for word in made.clip.words]
    waveform_figure(made.samples, spans[:1], {"mini": [], "mini:sta": spans[1:3]}, tmp_path / "few.png")
    waveform_figure(made.samples, spans[:1], {m: spans for m in "abcdefgh"}, tmp_path / "many.png")
    few, many = ((tmp_path / name).read_bytes() for name in ("few.png", "many.png"))
    assert few[:8] == many[:8] == b"\x89PNG\r\n\x1a\n"
    heights = [int.from_bytes(png[20:24], "big") for png in (few, many)]
    assert heights[1] > heights[0]
    with pytest.raises(ValueError, match="at least one sample"):
        waveform_figure(np.zeros(0, np.float32), [], {}, tmp_path / "none.png")
