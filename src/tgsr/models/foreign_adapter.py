"""A LoRA that another trainer wrote (ms-swift, LLaMA-Factory, PEFT on the official class), on a family's model.

PEFT leaves a tensor whose name it does not know aside with a warning, and the base answers alone. Names differ by the
class that was trained (a whole Omni or its thinker) and by the release of transformers: each is looked for under all of
these, and what is found nowhere is counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, get_peft_model, set_peft_model_state_dict
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import cached_file

from tgsr.disk.whole import sha256_of
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import merge_lora, without_renaming_warning
from tgsr.models.lalm import Lalm

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
DECODER = "model.language_model."
# What a configuration chooses other modules and tokens by: those that are read are named one by one.
CHOSEN_BY = (
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "trainable_token_indices",
)
WHOLE = "thinker."  # before all names of a class that also speaks
_LORA = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight")


@dataclass(frozen=True, slots=True)
class AdapterRead:
    """What became of an adapter's tensors: how many are in the model, the names of those that are not, and how many of
    its B matrices hold zeros alone, so that they change nothing.
    """

    folder: str
    n_read: int
    unread: tuple[str, ...]
    n_zero: int
    n_pairs: int


def is_foreign(folder: Path) -> bool:
    """Whether the folder holds an adapter in PEFT's format, and no model that comes with one."""
    return (folder / CONFIG_FILE).exists() and not any(folder.glob("model*.safetensors"))


def own_lora(name: str, subfolder: str = "") -> Path | None:
    """Where a checkpoint, by folder or hub id, has the LoRA that its makers ship with it; None where it has none."""
    files = [
        cached_file(name, file, subfolder=subfolder, _raise_exceptions_for_missing_entries=False)
        for file in (WEIGHTS_FILE, CONFIG_FILE)
    ]
    return None if files[-1] is None else Path(files[-1]).parent


def merge_own_lora(lalm: Lalm, folder: Path) -> None:
    """Merges the LoRA that `own_lora` found. ModelError as `put_on` and `merge_lora`; for a tensor without a place."""
    read = put_on(lalm, folder)
    if read.unread or not read.n_read:
        raise ModelError(
            f"{folder / WEIGHTS_FILE}: {len(read.unread)} of the tensors of the model's own LoRA have no place in it, "
            f"first {min(read.unread, default='none at all')}; download it again"
        )
    merge_lora(lalm)
    lalm.merged = sha256_of(folder / WEIGHTS_FILE)


def base_of(folder: Path) -> str:
    """The model that the adapter says it is for. ModelError where it says none, or is no LoRA."""
    path = folder / CONFIG_FILE
    try:
        about = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); copy the adapter again") from error
    if about.get("peft_type") != "LORA":
        raise ModelError(
            f"{path}: is of type {about.get('peft_type')!r}; only a LoRA is read; merge it where it is from"
        )
    if not about.get("base_model_name_or_path"):
        raise ModelError(f"{path}: names no base (base_model_name_or_path); give it as --base")
    return str(about["base_model_name_or_path"])


def names_in(lalm: Lalm, module: str) -> Iterator[str]:
    """The names that a trained module may have in the family's own class, the likeliest first."""
    for name in dict.fromkeys((module, module.removeprefix(WHOLE))):
        yield name
        yield f"model.{name}"
        for before in dict.fromkeys((lalm.hub_decoder, lalm.hub_decoder.removeprefix(WHOLE))):
            if name.startswith(before):
                yield DECODER + name.removeprefix(before)


def put_on(lalm: Lalm, folder: Path) -> AdapterRead:
    """Gives the model the folder's LoRA, as far as its modules are known; nothing where none is. A matrix A without its
    B, or the other way round, is not read.

    ModelError for weights that are missing, damaged, a pickle, or of other shapes than the model's, and for a kind of
    LoRA that PEFT cannot put there.
    """
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise ModelError(
            f"{path}: is missing; only safetensors are read, a pickle (adapter_model.bin) is refused"
        )
    try:
        weights = load_file(path)
        settings = PeftConfig.from_pretrained(str(folder)).to_dict()
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{folder}: the adapter is damaged or of another version of PEFT: {error}"
        ) from error
    modules = dict(lalm.inner.named_modules())
    found: dict[str, Tensor] = {}
    unread: list[str] = []
    trained_as: dict[str, str] = {}  # a module's name in the class that was trained, by its name here
    pairs = Counter(lora[1] for name in weights if (lora := _LORA.fullmatch(name)))
    for name, weight in sorted(weights.items()):
        lora = _LORA.fullmatch(name)
        module = next((n for n in names_in(lalm, lora[1]) if n in modules), None) if lora else None
        if lora is None or module is None or pairs[lora[1]] < 2:
            unread.append(name)
            continue
        found[f"base_model.model.{module}.lora_{lora[2]}.weight"] = weight
        trained_as[module] = lora[1]
    b_matrices = [weight for name, weight in found.items() if ".lora_B." in name]
    n_zero = sum(not bool(torch.any(weight)) for weight in b_matrices)
    read = AdapterRead(str(folder), len(found), tuple(unread), n_zero, len(b_matrices))
    if found:
        settings |= {"target_modules": sorted(trained_as), "inference_mode": True} | dict.fromkeys(CHOSEN_BY)
        # What single modules have otherwise is said by the names under which they were trained.
        for pattern in ("rank_pattern", "alpha_pattern"):
            known = settings[pattern] or {}
            keys = {module: get_pattern_key(known, name) for module, name in trained_as.items()}
            settings[pattern] = {module: known[key] for module, key in keys.items() if key in known}
        settings["base_model_name_or_path"] = lalm.inner.name_or_path  # where it is now
        try:
            with without_renaming_warning():
                lalm.model = get_peft_model(lalm.inner, LoraConfig(**settings))
                set_peft_model_state_dict(lalm.model, found)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(f"{folder}: its LoRA does not fit {lalm.name}: {error}") from error
        lalm.model.requires_grad_(False)
        lalm.model.eval()
    return read
