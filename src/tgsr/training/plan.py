"""`tgsr plan`: what both stages need of memory and time, before anyone rents a machine.

Nothing is measured here. Sizes are exact, from the model's config.json; FLOPs and activations are those of the cost
model (training/cost.py); the share of a GPU's peak that training reaches, and what a process holds beside tensors, are
assumptions, and the table names them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    AudioFlamingo3Config,
    AutoConfig,
    Gemma4Config,
    Gemma4UnifiedConfig,
    GraniteSpeechConfig,
    MusicFlamingoConfig,
    Phi4MultimodalConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2AudioConfig,
    VoxtralConfig,
)
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeThinkerConfig

from tgsr.engine.shared_prefix import LOGITS_AT_ONCE_GPU
from tgsr.errors import ModelError, OptionError
from tgsr.models import phi4, whisper
from tgsr.models.aligner_and_lora import VISION
from tgsr.models.checkpoint import MERGED_FILE, unknown_value
from tgsr.models.lalm import Lalm
from tgsr.models.load import FAMILIES, OURS, only_answers
from tgsr.training.cost import (
    FRAMES_PER_SECOND,
    GPUS,
    DecoderShape,
    Machine,
    Work,
    activation_bytes,
    stage_1_hours,
    stage_2_hours,
)

A_NODE = 8  # GPUs
BESIDE_TENSORS = 2e9  # bytes of a process: CUDA context, kernels' work space
FRAGMENTED = 1.1  # of all tensors: what the allocator holds and cannot give
TRAINED_BYTES = 16  # a trained parameter: float32 weight, gradient and Adam's two moments
BYTES_4BIT = 0.5 + 4.127 / 64  # NF4, double quantization: 64 numbers share a scale of 8 bits, scales theirs
FOUR_BITS, CHECKPOINTING, SHARD = "--load-as 4bit", "--gradient-checkpointing", "--shard"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters by part, and the decoder's shape; `source` says where they come from."""

    source: str
    decoder: DecoderShape
    language_model: int  # decoder and head
    matrices: int  # those of the decoder's layers: what 4 bits and sharding are about
    aligner: int
    audio_tower: int
    vision_tower: int
    frames_per_second: float = FRAMES_PER_SECOND
    heard: Callable[[float], float] = Lalm.heard  # seconds of frames, by seconds of sound
    has_own_lora: bool = False  # merged when it is loaded, which --load-as 4bit refuses

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.language_model + self.aligner + self.audio_tower + self.vision_tower


PARTS = {
    "aligner": re.compile(
        r"\.(multi_modal_projector|embed_audio|(up|down)_proj_for_speech)\.|\.audio_tower\.proj|^model\.projector\."
    ),
    "audio_tower": re.compile(r"\.(audio_tower|audio_embed)\.|^model\.encoder\."),
    "vision_tower": VISION,
    "language_model": re.compile(""),
}
"""What names of parameters have in each part; the first that fits is a parameter's."""

QWEN_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 151672,
}


def _gemma4(width: int, layers: int, feed_forward: int, keys: int, sharing: int, turn: int) -> Gemma4Config:
    """Of a Gemma 4 with an encoder: `sharing` layers have no keys, every `turn`-th attends to all positions."""
    is_whole = [(layer + 1) % turn == 0 for layer in range(layers)]
    return Gemma4Config(
        audio_config={},
        vision_config={},
        text_config={
            "hidden_size": width,
            "intermediate_size": feed_forward,
            "num_hidden_layers": layers,
            "num_key_value_heads": keys,
            "num_kv_shared_layers": sharing,
            "use_double_wide_mlp": turn == 5,
            "layer_types": ["full_attention" if whole else "sliding_attention" for whole in is_whole],
            "final_logit_softcapping": 30.0,
        },
    )


