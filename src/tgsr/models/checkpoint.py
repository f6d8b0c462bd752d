"""A checkpoint in the hub's layout: read whole or refused, in the width and on the devices that were asked for."""

from __future__ import annotations

import importlib.util
import logging
import re
from bisect import bisect
from collections.abc import Collection, Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import CustomDtype, compute_module_sizes
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    WhisperFeatureExtractor,
)
from transformers import __version__ as transformers_version

from tgsr.errors import ModelError, install
from tgsr.models.placement import AS_SAVED, Placement

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "4bit": torch.bfloat16}
LAYERS = "model.language_model.layers"  # where most families have the decoder's layers
PROJECTED = ["model.audio_tower", "model.multi_modal_projector", "lm_head"]  # what 4 bits leave alone there
# Of a folder where no adapter is: one that lies beside the weights transformers would load by itself, and then say what
# is missing of the adapter, not of the model.
NO_ADAPTER = {"subfolder": "no-adapter"}
FILLED = 0.85  # of a GPU's free memory, by weights; the rest is for what a step keeps
HOST = "cpu"
MERGED_FILE = "merged.json"  # beside what `tgsr merge` has written
CHANGES_NOTHING = {
    *("model_type", "auto_map", "quantization_config", "model_max_length", "initializer_range", "init_std"),
    *("torchscript", "use_bfloat16", "tf_legacy_loss", "pruned_heads", "tie_encoder_decoder", "use_cache"),
    *("is_decoder", "add_cross_attention", "cross_attention_hidden_size", "tie_word_embeddings", "prefix"),
    *("finetuning_task", "task_specific_params", "tokenizer_class", "encoder_layerdrop", "ignore_index"),
    *("forced_decoder_ids", "vocab_size", "head_dim", "num_key_value_heads", "use_qk_norm"),
    *("shared_expert_intermediate_size", "seconds_per_chunk", "vocab_size_per_layer_input"),
}
SWITCHES = ("use_", "enable_", "hidden_size_per_layer_input")  # off where they are 0 or false
NOT_HEARD = re.compile(r"vision_.+|.+_token_id")
"""Fields that stand in published configs whose class has none of them: what transformers 4 wrote into each, what is for
training from nothing, what something else reads, what the weights' names and shapes say, too; and what is about
pictures, and ids that the tokenizer has."""

log = logging.getLogger(__name__)


def unknown_fields(config: PreTrainedConfig, within: str = "") -> dict[str, Any]:
    """The fields of a config.json that its class does not know, by their names there (text_config.NAME), with values.

    transformers keeps them as attributes and computes without them. null, 0 and false of what SWITCHES names, and what
    CHANGES_NOTHING and NOT_HEARD name is left out.
    """
    given = {
        key: value
        for key, value in vars(config).items()
        if value is not None and key[0] != "_" and not NOT_HEARD.fullmatch(key)
        if value or not key.startswith(SWITCHES)
        if (key, value) != ("position_embedding_type", "absolute")  # the Q-Former's, which knows no other
    }
    extra = given.keys() - {field.name for field in fields(config)} - CHANGES_NOTHING
    if extra:
        extra -= vars(type(config)()).keys()  # which a class sets beside its fields
    unknown = {f"{within}{key}": given[key] for key in sorted(extra)}
    for key, value in given.items():
        if isinstance(value, PreTrainedConfig):
            unknown |= unknown_fields(value, f"{within}{key}.")
    return unknown


def name_unknown_fields(name: str, config: PreTrainedConfig) -> None:
    """A warning with the checkpoint's fields that this version of its class computes without."""
    if unknown := unknown_fields(config):
        named = ", ".join(f"{key} = {str(value)[:40]}" for key, value in unknown.items())
        log.warning(
            "%s: config.json has what transformers %s does not know for a %s and computes without: %s; "
            "if the model needs it, take the version of transformers that its card names",
            *(name, transformers_version, config.model_type, named),
        )


def unknown_value(name: str, error: KeyError) -> ModelError:
    """The error for a model that cannot be made because its config.json names what there is none of."""
    return ModelError(
        f"{name}: config.json says {error}, which transformers {transformers_version} does not know; take the "
        "config.json that came with the weights, or the version of transformers that the model's card names"
    )


