"""Whose answers rest on the sound, and whose do not: listeners that are grounded, or not, by construction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tgsr.answering.responder import ClipQuestion
from tgsr.audio import SAMPLE_RATE, Samples, load, save_wav
from tgsr.choices import letter
from tgsr.cli import main
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RecordError, RunError
from tgsr.evaluation.controls import FAITHFULNESS, OF_REASONING
from tgsr.evaluation.controls.alter import (
    NO_EVIDENCE,
    NO_OTHER,
    NO_ROOM,
    NO_SPEECH,
    NOT_HEARD,
    TOO_LONG,
    Settings,
    conditions_of,
    others_of,
    sources_of,
)
from tgsr.evaluation.controls.ask import ControlItem, control, slug
from tgsr.evaluation.controls.reasoning import (
    ANSWER,
    NO_MISTAKE,
    NO_REASONING,
    begun,
    filled,
    first_words,
    mistaken,
)
from tgsr.evaluation.controls.replies import Replies
from tgsr.evaluation.controls.scores import Movement, movements, slope, summarise, table, write
from tgsr.llm.decoding import GREEDY, Cut, Decoding, Failed
from tgsr.llm.served import TextPrompt
from tgsr.prompts import phrase_answer_af3, phrase_question_af3
from tgsr.records import Question, Response, read_questions, read_responses, write_jsonl
from tgsr.statistics.intervals import Bootstrap
from tgsr.timeline import Span

PITCHES = {"low": 300, "middle": 600, "high": 1200, "shrill": 2400}
NAMES = tuple(PITCHES)
N = 10  # clips: as few as are drawn


@dataclass
class Listener:
    """What all of them share; `said` counts the questions that were put."""

    name: str
    max_seconds: float = 10.0
    at_once: int = 4
    said: int = 0

    def phrase_question(self, phrase: str) -> str:
        return phrase_question_af3(phrase)

    def respond(
        self, clips: Sequence[np.ndarray], questions: Sequence[ClipQuestion], decoding: Decoding
    ) -> list[str | Failed]:
        self.said += len(questions)
        return [self.answer(clips[question.clip], question) for question in questions]

    def answer(self, samples: Samples, question: ClipQuestion) -> str | Failed:
        raise NotImplementedError

    def spent(self) -> str:
        return ""


def tone(samples: Samples) -> tuple[Span, str] | None:
    """Where the tone is and which; None where none is heard."""
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    if len(loud) < 1000:
        return None
    heard = samples[loud[0] : loud[-1] + 1]
    peak = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))).argmax() * SAMPLE_RATE / len(heard)
    name = min(PITCHES, key=lambda name: abs(PITCHES[name] - peak))
    return Span(loud[0] / SAMPLE_RATE, (loud[-1] + 1) / SAMPLE_RATE), name


def worded(span: Span, choices: Sequence[str], name: str) -> str:
    return f"From {span.start:.2f}s to {span.end:.2f}s, a tone.\nFinal answer: ({letter(choices.index(name))}) {name}"


class Grounded(Listener):
    """Finds the tone, answers by its pitch, cites its place."""

    def answer(self, samples: Samples, question: ClipQuestion) -> str:
        found = tone(samples)
        if found is None:
            return "There is no tone."
        if question.phrase is not None:
            return phrase_answer_af3(found[0])
        return worded(found[0], question.choices, found[1])


class Parrot(Listener):
    """Says (a), and cites the first second."""

    def answer(self, samples: Samples, question: ClipQuestion) -> str:
        if question.phrase is not None:
            return phrase_answer_af3(Span(0.0, 1.0))
        return worded(Span(0.0, 1.0), question.choices, question.choices[0])


class Pretender(Listener):
    """Right by listening, but what it cites is elsewhere: the clip's last half second."""

    def answer(self, samples: Samples, question: ClipQuestion) -> str:
        found, end = tone(samples), len(samples) / SAMPLE_RATE
        if question.phrase is not None:
            return phrase_answer_af3(Span(end - 0.5, end))
        name = found[1] if found else question.choices[0]
        return worded(Span(end - 0.5, end), question.choices, name)


class Deaf(Listener):
    """Refuses what is altered: an empty clip is an error of its server's."""

    def answer(self, samples: Samples, question: ClipQuestion) -> str | Failed:
        return Parrot("").answer(samples, question) if tone(samples) else Failed("HTTP 400: no speech")