PAPERS = {
    # The class's defaults are the 7B's, but for the vision tower's width.
    "Qwen/Qwen2.5-Omni-7B": Qwen2_5OmniThinkerConfig(vision_config={"hidden_size": 1280}),
    "nvidia/audio-flamingo-3-hf": AudioFlamingo3Config(text_config=QWEN_7B),
    # As transformers' own scripts convert them (convert_*_to_hf.py under models/musicflamingo, read on 2026-11-29):
    # the sizes of Audio Flamingo 3; the hub says 8 B of each.
    "nvidia/music-flamingo-2601-hf": MusicFlamingoConfig(text_config=QWEN_7B),
    **dict.fromkeys(
        (f"nvidia/audio-flamingo-next{kind}-hf" for kind in ("", "-think", "-captioner")),
        MusicFlamingoConfig(text_config=QWEN_7B | {"max_position_embeddings": 131072}),
    ),
    **dict.fromkeys(
        ("Qwen/Qwen2-Audio-7B-Instruct", "Qwen/Qwen2-Audio-7B"),
        Qwen2AudioConfig(
            text_config={
                "model_type": "qwen2",
                "intermediate_size": 11008,
                "max_position_embeddings": 8192,
                "vocab_size": 156032,
            }
        ),
    ),
    # As public repositories quote its config.json; decoder and head have Qwen3-30B-A3B's published 30,532,122,624
    # parameters and 128 more rows of vocabulary.
    **dict.fromkeys(
        (f"Qwen/Qwen3-Omni-30B-A3B-{kind}" for kind in ("Instruct", "Thinking", "Captioner")),
        Qwen3OmniMoeThinkerConfig(
            audio_config={"output_dim": 2048},
            vision_config={"out_hidden_size": 2048},
            text_config={
                "num_hidden_layers": 48,
                "num_attention_heads": 32,
                "head_dim": 128,
                "intermediate_size": 768,
                "vocab_size": 152064,
                "max_position_embeddings": 65536,
            },
        ),
    ),
    "mistralai/Voxtral-Mini-3B-2507": VoxtralConfig(),  # the class's defaults are its
    **dict.fromkeys(("google/gemma-4-E2B-it", "google/gemma-4-E2B"), _gemma4(1536, 35, 6144, 1, 20, 5)),
    **dict.fromkeys(("google/gemma-4-E4B-it", "google/gemma-4-E4B"), _gemma4(2560, 42, 10240, 2, 18, 6)),
    **dict.fromkeys(
        ("google/gemma-4-12B-it", "google/gemma-4-12B"),
        Gemma4UnifiedConfig(
            audio_config={},
            vision_config={},
            text_config={
                "hidden_size": 3840,
                "intermediate_size": 15360,
                "num_hidden_layers": 48,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "num_global_key_value_heads": 1,
                "attention_k_eq_v": True,
                "final_logit_softcapping": 30.0,
            },
        ),
    ),
    # Phi-4-mini's published 3,836,021,760 parameters (arXiv 2503.01743) and both encoders; the card's 5.6 B have two
    # LoRAs with them, 0.46 B for sound and 0.37 B for pictures.
    "microsoft/Phi-4-multimodal-instruct": Phi4MultimodalConfig(
        num_attention_heads=24, tie_word_embeddings=True
    ),
    # As public ports quote its config.json; the hub says 2.3 B. Later checkpoints have no LoRA of their own.
    "ibm-granite/granite-4.0-1b-speech": GraniteSpeechConfig(
        encoder_config={"num_layers": 16, "output_dim": 348},
        projector_config={
            "hidden_size": 1024,
            "encoder_hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 2,
            "num_attention_heads": 16,
            "cross_attention_frequency": 1,
        },
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 4096,
            "num_hidden_layers": 40,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 100353,
            "max_position_embeddings": 4096,
        },
        has_lora_adapter=False,
        tie_word_embeddings=False,
    ),
}
"""Configurations by heart, for a machine that cannot reach config.json: of the paper's two models, held against the
hub's numbers of parameters; of Audio Flamingo 3's heirs as transformers' own scripts convert them; of Qwen2-Audio as
four public repositories quote it, of Qwen3-Omni and Granite Speech likewise; of Voxtral as transformers has it."""
KNOWN_SINCE = "2026-11-28"  # when the paper's two were last looked up; the others a day later


