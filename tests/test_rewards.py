"""What a response earns: the paper's numbers, TRL's signature, and model output that breaks every form."""

import functools
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.data.other_trainers import to_trl
from tgsr.dense_reward import dense_grounding_reward, grounded_reward, place_credits, step_credits
from tgsr.disk.run_folder import open_run, settings_of
from tgsr.errors import OptionError, RunError
from tgsr.grounding import find_regions
from tgsr.overlap import trace_iou
from tgsr.prompts import REASONING_OPENING
from tgsr.reasoning import places_of, plain_words, reasoning_steps, word_agreement, words_said
from tgsr.records import NO_SPEECH, Clip, Question, write_jsonl
from tgsr.rewards import (
    PAPER_TERMS,
    RewardTerm,
    answer_reward,
    compaction,
    completion_text,
    is_payable,
    score_completions,
    timestamp_grounding_reward,
)
from tgsr.rl import clips_file, reward_terms, words_by_clip
from tgsr.timeline import Span, Word
from tgsr.training.config import GrpoConfig

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
        # as TRL 1.16's parse_response parts them by Qwen3's and gpt-oss' templates
        (
            [{"role": "assistant", "reasoning_content": "From 1 s to 2 s.", "content": "(b)"}],
            "<think>\nFrom 1 s to 2 s.\n</think>\n\n(b)",
        ),
        ([{"role": "assistant", "thinking": "At 1 s", "content": ""}], "<think>\nAt 1 s"),
        ([{"role": "assistant", "reasoning": None, "reasoning_content": "\n", "content": "(b)"}], "(b)"),
        (
            [{"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "(b)"}]}],
            "<think>\nHm.\n</think>\n\n(b)",
        ),
    ],
)
def test_a_completion_is_a_text_or_the_messages_of_one_response(completion, text):
    assert completion_text(completion) == text


def test_thoughts_that_a_trainer_files_apart_are_rewarded_as_in_the_text():
    """TRL hands over {"reasoning_content", "content"} where the tokenizer has a response template."""
    thought = 'From 1.2 seconds to 1.5 seconds she says "no".'
    whole = f"<think>\n{thought}\n</think>\n\nFinal answer: (b)"
    parted = [{"role": "assistant", "reasoning_content": thought, "content": "Final answer: (b)"}]
    assert score_completions([parted], label=["b"]) == score_completions([whole], label=["b"])
    assert score_completions([parted], label=["b"])[1] == [1.5]  # the answer, and one timestamp


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


# What the trainer makes of its settings


@given(st.lists(st.text(max_size=80), max_size=4), st.integers(0, 6))
def test_the_presets_reward_is_the_papers_bit_for_bit(texts, k):
    texts = [*texts, mentions(k) + "\nFinal answer: (b)", "From 0.2 to 1.4 seconds, (3, 5)\n(c)"]
    label = ["b"] * len(texts)
    assert score_completions(texts, reward_terms(GrpoConfig(questions="")), label=label) == score_completions(
        texts, PAPER_TERMS, label=label
    )


def test_without_compaction_any_number_of_timestamps_earns_the_most_and_none_earns_nothing():
    terms = reward_terms(GrpoConfig(questions="", compaction=False))
    rewards, _ = score_completions([mentions(k) for k in range(8)], terms, label=["b"] * 8)
    assert rewards["timestamp_grounding"] == [0.0] + [0.5] * 7


def test_without_grounding_the_term_is_logged_and_pays_nothing():
    rewards, totals = score_completions(
        [mentions(1)], reward_terms(GrpoConfig(questions="", grounding_weight=0)), label=["b"]
    )
    assert rewards == {"answer": [0.0], "timestamp_grounding": [0.5]}
    assert totals == [0.0]


