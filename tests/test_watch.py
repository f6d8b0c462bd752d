"""A training that is watched: what is measured when, what is kept, and that watching changes nothing."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr import rl, sta
from tgsr.answering.predict import Unheard
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RunError, Stopped
from tgsr.evaluation.scoring.score import read_predictions
from tgsr.evaluation.watch import HeldOut, in_words, is_measured, measures, notes
from tgsr.records import Question, Response, read_questions
from tgsr.timeline import Span, Word
from tgsr.training.config import BestBy, GrpoConfig, StaConfig
from tiny import logged, questions_in, rewarded_by, tiny_base, uneven

GRPO = GrpoConfig(
    questions="",
    prompts_per_step=2,
    group_size=2,
    max_new_tokens=5,
    learning_rate=1e-2,
    checkpoint_every=2,
    watch_every=2,
    max_steps=3,
    best_by="accuracy",
)


SAID = tuple(Word(text, start, start + 0.4) for text, start in (("one", 0.5), ("two", 2.0), ("three", 4.0)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("train"), "qa", 3, most=6)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("held-out")
    return questions_in(folder, "qa", 3, most=5)


def train(config: GrpoConfig, out: Path) -> None:
    rl.train_grpo(config, out, FeatureCache(out.parent / "cache"), tiny_base, rewarded_by(uneven))


def test_it_looks_before_the_first_step_now_and_then_and_after_the_last(
    trained: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(GRPO, questions=str(trained))
    train(config, tmp_path / "plain")
    train(replace(config, watch=str(held_out)), tmp_path / "watched")
    rows = logged(tmp_path / "watched", with_seconds=True)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [row["step"] for row in rows if "watch" in row] == [0, 2, 3]
    assert all(("watch" in row["seconds"]) == ("watch" in row) for row in rows)
    assert set(rows[0]) == {"step", "watch", "seconds"}
    seen = rows[0]["watch"]
    assert {"accuracy", "evidence_hit", "trace_iou", "quote_truth", "k", "k1"} <= set(seen)
    assert (seen["n"], seen["n_missing"]) == (5, 0)
    assert f"watch, step 3, {seen['n']} questions: evidence hit" in capsys.readouterr().out
    # The training is the one without the watch.
    without = [{k: v for k, v in row.items() if k != "watch"} for row in logged(tmp_path / "watched")[1:]]
    assert without == logged(tmp_path / "plain")


def test_its_answers_are_predictions_that_other_commands_read(
    trained: Path, held_out: Path, tmp_path: Path
) -> None:
    train(replace(GRPO, questions=str(trained), watch=str(held_out)), tmp_path / "run")
    folder = tmp_path / "run" / "watch"
    assert sorted(file.name for file in folder.iterdir()) == [f"step-{n}.jsonl" for n in (0, 2, 3)]
    responses = read_predictions(folder / "step-2.jsonl").responses
    assert {response.model for response in responses} == {"step-2"}
    assert [response.question.id for response in responses] == [q.id for q in read_questions(held_out)]
    assert all((folder / response.question.audio).exists() for response in responses)


def test_the_best_checkpoint_by_a_watched_measure_is_kept(
    trained: Path, held_out: Path, tmp_path: Path
) -> None:
    """A tiny model is always as wrong: the first look at steps is the best one, and outlives a newer checkpoint."""
    config = replace(GRPO, questions=str(trained), watch=str(held_out), keep_last=1, checkpoint_every=10)
    train(config, tmp_path / "run")
    assert {row["watch"]["accuracy"] for row in logged(tmp_path / "run") if "watch" in row} == {0.0}
    kept = sorted(file.name for file in (tmp_path / "run").glob("checkpoint-*.pt"))
    assert kept == ["checkpoint-2.pt", "checkpoint-3.pt"]


def test_a_killed_run_looks_again_where_it_goes_on(trained: Path, held_out: Path, tmp_path: Path) -> None:
    config = replace(GRPO, questions=str(trained), watch=str(held_out))
    train(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def die_in_the_third_step(*_: object) -> None:
        if (tmp_path / "broken/metrics.jsonl").exists() and len(logged(tmp_path / "broken")) == 3:
            raise Killed

    hook = register_optimizer_step_pre_hook(die_in_the_third_step)
    with pytest.raises(Killed):
        train(config, tmp_path / "broken")
    hook.remove()
    train(config, tmp_path / "broken")
    assert logged(tmp_path / "broken") == logged(tmp_path / "whole")
    for file in (tmp_path / "whole" / "watch").iterdir():
        assert (tmp_path / "broken" / "watch" / file.name).read_bytes() == file.read_bytes()


def test_a_run_that_is_asked_to_stop_looks_where_it_goes_on(
    trained: Path, held_out: Path, tmp_path: Path
) -> None:
    """A look may take minutes, a cluster's grace is 30 s."""
    config = replace(GRPO, questions=str(trained), watch=str(held_out), watch_every=1)
    train(config, tmp_path / "whole")
    updates = []

    def ask_in_the_second_step(*_: object) -> None:
        updates.append(1)
        if len(updates) == 2:
            signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(ask_in_the_second_step)
    with pytest.raises(Stopped):
        train(config, tmp_path / "run")
    hook.remove()
    assert [row["step"] for row in logged(tmp_path / "run") if "watch" in row] == [0, 1]
    assert not (tmp_path / "run" / "watch" / "step-2.jsonl").exists()
    train(config, tmp_path / "run")
    looks = [[row for row in logged(tmp_path / name) if "watch" in row] for name in ("run", "whole")]
    assert [row["step"] for row in looks[0]] == [0, 1, 2, 3]
    assert [row["watch"] for row in looks[0]] == [row["watch"] for row in looks[1]]
    train(config, tmp_path / "run")  # which has nothing to do
    assert [row["step"] for row in logged(tmp_path / "run") if "watch" in row] == [0, 1, 2, 3]


