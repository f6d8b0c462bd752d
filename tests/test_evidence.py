"""What a response cites, held against the evidence and the clip's words: by hand, and against stereotypes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tgsr.dense_reward import place_credits
from tgsr.evidence import (
    EvidenceCase,
    EvidenceScores,
    above_chance,
    cited_evidence,
    evidence_case,
    evidence_scores,
    ungrounded,
)
from tgsr.prompts import REASONING_OPENING
from tgsr.statistics.intervals import Bootstrap
from tgsr.timeline import Span, Word

WORDS = tuple(
    Word(text, start, start + 0.4)
    for text, start in (
        ("one", 1.0),
        ("seven", 2.0),
        ("eight", 3.0),
        ("one", 5.0),
        ("four", 6.0),
        ("nine", 7.0),
    )
)
DIGITS = ("zero", "one", "two", "three", "four", "five")
EVIDENCE = (Span(2.0, 3.4),)


@pytest.mark.parametrize(
    ("text", "hit", "iou", "truth", "errors", "first"),
    [
        ('From 2.0s to 3.4s, he says "seven eight".', True, 1.0, True, [(0, 0)], False),
        ('He says "seven eight" (2.0 - 3.4 s).', True, 1.0, True, [(0, 0)], False),
        ('From 0:02 to 0:03, he says "Seven".', True, 1 / 1.4, True, [(0, 0.6)], False),
        ('"seven eight" is what he says.', False, 0.0, False, [], None),  # a quote without times
        ("From 2.0s to 3.4s he sounds sad.", True, 1.0, False, [], False),  # times without a quote
        ("", False, 0.0, False, [], None),
        ('From 1.0s to 2.4s, he says "one seven".', False, 0.4 / 2.4, True, [(0, 0)], True),
        ('From 0.0s to 0.9s, he says "one".', False, 0.0, False, [(-1, -0.5)], True),
        # of "one", said twice, the nearer one
        ('From 5.1s to 5.5s, he says "one".', False, 0.0, True, [(0.1, 0.1)], False),
        ('From 2.0s to 3.4s, he says "eight seven".', True, 1.0, False, [], False),  # not in this order
        ('From 2.0s to 3.4s, he says "seven three".', True, 1.0, False, [], False),
        ('From 1.0s to 3.4s, "one seven eight two".', True, 1.4 / 2.4, True, [(0, 0)], True),  # three of four
        ('From 8.0s to 9.0s, "seven eight".', False, 0.0, False, [(6, 5.6)], False),
        ('From 3.0s to 2.0s, "seven eight".', False, 0.0, False, [], None),  # an interval that is none
        ('From 2.0s to 3.4s, "seven eight". From 9s to 8s, "nine".', True, 0.5, False, [(0, 0)], False),
        # one quote of two places: said in both, in one alone, one half in each
        ('From 1.0s to 1.4s and from 5.0s to 5.4s, "one".', False, 0.0, True, [(0, 0), (0, 0)], True),
        ('From 1.0s to 1.4s and from 8.0s to 8.4s, "one".', False, 0.0, False, [(0, 0), (3, 3)], True),
        ('From 1.0s to 1.4s and from 7.0s to 7.4s, "one" and "nine".', False, 0.0, True, [], True),
        ('From 2.0s to 3.4s, he says "7 8".', True, 1.0, True, [(0, 0)], False),  # numbers as they are said
        ('Von 2,0 s bis 3,4 s sagt er \u201eseven eight\u201c.', True, 1.0, True, [(0, 0)], False),
        ('\u4ece2.0\u79d2\u52303.4\u79d2\uff1a\u300cseven eight\u300d', True, 1.0, True, [(0, 0)], False),
        ('He says "seven 8". This is heard from 2.0s to 3.4s.', True, 1.0, True, [(0, 0)], False),
        ('{"quote": "seven 8", "start": 2.0, "end": 3.4, "answer": "(b)"}', True, 1.0, True, [(0, 0)], False),
        ('From 2.0s to 3.4s, "seven eight", as in (b) "one, four, nine".', True, 1.0, True, [(0, 0)], False),
        # the answer's line cites nothing, and its option is no quote
        ('From 6.0s to 6.4s: "four".\nFinal answer: (b) "seven", 2.0 s to 3.4 s', False, 0.0, True, [(0, 0)], False),
        (f'{REASONING_OPENING}\nFrom 2.0s to 3.4s, "seven eight".\nnine (c)', True, 1.0, True, [(0, 0)], False),
    ],
)  # fmt: skip
def test_a_response_by_hand(
    text: str, hit: bool, iou: float, truth: bool, errors: Sequence[tuple[float, float]], first: bool | None
) -> None:
    cited = cited_evidence(text, WORDS, 10.0, EVIDENCE)
    assert (cited.evidence_hit, cited.quote_truth, cited.first_place) == (hit, truth, first)
    assert cited.trace_iou == pytest.approx(iou)
    assert len(cited.errors) == len(errors)
    for found, right in zip(cited.errors, errors, strict=True):
        assert found == pytest.approx(right)


@pytest.mark.parametrize(("late", "truth"), [(0.35, True), (0.45, False), (-0.35, True), (-0.45, False)])
def test_a_quote_is_said_where_half_of_each_word_is_in_the_span_with_a_fifth_of_a_second(
    late: float, truth: bool
) -> None:
    text = f'From {3 + late:.2f}s to {3.4 + late:.2f}s, he says "eight".'
    assert cited_evidence(text, WORDS, 10.0).quote_truth is truth


def test_what_nobody_knows_is_none_and_not_zero() -> None:
    text = 'From 2.0s to 3.4s, he says "seven eight".'
    for words in (None, ()):
        cited = cited_evidence(text, words, 10.0)
        assert (cited.evidence_hit, cited.trace_iou, cited.quote_truth, cited.first_place) == (None,) * 4
        assert cited.errors == ()
    assert cited_evidence(text, None, 10.0, EVIDENCE).evidence_hit is True


def test_half_of_a_union_is_a_hit_and_less_is_none() -> None:
    hits = [
        cited_evidence(f"From 2.0s to {end}s.", None, 10.0, (Span(2, 4),)).evidence_hit for end in (3.0, 2.99)
    ]
    assert hits == [True, False]


def test_citations_past_the_end_are_counted_and_a_rounded_end_is_none() -> None:
    cited = cited_evidence(
        "From 9.0s to 10.04s. From 9.0s to 10.1s. From 999s to 1000s.", WORDS, 10.0, EVIDENCE
    )
    assert (cited.n_citations, cited.n_past_end) == (3, 2)


def test_punctuation_case_and_apostrophes_do_not_matter() -> None:
    words = [
        Word(text, i, i + 0.5) for i, text in enumerate(("Well,", "I", "don\u2019t", "KNOW.", "Twenty-one?"))
    ]
    cited = cited_evidence("From 1.0 to 4.5 s, she says \u201ci don't know twenty one\u201d.", words, 9.0)
    assert cited.quote_truth is True
    assert cited.errors == ((0, 0),)


def test_what_is_written_without_blanks_is_compared_character_by_character() -> None:
    words = [
        Word(text, 0.3 * i, 0.3 * i + 0.3)
        for i, text in enumerate(("\u4f60\u597d", "\u6211\u5f88", "\u7d27\u5f20", "\u5417"))
    ]
    cited = cited_evidence("From 0.3s to 0.9s she says \u201c\u6211\u5f88\u7d27\u5f20\u201d.", words, 3.0)
    assert cited.quote_truth is True
    assert cited.errors == ((pytest.approx(0), pytest.approx(0)),)


def test_times_inside_a_word_that_is_a_whole_segment_are_not_known() -> None:
    segments = [Word("In the rain here, yeah.", 0.3, 3.0), Word("You seem a little nervous.", 3.7, 4.6)]
    cited = cited_evidence(
        'From 0.5s to 4.6s, "the rain here yeah you seem a little nervous".', segments, 9.0
    )
    assert cited.errors == ((None, pytest.approx(0)),)
    assert cited.quote_truth is True


def test_a_quote_that_skips_words_begins_and_ends_where_its_words_are_said() -> None:
    spoken = "so i said to him that you can not have it both ways my friend"
    words = [Word(text, i, i + 1) for i, text in enumerate(spoken.split())]
    cited = cited_evidence('From 1s to 13s: "I said to him you cannot have it both ways".', words, 20.0)
    assert cited.errors == ((0, 0),)


@pytest.mark.parametrize(
    "text", ['"' * 9999, "From 1 to 2 s " * 3000, 'From 1s to 2s "' + "one " * 999 + '"', "\x00 1-2s \ud800"]
)
def test_no_text_raises(text: str) -> None:
    cited_evidence(text, WORDS, 10.0, EVIDENCE)


# --- many ------------------------------------------------------------------------------------------------


def _clips(n: int, seed: int = 0, n_words: int = 8) -> list[tuple[float, list[Word]]]:
    """Durations of 6 to 10 s, with words all over them."""
    rng = random.Random(seed)
    clips = []
    for _ in range(n):
        duration = round(rng.uniform(6, 10), 2)
        step = (duration - 0.6) / n_words
        words = [Word(rng.choice(DIGITS), 0.3 + i * step, 0.3 + (i + 0.7) * step) for i in range(n_words)]
        clips.append((duration, words))
    return clips


def _cases(policy: str, n: int = 60, per_clip: int = 3, seed: int = 0) -> list[EvidenceCase]:
    rng = random.Random(seed)
    cases = []
    for number, (duration, words) in enumerate(_clips(n, seed)):
        for question in range(per_clip):
            first = rng.randrange(len(words) - 2)
            if policy == "asked for the end":  # the question's kind says where, and the clip nothing
                first = len(words) - 3 if question else 0
            said = words[first : first + 3]
            evidence = Span(said[0].start, said[-1].end)
            start = {
                "same place": 1 + rng.random() / 2,
                "asked for the end": duration - 3.0 if question else 0.3,
            }
            start |= {"evidence": evidence.start, "anywhere": rng.uniform(0, duration - 2)}
            begin = start.get(policy, 0.0)
            end = {"whole clip": duration, "evidence": evidence.end}.get(policy, begin + 2.0)
            text = f'From {begin:.2f}s to {end:.2f}s, the speaker says "{" ".join(w.text for w in said)}".'
            task = f"kind {bool(question)}" if policy == "asked for the end" else "follows"
            cases.append(evidence_case(text, words, duration, [evidence], f"c{number}", task))
    return cases


def _scores(cases: Sequence[EvidenceCase]) -> EvidenceScores:
    return evidence_scores(cases, Bootstrap(0, 400))


def test_true_citations_stand_far_above_chance() -> None:
    scores = _scores(_cases("evidence"))
    assert scores.evidence_hit.value == 1.0
    assert scores.quote_truth.value == 1.0
    assert scores.above_chance.low is not None
    assert scores.above_chance.low > 0.55
    assert scores.above_chance.high is not None
    assert scores.above_chance.high < 0.85
    assert scores.start_within.value == scores.end_within.value == 1.0


@pytest.mark.parametrize("policy", ["same place", "anywhere", "whole clip", "asked for the end"])
def test_what_needs_no_listening_is_nothing_above_chance(policy: str) -> None:
    scores = _scores(_cases(policy))
    assert scores.trace_iou.value is not None
    assert scores.trace_iou.value > 0.1
    mean = scores.above_chance
    assert mean.value is not None
    assert abs(mean.value) < 0.03
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low <= 0.005
    assert mean.high >= -0.005


def test_the_interval_of_chance_holds_in_most_of_many_sets() -> None:
    held = 0
    for seed in range(40):
        mean = evidence_scores(
            _cases("anywhere", n=25, per_clip=2, seed=seed), Bootstrap(seed, 200)
        ).above_chance
        assert mean.low is not None
        assert mean.high is not None
        held += mean.low <= 0 <= mean.high
    assert held >= 33  # 95 % of 40 are 38


def test_chance_is_the_mean_over_the_other_clips_questions_by_hand() -> None:
    def case(clip: str, start: float, evidence: float) -> EvidenceCase:
        text = f"From {start}s to {start + 1}s."
        return evidence_case(text, None, 10.0, [Span(evidence, evidence + 1)], clip, None)

    # clip a has two questions, which are not dealt to each other; b cites a's first place
    cases = [case("a", 1, 1), case("a", 5, 5), case("b", 1, 8)]
    mean = evidence_scores(cases, Bootstrap()).above_chance
    assert mean.value == pytest.approx(2 / 3 - (0 + 0 + 0.5) / 3)


def test_a_clip_without_another_of_like_length_has_no_chance() -> None:
    cases = [evidence_case("From 1s to 2s.", None, d, [Span(1, 2)], f"c{d}", None) for d in (3.0, 6.0, 7.0)]
    one, *two = above_chance(cases)
    assert one is None
    assert two == pytest.approx([0, 0])
    scores = evidence_scores(cases[:1], Bootstrap())
    assert (scores.above_chance.value, scores.above_chance.n_unscored, scores.trace_iou.value) == (
        None,
        1,
        1.0,
    )


def test_no_citation_is_a_miss_in_every_denominator_that_says_all() -> None:
    cases = _cases("evidence", n=10)
    silent = [
        evidence_case("(a)", w, d, [Span(1, 2)], f"s{i}", "follows") for i, (d, w) in enumerate(_clips(10))
    ]
    scores = _scores([*cases, *silent])
    assert scores.n_with_evidence == scores.n_with_words == scores.n == 40
    assert scores.evidence_hit.value == scores.quote_truth.value == 0.75
    assert scores.trace_iou.value == pytest.approx(0.75, abs=0.01)
    assert (scores.first_place.n, scores.first_place.n_unscored) == (30, 10)
    assert scores.n_citations == 30


def test_a_stereotype_shows_in_the_spread_of_starts_and_the_first_place() -> None:
    cases = [
        evidence_case("From 0.3s to 2.3s.", w, d, [Span(d - 3, d - 1)], f"c{i}", None)
        for i, (d, w) in enumerate(_clips(20))
    ]
    scores = _scores(cases)
    assert (scores.first_place.value, scores.evidence_first_place.value) == (1.0, 0.0)
    assert scores.start_spread == pytest.approx(0)
    assert scores.evidence_spread is not None
    assert scores.evidence_spread > 0.5


@pytest.mark.parametrize("said", ["7 8", "Seven, eight!"])
@pytest.mark.parametrize("written", [("7", "8"), ("seven", "eight")])
def test_the_reward_hears_numbers_as_the_measure_does(said: str, written: tuple[str, str]) -> None:
    words = (Word(written[0], 2.0, 2.4), Word(written[1], 3.0, 3.4))
    text = f'From 2.0s to 3.4s, he says "{said}".'
    assert [step.credit for step in place_credits(text, words, 10.0, EVIDENCE)] == [pytest.approx(1.0)]
    assert cited_evidence(text, words, 10.0, EVIDENCE).quote_truth


def test_no_responses_have_no_scores() -> None:
    scores = _scores([])
    assert (scores.n, scores.evidence_hit.value, scores.start_spread) == (0, None, None)
    assert scores.past_end.value is None


@pytest.mark.parametrize(
    ("k1", "hit", "above", "said"),
    [
        (0.97, 0.02, 0.3, "evidence is hit in 2 %"),
        (0.95, 0.4, 0.01, "hardly better than others (+0.01 IoU)"),
        (0.95, None, -0.02, "hardly better"),
        (0.95, 0.4, 0.3, None),
        (0.5, 0.0, 0.0, None),
        (0.0, 1.0, 0.01, "who cites everything hits it"),
        (0.0, 1.0, 0.3, None),
        (0.0, 1.0, None, None),
        (None, 0.0, 0.0, None),
        (1.0, None, None, None),
    ],
)  # fmt: skip
def test_numbers_that_look_better_than_the_grounding_are_said(
    k1: float | None, hit: float | None, above: float | None, said: str | None
) -> None:
    told = ungrounded(k1, hit, above)
    assert (told is None) if said is None else (told is not None and said in told)


def test_who_recites_the_clip_hits_everything_and_is_found_out() -> None:
    """Each second of the clip with a true quote: all hits, all quotes true, to the hundredth; worth nothing."""
    rng = random.Random(0)
    cases = []
    for clip in range(40):
        words = [Word(f"w{at}", float(at), at + 1.0) for at in range(10)]
        text = " ".join(f'From {at}.0s to {at + 1}.0s he says "w{at}".' for at in range(10)) + "\n(a)"
        at = rng.randrange(10)
        cases.append(evidence_case(text, words, 10.0, [Span(at, at + 1)], str(clip)))
    scores = evidence_scores(cases, Bootstrap(0, 100))
    assert (scores.evidence_hit.value, scores.quote_truth.value, scores.start_within.value) == (1, 1, 1)
    assert scores.trace_iou.value == pytest.approx(0.1)
    assert (
        abs(scores.above_chance.value or 1) < 0.01
    )  # the evidence lies elsewhere in other clips, as often hit
    told = ungrounded(0.0, scores.evidence_hit.value, scores.above_chance.value)
    assert told is not None
    assert told.startswith("the evidence is hit in 100 %, but by some of many citations")
