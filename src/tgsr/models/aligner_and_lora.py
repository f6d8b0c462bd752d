"""What trains: the aligner in stage 1 (table 5), a LoRA on the language model in stage 2 (table 6).

The aligner is `lalm.aligner`: the multi_modal_projector of the Flamingos, Qwen2-Audio and Voxtral, what an Omni's
audio_tower projects with, and Whisper's own. A table of all parts, and which of them train, is printed before training,
so that a surprise costs nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from tgsr.errors import ModelError
from tgsr.models.lalm import Lalm, n_spread

VISION = re.compile(r"\.(visual|vision_tower|embed_vision|image_embed)\.")  # in names of what is for pictures
BLOCKS = ("audio tower", "aligner", "language model", "head", "LoRA", "vision tower")
# A mixture's parameters that may have a LoRA besides attention: all experts of a layer are one tensor, the router one.
IN_MIXTURE = {
    "experts": r".*language_model\.layers\.\d+\.mlp\.experts\.(gate_up|down)_proj",
    "router": r".*language_model\.layers\.\d+\.mlp\.gate\.weight",
}
ON_TOP = "on_top"  # the name of a second LoRA


def with_lora(
    lalm: Lalm, rank: int, alpha: int, seed: int, mixture: Sequence[str] = (), *, on_top: bool = False
) -> None:
    """A fresh LoRA on the language model's layers and nowhere else (table 6); everything else is frozen.

    `mixture` names the keys of IN_MIXTURE that get one too; an expert's has the rank. `on_top`: of the LoRA that the
    model came with, which stays as it is, as a part of the model; nothing saves the two as one. Raises ModelError for a
    model that has a LoRA otherwise, and for `mixture` where there are no experts.
    """
    has_one = hasattr(lalm.model, "peft_config")
    if has_one and not on_top:
        raise ModelError(
            f"{lalm.name}: has a LoRA already; train from the model that it was made of, or from what `tgsr merge` "
            "makes of it"
        )
    torch.manual_seed(seed)
    lalm.inner.requires_grad_(False)
    parameters = [
        name.removeprefix("model.")
        for name, _ in lalm.inner.named_parameters()
        if any(re.fullmatch(IN_MIXTURE[part], name) for part in mixture)
    ]
    if mixture and not parameters:
        flags = " ".join(f"--lora-{part}" for part in mixture)
        raise ModelError(f"{lalm.name}: is no mixture of experts; leave {flags} out")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=lalm.lora_targets,
        exclude_modules=lalm.lora_excludes,
        target_parameters=parameters or None,
    )
    with without_renaming_warning():
        if has_one:
            under = lalm.model.active_adapters
            lalm.model.add_adapter(ON_TOP, config)
            lalm.model.base_model.set_adapter([*under, ON_TOP])
            for name, weight in lalm.model.named_parameters():
                weight.requires_grad_(f".{ON_TOP}." in name)
        else:
            lalm.model = get_peft_model(lalm.inner, config)
    lalm.model.eval()


def without_top(lalm: Lalm) -> None:
    """Takes the LoRA on top of another away again; nothing where there is none."""
    if ON_TOP in getattr(lalm.model, "peft_config", ()):
        under = [name for name in lalm.model.active_adapters if name != ON_TOP]
        lalm.model.delete_adapter(ON_TOP)
        lalm.model.base_model.set_adapter(under, inference_mode=True)


@contextmanager
def lora_off(lalm: Lalm) -> Iterator[None]:
    """The model without its LoRA, or the one on top: stage 2's reference policy, with no second copy in memory."""
    if ON_TOP not in lalm.model.peft_config:
        with lalm.model.disable_adapter():
            yield
        return
    layers = [m for m in lalm.model.modules() if isinstance(m, LoraLayer) and ON_TOP in m.scaling]
    scales = [layer.scaling[ON_TOP] for layer in layers]
    try:
        for layer in layers:
            layer.scaling[ON_TOP] = 0.0
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ON_TOP] = scale