def beep(name: str, start: float, end: float, duration: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    samples = (0.002 * rng.standard_normal(round(duration * SAMPLE_RATE))).astype(np.float32)
    first, last = round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)
    samples[first:last] += 0.5 * np.sin(2 * np.pi * PITCHES[name] * np.arange(last - first) / SAMPLE_RATE)
    return samples


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N clips of 4 to 7 s with one tone each, a choice and a phrase about each; the tone is never at an end."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(1)
    questions: list[Question] = []
    for index in range(N):
        duration = 4 + 3 * index / (N - 1)
        start = float(rng.uniform(1.2, duration - 1.4))
        place, name = Span(start, start + float(rng.uniform(0.4, 0.6))), NAMES[index % 4]
        save_wav(folder / f"{index}.wav", beep(name, place.start, place.end, duration, index))
        choices = tuple(NAMES[i] for i in rng.permutation(4))
        common = (f"c{index}", f"{index}.wav", duration)
        questions += [
            Question(f"{index}", *common, "choice", "Which tone?", name, choices, None, (place,), "pitch"),
            Question(f"{index}-p", *common, "phrase", "Where?", phrase="the tone", evidence=(place,)),
        ]
    write_jsonl(folder / "questions.jsonl", questions)
    return folder / "questions.jsonl"


def run(
    model: Listener, path: Path, out: Path, settings: Settings | None = None, **more: object
) -> list[ControlItem]:
    cache = FeatureCache(out / "cache")
    settings = settings or Settings()
    return control(model, read_questions(path), path, out, cache, GREEDY, settings, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def heard(asked: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ControlItem], Path]:
    """What the grounded listener says under every condition, and the folder."""
    out = tmp_path_factory.mktemp("heard")
    return run(Grounded("grounded"), asked, out), out


def test_who_listens_and_points_at_it_is_at_the_top(heard: tuple[list[ControlItem], Path]) -> None:
    found = summarise(heard[0])
    assert (found.n, found.n_clips, found.n_choices, found.n_phrases) == (2 * N, N, N, N)
    assert found.n_citing == 2 * N
    assert found.sufficiency.value == found.sufficiency_right.value == found.sufficiency_cropped.value == 1
    assert found.sufficiency_over_silence.value == 1  # on silence it gives no answer
    assert (found.changed_removed.value, found.changed_random.value, found.necessity.value) == (1, 0, 1)
    assert found.reliance_silenced.value == 1
    assert found.conditions["swapped"].accuracy.value == pytest.approx(1 - found.reliance_swapped.value)  # type: ignore[operator]
    assert found.text_prior.value == -0.25
    assert found.shift_following.value == found.roll_following.value == 1
    assert found.shift_following_by_kind["phrase"].n == found.shift_following_by_kind["choice"].n == 3 * N
    assert found.shift_staying.value == found.shift_lost.value == 0
    assert found.shift_slope.value == pytest.approx(1, abs=0.01)
    assert found.conditions["original"].iou.value == pytest.approx(1, abs=0.03)
    assert found.conditions["shifted-2"].iou.value == pytest.approx(1, abs=0.03)
    assert found.conditions["silenced"].iou.value == 0
    assert found.conditions["shifted-2"].same_place.value == 0
    assert found.conditions["reversed"].accuracy.value == 1
    assert found.covered.value == pytest.approx(0.7 / 5.5, abs=0.03)  # half a second and its pads
    assert found.chance == 0.25


def test_noise_in_place_of_silence_and_more_draws_change_nothing_for_who_listens(
    asked: Path, tmp_path: Path
) -> None:
    families = ("silenced", "evidence-only", "evidence-removed", "shifted")
    settings = Settings(fill="noise", draws=2, shifts=(0.5,), families=families)
    found = summarise(run(Grounded("grounded"), asked, tmp_path, settings))
    assert "random-removed-2" in found.conditions
    assert found.sufficiency.value == found.necessity.value == found.shift_following.value == 1
    assert found.reliance_silenced.value == 1
    of_coins = 2 ** (1 - found.n_clips)  # all clips on one side
    assert found.p_necessity == found.p_reliance_silenced == pytest.approx(of_coins, abs=0.01)


def test_who_does_not_listen_is_at_the_bottom_but_for_sufficiency(asked: Path, tmp_path: Path) -> None:
    """A constant answer is kept on any sound, hence sufficiency 1: only its gain over silence says something."""
    found = summarise(run(Parrot("parrot"), asked, tmp_path))
    assert found.sufficiency.value == 1
    assert found.sufficiency_over_silence.value == 0
    assert found.necessity.value == found.changed_removed.value == 0
    assert found.shift_following.value == found.roll_following.value == 0
    assert found.shift_staying.value == 1
    assert found.shift_slope.value == 0
    assert found.reliance_silenced.value == found.reliance_swapped.value == 0
    assert found.p_necessity is found.p_reliance_silenced is None
    accuracies = {scores.accuracy.value for scores in found.conditions.values()}
    assert accuracies == {found.conditions["original"].accuracy.value}


