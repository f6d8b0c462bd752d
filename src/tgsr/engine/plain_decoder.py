"""A decoder as plain tensors and functions, for the newest tokens of each branch: what sampling runs over and over.

`Layer` says all that a decoder layer of any of our families does: which norms, biases, rotary embeddings and
multipliers it has, how far it looks, whose keys it looks at. It is read from the model's own modules once a rollout; a
step is then a few products, norms and attention a layer, and calls no module. The numbers are the modules' own
(tests/test_plain_decoder.py holds both against each other for each family).

Axes: B branches, N newest tokens of each, M = B x N rows, D model width, V vocabulary, H query heads, K key heads,
W head width, P positions of a prefix.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, rms_norm

from tgsr.engine.branch_cache import BranchCache, KeyValues, PrefixCache, layer_of_keys, left_padded
from tgsr.engine.matrices import Product, is_packed, is_plain, product, require_int8
from tgsr.engine.shared_prefix import SharedPrefix
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.placement import Quantize

Map = Callable[[Tensor], Tensor]  # x -> as many numbers as x
Step = Callable[[Tensor, Tensor], Tensor]  # embeds_BD, position_B -> logits_BV
KNOWN = {
    *("GraniteDecoderLayer", "Gemma4TextDecoderLayer", "Gemma4UnifiedTextDecoderLayer", "LlamaDecoderLayer"),
    *("MistralDecoderLayer", "Phi4MultimodalDecoderLayer", "Qwen2DecoderLayer", "Qwen2_5OmniDecoderLayer"),
    *("Qwen3OmniMoeThinkerTextDecoderLayer", "WhisperDecoderLayer"),
}
"""transformers' layers whose forward `Layer` says. Another may have the same parts and put them together otherwise."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossAttention:
    """Attention over the frames that a decoder looks into: out(attention(query(norm(h))))."""

    norm: Map
    query: Product
    out: Product
    scale: float


@dataclass(frozen=True)
class LayerInput:
    """What a position brings to this layer alone: norm(out(activation(gate(h)) * input)) (Gemma 3n and 4)."""

    gate: Product
    activation: Map
    out: Product
    norm: Map


@dataclass(frozen=True)
class Layer:
    """One decoder layer; None is a part that it does not have.

    h += residual * after_attention(out(attention(qkv(before_attention(h)))))
    h += cross-attention, of a decoder that looks into frames
    h += residual * after_feed_forward(feed_forward(before_feed_forward(h)))
    h += what a position brings to this layer alone
    h *= multiplier

    `qkv` makes `n_heads` queries and, where `keys_of` is this layer itself, as many keys as `n_keys` and (unless
    `value_is_key`) values. Queries and keys are normed and turned, values normed.
    """

    before_attention: Map
    qkv: Product
    n_heads: int
    n_keys: int
    width: int
    keys_of: int  # the layer whose keys and values it looks at
    has_keys: bool
    value_is_key: bool
    query_norm: Map | None
    key_norm: Map | None
    value_norm: Map | None
    kind: str  # which of the decoder's rotary embeddings turns it
    scale: float
    window: int | None
    out: Product
    after_attention: Map | None
    cross: CrossAttention | None
    before_feed_forward: Map
    feed_forward: Map
    after_feed_forward: Map | None
    own_input: LayerInput | None
    residual: float
    multiplier: Tensor | None


