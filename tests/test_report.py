import base64
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from page_reader import Page
from tgsr import audio
from tgsr.choices import letter
from tgsr.data.corpora.spoken_digits import DigitClip, compose
from tgsr.errors import NothingDone, RecordError
from tgsr.evaluation.controls.metrics import Controls
from tgsr.evaluation.scoring.metrics import ChoiceScores, Difference
from tgsr.evaluation.scoring.score import read_predictions, score
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.evidence import EvidenceScores
from tgsr.records import Question, Response, write_jsonl
from tgsr.report.figures import line_panel, ticks
from tgsr.report.items import choose_items, group_by_question
from tgsr.report.page import content_hash
from tgsr.report.question_sets import QuestionSet, difference_to
from tgsr.report.results import Results, read_curves
from tgsr.report.typeset import Column, Group, Table, TableRow, html
from tgsr.report.verdict import dated, verdict
from tgsr.report.write import report
from tgsr.statistics.intervals import NOT_MEASURED, Bootstrap, Mean, Quantiles
from tgsr.statistics.pictures import MODEL_COLOURS, Curve, curve_panels, smoothed, stated
from tgsr.timeline import Span

MODELS = ("mini", "mini:sta", "mini:tgsr")
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NASTY = "evil\"><script>alert('model')</script>$x_1$"


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


def page_of(folder: Path, responses: Sequence[Response], **options: int) -> Page:
    write_jsonl(folder / "predictions.jsonl", responses)
    return page_in(
        report([folder / "predictions.jsonl"], folder / "page.html", title="A <b>run</b>", **options)
    )


def page_in(path: Path) -> Page:
    page = Page(path)
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


def full_run(folder: Path) -> Path:
    """Everything that a page can show, under names that would rather be markup."""
    run = folder / "run"
    (run / "sta").mkdir(parents=True)
    made = [clip_in(run, seed) for seed in range(3)]
    questions = [phrase(m) for m in made] + [choice(m) for m in made]
    responses = [
        Response(q, m, f"{exact(q)}\n(b)" if m != NASTY else "(a)") for q in questions for m in (NASTY, "b")
    ]
    write_jsonl(run / "predictions.jsonl", responses)
    mean = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "n_unscored": 0}
    behaved = {"n": 9, "regions_strict": mean, "regions_official": mean, "verify": mean, "accuracy": mean}
    (run / "behaviour.json").write_text(json.dumps({"models": {NASTY: behaved, "b": behaved}}))
    changed = {"accuracy": mean, "same_answer": mean, "n": 9}
    controlled = {"n": 9, "conditions": {"<i>silence</i>": changed}, "sufficiency": mean, "necessity": mean}
    (run / "controls.json").write_text(json.dumps({"models": {NASTY: controlled}}))
    by_layer = {"all": {"audio": [0.1, 0.3]}, "times": {"audio": [0.2, float("nan")]}}
    looked = {"n": 9, "by_phase": {"all": {"audio": mean}}, "by_layer": by_layer, "audio_per_token": None}
    (run / "attention.json").write_text(json.dumps({NASTY: looked, "b": looked}))
    for name in ("attention.png", "controls.png"):
        (run / name).write_bytes(PIXEL)
    rows = "".join(f'{{"step": {i}, "loss": {1 / i}}}\n' for i in range(1, 9))
    (run / "sta" / "metrics.jsonl").write_text(rows)
    (run / "sta" / "run.json").write_text('{"stage": "<u>sta</u>"}')
    return run