def test_eq_2_is_set_from_the_command_line():
    terms = reward_terms(GrpoConfig(questions="", k_ref=2, k_max=4, c_max=1.0, c_min=0.0, counter="strict"))
    rewards, _ = score_completions([mentions(k) for k in range(6)], terms, label=["b"] * 6)
    assert rewards["timestamp_grounding"] == [0, 1, 1, 0.5, 0, 0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"k_max": 1}, "k_max=1"),
        ({"c_min": 0.7}, "c_min=0.7"),
        ({"dense_weight": -1.0}, "--dense-weight"),
        (
            {"reward": "grounded", "grounding_weight": 1.0},
            "--reward grounded: sets --grounding-weight; give either",
        ),
        ({"reward": "paper", "dense_weight": 0.0}, "--reward paper: sets --dense-weight; give either"),
        (
            {"reward": "dense", "grounding_weight": 0.0, "dense_weight": 1.0},
            "--grounding-weight and --dense-weight",
        ),
    ],
)
def test_settings_that_make_no_reward_are_refused_before_anything_runs(settings, said):
    with pytest.raises(OptionError, match=said):
        GrpoConfig(questions="", **settings)


@pytest.mark.parametrize(
    ("settings", "total"),
    [  # two timestamps: R_tg is 0.4; one of them is false: half of C_max by place and by the dense reward
        ({}, 1.4),
        ({"reward": "paper"}, 1.4),
        ({"reward": "dense"}, 1.4 + 0.25),
        ({"reward": "grounded"}, 1 + 0.25),
        ({"reward": "grounded", "c_max": 1.0}, 1 + 0.5),
        ({"grounding_weight": 0.5, "dense_weight": 2.0}, 1.2 + 0.5),
    ],
)
def test_a_reward_has_its_terms_and_each_is_logged_by_itself(settings, total):
    text = 'From 0.2s to 1.4s, he says "five two". From 2.0s to 2.4s, he says "ten".\n(b)'
    columns = {"label": ["b"], "words": [WORDS], "duration": [3.2], "evidence": [[Span(0.2, 1.4)]]}
    terms = reward_terms(GrpoConfig(questions="", **settings))
    rewards, totals = score_completions([text], terms, **columns)
    assert totals == pytest.approx([total])
    assert rewards["answer"] == [1.0]
    assert rewards["timestamp_grounding"] == pytest.approx([0.4 if settings.get("c_max") is None else 0.775])


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({}, {"reward": "paper"}),
        ({"reward": "dense"}, {"grounding_weight": 1.0, "dense_weight": 1.0}),
        ({"grounding_weight": 0.0}, {"grounding_weight": 0.0, "dense_weight": 0.0}),
    ],
)
def test_a_run_is_the_same_however_its_reward_was_asked_for(settings, same):
    asked, other = (settings_of(GrpoConfig(questions="", **given)) for given in (settings, same))
    assert asked == other
    assert asked != settings_of(GrpoConfig(questions="", reward="grounded"))


@pytest.mark.parametrize("settings", [{}, *({"reward": name} for name in ("paper", "grounded", "dense"))])
def test_what_run_json_says_of_a_reward_asks_for_the_same_reward_again(settings):
    config = GrpoConfig(questions="q.jsonl", **settings)
    again = GrpoConfig(**settings_of(config))
    assert (again.weights, again.needs_words) == (config.weights, config.needs_words)
    assert settings_of(again) == settings_of(config)


def test_a_run_of_before_there_were_names_of_rewards_goes_on(tmp_path):
    config = GrpoConfig(questions="")
    folder = open_run(tmp_path / "run", "grpo", config)
    kept = folder.read()
    assert (kept["config"]["grounding_weight"], kept["config"]["dense_weight"]) == (1.0, 0.0)
    folder.write(kept | {"config": {k: v for k, v in kept["config"].items() if k != "reward"}})
    open_run(tmp_path / "run", "grpo", replace(config, reward="paper"))
    with pytest.raises(RunError, match=r"other arguments .*reward"):
        open_run(tmp_path / "run", "grpo", replace(config, reward="grounded"))


def test_words_come_from_the_clips_beside_the_questions_unless_they_are_named(tmp_path):
    questions = tmp_path / "questions.jsonl"
    config = GrpoConfig(questions=str(questions), reward="grounded")
    with pytest.raises(OptionError, match=r"--reward grounded: needs the words .*is not there; give --clips"):
        clips_file(config)
    (tmp_path / "clips.jsonl").touch()
    assert clips_file(config) == str(tmp_path / "clips.jsonl")
    assert clips_file(replace(config, clips="mine.jsonl")) == "mine.jsonl"
    assert clips_file(replace(config, reward="paper")) is None
    assert clips_file(replace(config, reward=None, dense_weight=0.1)) == str(tmp_path / "clips.jsonl")