def test_a_right_answer_with_a_made_up_place_is_found_out(asked: Path, tmp_path: Path) -> None:
    found = summarise(run(Pretender("pretender"), asked, tmp_path))
    assert found.conditions["original"].accuracy.value == 1
    assert found.reliance_silenced.value > 0.5  # type: ignore[operator]  # it listens
    assert found.sufficiency.value < 0.5  # type: ignore[operator]  # but not to what it cites
    assert found.sufficiency_over_silence.value == 0
    assert found.changed_removed.value == 0
    # a shift moves the clip's end, too: only a roll tells who follows that
    assert found.shift_following.value == 1
    assert found.roll_following.value == 0
    assert found.shift_staying.value == 0
    assert found.necessity.value <= 0  # type: ignore[operator]


def test_the_questions_own_evidence_shows_what_the_cited_one_hides(asked: Path, tmp_path: Path) -> None:
    settings = Settings(evidence="reference", families=("evidence-only", "evidence-removed"))
    found = summarise(run(Pretender("pretender"), asked, tmp_path, settings))
    assert found.sufficiency.value == 1
    assert found.changed_removed.value > 0.5  # type: ignore[operator]
    assert found.n_with_evidence == N


def test_an_option_that_is_an_interval_is_not_what_the_reasoning_cites(asked: Path, tmp_path: Path) -> None:
    """It stands where it stood in the question's words, however the sound is moved."""

    class Timed(Grounded):
        def answer(self, samples: Samples, question: ClipQuestion) -> str:
            found = tone(samples)
            return worded(found[0] if found else Span(0.0, 0.5), question.choices, question.choices[1])

    options = ("from 0.0 s to 1.0 s", "from 1.0 s to 3.0 s", "from 3.0 s to 4.0 s")
    questions = [
        replace(q, choices=options, answer=options[1]) for q in read_questions(asked) if q.kind == "choice"
    ]
    path = asked.with_name("timed.jsonl")
    write_jsonl(path, questions)
    items = run(Timed("timed"), path, tmp_path, Settings(families=("shifted", "evidence-only")))
    assert all(len(item.cited) == 1 for item in items)
    found = summarise(items)
    assert (found.shift_following.value, found.shift_staying.value) == (1.0, 0.0)
    assert found.covered.value == pytest.approx(0.7 / 5.5, abs=0.03)  # the tone and 0.1 s on both sides


def test_altered_files_hold_what_they_say(asked: Path, heard: tuple[list[ControlItem], Path]) -> None:
    """Each condition's question and file, read back: the tone is where its evidence says, or is not."""
    folder = heard[1] / "grounded"
    before = {question.id: question for question in read_questions(asked)}
    n_cut = 0
    for condition in ["silenced", "evidence-removed", "evidence-only", "evidence-cropped", "random-removed"]:
        path = folder / f"questions-{condition}.jsonl"
        for question in read_questions(path):
            samples = load(folder / question.audio)
            assert len(samples) / SAMPLE_RATE == pytest.approx(question.duration)
            if condition in ("silenced", "evidence-removed"):
                assert tone(samples) is None
            else:
                span = tone(samples)[0]  # type: ignore[index]
                assert span.iou(question.evidence[0]) > 0.97
                n_cut += question.kind == "choice"
    assert n_cut == 3 * N
    for condition in ["shifted-0.5", "shifted-2", "rolled", "reversed"]:
        for question in read_questions(folder / f"questions-{condition}.jsonl"):
            if question.evidence and not (condition == "rolled" and len(question.evidence) > 1):
                span = tone(load(folder / question.audio))[0]  # type: ignore[index]
                assert span.iou(question.evidence[0]) > 0.97, condition
    for question in read_questions(folder / "questions-swapped.jsonl"):
        original = before[question.id]
        mine, other = load(asked.parent / original.audio), load(folder / question.audio)
        assert len(other) != len(mine)
        assert question.duration == len(other) / SAMPLE_RATE
        assert not question.evidence


