"""Layers that keep and compute less, against the same layers as their own classes compute them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from tgsr.engine.branch_attention import layout, with_last
from tgsr.engine.lean_layers import lean
from tgsr.engine.shared_prefix import Branch, branch_logps, listen, picked_logps
from tgsr.models.aligner_and_lora import with_lora
from tiny import tiny_features, tiny_lalm

ROWS = 150  # more than are computed together, where a row is wide


@pytest.fixture(scope="module")
def wide() -> Any:
    """A decoder with a LoRA that is not zero, whose feed-forwards are so wide that 64 rows are computed together."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 64,
        "intermediate_size": 2**14,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    decoder = Qwen2Model(Qwen2Config(vocab_size=16, num_hidden_layers=2, **shape))
    targets = r".*(q_proj|o_proj|gate_proj|up_proj|down_proj)"
    return get_peft_model(decoder, LoraConfig(r=3, target_modules=targets, init_lora_weights=False)).eval()


def seen(module: nn.Module, x: Tensor, trained: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of x and of what trains."""
    out = module(x)
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out.float() * weights).sum(), [x, *trained])]


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("part", ["mlp", "self_attn.q_proj", "self_attn.o_proj", "input_layernorm"])
def test_a_part_is_what_its_class_computes(wide: Any, part: str, bfloat16: bool) -> None:
    decoder = wide.get_base_model()
    module = decoder.layers[0].get_submodule(part)
    heads = (64,) if "norm" in part else ()  # as norms of queries see them, and as many numbers a row
    x = torch.randn(1, ROWS, *heads, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    assert bool(trained) == (part != "input_layernorm")
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        official = seen(module, x, trained)
        with lean(decoder):
            ours = seen(module, x, trained)
    for one, other in zip(ours, official, strict=True):
        assert one.dtype == other.dtype
        tolerance = (0.02 if bfloat16 else 1e-5) * float(other.abs().max())
        assert torch.allclose(one, other, atol=tolerance)


def test_without_a_lora_and_without_gradients_it_is_the_same(wide: Any) -> None:
    decoder, x = wide.get_base_model(), torch.randn(1, ROWS, 64)
    mlp = decoder.layers[0].mlp
    with torch.no_grad(), wide.disable_adapter():
        official = mlp(x)
        with lean(decoder):
            assert torch.allclose(mlp(x), official, atol=1e-6)
    with torch.no_grad():
        assert not torch.allclose(mlp(x), official, atol=1e-3)  # the LoRA is not nothing


@pytest.mark.parametrize("change", ["two LoRAs", "dropout", "DoRA", "LoRA's bias"])
def test_what_is_no_plain_lora_computes_as_it_is(change: str) -> None:
    lalm = tiny_lalm()
    options: dict[str, Any] = {"r": 2, "target_modules": lalm.lora_targets, "init_lora_weights": False}
    if change == "dropout":
        options["lora_dropout"] = 0.5
    elif change != "two LoRAs":
        options |= {"use_dora": True} if change == "DoRA" else {"lora_bias": True}
        options["target_modules"] = ["q_proj"]  # has a bias
    lalm.model = get_peft_model(lalm.inner, LoraConfig(**options))
    if change == "two LoRAs":
        lalm.model.add_adapter("more", LoraConfig(**options))
        lalm.model.base_model.set_adapter(["default", "more"])
    lalm.model.train(change == "dropout")
    decoder = lalm.language_model
    x, query = torch.randn(1, 5, decoder.config.hidden_size), decoder.layers[0].self_attn.q_proj

    def drawn() -> Tensor:
        torch.manual_seed(0)
        out: Tensor = query(x)
        return out

    official = drawn()
    with lean(decoder):
        assert torch.equal(drawn(), official)


def test_modules_are_their_own_again_even_after_an_error(wide: Any) -> None:
    decoder = wide.get_base_model()
    with lean(decoder), lean(decoder):
        assert "forward" in vars(decoder.layers[0].mlp)
    with pytest.raises(RuntimeError, match="planted"), lean(decoder):
        raise RuntimeError("planted")
    assert not any("forward" in vars(module) for module in decoder.modules())


def test_a_module_that_someone_else_computes_is_left_alone(wide: Any) -> None:
    """As accelerate's hooks do, which fetch weights that wait elsewhere."""
    decoder = wide.get_base_model()
    gate = decoder.layers[0].mlp.gate_proj.base_layer
    fetched: Callable[[Tensor], Tensor] = lambda x: nn.functional.linear(x, gate.weight, gate.bias)  # noqa: E731
    gate.forward = fetched
    try:
        with lean(decoder):
            assert "forward" not in vars(decoder.layers[0].mlp)
            assert "forward" in vars(decoder.layers[1].mlp)
        assert gate.forward is fetched
    finally:
        del gate.forward


def test_the_last_layer_computes_what_predicts_and_no_more() -> None:
    """The same log-probs and gradients as with every token's output; and the decoder's output has so many rows."""
    lalm = tiny_lalm()
    with_lora(lalm, rank=2, alpha=4, seed=0)
    lalm.aligner.requires_grad_(True)
    branches = [Branch(0, (5, 6), (7, 8, 9)), Branch(1, (5,), (6,)), Branch(0, (9,), (8, 7, 6, 5))]
    clips = [tiny_features(6, 0), tiny_features(11, 1)]
    trained = [weight for weight in lalm.model.parameters() if weight.requires_grad]
    rows: list[int] = []
    hook = lalm.language_model.norm.register_forward_hook(lambda _, args, out: rows.append(out.shape[1]))
    results = []
    for everything in (False, True):
        logps = branch_logps(listen(lalm, clips), branches, output_hidden_states=everything)
        gradients = torch.autograd.grad(logps.logp_BT.square().sum(), trained, allow_unused=True)
        results.append((logps.logp_BT.detach(), [g for g in gradients if g is not None]))
    hook.remove()
    assert rows[0] == 8 < rows[1]
    assert torch.allclose(results[0][0], results[1][0], atol=1e-6)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(other.abs().max()))


