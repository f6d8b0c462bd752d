"""The base's training: what each frame and word is labelled with, and the whole loop in small on the real encoder."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr.data.corpora.spoken_digits import DIGITS, compose
from tgsr.data.questions.digits import choice_questions
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, Stopped
from tgsr.miniature.base import (
    SILENCE,
    VoiceHead,
    course,
    frame_labels,
    heard_how,
    lessons_for,
    tokenizer_texts,
    train_base,
    voice_ids,
    word_places,
    written_labels,
)
from tgsr.miniature.base_config import BaseConfig
from tgsr.miniature.lessons import evidence_lesson, lessons, phrase_lessons, transcript_lesson
from tgsr.models import mini
from tgsr.models.clock import PERIODS, Clock
from tgsr.models.mini import configuration, load_base, train_tokenizer, untrained
from tgsr.records import Clip
from tgsr.timeline import Word
from tiny import tiny_lalm

TWO = Clip(
    "c",
    "c.wav",
    2.0,
    (Word("seven", 0.2, 0.6, speaker="a"), Word("two", 1.0, 1.5, speaker="b")),
    split="train",
)


def test_frames_are_labelled_by_hand() -> None:
    labels = frame_labels(TWO, 5, 0.4)  # frames are at 0.2, 0.6, 1.0, 1.4 and 1.8 s; a word's end is outside
    assert labels.digit_F.tolist() == [7, SILENCE, 2, 2, SILENCE]
    assert labels.voice_F.tolist() == [0, 2, 1, 1, 2]
    assert labels.history_FK[:, :2].tolist() == [[7, SILENCE], [7, SILENCE], [2, 7], [2, 7], [2, 7]]
    assert labels.starts_FK[:, :2].tolist() == [[2, -1], [2, -1], [10, 2], [10, 2], [10, 2]]


def test_voices_are_numbered_over_all_speakers_of_the_training_set() -> None:
    ids = voice_ids(TWO, frame_labels(TWO, 5, 0.4), ["b", "c", "a"])
    assert ids.tolist() == [2, 3, 0, 0, 3]  # 3 is silence


def test_the_voice_head_tells_voices_apart_once_it_is_trained() -> None:
    torch.manual_seed(0)
    head, voice_F = VoiceHead(8, 2), torch.tensor([0, 1, 2]).repeat(20)
    frames_FD = torch.eye(8)[voice_F] + 0.1 * torch.randn(60, 8)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    first = head.loss(frames_FD, voice_F).item()
    for _ in range(50):
        optimizer.zero_grad()
        loss = head.loss(frames_FD, voice_F)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 < first


def test_the_time_code_tells_any_two_frames_apart() -> None:
    codes = Clock(16, PERIODS)(0.04 * (np.arange(250) + 0.5))
    distances = torch.cdist(codes, codes) + torch.eye(250) * 1e3
    assert distances.min() > 1e-2


def test_words_are_found_at_their_tokens() -> None:
    lalm = tiny_lalm()
    lalm.tokenizer = train_tokenizer([*map(str, DIGITS), *(" " + d for d in DIGITS)] * 50)
    rng = np.random.default_rng(0)
    clip = compose(3, "train").clip
    cited = [evidence_lesson(question, clip, rng, True) for question in choice_questions(clip, rng)]
    for lesson in (transcript_lesson(clip), *phrase_lessons(clip, rng, 3, True), *cited):
        prompt, answer = lalm.prompt(lesson.question).after, lalm.tokens(lesson.answer)
        places = word_places(lalm, prompt, answer, lesson)
        tokens = [*prompt, *answer]
        words = [word for quote in lesson.quotes for word in quote]
        assert [lalm.text([tokens[place]]).strip() for place, _ in places] == [w.text for w in words]
        assert [times[0] for _, times in places] == [int(w.start * 10) for w in words]
        starts = [
            int(quote[0].start * 10) if index else -1
            for quote in lesson.quotes
            for index in range(len(quote))
        ]
        assert [times[2] for _, times in places] == starts


def test_clips_come_in_three_ways_in_their_shares() -> None:
    config = BaseConfig(timed_share=0.5, read_share=0.2)
    rng = np.random.default_rng(0)
    drawn = [heard_how(config, rng) for _ in range(3000)]
    shares = [drawn.count(how) / len(drawn) for how in ("timed", "read", "plain")]
    assert shares == pytest.approx([0.5, 0.2, 0.3], abs=0.03)


def test_the_learning_rate_starts_again_when_talking_begins() -> None:
    config = BaseConfig(reading_steps=100, steps=900, talking_steps=200, warmup_steps=50)
    shares = [course(step, config) for step in range(1200)]
    assert max(shares[:1000]) == shares[49] > 0.98
    assert shares[999] < 0.06
    assert max(shares[1000:]) == pytest.approx(0.5, abs=0.02)
    assert shares[1199] < 0.03


def test_a_word_that_is_read_is_labelled_as_its_first_frame() -> None:
    heard, read = frame_labels(TWO, 20, 0.1), written_labels(TWO)
    for place, frame in enumerate((2, 10)):  # the frames just after the words' starts
        for name in ("digit_F", "voice_F", "history_FK", "starts_FK"):
            assert getattr(read, name)[place].tolist() == getattr(heard, name)[frame].tolist()


def test_lessons_keep_to_their_budget_and_there_is_always_one() -> None:
    lalm = tiny_lalm()
    clip = compose(1, "train").clip
    for budget in (1, 400, 2000):
        chosen = lessons_for(lalm, clip, "timed", 8, budget, np.random.default_rng(0))
        used = sum(len(prompt) + len(answer) for prompt, answer, _ in chosen)
        assert used <= budget or len(chosen) == 1
    assert len(chosen) == len(lessons(clip, np.random.default_rng(0), True))


def test_a_letter_is_the_same_token_in_the_choices_and_in_the_answer() -> None:
    tokenizer = train_tokenizer(tokenizer_texts([compose(seed, "train").clip for seed in range(20)]))
    for letter in "abcd":
        token = tokenizer.get_vocab()[letter]
        for text in (f"({letter}) two\n", f"\n({letter}) the first speaker", f"Final answer: two ({letter})"):
            assert token in tokenizer(text)["input_ids"]


@pytest.mark.usefixtures("encoder")
def test_the_first_layers_heads_begin_by_looking_back() -> None:
    lalm = untrained(train_tokenizer(["seven two"]))
    lalm.language_model.config._attn_implementation = "eager"
    ids = torch.randint(4, 200, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = lalm.language_model(inputs_embeds=lalm.embed(ids), use_cache=False, output_attentions=True)
    for head, distance in ((0, 1), (2, 2), (4, 3), (6, 4)):
        looks_back = out.attentions[0][0, head].diagonal(-distance)
        assert looks_back.mean() > 0.9
        assert looks_back.min() > 0.5


SMALL = BaseConfig(
    n_clips=6,
    steps=2,
    reading_steps=2,
    talking_steps=1,
    hearing_steps=3,
    clips_per_step=2,
    texts_per_step=2,
    lesson_tokens=100,
    talking_tokens=150,
    checkpoint_every=2,
    bfloat16=False,  # many times as slow where the processor has no such products
)


@pytest.mark.parametrize(
    "setting",
    [
        {"n_clips": 0},
        {"clips_per_step": 0},
        {"talking_steps": -1},
        {"evidence_gain": 3.0},  # -0.4 of the answers without evidence would be right
        {"timed_share": 1.5},
        {"read_share": 0.6},
        {"short_clips_first": 0.0},
        {"frame_layer": 9},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_are_told(setting: dict[str, float]) -> None:
    (name,) = setting
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} .*must be"):
        replace(SMALL, **setting)


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """A decoder a quarter as wide: at its real width most of the time is Muon's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini, "configuration", partial(configuration, hidden=64))
        yield