def merge_lora(lalm: Lalm) -> None:
    """The model's LoRA, where it has one, into its matrices, in place.

    A matrix is added up in float32 and kept in its own type: PEFT would add in the base's, which loses more than
    rounding at the end. Raises ModelError for a base in 4 bits, which would be merged into rounded matrices, for
    layers that wait in the host's memory, LoRA or none, and for a LoRA on a head that is the embedding's matrix, which
    would be changed with it.
    """
    if getattr(lalm.inner, "is_quantized", False):
        raise ModelError(
            f"{lalm.name}: its base is held in 4 bits; merge with --load-as checkpoint or bfloat16"
        )
    if waiting := n_spread(lalm)[1]:
        raise ModelError(
            f"{lalm.name}: {waiting} of its layers wait in the host's memory; merge with --devices one, on a machine "
            "whose memory holds it (CUDA_VISIBLE_DEVICES= for the CPU's)"
        )
    head: Any = getattr(lalm.lm_head, "linear", lalm.lm_head)
    if hasattr(head, "lora_A") and lalm.ties_head:
        raise ModelError(
            f"{lalm.name}: its LoRA is on the head, whose matrix is the embedding's, too (tie_word_embeddings): merged "
            "it would be another model; take the adapter as it is (--model), or untie the base and train it again"
        )
    if hasattr(lalm.model, "merge_and_unload"):
        _add_up(lalm.model)
        with without_renaming_warning():
            lalm.model = lalm.model.merge_and_unload()


@torch.no_grad()
def _add_up(model: Any) -> None:
    for module in model.modules():
        if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer"):
            is_mixture = hasattr(module, "get_param")  # a LoRA on a parameter, not on a linear layer
            weight = module.get_param() if is_mixture else module.base_layer.weight
            for adapter in module.active_adapters:
                delta = module.get_delta_weight(adapter).float()
                weight.copy_((weight.float() + delta).to(weight.dtype))
                module.lora_B[adapter].weight.zero_()  # it is in the matrix now


@contextmanager
def without_renaming_warning() -> Iterator[None]:
    """Silence about PEFT 0.21's old names of checkpointing, which transformers 5.23 renames; a user can do nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
        yield


# --- which parameters train ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A block of a model: how many parameters it has, how many of them train, and the modules that hold these.

    Modules are named as the model names them, with numbers of layers written as *, in order of appearance.
    """

    block: str
    n: int
    n_trained: int
    trained: tuple[str, ...]


def parts_of(lalm: Lalm) -> list[ModelPart]:
    """All of the model's blocks that have parameters, in the order of BLOCKS. A tied head is counted once."""
    # The later within the earlier: a decoder may hold the tower, and a tower the aligner.
    within = {"language model": lalm.language_model, "audio tower": lalm.audio_tower, "aligner": lalm.aligner}
    block_of = {id(weight): block for block, module in within.items() for weight in module.parameters()}
    if lalm.clock is not None:
        block_of |= {id(weight): "aligner" for weight in lalm.clock.parameters()}
    for weight in lalm.lm_head.parameters():
        block_of.setdefault(id(weight), "head")
    n = dict.fromkeys(BLOCKS, 0)
    n_trained = dict.fromkeys(BLOCKS, 0)
    trained: dict[str, dict[str, None]] = {block: {} for block in BLOCKS}
    for name, weight in lalm.model.named_parameters():
        module, is_lora, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if is_lora:
            block = "LoRA"
        else:
            module = module.rpartition(".")[0]
            block = "vision tower" if VISION.search(name) else block_of.get(id(weight), "audio tower")
        n[block] += size(weight)
        if weight.requires_grad:
            n_trained[block] += size(weight)
            pieces = ("*" if piece.isdigit() else piece for piece in module.split("."))
            trained[block][".".join(pieces)] = None
    return [
        ModelPart(block, n[block], n_trained[block], tuple(trained[block])) for block in BLOCKS if n[block]
    ]


def size(weight: Tensor) -> int:
    """How many numbers a parameter has; one in 4 bits is stored two to a byte."""
    state = getattr(weight, "quant_state", None)
    return int(state.shape.numel()) if state is not None else weight.numel()


def parts_table(lalm: Lalm) -> str:
    """parts_of as lines of text, modules of one parent as parent.{a, b}."""
    parts = parts_of(lalm)
    lines = [f"{'block':16}{'parameters':>16}{'train':>16}  in"]
    for part in parts:
        names: dict[str, list[str]] = {}
        for module in part.trained:
            parent, _, name = module.rpartition(".")
            names.setdefault(parent, []).append(name)
        modules = ", ".join(
            f"{parent}.{{{', '.join(of_parent)}}}" if len(of_parent) > 1 else f"{parent}.{of_parent[0]}"
            for parent, of_parent in names.items()
        )
        lines.append(f"{part.block:16}{part.n:>16,}{part.n_trained:>16,}  {modules}".rstrip())
    n, n_trained = sum(part.n for part in parts), sum(part.n_trained for part in parts)
    lines.append(f"{'all':16}{n:>16,}{n_trained:>16,}  {n_trained / n:.3%}")
    return "\n".join(lines)
