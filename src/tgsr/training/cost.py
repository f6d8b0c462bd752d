"""What training costs on paper: tokens, FLOPs, memory and hours, with the clip's prefix shared and without.

Counts follow the usual rules: a product of n x k by k x m takes 2nkm FLOPs, a causal pair of positions
4 x (query width) a layer for scores and values together. They say what the arithmetic needs; what a machine
reaches of its peak is `Machine.utilisation`, an assumption and named so.

Symbols: P prefix tokens (system text, audio, what all branches share), L_b tokens of branch b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

SYSTEM = 20  # tokens before the audio
FRAMES_PER_SECOND = 25
PHRASE_PROMPT, PHRASE_ANSWER, QUESTION = 60, 25, 100  # tokens


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The sizes of a Qwen-type decoder that costs follow from.

    Of a mixture `feed_forward` is the width of the experts that a token goes through together, and `idle` that of the
    layer's others, which are held all the same. Where layers are unlike, widths are means. `lora_width` is how many
    parameters a LoRA of rank 1 has in all.
    """

    layers: int
    width: int
    query_width: int  # heads x head width
    key_width: int  # key heads x head width
    feed_forward: int
    vocabulary: int
    idle: int = 0
    lora_width: int = 0

    @property
    def layer_weights(self) -> int:
        """Weights of one layer's matrices that a token meets; norms, biases and a router are left out."""
        attention = self.width * (2 * self.query_width + 2 * self.key_width)
        return attention + 3 * self.width * self.feed_forward

    @property
    def held_weights(self) -> int:
        """Weights of one layer's matrices."""
        return self.layer_weights + 3 * self.width * self.idle

    @property
    def weights(self) -> int:
        """All matrices, the embedding and the head counted apart."""
        return self.layers * self.held_weights + 2 * self.vocabulary * self.width


QWEN2_7B = DecoderShape(
    layers=28, width=3584, query_width=3584, key_width=512, feed_forward=18944, vocabulary=152064
)
"""The decoder of Qwen2.5-Omni-7B's thinker; Audio Flamingo 3's has 151,672 rows of vocabulary."""

QWEN3_30B_A3B = DecoderShape(
    layers=48,
    width=2048,
    query_width=4096,
    key_width=512,
    feed_forward=8 * 768,
    vocabulary=152064,
    idle=120 * 768,
)
"""The decoder of Qwen3-Omni-30B-A3B's thinker: of 128 experts, each 768 wide, a token meets 8."""


@dataclass(frozen=True, slots=True)
class ClipTokens:
    """One clip's work: its prefix, its branches, and how many of a branch's tokens are predicted."""

    prefix: int
    branches: tuple[int, ...]
    predicted: tuple[int, ...]

    def __post_init__(self) -> None:
        fits = len(self.branches) == len(self.predicted) > 0 and all(
            0 < n <= length for n, length in zip(self.predicted, self.branches, strict=True)
        )
        if self.prefix < 1 or not fits:
            raise ValueError(
                f"a clip needs a prefix and branches, each predicting 1 to all of its tokens: {self}"
            )


@dataclass(frozen=True, slots=True)
class Work:
    """How much there is to do. Defaults: section 4.1's counts, clips of 30 s, FRAMES_PER_SECOND."""

    seconds: Annotated[float, "of a clip"] = 30.0
    phrases: Annotated[int, "of stage 1 (section 4.1)"] = 268_000
    phrases_a_clip: int = 8
    questions: Annotated[int, "of stage 2 (section 4.1)"] = 47_000
    group_size: int = 8
    response: Annotated[int, "tokens of a response"] = 150
    lora_rank: int = 16

    @property
    def stage_1(self) -> ClipTokens:
        n, answer = self.phrases_a_clip, PHRASE_ANSWER
        return ClipTokens(self._prefix, (PHRASE_PROMPT + answer,) * n, (answer,) * n)

    @property
    def stage_2(self) -> ClipTokens:
        return ClipTokens(
            self._prefix + QUESTION, (self.response,) * self.group_size, (self.response,) * self.group_size
        )

    @property
    def _prefix(self) -> int:
        return SYSTEM + math.ceil(self.seconds * FRAMES_PER_SECOND)


def tokens(clip: ClipTokens, shared: bool) -> int:
    """Tokens that pass through the decoder in one forward."""
    return sum(clip.branches) + clip.prefix * (1 if shared else len(clip.branches))