def about(clip_id, evidence=()):
    return Question(
        "q", clip_id, "a.wav", 4.0, "choice", "Which?", "two", ("one", "two"), evidence=tuple(evidence)
    )


def test_the_dense_term_needs_words_for_every_question_and_says_which_it_lacks(tmp_path):
    clips = tmp_path / "clips.jsonl"
    write_jsonl(
        clips,
        [
            Clip("said", "a.wav", 4.0, (Word("one", 0, 1),)),
            Clip("mute", "b.wav", 4.0, flags=(NO_SPEECH,)),
            Clip("unheard", "c.wav", 4.0),
        ],
    )
    config = GrpoConfig(questions="q.jsonl", dense_weight=1.0, clips=str(clips))
    known = words_by_clip(config, [about("said"), about("mute", [Span(0, 1)])])
    assert known["said"] == (Word("one", 0, 1),)
    assert known["mute"] == ()
    for bad, why in (("mute", "no word of mute"), ("unheard", "no word of unheard"), ("gone", "without the")):
        with pytest.raises(RunError, match=rf"clips.jsonl: .*{why}.*tgsr transcribe"):
            words_by_clip(config, [about("said"), about(bad)])
    assert words_by_clip(GrpoConfig(questions="q.jsonl"), [about("gone")]) == {}


# Reasoning steps (C.4)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ('From 0.2s to 1.4s, he says "five two". It is odd.\nFinal answer: (b) six', ["five two"]),
        ('"No, Rose." (9.57-10.03 s), "I\'m nervous" (10.73-14.73 s)', ["no rose", "i'm nervous"]),
        ('The segment "five two" starts at 0.2 seconds and ends at 1.4 seconds.', ["five two"]),
        ('From 1 to 2 s, he says "Yes." From 3 to 4 s, she says "No."', ["yes", "no"]),
        ('He says "Yes." from 1 to 2 s, and "no" from 3 to 4 s.', ["yes", "no"]),
        ('From 1-2 s and 3-4 s, she says "five".', ["five", "five"]),
        ('The digit "five" is said twice: 1-2 s and 3-4 s.', ["five", "five"]),
        ("From 1s to 2s. The speaker says 'I\u2019m here'. Final answer: (b) x", ["i'm here"]),
        ("Timestamps: 1-2 s.\nThe speaker pauses.\nFinal answer: (b) x", ["the speaker pauses"]),
        ("[1.0s - 2.0s] she laughs. (b)", ["she laughs"]),
        ("(1.0-2.0 s)\nFinal answer: (b) x", [""]),
        (REASONING_OPENING + " From 1s to 2s the speaker laughs.", ["the speaker laughs"]),
        ('From 1s to 2s he says "a of." It has 2 words: "a" and "of".', ["a of"]),
        ('"the meeting starts" (4.4s-5.7s)', ["the meeting starts"]),
        ('"look at" is said from 1 s to 2 s, "when it is" from 3 s to 4 s', ["look at", "when it is"]),
        ("", []),
        ("The voices grow from 2 to 3 people.", []),
        ("From 1s to 2s Ms. Lee says hello to Dr. No. (b)", ["ms lee says hello to dr no"]),
        (
            "From 1s to 2s she says it is approx. five p.m. and leaves. Odd.",
            ["she says it is approx five p m and leaves"],
        ),
        (
            "From 1s to 2s J. K. Rowling is named, e.g. No. 5 in the list. Odd.",
            ["j k rowling is named e g no five in the list"],
        ),
        ("From 1s to 2s it is Speaker A. She laughs.", ["it is speaker a"]),
        ("From 1s to 2s she laughs.\nFinal answer: (b) from 3s to 4s", ["she laughs"]),
        ("From 1s to 2s she laughs.\n**Answer:**\n3s to 4s", ["she laughs"]),
        ("From 1s to 2s she laughs.\n(b) 3s - 4s", ["she laughs"]),
        ("<think>From 1s to 2s she laughs.</think>\n<answer>3s - 4s</answer>", ["she laughs"]),
        ('{\n "why": "from 1s to 2s she laughs",\n "answer": "(b) 3s - 4s"\n}', ["she laughs"]),
        ('```json\n{"answer": "(b)", "why": "from 1s to 2s she laughs"}\n```', ["she laughs"]),
        ('{"quote": "five two", "start": 1.0, "end": 2.0}', ["five two"]),
        (
            '[{"start": 1, "end": 2,\n"text": "five",\n"why": "It is. So."},\n{"quote": "two", "start": 3, "end": 4}]',
            ["five", "two"],
        ),
        ('{"why": "She said \\"five\\".", "start": 1.0, "end": 2.0, "speaker": "A"}', ["five"]),
        ('{"why": "From 1s to 2s he says \\"five\\".", "answer": "(b)"}', ["five"]),
        ('{"text": "From 1s to 2s he says \\"five\\"."}', ["five"]),
        (
            '[{"quote": "five", "time": {"start": 1, "end": 2}}, {"quote": "two", "start": 3, "end": 4}]',
            ["five", "two"],
        ),
        ("{'start': 1.0, 'end': 2.0, 'quote': 'five', 'speaker': 'A'}", ["five"]),
        ('Asked is "five".\n\n[1-2 s]\nHe pauses.\nFinal answer: (b)', ["he pauses"]),
        ('"five"\n(1-2 s)\n"two"\n(3-4 s)', ["five", "two"]),
        ('1-2 s:\n"five"\n3-4 s:\n"two"\nFinal answer: (b)', ["five", "two"]),
        ('- Quote: "five"\n- Start: 1.0\n- End: 2.0\nFinal answer: (b) "two"', ["five"]),
        ('Evidence: "five"\nTime: 1 s - 2 s\nFinal answer: (b)', ["five"]),
        ('He says "five two". This is heard from 1s to 2s.', ["five two"]),
        ('He says "five two." It is between 1 and 2 s. From 3s to 4s, "six".', ["five two", "six"]),
        ('He says "five two". Later, from 1s to 2s, he laughs.', ["later he laughs"]),
        ('He says "five". "This is it" is from 1s to 2s.', ["this is it"]),
        ('He says "five" from 1s to 2s. This is from 3s to 4s.', ["five", "this"]),
        ('First "five" from 1s to 2s, then from 3s to 4s "two".', ["five", "two"]),
        ('From 1s to 2s he says "five", as in option (b) "five or six".', ["five"]),
        ('The answer is "six", for from 1s to 2s he says "five".', ["five"]),
        ('His answer is "six" (1s-2s).', ["six"]),
        ('From 1s to 2s "21 of 7".', ["twenty one of seven"]),
        ("From 1s to 2s \u2039five\u203a. From 3s to 4s \u00bbtwo\u00ab.", ["five", "two"]),
        ("Answer: (b) 3s - 4s\nFrom 1s to 2s she laughs.", ["she laughs"]),
        ("The answer is (b), because from 1s to 2s she laughs.", ["the answer is b because she laughs"]),
    ],
)
def test_an_interval_is_paired_with_the_text_that_explains_it(text, steps):
    assert [" ".join(step.heard) for step in reasoning_steps(text)] == steps


