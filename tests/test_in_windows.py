"""Long recordings: no window leaves anything out, and what one window answers is on the recording's clock."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from test_cascade import keep
from tgsr import audio
from tgsr.answering.ask import CitedAnswer, ask
from tgsr.answering.in_windows import (
    OVERLAP,
    answer_in_windows,
    refined,
    window_around,
    windows,
    written_down,
)
from tgsr.answering.open import open_model
from tgsr.answering.responder import ClipQuestion
from tgsr.audio import SAMPLE_RATE
from tgsr.cli import main
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.transcribe.transcript import Transcript
from tgsr.data.transcribe.whisper import SOURCE
from tgsr.errors import ModelError
from tgsr.grounding import find_spans
from tgsr.llm.decoding import GREEDY
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.timeline import Span, Word
from tiny import tiny_whisper


@pytest.mark.parametrize("duration", [0.5, 29.99, 30.0, 30.01, 52.5, 52.51, 75.0, 131.7, 3600.0])
def test_windows_cover_a_recording_and_what_crosses_a_border_is_whole_in_one(duration: float) -> None:
    spans = windows(duration, 30.0)
    assert (spans[0].start, spans[-1].end) == (0.0, duration)
    assert all(span.end - span.start <= 30.0 + 1e-9 for span in spans)
    assert all(a.end - b.start >= 30 * OVERLAP - 0.011 and a.start < b.start for a, b in pairwise(spans))
    assert len(spans) == (1 if duration <= 30 else int(np.ceil((duration - 30) / 22.5 - 1e-9)) + 1)
    assert all(span.start == round(span.start, 2) for span in spans)


@pytest.mark.parametrize(
    ("span", "start"), [(Span(1, 2), 0.0), (Span(50, 52), 41.0), (Span(99, 100), 80.0), (Span(40, 70), 45.0)]
)
def test_a_window_has_the_span_in_its_middle_where_the_recording_allows(span: Span, start: float) -> None:
    assert window_around(span, 100.0, 20.0) == Span(start, start + 20)


def test_a_recording_that_fits_is_its_own_window() -> None:
    assert window_around(Span(1, 2), 5.0, 20.0) == Span(0, 5)


@pytest.fixture(scope="module")
def listener() -> Lalm:
    return load("mini:sta")


@pytest.fixture(scope="module")
def long_recording() -> tuple[np.ndarray, list[Word]]:
    """Digits of 17 s, of which mini hears ten at a time."""
    samples: list[np.ndarray] = []
    words: list[Word] = []
    at = 0.0
    for seed in (9, 3):
        made = compose(60_000 + seed, "train", seconds=(8.0, 9.9), two_speakers=0)
        words += [Word(w.text, w.start + at, w.end + at, w.speaker, w.source) for w in made.clip.words]
        samples.append(made.samples)
        at += len(made.samples) / SAMPLE_RATE
    return np.concatenate(samples), words


def said_once(words: list[Word], n: int) -> list[tuple[str, Span]]:
    texts = [" ".join(word.text for word in words[i : i + n]) for i in range(len(words) - n + 1)]
    places = [i for i, text in enumerate(texts) if texts.count(text) == 1]
    return [(texts[i], Span(words[i].start, words[i + n - 1].end)) for i in places]


@pytest.fixture(scope="module")
def located(listener: Lalm, long_recording: tuple[np.ndarray, list[Word]]) -> list[tuple[Span, CitedAnswer]]:
    """Where two phrases are said, and what is answered."""
    samples, words = long_recording
    once = said_once(words, 4)
    return [
        (truth, ask(listener, samples, phrase, phrase=True, long_audio="windows"))
        for phrase, truth in (once[0], once[-1])
    ]


def test_a_phrase_is_found_in_whichever_window_it_is(located: list[tuple[Span, CitedAnswer]]) -> None:
    assert len({answer.window for _, answer in located}) == 2
    for truth, answer in located:
        assert answer.spans[0].iou(truth) > 0.4
        assert answer.window is not None
        assert answer.window.start <= answer.spans[0].start
        assert answer.spans[0].end <= answer.window.end + 0.5
        assert f"{answer.spans[0].start:.2f}" in answer.text
        assert len(answer.evidence) / SAMPLE_RATE <= answer.spans[0].end - answer.spans[0].start + 1.01


def test_what_a_question_quotes_says_where_to_listen(
    listener: Lalm, long_recording: tuple[np.ndarray, list[Word]], located: list[tuple[Span, CitedAnswer]]
) -> None:
    samples, words = long_recording
    span = located[0][1].spans[0]
    question = f'Which digit is said right after "{said_once(words, 4)[0][0]}"?'
    heard = answer_in_windows(listener, samples, listener.open_question(question), question, 10.0)
    assert heard.window.start <= span.start
    assert span.end <= heard.window.end
    middle = (span.start + span.end) / 2
    assert heard.window.start == 0 or abs((heard.window.start + heard.window.end) / 2 - middle) < 0.01


def test_without_windows_a_long_recording_is_refused(listener: Lalm) -> None:
    with pytest.raises(ModelError, match=r"hears 10 s, the audio lasts 10\.5"):
        ask(listener, np.zeros(168000, np.float32), "one", phrase=True)


def test_the_command_says_what_was_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], long_recording: tuple[np.ndarray, list[Word]]
) -> None:
    samples, words = long_recording
    path = tmp_path / "long.flac"
    audio.save_flac(path, samples[: 13 * SAMPLE_RATE])
    phrase, _ = said_once(words, 4)[0]
    evidence = ["--evidence", str(tmp_path / "e.wav")]
    asked = ["ask", str(path), phrase, "--phrase", "--model", "mini:sta", "--start", "0.1"]
    assert main([*asked, *evidence]) == 0
    printed = capsys.readouterr().out
    assert "of 13.00 s, the best of its windows" in printed
    (heard,) = (line for line in printed.splitlines() if line.startswith("asked what is said around there"))
    assert phrase.split(maxsplit=1)[1] in heard
    (cited,) = find_spans(printed.splitlines()[0])
    assert f"evidence: {cited.start:.2f} - {cited.end:.2f} s" in printed
    assert main([*asked, "--long-audio", "refuse"]) == 2
    assert "hears 10 s" in capsys.readouterr().err


def test_a_model_that_writes_times_as_tokens_writes_down_words() -> None:
    lalm = tiny_whisper()
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    in_words = written_down(lalm, noise, [Span(0.5, 1.0)])
    lalm.times = "tokens"
    assert written_down(lalm, noise, [Span(0.5, 1.0)]) == in_words
    assert lalm.times == "tokens"


# --- the cascade with a listener -----------------------------------------------------------------------------------


def test_a_listener_refines_what_whisper_has_found(
    listener: Lalm, long_recording: tuple[np.ndarray, list[Word]], tmp_path: Path
) -> None:
    samples, words = long_recording
    once = said_once(words, 4)[::6]
    late = [Span(span.start + 0.4, span.end + 0.4) for _, span in once]
    heard = [refined(listener, samples, phrase, span) for (phrase, _), span in zip(once, late, strict=True)]
    before = np.mean([span.iou(truth) for span, (_, truth) in zip(late, once, strict=True)])
    after = np.mean([span.iou(truth) for span, (_, truth) in zip(heard, once, strict=True)])
    assert after > before + 0.05, (before, after)


def test_where_the_listener_hears_the_phrase_elsewhere_whispers_times_stay(
    listener: Lalm, long_recording: tuple[np.ndarray, list[Word]]
) -> None:
    samples, words = long_recording
    phrase, truth = said_once(words, 4)[0]
    wrong = Span(truth.start + 5.0, truth.start + 5.3)
    assert refined(listener, samples, phrase, wrong) == wrong


def test_the_cascade_with_a_listener_by_its_name(
    tmp_path: Path, long_recording: tuple[np.ndarray, list[Word]]
) -> None:
    samples, words = long_recording
    late = tuple(Word(w.text, w.start + 0.4, w.end + 0.4, None, SOURCE, 0.9) for w in words)
    keep(tmp_path, samples, Transcript(late, len(samples) / SAMPLE_RATE + 1, SOURCE))
    phrase, truth = said_once(words, 4)[0]
    questions = [
        ClipQuestion(0, "", "", (), phrase),
        ClipQuestion(0, "", "", (), "words that nobody has said"),
    ]
    model = open_model("cascade+mini:sta", tmp_path)
    assert not isinstance(model, Lalm)
    text, missing = model.respond([samples], questions, GREEDY)
    (span,) = find_spans(str(text))
    assert span.iou(truth) > 0.5
    assert missing == "The segment is not in the transcript."


def test_the_model_that_listens_is_loaded_where_a_phrase_was_found(tmp_path: Path) -> None:
    """It needs torch and transformers: a phrase that nobody says was answered after they had been imported."""
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 2).astype(np.float32)
    keep(tmp_path, samples, Transcript((Word("hello", 0.5, 0.9, None, SOURCE, 0.9),), 2.0, SOURCE))
    np.save(tmp_path / "samples.npy", samples)
    program = """
import sys
import numpy as np
from pathlib import Path
from tgsr.answering.open import open_model
from tgsr.answering.responder import ClipQuestion
from tgsr.llm.decoding import GREEDY
folder = Path(sys.argv[1])
model = open_model("cascade+mini-en:tokens", folder)
asked = ClipQuestion(0, "", "", (), "words that nobody has said")
print(model.respond([np.load(folder / "samples.npy")], [asked], GREEDY))
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['The segment is not in the transcript.']", "[]"], done.stderr


@pytest.mark.parametrize("name", ["cascade+cascade", "cascade+gemini:x", "cascade+http://127.0.0.1:1/v1#m"])
def test_only_a_model_on_this_machine_can_listen(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        open_model(name, tmp_path)