def test_a_watch_can_be_added_later_and_its_questions_stay(
    trained: Path, held_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(GRPO, questions=str(trained), max_steps=2)
    train(config, tmp_path / "run")
    train(replace(config, max_steps=3, watch=str(held_out)), tmp_path / "run")
    assert [row["step"] for row in logged(tmp_path / "run") if "watch" in row] == [3]
    other = held_out.with_name("other.jsonl")
    other.write_text(held_out.read_text().splitlines()[0] + "\n")
    with pytest.raises(RunError, match="its watch changed since it began: "):
        train(replace(config, max_steps=4, watch=str(other)), tmp_path / "run")


def test_stage_1_is_watched_by_phrases(tmp_path: Path) -> None:
    questions = questions_in(tmp_path / "train", "sta", 2, n_phrases=2)
    held_out = questions_in(tmp_path / "held-out", "sta", 2, n_phrases=2)
    config = StaConfig(questions=str(questions), clips_per_step=1, watch=str(held_out), watch_every=2)
    sta.train_sta(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), tiny_base)
    seen = [row["watch"] for row in logged(tmp_path / "run") if "watch" in row]
    assert len(seen) == 2
    assert all(
        set(row) == {"n", "n_missing", "phrase_iou", "phrase_high_overlap", "intervals"} for row in seen
    )


