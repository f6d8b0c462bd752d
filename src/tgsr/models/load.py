"""`--model NAME`: the miniature and its adapters, a folder, or a hub id.

An adapter folder of ours holds adapter.json (the base's name), and one or both of aligner.safetensors
(stage 1: the aligner's weights) and PEFT's adapter_config.json with adapter_model.safetensors (stage 2).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AudioFlamingo3ForConditionalGeneration,
    AutoConfig,
    AutoTokenizer,
    WhisperFeatureExtractor,
)

from tgsr.models import mini, qwen_omni
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.lalm import Lalm, ModelError

SHIPPED = {"mini:sta": "mini-sta", "mini:tgsr": "mini-tgsr"}
ALIGNER_FILE = "aligner.safetensors"
ADAPTER_FILE = "adapter.json"


def load(name: str) -> Lalm:
    """The model called `name`, on the GPU if there is one. ModelError with the remedy where a file is unusable."""
    lalm = _load(name)
    lalm.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return lalm


def _load(name: str) -> Lalm:
    if name == "mini":
        return with_base(mini.load_base(), "mini")
    if name in SHIPPED:
        return load_adapter(mini.assets().parent / SHIPPED[name], name)
    folder = Path(name)
    if (folder / ADAPTER_FILE).exists():
        return load_adapter(folder, name)
    if (folder / "base.safetensors").exists():
        return with_base(mini.load_base(folder, name), str(folder.resolve()))
    if folder.exists() and not (folder / "config.json").exists():
        raise ModelError(
            f"{folder}: neither a model (config.json) nor an adapter ({ADAPTER_FILE}); "
            "give mini, mini:sta, mini:tgsr, a folder that tgsr or transformers saved, or a hub id"
        )
    return with_base(load_pretrained(name), str(folder.resolve()) if folder.exists() else name)


def with_base(lalm: Lalm, base: str) -> Lalm:
    lalm.base = base
    return lalm


def load_pretrained(name: str) -> Lalm:
    """A checkpoint of one of the families in the hub's layout, by folder or hub id, frozen."""
    try:
        model_type = AutoConfig.from_pretrained(name).model_type
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: cannot be loaded: {error}") from error
    if model_type in qwen_omni.MODEL_TYPES:
        return qwen_omni.load_qwen_omni(name)
    if model_type != "audioflamingo3":
        families = ", ".join(("audioflamingo3", *qwen_omni.MODEL_TYPES))
        raise ModelError(f"{name}: is of type {model_type}; tgsr knows {families}")
    try:
        af3: Any = AudioFlamingo3ForConditionalGeneration
        model, loaded = af3.from_pretrained(name, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(name)
        extractor = WhisperFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{name}: cannot be loaded as an Audio Flamingo 3 model: {error}") from error
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(f"{name}: {len(missing)} weights are missing, first {missing[0]}; download it again")
    model.requires_grad_(False)
    model.eval()
    return AudioFlamingo3(name, model, tokenizer, extractor)


def fingerprint(lalm: Lalm) -> str:
    """Tells bases apart: a hash of all weights' names and shapes and of the decoder's norms and biases."""
    digest = hashlib.sha256()
    for name, weight in sorted(lalm.inner.named_parameters()):
        if ".lora_" not in name:
            digest.update(f"{name.replace('.base_layer', '')} {tuple(weight.shape)}".encode())
    for _, weight in sorted(lalm.language_model.named_parameters()):
        if weight.ndim == 1:
            digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_adapter(folder: Path, name: str) -> Lalm:
    """The adapter's base with the adapter on it."""
    described = folder / ADAPTER_FILE
    if not described.exists():
        raise ModelError(f"{folder}: {ADAPTER_FILE} is missing; install tgsr again or train the adapter")
    about = json.loads(described.read_text())
    base = str(about["base"])
    lalm = _load(base if not (folder / base).exists() else str(folder / base))
    if "fingerprint" in about and about["fingerprint"] != fingerprint(lalm):
        raise ModelError(
            f"{folder}: was trained on another model than {base} is now; "
            f"give {described} the path of its own base, or train it again"
        )
    lalm.name = name
    if (folder / ALIGNER_FILE).exists():
        try:
            kept = load_file(folder / ALIGNER_FILE)
            # As wide as it was trained: a stage of training moves it by less than bfloat16 can tell apart.
            lalm.aligner.to(next(iter(kept.values())).dtype)
            lalm.aligner.load_state_dict(kept)
        except (SafetensorError, RuntimeError) as error:
            raise ModelError(f"{folder / ALIGNER_FILE}: truncated, or another model's: {error}") from error
    if (folder / "adapter_config.json").exists():
        if not (folder / "adapter_model.safetensors").exists():
            raise ModelError(f"{folder}: adapter_model.safetensors is missing; pickled adapters are refused")
        with without_renaming_warning():
            lalm.model = PeftModel.from_pretrained(lalm.inner, str(folder))
        lalm.model.eval()
    elif not (folder / ALIGNER_FILE).exists():
        raise ModelError(f"{folder}: holds neither {ALIGNER_FILE} nor adapter_config.json")
    return lalm


def save_adapter(lalm: Lalm, folder: Path) -> None:
    """The aligner, and the LoRA where there is one, under names that `load` finds again.

    Complete over the base alone: stage 2's adapter holds stage 1's aligner too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aligner = {name: weight.detach().contiguous() for name, weight in lalm.aligner.state_dict().items()}
    save_file(aligner, folder / ALIGNER_FILE)
    if hasattr(lalm.model, "peft_config"):
        lalm.model.save_pretrained(str(folder), safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's template of a model card, all blanks
    (folder / ADAPTER_FILE).write_text(
        json.dumps({"base": lalm.base, "fingerprint": fingerprint(lalm)}, indent=2) + "\n"
    )


def with_lora(lalm: Lalm, rank: int, alpha: int, seed: int) -> None:
    """A fresh LoRA on the language model's layers and nowhere else (table 6); everything else is frozen.

    Raises ModelError for a model that has a LoRA: a second one would hide the first.
    """
    if hasattr(lalm.model, "peft_config"):
        raise ModelError(f"{lalm.name}: has a LoRA already; train from the model that it was made of")
    torch.manual_seed(seed)
    lalm.inner.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=lalm.lora_targets)
    with without_renaming_warning():
        lalm.model = get_peft_model(lalm.inner, config)
    lalm.model.eval()


@contextmanager
def without_renaming_warning() -> Iterator[None]:
    """PEFT 0.21 and 5.21's names of checkpointing, which transformers 5.23 renames; a user can do nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
        yield


@contextmanager
def lora_off(lalm: Lalm) -> Iterator[None]:
    """The model without its LoRA: stage 2's reference policy, with no second copy in memory."""
    model: Any = lalm.model
    with model.disable_adapter():
        yield


def trainable(lalm: Lalm) -> dict[str, int]:
    """How many parameters of each block train: audio tower, aligner, language model, LoRA."""
    counts = {"audio tower": 0, "aligner": 0, "language model": 0, "LoRA": 0}
    aligner = {id(weight) for weight in lalm.aligner.parameters()}
    decoder = {id(weight) for part in (lalm.language_model, lalm.lm_head) for weight in part.parameters()}
    for name, weight in lalm.model.named_parameters():
        if weight.requires_grad:
            block = "language model" if id(weight) in decoder else "audio tower"
            block = "aligner" if id(weight) in aligner else "LoRA" if ".lora_" in name else block
            counts[block] += weight.numel()
    return counts