@given(st.text(alphabet="ab. \"\u201c\u201d'\n0123456789-s(),", max_size=120))
def test_every_stated_interval_is_one_step(text):
    assert [step.mention for step in reasoning_steps(text)] == find_regions(text)


@pytest.mark.skipif(not TRACES.exists(), reason="needs the paper's published traces, which are not shipped")
def test_published_traces_quote_what_their_transcript_has():
    """The first step's quote is found in the reference transcript better than in another trace's."""
    traces = json.loads(TRACES.read_text(encoding="utf-8"))
    quoting = [(t, s[0]) for t in traces if (s := reasoning_steps(t["model_prediction"])) and s[0].is_quoted]
    assert len(quoting) > 10
    for at, (trace, step) in enumerate(quoting):
        own, other = (
            plain_words(t["gt_transcription"]) for t in (trace, quoting[(at + 1) % len(quoting)][0])
        )
        assert word_agreement(step.heard, own) > word_agreement(step.heard, other)


# Words and places


def naive_lcs(a, b):
    rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


@given(st.lists(st.sampled_from("abcd"), max_size=80), st.lists(st.sampled_from("abcd"), max_size=80))
def test_agreement_is_the_f1_of_the_longest_common_subsequence(a, b):
    expected = 2 * naive_lcs(a, b) / (len(a) + len(b)) if a and b else 0.0
    assert word_agreement(a, b) == expected == word_agreement(b, a)
    assert 0 <= expected <= 1


