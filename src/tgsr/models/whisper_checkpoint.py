"""The packaged Whisper base in transformers' layout: the same tensors under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tgsr.disk.whole import whole_folder, write_whole
from tgsr.models.packaged_weights import cache_folder, read_ctranslate2, transformers_names, whisper

FOLDER = "whisper-base-transformers-2"
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


def with_first_merge(source: Path, out: Path) -> None:
    """A tokenizer.json with the merge of a space and "t" in its first place, where it is missing.

    Uploads made by a converter that took the list's first line for a version have lost it. The pieces " t" and " the"
    are in the vocabulary, but no text leads to them: in 343 transcripts of LibriSpeech 13 % of the right pieces are
    missed (of every sixth word), and the texts are 15 % longer. What Whisper writes is decoded as ever. faster-whisper
    reads the packaged file as it is, so that prompts, prefixes and hotwords, which tgsr gives none, would be affected.
    """
    described = json.loads(source.read_text(encoding="utf-8"))
    model = described["model"]
    merge = ["\u0120", "t"]
    joined = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    if merge not in joined and "".join(merge) in model["vocab"]:
        model["merges"] = [merge, *joined]
    write_whole(out, json.dumps(described, ensure_ascii=False))


def _write(tensors: dict[str, np.ndarray], described: dict[str, Any], tokenizer: Path, out: Path) -> None:
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    weights: dict[str, torch.Tensor] = {}
    for part in ("encoder", "decoder"):
        for name, array in transformers_names(tensors, part).items():
            weights[f"{part}.{name}"] = torch.from_numpy(array.copy()).float()
    n_pieces, width = tensors["decoder/embeddings/weight"].shape
    n_layers = sum(name.endswith("/attention/linear_2/weight") for name in tensors)
    with_first_merge(tokenizer, out / tokenizer.name)
    pieces: Any = WhisperTokenizer(tokenizer_file=str(out / tokenizer.name))
    token_id = pieces.get_vocab()
    end = token_id["<|endoftext|>"]
    special = {"decoder_start_token_id": token_id["<|startoftranscript|>"]}
    special |= {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
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
        **special,
    )
    model = WhisperForConditionalGeneration(config)
    missing, unexpected = model.model.load_state_dict(weights, strict=False)
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
        **special,
    )
    model.save_pretrained(str(out))
    pieces.save_pretrained(str(out))
    WhisperFeatureExtractor(feature_size=N_MEL_BINS).save_pretrained(str(out))
