"""Audio models of other families, random and tiny, as folders in the layout of their hub repositories."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import (
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechPlusConfig,
    GraniteSpeechPlusForConditionalGeneration,
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    PreTrainedTokenizerBase,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tiny import DECODER, learned_tokenizer, omni_tokenizer

VOXTRAL_SPECIALS = {
    **dict(
        enumerate(("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"))
    ),
    **{
        7: "[TOOL_RESULTS]",
        8: "[/TOOL_RESULTS]",
        9: "[TOOL_CALLS]",
        10: "[IMG]",
        11: "<pad>",
        12: "[IMG_BREAK]",
    },
    **{13: "[IMG_END]", 14: "[PREFIX]", 15: "[MIDDLE]", 16: "[SUFFIX]", 17: "[SYSTEM_PROMPT]"},
    **{18: "[/SYSTEM_PROMPT]", 19: "[TOOL_CONTENT]", 24: "[AUDIO]", 25: "[BEGIN_AUDIO]"},
    **{32: "[ARGS]", 33: "[CALL_ID]", 34: "[TRANSCRIBE]"},
}
PHI_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content if part.type == 'audio' %}<|audio|>{% endfor %}"
    "{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, **named: str) -> None:
    """The tokenizer, and what its processor asks it for by name."""
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | named))


def voxtral_folder(folder: Path) -> Path:
    """As mistralai/Voxtral-Mini-3B-2507: its tokenizer is tekken.json, which mistral-common reads; pieces are bytes."""
    n_special = 1000
    specials = [VOXTRAL_SPECIALS.get(rank, f"<SPECIAL_{rank}>") for rank in range(n_special)]
    tekken = {
        "config": {
            "pattern": "\\S+|\\s+",
            "num_vocab_tokens": 256,
            "default_vocab_size": 256 + n_special,
            "default_num_special_tokens": n_special,
            "version": "v11",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(bytes([rank])).decode(), "token_str": None}
            for rank in range(256)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(specials)
        ],
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
    }
    folder.mkdir(parents=True)
    (folder / "tekken.json").write_text(json.dumps(tekken))
    WhisperFeatureExtractor(feature_size=128, processor_class="VoxtralProcessor").save_pretrained(str(folder))
    config = VoxtralConfig(
        audio_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
            "initializer_range": 0.3,
        },
        text_config={
            **DECODER,
            "vocab_size": 256 + n_special,
            "head_dim": 8,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 11,
        },
        audio_token_id=24,
    )
    torch.manual_seed(0)
    VoxtralForConditionalGeneration(config).save_pretrained(str(folder))
    return folder


def phi4_folder(folder: Path, *, tied: bool = False, decoder: Mapping[str, Any] = DECODER) -> Path:
    """As microsoft/Phi-4-multimodal-instruct in the layout of transformers' own class.

    Its head is the embedding's where `tied`, as there; a tiny one that is so says one token again and again.
    """
    tokenizer = omni_tokenizer()
    tokenizer.add_tokens(
        ["<|image|>", "<|audio|>", "<|end|>", "<|user|>", "<|assistant|>"], special_tokens=True
    )
    tokenizer.eos_token = "<|endoftext|>"
    token_id = tokenizer.get_vocab()
    n_turned = round(0.75 * decoder["hidden_size"] / decoder["num_attention_heads"]) // 2
    config = Phi4MultimodalConfig(
        **decoder,
        vocab_size=len(tokenizer),
        eos_token_id=token_id["<|endoftext|>"],
        bos_token_id=token_id["<|endoftext|>"],
        pad_token_id=token_id["<|endoftext|>"],
        tie_word_embeddings=tied,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        sliding_window=262144,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * n_turned,
            "long_factor": [float(1 << place) for place in range(n_turned)],
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_token_id": token_id["<|image|>"],
            "crop_size": 28,
            "patch_size": 14,
        },
        audio_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_blocks": 2,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 16,
            "depthwise_separable_out_channel": 16,
            "nemo_conv_channels": 16,
            "audio_token_id": token_id["<|audio|>"],
        },
    )
    torch.manual_seed(0)
    model = Phi4MultimodalForCausalLM(config)
    model.generation_config.eos_token_id = [token_id["<|end|>"], token_id["<|endoftext|>"]]
    model.save_pretrained(str(folder))
    speech = get_peft_model(
        model, LoraConfig(r=2, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False)
    )
    speech.save_pretrained(str(folder / "speech-lora"))
    extractor = Phi4MultimodalFeatureExtractor(processor_class="Phi4MultimodalProcessor")
    extractor.save_pretrained(str(folder))
    save_tokenizer(tokenizer, folder, image_token="<|image|>", audio_token="<|audio|>")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": PHI_TEMPLATE}))
    return folder


# --- Granite Speech --------------------------------------------------------------------------------------------

GRANITE_SPECIALS = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>")
GRANITE_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>Today's Date: "
    "{{ strftime_now('%B %d, %Y') }}.<|end_of_text|>\n{% endif %}"
    "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)


def granite_folder(
    folder: Path,
    *,
    lora: bool = True,
    plus: bool = False,
    template: str = GRANITE_TEMPLATE,
    decoder: Mapping[str, Any] = DECODER,
) -> Path:
    """As ibm-granite/granite-speech-3.3-2b, its LoRA for sound beside the weights; without, as granite-4.0-1b-speech.

    `plus` is as granite-speech-4.1-2b-plus, whose projector sees an inner layer of the encoder, too.
    """
    tokenizer = learned_tokenizer(GRANITE_SPECIALS)
    tokenizer.eos_token = tokenizer.pad_token = "<|end_of_text|>"
    tokenizer.chat_template = template
    token_id = tokenizer.get_vocab()
    config_class = GraniteSpeechPlusConfig if plus else GraniteSpeechConfig
    config = config_class(
        encoder_config={
            "hidden_dim": 16,
            "num_layers": 2,
            "num_heads": 2,
            "output_dim": 10,
            "context_size": 40,
            "max_pos_emb": 50,
            "initializer_range": 0.3,
        }
        | ({"cat_hidden_layers": [1]} if plus else {}),
        projector_config={
            "model_type": "blip_2_qformer",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "encoder_hidden_size": 32 if plus else 16,
            "cross_attention_frequency": 1,
            "initializer_range": 0.3,
        },
        text_config={
            **decoder,
            "model_type": "granite",
            "vocab_size": len(tokenizer),
            "embedding_multiplier": 0.5,
            "residual_multiplier": 0.8,
            "attention_multiplier": 0.4,
            "logits_scaling": 4.0,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "eos_token_id": token_id["<|end_of_text|>"],
            "pad_token_id": token_id["<|end_of_text|>"],
        },
        audio_token_index=token_id["<|audio|>"],
        has_lora_adapter=lora,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = (GraniteSpeechPlusForConditionalGeneration if plus else GraniteSpeechForConditionalGeneration)(
        config
    )
    model.save_pretrained(str(folder), max_shard_size="100KB")
    if lora:
        tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
        weights = {
            name.removeprefix("base_model.model.model.language_model."): 0.1 * torch.randn(weight.shape)
            for name, weight in get_peft_model_state_dict(tuned).items()
        }
        tuned.peft_config["default"].save_pretrained(str(folder))
        save_file(
            {f"language_model.model.{name}": weight for name, weight in weights.items()},
            folder / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
    tokenizer.save_pretrained(str(folder))
    about = {
        "feature_extractor_type": "GraniteSpeechFeatureExtractor",
        "melspec_kwargs": {
            "hop_length": 160,
            "n_fft": 512,
            "n_mels": 80,
            "sample_rate": 16000,
            "win_length": 400,
        },
        "processor_class": "GraniteSpeechProcessor",
        "projector_downsample_rate": 5,
        "projector_window_size": 15,
        "sampling_rate": 16000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    (folder / "processor_config.json").write_text(
        json.dumps({"audio_token": "<|audio|>", "processor_class": "GraniteSpeechProcessor"})
    )
    return folder
