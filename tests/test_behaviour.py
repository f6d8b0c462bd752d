import json
from dataclasses import replace

import numpy as np
import pytest

from local_server import Reply, chat_answer, serving
from tgsr import audio
from tgsr.cli import main
from tgsr.evaluation.behaviour.audiology_verify import Verified, VerifiedStep
from tgsr.evaluation.behaviour.consistency import Judged, case_of
from tgsr.evaluation.behaviour.table import behaviour, table
from tgsr.evaluation.scoring.responses import Answered, read_answers
from tgsr.models.packaged_weights import cache_folder
from tgsr.records import Question, Response, write_jsonl
from tgsr.timeline import Span


def response(text: str, n: int = 0, model: str = "m") -> Response:
    question = Question(
        f"q{n}",
        f"c{n}",
        f"{n}.wav",
        5.0,
        "choice",
        "Which word?",
        "two",
        ("one", "two"),
        evidence=(Span(1.0, 2.0),),
    )
    return Response(question, model, text)


TEXTS = (
    'From 1.0s to 2.0s "two" is said, and from 1.0s to 2.0s again.\nFinal answer: (b) two',
    'From 1.0s to 2.0s "two". From 3.0s to 4.0s "one".\nFinal answer: (a) one',
    "It sounds like two.\nFinal answer: (b) two",
    "(b) two",
)


def verified(response: Response, *values: float | None) -> Verified:
    steps = (
        VerifiedStep(0.0, 1.0, "x", "x", v, None if v is not None else "the clip cannot be heard: gone")
        for v in values
    )
    return Verified(response, tuple(steps))


def test_each_number_by_hand():
    responses = [response(text, n) for n, text in enumerate(TEXTS)]
    checked = [
        verified(responses[0], 1.0),
        verified(responses[1], 0.4, 0.0),
        verified(responses[2]),
        verified(responses[3], None),
    ]
    cases = [case_of(r) for r in responses]
    assert [case is None for case in cases] == [False, False, False, True]
    judged = [
        Judged(cases[0], {"plain": True, "turned": False}, {}),
        Judged(cases[1], {"plain": None, "turned": True}, {}),
        Judged(cases[2], {"turned": True}, {"plain": "busy"}),
    ]
    found = behaviour([Answered(one) for one in responses], checked, judged)
    assert found.regions_strict.value == pytest.approx((1 + 2 + 0 + 0) / 4)
    assert found.regions_official.value == pytest.approx((2 + 2) / 4)
    assert found.accuracy.value == 0.75
    assert found.n_without_span == 2
    assert (found.verify.value, found.verify.n) == (pytest.approx((1 + 0.2) / 2), 2)
    # Who cites nothing counts 0; whose clip cannot be heard is not counted.
    assert (found.verify_zero.value, found.verify_zero.n) == (pytest.approx((1 + 0.2 + 0) / 3), 3)
    assert found.n_unverifiable == {"the clip cannot be heard": 1}
    assert set(found.verify_by) == {"token_f1", "containment", "in_order", "character_cosine"}
    # The steps above say "x", and "x" was heard: by any similarity from the texts they are alike.
    assert (found.verify_by["token_f1"].value, found.verify_by["token_f1"].n) == (1.0, 2)
    assert (found.consistency.value, found.consistency.n) == (1.0, 1)
    assert (found.n_unparsed, found.n_failed, found.n_without_answer) == (1, 1, 1)
    assert (found.flips["turned"].rate.n, found.flips["turned"].to_no) == (1, 1)
    assert found.by_variant["turned"].value == pytest.approx(2 / 3)


def test_where_no_sound_could_be_heard_nothing_is_verified_not_even_as_zero():
    responses = [response(TEXTS[0], 0), response(TEXTS[2], 1)]  # one cites, the other does not
    found = behaviour(
        [Answered(one) for one in responses], [verified(responses[0], None), verified(responses[1])]
    )
    assert (found.verify.value, found.verify_zero.value) == (None, None)
    cites_nothing = behaviour([Answered(responses[1])], [verified(responses[1])])
    assert (cites_nothing.verify.value, cites_nothing.verify_zero.value) == (None, 0)