def read_weights(
    model_class: Any,
    name: str,
    family: str,
    placement: Placement = AS_SAVED,
    *,
    unquantized: list[str],
    layers: str | None = LAYERS,
    **settings: Any,
) -> Any:
    """The model of `model_class` with all of its weights, frozen, in evaluation mode, where `placement` says.

    `settings` are of its config.json, to be others than they are there, and what else from_pretrained takes.

    `unquantized` names the modules that "4bit" leaves alone; `layers` those that `devices="all"` may spread, None for
    accelerate's choice. Raises ModelError for a missing or cut-off file, for a missing package, for
    weights that are only there as a pickle (which would run whatever code is in it), and for weights that are missing
    or of another shape: transformers would fill them with random numbers and a warning.
    """
    options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True, **settings}
    if placement.load_as in DTYPES:
        options["dtype"] = DTYPES[placement.load_as]
    if placement.load_as == "4bit":
        options["quantization_config"] = _four_bits(name, unquantized)
        options["device_map"] = {"": 0}
    try:
        if placement.devices == "all":
            options["device_map"] = (
                "auto" if layers is None else _device_map(model_class, name, placement, layers)
            )
        model, loaded = model_class.from_pretrained(name, **options)
    except KeyError as error:  # an activation, a type of rotary embeddings
        raise unknown_value(name, error) from error
    except ImportError as error:  # what a part of the class is built with, as Gemma 3n's pictures
        raise ModelError(
            f"{name}: a part of {family} needs a package that is not installed: {' '.join(str(error).split())} Or "
            "serve the model with vLLM and name it http://HOST:PORT/v1#MODEL"
        ) from error
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        remedy = "see that the id or folder is right and download it again"
        if "safetensors" in str(error) and (".bin" in str(error) or "model.safetensors" in str(error)):
            remedy = (
                "only safetensors are read, a pickle is refused: take a checkpoint that was saved as safetensors, "
                "or convert it where you trust it"
            )
        raise ModelError(f"{name}: cannot be loaded as {family}: {error}; {remedy}") from error
    if missing := sorted(loaded["missing_keys"]):
        raise ModelError(
            f"{name}: {len(missing)} of the model's weights are missing, first {missing[0]}; download it again"
        )
    model.requires_grad_(False)
    model.eval()
    return model


def spread(sizes_L: Sequence[int], rest: int, free_D: Sequence[int]) -> list[int | str]:
    """Which GPU holds each of L layers, in order: each GPU as many bytes as its part of all the free ones.

    GPU 0 holds `rest` bytes too. FILLED of free_D is used. Where all layers do not fit, the GPUs are filled in order
    and the last layers are HOST's.
    """
    room_D = [max(0.0, FILLED * free - (rest if gpu == 0 else 0)) for gpu, free in enumerate(free_D)]
    if not room_D:
        return [HOST] * len(sizes_L)
    ends_D = [part * sum(sizes_L) / max(1.0, sum(room_D)) for part in accumulate(room_D)]
    before, held_D = 0.0, [0.0] * len(room_D)
    places: list[int | str] = []
    for size in sizes_L:
        gpu = bisect(ends_D[:-1], before + size / 2)
        places.append(gpu)
        held_D[gpu] += size
        before += size
    if all(held <= room for held, room in zip(held_D, room_D, strict=True)):
        return places
    places, gpu = [], 0
    for size in sizes_L:
        while gpu < len(room_D) and size > room_D[gpu]:
            gpu += 1
        places.append(gpu if gpu < len(room_D) else HOST)
        if gpu < len(room_D):
            room_D[gpu] -= size
    return places