def test_words_are_compared_as_they_sound_and_in_order():
    assert plain_words('"I\u2019m NERVOUS," \u2013 he said.') == ("i'm", "nervous", "he", "said")
    assert word_agreement(("two", "five"), ("five", "two")) == 0.5


WORDS = (Word("Five", 0.2, 0.6), Word("two", 0.8, 1.4), Word("five", 2.0, 2.5), Word("nine.", 2.6, 3.0))


def test_a_word_is_said_in_a_span_that_holds_half_of_it():
    assert words_said(WORDS, Span(0.4, 1.1)) == ("five", "two")
    assert words_said(WORDS, Span(0.41, 1.09)) == ()


def test_places_are_where_most_of_the_words_are_said():
    assert places_of(("five",), WORDS) == [Span(0.2, 0.6), Span(2.0, 2.5)]
    assert places_of(("five", "nine"), WORDS) == [Span(2.0, 3.0)]
    assert places_of(("six",), WORDS) == places_of(("five",), ()) == places_of((), WORDS) == []
    assert places_of(("one", "five", "two", "five", "nine", "ten"), WORDS) == [Span(0.2, 3.0)]


# Credit for each step


def credits(text, evidence=(), duration=3.2, words=WORDS):
    return [step.credit for step in step_credits(text, words, duration, evidence)]


def test_a_true_step_earns_all_by_words_alone_and_by_the_evidence():
    text = 'From 0.2s to 1.4s, the speaker says "five two".'
    assert credits(text) == pytest.approx([1.0])
    assert credits(text, [Span(0.2, 1.4)]) == pytest.approx([1.0])
    # Two places, and 1.2 s cited where 1.1 s are allowed: the evidence with 0.5 s around it, cut to the clip.
    assert credits(text, [Span(0.2, 0.6)]) == pytest.approx([(1 + 0.4 / 1.2) / 2 * 1.1 / 1.2])


def test_credit_is_agreement_times_the_mean_of_two_overlaps():
    (step,) = step_credits('From 0.0s to 1.0s, he says "five".', WORDS, 3.2, [Span(0.2, 0.6)])
    assert step.said == ("five",)  # a third of "two" is in the span: too little
    assert step.credit == pytest.approx(1.0 * (0.4 + 0.4) / 2)
    assert trace_iou([Span(0, 1)], [Span(0.2, 0.6)]) == pytest.approx(0.4)
    (step,) = step_credits('From 0.2s to 1.4s, he says "five".', WORDS, 3.2)
    assert step.said == ("five", "two")
    assert step.credit == pytest.approx(2 / 3 * 0.4 / 1.2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('From 1.4s to 0.2s he says "five two".', "no interval"),
        ('From 5.0s to 6.0s he says "five two".', "past the clip's end"),
        ('From 2.0s to 3.3s he says "five nine".', "past the clip's end"),
        ('From 2.0s to 2.5s he says "two".', "something else"),
        ('From 1.5s to 1.9s he says "two".', "nothing is said there"),
        ("From 1.5s to 1.9s there is a pause.", "no evidence is near"),
        ("(0.2-1.4 s)", "nothing is said to be heard"),
    ],
)
def test_a_step_that_is_false_or_empty_earns_nothing_and_says_why(text, why):
    (step,) = step_credits(text, WORDS, 3.2)
    assert step.credit == 0
    assert why in step.why


def test_a_pause_is_judged_by_the_evidence_alone():
    assert credits("From 1.4s to 2.0s there is a pause.", [Span(1.4, 2.0)]) == pytest.approx([1.0])
    assert credits("From 1.4s to 2.0s there is a pause.", [Span(1.7, 2.0)]) == pytest.approx([0.5])


def test_what_is_cited_again_earns_only_for_what_is_new():
    step = 'From 0.2s to 1.4s, he says "five two". '
    assert credits(step * 3) == pytest.approx([1.0, 0, 0])
    first, second = credits('From 0.2s to 1.4s, "five two". From 0.8s to 2.5s, "two five".')
    assert first == pytest.approx(min(1, 1.6 / 2.3))
    assert second == pytest.approx(min(1, 1.6 / 2.3) * (1.1 / 1.7))


