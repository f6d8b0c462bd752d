"""The outline: where stretches end, which sentence stands for one, and what an LLM's words are held against."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local_server import Got, Reply, chat_answer, serving
from test_cascade import keep, require
from tgsr import audio
from tgsr.answering.cascade import Spoken, load_cascade
from tgsr.answering.outline import (
    OutlineLine,
    Sentences,
    central,
    notes_of,
    outline,
    own_line,
    own_prompt,
    stretches,
    usual_lines,
)
from tgsr.answering.passages import Passages, sentence_around
from tgsr.cli import main
from tgsr.commands.answer import clock, outlined, playing
from tgsr.data.transcribe.transcript import Line, Transcript, lines_of
from tgsr.data.transcribe.whisper import SOURCE
from tgsr.errors import OptionError
from tgsr.llm.decoding import Failed
from tgsr.timeline import Hole, Span, Word

CATS = "A cat sat on the warm roof. The cat slept there until noon. Then the kitten climbed down to drink its milk. "
SHIPS = (
    "The ship left the harbour at dawn. The sailors hoisted its heavy sails. A storm at sea broke the mast. "
)
MONEY = (
    "The bank raised its interest rates. Inflation made all loans dearer. The budget was cut by ten percent. "
)


def words_of(text: str, a_word: float = 0.5) -> tuple[Word, ...]:
    """One word after another: no pause tells where a topic ends."""
    return tuple(
        Word(word, round(n * a_word, 2), round((n + 0.9) * a_word, 2), None, SOURCE, 0.9)
        for n, word in enumerate(text.split())
    )


def spoken_of(text: str, a_word: float = 0.5, **more: object) -> Spoken:
    words = words_of(text, a_word)
    return Spoken(f"{len(text)}-{a_word}", Transcript(words, words[-1].end if words else 3.0, SOURCE, **more))


def planted(*sizes: int, noise: float = 0.3, width: int = 40) -> np.ndarray:
    """Sentences around as many means as there are sizes."""
    draw = np.random.default_rng(0)
    means = draw.normal(size=(len(sizes), width))
    vectors = np.concatenate(
        [mean + noise * draw.normal(size=(n, width)) for mean, n in zip(means, sizes, strict=True)]
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("sizes", [(5, 9, 4), (12, 12), (3, 8, 5, 7, 4, 6), (7,)])
def test_planted_borders_are_found(sizes: tuple[int, ...]) -> None:
    vectors = planted(*sizes)
    starts = stretches(vectors, np.full(len(vectors), 10), len(sizes))
    assert starts == [0, *np.cumsum(sizes)[:-1]]


def test_stretches_are_the_best_of_all_that_can_be() -> None:
    from itertools import combinations

    vectors = planted(3, 3, 3, noise=2.0)
    sizes = np.array([4, 9, 12, 5, 7, 16, 3, 8, 10])

    def scatter(starts: tuple[int, ...]) -> float:
        total = 0.0
        for first, stop in zip(starts, [*starts[1:], 9], strict=True):
            part, weights = vectors[first:stop], sizes[first:stop, None]
            mean = (part * weights).sum(0) / weights.sum()
            total += float((weights * (part - mean) ** 2).sum())
        return total

    least = sizes.sum() / 3 / 3
    allowed = [
        (0, *two)
        for two in combinations(range(1, 9), 2)
        if min(sizes[: two[0]].sum(), sizes[two[0] : two[1]].sum(), sizes[two[1] :].sum()) >= least
    ]
    assert tuple(stretches(vectors, sizes, 3)) == min(allowed, key=scatter)


@pytest.mark.parametrize(("n", "most"), [(1, 1), (100, 5), (5, 5), (2, 2)])
def test_no_more_stretches_than_sentences(n: int, most: int) -> None:
    starts = stretches(planted(5), np.full(5, 10), n)
    assert len(starts) <= most
    assert starts[0] == 0
    assert starts == sorted(set(starts))


def test_one_very_long_sentence_leaves_fewer_stretches() -> None:
    assert len(stretches(planted(3), np.array([1, 500, 1]), 3)) < 3


def test_the_central_sentence_is_no_snatch() -> None:
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    assert central(vectors, np.array([2, 9, 9])) == 2
    assert central(vectors, np.array([2, 2, 2])) == 2
    assert central(vectors[:1], np.array([1])) == 0


def test_every_line_is_in_one_sentence() -> None:
    text = f"{CATS}{' '.join(['and on it goes'] * 40)} {SHIPS}"
    lines = tuple(lines_of(words_of(text)))
    around = tuple(sentence_around(lines, n) for n in range(len(lines)))
    shuffled = np.random.default_rng(0).permutation(len(lines))  # who speaks may order lines
    vectors = planted(len(lines))
    told = Sentences.of(Passages(tuple(lines[n] for n in shuffled), around, vectors[shuffled]))
    assert [line for part in told.parts for line in part] == list(lines)
    assert told.sizes_S.sum() == len(text.split())
    assert told.sizes_S.max() <= 32
    first = np.average(
        vectors[: len(told.parts[0])], axis=0, weights=[len(line.words) for line in told.parts[0]]
    )
    assert np.allclose(told.vectors_SW[0], first / np.linalg.norm(first))


def test_topics_are_told_apart_and_quoted_word_for_word(tmp_path: Path) -> None:
    require("all-minilm-l6-v2")
    text = CATS + SHIPS + MONEY
    cascade = load_cascade("cascade", cache=tmp_path)
    lines = outline(cascade, spoken_of(text), 3)
    starts = [0, len(CATS.split()), len((CATS + SHIPS).split())]
    assert [line.span.start for line in lines] == [n * 0.5 for n in starts]
    for line, said in zip(lines, (CATS, SHIPS, MONEY), strict=True):
        assert line.text in said
        assert line.cited is not None
        assert line.span.start <= line.cited.start < line.cited.end <= line.span.end
        assert not line.is_own
    assert len(outline(cascade, spoken_of(text))) == 1  # 32 s
    assert len(outline(cascade, spoken_of(text), 100)) == 9  # no more than there are sentences
    with pytest.raises(OptionError, match="--lines 0"):
        outline(cascade, spoken_of(text), 0)


@pytest.mark.parametrize(("duration", "n"), [(0.5, 1), (20.0, 1), (292.0, 5), (3 * 3600.0, 60)])
def test_about_a_line_a_minute_and_no_more_than_a_page(duration: float, n: int) -> None:
    assert usual_lines(duration) == n


def test_silence_has_no_lines_and_what_is_lost_is_said(tmp_path: Path) -> None:
    cascade = load_cascade("cascade", cache=tmp_path)
    assert outline(cascade, spoken_of("")) == []
    assert notes_of(spoken_of("")) == ["nobody speaks"]
    assert "no word could be made out" in notes_of(spoken_of("", holes=(Hole(0.0, 2.0),)))[0]
    assert "12 s in all" in notes_of(spoken_of(CATS, holes=(Hole(0.0, 12.0),)))[0]
    assert "'fr'" in notes_of(spoken_of("Le chat dort.", language="fr"))[0]
    assert notes_of(spoken_of(CATS, language="en")) == []


# --- an LLM's own words ----------------------------------------------------------------------------------

QUOTED = OutlineLine(Span(0.0, 14.0), "The cat slept there until noon.", Span(3.5, 6.4))


@pytest.mark.parametrize(
    ("answer", "text", "problem"),
    [
        (
            'A cat rests. From 3.50s to 6.40s, the speaker says "The cat slept there until noon."',
            "A cat rests.",
            "",
        ),
        ('A cat\nrests.\n(3.5s - 6.4s) "the cat slept there until noon"', "A cat rests.", ""),
        (
            'Dogs bark. From 3.50s to 6.40s, the speaker says "the dog barked at everybody".',
            "Dogs bark.",
            "other words",
        ),
        (
            'A ship sails. From 90.00s to 95.00s, the speaker says "The ship left".',
            "A ship sails.",
            "nothing is said there",
        ),
        ("A cat rests.", "A cat rests.", "cites nothing"),
        ("A cat rests, from 3.50s to 6.40s.", "A cat rests", "quotes nothing"),
        ('From 3.50s to 6.40s, "The cat slept there until noon."', None, ""),
    ],
)
def test_an_llms_line_is_held_against_its_stretch(answer: str, text: str | None, problem: str) -> None:
    line = own_line(QUOTED, answer, lines_of(words_of(CATS)))
    assert line.is_own
    assert line.text == (text or answer)
    assert line.problem.startswith(problem) if problem else line.problem == ""


@pytest.mark.parametrize(
    ("answer", "why"), [(Failed("the server is down"), "the server is down"), (" \n", "empty")]
)
def test_what_an_llm_does_not_answer_is_quoted_and_says_so(answer: str | Failed, why: str) -> None:
    line = own_line(QUOTED, answer, lines_of(words_of(CATS)))
    assert (line.text, line.cited, line.is_own) == (QUOTED.text, QUOTED.cited, False)
    assert why in line.problem


def test_a_prompt_has_no_more_than_fits() -> None:
    lines: list[Line] = lines_of(words_of(CATS * 200))
    assert len(own_prompt(lines, 2000)) < 2600
    assert CATS.split(".")[0] in own_prompt(lines, 2000)


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Noise in a file with blanks and a hash in its name, whose transcript is kept where the cascade looks for it."""
    require("all-minilm-l6-v2")
    from tgsr.models.packaged_weights import cache_folder

    model = cache_folder() / "all-minilm-l6-v2"
    cache, path = tmp_path / "cache", tmp_path / "two topics #1.wav"
    cache.mkdir()
    (cache / model.name).symlink_to(model)
    monkeypatch.setenv("TGSR_CACHE", str(cache))
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 30), 16000)
    keep(cache, audio.load(path), spoken_of(CATS + SHIPS).transcript)
    return path


