"""The frame baseline: what Viterbi places, what frames are labelled with, training, and the command's predictions."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr.answering.frames import ONLY_PHRASES, UNHEARD, FrameAnswers, load_frames
from tgsr.answering.responder import ClipQuestion
from tgsr.audio import load
from tgsr.data.questions.build import compose_clips
from tgsr.data.questions.phrases import phrase_questions
from tgsr.engine.features import FeatureCache
from tgsr.errors import ModelError, OptionError, Stopped
from tgsr.grounding import find_spans
from tgsr.llm.decoding import GREEDY, Failed
from tgsr.miniature.frames import frame_labels, train_frames
from tgsr.miniature.frames_config import FramesConfig
from tgsr.models.frame_head import (
    ENTRY,
    LEAST,
    MOST,
    PAUSE,
    WEIGHTS_FILE,
    FrameHead,
    HeardBy,
    Place,
    load_frame_head,
    piece_spans,
    place,
    save_frame_head,
    train_pieces,
)
from tgsr.records import Clip, read_clips, write_jsonl
from tgsr.timeline import Word
from tiny import logged, tiny_lalm

WORDS = ("seven", "two", "eleven")
CLIP = Clip("c", "c.wav", 2.0, (Word("Seven,", 0.2, 0.6), Word("two", 1.0, 1.5)), split="train")


def likelier(pieces: str, n_pieces: int = 4) -> np.ndarray:
    """Frames that say one piece each, by its digit, 2 likelier than usual and the others 2 less likely."""
    table_FP = np.full((len(pieces), n_pieces), -2.0, np.float32)
    table_FP[range(len(pieces)), [int(piece) for piece in pieces]] = 2.0
    return table_FP


@pytest.mark.parametrize(
    ("frames", "words", "found"),
    [
        ("0011220033", [[1, 2]], (2, 6)),
        ("00120000330012", [[1, 2], [3]], (2, 10)),  # a pause between two words, however long
        ("001233012", [[1, 2], [3]], (2, 6)),  # and none
        ("0120012", [[1, 2]], (1, 3)),  # twice alike: the first
        ("1000211220", [[1, 2]], (5, 9)),  # the place that is longer reads better
        ("11", [[1], [2]], (0, 2)),  # each piece has a frame
        ("0", [[1], [2]], None),  # there is no room for them
        ("012", [], None),
        ("012", [[]], None),
    ],
)
def test_a_phrase_is_placed_where_its_pieces_follow_each_other(
    frames: str, words: list[list[int]], found: tuple[int, int] | None
) -> None:
    at = place(likelier(frames), words)
    assert (at and at[:2]) == found


def reading(said_FP: np.ndarray, words: list[list[int]]) -> Place | None:
    """The same by looking at every way to read every stretch."""
    best = None
    states = [state for word in words for state in (PAUSE, *word)][1:]
    paths = [
        [states[i] for i in kept]
        for n in range(1, len(states) + 1)
        for kept in combinations(range(len(states)), n)
        if {i for i, state in enumerate(states) if state != PAUSE} <= set(kept)
    ]
    for path in paths:
        for edges in combinations(range(len(said_FP) + 1), len(path) + 1):
            score = sum(
                np.minimum(
                    np.clip(said_FP[a:b, state], LEAST, MOST) - ENTRY, 0 if state == PAUSE else np.inf
                ).sum()
                for state, a, b in zip(path, edges, edges[1:], strict=False)
            )
            if best is None or score > best.score:
                best = Place(edges[0], edges[-1], float(score))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_no_way_to_read_a_phrase_is_better_than_the_one_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    said_FP = (4 * rng.standard_normal((7, 4))).astype(np.float32)
    words = [
        [int(x) for x in rng.integers(1, 4, size=n)] for n in rng.integers(1, 3, size=rng.integers(1, 4))
    ]
    found, best = place(said_FP, words), reading(said_FP, words)
    assert found is not None
    assert best is not None
    assert found.score == pytest.approx(best.score, abs=1e-4)
    assert found[:2] == best[:2]


def test_a_word_is_its_pieces_by_their_letters() -> None:
    pieces = train_pieces(["seven"] * 5 + ["even"], 8)
    spans = piece_spans(Word("Seven,", 1.0, 2.0), "seven", pieces)
    assert "".join(pieces.id_to_token(piece) for piece, _ in spans) == "\u2581seven"
    assert spans[0][1].start == 1.0
    assert spans[-1][1].end == 2.0
    assert all(before[1].end == after[1].start for before, after in pairwise(spans))
    assert piece_spans(Word("--", 1.0, 2.0), "", pieces) == []


def test_frames_say_the_piece_in_whose_time_their_middle_is() -> None:
    head = FrameHead(train_pieces(["seven", "two"], 40), 4, 8)
    labels = frame_labels(
        CLIP, head, 5, 0.4
    )  # middles at 0.2, 0.6, 1.0, 1.4 and 1.8 s; a word's end is outside
    said = ["" if piece == PAUSE else head.pieces.id_to_token(int(piece)) for piece in labels]
    assert said == ["\u2581seven", "", "\u2581two", "\u2581two", ""]


def test_a_number_is_heard_as_it_is_said() -> None:
    head = FrameHead(train_pieces(["nineteen", "eighty"], 40), 4, 8)
    clip = replace(CLIP, words=(Word("1980", 0.0, 2.0),))
    said = "".join(head.pieces.id_to_token(int(piece)) for piece in frame_labels(clip, head, 10, 0.2))
    assert said.startswith("\u2581nineteen")
    assert said.endswith("\u2581eighty")


def test_letters_that_nobody_has_heard_are_left_out() -> None:
    head = FrameHead(train_pieces(WORDS, 30), 4, 8)
    assert head.spelled("\u00e9tw\u00e5o") == head.spelled("two")
    assert head.spelled("\u6771\u4eac") == []
    assert head.place(torch.zeros(9, 4), ["\u6771\u4eac"]) is None


def answers(folder: Path, cache: Path) -> FrameAnswers:
    """An untrained head on a tiny model's frames."""
    lalm = tiny_lalm()
    n_in = lalm.encode_audio(np.zeros(16000, np.float32)).shape[1]
    save_frame_head(FrameHead(train_pieces(WORDS, 30), n_in, 8), HeardBy("tiny", lalm.encoder_key), folder)
    return FrameAnswers("tiny", lalm, load_frame_head(folder)[0], FeatureCache(cache))


