"""A checkpoint in the hub's layout: read whole or refused, in the width and on the devices that were asked for."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase, WhisperFeatureExtractor

from tgsr.models.lalm import ModelError

LoadAs = Literal["checkpoint", "float32", "bfloat16", "4bit"]
Devices = Literal["one", "all"]


@dataclass(frozen=True, slots=True)
class Placement:
    """How a checkpoint's weights are held in memory.

    load_as: "checkpoint" takes them as they were saved; "4bit" holds the decoder's matrices in NF4 by bitsandbytes,
    which needs CUDA, and all else in bfloat16: a base for a LoRA, or to predict with. devices: "one" is the
    first GPU, or the CPU where there is none; "all" spreads the layers over all GPUs (and what does not fit over
    the host's memory), one after the other: for a model that no single one holds.
    """

    load_as: LoadAs = "checkpoint"
    devices: Devices = "one"


AS_SAVED = Placement()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "4bit": torch.bfloat16}


def read_weights(
    model_class: Any, name: str, family: str, placement: Placement = AS_SAVED, *, unquantized: list[str]
) -> Any:
    """The model of `model_class` with all of its weights, frozen, in evaluation mode, where `placement` says.

    `unquantized` names the modules that "4bit" leaves alone. Raises ModelError for a missing or cut-off file, for
    weights that are only there as a pickle (which would run whatever code is in it), and for weights that are missing
    or of another shape: transformers would fill them with random numbers and a warning.
    """
    how: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True}
    if placement.load_as in DTYPES:
        how["dtype"] = DTYPES[placement.load_as]
    if placement.load_as == "4bit":
        how["quantization_config"] = _four_bits(name, unquantized)
        how["device_map"] = {"": 0}
    if placement.devices == "all":
        how["device_map"] = "auto"
    try:
        model, loaded = model_class.from_pretrained(name, **how)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{name}: cannot be loaded as {family}: {error}{_remedy(str(error))}") from error
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"{name}: {len(missing)} of the model's weights are missing, first {missing[0]}; download it again"
        )
    model.requires_grad_(False)
    model.eval()
    return model


def _four_bits(name: str, unquantized: list[str]) -> BitsAndBytesConfig:
    lacks = "CUDA" if not torch.cuda.is_available() else ""
    lacks = lacks or ("" if importlib.util.find_spec("bitsandbytes") else "the package bitsandbytes")
    if lacks:
        raise ModelError(
            f"{name}: --load-as 4bit needs {lacks}; install it (pip install 'tgsr[4bit]', on a machine with a GPU), "
            "or take --load-as bfloat16"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=unquantized,
    )


def _remedy(said: str) -> str:
    if "safetensors" in said and (".bin" in said or "model.safetensors" in said):
        return (
            "; only safetensors are read, a pickle is refused: take a checkpoint that was saved as safetensors, "
            "or convert it where you trust it"
        )
    return "; see that the id or folder is right and download it again"


def check_processor(
    name: str,
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    extractor: WhisperFeatureExtractor,
    audio_token: str,
) -> None:
    """ModelError where tokenizer or feature extractor belong to other weights than `config`'s.

    Each of these would run, and give wrong numbers: another id for the audio's place, tokens without an embedding,
    features of another height.
    """
    token_id = tokenizer.get_vocab().get(audio_token)
    if token_id != config.audio_token_id:
        raise ModelError(
            f"{name}: the tokenizer has {audio_token} as {token_id}, the weights expect {config.audio_token_id}: "
            "they are of different models; take the processor files that came with the weights"
        )
    n_rows, highest = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values())
    if highest >= n_rows:
        raise ModelError(
            f"{name}: the tokenizer has ids up to {highest}, the weights embed {n_rows}: they are of different "
            "models; take the tokenizer that came with the weights"
        )
    n_bins = config.audio_config.num_mel_bins
    if extractor.feature_size != n_bins:
        raise ModelError(
            f"{name}: the feature extractor gives {extractor.feature_size} mel bins, the encoder takes {n_bins}; "
            "take the preprocessor_config.json that came with the weights"
        )
