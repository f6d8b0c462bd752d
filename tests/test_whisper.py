"""Word times by the packaged Whisper base: real weights, real speech, and what is no speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tgsr.audio import SAMPLE_RATE, load
from tgsr.data.questions.build import compose_clips
from tgsr.data.transcribe.whisper import SHORTEST, transcribe
from tgsr.errors import FetchError
from tgsr.models.packaged_weights import KEPT, cache_folder, whisper


@pytest.fixture(scope="module")
def folder() -> Path:
    if not (cache_folder() / "whisper-base").exists():
        pytest.skip(f"{cache_folder() / 'whisper-base'} is not there: `make fetch` downloads it, once")
    return whisper()


def test_digits_are_written_down_about_when_they_are_said(folder: Path, tmp_path: Path) -> None:
    (clip,) = compose_clips(1, "heldout-recordings", 70004, tmp_path)
    samples = load(tmp_path / clip.audio)
    found = transcribe(samples, folder)
    assert found == transcribe(samples, folder)
    assert len(found.words) >= 2
    assert all(0 <= w.start < w.end <= found.duration for w in found.words)
    assert [w.start for w in found.words] == sorted(w.start for w in found.words)
    assert found.words[0].start == pytest.approx(clip.words[0].start, abs=0.5)
    assert all(w.source == "whisper" and w.confidence is not None for w in found.words)


@pytest.mark.parametrize("sound", ["silence", "noise", "tone", "nothing"])
def test_no_words_are_invented(folder: Path, sound: str) -> None:
    t = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    samples = {
        "silence": np.zeros_like(t),
        "noise": 0.1 * np.random.default_rng(0).standard_normal(len(t)),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * t),
        "nothing": np.zeros(int(SHORTEST * SAMPLE_RATE)),
    }[sound]
    assert transcribe(samples.astype(np.float32), folder).words == ()


def test_an_altered_file_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "whisper-base"
    copy.mkdir()
    for name in (KEPT, "config.json", "tokenizer.json", "vocabulary.txt"):
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "model.bin").write_bytes(b"something else")
    with pytest.raises(FetchError, match=r"model\.bin: was altered; delete"):
        whisper(tmp_path)
    (copy / "model.bin").unlink()
    with pytest.raises(FetchError, match="unreadable"):
        whisper(tmp_path)