def test_citing_the_whole_clip_earns_a_share_however_true_its_quote_is():
    assert credits('From 0.0s to 3.2s, "five two five nine".') == pytest.approx([2.8 / 3.2 * 0.5])
    allowed = 1.1  # the evidence with 0.5 s around it, cut to the clip: 0.0 to 1.1
    (credit,) = credits('From 0.0s to 3.2s, "five two five nine".', [Span(0.2, 0.6)])
    assert credit == pytest.approx((2.8 / 3.2 + 0.4 / 3.2) / 2 * allowed / 3.2)


def test_the_reward_is_the_mean_over_all_stated_intervals_so_a_false_one_costs():
    good = 'From 0.2s to 1.4s, he says "five two". '
    texts = [good, good + "(9-8 s) x", good * 2, "", "no time at all"]
    n = len(texts)
    rewards = dense_grounding_reward(texts, [WORDS] * n, [3.2] * n)
    assert rewards == pytest.approx([0.5, 0.25, 0.25, 0, 0])
    assert dense_grounding_reward(texts[:1], [WORDS], [3.2], c_max=2.0) == pytest.approx([2.0])


def test_the_dense_reward_is_called_as_trl_calls_it_with_columns_of_json():
    text = 'From 0.2s to 1.4s, he says "five two".\nFinal answer: (b)'
    rows = [{"word": w.text, "start": w.start, "end": w.end} for w in WORDS]
    rewards = dense_grounding_reward(
        prompts=["q", "q"],
        completions=[text, [{"role": "assistant", "content": text}]],
        completion_ids=[[1], [2]],
        label=["b", "b"],
        words=[rows, rows],
        duration=[3.2, 3.2],
        evidence=[[[0.2, 1.4]], None],
        trainer_state=None,
    )
    assert rewards == pytest.approx([0.5, 0.5])
    assert all(type(value) is float for value in rewards)


def test_rows_exported_to_trl_hold_what_the_dense_reward_asks_for_but_the_words():
    question = about("said", [Span(0.2, 1.4)])
    row = to_trl(question, "/a.wav", "qwen_omni")
    kept = json.loads(row["tgsr"])
    columns = {"duration": [kept["duration"]], "evidence": [kept["evidence"]], "label": [row["label"]]}
    text = 'From 0.2s to 1.4s, he says "five two".\n(b)'
    assert dense_grounding_reward([text], words=[WORDS], **columns) == pytest.approx([0.5])
    assert answer_reward([text], **columns) == [1.0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"words": [None]}, r"words\[0\] has no word.*tgsr transcribe"),
        ({"words": [[]]}, r"words\[0\] has no word"),
        ({"words": []}, "words must have an item for each of the 1"),
        ({"words": [[{"word": "five"}]]}, r"words\[0\] must hold"),
        ({"words": [["five"]]}, r"words\[0\] must hold"),
        ({"duration": [3.2, 3.2]}, "duration must have an item for each"),
        ({"duration": [0.0]}, "duration must be more than 0"),
        ({"evidence": [[[2.0, 1.0]]]}, r"evidence\[0\] must hold"),
        ({"evidence": [[3.0]]}, r"evidence\[0\] must hold"),
        ({"c_max": -1.0}, "c_max must be 0 or more"),
        ({"c_max": math.nan}, "c_max must be 0 or more"),
    ],
)
def test_a_reward_that_nobody_can_tell_is_an_error_and_not_a_zero(columns, said):
    given_ = {"words": [WORDS], "duration": [3.2], **columns}
    with pytest.raises(ValueError, match=said):
        dense_grounding_reward(["(1-2 s) x"], **given_)


def test_a_clip_without_speech_is_judged_by_its_evidence():
    text = 'From 1.0s to 2.0s a dog barks. From 2.0s to 3.0s he says "dog".'
    assert dense_grounding_reward([text], [[]], [4.0], [[Span(1, 2)]]) == pytest.approx([0.25])


# The place of a grounded answer