@pytest.fixture(scope="module")
def cache(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def whole(encoder: object, cache: FeatureCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the weights of an unbroken run, model/ in that of the run."""
    return train_base(SMALL, tmp_path_factory.mktemp("base") / "whole", cache)


def test_the_base_trains_resumes_and_loads(whole: Path, cache: FeatureCache, tmp_path: Path) -> None:
    """Killed before its first checkpoint, then stopped by SIGTERM: its log has each step once, and step 0 too."""

    class Killed(BaseException):
        pass

    starts: list[int] = []

    def stop(*_: object) -> None:
        metrics = tmp_path / "metrics.jsonl"
        n_rows = len(metrics.read_text().splitlines()) if metrics.exists() else 0  # the first is of step 0
        if len(starts) == 1 and n_rows == 2:
            raise Killed
        if len(starts) == 2 and n_rows == 4:
            starts.append(1)  # two optimizers step, and a second signal would end it at once
            signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(stop)
    for ended in (Killed, Stopped):
        starts.append(1)
        with pytest.raises(ended):
            train_base(SMALL, tmp_path, cache)
    hook.remove()
    broken = train_base(SMALL, tmp_path, cache)
    assert (whole / "base.safetensors").read_bytes() == (broken / "base.safetensors").read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole.parent / "metrics.jsonl").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    model = load_base(whole)
    frames = torch.randn(9, 512, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(model.align(frames)).all()


def test_another_seed_is_another_base(whole: Path, cache: FeatureCache, tmp_path: Path) -> None:
    other = train_base(replace(SMALL, seed=1), tmp_path, cache)
    assert (whole / "base.safetensors").read_bytes() != (other / "base.safetensors").read_bytes()


def test_another_base_goes_on_with_talking_alone(whole: Path, cache: FeatureCache, tmp_path: Path) -> None:
    talked = train_base(replace(SMALL, start=str(whole), bfloat16=True), tmp_path, cache)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1]
    assert (talked / "tokenizer.json").read_bytes() == (whole / "tokenizer.json").read_bytes()
    assert (talked / "base.safetensors").read_bytes() != (whole / "base.safetensors").read_bytes()