def test_what_was_not_asked_for_is_none():
    found = behaviour([Answered(response(TEXTS[0]))])
    assert (found.verify, found.verify_zero, found.consistency) == (None, None, None)
    assert "Audiology Verify not asked for, Consistency not asked for" in table({"m": found})


def test_what_was_cut_off_is_counted_and_told():
    answers = [response(TEXTS[0]), replace(response("From 1.0s to 2.0s and"), truncated=True)]
    found = behaviour([Answered(one) for one in answers])
    assert (found.n, found.n_cut) == (2, 1)
    assert "m: 1 of 2 responses were cut off" in table({"m": found})
    assert "cut off" not in table({"m": behaviour([Answered(answers[0])])})


def test_a_judge_that_never_replied_leaves_no_number():
    case = case_of(response(TEXTS[0]))
    found = behaviour([Answered(response(TEXTS[0]))], None, [Judged(case, {}, {"plain": "busy"})])
    assert (found.consistency.value, found.n_failed) == (None, 1)
    assert behaviour([Answered(response(TEXTS[3]))], None, []).consistency.value is None


def test_the_command_on_real_speech_with_a_real_server(tmp_path, capsys):
    if not (cache_folder() / "whisper-base").exists():
        pytest.skip("Whisper base is not there: `make fetch` downloads it, once")
    from tgsr.data.corpora.spoken_digits import compose

    made = compose(7, "heldout-recordings", seconds=(8.0, 10.0))
    audio.save_wav(tmp_path / "c.wav", made.samples)
    words = made.clip.words[:3]
    said, start, end = " ".join(w.text for w in words), words[0].start, words[-1].end
    question = Question(
        "q",
        "c",
        "c.wav",
        made.clip.duration,
        "choice",
        "What is said first?",
        "a",
        ("a", "b"),
        evidence=(Span(start, end),),
    )
    phrase = Question(
        "p", "c", "c.wav", made.clip.duration, "phrase", said, phrase=said, evidence=(Span(start, end),)
    )
    text = f'From {start:.2f}s to {end:.2f}s the speaker says "{said}".\nFinal answer: (a) a'
    write_jsonl(
        tmp_path / "predictions.jsonl",
        [
            Response(question, "cites", text),
            Response(question, "guesses", "(b) b"),
            Response(phrase, "cites", text),
        ],
    )
    with serving(lambda got, n: Reply(chat_answer("1"))) as server:
        command = ["behaviour", str(tmp_path / "predictions.jsonl"), "--out", str(tmp_path / "out")]
        assert main([*command, "--judge", f"{server.url}/v1#j", "--bias"]) == 0
        n_requests = len(server.got)
        assert n_requests == 3  # one case in three variants; the guess has no reasoning
        assert main([*command, "--judge", f"{server.url}/v1#j", "--bias"]) == 0
        assert len(server.got) == n_requests
    told = capsys.readouterr().out
    assert "1 responses to phrases left out" in told
    found = json.loads((tmp_path / "out" / "behaviour.json").read_text())["models"]
    assert found["cites"]["verify"]["value"] > 0.3
    assert found["cites"]["consistency"]["value"] == 1
    assert (found["guesses"]["verify"]["value"], found["guesses"]["verify_zero"]["value"]) == (None, 0)
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "verified.jsonl").read_text().splitlines()]
    assert (row["model"], row["explanation"]) == ("cites", said)
    assert (tmp_path / "out" / "behaviour.png").stat().st_size > 3000