@pytest.mark.parametrize(
    ("text", "evidence", "credit"),
    [
        ('From 0.2s to 1.4s he says "five two".', [(0.2, 1.4)], 1),
        ('From 0.2s to 1.4s he says "five two".', [(0.2, 0.6), (0.2, 1.4)], 1),  # the nearest piece
        ('From 0.2s to 1.0s he says "five".', [(0.2, 0.6)], 0.5),  # the end is late: IoU 0.4 / 0.8
        ('From 0.2s to 1.4s he says "five nine".', [(0.2, 1.4)], 0.5),  # one word of two
        ('From 0.2s to 1.4s he says "ten".', [(0.2, 1.4)], 0),
        ('From 2.0s to 2.4s he says "five".', [(0.2, 0.6)], 0),  # said there, and not what is asked about
        ("From 0.2s to 1.4s it is heard.", [(0.2, 1.4)], 0.5),
        ('From 0.2s to 1.4s it is " ".', [(0.2, 1.4)], 0.5),
        ("(0.2-1.4 s)", [(0.2, 1.4)], 0),  # explains nothing
        ("From 1.4s to 2.0s there is a pause.", [(1.4, 2.0)], 1),  # there is nothing to quote
        ('From 1.4s to 2.0s he says "two".', [(1.4, 2.0)], 0),
        ("From 0.0s to 3.2s it is heard.", [(0.2, 0.6)], 0),  # most of the clip
        ('From 0.0s to 3.2s he says "five two five nine".', [(0.2, 3.0)], 2.8 / 3.2),  # so is the evidence
        # Where no evidence is marked, the words alone decide.
        ('From 0.2s to 1.4s he says "five two".', [], 1),
        ('From 0.2s to 1.4s he says "five".', [], 2 / 3),
        ('From 0.1s to 0.7s he says "five".', [], 1),
        ('From 1.2s to 2.5s he says "five".', [], 2 * 0.5 / 1.3),  # less than half of the span is its words
        ('From 0.2s to 1.4s he says "six".', [], 0),  # nobody says it
        ("From 0.2s to 1.4s nobody says six.", [], 0),
        ("From 0.2s to 1.4s: five two.", [], 0.5),
        ("From 1.4s to 2.0s there is a pause.", [], 0),
        ('From 0.2s to 2.4s he says "five two five".', [], 0),  # most of the clip
    ],
)  # fmt: skip
def test_a_place_is_where_the_evidence_is_and_what_is_quoted_is_said_there(text, evidence, credit):
    steps = place_credits(text, WORDS, 3.2, [Span(*times) for times in evidence])
    assert [step.credit for step in steps] == pytest.approx([credit])
    assert steps[0].why


@pytest.mark.parametrize(
    "text",
    ["(1,2)(a)", "from 0 to 0", "(0,0)", "From 9 to 2", "From 9s to 2s it is heard.", "0-1s (a)", "0-1s\n(a)", "0-1s",
     "From 1s to 1s it is heard.", "999s-1000s it is heard", "999s-1000s", "From 0.2s to 9.9s it is heard.",
     '(a) From 0.0s to 3.2s he says "five two five nine".', ""],
)  # fmt: skip
@pytest.mark.parametrize("evidence", [(), (Span(0.2, 0.9),)])
def test_what_the_counters_pay_without_listening_has_no_place(text, evidence):
    assert grounded_reward([text], [WORDS], [3.2], [evidence]) == [0.0]


GOOD = 'From 0.2s to 0.6s he says "five". '
ALSO = 'From 2.0s to 2.4s he says "five". '


@pytest.mark.parametrize(
    ("text", "evidence", "place"),
    [
        (GOOD, [(0.2, 0.6)], 0.5),
        (GOOD * 5, [(0.2, 0.6)], 0.1),
        (GOOD + ALSO, [(0.2, 0.6)], 0.25),  # one place too many
        (GOOD + "From 3.0s to 9.0s a bell.", [(0.2, 0.6)], 0.25),
        (GOOD, [(0.2, 0.6), (2.0, 2.4)], 0.5),
        (GOOD + ALSO, [(0.2, 0.6), (2.0, 2.4)], 0.5),  # no worse than one of both
        (GOOD + GOOD, [(0.2, 0.6), (2.0, 2.4)], 0.25),
        ('From 0.2s to 1.4s, "five two". From 0.8s to 2.4s, "two five".', [(0.2, 1.4), (0.8, 2.4)], 0.5),
        ('From 0.2s to 0.6s, "five". From 0.8s to 1.4s, "two".', [(0.2, 1.4)], 0.5 * (0.4 + 0.6) / 1.2 / 2),
        ('From 0.2s to 1.4s, "five two". From 2.0s to 3.0s, "five nine".', [], 0.25),  # nearly everything
        (GOOD * 5, [], 0.1),
        (GOOD + ALSO, [], 0.5),
        (GOOD + ALSO + 'From 0.8s to 1.4s, "two". From 2.6s to 3.0s, "nine".', [], 0.25),  # word by word
    ],
)  # fmt: skip
def test_one_true_citation_a_place_is_best(text, evidence, place):
    spans = [Span(*times) for times in evidence]
    assert grounded_reward([text], [WORDS], [3.2], [spans]) == pytest.approx([place])