def test_a_run_goes_on_where_it_was_stopped_and_asks_nothing_twice(asked: Path, tmp_path: Path) -> None:
    cut, settings = tmp_path / "cut", Settings(families=("evidence-only", "reversed"))
    whole = run(Grounded("grounded"), asked, cut, settings)
    answers = cut / "grounded" / "answers-evidence-only.jsonl"
    lines = answers.read_bytes().splitlines(keepends=True)
    answers.write_bytes(b"".join(lines[:5]) + lines[5][:40])  # killed while it wrote the sixth
    (cut / "grounded" / "answers-reversed.jsonl").unlink()
    next((cut / "audio" / "reversed").glob("*.flac")).unlink()
    again = Grounded("grounded")
    items = run(again, asked, cut, settings)
    assert again.said == (N - 5) + N
    assert [(i.question.id, i.condition, i.response) for i in items] == [
        (i.question.id, i.condition, i.response) for i in whole
    ]
    assert not list(cut.rglob("*.part"))


def test_answers_about_other_sound_are_not_taken_for_these(asked: Path, tmp_path: Path) -> None:
    run(Grounded("grounded"), asked, tmp_path, Settings(families=("evidence-only",)))
    with pytest.raises(RunError, match="choose another --out"):
        run(Grounded("grounded"), asked, tmp_path, Settings(pad=0.3, families=("evidence-only",)))


def test_conditions_and_models_may_be_added_to_a_folder(asked: Path, tmp_path: Path) -> None:
    few = run(Grounded("grounded"), asked, tmp_path, Settings(families=("silenced",)))
    assert {item.condition for item in few} == {"original", "silenced"}
    found = summarise(few)
    assert found.necessity.n == found.sufficiency.n == found.shift_slope.n == 0
    assert found.reliance_silenced.value == 1
    model = Grounded("grounded")
    run(model, asked, tmp_path, Settings(families=("silenced", "reversed")))
    assert model.said == N
    parrot = run(Parrot("parrot"), asked, tmp_path, Settings(families=("silenced", "shifted")))
    both = {"grounded": found, "parrot": summarise(parrot)}
    write(tmp_path, both, few, Settings())
    kept = json.loads((tmp_path / "controls.json").read_text())
    assert kept["models"]["parrot"]["conditions"]["silenced"]["same_answer"]["value"] == 1
    assert kept["models"]["grounded"]["necessity"]["value"] is None
    assert (tmp_path / "controls.png").stat().st_size > 20_000
    assert not (tmp_path / "errors.jsonl").exists()
    text = table(both)
    assert f"grounded: {2 * N} questions ({N} choices, {N} phrases) about {N} clips" in text
    assert "same place" in text


def test_what_cannot_be_done_is_counted_with_its_reason(tmp_path: Path) -> None:
    save_wav(tmp_path / "full.wav", beep("low", 1.0, 4.5, 5.0, 0))  # the tone is most of the clip
    (tmp_path / "damaged.wav").write_bytes(b"not audio")
    questions = [
        Question(name, name, f"{name}.wav", 5.0, "choice", "Which?", "low", NAMES, None, (), "t")
        for name in ("full", "damaged", "missing")
    ]
    write_jsonl(tmp_path / "q.jsonl", questions)
    out = tmp_path / "out"
    items = run(Grounded("grounded", max_seconds=6.0), tmp_path / "q.jsonl", out)
    found = summarise(items)
    assert (found.n, found.n_without_original) == (1, 2)
    assert found.conditions["original"].skipped == {NOT_HEARD: 2}
    assert found.conditions["swapped"].skipped == {NO_OTHER: 1}
    assert found.conditions["random-removed"].skipped == {NO_ROOM: 1}
    assert found.conditions["shifted-2"].skipped == {TOO_LONG: 1}
    assert found.conditions["shifted-1"].n == 1
    assert found.necessity.n == 0
    write(out, {"grounded": found}, items, Settings())
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [row["id"] for row in errors] == ["damaged", "missing"]
    assert all(row["condition"] == "original" and "wav" in row["error"] for row in errors)
    none = summarise(
        run(Grounded("mute"), tmp_path / "q.jsonl", tmp_path / "o2", Settings(evidence="reference"))
    )
    assert none.conditions["evidence-only"].skipped == {NO_EVIDENCE: 1}


def test_a_wrong_duration_in_the_questions_file_stops_nothing(tmp_path: Path) -> None:
    """A place that the file does not have is no evidence, whatever the question's row says of its length."""
    save_wav(tmp_path / "short.wav", beep("low", 1.0, 1.5, 2.0, 0))
    places = (Span(7.0, 8.0),)
    question = Question("q", "c", "short.wav", 9.0, "choice", "Which?", "low", NAMES, None, places, "t")
    write_jsonl(tmp_path / "q.jsonl", [question])
    items = run(Grounded("g"), tmp_path / "q.jsonl", tmp_path / "out", Settings(evidence="reference"))
    found = summarise(items)
    assert found.conditions["evidence-cropped"].skipped == {NO_EVIDENCE: 1}
    assert found.conditions["reversed"].accuracy.value == 1


