"""The packaged Whisper base in transformers' layout: the same tensors under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tgsr.disk.whole import whole_folder
from tgsr.models.packaged_weights import audio_tower_names, cache_folder, read_ctranslate2, whisper

FOLDER = "whisper-base-transformers"
N_MEL_BINS, N_FRAMES, WIDTH_OF_A_HEAD = 80, 1500, 64


def whisper_for_transformers(folder: Path | None = None) -> Path:
    """Folder of Whisper base as WhisperForConditionalGeneration reads it, made from the packaged one the first time.

    290 MB. Raises FetchError where the packaged one cannot be had.
    """
    source = whisper(folder)
    target = (folder or cache_folder()) / FOLDER
    if target.exists():
        return target
    tensors = dict(read_ctranslate2((source / "model.bin").read_bytes()))
    described = json.loads((source / "config.json").read_text())
    with whole_folder(target) as half:
        _write(tensors, described, source / "tokenizer.json", half)
    return target


def _write(tensors: dict[str, np.ndarray], described: dict[str, Any], tokenizer: Path, out: Path) -> None:
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    encoder = {name: array for name, array in tensors.items() if name.startswith("encoder/")}
    names = {f"encoder.{name}": array for name, array in audio_tower_names(encoder).items()}
    names |= {f"decoder.{name}": array for name, array in decoder_names(tensors).items()}
    n_pieces, width = tensors["decoder/embeddings/weight"].shape
    n_layers = sum(name.endswith("/attention/linear_2/weight") for name in tensors)
    pieces: Any = WhisperTokenizer(tokenizer_file=str(tokenizer))
    token_id = pieces.get_vocab()
    config = WhisperConfig(
        vocab_size=n_pieces,
        num_mel_bins=N_MEL_BINS,
        d_model=width,
        encoder_layers=n_layers,
        decoder_layers=n_layers,
        encoder_attention_heads=width // WIDTH_OF_A_HEAD,
        decoder_attention_heads=width // WIDTH_OF_A_HEAD,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_source_positions=N_FRAMES,
        max_target_positions=tensors["decoder/position_encodings/encodings"].shape[0],
        decoder_start_token_id=token_id["<|startoftranscript|>"],
        bos_token_id=token_id["<|endoftext|>"],
        eos_token_id=token_id["<|endoftext|>"],
        pad_token_id=token_id["<|endoftext|>"],
    )
    model = WhisperForConditionalGeneration(config)
    missing, unexpected = model.model.load_state_dict(
        {name: torch.from_numpy(array.copy()).float() for name, array in names.items()}, strict=False
    )
    assert not missing, missing
    assert not unexpected, unexpected
    model.tie_weights()
    languages = {piece: i for piece, i in token_id.items() if i in described["lang_ids"]}
    model.generation_config = GenerationConfig(
        alignment_heads=described["alignment_heads"],
        suppress_tokens=described["suppress_ids"],
        begin_suppress_tokens=described["suppress_ids_begin"],
        lang_to_id=languages,
        task_to_id={task: token_id[f"<|{task}|>"] for task in ("transcribe", "translate")},
        is_multilingual=True,
        no_timestamps_token_id=token_id["<|notimestamps|>"],
        prev_sot_token_id=token_id["<|startofprev|>"],
        max_initial_timestamp_index=50,
        max_length=448,
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    model.save_pretrained(str(out))
    pieces.save_pretrained(str(out))
    WhisperFeatureExtractor(feature_size=N_MEL_BINS).save_pretrained(str(out))


def decoder_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CTranslate2's decoder tensors under transformers' names. The head is the embedding and is not among them."""
    width = tensors["decoder/embeddings/weight"].shape[1]
    named = {
        "embed_tokens.weight": tensors["decoder/embeddings/weight"],
        "embed_positions.weight": tensors["decoder/position_encodings/encodings"],
        "layer_norm.weight": tensors["decoder/layer_norm/gamma"],
        "layer_norm.bias": tensors["decoder/layer_norm/beta"],
    }
    n_layers = sum(name.endswith("/attention/linear_2/weight") for name in tensors)
    for layer in range(n_layers):
        theirs, ours = f"decoder/layer_{layer}/", f"layers.{layer}."
        stacked = {  # which of query, key and value CTranslate2 keeps in one matrix
            "self_attn": ("self_attention", (("linear_0", ("q_proj", "k_proj", "v_proj")),), "linear_1"),
            "encoder_attn": (
                "attention",
                (("linear_0", ("q_proj",)), ("linear_1", ("k_proj", "v_proj"))),
                "linear_2",
            ),
        }
        for ours_attention, (attention, matrices, out) in stacked.items():
            for matrix, parts in matrices:
                for index, part in enumerate(parts):
                    rows = slice(index * width, (index + 1) * width)
                    prefix = f"{ours}{ours_attention}.{part}."
                    named[prefix + "weight"] = tensors[f"{theirs}{attention}/{matrix}/weight"][rows]
                    if part != "k_proj":  # Whisper's key has no bias; it is stored as zeros
                        named[prefix + "bias"] = tensors[f"{theirs}{attention}/{matrix}/bias"][rows]
            for side in ("weight", "bias"):
                named[f"{ours}{ours_attention}.out_proj.{side}"] = tensors[
                    f"{theirs}{attention}/{out}/{side}"
                ]
            for side, greek in (("weight", "gamma"), ("bias", "beta")):
                norm = tensors[f"{theirs}{attention}/layer_norm/{greek}"]
                named[f"{ours}{ours_attention}_layer_norm.{side}"] = norm
        for side, greek in (("weight", "gamma"), ("bias", "beta")):
            named[f"{ours}final_layer_norm.{side}"] = tensors[f"{theirs}ffn/layer_norm/{greek}"]
        for fc, linear in (("fc1", "linear_0"), ("fc2", "linear_1")):
            for side in ("weight", "bias"):
                named[f"{ours}{fc}.{side}"] = tensors[f"{theirs}ffn/{linear}/{side}"]
    return named