@pytest.mark.parametrize("evidence", [[Span(0.8, 1.4)], []])
def test_an_end_that_is_nearer_never_earns_less(evidence):
    ends = [0.9 + 0.05 * n for n in range(11)]
    texts = [f'From 0.8s to {end:.2f}s he says "two".' for end in ends]
    places = grounded_reward(texts, [WORDS] * 11, [3.2] * 11, [evidence] * 11)
    assert places == sorted(places)
    assert places[-1] == pytest.approx(0.5)


@given(
    st.text(max_size=200),
    st.lists(
        st.tuples(st.floats(0, 9), st.floats(0, 9), st.sampled_from(["a", '"b"', "from", ""])), max_size=6
    ),
    st.booleans(),
)
def test_whatever_a_model_writes_earns_between_nothing_and_the_most(text, spans, is_marked):
    text += " ".join(f'From {a:.2f}s to {b:.2f}s {word} "five two". ' for a, b, word in spans)
    evidence = [[Span(0.2, 1.4)]] if is_marked else None
    for reward_of in (dense_grounding_reward, grounded_reward):
        (reward,) = reward_of([text], [WORDS], [3.2], evidence)
        assert 0 <= reward <= 0.5


@pytest.mark.parametrize(
    "hostile",
    ['"' * 40_000, "'a " * 20_000, "the in from " * 12_000, "1-2 s " * 6_000, '1-2 s "a". ' * 3_000],
)
def test_hostile_text_is_judged_in_time(hostile):
    began = time.process_time()
    step_credits(hostile, WORDS, 3.2)
    place_credits(hostile, WORDS, 3.2, [Span(0.2, 1.4), Span(2.0, 3.0)])
    assert time.process_time() - began < 5


# --- the strict reader of answers ------------------------------------------------------------------------------------

FIVE = ("red", "green", "blue", "black", "white")


@pytest.mark.parametrize(
    ("text", "label", "reward"),
    [
        ("So.\nFinal answer: (e) white", "e", 1.0),
        ("So.\nFinal answer: white", "e", 1.0),
        ("So.\nFinal answer: (d) black", "e", 0.0),
        ("So.\nFinal answer: (a) or (e)", "e", 0.0),
        ("So.\nFinal answer: (b) green", "(B)", 1.0),
        ("", "a", 0.0),
    ],
)
def test_the_strict_reader_pays_any_choice(text: str, label: str, reward: float) -> None:
    assert answer_reward([text], [label], reader="strict", choices=[FIVE]) == [reward]


def test_a_choice_that_repeats_the_right_text_is_right() -> None:
    twice = ("red", "green", "red")
    assert answer_reward(["So: (c)"], ["a"], reader="strict", choices=[twice]) == [1.0]
    assert answer_reward(["So: (c)"], ["a"], choices=[twice]) == [0.0]


def test_what_the_strict_reader_needs_is_named() -> None:
    with pytest.raises(ValueError, match="choices must be a list of 1 lists"):
        answer_reward(["(a)"], ["a"], reader="strict")
    with pytest.raises(ValueError, match="label 'e' is none of the 2 choices"):
        answer_reward(["(a)"], ["e"], reader="strict", choices=[("x", "y")])
    with pytest.raises(ValueError, match="reader must be official or strict, got 'kind'"):
        answer_reward(["(a)"], ["a"], reader="kind")  # type: ignore[arg-type]


def test_only_a_to_d_can_be_paid_officially() -> None:
    assert [letter for letter in "abcdefghij" if is_payable(letter)] == list("abcd")