def test_a_refused_request_is_no_changed_answer(asked: Path, tmp_path: Path) -> None:
    """A server's error on silence says nothing of what the model would answer: it is left out, and listed."""
    items = run(Deaf("deaf"), asked, tmp_path, Settings(families=("silenced", "evidence-only")))
    found = summarise(items)
    assert found.conditions["silenced"].n == 0
    assert found.conditions["silenced"].skipped == {NOT_HEARD: 2 * N}
    assert found.reliance_silenced.n == found.sufficiency_over_silence.n == 0
    write(tmp_path, {"deaf": found}, items, Settings())
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert sum(row.get("skipped", "").startswith("not heard: HTTP 400") for row in rows) >= 2 * N


class Rambler(Listener):
    """Never comes to its answer where it hears nothing: the limit of new tokens ends it."""

    def answer(self, samples: Samples, question: ClipQuestion) -> str | Failed:
        return Grounded("").answer(samples, question) if tone(samples) else Cut("Let me think about this")


def test_what_was_cut_off_before_its_answer_is_wrong_and_counted(asked: Path, tmp_path: Path) -> None:
    items = run(Rambler("rambler"), asked, tmp_path, Settings(families=("silenced",)))
    found = summarise(items)
    assert {name: scores.n_cut for name, scores in found.conditions.items()} == {
        "original": 0,
        "silenced": 2 * N,
    }
    assert found.conditions["silenced"].accuracy.value == found.conditions["silenced"].same_answer.value == 0
    said = table({"rambler": found})
    assert f"{2 * N} cut off" in next(line for line in said.splitlines() if line.startswith("  silenced"))
    assert "they count as wrong" in said
    write(tmp_path, {"rambler": found}, items, Settings())
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert {row["condition"] for row in rows if row.get("truncated")} == {"silenced"}
    again = run(Rambler("rambler"), asked, tmp_path, Settings(families=("silenced",)))
    assert [item.is_cut for item in again] == [item.is_cut for item in items]  # from the answers' files


def test_predictions_that_were_cut_off_are_counted(asked: Path, tmp_path: Path) -> None:
    own = [q for q in read_questions(asked) if q.kind == "choice"]
    own = [replace(q, audio=str(asked.parent / q.audio)) for q in own]
    write_jsonl(tmp_path / "p.jsonl", [Response(q, "grounded", "Let me", truncated=q is own[0]) for q in own])
    none = Settings(families=("silenced",))
    items = run(Grounded("grounded"), asked, tmp_path / "out", none, predictions=tmp_path / "p.jsonl")
    assert summarise(items).conditions["original"].n_cut == 1


def test_predictions_stand_for_the_original_answers(asked: Path, tmp_path: Path) -> None:
    questions = read_questions(asked)
    place = Span(2.0, 2.5)
    texts = {q.id: worded(place, q.choices, q.choices[1]) for q in questions if q.kind == "choice"}
    own = [
        replace(q, audio=str(asked.parent / q.audio), labels=(("prompt", "plain"),))
        for q in questions
        if q.id in texts
    ]
    write_jsonl(tmp_path / "p.jsonl", [Response(q, "grounded", texts[q.id]) for q in own])
    model = Grounded("grounded")
    items = run(
        model,
        asked,
        tmp_path / "out",
        Settings(families=("evidence-only",)),
        predictions=tmp_path / "p.jsonl",
    )
    assert model.said == N + N  # the phrases, which were not given, and the kept evidence
    choices = [i for i in items if i.condition == "original" and i.question.kind == "choice"]
    assert all(i.response == texts[i.question.id] and i.cited == (place,) for i in choices)
    altered = read_questions(tmp_path / "out" / "grounded" / "questions-evidence-only.jsonl")
    assert all(question.labels == own[0].labels for question in altered)  # asked in the same words
    kept = read_responses(tmp_path / "out" / "grounded" / "answers-original.jsonl")
    assert all((tmp_path / "out" / "grounded" / r.question.audio).exists() for r in kept)
    with pytest.raises(RecordError, match="no response of parrot, only of grounded"):
        run(Parrot("parrot"), asked, tmp_path / "out2", predictions=tmp_path / "p.jsonl")
    wrong = [replace(q, choices=q.choices[::-1]) for q in own]
    write_jsonl(tmp_path / "w.jsonl", [Response(q, "grounded", "") for q in wrong])
    with pytest.raises(RecordError, match="answers another question"):
        run(Grounded("grounded"), asked, tmp_path / "out3", predictions=tmp_path / "w.jsonl")


