"""Training the base that hears English on a tiny random Whisper: what is given wrong, going on, what is left out."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr.data.questions.build import compose_clips
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RunError, Stopped
from tgsr.miniature.english import train_english
from tgsr.miniature.english_config import EnglishConfig
from tgsr.records import read_clips, write_jsonl
from tgsr.timeline import Hole, Word
from tiny import logged, whisper_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and three clips of spoken digits."""
    path = tmp_path_factory.mktemp("english")
    whisper_folder(path / "model")
    write_jsonl(path / "clips.jsonl", compose_clips(3, "train", 0, path))
    return path


def settings(folder: Path, **other: object) -> EnglishConfig:
    few = {"steps": 3, "clips_per_step": 4, "lesson_tokens": 100, "token_phrases": 1, "lora_rank": 2}
    given = {"clips": (str(folder / "clips.jsonl"),), "model": str(folder / "model"), "bfloat16": False}
    return EnglishConfig(**{**given, **few, "checkpoint_every": 2, **other})  # type: ignore[arg-type]


def train(folder: Path, out: Path, **other: object) -> Path:
    return train_english(settings(folder, **other), out, FeatureCache(folder / "features"))


def alone(folder: Path, *words: Word, holes: tuple[Hole, ...] = ()) -> Path:
    """A file beside the clips with the first of them, in which these words are said."""
    path = rewritten(folder, words=words, holes=holes)
    write_jsonl(path, [read_clips(path)[0]])
    return path


def rewritten(folder: Path, **changes: object) -> Path:
    """A file beside the clips, the first of which is changed."""
    first, *rest = read_clips(folder / "clips.jsonl")
    path = folder / f"{'-'.join(changes)}.jsonl"
    write_jsonl(path, [replace(first, **changes), *rest])  # type: ignore[arg-type]
    return path


def test_a_run_that_was_stopped_has_the_rows_and_weights_of_one_that_was_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = alone(folder, Word("one", 0, 1), Word("two", 1, 2))  # a phrase, which is soon answered
    watch = {"watch": (str(clips),), "watch_every": 2, "bfloat16": True}
    whole = train(folder, tmp_path / "whole", **watch)
    steps = iter(range(100))

    def stop_at_the_second(*_: object) -> None:
        if next(steps) == 1:
            signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_pre_hook(stop_at_the_second)
    with pytest.raises(Stopped):
        train(folder, tmp_path / "stopped", **watch)
    hook.remove()
    again = train(folder, tmp_path / "stopped", **watch)
    assert train(folder, tmp_path / "stopped", **watch) == again  # which is done: nothing is measured again
    rows = logged(tmp_path / "stopped")
    assert rows == logged(tmp_path / "whole")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert ["iou_plain_words" in row for row in rows] == [True, False, True, True]
    assert (again / "adapter_model.safetensors").read_bytes() == (
        whole / "adapter_model.safetensors"
    ).read_bytes()
    assert "several times" not in capsys.readouterr().err


def test_clips_that_were_altered_under_a_run_are_refused(folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips.jsonl"
    clips.write_bytes(rewritten(folder, audio=str(folder / "missing.flac")).read_bytes())
    (tmp_path / "audio").symlink_to(folder / "audio")
    other = {"clips": (str(clips),)}
    train(folder, tmp_path / "run", **other)
    (left_out,) = (json.loads(line) for line in (tmp_path / "run" / "errors.jsonl").read_text().splitlines())
    assert "missing.flac" in left_out["error"]
    clips.write_bytes((folder / "clips.jsonl").read_bytes())
    with pytest.raises(RunError, match=r"changed since it began: .*clips\.jsonl"):
        train(folder, tmp_path / "run", **other)


TEACH_NOTHING: list[tuple[dict[str, object], str]] = [
    ({"words": ()}, "no words to learn from"),
    ({"words": (Word("...", 0, 1),)}, "no words to learn from"),
    ({"words": (Word("so", 0, 1), Word("<unk>", 1, 2))}, "no words to learn from"),
    ({"duration": 31.0}, "lasts 31 s; the model hears 30 s"),
    ({"flags": ("text-differs",)}, "flagged text-differs"),
]


def test_clips_that_teach_nothing_are_left_out_with_the_reason(folder: Path, tmp_path: Path) -> None:
    first, *rest = read_clips(folder / "clips.jsonl")
    bad = [replace(first, id=f"bad{i}", **changes) for i, (changes, _) in enumerate(TEACH_NOTHING)]  # type: ignore[arg-type]
    write_jsonl(folder / "teach-nothing.jsonl", [*bad, *rest])
    train(folder, tmp_path / "run", clips=(str(folder / "teach-nothing.jsonl"),), steps=1)
    left_out = [json.loads(line) for line in (tmp_path / "run" / "errors.jsonl").read_text().splitlines()]
    assert [row["clip"] for row in left_out] == [clip.id for clip in bad]
    for row, (_, says) in zip(left_out, TEACH_NOTHING, strict=True):
        assert says in row["error"]


def test_words_longer_than_the_context_end_in_an_error_and_not_in_a_loop(
    folder: Path, tmp_path: Path
) -> None:
    long = "xyzzy" * 120
    hole = Hole(2.1, 2.3)  # so that nobody can count
    clips = alone(folder, Word(long, 0, 1), Word(long, 1, 2), holes=(hole,))
    with pytest.raises(RunError, match="step 0: every lesson about its clips is too long"):
        train(folder, tmp_path / "run", clips=(str(clips),))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"lora_rank": 3}, "has not this run's weights; give the --lora-rank and --model"),
        ({"start": "nowhere"}, "nowhere: has no checkpoint"),
    ],
)
def test_a_start_that_does_not_fit_is_told(
    other: dict[str, object], says: str, folder: Path, tmp_path: Path
) -> None:
    train(folder, tmp_path / "first", steps=1)
    with pytest.raises(RunError, match=says):
        train(folder, tmp_path / "run", **{"start": str(tmp_path / "first"), **other})


def test_a_watch_about_which_nothing_can_be_asked_is_told(folder: Path, tmp_path: Path) -> None:
    clips = alone(folder, Word("so", 0, 1))
    with pytest.raises(RunError, match="--watch: no phrase and no choice"):
        train(folder, tmp_path / "run", watch=(str(clips),))


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"clips_per_step": 0}, {"lora_rank": 0}, {"timed_share": 1.5}, {"spread": 0.0}],
    ids=str,
)
def test_settings_that_cannot_be_used_are_told(setting: dict[str, object], folder: Path) -> None:
    (name,) = setting
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} .*must be"):
        settings(folder, **setting)
