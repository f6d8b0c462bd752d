"""A decoder's matrices as one token a branch at a time is best multiplied by them.

On a CPU products of a few rows wait for the weights: a float32 matrix is packed once as oneDNN wants it, with its LoRA
in it and those with the same input as one; in int8 it is a quarter as large. Elsewhere, and in narrower types, they
are multiplied by where they stand, the LoRA beside. The model itself is never changed.

Axes: B rows, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from tgsr.errors import ModelError
from tgsr.models.placement import Quantize

Product = Callable[[Tensor], Tensor]  # B x I -> B x O
PACKED_AT_MOST = 8 * 2**30  # bytes of float32 matrices of which a packed copy is made


@dataclass(frozen=True)
class Matrix:
    """A linear layer's weights, O x I, its bias, and the LoRA on it: for each adapter A, B and B's scale."""

    weight: Tensor
    bias: Tensor | None
    lora: tuple[tuple[Tensor, Tensor, float], ...] = ()

    @classmethod
    def of(cls, module: Any) -> Matrix:
        """Of a linear layer, or of PEFT's around one, with the adapters that are active in it now."""
        base = getattr(module, "base_layer", module)
        bias = None if base.bias is None else base.bias.detach()
        lora = tuple((a.detach(), b.detach(), scale) for a, b, scale in loras_of(module))
        return cls(base.weight.detach(), bias, lora)

    def merged(self) -> Tensor:
        """The weights with the LoRA in them, float32."""
        weight = self.weight.float()
        for a, b, scale in self.lora:
            weight = torch.addmm(weight, b.float(), a.float(), alpha=scale)
        return weight


def loras_of(module: Any) -> list[tuple[Tensor, Tensor, float]]:
    """What is added to a linear layer's output now: for each active adapter A, B and B's scale; none once merged."""
    if not hasattr(module, "base_layer") or module.disable_adapters or module.merged:
        return []
    names = [name for name in module.active_adapters if name in module.lora_A]
    return [(module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]) for name in names]


def is_plain(module: Any) -> bool:
    """Whether `Matrix.of` says all that a linear layer, or PEFT's around one, computes."""
    base = getattr(module, "base_layer", module)
    if type(base) is not nn.Linear:
        return False
    biased = [b for b in getattr(module, "lora_B", {}).values() if b.bias is not None]
    return base is module or not (module.lora_variant or biased)


def _stacked(matrices: Sequence[Matrix]) -> tuple[Tensor, Tensor | None]:
    """All merged as one, and their biases, 0 for those without."""
    weight = torch.cat([matrix.merged() for matrix in matrices])
    if all(matrix.bias is None for matrix in matrices):
        return weight, None
    biases = [
        weight.new_zeros(len(m.weight)) if m.bias is None else m.bias.to(weight.dtype) for m in matrices
    ]
    return weight, torch.cat(biases)


def product(
    modules: Sequence[Any], dtype: torch.dtype, *, packed: bool, quantize: Quantize | None = None
) -> Product:
    """x -> all of the layers' outputs side by side, in `dtype`."""
    matrices = [Matrix.of(module) for module in modules]
    if quantize == "int8":
        return _int8(*_stacked(matrices))
    # Of bfloat16 there are packed products only where the processor has AVX-512 for it.
    packs = dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return _packed(*_stacked(matrices), dtype) if packed and packs else _in_place(matrices, dtype)


def _in_place(matrices: Sequence[Matrix], dtype: torch.dtype) -> Product:
    """By the model's own tensors; what is held in another type is rounded once, as autocast rounds it each time."""
    is_rounded = any(matrix.weight.dtype != dtype for matrix in matrices)

    def lora_of(matrix: Matrix) -> list[tuple[Tensor, Tensor, float]]:
        if not is_rounded:  # a LoRA on narrow weights is wider than they are
            return list(matrix.lora)
        return [(a.to(dtype), b.to(dtype), scale) for a, b, scale in matrix.lora]

    held = [(m.weight.to(dtype), None if m.bias is None else m.bias.to(dtype), lora_of(m)) for m in matrices]

    def times(x_BI: Tensor) -> Tensor:
        x_BI = x_BI.to(dtype)
        outs = []
        for weight, bias, lora in held:
            out_BO = linear(x_BI, weight, bias)
            for a, b, scale in lora:
                out_BO = (out_BO + linear(linear(x_BI.to(a.dtype), a), b) * scale).to(dtype)
            outs.append(out_BO)
        return outs[0] if len(outs) == 1 else torch.cat(outs, -1)

    return times


ROWS = 8  # for which oneDNN is asked to lay out the weights; any number can be multiplied by them


def _packed(weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> Product:
    """By oneDNN's layout: as exact as the type, and for 8 rows 1.8 times as fast."""
    weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.to(dtype), ROWS)
    bias = None if bias_O is None else bias_O.to(dtype)

    def times(x_BI: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_BI.to(dtype), weight, bias, "none", [], "")
        return out

    return times


def _int8(weight_OI: Tensor, bias_O: Tensor | None) -> Product:
    """Weights rounded to 255 steps an output, inputs to 255 steps a row, sums exact: no row depends on another."""
    scale_O1 = (weight_OI.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    weight_IO = (weight_OI / scale_O1).round_().to(torch.int8).t()
    scale_O = scale_O1[:, 0]

    def times(x_BI: Tensor) -> Tensor:
        x_BI = x_BI.float()
        scale_B1 = (x_BI.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        steps_BI = (x_BI / scale_B1).round_().to(torch.int8)
        out_BO = torch._int_mm(steps_BI, weight_IO) * scale_B1 * scale_O
        return out_BO if bias_O is None else out_BO + bias_O

    return times


def require_int8(device: torch.device, name: str) -> None:
    """ModelError where int8 products are not to be had: off the CPU, and where a processor's sums overflow.

    Processors without such instructions add pairs up in 16 bits, which the largest numbers do not fit into.
    """
    if device.type != "cpu":
        raise ModelError(
            f"{name}: int8 is for sampling on a CPU, the model is on {device}; leave --quantize out"
        )
    largest = torch.full((8, 64), 127, dtype=torch.int8)
    if int(torch._int_mm(largest, largest.t()).min()) != 64 * 127**2:
        raise ModelError(
            f"{name}: this processor's int8 products overflow (no VNNI instructions); leave --quantize out"
        )


def is_packed(device: torch.device, dtype: torch.dtype, n_weights: int) -> bool:
    """Whether matrices that are held in `dtype` are multiplied by from a packed copy.

    Where it pays: on a CPU in float32; and where the copy is no larger than PACKED_AT_MOST.
    """
    pays = device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return pays and 4 * n_weights <= PACKED_AT_MOST
