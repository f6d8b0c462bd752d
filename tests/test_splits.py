"""Training and testing apart: by voice, and a test that finds what leaked."""

from __future__ import annotations

from dataclasses import replace

from tgsr.data.splits import Leak, Split, leaks
from tgsr.records import SPEAKERS_GUESSED, Clip
from tgsr.timeline import Word

CLIPS = [Clip(f"c{i}", f"c{i}.wav", 2.0, speaker=f"s{i % 40}") for i in range(400)]


def divided(split: Split, clips: list[Clip]) -> list[Clip]:
    return [replace(clip, split=split.of(clip)) for clip in clips]


def test_a_voice_is_on_one_side_only() -> None:
    clips = divided(Split("speaker", 0.3), CLIPS)
    assert {clip.split for clip in clips} == {"train", "test"}
    assert leaks(clips) == []


def test_who_is_chosen_does_not_depend_on_who_else_there_is() -> None:
    split = Split("speaker", 0.3)
    assert divided(split, CLIPS)[:10] == divided(split, CLIPS[:10])
    assert divided(split, CLIPS) != divided(Split("speaker", 0.3, seed=1), CLIPS)


def test_the_share_is_kept_over_many() -> None:
    clips = [Clip(f"c{i}", f"c{i}.wav", 2.0) for i in range(4000)]
    share = sum(clip.split == "test" for clip in divided(Split("clip", 0.1), clips)) / len(clips)
    assert 0.08 < share < 0.12
    assert {clip.split for clip in divided(Split("clip", 0.0), clips)} == {"train"}


def test_the_publishers_split_stays() -> None:
    assert Split().of(replace(CLIPS[0], split="dev")) == "dev"


def test_a_split_by_clip_leaks_voices_and_says_which() -> None:
    found = leaks(divided(Split("clip", 0.5), CLIPS))
    assert {leak.what for leak in found} == {"speaker"}
    assert (
        Leak("speaker", "s0", ("train", "test")) in found or Leak("speaker", "s0", ("test", "train")) in found
    )


def test_a_recording_in_two_splits_leaks_even_under_two_ids() -> None:
    clips = [Clip("a", "x.wav", 1.0), Clip("b", "x.wav", 1.0, split="test")]
    assert leaks(clips) == [Leak("recording", "x.wav", ("train", "test"))]


def test_voices_of_a_dialogue_are_all_looked_at() -> None:
    words = (Word("hi", 0, 1, "Ann"), Word("yo", 1, 2, "Bo"))
    clips = [Clip("a", "a.wav", 2.0, words), Clip("b", "b.wav", 2.0, speaker="Bo", split="test")]
    assert leaks(clips) == [Leak("speaker", "Bo", ("train", "test"))]


def test_guessed_voices_and_channels_are_other_people_in_another_recording() -> None:
    for voice, flags in (("VOICE1", (SPEAKERS_GUESSED,)), ("CH1", ())):
        words = (Word("hi", 0, 1, voice),)
        clips = [Clip(f"r{n}", f"r{n}.wav", 2.0, words, flags=flags) for n in range(200)]
        parted = divided(Split("speaker", 0.5), clips)
        assert 60 < sum(clip.split == "test" for clip in parted) < 140  # not all of them, nor none
        assert leaks(parted) == []