def test_nothing_to_say_is_an_error(tmp_path, capsys):
    audio.save_wav(tmp_path / "c.wav", np.zeros(16000, np.float32))
    phrase = Question("p", "c", "c.wav", 1.0, "phrase", "x", phrase="x", evidence=(Span(0.0, 0.5),))
    write_jsonl(tmp_path / "predictions.jsonl", [Response(phrase, "m", "0.1s to 0.3s")])
    assert (
        main(["behaviour", str(tmp_path / "predictions.jsonl"), "--no-verify", "--out", str(tmp_path / "o")])
        == 2
    )
    assert "no response to a question with choices" in capsys.readouterr().err


def mmau_file(folder, *outputs: str | None):
    """A benchmark's own file of predictions, with one sound file beside it."""
    rows = []
    for n, output in enumerate(outputs):
        row = {
            "id": f"r{n}",
            "audio_id": f"./test-mini-audios/r{n}.wav",
            "question": "Who speaks?",
            "task": "speech",
        }
        row |= {"choices": ["Man", "Woman"], "answer": "Woman", "category": "Reasoning", "difficulty": "easy"}
        rows.append(row if output is None else {**row, "model_output": output})
    (folder / "test-mini-audios").mkdir()
    audio.save_wav(folder / "test-mini-audios" / "r0.wav", np.zeros(32000, np.float32))
    path = folder / "mmau-answered.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_a_benchmarks_own_file_goes_through_as_it_is(tmp_path, capsys):
    path = mmau_file(
        tmp_path, "From 0.5s to 1.5s she speaks.\nFinal answer: (b) Woman", "From 1s to 7.5s. (a)", None
    )
    out = tmp_path / "o"
    assert main(["behaviour", str(path), "--no-verify", "--out", str(out)]) == 0
    (model,) = json.loads((out / "behaviour.json").read_text())["models"].values()
    assert (model["n"], model["regions_strict"]["value"]) == (2, 1.0)
    (left_out,) = (out / "errors.jsonl").read_text().splitlines()
    assert json.loads(left_out)["line"] == 3
    assert "mmau-answered: 2 responses" in capsys.readouterr().out
    responses = [answer.response for answer in read_answers(path, tmp_path / "errors.jsonl")]
    assert [response.question.duration for response in responses] == [
        2.0,
        7.5,
    ]  # of the file, or the last time cited
    assert ("difficulty", "easy") in responses[0].question.labels


def test_accuracy_is_what_the_benchmarks_owner_says(tmp_path):
    # the text of the choice without its letter, which is the form that MMAU's scorer wants: by Eq. 1 all were wrong
    path = mmau_file(tmp_path, "Woman", "Man", "Man, no letter")
    out = tmp_path / "o"
    assert main(["behaviour", str(path), "--no-verify", "--out", str(out)]) == 0
    (model,) = json.loads((out / "behaviour.json").read_text())["models"].values()
    assert main(["score", str(path), "--out", str(tmp_path / "metrics.json")]) == 0
    official = json.loads((tmp_path / "metrics.json").read_text())["benchmark"]["accuracy_official"]
    assert (model["accuracy"]["value"], model["accuracy"]["n"]) == (official["value"], official["n"])
    assert model["accuracy"]["value"] == pytest.approx(1 / 3)


def test_a_benchmarks_question_of_ours_is_right_by_the_option_that_it_ends_up_with():
    labelled = replace(response("").question, labels=(("benchmark", "mmau"),))
    answers = [Answered(Response(labelled, "m", text)) for text in ("Two.", "(a) one", "(b) two", "(b)")]
    assert behaviour(answers).accuracy.value == 0.75
    assert behaviour([Answered(response("Two."))]).accuracy.value == 0  # Eq. 1 wants a letter


def test_an_interval_in_the_answers_line_is_no_span_of_the_reasoning():
    text = "The dog barks late.\nFinal answer: (b) from 3 s to 5 s"
    found = behaviour([Answered(response(text))])
    assert (found.regions_strict.value, found.n_without_span) == (0, 1)
