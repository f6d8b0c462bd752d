"""An adapter and its base as one checkpoint that needs neither: transformers' layout, safetensors, the hub's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import cached_file

from tgsr.disk.whole import whole, whole_folder, write_whole
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import merge_lora
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.checkpoint import MERGED_FILE
from tgsr.models.foreign_adapter import WEIGHTS_FILE
from tgsr.models.lalm import Lalm
from tgsr.models.load import BASE_FILE, OURS, write_aligner
from tgsr.models.whisper import Whisper

SHARD = "5GB"
INDEX = "model.safetensors.index.json"


def merge(lalm: Lalm, out: Path) -> Path:
    """Writes the model with its LoRA in its matrices and its aligner in its place; `out` must be new.

    A matrix is added up in float32 and kept in the base's type: in bfloat16 what a LoRA adds is rounded. The model in
    memory is changed. What the base's checkpoint holds besides (of Qwen2.5-Omni the talker and the vocoder) goes over
    as it is, under the base's own config.json; a file of voices (spk_dict.pt, a pickle) does not. Of Whisper's family
    the aligner, which the official class does not know, is a file of its own, in its own width. Raises ModelError
    where `out` exists, for a model with a clock, for a base in 4 bits, which would be merged into rounded matrices, and
    for layers that wait in the host's memory.
    """
    if out.exists():
        raise ModelError(f"{out}: exists; choose another --out")
    if lalm.clock is not None:
        raise ModelError(
            f"{lalm.name}: has a clock on its aligned audio (--clock), which no checkpoint of its family has a place "
            "for; use the adapter on its base"
        )
    merge_lora(lalm)
    about = {"from": lalm.name, "base": lalm.base}
    with whole_folder(out) as half:
        if isinstance(lalm, Whisper):
            about["times"] = lalm.times
            _save_whisper(lalm, half)
        else:
            _save_all(lalm, half)
        _save_processor(lalm, half)
        write_whole(half / MERGED_FILE, json.dumps(about, indent=1) + "\n")
    return out


def _save_all(lalm: Lalm, folder: Path) -> None:
    """The model with its aligner, all in the decoder's width, and what else the base's checkpoint holds."""
    model: Any = lalm.model
    head: Any = lalm.lm_head
    embedding: Any = lalm.language_model.get_input_embeddings()
    if head.weight is embedding.weight and not model._tied_weights_keys:  # mini-lm's, by hand
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        for part in (model.config, model.config.get_text_config()):
            part.tie_word_embeddings = False
    model.to(next(lalm.language_model.parameters()).dtype)  # training keeps an aligner in float32
    model.save_pretrained(str(folder), max_shard_size=SHARD)
    _carry_over(lalm.base, folder, str(model.dtype).removeprefix("torch."))


def _save_whisper(lalm: Lalm, folder: Path) -> None:
    """The official class, without the aligner, which has no place in it and stands beside it."""
    model: Any = lalm.model
    aligner = model.model.aligner
    del model.model.aligner
    model.save_pretrained(str(folder), max_shard_size=SHARD)
    model.model.aligner = aligner
    write_aligner(lalm, folder)


def _carry_over(base: str, folder: Path, dtype: str) -> None:
    """Copies the base's other weights, which the merged model does not have, and the config that names them.

    `dtype` is that of the merged weights; the others keep their own.
    The merged weights have the names that the base's have, whatever the class that was loaded calls them.
    """
    if base in OURS or (Path(base) / BASE_FILE).exists():  # the miniature: all of it has been written
        return
    described = Path(str(cached_file(base, "config.json")))
    source = described.parent
    written, theirs = _where(folder), _where(source)
    others = {name: file for name, file in theirs.items() if name not in written}
    if not others:
        return
    shards = sorted(set(others.values()))
    for number, file in enumerate(shards):
        with safe_open(source / file, "pt") as tensors:
            weights = {name: tensors.get_tensor(name) for name in others if others[name] == file}
        carried = f"carried-{number + 1:05}-of-{len(shards):05}.safetensors"
        with whole(folder / carried) as half:
            save_file(weights, half, metadata={"format": "pt"})
        written |= dict.fromkeys(weights, carried)
    write_whole(folder / INDEX, json.dumps({"metadata": {}, "weight_map": written}, indent=1) + "\n")
    config = json.loads(described.read_text())
    config |= {key: False for key in ("has_lora_adapter",) if key in config}  # it is in the matrices
    for part in (config, *(section for section in config.values() if isinstance(section, dict))):
        part |= {key: dtype for key in ("dtype", "torch_dtype") if key in part}
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _where(folder: Path) -> dict[str, str]:
    """Each weight's file in a folder of safetensors."""
    files: dict[str, str] = {}
    for file in sorted(set(folder.glob("*.safetensors")) - {folder / WEIGHTS_FILE}):
        with safe_open(file, "pt") as tensors:
            files |= dict.fromkeys(tensors.keys(), file.name)
    return files


def _save_processor(lalm: Lalm, folder: Path) -> None:
    if isinstance(lalm, AudioFlamingo3):
        processor = lalm.processor_class(
            lalm.feature_extractor,
            lalm.tokenizer,
            chat_template=lalm.tokenizer.chat_template,
            max_audio_len=int(lalm.max_seconds),
        )
        processor.save_pretrained(str(folder))
    else:
        lalm.tokenizer.save_pretrained(str(folder))
        lalm.feature_extractor.save_pretrained(str(folder))
