"""Times in text: every notation seen, every look-alike, the official counter, and hostile text."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.grounding import (
    asked_span,
    count_distinct,
    count_mentions,
    find_asked,
    find_mentions,
    find_points,
    find_regions,
    find_spans,
    says_absent,
)
from tgsr.prompts import phrase_answer_af3, phrase_answer_qwen
from tgsr.timeline import Span

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TRACES = SHARED / "tgsr" / "traces_20.json"
OMNI = SHARED / "mmar" / "omni_400.jsonl"
CASES = Path(__file__).resolve().parent / "data" / "cases"


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("From 10.74s to 14.74s, the speaker says", 10.74, 14.74),
        ("From 6.20 seconds to 10.00 seconds, the", 6.2, 10.0),
        ("from 0.2 to 1.4 seconds", 0.2, 1.4),
        ("From about 1.2s to about 3.4s", 1.2, 3.4),
        ("From 0.2 to 1.4, the man laughs", 0.2, 1.4),
        ("starts at 12.02 seconds and ends at 14.34 seconds.", 12.02, 14.34),
        ("starts at 1.20 and ends at 3.40", 1.2, 3.4),
        ("Start: 1.2s, End: 3.4s", 1.2, 3.4),
        ("[0.00s – 4.30s]", 0.0, 4.3),
        ("[1.2s - 3.4s]", 1.2, 3.4),
        ("(1.2s - 3.4s)", 1.2, 3.4),
        ("(1.2s, 3.4s)", 1.2, 3.4),
        ("[1.2, 3.4] seconds", 1.2, 3.4),
        ("(0.27-2.95 s)", 0.27, 2.95),
        ("(12.05 – 14.29 s)", 12.05, 14.29),
        ("1.2s—3.4s", 1.2, 3.4),
        ("0:12 - 0:15", 12.0, 15.0),
        ("[0:12] to [0:15]", 12.0, 15.0),
        ("00:14:38,127 --> 00:14:40,000", 878.127, 880.0),
        ("<seg>1.2,3.4</seg>", 1.2, 3.4),
        ("between 3 and 5 seconds", 3.0, 5.0),
        ("between 1.2 and 3.4 seconds", 1.2, 3.4),
        ("**1.2s** to **3.4s**", 1.2, 3.4),
        ("from 1.2s\nto 3.4s", 1.2, 3.4),
        ("- 1.2s - 3.4s: hello", 1.2, 3.4),
        ("-1.2s - 3.4s", 1.2, 3.4),
        ("Speaker 1 - 1.2s - 3.4s", 1.2, 3.4),
        ("FROM 1.2S TO 3.4S", 1.2, 3.4),
    ],
)
def test_every_notation_that_models_write_is_read(text: str, start: float, end: float) -> None:
    assert find_spans(text) == [Span(start, end)]
    assert find_spans(f"First. {text} And then?") == [Span(start, end)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the 1930s to 1940s",
        "1930s to 1940s",
        "from the 1930s-1940s",
        "in the 60s to 70s",
        "11.0 - 1.6 = 9.4 seconds",
        "11.0s - 1.6s = 9.4s",
        "from 2 to 3 people",
        "from 0.5 to 0.8 points",
        "The rating rose from 2.5 to 3.5.",
        "options (3, 4)",
        "(a) or (b), 1-2",
        "from 1939 to 1945",
        "1990-2000",
        "a score of 3-2",
        "on 2024-01-05 s",
        "version 1.2.3 to 1.3.4 s",
        "call 555-12-34 s",
        "1s - 2s - 3s - 4s",
        "for 3 to 5 seconds",
        "a pause of 2-3 seconds",
        "lasts between 3 and 5 seconds",
        "2-3 seconds long",
        "from 30 seconds to 2 minutes",
        "from 1.5 to 2.5 kHz",
        "10:30 - 11:45 am",
        "1,000 to 2,000 seconds",
        "$3-5 s",
        "starts at 7 and ends at 9",
        "at 5.2s",
        "GPT-4 to 5 seconds",
        "0:75 - 0:80",
    ],
)
def test_look_alikes_are_no_spans(text: str) -> None:
    assert find_mentions(text) == []


@pytest.mark.parametrize("around", ["{}", "- {}", "({})", "First. {} And then?", "In 2019, {} Answer: (b)."])
@pytest.mark.parametrize("name", ["spans.jsonl", "spans_more.jsonl"])
def test_what_a_careful_reader_sees_is_read_and_nothing_else(name: str, around: str) -> None:
    """Common notations to at least 92 %, what is read right to at least 98 %, look-alikes at most 2 %."""
    cases = [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]
    before, after = around.split("{}")
    if before:  # a table, an object and lines of a list stand alone
        cases = [case for case in cases if not {"\n", "|", "{"} & set(case["text"])]
    n_common = n_found = n_read = n_right = n_look_alikes = n_taken = 0
    for case in cases:
        wanted = [tuple(pair) for pair in case["spans"]]
        read = [(span.start, span.end) for span in find_spans(before + case["text"] + after)]
        n_hits = sum((Counter(wanted) & Counter(read)).values())
        n_read, n_right = n_read + len(read), n_right + n_hits
        if case["common"] in ("very", "often"):
            n_common, n_found = n_common + len(wanted), n_found + n_hits
        elif case["common"] == "look-alike":
            n_look_alikes, n_taken = n_look_alikes + 1, n_taken + bool(read)
    assert n_found >= 0.92 * n_common
    assert n_right >= 0.98 * n_read
    assert n_taken <= 0.02 * n_look_alikes


def test_other_numbers_in_the_same_words_are_read_too() -> None:
    """Tens are no decades, nor are times past a minute, round ones or 0 something else."""
    dice = random.Random(4)
    n_read = 0
    for name in ("spans.jsonl", "spans_more.jsonl"):
        for case in map(json.loads, (CASES / name).read_text(encoding="utf-8").splitlines()):
            text, spans = case["text"], case["spans"]
            if case["common"] not in ("very", "often") or len(spans) != 1 or re.search(r"\d:\d", text):
                continue
            places = [
                [m for m in re.finditer(r"\d+(?:\.\d+)?", text) if float(m[0]) == time] for time in spans[0]
            ]
            if [len(found) for found in places] != [1, 1] or places[0][0].end() > places[1][0].start():
                continue
            first, last = places[0][0], places[1][0]
            for _ in range(3):
                if "." in first[0] + last[0]:
                    start = dice.choice((0.5, 1.0, 10.0, 12.34, 20.0, 40.0, 59.9, 75.25, 305.125))
                    end = start + dice.choice((0.25, 1.5, 10.75))
                    written = f"{start:.2f}", f"{end:.2f}"
                else:
                    start = dice.choice((1, 2, 7, 10, 20, 30, 60, 75, 100, 305))
                    written = f"{start}", f"{start + dice.choice((1, 5, 10, 20))}"
                other = text[: first.start()] + written[0] + text[first.end() : last.start()] + written[1]
                read = find_spans(other + text[last.end() :])
                assert [(span.start, span.end) for span in read] == [tuple(map(float, written))], other
                n_read += 1
    assert n_read > 1000


ASKED = [json.loads(line) for line in (CASES / "asked.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", ASKED, ids=range(len(ASKED)))
def test_an_answer_to_when_is_read_as_the_one_span_that_was_asked_for(case: dict[str, object]) -> None:
    span = asked_span(find_asked(str(case["text"]), str(case["phrase"])))
    assert (None if span is None else [span.start, span.end]) == case["span"]


@pytest.mark.parametrize("phrase", ["hello", "in 2 to 3 seconds", "from 1 to 2 seconds", "ends at 5"])
def test_the_papers_own_answers_are_read_whatever_phrase_they_repeat(phrase: str) -> None:
    for answer in (phrase_answer_qwen(phrase, Span(3.2, 5.6)), phrase_answer_af3(Span(3.2, 5.6))):
        assert asked_span(find_asked(answer, phrase)) == Span(3.2, 5.6)


@pytest.mark.skipif(not OMNI.exists(), reason=f"needs 400 answers of Qwen3-Omni: {OMNI.name}")
def test_real_thinking_is_read_whatever_marks_of_approximation_it_has() -> None:
    rows = [json.loads(line) for line in OMNI.read_text(encoding="utf-8").splitlines()]
    spans = [span for row in rows for span in find_spans(row["thinking_prediction"])]
    assert len(spans) == 157
    assert all(span.end < 100 for span in spans)  # no decade, no year


def test_spans_come_in_order_of_appearance_with_duplicates() -> None:
    text = "[5.0s - 6.0s] then <seg>1,2</seg>, from 3s to 4s, again (5.0-6.0 s)."
    assert find_spans(text) == [Span(5, 6), Span(1, 2), Span(3, 4), Span(5, 6)]
    assert count_distinct(text) == 3


def test_one_interval_in_two_notations_is_one_region() -> None:
    assert count_distinct("From 12s to 15.0 seconds, that is 0:12 - 0:15, (12.00-15.00 s)") == 1


def test_backward_intervals_are_counted_and_never_raised() -> None:
    text = "From 5.0s to 3.0s, from 2s to 2s, from -1.2s to 3.4s, from 1s to 2s"
    assert find_spans(text) == [Span(1, 2)]
    assert sum(not mention.is_valid for mention in find_mentions(text)) == 3
    assert [(m.start, m.end, m.span) for m in find_mentions(text)][:2] == [(5, 3, None), (2, 2, None)]


def test_offsets_mark_the_times_in_the_text_as_it_was_written() -> None:
    text = "İ *From* **1.20s** – 3.40 seconds; it starts at 5.0 seconds and ends at 6.0 seconds."
    marked = [text[m.text_start : m.text_end] for m in find_mentions(text)]
    assert marked == ["1.20s** – 3.40 seconds", "5.0 seconds and ends at 6.0 seconds"]


@pytest.mark.parametrize(
    ("text", "k"),
    [
        ("", 0),
        ("From 0.2 to 1.4 seconds", 2),
        ("From 6.20 seconds to 10.00 seconds", 1),
        ("From 10.74s to 14.74s", 1),
        ("is from 1 to 2", 1),
        ("from 2 to 3 people", 1),
        ("(3, 5)", 1),
        ("(3s, 5s)", 0),
        ("(1.2s-3.4s)", 1),
        ("(1.2 – 3.4)", 1),
        ("(1.2s — 3.4s)", 0),
        ("(1.2 s-3.4 s)", 0),
        ("(12.05 – 14.29 s)", 0),
        ("[0.2s - 1.4s]", 0),
        ("between 1 and 2 s", 0),
        ("0:12", 0),
        ("0:12 - 0:15", 0),
        ("STARTS AT 1 AND ENDS AT 2", 1),
        ("start at 1.5 second and end at 2.5 s", 1),
        ("starts at 1.2s, and ends at 3.4s", 0),
        ("1-2 seconds", 1),
        ("1s to 2 seconds", 0),
        ("1 – 2 second", 1),
        ("(1-2 seconds)", 1),
        ("from 1 to 2 s, from 1 to 2 s", 2),
    ],
)
def test_the_official_counter_counts_mentions_not_regions(text: str, k: int) -> None:
    assert count_mentions(text) == k


# The authors' five forms as one would write them down, without a thought for long runs.
_N, _U = r"(\d+\.?\d*)", r"(?:seconds|second|s)?"
PLAIN_FORMS = (
    rf"starts?\s+at\s+{_N}\s*{_U}\s+and\s+ends?\s+at\s+{_N}\s*{_U}",
    rf"(?:is\s+)?from\s+{_N}\s*{_U}\s*to\s+{_N}\s*{_U}",
    rf"\({_N}s?\s*[-–]\s*{_N}s?\)",
    rf"\({_N}\s*,\s*{_N}\)",
    rf"{_N}\s*(?:to|-|–)\s*{_N}\s*seconds?",
)
MENTIONS = [
    "It starts at 1.2 seconds and ends at 3.4 seconds. ",
    "start at 1 second and end at 3.4\nStarts at 5s and ends at 6 s",
    "is from 1.20s to 3.40s, ",
    "From 0.2 to 1.4 seconds ",
    "(1.2s-3.4s)",
    "(12.05 – 14.29)",
    "(3, 5.5)",
    "1-2 seconds",
    "7 to 8. second",
]
PIECES = [
    *"12. \n-–—(),[]sSxſ",
    "second",
    "seconds",
    "to",
    "from ",
    "starts at ",
    " and ",
    "ends at ",
    "is ",
    "2.5",
]


def plain_count(text: str) -> int:
    return sum(len(re.findall(form, text, re.IGNORECASE)) for form in PLAIN_FORMS)


@pytest.mark.parametrize(
    ("text", "k"),
    [
        ("starts at 3. and ends at 5.", 1),
        ("from 3. to 5.", 1),
        ("(3.-5.)", 1),
        ("(3., 5.)", 1),
        ("3.-5.seconds", 1),
        ("from 3to 5", 1),
        ("from 3.2sto 5", 1),
        ("starts at 1 and ends at 3.4\nStarts at 5 and ends at 6", 1),
        ("starts at 1 and ends at 3.4 seconds\nStarts at 5 and ends at 6", 2),
    ],
)
def test_the_official_counter_reads_as_loosely_as_the_authors(text: str, k: int) -> None:
    assert plain_count(text) == k
    assert count_mentions(text) == k


def test_the_fast_counter_agrees_with_the_plain_forms() -> None:
    dice = random.Random(20)
    n_counted = 0
    for _ in range(4000):
        text = list("".join(dice.choices(MENTIONS, k=dice.randint(1, 3))))
        for _ in range(dice.randint(0, 5)):
            at = dice.randrange(len(text) + 1)
            text[at : at + dice.choice((0, 0, 1, 1, 4))] = dice.choice(PIECES)
        written = "".join(text)
        assert count_mentions(written) == plain_count(written), written
        n_counted += plain_count(written) > 0
    assert n_counted > 2000


@given(st.lists(st.sampled_from(PIECES + MENTIONS), max_size=24).map("".join))
def test_the_fast_counter_agrees_on_pieces_in_any_order(text: str) -> None:
    assert count_mentions(text) == plain_count(text)


@pytest.mark.parametrize(
    "answer", ["I looked from 1 s to 9 s. Answer: 3-5", "From 1 s to 9 s?\n<answer>\n  **3-5**\n</answer>"]
)
def test_an_interval_at_the_head_of_the_answer_is_read_there(answer: str) -> None:
    (mention,) = find_asked(answer, "hello")
    assert mention.span == Span(3.0, 5.0)
    assert answer[mention.text_start : mention.text_end] == "3-5"


@given(st.lists(st.sampled_from(PIECES + MENTIONS) | st.text(max_size=4), max_size=24).map("".join))
def test_any_text_is_read_without_an_error(text: str) -> None:
    find_asked(text, text[:9])
    mentions = find_mentions(text)
    assert len(find_spans(text)) == sum(mention.is_valid for mention in mentions)
    bounds = [at for mention in mentions for at in (mention.text_start, mention.text_end)]
    assert bounds == sorted(bounds)
    assert all(0 <= at <= len(text) for at in bounds)


@given(
    st.integers(0, 9999),
    st.integers(1, 9999),
    st.sampled_from(
        [
            "From {}s to {}s",
            "starts at {} seconds and ends at {} seconds",
            "[{}s - {}s]",
            "({}-{} s)",
            "<seg>{},{}</seg>",
            "between {} and {} seconds",
            "从{}秒到{}秒",
            '{{"start": {}, "end": {}}}',
            "- **Start:** {}s\n- **End:** {}s",
            "<|{}|> hello <|{}|>",
            "~{}s – ~{}s",
            "| {} s | {} s |",
        ]
    ),
)
def test_what_was_written_is_what_is_read(start: int, length: int, notation: str) -> None:
    start_s, end_s = start / 100, (start + length) / 100
    assert find_spans(notation.format(f"{start_s:.2f}", f"{end_s:.2f}")) == [Span(start_s, end_s)]


HOSTILE = ["1", " ", "\n", "(", "[", "<seg>", "1-", "1 - ", "1s-", "from ", "from from from 1 to ", "1.", "-"]
HOSTILE += [
    "1 to ",
    "start 1 ",
    '"start": 1, ',
    "|1s|2s",
    "<|1|>a",
    "first 1 s ",
    "<answer>",
    "answer: ",
    "从1秒",
]
HOSTILE += ["starts at 1 ", "starts at" + " " * 40, "between 1 and ", "(1,", "0:12-", "1:", "at 1 "]


@pytest.mark.parametrize("piece", HOSTILE)
def test_eight_times_the_text_is_nowhere_near_sixty_four_times_the_work(piece: str) -> None:
    for prefix in ("", "starts at 1", "from 1", "(1", "1 to 1"):
        short, long = (prefix + piece * (size // len(piece)) for size in (1_000, 8_000))
        for read in (
            (count_mentions, find_mentions) if prefix else (count_mentions, find_mentions, find_asked)
        ):
            assert _cpu_seconds(read, long) < 32 * _cpu_seconds(read, short) + 0.05, prefix


def _cpu_seconds(read: Callable[[str], object], text: str) -> float:
    """The fewest of three, because the machine does other things too."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        read(text)
        seconds.append(time.process_time() - start)
    return min(seconds)