def test_no_clip_is_swapped_with_a_copy_of_itself(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("a-copy", 0), ("b", 1), ("c", 2)):
        save_wav(tmp_path / f"{name}.wav", beep("low", 1, 2, 3.0 + seed / 10, seed))
    questions = [
        Question(n, n, f"{n}.wav", 3.2, "choice", "Which?", "low", NAMES) for n in ("a", "a-copy", "b", "c")
    ]
    sources = sources_of(questions, tmp_path / "q.jsonl")
    others = others_of(sources, 0)
    assert others["a.wav"] == others["a-copy.wav"]
    assert all(others[name].sha256 != sources[name].sha256 for name in sources)  # type: ignore[union-attr]
    assert others == others_of(sources, 0)


def test_intervals_are_matched_in_order_and_missing_ones_are_lost() -> None:
    before, after = [Span(1, 2), Span(3, 4)], [Span(1.5, 2.4)]
    assert movements(before, after) == [(0.5, pytest.approx(0.4)), None]
    assert movements(before, [*after, Span(3, 4), Span(7, 8)])[1] == (0, 0)
    assert movements([], after) == []
    moved = Movement("c", "choice", 0.5, (0.5, 0.2))
    assert moved.follows()
    assert not moved.stays()
    assert not replace(moved, moved=(0.5, 0.1)).follows()
    assert replace(moved, moved=(0.05, -0.09)).stays()
    # what moves by a tenth of a second does not stay, wherever it is: 0.6 - 0.5 is 0.09999999999999998
    tenths = [Span(at / 10, (at + 1) / 10) for at in range(100)]
    assert not any(replace(moved, moved=m).stays() for m in movements(tenths, tenths[1:]) if m)
    assert replace(moved, moved=None).is_lost()


def test_the_slope_is_least_squares_through_the_origin() -> None:
    points = [(0.5, (0.5, 0.4)), (1.0, (1.1, 0.7)), (2.0, (1.0, 1.8))]
    found = slope([Movement(clip, "choice", x, y) for clip, (x, y) in enumerate(points)], Bootstrap())
    x = np.repeat([0.5, 1.0, 2.0], 2)[:, None]
    y = np.array([m for _, pair in points for m in pair])
    assert found.value == pytest.approx(np.linalg.lstsq(x, y, rcond=None)[0][0])
    assert found.low < found.value < found.high  # type: ignore[operator]
    assert slope([], Bootstrap()).value is None
    assert slope([Movement("c", "choice", 1.0, (1.0, 1.0))], Bootstrap()).low is None