def test_a_folder_gets_the_page_the_same_in_markdown_and_the_tables(tmp_path: Path) -> None:
    page = page_in(report([full_run(tmp_path)], tmp_path / "report", title="A <b>run</b>", published=True))
    heads = [text for _, text in page.all("h2")]
    assert heads == [
        "What the numbers say",
        "Does the evidence hold?",
        "Where is this phrase said?",
        "Which answer is right, and what supports it?",
        "How responses reason",
        "Does the answer rest on the sound?",
        "Where models look while they answer",
        "Learning",
        "Questions, responses and their evidence",
        "How this page was made",
    ]
    text = (tmp_path / "report" / "report.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        *heads[:-2],
        "Responses without usable times",
    ]
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert len(pictures) == 10
    for name in pictures:
        assert (tmp_path / "report" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for caption in [text for _, text in page.all("caption")]:
        assert caption in text.replace("\\", "")
    names = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert {"tables.md", "table-1.tex", "table-2.csv", "table-3.md", "table-4.md"} <= names
    assert "published (other data, other hardware)" in page.text
    assert not list(tmp_path.rglob("*.tmp"))


def results_of(
    accuracies: dict[str, Mean],
    apart: Sequence[Difference] = (),
    controls: dict[str, Controls] | None = None,
    evidence: EvidenceScores | None = None,
) -> Results:
    """Results of one set of questions with four choices."""
    scored = {
        name: ChoiceScores(
            mean.n, mean, mean, 0.25, {}, {}, mean, mean, mean, mean, NOT_MEASURED, 0, 0, 0, 0, 0, evidence=evidence
        )
        for name, mean in accuracies.items()
    }  # fmt: skip
    sets = (QuestionSet("split test", "test", choice=scored, differences=tuple(apart)),)
    nothing: dict[str, Any] = {key: {} for key in ("written_by", "behaviour", "attention")}
    nothing |= dict.fromkeys(
        ("sources", "pictures", "curves", "watched", "watch_warnings", "others", "notes"), ()
    )
    return Results(
        models=tuple(accuracies), sets=sets, spoken=Spoken([], beside=[]), controls=controls or {}, **nothing
    )


def test_the_verdict_claims_only_what_intervals_show() -> None:
    unsure, sure = Mean(0.4, 0.2, 0.6, 20, 0), Mean(0.9, 0.8, 1.0, 20, 0)
    hits = Mean(0.1, -0.1, 0.3, 20, 0)
    apart = Difference("mini", "sure", 20, Mean(0.5, 0.3, 0.7, 20, 0), 0, None, evidence_hit=hits)
    controls = {"sure": Controls(20, reliance_silenced=Mean(0.0, -0.1, 0.1, 20, 0))}
    results = results_of({"mini": unsure, "sure": sure}, [apart], controls)
    assert verdict(results) == [
        "mini is right in 40.0 % [20.0, 60.0] of 20 questions, which cannot be told from chance (25 %).",
        "sure is right in 90.0 % [80.0, 100.0] of 20 questions, above chance (25 %).",
        "sure beside mini: has more in right answers (50.0 points [30.0, 70.0]); no difference can be told in evidence "
        "cited (10.0 points [-10.0, 30.0]).",
        "sure: it may not listen at all: 0.0 points [-10.0, 10.0] of accuracy are lost in silence.",
    ]
    assert "tgsr 0" in dated(date(2026, 11, 9))
    assert "9 November 2026" in dated(date(2026, 11, 9))


@pytest.mark.parametrize(
    ("n_right", "n", "told"),
    [
        (2, 2, "which cannot be told from chance"),  # a guess has both in 1 of 16
        (3, 3, "above chance"),  # 1 of 64
        (0, 10, "which cannot be told from chance"),  # 0.75^10 = 0.056
        (0, 13, "below chance"),  # 0.024
    ],
)
def test_an_interval_without_width_is_no_proof(n_right: int, n: int, told: str) -> None:
    """All right, or all wrong: the bootstrap's interval is a point, however few questions there are."""
    share = n_right / n
    (said,) = verdict(results_of({"m": Mean(share, share, share, n, 0)}))
    assert said.endswith(f"of {n} questions, {told} (25 %).")


@pytest.mark.parametrize(
    ("n_better", "n", "told"),
    [
        (4, 100, "no difference can be told in right answers (4.0 points [1.0, 8.0], p 0.1"),  # exact: 2/16
        (8, 100, "has more in right answers (8.0 points ["),  # 2/256
        (3, 3, "no difference can be told in right answers (100.0 points [100.0, 100.0] of 3 alone)"),
    ],
)
def test_few_questions_that_differ_are_no_difference_though_their_interval_leaves_0_out(
    n_better: int, n: int, told: str
) -> None:
    difference, p = Bootstrap().paired([1.0] * n_better + [0.0] * (n - n_better), range(n))
    apart = Difference("first", "other", n, difference, 0, None, p_accuracy_official=p)
    same = Mean(0.5, 0.4, 0.6, n, 0)
    assert difference is not None
    assert difference.low is not None
    assert difference.low > 0
    assert verdict(results_of({"first": same, "other": same}, [apart]))[-1].startswith(
        f"other beside first: {told}"
    )


@pytest.mark.parametrize(
    ("above", "told"),
    [
        (Mean(0.2, 0.1, 0.3, 20, 0), "its times fit their own clips better than other clips (0.20 ["),
        (Mean(0.1, -0.1, 0.3, 20, 0), "it cannot be told that its times fit their own clips better than other"),
        (Mean(-0.2, -0.3, -0.1, 20, 0), "its times fit their own clips worse than other clips (-0.20 ["),
        (Mean(0.5, 0.4, 0.6, 2, 0), "better than other clips (0.50 [0.40, 0.60] of 2 alone IoU)"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_not_said_to_be_not_so(above: Mean, told: str) -> None:
    share, times = Mean(0.5, 0.4, 0.6, 20, 0), Quantiles(None, None, 0)
    evidence = EvidenceScores(
        20, 20, 0, share, share, above, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, times, times, NOT_MEASURED,
        NOT_MEASURED, None, None, 20, 0, share,
    )  # fmt: skip
    (said,) = verdict(results_of({"m": share}, evidence=evidence))
    assert told in said


@pytest.mark.parametrize(
    ("silenced", "p", "told"),
    [
        (Mean(0.4, 0.2, 0.6, 20, 0), 0.001, "m: 40.0 points [20.0, 60.0] of accuracy are lost in silence."),
        (Mean(0.04, 0.01, 0.08, 100, 0), 0.125, "m: it may not listen at all: 4.0 points [1.0, 8.0], p 0.12 of"),
        (Mean(-0.4, -0.6, -0.2, 20, 0), 0.001, "m: the sound misleads it: -40.0 points [-60.0, -20.0] of"),
    ],
)  # fmt: skip
def test_what_is_lost_in_silence_is_as_sure_as_its_test(silenced: Mean, p: float, told: str) -> None:
    controls = {"m": Controls(20, reliance_silenced=silenced, p_reliance_silenced=p)}
    said = verdict(results_of({"m": Mean(0.5, 0.4, 0.6, 20, 0)}, controls=controls))
    assert said[-1].startswith(told)


def test_a_difference_turned_round_is_turned_in_all_its_numbers() -> None:
    more = Mean(0.2, 0.1, 0.3, 10, 0)
    one = Difference("a", "b", 10, more, 0, None, accuracy_strict=more, n_only_model=1, n_only_other=3)
    turned = difference_to("b", "a", QuestionSet("split test", "test", differences=(one,)))
    assert turned is not None
    assert turned.accuracy_official == turned.accuracy_strict == Mean(-0.2, -0.3, -0.1, 10, 0)
    assert (turned.n_only_model, turned.n_only_other) == (3, 1)
    none = replace(one, accuracy_official=Mean(0.0, 0.0, 0.0, 10, 0))
    turned = difference_to("b", "a", QuestionSet("split test", "test", differences=(none,)))
    assert turned is not None
    assert str(turned.accuracy_official) == str(
        none.accuracy_official
    )  # not -0.0, which reads as less than 0


def test_a_cell_says_its_column_where_a_phone_shows_a_row_as_a_block() -> None:
    table = Table("t", "T", "model", (Column("accuracy", "%"),), (Group("", (TableRow("m", (1.0,)),)),))
    assert '<td data-head="accuracy (%)">' in html(table)


def test_no_name_of_a_model_a_file_or_a_condition_is_markup(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    (run / "deep<img src=x>").mkdir()
    (run / "deep<img src=x>" / "behaviour.json").write_text('{"half')
    page = page_in(report([run], tmp_path / "page.html", title="A <b>run</b>"))
    assert len(page.all("script")) == 1
    assert not [attrs for attrs, _ in page.all("b") if attrs]
    assert not page.all("i")
    assert not page.all("u")
    assert {str(attrs["src"])[:22] for attrs, _ in page.all("img")} == {"data:image/png;base64,"}
    assert not [attrs for _, attrs, _ in page.elements if any(name.startswith("on") for name in attrs)]
    (notes,) = page.all("aside", "notes")
    assert "deep<img src=x>/behaviour.json:1: is half-written" in notes[1]
    markdown = tmp_path / "folder"
    report([run], markdown, title="A <b>run</b>")
    assert "<script" not in (markdown / "report.md").read_text()
    assert "<img" not in (markdown / "report.md").read_text()


def test_what_could_not_be_read_is_at_the_top_of_the_page(tmp_path: Path) -> None:
    run = full_run(tmp_path)
    (run / "controls.json").write_text("{")
    path = run / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    page = page_in(report([run], tmp_path / "page.html", title="t"))
    (notes,) = page.all("aside", "notes")
    assert "controls.json" in notes[1]
    assert "predictions.jsonl:12: the last line is half-written" in notes[1]
    assert page.html.index("<aside") < page.html.index("<section")
    assert "Does the answer rest on the sound?" not in page.text
    assert len(page.all("article")) == 6  # of the eleven responses to six questions
    kept = (tmp_path / "page.html.errors.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["line"] for row in kept] == [12]
    report([run], tmp_path / "folder", title="t")
    assert len((tmp_path / "folder" / "errors.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_models_go_by_the_labels_they_were_given_everywhere(tmp_path: Path) -> None:
    page = page_in(report([full_run(tmp_path)], tmp_path / "page.html", title="t", rows=["Ours=b"]))
    assert NASTY not in page.text
    assert [text for _, text in page.all("ul", "legend")[:1]] == ["Ours"]
    assert {text[:4] for _, text in page.all("p", "who")} == {"Ours"}


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
    report([tmp_path / "a.jsonl", tmp_path / "deep" / "b.jsonl"], out, title="t")
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


def test_no_page_is_made_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(NothingDone, match=r"predictions\.jsonl: no response and no score"):
        page_of(tmp_path, [])


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
        assert f"{iou.value:.4f}[{iou.low:.4f}, {iou.high:.4f}]" in cells
        assert f"{trace.value:.3f}[{trace.low:.3f}, {trace.high:.3f}]" in cells
    assert "100.0[100.0, 100.0]" in cells  # mini:tgsr is always right
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
    assert any("difference to the first row" in text for text in captions)
    assert "mini:tgsr less mini" in [text for _, text in page.all("th")]
    assert [text for _, text in page.all("td")].count("100.0") >= 1
    alone = page_of(tmp_path, responses[:1])
    assert not any("difference to the first row" in text for _, text in alone.all("caption"))


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
    items = choose_items(asked, ["first", "last"], 12, 0)
    by_rule: dict[str, list[int]] = {}
    for item, rule in items:
        by_rule.setdefault(rule, []).append(number[item.question.id])
    assert {rule: len(found) for rule, found in by_rule.items()} == {
        "last is right, first is wrong": 3,
        "among last’s best responses": 3,
        "among last’s worst responses": 3,
        "chosen at random": 3,
    }
    assert all(i % 2 and i % 3 for i in by_rule["last is right, first is wrong"])
    assert all(i % 3 for i in by_rule["among last’s best responses"])
    assert all(i % 3 == 0 for i in by_rule["among last’s worst responses"])
    assert len({item.question.id for item, _ in items}) == 12
    kinds = {item.question.kind for item, rule in items if rule == "among last’s worst responses"}
    assert kinds == {"phrase", "choice"}
    assert choose_items(asked, ["first", "last"], 12, 0) == items
    assert choose_items(asked, ["first", "last"], 12, 1) != items
    assert len(choose_items(asked, ["first", "last"], 99, 0)) == len(questions)


def test_the_best_and_the_worst_are_so_by_their_spans_too(tmp_path: Path) -> None:
    made = [clip_in(tmp_path, seed) for seed in range(3)]
    questions = [choice(m) for m in made]
    texts = [f"{exact(questions[0])}\n(b)", "(b)", f"{exact(questions[2])}\n(a)"]  # 1, 0.5, 0.5 of 1
    responses = [Response(q, "one", text) for q, text in zip(questions, texts, strict=True)]
    items = choose_items(group_by_question([(tmp_path / "p.jsonl", responses)]), ["one"], 4, 0)
    best = next(item for item, rule in items if rule == "among one’s best responses")
    worst = next(item for item, rule in items if rule == "among one’s worst responses")
    assert best.question == replace(questions[0], audio=best.question.audio)
    assert worst.question.id != questions[0].id


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


def panel(*points: float, name: str = "loss") -> str:
    curve = Curve("run", "step", name, tuple(float(x) for x in range(len(points))), points)
    return line_panel(curve_panels([curve])[0])


def test_a_curve_of_one_point_and_one_with_nan_can_be_drawn() -> None:
    flat = panel(1.0, name="a<b")
    assert "a&lt;b" in flat
    assert "nan" not in flat
    broken = panel(1.0, float("nan"), 2.0)
    assert "1 of 3 points are not finite" in broken
    assert not re.search(r'd="[^"]*nan', broken)
    assert "<svg" not in panel(float("inf"))


def test_runs_that_share_a_quantity_share_a_plot_and_others_do_not() -> None:
    curves = [
        Curve(run, "step", name, (1.0, 2.0), (0.1, 0.2))
        for run, name in (("a", "reward"), ("b", "reward"), ("a", "k"))
    ]
    panels = curve_panels(curves)
    assert [(p.title, [(line.name, line.tint) for line in p.lines]) for p in panels] == [
        ("reward", [("a", "m0"), ("b", "m1")]),
        ("k", [("a", "m0")]),
    ]
    assert curve_panels(curves[:1])[0].lines[0].tint == ""  # nobody to be told apart from


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
    style = (Path(report.__code__.co_filename).parent / "page.css").read_text()
    light = style[: style.index("@media")]
    assert tuple(re.findall(r"--m\d: (#\w+)", light)) == MODEL_COLOURS


def test_entities_that_a_model_wrote_are_shown_as_it_wrote_them(tmp_path: Path) -> None:
    made = clip_in(tmp_path)
    page = page_of(tmp_path, [Response(choice(made), "mini", "&lt;b&gt; from 0.1 s to 0.2 s")])
    assert page.all("p", "text")[0][1] == "&lt;b&gt; from 0.1 s to 0.2 s"
    assert "b & c" in page.all("ul", "choices")[0][1]
