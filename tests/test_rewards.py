"""What a response earns: the paper's numbers, TRL's signature, and model output that breaks every form."""

import functools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.rewards import (
    PAPER_TERMS,
    RewardTerm,
    answer_reward,
    compaction,
    completion_text,
    score_completions,
    timestamp_grounding_reward,
    total_reward,
)

TRACES = Path(__file__).resolve().parents[2] / "shared" / "data" / "tgsr" / "traces_20.json"


def mentions(k: int) -> str:
    """A text with k distinct intervals in a form that both counters count once."""
    return " ".join(f"It starts at {n} seconds and ends at {n + 1} seconds." for n in range(k))


# Eq. 1


def test_the_letter_is_read_from_the_last_line_that_is_not_blank():
    completions = [
        "I hear (a) and (c).\nFinal answer: (b) Dallas",
        "Final answer: (b) Dallas\nThat is all.",
        "(b) Dallas\n\n  \n",
        "Final answer: (B)",
        "(a) is wrong, (b) is right",  # the first letter of the line counts
        "Final answer: b",
        "",
    ]
    assert answer_reward(completions, label=["b"] * 7) == [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_label_is_a_letter_however_it_is_dressed():
    assert answer_reward(["(b) x"] * 6, label=["b", "B", "(b)", "(B)", " b ", "c"]) == [1.0] * 5 + [0.0]


def test_the_fifth_choice_never_scores_as_in_the_papers_own_reward():
    assert answer_reward(["Final answer: (e) none of these"], label=["e"]) == [0.0]


@pytest.mark.parametrize("bad", ["", "bc", "(b", "b)", "1", "(b) Dallas", None, 2])
def test_a_label_that_is_no_letter_is_the_callers_error_and_named_by_its_place(bad):
    with pytest.raises(ValueError, match=r"label\[1\]"):
        answer_reward(["(b)", "(b)"], label=["b", bad])


@pytest.mark.parametrize("label", [["b"], ["b"] * 3, [], "bb"])
def test_labels_do_not_pair_up_with_the_wrong_completions(label):
    with pytest.raises(ValueError, match="one for each completion"):
        answer_reward(["(b)", "(b)"], label=label)


# Eq. 2


def test_compaction_at_the_papers_settings():
    assert [compaction(k) for k in range(8)] == pytest.approx([0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.1])


def test_compaction_is_flat_up_to_k_ref_and_from_k_max_on():
    scores = [compaction(k, k_ref=3, k_max=6, c_max=0.9, c_min=0.3) for k in range(9)]
    assert scores == pytest.approx([0, 0.9, 0.9, 0.9, 0.7, 0.5, 0.3, 0.3, 0.3])


def test_without_any_room_between_the_bounds_every_grounded_response_earns_the_same():
    assert [compaction(k, 1, 2, 0.5, 0.5) for k in range(4)] == [0.0, 0.5, 0.5, 0.5]


@given(st.integers(0, 5), st.integers(1, 5), st.floats(0, 1), st.floats(0, 1), st.integers(1, 20))
def test_one_timestamp_more_never_earns_more(k_ref, gap, low, width, k):
    settings = (k_ref, k_ref + gap, low + width, low)
    assert compaction(k + 1, *settings) <= compaction(k, *settings) + 1e-12
    assert low - 1e-12 <= compaction(k, *settings) <= low + width + 1e-12


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        compaction(-1)


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"k_max": 1}, "k_max=1"),
        ({"k_ref": 5}, "k_ref=5"),
        ({"k_ref": -1}, "k_ref=-1"),
        ({"c_min": 0.6}, "c_min=0.6"),
        ({"c_max": math.nan}, "c_max=nan"),
        ({"counter": "lenient"}, "'lenient'"),
    ],
)
def test_wrong_settings_are_refused_even_where_there_is_nothing_to_score(settings, got):
    for completions in ([], ["x"]):
        with pytest.raises(ValueError, match=got):
            timestamp_grounding_reward(completions, **settings)


@pytest.mark.parametrize("counter", ["official", "strict"])
def test_more_timestamps_than_needed_earn_less(counter):
    rewards = timestamp_grounding_reward([mentions(k) for k in range(7)], counter=counter)
    assert rewards == pytest.approx([0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1])


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("From 0.2 to 1.4 seconds she laughs.", 0.4, 0.5),  # one interval that fits two official forms
        ("\u201cYes.\u201d (12.05 \u2013 14.29 s)", 0.0, 0.5),  # the paper's own notation
        ("[0.2s - 1.4s] she laughs", 0.0, 0.5),
        ("The voices grow from 2 to 3 people.", 0.5, 0.0),  # no time at all
        (mentions(1) * 2, 0.4, 0.5),  # said twice
    ],
)
def test_the_counters_differ_where_the_paper_counts_surface_forms(text, official, strict):
    assert timestamp_grounding_reward([text]) == pytest.approx([official])
    assert timestamp_grounding_reward([text], counter="strict") == pytest.approx([strict])


# Eq. 3


def test_the_papers_reward_is_answer_plus_grounding():
    completions = [
        mentions(1) + "\nFinal answer: (b)",
        mentions(3) + "\nFinal answer: (b)",
        mentions(1) + "\nFinal answer: (a)",
        "Final answer: (b)",
        "",
    ]
    terms, totals = score_completions(completions, label=["b"] * 5)
    assert terms == {
        "answer": [1.0, 1.0, 0.0, 1.0, 0.0],
        "timestamp_grounding": pytest.approx([0.5, 0.3, 0.5, 0, 0]),
    }
    assert totals == pytest.approx([1.5, 1.3, 0.5, 1.0, 0.0])


