"""Where a model's weights go: how they are held, and on which devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

LoadAs = Literal["checkpoint", "float32", "bfloat16", "4bit"]
Devices = Literal["one", "all"]
Quantize = Literal["int8"]  # of the matrices that responses are drawn by


@dataclass(frozen=True, slots=True)
class Placement:
    """How a checkpoint's weights are held in memory.

    load_as: "checkpoint" takes them as they were saved; "4bit" holds the decoder's matrices in NF4 by bitsandbytes,
    which needs CUDA, and all else in bfloat16: a base for a LoRA, or to predict with. devices: "one" is the
    first GPU, or the CPU where there is none; "all" spreads the decoder's layers over all GPUs, one after the other,
    for a model that no single one holds; layers that do not fit wait in the host's memory, slow and not to train.
    """

    load_as: Annotated[LoadAs, "how a checkpoint's weights are held; 4bit needs CUDA and bitsandbytes"] = (
        "checkpoint"
    )
    devices: Annotated[Devices, "all: layers spread over all GPUs"] = "one"


AS_SAVED = Placement()