def norm_of(module: Any) -> Map:
    """An RMS or layer norm."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.LayerNorm):
        shape = module.normalized_shape
        return lambda x: layer_norm(x, shape, weight, module.bias, module.eps)
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    return lambda x: rms_norm(x, x.shape[-1:], None if weight is None else weight.to(x.dtype), eps)


def layer_of(module: Any, index: int, times: Callable[[Sequence[Any]], Product]) -> Layer:
    """What a decoder layer of one of the classes KNOWN does; `times` makes a product of linear layers."""

    def norm(name: str, of: Any = module) -> Map | None:
        part = getattr(of, name, None)
        return None if part is None else norm_of(part)

    attention = module.self_attn
    out = getattr(attention, "o_proj", None) or attention.out_proj
    width = attention.head_dim
    n_heads = getattr(out, "base_layer", out).in_features // width
    n_keys = n_heads // getattr(attention, "num_key_value_groups", 1)
    keys_of = layer_of_keys(attention)
    names = ("qkv_proj",) if hasattr(attention, "qkv_proj") else ("q_proj", "k_proj", "v_proj")
    there = [part for name in names if (part := getattr(attention, name, None)) is not None]
    # Gemma norms what comes out of attention and feed-forward too, and calls the norm before the latter otherwise.
    is_gemma = hasattr(module, "pre_feedforward_layernorm")
    is_whisper = hasattr(module, "encoder_attn")
    usual = "pre_feedforward_layernorm" if is_gemma else "post_attention_layernorm"
    return Layer(
        before_attention=norm_of(module.self_attn_layer_norm if is_whisper else module.input_layernorm),
        qkv=times(there if keys_of == index else there[:1]),
        n_heads=n_heads,
        n_keys=n_keys,
        width=width,
        keys_of=keys_of,
        has_keys=keys_of == index,
        value_is_key=getattr(attention, "v_proj", attention) is None,
        query_norm=norm("q_norm", attention),
        key_norm=norm("k_norm", attention),
        value_norm=norm("v_norm", attention),
        kind=getattr(attention, "layer_type", None) or "",
        scale=attention.scaling,
        window=getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)),
        out=times([out]),
        after_attention=norm("post_attention_layernorm") if is_gemma else None,
        cross=_cross_attention(module, times) if is_whisper else None,
        before_feed_forward=norm_of(module.final_layer_norm if is_whisper else getattr(module, usual)),
        feed_forward=_feed_forward(module, times),
        after_feed_forward=norm("post_feedforward_layernorm"),
        own_input=_layer_input(module, times) if hasattr(module, "per_layer_input_gate") else None,
        residual=getattr(module, "residual_multiplier", 1.0),
        multiplier=getattr(module, "layer_scalar", None),
    )


def _cross_attention(module: Any, times: Callable[[Sequence[Any]], Product]) -> CrossAttention:
    norm, attention = norm_of(module.encoder_attn_layer_norm), module.encoder_attn
    return CrossAttention(norm, times([attention.q_proj]), times([attention.out_proj]), attention.scaling)


def _layer_input(module: Any, times: Callable[[Sequence[Any]], Product]) -> LayerInput:
    norm = norm_of(module.post_per_layer_input_norm)
    gate, out = times([module.per_layer_input_gate]), times([module.per_layer_projection])
    return LayerInput(gate, module.act_fn, out, norm)


def _feed_forward(module: Any, times: Callable[[Sequence[Any]], Product]) -> Map:
    if hasattr(module, "fc1"):
        up, act, down = times([module.fc1]), module.activation_fn, times([module.fc2])
        return lambda x: down(act(up(x)))
    mlp = module.mlp
    if has_experts(module):  # which rows go to which expert: its own module says it, with what is on it
        return lambda x: mlp(x[None])[0]
    act = getattr(mlp, "act_fn", None) or mlp.activation_fn
    fused = getattr(mlp, "gate_up_proj", None)
    gate_up, down = times([mlp.gate_proj, mlp.up_proj] if fused is None else [fused]), times([mlp.down_proj])

    def gated(x: Tensor) -> Tensor:
        gate, up = gate_up(x).chunk(2, -1)
        return down(act(gate) * up)

    return gated


def has_experts(layer: Any) -> bool:
    """Whether its feed-forward is a mixture."""
    return hasattr(getattr(layer, "mlp", None), "experts")


def linears_of(layer: Any) -> list[Any]:
    """A layer's linear layers, those that PEFT has wrapped as such; an expert's are none."""
    found: list[Any] = []

    def search(module: Any) -> None:
        if isinstance(module, nn.Linear) or hasattr(module, "base_layer"):
            found.append(module)
        else:
            for child in module.children():
                search(child)

    for name, child in layer.named_children():
        if not (name == "mlp" and has_experts(layer)):
            search(child)
    return found


def uncovered(lalm: Lalm) -> str:
    """Why the decoder cannot be taken apart, and samples by its own modules; "" where it can."""
    decoder = lalm.language_model
    for layer in decoder.layers:
        # FSDP calls a module's class FSDP and its name.
        name = type(layer).__name__.removeprefix("FSDP")
        if name not in KNOWN:
            return f"its layers are {name}, which is none of those that are known here"
        if getattr(layer, "enable_moe_block", False):
            return f"its {name} has experts beside its feed-forward"
        if unknown := [linear for linear in linears_of(layer) if not is_plain(linear)]:
            return f"its {name} has a {type(unknown[0]).__name__}, of more than weights and a plain LoRA"
    if {weight.device for weight in decoder.parameters()} != {device_of(lalm)}:
        return "its layers are spread over several devices, or wait in the host's memory for their turn"
    return ""


@dataclass(frozen=True)
class PlainDecoder:
    """All of a decoder between a token and the next one's logits. `read` makes one.

    `reads_prompts`: prefixes and prompts go through it too. Not where its matrices are rounded, which drawing alone
    is, nor through layers that look into frames.
    """

    lalm: Lalm
    layers: tuple[Layer, ...]
    norm: Map
    head: Map
    embedding_multiplier: float
    turns: Any  # the rotary embedding: positions of one kind of layer -> cosines and sines; None where there is none
    reads_prompts: bool

    @classmethod
    def read(cls, lalm: Lalm, quantize: Quantize | None = None) -> PlainDecoder:
        """The decoder with the weights, and the LoRA, that it has now. Within autocast in its precision.

        It must be covered (`uncovered`). ModelError for int8 where that is not to be had.
        """
        decoder, device = lalm.language_model, device_of(lalm)
        if quantize is not None:
            require_int8(device, lalm.name)
        linears = [linear for layer in decoder.layers for linear in linears_of(layer)]
        n_weights = sum(getattr(linear, "base_layer", linear).weight.numel() for linear in linears)

        def times(modules: Sequence[Any], quantize: Quantize | None = quantize) -> Product:
            held = getattr(modules[0], "base_layer", modules[0]).weight.dtype
            is_autocast = torch.is_autocast_enabled(device.type)
            dtype = torch.get_autocast_dtype(device.type) if is_autocast else held
            return product(modules, dtype, packed=is_packed(device, held, n_weights), quantize=quantize)

        return cls(
            lalm,
            tuple(layer_of(layer, index, times) for index, layer in enumerate(decoder.layers)),
            norm_of(getattr(decoder, "norm", None) or decoder.layer_norm),
            head_of(lalm.lm_head, lambda modules: times(modules, None)),
            getattr(decoder, "embedding_multiplier", 1.0),
            getattr(decoder, "rotary_emb", None),
            quantize is None and not lalm.cross_attends,
        )

    @property
    def is_capturable(self) -> bool:
        """Whether no step waits for the device: which experts a mixture needs follows from the rows."""
        return not any(map(has_experts, self.lalm.language_model.layers))

    def steps(self, cache: BranchCache, first: int, n: int) -> Step:
        """What decodes on from `cache`: embeddings, B x D, and their positions, first to first + n, -> logits, B x V,
        float32.

        `cache.extend()` comes before each.
        """
        return Rollout(self, cache, first, *self._turned(first, n)).step

    def logits(self, cache: BranchCache, embeds_BND: Tensor, position_BN: Tensor) -> Tensor:
        """After the last of N tokens a branch, B x V, float32; `cache.extend` comes before."""
        first = int(position_BN.min())
        turned = self._turned(first, int(position_BN.max()) + 1 - first)
        return Rollout(self, cache, first, *turned).logits(embeds_BND, position_BN)

    @torch.no_grad()
    def prefill(self, prefix: SharedPrefix) -> KeyValues:
        """As branch_cache.prefill."""
        rows = []
        for row_PD in prefix.rows:
            kept, n = PrefixCache(), len(row_PD)
            position_1P = torch.arange(n, device=row_PD.device)[None]
            Rollout(self, kept, 0, *self._turned(0, n)).keys_alone(row_PD[None], position_1P)
            rows.append(kept.layers)
        return left_padded(rows)

    def _turned(self, first: int, n: int) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor | None]:
        """For each kind of layer cosines and sines at n positions, n x 1 x W, the latter negated in the first half; and
        what is added to embeddings at these positions."""
        decoder, device = self.lalm.language_model, device_of(self.lalm)
        positions = torch.arange(first, first + n, device=device)
        if self.turns is None:
            return {}, decoder.embed_positions.weight[positions]
        like = self.lalm.embed(positions[:1] * 0)
        tables = {}
        for kind in {layer.kind for layer in self.layers}:
            has_kinds = hasattr(self.turns, f"{kind}_inv_freq")
            cos, sin = self.turns(like[None], positions[None], *([kind] if has_kinds else []))
            half = sin.shape[-1] // 2
            signed = torch.cat([-sin[..., :half], sin[..., half:]], -1)
            tables[kind] = cos[0][:, None], signed[0][:, None]
        return tables, None


@dataclass(frozen=True)
class Rollout:
    """A decoder that goes on from what a cache holds."""

    decoder: PlainDecoder
    cache: BranchCache | PrefixCache
    first: int
    turned: dict[str, tuple[Tensor, Tensor]]
    added: Tensor | None

    def step(self, embeds_BD: Tensor, position_B: Tensor) -> Tensor:
        """As PlainDecoder.steps says."""
        return self.logits(embeds_BD[:, None], position_B[:, None])

    def logits(self, embeds_BND: Tensor, position_BN: Tensor) -> Tensor:
        """As PlainDecoder.logits says."""
        with torch.autocast(embeds_BND.device.type, enabled=False):
            h_MD = self._through(self.decoder.layers, embeds_BND, position_BN)
            return self.decoder.head(
                self.decoder.norm(h_MD[position_BN.shape[1] - 1 :: position_BN.shape[1]])
            ).float()

    def keys_alone(self, embeds_BND: Tensor, position_BN: Tensor) -> None:
        """Hands keys and values to the cache: all layers up to the last that has keys, and of that one no more."""
        layers = self.decoder.layers
        n = 1 + max(index for index, layer in enumerate(layers) if layer.has_keys)
        with torch.autocast(embeds_BND.device.type, enabled=False):
            self._through(layers[:n], embeds_BND, position_BN, keys_alone=True)

    def _through(
        self,
        layers: Sequence[Layer],
        embeds_BND: Tensor,
        position_BN: Tensor,
        *,
        keys_alone: bool = False,
    ) -> Tensor:
        """What comes out of these layers, M x D; with `keys_alone` what goes into the last, which hands on its keys."""
        plain, lalm = self.decoder, self.decoder.lalm
        embedded, row_M = embeds_BND.flatten(0, 1), (position_BN - self.first).flatten()
        n_new, width = position_BN.shape[1], lalm.language_model.config.hidden_size
        h_MD, inputs_MLX = embedded[:, :width] * plain.embedding_multiplier, None
        if embedded.shape[1] > width:  # what each layer gets of its own
            of_layers = embedded[:, width:].unflatten(-1, (len(plain.layers), -1))
            inputs_MLX = lalm.language_model.project_per_layer_inputs(h_MD[None], of_layers[None])[0]
        if self.added is not None:
            h_MD = h_MD + self.added[row_M]
        turns = {kind: (cos[row_M], sin[row_M]) for kind, (cos, sin) in self.turned.items()}
        for index, layer in enumerate(layers):
            query = self._query(index, layer, layer.before_attention(h_MD), turns.get(layer.kind), n_new)
            if keys_alone and index == len(layers) - 1:
                break
            seen = self.cache.attend(layer.keys_of, query, layer.scale, layer.window)
            own_input = None if inputs_MLX is None else inputs_MLX[:, index]
            h_MD = self._after_attention(index, layer, h_MD, seen.transpose(1, 2).flatten(0, 1), own_input)
        return h_MD

    def _query(
        self, index: int, layer: Layer, x_MD: Tensor, turn: tuple[Tensor, Tensor] | None, n_new: int
    ) -> Tensor:
        """The queries, B x H x N x W; the layer's keys and values, if it has any, go to the cache."""

        def by_branch(x_MXW: Tensor) -> Tensor:
            return x_MXW.unflatten(0, (-1, n_new)).transpose(1, 2)

        heads_MXW = layer.qkv(x_MD).unflatten(-1, (-1, layer.width))
        n_turned = layer.n_heads + layer.n_keys * layer.has_keys
        turned_MXW = heads_MXW[:, :n_turned]
        value = heads_MXW[:, layer.n_heads if layer.value_is_key else n_turned :]
        if layer.query_norm is not None:
            turned_MXW = layer.query_norm(turned_MXW[:, : layer.n_heads])
            if layer.has_keys and layer.key_norm is not None:
                keys = layer.key_norm(heads_MXW[:, layer.n_heads : n_turned])
                turned_MXW = torch.cat([turned_MXW, keys], 1)
        turned_BXNW = by_branch(turned(turned_MXW, turn))
        if layer.has_keys:
            value = value if layer.value_norm is None else layer.value_norm(value)
            self.cache.keep(index, turned_BXNW[:, layer.n_heads :], by_branch(value))
        return turned_BXNW[:, : layer.n_heads]

    def _after_attention(
        self, index: int, layer: Layer, h_MD: Tensor, seen_MHW: Tensor, input_MX: Tensor | None
    ) -> Tensor:
        more = layer.out(seen_MHW.flatten(1))
        if layer.after_attention is not None:
            more = layer.after_attention(more)
        h_MD = torch.add(h_MD, more, alpha=layer.residual)
        if (cross := layer.cross) is not None and isinstance(self.cache, BranchCache):
            query_MHW = cross.query(cross.norm(h_MD)).unflatten(-1, (layer.n_heads, layer.width))
            seen = self.cache.attend_memory(index, query_MHW[:, :, None], cross.scale)
            h_MD = h_MD + cross.out(seen.flatten(1))
        more = layer.feed_forward(layer.before_feed_forward(h_MD))
        if layer.after_feed_forward is not None:
            more = layer.after_feed_forward(more)
        h_MD = torch.add(h_MD, more, alpha=layer.residual)
        if layer.own_input is not None and input_MX is not None:
            own = layer.own_input
            h_MD = h_MD + own.norm(own.out(own.activation(own.gate(h_MD)) * input_MX))
        return h_MD if layer.multiplier is None else h_MD * layer.multiplier


