"""The sentences that ship: whole, small, of voices apart, and their words where somebody speaks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tgsr import audio
from tgsr.data.compose import Composition, chosen, plan
from tgsr.data.corpora.spoken_english import sentences
from tgsr.records import Clip, read_clips, resolve_audio

CLIPS = read_clips(sentences())
HELD_OUT = Path(__file__).parents[2] / "shared" / "english" / "heldout.txt"


def test_they_are_one_utterance_each_of_40_people_and_small() -> None:
    assert {clip.split for clip in CLIPS} == {"train", "test"}
    assert len({clip.speaker for clip in CLIPS}) == len(CLIPS) == 40
    assert sum(clip.split == "test" for clip in CLIPS) == 12
    assert all(5 < clip.duration <= 16 and clip.licence == "CC BY 4.0" for clip in CLIPS)
    assert sum(path.stat().st_size for path in sentences().parent.iterdir()) < 6e6


@pytest.mark.skipif(not HELD_OUT.exists(), reason=f"{HELD_OUT} is not there")
def test_the_test_voices_are_those_that_no_training_may_use() -> None:
    listed = {line.split()[1] for line in HELD_OUT.read_text().splitlines() if line.startswith("librispeech")}
    for clip in CLIPS:
        assert (f"libri-{clip.speaker}" in listed) == (clip.split == "test")


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.id)
def test_words_are_where_somebody_speaks(clip: Clip) -> None:
    samples = audio.load(resolve_audio(clip, sentences()))
    assert len(samples) == round(clip.duration * audio.SAMPLE_RATE)
    assert " ".join(word.text for word in clip.words) == clip.text
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(clip.words))

    def power(start: float, end: float) -> float:
        stretch = samples[round(start * audio.SAMPLE_RATE) : round(end * audio.SAMPLE_RATE)]
        return float((stretch.astype(np.float64) ** 2).mean())

    spoken = np.median([power(word.start, word.end) for word in clip.words])
    pauses = [(a.end + 0.1, b.start - 0.1) for a, b in pairwise(clip.words) if b.start - a.end >= 0.3]
    assert all(power(*pause) < 0.1 * spoken for pause in pauses)


@pytest.mark.parametrize(("split", "n"), [("train", 28), ("test", 12)])
def test_all_of_them_can_be_composed(split: str, n: int) -> None:
    made, bad = chosen(CLIPS, sentences().parent, split)
    assert (len(made), bad) == (n, [])
    planned = list(plan(made, 40, Composition()))
    assert {said["voice"] for row in planned for said in row["sentences"]} == {s.voice for s in made}
