"""A decoder's layers with less kept for the backward pass and less computed: the same numbers.

A frozen decoder with a LoRA needs little of its forward pass: the inputs of its norms and of its LoRAs, gate and up of
its feed-forwards. The rest is computed again in the backward pass, some rows at a time, so that it stays in the
processor's cache. Of the last layer only those rows are computed from which something is predicted.

What is replaced is found by a module's parts and by what trains in it, not by its class; all else computes as its own
class does.

Axes: N tokens of the row, M some of them, D model width, F a feed-forward's width, I and O a matrix', R a LoRA's rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from tgsr.engine.branch_attention import NAME, BranchLayout, attention_as
from tgsr.engine.matrices import is_plain, loras_of

# float32 numbers that are computed together on a CPU: few stay in a core's cache, and products of few rows are slow
IN_NORM, IN_FEED_FORWARD = 2**18, 2**20

Forward = Callable[..., Any]


@contextmanager
def lean(language_model: Any) -> Iterator[None]:
    """Within it the decoder computes attention over branches, and keeps and computes no more than it has to.

    Both passes belong into it where layers are checkpointed.
    """
    with ExitStack() as stack:
        stack.enter_context(attention_as(language_model, NAME))
        last = language_model.layers[-1]
        if _is_plain(last) and _is_its_own(last):
            stack.enter_context(_computed_by(last, partial(_last_layer, last)))
        for module in language_model.modules():
            if (forward := _lean_forward(module)) is not None and _is_its_own(module):
                stack.enter_context(_computed_by(module, forward))
        yield


@contextmanager
def keys_alone(language_model: Any) -> Iterator[None]:
    """Within it the last layer's feed-forward is left out, where only keys and values are asked for."""
    last = language_model.layers[-1]
    with ExitStack() as stack:
        if _is_plain(last) and _is_its_own(last):
            stack.enter_context(_computed_by(last.mlp, lambda x: x))
        yield


@contextmanager
def _computed_by(module: nn.Module, forward: Forward) -> Iterator[None]:
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _is_its_own(module: nn.Module) -> bool:
    """Whether nobody else computes it or a part of it: weights that wait in the host's memory come by such hooks."""
    return not any("forward" in vars(part) for part in module.modules())


def _lean_forward(module: nn.Module) -> Forward | None:
    if isinstance(module, LoraLinear):
        return partial(_lora_linear, module)
    if {name for name, _ in module.named_children()} == GATED_PARTS:
        return partial(_gated, module)
    if type(module).__name__.endswith("Norm") and not _trains(module):
        return partial(_row_by_row, module.forward)
    return None


def _trains(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())