def test_each_line_has_its_seconds_and_a_link_that_plays(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["outline", str(recording), "--lines", "2", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    start = len(CATS.split()) * 0.5
    first, second = row["lines"]
    assert (first["start"], second["start"]) == (0.0, start)
    assert second["link"].startswith("file:///")
    assert second["link"].endswith(f"two%20topics%20%231.wav#t={start:.2f},{second['end']:.2f}")
    assert first["supported"]
    assert row["notes"] == []

    assert main(["outline", str(recording), "--lines", "2"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.endswith("two topics #1.wav: 0:20, cascade")
    assert lines[1].startswith(f"- [0:{int(start):02d}]({second['link']})  {start:.2f} - ")
    assert second["text"] in lines[1]


def test_an_llm_writes_its_own_words_and_what_is_unsupported_is_marked(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(got: Got, _: int) -> Reply:
        if b"harbour" in got.raw:
            return Reply(chat_answer("A voyage to the moon."))
        return Reply(
            chat_answer(
                'About a cat. From 3.50s to 6.50s, the speaker says "The cat slept there until noon."'
            )
        )

    with serving(answer) as server:
        assert main(["outline", str(recording), "--lines", "2", "--llm", f"{server.url}#small"]) == 0
    _, cat, moon = capsys.readouterr().out.splitlines()
    assert cat.endswith("About a cat.")
    assert moon.endswith("A voyage to the moon. (not supported by the transcript: cites nothing)")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--lines", "0"), "--lines 0: must be 1 or more"),
        (("--llm", "x.gguf"), "serve it"),
    ],
)
def test_what_cannot_be_is_said(
    words: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1), 16000)
    assert main(["outline", str(tmp_path / "a.wav"), *words]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "told"), [("gone.wav", "no such file"), ("notes.txt", "notes.txt"), ("empty.wav", "0 bytes")]
)
def test_what_is_no_recording_is_said(
    name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    assert main(["outline", str(tmp_path / name)]) == 2
    assert told in capsys.readouterr().err


def test_a_terminals_link_is_hidden_behind_its_clock() -> None:
    link = playing("file:///a.wav", QUOTED)
    assert link == "file:///a.wav#t=0.00,14.00"
    line = outlined(QUOTED, link, 7, True)
    assert line.startswith(f"   \x1b]8;;{link}\x1b\\0:00\x1b]8;;\x1b\\  0.00 - 14.00 s")


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "0:00"), (59.99, "0:59"), (292.0, "4:52"), (3892.4, "1:04:52")]
)
def test_clock(seconds: float, told: str) -> None:
    assert clock(seconds) == told


# --- the benchmark ---------------------------------------------------------------------------------------


def test_pk_and_windowdiff_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    sys.modules.pop("outlines", None)
    from outlines import errors, share_found

    assert errors(12, [6], [6]) == (0.0, 0.0)
    # A window of 3 words; of the nine, three see the true border and three the other one, none both.
    assert errors(12, [6], [9]) == pytest.approx((6 / 9, 6 / 9))
    # Two borders beside the true one: WindowDiff counts them, Pk only sees that there is one.
    pk, difference = errors(12, [6], [5, 6, 7])
    assert pk == pytest.approx(2 / 9)
    assert difference == pytest.approx(5 / 9)
    assert share_found([6, 20], [8, 30]) == 0.5