def sizes_of(name: str) -> Sizes:
    """By folder or hub id; only config.json is read. ModelError for another family, or where there is none."""
    source = "its config.json"
    try:
        config: Any = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, StrictDataclassError) as error:
        if name not in PAPERS:
            raise ModelError(
                f"{name}: its config.json cannot be read ({error}); give a folder that holds one, or one of "
                f"{', '.join(PAPERS)}, whose sizes are known here"
            ) from error
        config = PAPERS[name]
        source = f"what was known by heart on {KNOWN_SINCE}: its config.json could not be reached"
    known = [model_type for model_type in FAMILIES if model_type not in whisper.CLASSES]
    if config.model_type not in known:
        apart = ", and no audio that enters by cross-attention" if config.model_type in FAMILIES else ""
        raise ModelError(
            f"{name}: is of type {config.model_type}; the cost model knows {', '.join(known)}{apart}"
        )
    model_class = FAMILIES[config.model_type].official
    try:
        with torch.device("meta"):  # shapes, and not a byte of weights
            model = model_class(getattr(config, "thinker_config", config))
    except KeyError as error:
        raise unknown_value(name, error) from error
    has_own_lora = getattr(config, "has_lora_adapter", config.model_type in phi4.CLASSES)
    sizes = sizes_of_model(model, source)
    return replace(sizes, has_own_lora=has_own_lora and not (Path(name) / MERGED_FILE).exists())