def test_ten_megabytes_of_one_digit_hold_no_time() -> None:
    text = "1" * 10_000_000
    assert count_mentions(text) == 0
    assert find_mentions(text) == []


@pytest.mark.skipif(not TRACES.exists(), reason=f"needs the authors' 20 traces: {TRACES.name}")
def test_the_authors_traces_give_their_own_avg_iou() -> None:
    traces = json.loads(TRACES.read_text(encoding="utf-8"))
    assert len(traces) == 20
    for trace in traces:
        predicted = set(find_spans(trace["model_prediction"]))
        reference = find_spans(trace["gt_transcription"])
        assert len(reference) == trace["gt_transcription"].count(" s)")
        mean = sum(max(span.iou(other) for other in reference) for span in predicted) / len(predicted)
        assert mean == pytest.approx(trace["avg_iou"], abs=6e-5)  # published with four decimals
        assert count_mentions(trace["model_prediction"]) == count_distinct(trace["model_prediction"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**3.2** to **5.6** seconds", [(3.2, 5.6)]),
        ("from t1 = 3.2 s to t2 = 5.6 s", [(3.2, 5.6)]),
        ("a start time of 0:12 and an end time of 0:15", [(12.0, 15.0)]),
        ("It has a start time of 3.2 seconds and an end time of 5.6 seconds.", [(3.2, 5.6)]),
        ("The start and end times are 3.2 s and 5.6 s.", [(3.2, 5.6)]),
        ("start and end: 3.2 s, 5.6 s", [(3.2, 5.6)]),
        ("1:05 min to 1:10 min", [(65.0, 70.0)]),
        ("from 3.2 to 5.6 (seconds)", [(3.2, 5.6)]),
        ("3.2 to 5.6 (in seconds)", [(3.2, 5.6)]),
        ("Times in seconds: 3.2-5.6", [(3.2, 5.6)]),
        ("It is said from 1.0 to 2.0, then from 3.2 to 5.6.", [(1.0, 2.0), (3.2, 5.6)]),
        ("The start and end times of the match are 3 and 5 pm.", []),
        ("3 to 5 (in minutes)", []),
        ("It takes 1:05 min.", []),
    ],
)
def test_ways_to_say_where_that_are_less_common(text: str, expected: list[tuple[float, float]]) -> None:
    assert [(span.start, span.end) for span in find_spans(text)] == expected