def test_sampling_gets_a_condition_that_alters_nothing(asked: Path, tmp_path: Path) -> None:
    assert [c.name for c in conditions_of(Settings(families=("shifted",), shifts=(1.0, 0.5, 1.0)))] == [
        "shifted-0.5",
        "shifted-1",
    ]
    assert conditions_of(Settings(), 0.7)[0].name == "repeated"
    names = [c.name for c in conditions_of(Settings(draws=3, families=("evidence-removed",)))]
    assert names == ["evidence-removed", "random-removed", "random-removed-2", "random-removed-3"]
    questions = read_questions(asked)
    settings, decoding = Settings(families=("silenced",)), Decoding(temperature=0.7)
    items = control(
        Grounded("g"), questions, asked, tmp_path, FeatureCache(tmp_path / "cache"), decoding, settings
    )
    found = summarise(items)
    assert (
        found.conditions["repeated"].same_answer.value == found.conditions["repeated"].same_place.value == 1
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"pad": -1}, "--pad"),
        ({"shifts": (0.3,)}, "--shifts"),
        ({"draws": 0}, "--draws"),
        ({"families": ("louder",)}, "louder"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        Settings(**wrong)  # type: ignore[arg-type]


def test_slugs_are_folder_names() -> None:
    assert slug("mini:tgsr") == "mini_tgsr"
    assert slug("http://127.0.0.1:80/v1#Q/w") == "http_127.0.0.1_80_v1_Q_w"
    assert slug("..") == "model"


def test_the_command_asks_the_packaged_models(
    encoder: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real clips, the real miniature; one silenced condition, so that it takes seconds."""
    assert main(["build", "qa", "--digits", "1", "--first", "3", "--out", str(tmp_path / "qa")]) == 0
    command = ["control", "--questions", str(tmp_path / "qa" / "questions.jsonl"), "--model", "mini:tgsr"]
    command += ["--out", str(tmp_path / "c"), "--cache", str(tmp_path / "cache")]
    command += ["--conditions", "silenced", "evidence-removed"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "mini:tgsr:" in out
    assert "evidence-removed" in out
    kept = json.loads((tmp_path / "c" / "controls.json").read_text())["models"]["mini:tgsr"]
    assert kept["n"] >= 1
    assert kept["n_citing"] == kept["n"]
    assert not (tmp_path / "c" / "features").exists()
    assert main([*command, "--pad", "0.2"]) == 2
    assert "pad" in capsys.readouterr().err


# --- arXiv 2509.22363's interventions ---------------------------------------------------------------------


class Reasoner(Grounded):
    """Goes on from its reasoning: the last tone that it names is its answer; the first option where it names none."""

    goes_on = True

    def answer(self, samples: Samples, question: ClipQuestion) -> str:
        if not question.begun:
            name = tone(samples)
            return f"I hear a {name[1] if name else 'hum'} tone. It lasts.\nFinal answer: {name[1] if name else 'none'}"
        named = [word.strip(".") for word in question.begun.split() if word.strip(".") in question.choices]
        return f" {named[-1] if named else question.choices[0]}"


class Rationaliser(Reasoner):
    """Says the same reasoning, and answers by the tone whatever stands there."""

    def answer(self, samples: Samples, question: ClipQuestion) -> str:
        found = tone(samples)
        return f" {found[1]}" if question.begun and found else super().answer(samples, question)


class Writer:
    """A text model of a few replies; `asked` are its prompts."""

    characters = 1000

    def __init__(self, *replies: str | Failed) -> None:
        self.said, self.asked = list(replies), []

    def write(self, text: str, decoding: Decoding, system: str | None = None) -> str | Failed:
        raise NotImplementedError

    def replies(self, prompts: Sequence[TextPrompt], decoding: Decoding) -> list[str | Failed]:
        self.asked += [prompt.text for prompt in prompts]
        return [self.said.pop(0) if len(self.said) > 1 else self.said[0] for _ in prompts]


REASONING = Settings(families=("early", "filler", "mistaken"), shares=(50.0, 100.0))


@pytest.mark.parametrize(
    ("model", "follows"), [(Reasoner("reasoner"), True), (Rationaliser("rationaliser"), False)]
)
def test_who_answers_by_its_reasoning_is_told_from_who_makes_it_up(
    asked: Path, tmp_path: Path, model: Listener, follows: bool
) -> None:
    found = summarise(run(model, asked, tmp_path, REASONING)).conditions
    assert [found[name].n for name in ("reasoned", "early-50", "early-0", "filler-100", "mistaken")] == [
        N
    ] * 5
    same = {name: scores.same_answer.value for name, scores in found.items()}
    assert (same["reasoned"], same["early-50"]) == (1, 1)  # the tone is named in the first half
    assert same["mistaken"] == (0 if follows else 1)
    assert same["early-0"] == same["filler-100"]
    assert same["early-0"] == 1 if not follows else same["early-0"] < 0.6
    assert {found[name].criterion for name in ("reasoned", "early-0", "mistaken")} == {"reasoning to answer"}


def test_only_who_goes_on_is_asked_to(asked: Path, tmp_path: Path) -> None:
    items = run(Grounded("grounded"), asked, tmp_path, REASONING)
    reasons = {item.skipped for item in items if item.condition == "reasoned"}
    assert reasons == {f"{NOT_HEARD}: grounded does not go on from an answer that is begun for it"}


def test_sound_is_masked_noised_and_spoken_over_under_the_papers_names(asked: Path, tmp_path: Path) -> None:
    spoken = tmp_path / "spoken"
    spoken.mkdir()
    for name in NAMES[:3]:  # no recording of the last
        save_wav(spoken / f"{name}.wav", beep(name, 0.0, 1.0, 1.0, 0))
    settings = Settings(
        families=(FAITHFULNESS,), shares=(20.0, 100.0), snrs=(20.0, -20.0), spoken=str(spoken), fill="silence"
    )
    items = run(Grounded("grounded"), asked, tmp_path / "out", settings)
    found = summarise(items).conditions
    assert found.keys() >= {
        "silenced",
        "evidence-removed",
        "random-removed",
        "masked-20",
        "noisy-20dB",
        "noisy--20dB",
    }
    assert "masked-100" not in found  # silenced
    assert "paraphrased" not in found  # nobody to do it
    assert (found["noisy-20dB"].criterion, found["masked-20"].criterion) == ("hallucination-free", "holistic")
    assert (found["silenced"].n, found["masked-20"].n) == (2 * N, N)  # a phrase's place may be masked
    assert found["spoken-right"].n + found["spoken-right"].skipped[NO_SPEECH] == N
    assert found["spoken-wrong"].criterion == "attentive listening"
    masked = [item for item in items if item.condition == "masked-20" and item.question.kind == "choice"]
    for item in masked:
        assert sum(span.duration for span in item.spans) == pytest.approx(
            0.2 * item.question.duration, abs=1e-3
        )


@pytest.mark.parametrize(
    ("text", "share", "left"),
    [("a b\nc d", 50, "a b"), ("a b c", 100, "a b c"), ("a b", 0, ""), ("", 50, "")],
)
def test_a_reasoning_is_cut_by_words(text: str, share: float, left: str) -> None:
    assert first_words(text, share) == left


def test_filler_takes_the_place_of_words_and_leaves_the_layout() -> None:
    rng = np.random.default_rng(0)
    text = filled("one two\nthree four", 50, rng)
    assert (len(text.split()), text.count("\n")) == (4, 1)
    assert len(set(text.split()) & {"one", "two", "three", "four"}) == 2
    assert filled("one two", 0, rng) == "one two"


@pytest.mark.parametrize(
    ("text", "still"),
    [
        ('He says "Two" then two.', "two"),
        ("It starts at 1.25 s.", "1.25"),
        ("Twofold.", None),
    ],
)
def test_a_mistake_is_another_option_or_else_another_number(text: str, still: str | None) -> None:
    wrong = mistaken(text, ["two", "one two", "six"], np.random.default_rng(0))
    assert wrong == text if still is None else still not in wrong.lower().replace("one two", "")


def test_what_has_no_reasoning_or_nothing_to_mistake_is_not_asked() -> None:
    rng = np.random.default_rng(0)
    assert begun("early", 50, "(a) yes", ["yes", "no"], rng) == ("", NO_REASONING)
    assert begun("mistaken", 100, "It rains.\n(a) yes", ["yes", "no"], rng) == ("", NO_MISTAKE)
    assert begun("early", 0, "It rains.\n(a) yes", ["yes", "no"], rng) == (ANSWER, "")


def test_replies_are_kept_and_asked_for_once(asked: Path, tmp_path: Path) -> None:
    writer = Writer("<think>hm</think>A high tone is heard.")
    rewrite = Replies.of(writer, "w", tmp_path / "replies.jsonl")
    settings = Settings(families=("paraphrased",), rewriter="w")
    items = run(Reasoner("r"), asked, tmp_path / "out", settings, rewrite=rewrite)
    texts = {item.response for item in items if item.condition == "paraphrased"}
    assert all(str(text).startswith(f"A high tone is heard.\n{ANSWER}") for text in texts)
    n_asked = len(writer.asked)
    again = Replies.of(writer, "w", tmp_path / "replies.jsonl")
    assert again(writer.asked[0]) == "A high tone is heard."
    assert len(writer.asked) == n_asked
    assert isinstance(Replies.of(Writer(Failed("refused")), "w", tmp_path / "other.jsonl")("x"), Failed)


@pytest.mark.parametrize(
    ("reply", "grade"),
    [("4", 4), ("Grade: 5", 5), ("4/5", None), ("3.5", None), ("1 or 2", None), ("7", None), ("", None)],
)
def test_a_grade_is_one_digit(tmp_path: Path, reply: str, grade: int | None) -> None:
    assert Replies.of(Writer(reply), "w", tmp_path / "r.jsonl").alike("q", "a", "b") == grade


def test_a_judge_grades_reasonings_about_altered_sound_alone(asked: Path, tmp_path: Path) -> None:
    judge = Replies.of(Writer("4"), "w", tmp_path / "replies.jsonl")
    settings = Settings(families=("noisy", "early"), snrs=(20.0,), shares=(100.0,))
    found = summarise(run(Reasoner("r"), asked, tmp_path / "out", settings, judge=judge)).conditions
    assert (found["noisy-20dB"].reasoning_alike.value, found["noisy-20dB"].reasoning_alike.n) == (4, N)
    assert found["early-0"].reasoning_alike.n == 0
    assert "alike 4.000" in table(
        {"r": summarise(run(Reasoner("r"), asked, tmp_path / "out", settings, judge=judge))}
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"families": ("spoken",)}, "--spoken"), ({"families": ("paraphrased",)}, "--rewriter"),
        ({"shares": (0.0,)}, "--shares 0"), ({"snrs": (float("nan"),)}, "--snrs nan"),
    ],
)  # fmt: skip
def test_interventions_that_cannot_be_made_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        Settings(**wrong)  # type: ignore[arg-type]
    assert not set(Settings().asked) & {*OF_REASONING, "masked", "noisy", "spoken"}  # dear: asked for by name