def test_only_phrases_are_answered_and_numbers_are_read_as_they_are_said(tmp_path: Path) -> None:
    model = answers(tmp_path / "head", tmp_path / "cache")
    clips = [np.random.default_rng(0).standard_normal(32000).astype(np.float32) / 10]
    asked = [ClipQuestion(0, "", phrase, phrase=phrase) for phrase in ("Seven, two", "7 2", "\u6771\u4eac")]
    by_words, by_digits, unheard = model.respond(clips, asked, GREEDY)
    (span,) = find_spans(str(by_words))
    assert 0 <= span.start < span.end <= 2.1
    assert by_digits == by_words
    assert unheard == UNHEARD
    assert model.respond(clips, [ClipQuestion(0, "", "Who?")], GREEDY) == [Failed(ONLY_PHRASES)]


def test_a_head_is_what_was_saved_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    head = FrameHead(train_pieces(WORDS, 30), 6, 8).eval()
    save_frame_head(head, HeardBy("m", "key"), tmp_path)
    loaded, heard_by = load_frame_head(tmp_path)
    frames_FD = torch.randn(5, 6)
    assert torch.equal(loaded(frames_FD), head(frames_FD))
    assert (heard_by, loaded.spelled("seven")) == (HeardBy("m", "key"), head.spelled("seven"))
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[:-100])
    with pytest.raises(ModelError, match="train it again"):
        load_frame_head(tmp_path)


def test_frames_of_another_encoder_are_refused(tmp_path: Path, encoder: dict[str, np.ndarray]) -> None:
    save_frame_head(FrameHead(train_pieces(WORDS, 30), 512, 8), HeardBy("mini", "another"), tmp_path)
    with pytest.raises(ModelError, match="frames of another encoder than mini has now"):
        load_frames(tmp_path, tmp_path)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, encoder: dict[str, np.ndarray]) -> Path:
    """Clips of spoken digits, whose words an encoder hears at once."""
    folder = tmp_path_factory.mktemp("digits")
    clips = compose_clips(6, "train", 0, folder)
    write_jsonl(folder / "clips.jsonl", [*clips, replace(clips[0], id="gone", audio="gone.flac")])
    return folder / "clips.jsonl"


def test_it_learns_to_hear_words_places_phrases_and_goes_on_where_it_was_stopped(
    digits: Path, tmp_path: Path
) -> None:
    settings = FramesConfig(
        clips=(str(digits),),
        watch=(str(digits),),
        model="mini",
        steps=24,
        clips_per_step=6,
        n_pieces=50,
        hidden=64,
        learning_rate=5e-3,
        warmup_steps=3,
        checkpoint_every=10,
    )
    cache = FeatureCache(tmp_path / "features")
    folder = train_frames(settings, tmp_path / "run", cache)
    last = logged(tmp_path / "run")[-1]
    assert last["pieces"] > 0.7
    assert last["iou"] > 0.7
    (left_out,) = (json.loads(line) for line in (tmp_path / "run" / "errors.jsonl").read_text().splitlines())
    assert left_out["clip"] == "gone"

    steps = iter(range(100))

    def stop_at_fifteen(*_: object) -> None:
        if next(steps) == 15:
            signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(stop_at_fifteen)
    with pytest.raises(Stopped):
        train_frames(settings, tmp_path / "stopped", cache)
    hook.remove()
    again = train_frames(settings, tmp_path / "stopped", cache)
    assert (again / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()
    assert logged(tmp_path / "stopped") == logged(tmp_path / "run")

    model = load_frames(folder, tmp_path)
    (clip,) = list(read_clips(digits))[:1]
    (question,) = phrase_questions(clip, np.random.default_rng(0), 1, n_min=3)
    asked = ClipQuestion(0, "", "", phrase=question.phrase)
    (span,) = find_spans(str(model.respond([load(digits.parent / clip.audio)], [asked], GREEDY)[0]))
    assert span.iou(question.evidence[0]) > 0.6


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"clips_per_step": 0}, {"n_pieces": 0}, {"dropout": 1.0}, {"noise": -0.1}],
    ids=str,
)
def test_settings_that_cannot_be_used_are_told(setting: dict[str, float]) -> None:
    (name,) = setting
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} .*must be"):
        replace(FramesConfig(clips=("clips.jsonl",)), **setting)