def sizes_of_model(model: Any, source: str) -> Sizes:
    """Of a transformers model of one of the families; `source` says where it is from."""
    text, family = model.config.get_text_config(), FAMILIES[model.config.model_type].kind
    matrices = {
        name: module  # a loaded model may have a LoRA
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and re.fullmatch(family.lora_targets, name.removesuffix(".base_layer"))
    }
    query, key, fused, feed_forward = (
        round(
            sum(getattr(of, side) for name, of in matrices.items() if f".{kind}" in name)
            / text.num_hidden_layers
        )
        for kind, side in (
            ("o_proj", "in_features"),
            ("k_proj", "out_features"),
            ("qkv_proj", "out_features"),
            ("down_proj", "in_features"),
        )
    )
    used, experts = getattr(text, "num_experts_per_tok", 0), getattr(text, "num_experts", 0)
    each = text.moe_intermediate_size if experts else feed_forward
    decoder = DecoderShape(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        query_width=query,
        key_width=(fused - query) // 2 if fused else key,
        feed_forward=each * used if experts else each,
        vocabulary=text.vocab_size,
        idle=each * (experts - used) if experts else 0,
        lora_width=sum(module.in_features + module.out_features for module in matrices.values()),
    )
    counts = dict.fromkeys(PARTS, 0)
    for name, weight in model.named_parameters():
        part = next(part for part, pattern in PARTS.items() if pattern.search(name))
        counts[part] += weight.numel()
    return Sizes(
        source,
        decoder,
        matrices=decoder.layers * decoder.held_weights,
        frames_per_second=1 / family.seconds_per_frame,
        heard=family.heard,
        has_own_lora=False,
        **counts,
    )


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One way to run a stage: bytes a GPU by what they are for, and hours of one epoch on all GPUs."""

    stage: str
    options: str
    weights: float
    trained: float
    activations: float
    sampling: float  # keys and values while responses are drawn; 0 in stage 1
    hours: float

    @property
    def memory(self) -> float:
        """The most that one GPU holds at a time: sampling and the update are one after the other."""
        at_most = max(self.activations, self.sampling)
        return BESIDE_TENSORS + FRAGMENTED * (self.weights + self.trained + at_most)


def lora_size(decoder: DecoderShape, rank: int) -> int:
    """Parameters of a LoRA on the family's matrices: all seven of a layer (table 6), of a mixture attention's four."""
    return rank * decoder.lora_width


def rows(sizes: Sizes, gpu: Machine, n_gpus: int, work: Work) -> list[PlanRow]:
    """Each stage in each way that the command line offers, one clip a pass and a GPU (--clips-at-once 1)."""
    ways = ["", CHECKPOINTING]
    # bitsandbytes leaves experts as they are, which is nearly all of a mixture.
    if not (sizes.decoder.idle or sizes.has_own_lora):
        ways.append(f"{FOUR_BITS} {CHECKPOINTING}")
    if n_gpus > 1:
        ways.append(f"{CHECKPOINTING} {SHARD}")
    return [_row(stage, way, sizes, gpu, n_gpus, work) for stage in ("sta", "grpo") for way in ways]


def _row(stage: str, options: str, sizes: Sizes, gpu: Machine, n_gpus: int, work: Work) -> PlanRow:
    clip = work.stage_1 if stage == "sta" else work.stage_2
    n_more = sizes.heard(work.seconds) * sizes.frames_per_second - work.seconds * FRAMES_PER_SECOND
    clip = replace(clip, prefix=max(1, clip.prefix + round(n_more)))
    four_bits, checkpointing, shard = (flag in options for flag in (FOUR_BITS, CHECKPOINTING, SHARD))
    decoder = sizes.decoder
    others = sizes.language_model - sizes.matrices + sizes.audio_tower + sizes.vision_tower
    matrices = sizes.matrices * (BYTES_4BIT if four_bits else 2.0)
    # FSDP2 holds a part of each layer and gathers two layers at a time; stage 2 samples with the whole decoder.
    held = matrices / n_gpus + 2 * 2.0 * decoder.held_weights if shard and stage == "sta" else matrices
    n_trained = sizes.aligner if stage == "sta" else lora_size(decoder, work.lora_rank)
    logits = 2 * 4.0 * decoder.vocabulary * sum(clip.predicted)
    activations = activation_bytes(decoder, clip, True, checkpointing=checkpointing)
    # Beyond a size they are computed in pieces.
    activations += min(logits, 3 * 4.0 * LOGITS_AT_ONCE_GPU) - logits
    a_token = 2 * 2.0 * decoder.layers * decoder.key_width
    kept = a_token * (clip.prefix + sum(clip.predicted)) if stage == "grpo" else 0.0
    if stage == "sta":
        n_clips = math.ceil(work.phrases / work.phrases_a_clip)
        hours = stage_1_hours(decoder, gpu, n_gpus, clip, n_clips, shared=True, checkpointing=checkpointing)
    else:
        one_prompt: dict[str, Any] = {"shared": True, "prompts_at_once": 1, "checkpointing": checkpointing}
        hours = stage_2_hours(decoder, gpu, n_gpus, clip, work.questions, **one_prompt)
    weights, trained = held + 2.0 * others, TRAINED_BYTES * n_trained
    return PlanRow(stage, options or "(none)", weights, trained, activations, kept, hours)


def report(
    name: str, sizes: Sizes, gpu: str, machine: Machine, n_gpus: int, work: Work, *, assumed: bool = True
) -> str:
    """The plan as text: sizes, a table for each stage, and the fastest way that fits as a command.

    Without `assumed` the machine's numbers are those that `tgsr check` has measured.
    """
    how_known = "assumed" if assumed else "measured"
    idle = 3 * sizes.decoder.layers * sizes.decoder.width * sizes.decoder.idle
    active = f" ({(sizes.language_model - idle) / 1e9:.1f} B of them for a token)" if idle else ""
    lines = [
        f"{name}, sizes from {sizes.source}:",
        f"  {sizes.parameters:,} parameters: decoder {sizes.language_model / 1e9:.2f} B{active}, "
        f"aligner {sizes.aligner / 1e6:.2f} M, "
        f"audio tower {sizes.audio_tower / 1e6:.0f} M, vision tower {sizes.vision_tower / 1e6:.0f} M",
        f"{n_gpus} x {gpu}: {machine.memory / 1e9:.0f} GB, {machine.flops / 1e12:.3g} TFLOP/s at "
        f"{machine.utilisation:.0%} of it ({how_known}), {machine.bandwidth / 1e12:.2f} TB/s",
    ]
    planned = rows(sizes, machine, n_gpus, work)
    about = {
        "sta": f"stage 1: {work.phrases:,} phrases, {work.phrases_a_clip} a clip of {work.seconds:g} s",
        "grpo": f"stage 2: {work.questions:,} questions, {work.group_size} responses of {work.response} tokens",
    }
    for stage, what in about.items():
        lines += ["", f"{what}; bfloat16, one clip a pass; GB a GPU"]
        lines.append(
            f"{'options':42}{'weights':>9}{'trained':>9}{'kept':>7}{'drawing':>9}{'in all':>8}{'fits':>6}{'hours':>8}"
        )
        of_stage = [row for row in planned if row.stage == stage]
        for row in of_stage:
            fits = row.memory <= machine.memory
            numbers = (row.weights, row.trained, row.activations, row.sampling, row.memory)
            w, t, a, s, m = (value / 1e9 for value in numbers)
            lines.append(
                f"{row.options:42}{w:9.1f}{t:9.2f}{a:7.1f}{s:9.2f}{m:8.1f}{'yes' if fits else 'no':>6}{row.hours:8.1f}"
            )
        lines.append(_advice(name, stage, [row for row in of_stage if row.memory <= machine.memory], n_gpus))
    beside = (
        f"{BESIDE_TENSORS / 1e9:g} GB a process beside tensors, {FRAGMENTED - 1:.0%} lost to fragments. Sampling is "
        "taken one prompt at a time; a vLLM server (--vllm) is faster."
    )
    about_it = (
        f"Assumed: {machine.utilisation:.0%} of the peak, {beside} The GPUs' figures are their vendors', by heart. "
        "Nothing here was measured: run a few steps first, or `tgsr check`."
        if assumed
        else f"Measured: the share of the peak that an update reaches, and decoding's bandwidth. Assumed: {beside}"
    )
    lines += ["", about_it]
    return "\n".join(lines)


def _advice(name: str, stage: str, fitting: list[PlanRow], n_gpus: int) -> str:
    if not fitting:
        return "none of these fits: more or larger GPUs, shorter clips, or --devices all (layers spread over GPUs)"
    best = min(fitting, key=lambda row: (row.hours, row.memory))
    nodes = f"--nnodes {math.ceil(n_gpus / A_NODE)} " if n_gpus > A_NODE else ""
    start = "tgsr" if n_gpus == 1 else f"torchrun {nodes}--nproc-per-node {min(n_gpus, A_NODE)} -m tgsr.cli"
    options = "" if best.options == "(none)" else f" {best.options}"
    at_once = "--clips-at-once 1" if stage == "sta" else "--prompts-at-once 1"
    model = name if stage == "sta" else "STAGE_1/adapter"
    return f"fastest that fits: {start} train {stage} --model {model} --bfloat16 {at_once}{options} ..."


def plan(name: str, gpu: str, n_gpus: int, work: Work, memory_gb: float | None = None) -> str:
    """The report for a model by folder or hub id. ModelError for one that cannot be read.

    `memory_gb` is the GPUs' where it is not the named one's.
    """
    counts = {
        "--gpus": n_gpus,
        "--gpu-memory": 1.0 if memory_gb is None else memory_gb,
        **{f"--{name.replace('_', '-')}": getattr(work, name) for name in work.__slots__},
    }
    for flag, value in counts.items():
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{flag} {value}: must be above 0")
    if name in OURS or only_answers(name):
        raise ModelError(f"{name}: nothing to plan; plans are for checkpoints (a folder or hub id)")
    folder = Path(name)
    where = str(folder) if folder.exists() else name
    machine = GPUS[gpu] if memory_gb is None else replace(GPUS[gpu], memory=memory_gb * 1e9)
    return report(where, sizes_of(where), gpu, machine, n_gpus, work)