def test_a_last_layers_layout_asks_only_there() -> None:
    where = layout([4, 3], [5, 2, 4], [0, 1, 0], torch.device("cpu"))
    last = with_last(where, [slice(9, 11), slice(12, 13), slice(15, 17)]).last
    assert last is not None
    own, shared = last.parts(None)
    assert [part.queries for part in own] == list(where.branches)
    assert [(part.queries, part.keys) for part in shared] == [
        (slice(9, 11), where.prefixes[0]),
        (slice(15, 17), where.prefixes[0]),
        (slice(12, 13), where.prefixes[1]),
    ]


def kept_bytes(work: Callable[[], Tensor]) -> int:
    """Bytes that the backward pass of `work` would find, each storage once; parameters are not counted."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = work()
    assert out.requires_grad
    return sum(storages.values())


def test_a_feed_forward_keeps_two_of_its_wide_tensors(wide: Any) -> None:
    decoder, x = wide.get_base_model(), torch.randn(1, ROWS, 64).requires_grad_()
    mlp, one = decoder.layers[0].mlp, ROWS * decoder.config.intermediate_size * x.itemsize
    official = kept_bytes(lambda: mlp(x))
    with lean(decoder):
        ours = kept_bytes(lambda: mlp(x))
    assert ours < 2.1 * one
    assert official > 3.9 * one


def test_of_the_head_no_logits_are_kept() -> None:
    lalm = tiny_lalm()
    lalm.inner.requires_grad_(False)
    hidden_ND = torch.randn(40, lalm.lm_head.in_features).requires_grad_()
    logp_N: Any = picked_logps(lalm.lm_head, hidden_ND, torch.arange(40), 0.7)
    assert [kept.shape for kept in logp_N.grad_fn.saved_tensors] == [hidden_ND.shape]
    (of_hidden,) = torch.autograd.grad(logp_N[7], hidden_ND)
    leaf = hidden_ND.detach().requires_grad_()
    expected = (lalm.lm_head(leaf) / 0.7).log_softmax(-1)[7, 7]
    assert torch.allclose(of_hidden, torch.autograd.grad(expected, leaf)[0], atol=1e-6)