def test_what_cannot_be_heard_is_listed_and_the_run_goes_on(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And clips that are trained on, or have no words, are said."""
    rows = [json.loads(line) for line in trained.read_text().splitlines()]
    watched = tmp_path / "elsewhere" / "watched.jsonl"
    watched.parent.mkdir()
    links = {audio: f"{n}.wav" for n, audio in enumerate(dict.fromkeys(row["audio"] for row in rows))}
    for audio, link in links.items():
        (watched.parent / link).symlink_to(trained.parent / audio)
    for row in rows:
        row["audio"] = links[row["audio"]]
    rows[0]["audio"] = "gone.wav"
    watched.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(replace(GRPO, questions=str(trained), watch=str(watched), max_steps=1), tmp_path / "run")
    said = capsys.readouterr().out
    n_clips = len({row["audio"] for row in rows})
    assert f"{n_clips - 1} of its {n_clips} clips are trained on, too: not held out" in said
    assert f"--watch {watched}: no words known: the clips.jsonl that it was made from must" in said
    seen = logged(tmp_path / "run")[0]["watch"]
    assert seen["n_missing"] == 1
    assert "quote_truth" not in seen
    assert f"watch, step 1, {len(rows)} questions (1 without an answer, not counted): " in said
    (error,) = (tmp_path / "run/watch/step-0.errors.jsonl").read_text().splitlines()
    assert (json.loads(error)["audio"], "gone.wav" in json.loads(error)["error"]) == ("gone.wav", True)


@pytest.mark.parametrize(
    ("measure", "kind", "evidence", "words", "is_told"),
    [
        ("phrase_iou", "phrase", True, None, True),
        ("phrase_iou", "choice", True, SAID, False),
        ("evidence_hit", "choice", True, None, True),
        ("above_chance", "choice", False, SAID, False),
        ("quote_truth", "choice", True, None, False),
        ("quote_truth", "choice", False, SAID, True),
        ("accuracy", "choice", False, None, True),
        ("accuracy_strict", "phrase", True, None, False),
    ],
)
def test_a_best_by_that_no_question_tells_is_known_before(
    measure: BestBy, kind: str, evidence: bool, words: tuple[Word, ...] | None, is_told: bool
) -> None:
    question = answer("a", "", "a").question
    changed = replace(question, kind=kind, phrase="two", evidence=question.evidence if evidence else ())
    assert is_measured(measure, changed, {question.id: words}) == is_told
    watched = HeldOut((changed,), {question.id: words}, (Path("q.jsonl"), Path("clips.jsonl")))
    config = replace(GRPO, best_by=measure)
    assert any("no checkpoint will be the best" in note for note in notes(watched, config, ())) != is_told


@pytest.mark.parametrize("content", ["", "\n"])
def test_a_file_without_questions_is_refused_before_the_first_step(
    content: str, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "watched.jsonl").write_text(content)
    config = replace(GRPO, questions=str(trained), watch=str(tmp_path / "watched.jsonl"))
    with pytest.raises(RunError, match="holds no question to watch the training by"):
        train(config, tmp_path / "run")
    with pytest.raises(OptionError, match="--watch-every 0: must be 1 or more"):
        replace(GRPO, watch_every=0)


# --- the measures ------------------------------------------------------------------------------------------


def answer(clip: str, cited: str, letter: str, task: str = "after") -> Response:
    question = Question(
        f"q-{clip}-{task}",
        clip,
        f"{clip}.wav",
        6.0,
        "choice",
        "What?",
        "two",
        ("one", "two"),
        evidence=(Span(2.0, 2.4),),
        task=task,
    )
    return Response(question, "step-0", f"{cited} Final answer: ({letter})")


TRUE = 'From 2.00s to 2.40s, "two" is said.'
FIRST = 'From 0.50s to 0.90s, "one" is said.'


def measured(*answers: Response | Unheard) -> dict[str, Any]:
    return measures(answers, {answer.question.id: SAID for answer in answers})


def test_measures_of_planted_answers() -> None:
    seen = measured(answer("a", TRUE, "b"), answer("b", FIRST, "b"), answer("c", "", "a", "who"))
    assert seen["evidence_hit"] == pytest.approx(1 / 3)
    assert seen["trace_iou"] == pytest.approx(1 / 3)
    assert seen["quote_truth"] == pytest.approx(2 / 3)
    assert seen["first_place"] == pytest.approx(1 / 2)  # of those that cite
    assert seen["accuracy"] == pytest.approx(2 / 3)
    assert seen["accuracy_by_task"] == {"after": 1.0, "who": 0.0}
    assert seen["k1"] == pytest.approx(2 / 3)
    assert (seen["start_error"], seen["end_error"]) == (0, 0)
    low, high = seen["intervals"]["evidence_hit"]
    assert low < seen["evidence_hit"] < high


def test_a_question_without_answer_is_counted_and_not_measured() -> None:
    seen = measured(answer("a", TRUE, "b"), Unheard(answer("b", "", "a").question, "gone"))
    assert (seen["n"], seen["n_missing"], seen["evidence_hit"], seen["accuracy"]) == (2, 1, 1.0, 1.0)
    nothing = measured(Unheard(answer("b", "", "a").question, "gone"))
    assert (nothing["n"], nothing["n_missing"]) == (1, 1)
    assert "accuracy" not in nothing


def test_k_that_looks_perfect_while_nothing_is_hit_is_warned_of() -> None:
    """The same place in every clip, which is the evidence of none."""
    seen = measured(*(answer(clip, FIRST, "b") for clip in "abcd"))
    assert (seen["k1"], seen["evidence_hit"]) == (1.0, 0.0)
    assert "warning: k looks perfect" in in_words(10, seen)
    assert "warning" not in in_words(
        10, measured(*(answer(clip, TRUE, "b") for clip in "ab")) | {"above_chance": 0.5}
    )