def _rows_at_once(x: Tensor, width: int, numbers: int) -> list[slice]:
    """Rows of x, N x ..., that are computed together, `width` numbers each and about `numbers` in all: on a GPU all."""
    n = max(64, numbers // width) if x.device.type == "cpu" else max(1, len(x))
    return [slice(first, first + n) for first in range(0, len(x), n)]


# --- norms --------------------------------------------------------------------------------------------------


class _RowByRow(torch.autograd.Function):
    """A function of each token alone, 1 x N x ..., of which only the input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Forward) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function = function
        return _in_pieces(function, x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,), (grad,) = ctx.saved_tensors, grads
        grad_x = torch.empty_like(x)
        for some in _rows_at_once(x[0], x[0, 0].numel(), IN_NORM):
            with torch.enable_grad():
                leaf = x[:, some].detach().requires_grad_()
                out = ctx.function(leaf)
            (grad_x[:, some],) = torch.autograd.grad(out, leaf, grad[:, some])
        return grad_x, None


def _in_pieces(function: Forward, x: Tensor) -> Tensor:
    return torch.cat([function(x[:, some]) for some in _rows_at_once(x[0], x[0, 0].numel(), IN_NORM)], 1)


def _row_by_row(function: Forward, x: Tensor, *args: Any, **more: Any) -> Any:
    if x.ndim < 3 or len(x) != 1 or args or more:
        return function(x, *args, **more)
    return _RowByRow.apply(x, function) if _keeps(x) else _in_pieces(function, x)


def _keeps(*tensors: Tensor | None) -> bool:
    """Whether a backward pass will come by."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


# --- matrices, with and without a LoRA ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A frozen linear layer, weight O x I, and the LoRA on it, if there is one: a R x I, b O x R."""

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None
    b: Tensor | None
    scale: float

    @staticmethod
    def of(tensors: Sequence[Any], scale: float) -> _Matrix:
        weight, bias, a, b = tensors
        return _Matrix(weight, bias, a, b, scale)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.weight, self.bias, self.a, self.b

    def cast(self, dtype: torch.dtype) -> _Matrix:
        there: list[Any] = [None if t is None else t.detach().to(dtype) for t in self.tensors]
        return _Matrix.of(there, self.scale)

    def product(self, x_MI: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The layer's output, M x O, and what the LoRA makes of x on its way, M x R (R is 0 without one)."""
        weight_IO = self.weight.t()
        if self.bias is None:
            y_MO = torch.mm(x_MI, weight_IO, out=out)
        else:
            y_MO = torch.addmm(self.bias, x_MI, weight_IO, out=out)
        if self.a is None or self.b is None:
            return y_MO, x_MI[:, :0]
        low_MR = x_MI @ self.a.t()
        return y_MO.addmm_(low_MR, self.b.t(), alpha=self.scale), low_MR

    def backward(
        self,
        grad_MO: Tensor,
        x_MI: Tensor | None,
        low_MR: Tensor,
        sums: tuple[Tensor, Tensor] | None,
        out: Tensor | None,
        *,
        add: bool = False,
    ) -> None:
        """Writes the input's gradient, M x I, to `out`, if any, or adds it; those of a and b are added to `sums`."""
        if out is not None and add:
            out.addmm_(grad_MO, self.weight)
        elif out is not None:
            torch.mm(grad_MO, self.weight, out=out)
        if self.a is None or self.b is None:
            return
        grad_MR = (grad_MO @ self.b).mul_(self.scale)
        if out is not None:
            out.addmm_(grad_MR, self.a)
        if sums is not None and x_MI is not None:
            sums[0].add_(grad_MR.t() @ x_MI)
            sums[1].add_(grad_MO.t() @ low_MR, alpha=self.scale)


def _matrix_of(module: Any, x: Tensor) -> _Matrix | None:
    """The module's frozen matrix with the one LoRA that is on; None for anything else, or types that mix."""
    base: Any = getattr(module, "base_layer", module)
    if not is_plain(module) or _trains(base):
        return None
    loras = loras_of(module)
    dropouts = getattr(module, "lora_dropout", {}).values() if module.training and loras else ()
    if len(loras) > 1 or not all(isinstance(dropout, nn.Identity) for dropout in dropouts):
        return None
    a, b, scale = loras[0] if loras else (None, None, 1.0)
    matrix = _Matrix(base.weight, base.bias, a, b, scale)
    same = all(t is None or t.dtype == x.dtype for t in matrix.tensors)
    return matrix if same or torch.is_autocast_enabled(x.device.type) else None


def _dtype_of(x: Tensor) -> torch.dtype:
    """What products of x are computed in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _sums(wanted: bool, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Where the gradients of a LoRA are added up: in float32, whatever products are computed in."""
    if a is None or b is None or not wanted:
        return None
    return torch.zeros_like(a, dtype=torch.float32), torch.zeros_like(b, dtype=torch.float32)


def _summed(
    sums: tuple[Tensor, Tensor] | None, a: Tensor | None, b: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients of weight, bias, a and b."""
    if sums is None or a is None or b is None:
        return None, None, None, None
    return None, None, sums[0].to(a.dtype), sums[1].to(b.dtype)


class _LoraLinear(torch.autograd.Function):
    """A linear layer with its LoRA: one output for both products, and only the input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, scale: float, *tensors: Any) -> Tensor:
        x_NI = x.detach().to(dtype).flatten(0, -2)
        with torch.autocast(x.device.type, enabled=False):
            y_NO, low_NR = _Matrix.of(tensors, scale).cast(dtype).product(x_NI)
        ctx.save_for_backward(x_NI, low_NR, *tensors)
        ctx.scale, ctx.shape, ctx.of_x = scale, x.shape, x.dtype
        return y_NO.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x_NI, low_NR, *tensors = ctx.saved_tensors
        sums = _sums(ctx.needs_input_grad[5], *tensors[2:])
        grad_x = torch.empty_like(x_NI) if ctx.needs_input_grad[0] else None
        with torch.autocast(x_NI.device.type, enabled=False):
            matrix = _Matrix.of(tensors, ctx.scale).cast(x_NI.dtype)
            matrix.backward(grads[0].to(x_NI.dtype).flatten(0, -2), x_NI, low_NR, sums, grad_x)
        of_x = None if grad_x is None else grad_x.view(ctx.shape).to(ctx.of_x)
        return of_x, None, None, *_summed(sums, *tensors[2:])


def _lora_linear(module: Any, x: Tensor, *args: Any, **more: Any) -> Any:
    matrix = None if args or more else _matrix_of(module, x)
    if matrix is None or matrix.a is None:
        return type(module).forward(module, x, *args, **more)
    return _LoraLinear.apply(x, _dtype_of(x), matrix.scale, *matrix.tensors)


# --- gated feed-forwards ------------------------------------------------------------------------------------

GATED_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
OF_LORAS = (6, 10, 14)  # where gate's, up's and down's a stand among the arguments of the function below


class _Gated(torch.autograd.Function):
    """down(act(gate(x)) * up(x)): x, gate and up are kept, what follows is computed again."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dtype: torch.dtype, act: Forward, scales: Sequence[float], *tensors: Any
    ) -> Tensor:
        x_ND = x.detach().to(dtype).flatten(0, -2)
        n, width = len(x_ND), len(tensors[0])
        with torch.autocast(x.device.type, enabled=False):
            gate, up, down = (m.cast(dtype) for m in _three(scales, tensors))
            gate_NF, up_NF = x_ND.new_empty(n, width), x_ND.new_empty(n, width)
            out_ND = x_ND.new_empty(n, len(down.weight))
            low: list[list[Tensor]] = [[], [], []]
            for some in _rows_at_once(x_ND, width, IN_FEED_FORWARD):
                low[0].append(gate.product(x_ND[some], gate_NF[some])[1])
                low[1].append(up.product(x_ND[some], up_NF[some])[1])
                low[2].append(down.product(act(gate_NF[some]) * up_NF[some], out_ND[some])[1])
        low_NR = [torch.cat(of_matrix) for of_matrix in low]
        x_kept = x_ND if any(ctx.needs_input_grad[i] for i in OF_LORAS) else None
        ctx.save_for_backward(x_kept, gate_NF, up_NF, *low_NR, *tensors)
        ctx.act, ctx.scales, ctx.shape, ctx.of_x = act, scales, x.shape, x.dtype
        return out_ND.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x_ND, gate_NF, up_NF, low_gate, low_up, low_down, *tensors = ctx.saved_tensors
        grad_ND = grads[0].to(gate_NF.dtype).flatten(0, -2)
        grad_x = gate_NF.new_empty(ctx.shape).flatten(0, -2)
        of_loras = [tensors[first : first + 2] for first in (2, 6, 10)]
        sums = [_sums(ctx.needs_input_grad[i], *ab) for ab, i in zip(of_loras, OF_LORAS, strict=True)]
        with torch.autocast(gate_NF.device.type, enabled=False):
            gate, up, down = (m.cast(gate_NF.dtype) for m in _three(ctx.scales, tensors))
            for some in _rows_at_once(gate_NF, gate_NF.shape[1], IN_FEED_FORWARD):
                x_MD = None if x_ND is None else x_ND[some]
                gate_MF, up_MF = (kept[some].detach().requires_grad_() for kept in (gate_NF, up_NF))
                with torch.enable_grad():
                    gated_MF = ctx.act(gate_MF) * up_MF
                grad_MF = torch.empty_like(gated_MF)
                down.backward(grad_ND[some], gated_MF.detach(), low_down[some], sums[2], grad_MF)
                of_gate, of_up = torch.autograd.grad(gated_MF, (gate_MF, up_MF), grad_MF)
                gate.backward(of_gate, x_MD, low_gate[some], sums[0], grad_x[some])
                up.backward(of_up, x_MD, low_up[some], sums[1], grad_x[some], add=True)
        of_tensors = [g for pair, s in zip(of_loras, sums, strict=True) for g in _summed(s, *pair)]
        return grad_x.view(ctx.shape).to(ctx.of_x), None, None, None, *of_tensors


def _three(scales: Sequence[float], tensors: Sequence[Any]) -> list[_Matrix]:
    return [_Matrix.of(tensors[4 * i : 4 * i + 4], scale) for i, scale in enumerate(scales)]


def _gated(module: Any, x: Tensor) -> Any:
    matrices = [_matrix_of(part, x) for part in (module.gate_proj, module.up_proj, module.down_proj)]
    known = [m for m in matrices if m is not None]
    if len(known) < len(matrices):
        return type(module).forward(module, x)
    tensors = [t for m in known for t in m.tensors]
    if _keeps(x, *tensors):
        return _Gated.apply(x, _dtype_of(x), module.act_fn, tuple(m.scale for m in known), *tensors)
    x_ND = x.to(_dtype_of(x)).flatten(0, -2)
    with torch.autocast(x.device.type, enabled=False):
        gate, up, down = (m.cast(x_ND.dtype) for m in known)
        out = [
            down.product(module.act_fn(gate.product(x_ND[some])[0]) * up.product(x_ND[some])[0])[0]
            for some in _rows_at_once(x_ND, len(gate.weight), IN_FEED_FORWARD)
        ]
    return torch.cat(out).unflatten(0, x.shape[:-1])


# --- the last layer -----------------------------------------------------------------------------------------

LAST_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is attention and a feed-forward, each after its norm, and queries have a matrix of their own."""
    attention = getattr(layer, "self_attn", None)
    has_matrices = hasattr(attention, "q_proj") and hasattr(attention, "o_proj")
    return has_matrices and {name for name, _ in layer.named_children()} == LAST_PARTS


def _last_layer(layer: Any, hidden_states: Tensor, *args: Any, branches: BranchLayout, **more: Any) -> Any:
    """The layer's output at the places that are asked, 1 x M x D: the others are only keys and values there.

    A checkpointed layer is computed whole: it would be computed again as its class does.
    """
    official, asking = type(layer).forward, branches.last
    if asking is None or asking.asked_M is None or (layer.training and layer.gradient_checkpointing):
        return official(layer, hidden_states, *args, branches=branches, **more)
    places_M, attention = asking.asked_M.to(hidden_states.device), layer.self_attn

    def asked(x: Tensor) -> Tensor:
        return x[0].index_select(0, places_M)[None]

    whole_norm, into_query, out_of = (
        layer.input_layernorm.forward,
        attention.q_proj.forward,
        attention.o_proj.forward,
    )

    def query(x: Tensor) -> Tensor:
        of_asked: Tensor = into_query(asked(x))
        return of_asked.new_zeros(*x.shape[:-1], of_asked.shape[-1]).index_copy_(1, places_M, of_asked)

    with (
        _computed_by(layer.input_layernorm, lambda _: whole_norm(hidden_states)),
        _computed_by(attention.q_proj, query),
        _computed_by(attention.o_proj, lambda x: out_of(asked(x))),
    ):
        return official(layer, asked(hidden_states), *args, branches=asking, **more)