def test_weights_act_on_the_total_and_not_on_the_reported_terms():
    strict = functools.partial(timestamp_grounding_reward, counter="strict")
    chosen = (RewardTerm("answer", answer_reward, 2.0), RewardTerm("strict", strict, -1.0))
    terms, totals = score_completions(["[0.2s - 1.4s]\n(b)"], chosen, label=["b"])
    assert terms == {"answer": [1.0], "strict": [0.5]}
    assert totals == [1.5]


def test_no_completions_earn_nothing():
    assert score_completions([], label=[]) == ({"answer": [], "timestamp_grounding": []}, [])


def test_two_terms_of_one_name_do_not_hide_each_other():
    with pytest.raises(ValueError, match="distinct names"):
        score_completions(["x"], [PAPER_TERMS[0], PAPER_TERMS[0]], label=["b"])


@pytest.mark.parametrize("returned", [[], [1.0, 1.0], [math.nan], [math.inf]])
def test_a_term_that_does_not_score_each_completion_is_named(returned):
    broken = RewardTerm("broken", lambda completions, **columns: returned)
    with pytest.raises(ValueError, match="'broken' must return a finite reward for each of the 1"):
        score_completions(["x"], [broken])


@pytest.mark.parametrize(("name", "weight"), [("", 1.0), ("answer", math.nan), ("answer", math.inf)])
def test_a_term_needs_a_name_and_a_weight(name, weight):
    with pytest.raises(ValueError, match="a name and a finite weight"):
        RewardTerm(name, answer_reward, weight)


@pytest.mark.parametrize("weights", [{"answer": 1.0}, {"answer": 1.0, "tg": 1.0, "length": 1.0}])
def test_a_total_with_a_term_or_a_weight_missing_is_refused(weights):
    with pytest.raises(ValueError, match="same names"):
        total_reward({"answer": 1.0, "tg": 0.5}, weights)


# How trainers call


@pytest.mark.parametrize("reward", [answer_reward, timestamp_grounding_reward])
def test_trl_passes_more_than_a_reward_asks_for(reward):
    text = mentions(1) + "\nFinal answer: (b)"
    rewards = reward(
        prompts=["q", "q"],
        completions=[text, [{"role": "assistant", "content": text}]],
        completion_ids=[[1], [2]],
        label=["b", "b"],
        duration=[3.0, 3.0],
        trainer_state=None,
        log_extra=None,
        log_metric=None,
    )
    assert rewards == ([1.0, 1.0] if reward is answer_reward else [0.5, 0.5])
    assert all(type(value) is float for value in rewards)


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("(b)", "(b)"),
        ([{"role": "assistant", "content": "(b)"}], "(b)"),
        (
            [
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "("}, {"type": "text", "text": "b)"}],
                }
            ],
            "(b)",
        ),
        ([{"role": "assistant", "content": [{"type": "audio"}, {"type": "text", "text": "(b)"}]}], "(b)"),
        ({"role": "assistant", "content": "(b)"}, "(b)"),
        ([{"content": "(b)"}], "(b)"),
        ([{"role": "assistant", "content": "x"}, {"role": "assistant", "content": "(b)"}], "x\n(b)"),
        (
            [{"role": "assistant", "content": "(b)"}, {"role": "tool", "content": "(a)"}],
            "(b)",
        ),  # not its words
    ],
)
def test_a_completion_is_a_text_or_the_messages_of_one_response(completion, text):
    assert completion_text(completion) == text


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "",
        "\n\n",
        [],
        [[]],
        {},
        3.5,
        b"(b)",
        [None],
        [{}],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": 7}],
        [{"role": "assistant", "content": [None, 7, {"type": "text"}, {"type": "text", "text": None}]}],
        "from 9 to 1 seconds, from \u0665 to \u0666, (\u00b2, 3), starts at and ends at \x00 \ud800",
        "from 1e999 to " + "9" * 400 + " seconds",
    ],
)
def test_odd_model_output_is_scored_and_never_raises(odd):
    _, totals = score_completions([odd], label=["b"])
    (strict,) = timestamp_grounding_reward([odd], counter="strict")
    assert 0 <= totals[0] <= 0.5
    assert 0 <= strict <= 0.5


@given(st.lists(st.text(max_size=80), max_size=4))
def test_any_text_earns_a_reward_within_the_papers_range(texts):
    _, totals = score_completions(texts, label=["b"] * len(texts))
    assert len(totals) == len(texts)
    assert all(0 <= total <= 1.5 for total in totals)


@pytest.mark.skipif(not TRACES.exists(), reason="needs the paper's published traces, which are not shipped")
def test_published_traces_earn_the_answer_exactly_where_their_output_is_the_answer():
    traces = json.loads(TRACES.read_text(encoding="utf-8"))
    labels = ["abcdefgh"[trace["choices"].index(trace["answer"])] for trace in traces]
    expected = [float(trace["model_output"] == trace["answer"]) for trace in traces]
    assert answer_reward([trace["model_prediction"] for trace in traces], label=labels) == expected
    assert sum(expected) > 0, "some of the published answers are right"