def test_the_answer_of_an_object_in_one_line_is_no_reasoning() -> None:
    text = '{"reasoning": "from 1 s to 2 s", "answer": "3 s - 5 s"}'
    assert [(one.start, one.end) for one in find_regions(text)] == [(1.0, 2.0)]


@pytest.mark.parametrize(
    "text", ["Not applicable", "The phrase isn't there.", "It is missing from the clip."]
)
def test_more_answers_that_a_phrase_is_not_said(text: str) -> None:
    assert says_absent(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("At timestamp 3.2 the man says yes.", [3.2]),
        ("At timestamps 3.2 and 7.5 she laughs.", [3.2, 7.5]),
        ("Timestamp: 3.2s, a dog barks", [3.2]),
        ("timestamp 00:12 - a door", [12]),
        ("(timestamp: 4.50)", [4.5]),
        ("[3.2s] the man says yes", [3.2]),
        ("a dog barks [3.2s], then a cat [4.0 s].", [3.2, 4.0]),
        ("[3.2 sec] hello\n[4.8 sec] bye", [3.2, 4.8]),
        ("at second 3 he laughs", [3]),
        ("At the second 3, he laughs", [3]),
        ("around second 12.5 a bell rings", [12.5]),
        ("by second 7 it is over", [7]),
        ("t=3.2s", [3.2]),
        ("at t = 3.2 he laughs", [3.2]),
        ("time=3.2", [3.2]),
        ("(t=7)", [7]),
        ("~3.2s", []),
        ("at ~3.2s", [3.2]),
        ("two seconds in, a door closes", [2]),
        ("3 seconds into the recording he laughs", [3]),
        ("About 3.5 s into the clip", [3.5]),
        ("He laughs 3 seconds in.", [3]),
        ("at 3.2 and again at 7.5 seconds", [3.2, 7.5]),
        ("at 3.2, 4.1 and 5.0 seconds", [3.2, 4.1, 5.0]),
        ("at 3.2s, 4.1s and 5.0s", [3.2, 4.1, 5.0]),
        ("The bell rings at 1.5, 3.0, and 4.5 s.", [1.5, 3.0, 4.5]),
        ("at the one-minute mark", [60]),
        ("at one minute and five seconds he laughs", [65]),
        ("around one minute and five seconds he laughs", []),
        ("at two minutes thirty seconds", [150]),
        ("at 1 minute he laughs", []),
        ("the speaker pauses for 3 seconds", []),
        ("lasting 2.5 s", []),
        ("a pause [of 2.5s]", []),
        ("a silence (2.5 s)", []),
        ("He waits 3 seconds in silence.", []),
        ("in second place", []),
        ("on second thought, 3 of them", []),
        ("the second 3 apples", []),
        ("the second 12 people left", []),
        ("timestamp 2024-01-02", []),
        ("Timestamps are in seconds.", []),
        ("[3] says so", []),
        ("[3.2] section", []),
        ("in 3 seconds in a row", []),
        ("3 seconds into which", []),
        ("t = 3 people", []),
        ("at 3 and 4 years", []),
        ("at 5, 10 and 15 minutes", []),
        ("at 3/4 time", []),
        ("at 44.1 or 48 kHz", []),
        ("at 20 and 30 years, 5 seconds", []),
        ("time: 3 pm", []),
        ("at a rate of 3.2 and 4.1 seconds", []),
        ("for 3, 4 and 5 seconds", []),
        ("takes 2 and 3 seconds", []),
    ],
)
def test_single_times_by_name_in_brackets_in_lists_and_in_words(text: str, seconds: list[float]) -> None:
    assert [one.seconds for one in find_points(text)] == seconds


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("from one minute to one minute and ten seconds", [(60.0, 70.0)]),
        ("between two minutes five seconds and two minutes and twenty-one seconds", [(125.0, 141.0)]),
        ("It lasts for one minute to two minutes.", []),
        ("In one minute they eat two to three apples.", []),
    ],
)
def test_minutes_may_be_words(text: str, spans: list[tuple[float, float]]) -> None:
    assert [(span.start, span.end) for span in find_spans(text)] == spans