def pairs(clip: ClipTokens, shared: bool) -> int:
    """(query, key) pairs of causal attention in one layer; a branch sees the prefix and itself."""
    own = sum(n * clip.prefix + n * (n + 1) // 2 for n in clip.branches)
    return own + clip.prefix * (clip.prefix + 1) // 2 * (1 if shared else len(clip.branches))


def forward_flops(shape: DecoderShape, clip: ClipTokens, shared: bool) -> float:
    """One forward: matrices, attention, and the head where a token is predicted and nowhere else."""
    linear = 2.0 * shape.layers * shape.layer_weights * tokens(clip, shared)
    return linear + attention_flops(shape, clip, shared) + head_flops(shape, clip)


def attention_flops(shape: DecoderShape, clip: ClipTokens, shared: bool) -> float:
    return 4.0 * shape.layers * shape.query_width * pairs(clip, shared)


def head_flops(shape: DecoderShape, clip: ClipTokens) -> float:
    return 2.0 * shape.vocabulary * shape.width * sum(clip.predicted)


def update_flops(shape: DecoderShape, clip: ClipTokens, shared: bool, *, checkpointing: bool) -> float:
    """Forward and backward with frozen matrices (stage 1's aligner, stage 2's LoRA).

    Gradients reach the activations, which costs another forward, and no matrix of the decoder, which would
    cost a third; attention's backward is twice its forward, it has two inputs with gradients. A LoRA's own
    few weights are left out. Checkpointing computes the layers a second time.
    """
    forward = forward_flops(shape, clip, shared)
    again = forward - head_flops(shape, clip) if checkpointing else 0.0
    return 2 * forward + attention_flops(shape, clip, shared) + again


def activation_bytes(shape: DecoderShape, clip: ClipTokens, shared: bool, *, checkpointing: bool) -> float:
    """What an update keeps between forward and backward, bytes, in bfloat16 with attention that keeps no map.

    A layer keeps its two norms' inputs and outputs, query, key, value, attention's output, and the feed-forward's
    gate, up and product. With checkpointing every layer keeps its input, and one layer at a time the rest.
    The head keeps float32 logits and their softmax for the predicted tokens.
    """
    widths = 2 * shape.query_width + 2 * shape.key_width + 3 * shape.feed_forward
    whole_layer = 2.0 * (4 * shape.width + widths)
    n = tokens(clip, shared)
    layers = whole_layer * shape.layers * n
    if checkpointing:
        layers = (2.0 * shape.width * shape.layers + whole_layer) * n
    return layers + 2 * 4.0 * shape.vocabulary * sum(clip.predicted)


@dataclass(frozen=True, slots=True)
class Machine:
    """One accelerator; `utilisation` is the share of the peak that training reaches, an assumption."""

    flops: float  # a second, dense bfloat16
    bandwidth: float  # bytes a second
    memory: float  # bytes
    utilisation: float = 0.4


GPUS = {
    "h200": Machine(flops=989e12, bandwidth=4.8e12, memory=141e9),
    "h100": Machine(flops=989e12, bandwidth=3.35e12, memory=80e9),
    "a100-80": Machine(flops=312e12, bandwidth=2.0e12, memory=80e9),
    "a100-40": Machine(flops=312e12, bandwidth=1.55e12, memory=40e9),
    "l40s": Machine(flops=362e12, bandwidth=0.86e12, memory=48e9),
    "rtx4090": Machine(flops=165e12, bandwidth=1.0e12, memory=24e9),
}
"""Dense bfloat16 peaks as the vendor states them; the share reached of them is Machine.utilisation."""

H100 = GPUS["h100"]


@dataclass(frozen=True, slots=True)
class PromptSeconds:
    """Stage 2's seconds of one prompt on one machine, by part."""

    prefill: float
    decoding: float
    reference: float
    update: float

    @property
    def total(self) -> float:
        return self.prefill + self.decoding + self.reference + self.update


def prefill_seconds(shape: DecoderShape, clip: ClipTokens, machine: Machine, shared: bool) -> float:
    """The prompt's forward: once, or once a branch."""
    times = 1 if shared else len(clip.branches)
    alone = ClipTokens(clip.prefix, (1,), (1,))
    return times * forward_flops(shape, alone, shared=True) / (machine.flops * machine.utilisation)


def decoding_seconds(
    shape: DecoderShape, clips: Sequence[ClipTokens], machine: Machine, shared: bool, new_tokens: int
) -> float:
    """`new_tokens` decoding steps for all branches of `clips` together on one machine.

    A decoding step reads all weights once (of a mixture all experts: many branches need most of them) and every
    branch's keys and values; with sharing a prefix's are read once a clip. Its arithmetic is taken as hidden behind
    the reading.
    """
    kept = own = 0.0
    per_token = 2 * 2.0 * shape.layers * shape.key_width  # bytes of keys and values
    for clip in clips:
        kept += (1 if shared else len(clip.branches)) * clip.prefix * per_token
        own += len(clip.branches) * new_tokens / 2 * per_token  # on average half of them are there
    return new_tokens * (2.0 * shape.weights + kept + own) / machine.bandwidth


def stage_1_hours(
    shape: DecoderShape,
    machine: Machine,
    n_machines: int,
    clip: ClipTokens,
    n_clips: int,
    *,
    shared: bool,
    checkpointing: bool = True,
) -> float:
    """Hours of one epoch of stage 1 over `n_clips` clips like `clip`."""
    flops = n_clips * update_flops(shape, clip, shared, checkpointing=checkpointing)
    return flops / (n_machines * machine.flops * machine.utilisation) / 3600


def stage_2_seconds(
    shape: DecoderShape,
    machine: Machine,
    clip: ClipTokens,
    *,
    shared: bool,
    prompts_at_once: int = 8,
    checkpointing: bool = True,
) -> PromptSeconds:
    """One prompt of stage 2, of `prompts_at_once` that a machine samples together.

    `clip` is the prompt with its G responses as branches.
    """
    rate = machine.flops * machine.utilisation
    together = [clip] * prompts_at_once
    decoding = decoding_seconds(shape, together, machine, shared, max(clip.predicted))
    return PromptSeconds(
        prefill=prefill_seconds(shape, clip, machine, shared),
        decoding=decoding / prompts_at_once,
        reference=forward_flops(shape, clip, shared) / rate,
        update=update_flops(shape, clip, shared, checkpointing=checkpointing) / rate,
    )


def stage_2_hours(
    shape: DecoderShape,
    machine: Machine,
    n_machines: int,
    clip: ClipTokens,
    n_prompts: int,
    *,
    shared: bool,
    prompts_at_once: int = 8,
    checkpointing: bool = True,
) -> float:
    """Hours of one epoch of stage 2 over `n_prompts` prompts like `clip`: each as `stage_2_seconds` says."""
    how = {"shared": shared, "checkpointing": checkpointing}
    one = stage_2_seconds(shape, machine, clip, prompts_at_once=prompts_at_once, **how)
    return n_prompts * one.total / n_machines / 3600
