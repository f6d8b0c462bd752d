"""Which rewards can be earned without listening: computed on clips with exact words, and on real speech."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tgsr.choices import official_letter
from tgsr.cli import main
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.questions.by_rule import Choices, choice_questions_of
from tgsr.data.questions.digits import choice_questions
from tgsr.dense_reward import dense_grounding_reward, grounded_reward
from tgsr.errors import RecordError
from tgsr.evaluation.reward_hacking import (
    GROUNDING,
    POLICIES,
    REWARDS,
    Hacking,
    Words,
    compare,
    draw,
    rewards_of,
    table,
    write_hacking,
)
from tgsr.grounding import count_distinct, count_mentions, find_spans
from tgsr.records import Clip, Question, Response, read_clips, write_jsonl
from tgsr.timeline import END_SLACK, Span, Word

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "data" / "speech" / "manifest.jsonl"
CHEATS = [policy for policy in POLICIES if policy.kind == "degenerate"]


@pytest.fixture(scope="module")
def digits() -> tuple[list[Question], dict[str, Words]]:
    """Real recordings of digits joined with exact word times, and the questions that stage 2 asks about them."""
    clips = [compose(seed, "heldout-recordings").clip for seed in range(20)]
    questions = [
        q for at, clip in enumerate(clips) for q in choice_questions(clip, np.random.default_rng(at))
    ]
    return questions, {clip.id: clip.words for clip in clips}


@pytest.fixture(scope="module")
def found(digits: tuple[list[Question], dict[str, Words]]) -> Hacking:
    return compare(*digits, n_resamples=200)


def earned(found: Hacking, policy: str, reward: str) -> float:
    value = next(one for one in found.policies if one.name == policy).rewards[reward].value
    assert value is not None
    return value


def test_policies_have_names_of_their_own_and_one_is_the_reference() -> None:
    assert len({policy.name for policy in POLICIES}) == len(POLICIES)
    assert [policy.kind == "reference" for policy in POLICIES] == [True] + [False] * (len(POLICIES) - 1)
    assert len(CHEATS) >= 30


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_policy_writes_what_it_says_inside_the_clip(
    policy: object, digits: tuple[list[Question], dict[str, Words]]
) -> None:
    questions, words = digits
    for question in [q for q in questions if q.evidence][:40]:
        text = policy.write(question, words[question.clip_id], np.random.default_rng(0))  # type: ignore[attr-defined]
        right = "abcd"[question.choices.index(str(question.answer))]
        said_right = official_letter(text) == right
        if policy.name not in ("the same, wrong answer", "every letter"):  # type: ignore[attr-defined]
            assert said_right
        if policy.name == "the same, wrong answer":  # type: ignore[attr-defined]
            assert not said_right
        if policy.name not in ("fixed example", "evidence, and past the end"):  # type: ignore[attr-defined]
            assert all(span.end <= question.duration + END_SLACK for span in find_spans(text))


def test_the_authors_counter_takes_text_without_a_time_for_grounding() -> None:
    question = Question("q", "c", "a", 4.0, "choice", "Which?", "one", ("one", "two"), evidence=(Span(0, 1),))
    for name in ('"from 2 to 3 people"', '"(3, 5)"'):
        policy = next(policy for policy in POLICIES if policy.name == name)
        text = policy.write(question, (Word("one", 0, 1),), np.random.default_rng(0))
        assert (count_mentions(text), count_distinct(text)) == (1, 0)


def test_the_papers_reward_pays_templates_as_much_as_true_evidence(found: Hacking) -> None:
    """The finding: Eq. 2 counts timestamps, so that any one place is worth the true one, and some text without any."""
    best = earned(found, "true evidence, quoted", "R_tg official")
    not_told = [c.name for c in CHEATS if earned(found, c.name, "R_tg official") >= best]
    assert set(not_told) >= {"whole clip", "first second", "fixed example", "random span", '"(3, 5)"'}
    assert set(not_told) <= set(found.blind["R_tg official"])
    # The strict counter sees through the look-alikes, not through the places.
    assert '"(3, 5)"' not in found.blind["R_tg strict"]
    assert {"whole clip", "random span"} <= set(found.blind["R_tg strict"])


def more_than(share: float, reward: str, found: Hacking) -> dict[str, float]:
    """The degenerate policies that earn more than `share` of what the reference does."""
    best = earned(found, "true evidence, quoted", reward)
    shares = {c.name: earned(found, c.name, reward) / best for c in CHEATS}
    return {name: of for name, of in shares.items() if of > share}


def test_the_dense_reward_pays_every_template_clearly_less_than_true_evidence(found: Hacking) -> None:
    assert earned(found, "true evidence, quoted", "dense") > 0.48  # of 0.5: two decimals cost a little
    # Truly heard and beside the point; and true, with one step too many.
    assert set(more_than(0.4, "dense", found)) <= {"another word", "evidence, and past the end"}
    assert more_than(0.6, "dense", found) == {}
    assert found.blind["dense"] == []
    assert found.blind["paper + dense"] == []


def test_the_grounded_reward_pays_every_template_clearly_less_than_true_evidence(found: Hacking) -> None:
    assert earned(found, "true evidence, quoted", "place") > 0.48
    # The true place without its words, and with a false one beside it, are half of the truth.
    half = {"evidence, empty quote", "evidence, and past the end"}
    assert set(more_than(0.4, "place", found)) <= half
    assert more_than(0.6, "place", found) == {}
    assert found.blind["place"] == found.blind["grounded"] == []
    assert earned(found, "right answer, no evidence", "grounded") == 1
    assert earned(found, "true evidence, unquoted", "place") < 0.6 * earned(
        found, "true evidence, quoted", "place"
    )


def test_a_wrong_answer_costs_its_own_reward_and_nothing_of_the_evidences(found: Hacking) -> None:
    same, wrong = "true evidence, quoted", "the same, wrong answer"
    assert earned(found, wrong, "dense") == earned(found, same, "dense")
    assert earned(found, wrong, "grounded") == pytest.approx(earned(found, same, "grounded") - 1)
    assert earned(found, wrong, "answer") == 0
    assert earned(found, wrong, "paper + dense") == pytest.approx(earned(found, same, "paper + dense") - 1)


def test_without_marked_evidence_a_true_word_anywhere_is_not_told_from_the_evidence(found: Hacking) -> None:
    assert found.blind["dense, words only"] == found.blind["place, words only"] == ["another word"]


def heard_badly(words: Words, rng: np.random.Generator) -> Words:
    """The words as a recognizer might give them: each time off by 0.1 s (sd), one word in ten another."""
    found = []
    for word in words:
        start = max(0.0, word.start + float(rng.normal(0, 0.1)))
        end = max(start + 0.05, word.end + float(rng.normal(0, 0.1)))
        found.append(Word("hat" if rng.random() < 0.1 else word.text, start, end))
    return tuple(found)


@pytest.mark.parametrize("reward_of", [dense_grounding_reward, grounded_reward])
def test_judged_by_a_recognizers_words_true_evidence_still_earns_the_most(
    digits: tuple[list[Question], dict[str, Words]], reward_of: Callable[..., list[float]]
) -> None:
    """Policies know the true words, the reward has bad ones: digits of 0.4 s make this harder than speech is."""
    questions, words = digits
    rng = np.random.default_rng(0)
    noisy = {id_: heard_badly(of, rng) for id_, of in words.items()}
    judged: dict[str, list[float]] = {policy.name: [] for policy in POLICIES}
    for question in [q for q in questions if q.evidence][:30]:
        for policy in POLICIES:
            text = policy.write(question, words[question.clip_id], np.random.default_rng(1))
            columns = [noisy[question.clip_id]], [question.duration], [question.evidence]
            judged[policy.name] += reward_of([text], *columns)
    means = {name: float(np.mean(of)) for name, of in judged.items()}
    best = means.pop(POLICIES[0].name)
    assert best > 0.3
    assert max(means[cheat.name] for cheat in CHEATS) < 0.75 * best


@pytest.mark.skipif(
    not SPEECH.exists(), reason="needs ../shared/data/speech: real speech that is not shipped"
)
def test_on_real_speech_they_are_told_apart_too(tmp_path: Path) -> None:
    everything = read_clips(SPEECH, on_error=tmp_path / "errors.jsonl")  # some pseudo words have no length
    clips = [clip for clip in everything if "librispeech" in clip.audio][:15]
    questions = [q for clip in clips for q in choice_questions_of(clip, clips, Choices())]
    assert len(questions) >= 30
    found = compare(questions, {clip.id: clip.words for clip in clips}, n_resamples=200)
    for reward in ("dense", "place"):
        assert earned(found, "true evidence, quoted", reward) > 0.45
        assert more_than(0.6, reward, found) == {}
        assert found.blind[reward] == []
    assert "whole clip" in found.blind["R_tg official"]


def test_questions_without_evidence_or_words_are_left_out_and_counted(
    digits: tuple[list[Question], dict[str, Words]],
) -> None:
    questions, words = digits
    some = [q for q in questions if q.evidence][:4]
    unmarked, unheard = replace(some[0], id="x", evidence=()), replace(some[0], id="y", clip_id="none")
    found = compare([*some, unmarked, unheard], words, n_resamples=10)
    assert (found.n_questions, found.n_left_out) == (4, 2)
    with pytest.raises(RecordError, match="none of its 2 questions"):
        compare([unmarked, unheard], words)


def test_equal_seeds_give_equal_numbers_and_models_stand_beside_the_policies(
    digits: tuple[list[Question], dict[str, Words]],
) -> None:
    questions, words = digits
    some = [q for q in questions if q.evidence][:12]
    answers = [Response(q, "parrot", "From 0.00s to 1.00s it is heard.\nFinal answer: (a)") for q in some[:6]]
    found = compare(some, words, answers, n_resamples=20)
    assert found == compare(some, words, answers, n_resamples=20)
    parrot = found.policies[-1]
    assert (parrot.name, parrot.kind, parrot.rewards["paper"].n) == ("parrot", "model", 6)
    assert all("parrot" not in names for names in found.blind.values())
    first = rewards_of(some[0], words[some[0].clip_id], answers[0].text)
    assert list(first) == list(REWARDS)
    assert (first["R_tg official"], first["R_tg strict"]) == (0.5, 0.5)


def test_the_table_marks_what_is_not_told_and_the_files_hold_it(found: Hacking, tmp_path: Path) -> None:
    lines = table(found).splitlines()
    row = next(line for line in lines if line.startswith("whole clip  "))
    assert row.count("=") == sum("whole clip" in found.blind[reward] for reward in GROUNDING) >= 3
    write_hacking(found, tmp_path / "hacking.json")
    kept = json.loads((tmp_path / "hacking.json").read_text())
    assert kept["blind"] == found.blind
    assert kept["policies"][0]["rewards"]["dense"]["n"] == found.n_questions
    draw(found, tmp_path / "hacking.png")
    assert (tmp_path / "hacking.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_says_what_is_missing_and_writes_its_files(
    digits: tuple[list[Question], dict[str, Words]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, words = digits
    some = [q for q in questions if q.evidence][:10]
    path = tmp_path / "questions.jsonl"
    write_jsonl(path, some)
    assert main(["rewards", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "clips.jsonl: is not there" in capsys.readouterr().err
    write_jsonl(tmp_path / "clips.jsonl", [Clip(id_, "a.wav", 10.0, of) for id_, of in words.items()])
    assert main(["rewards", str(path), "--out", str(tmp_path / "out"), "--n", "5"]) == 0
    assert "5 questions, 0 left out" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"hacking.json", "hacking.png"}
    (tmp_path / "clips.jsonl").write_text("")
    assert main(["rewards", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "tgsr build qa" in capsys.readouterr().err