def _device_map(model_class: Any, name: str, placement: Placement, layers: str) -> dict[str, int | str]:
    """`spread` by module: all but the decoder's layers stays on the first GPU, where what enters and leaves them is.

    accelerate's own maps put the head on the last one and may leave the aligner in the host's memory.
    """
    config = model_class.config_class.from_pretrained(name)
    with init_empty_weights():
        model = model_class(config)
    dtype = DTYPES.get(placement.load_as, config.dtype or torch.float32)
    sizes = layer_sizes = compute_module_sizes(model, dtype=dtype)
    if placement.load_as == "4bit":
        layer_sizes = compute_module_sizes(model, dtype=CustomDtype.INT4)
    names = [f"{layers}.{index}" for index in range(len(model.get_submodule(layers)))]
    n_gpus = torch.cuda.device_count()
    free_D = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(n_gpus)]
    places = spread([layer_sizes[layer] for layer in names], sizes[""] - sizes[layers], free_D)
    first: int | str = 0 if n_gpus else HOST
    steps = layers.split(".")
    above = {".".join(steps[:n]) for n in range(len(steps) + 1)}
    parts = [part for part, _ in model.named_modules()]
    inside = [part for part in parts if part not in above and part.rpartition(".")[0] in above]
    return dict.fromkeys(inside, first) | dict(zip(names, places, strict=True))


def _four_bits(name: str, unquantized: list[str]) -> BitsAndBytesConfig:
    lacks = None
    if not torch.cuda.is_available():
        lacks = "CUDA: run it on a machine with a GPU"
    elif importlib.util.find_spec("bitsandbytes") is None:
        lacks = f"bitsandbytes, {install('4bit')}"
    if lacks:
        raise ModelError(f"{name}: --load-as 4bit needs {lacks}; or take --load-as bfloat16")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=unquantized,
    )


def check_type(name: str, family: str, model_types: Collection[str]) -> str:
    """A checkpoint's model type. ModelError for one that is not of `model_types`, and where there is no config.json."""
    try:
        model_type = str(AutoConfig.from_pretrained(name).model_type)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: cannot be loaded as {family}: {error}") from error
    if model_type not in model_types:
        raise ModelError(f"{name}: is of type {model_type}, not one of {', '.join(model_types)}")
    return model_type


def read_processor(
    name: str, family: str, processor_class: Any = None, extractor_class: Any = WhisperFeatureExtractor
) -> tuple[PreTrainedTokenizerBase, Any, dict[str, Any]]:
    """A checkpoint's tokenizer, its feature extractor, and what its processor's files say.

    The chat template is the processor's, as in official processors; where it has none, the tokenizer's. A
    `processor_class` is one that brings a template for checkpoints without, whose tokenizer's knows no audio. Raises
    ModelError for a missing or unreadable file, and where there is no chat template.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        extractor = extractor_class.from_pretrained(name)
        about = ProcessorMixin.get_processor_dict(name)[0]
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: cannot be loaded as {family}: {error}") from error
    template = about.get("chat_template")
    if processor_class is not None:
        template = processor_class(extractor, tokenizer, chat_template=template).chat_template
    tokenizer.chat_template = template or tokenizer.chat_template
    if not tokenizer.chat_template:
        raise ModelError(f"{name}: no chat template (chat_template.json or .jinja); download it again")
    return tokenizer, extractor, about


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
    check_token(name, tokenizer, audio_token, config.audio_token_id)
    check_sizes(name, config, tokenizer, extractor)


def check_token(name: str, tokenizer: PreTrainedTokenizerBase, token: str, expected: int) -> None:
    """ModelError where the tokenizer has the token under another id than the weights' config, or not at all."""
    token_id = tokenizer.get_vocab().get(token)
    if token_id != expected:
        raise ModelError(
            f"{name}: the tokenizer has {token} as {token_id}, the weights expect {expected}: "
            "they are of different models; take the processor files that came with the weights"
        )


def check_sizes(name: str, config: Any, tokenizer: Any, extractor: Any) -> None:
    """ModelError for mel bins or tokens that the weights do not know; for any class that transformers has."""
    n_bins = getattr(getattr(config, "audio_config", config), "num_mel_bins", None)
    if n_bins is not None and getattr(extractor, "feature_size", n_bins) != n_bins:
        raise ModelError(
            f"{name}: the feature extractor gives {extractor.feature_size} mel bins, the encoder takes {n_bins}; "
            "take the preprocessor_config.json that came with the weights"
        )
    n_rows, highest = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values())
    if highest >= n_rows:
        raise ModelError(
            f"{name}: the tokenizer has ids up to {highest}, the weights embed {n_rows}: they are of different "
            "models; take the tokenizer that came with the weights"
        )
