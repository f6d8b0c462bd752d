"""Audio models of other families, random and tiny, as folders in the layout of their hub repositories."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    PreTrainedTokenizerBase,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tiny import DECODER, omni_tokenizer

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


def phi4_folder(folder: Path) -> Path:
    """As microsoft/Phi-4-multimodal-instruct in the layout of transformers' own class."""
    tokenizer = omni_tokenizer()
    tokenizer.add_tokens(["<|image|>", "<|audio|>"], special_tokens=True)
    token_id = tokenizer.get_vocab()
    config = Phi4MultimodalConfig(
        **DECODER,
        vocab_size=len(tokenizer),
        eos_token_id=token_id["<|im_end|>"],
        bos_token_id=token_id["<|im_start|>"],
        pad_token_id=token_id["<|endoftext|>"],
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
