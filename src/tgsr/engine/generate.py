"""transformers' own generate, decoding as it is told and not as a checkpoint's generation_config.json would have it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tgsr.engine.sampling import NOT_FINITE, Sampled, draw, uniforms_of
from tgsr.models.tokens import end_ids


class NotFiniteLogits(ArithmeticError):
    """The model's output holds NaN or infinity: no token can be told from it."""


class Choice(LogitsProcessor):
    """Leaves one token possible, the one that `draw` takes, so that all models draw by one rule."""

    def __init__(self, temperature: float, top_p: float, uniform_N: Tensor) -> None:
        self.temperature, self.top_p, self.uniform_N = temperature, top_p, uniform_N
        self.ids: list[int] = []
        self.logps: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """1 x V scores -> 1 x V, -inf but for the chosen token's."""
        uniform_B = self.uniform_N[None, len(self.logps)].to(scores.device)
        next_B, logp_B = draw(scores.float(), self.temperature, self.top_p, uniform_B)
        if not bool(torch.isfinite(logp_B).all()):
            raise NotFiniteLogits
        self.ids.append(int(next_B))
        self.logps.append(float(logp_B))
        return torch.full_like(scores, float("-inf")).scatter(-1, next_B[:, None], 0.0)


@torch.no_grad()
def generate(
    model: Any,
    tokenizer: Any,
    inputs: dict[str, Any],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    name: str = "",
) -> Sampled:
    """One continuation of `inputs`, whose input_ids are 1 x N, as tgsr.engine.sampling.sample gives them.

    Of the checkpoint's generation config the ids of its tokens are kept and nothing else. The random numbers are those
    of (seed, name). Logits that are not finite end the response: `failed` says so.
    """
    ends, theirs = end_ids(model, tokenizer), model.generation_config
    pad = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        eos_token_id=list(ends) or None,
        pad_token_id=pad if pad is not None else next(iter(ends), None),
        bos_token_id=theirs.bos_token_id,
        decoder_start_token_id=theirs.decoder_start_token_id,
    )
    choice = Choice(temperature, top_p, uniforms_of([name], max_new_tokens, seed)[0])
    try:
        out = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([choice]),
        )
    except NotFiniteLogits:
        return Sampled(tuple(choice.ids), False, tuple(choice.logps), NOT_FINITE)
    ids = tuple(map(int, out[0, inputs["input_ids"].shape[1] :]))
    return Sampled(ids, not ids or ids[-1] not in ends, tuple(choice.logps))