class Captured:
    """`Rollout.step` as a CUDA graph: recorded once, run again for each token from where its inputs stand.

    The cache is one with `fixed`; a step may not wait for the device, as one of a mixture of experts does.
    """

    def __init__(self, step: Step, embeds_BD: Tensor, position_B: Tensor) -> None:
        self.embeds_BD, self.position_B = embeds_BD.clone(), position_B.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # makes what is made once; a step that runs again writes the same
            for _ in range(3):
                step(self.embeds_BD, self.position_B)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits_BV = step(self.embeds_BD, self.position_B)

    def __call__(self, embeds_BD: Tensor, position_B: Tensor) -> Tensor:
        self.embeds_BD.copy_(embeds_BD)
        self.position_B.copy_(position_B)
        self.graph.replay()
        return self.logits_BV


def turned(x_BXW: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
    """Rotary embedding of heads by their position's cosines and signed sines, B x 1 x as many of W as are turned."""
    if turn is None:
        return x_BXW
    cos, sin = turn
    n = cos.shape[-1]
    part = x_BXW[..., :n]
    part = torch.addcmul(part * cos, part.roll(n // 2, -1), sin)
    return part if n == x_BXW.shape[-1] else torch.cat([part, x_BXW[..., n:]], -1)


def head_of(head: Any, times: Callable[[Sequence[Any]], Product]) -> Map:
    """Hidden states -> logits, with what stands around the linear layer: a bound (Gemma), a hook (Granite)."""
    linear, cap = getattr(head, "linear", head), getattr(head, "cap", None)
    if not is_plain(linear):
        return head
    multiply, hooks = times([linear]), tuple(linear._forward_hooks.values())

    def logits(hidden_BD: Tensor) -> Tensor:
        out = multiply(hidden_BD)
        for hook in hooks:
            changed = hook(linear, (hidden_BD,), out)  # None: it only looks on
            out = out if changed is None else changed
        return out if cap is None else torch.tanh(out / cap) * cap

    return logits
