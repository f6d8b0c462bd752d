"""A whole Qwen2.5-Omni, random and tiny: real thinker class, real chunks and tokens, and a folder as the hub's."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from tgsr.models.qwen_omni import QwenOmni
from tiny import TEXTS

SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    *("<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>"),
)
# What the model's own template writes for a turn of one audio and one text; it adds a system turn where none is.
CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def omni_tokenizer() -> PreTrainedTokenizerBase:
    """Qwen2's class with Omni's special tokens and pieces learned from a few sentences."""
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        TEXTS,
        vocab_size=600,
        new_special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    return tokenizer


def tiny_qwen_omni(seed: int = 0, seconds: int = 300) -> QwenOmni:
    """Two decoder layers of width 32, one layer of width 16 in each tower; float32, in evaluation mode.

    The official path pads to `seconds`, which changes no number and costs most of a test's time.
    """
    tokenizer = omni_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = Qwen2_5OmniThinkerForConditionalGeneration(configuration(tokenizer))
    model.eval()
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=seconds)
    return QwenOmni("tiny", model, tokenizer, extractor, max_seconds=float(seconds))


def configuration(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5OmniThinkerConfig:
    token_id = tokenizer.get_vocab()
    return Qwen2_5OmniThinkerConfig(
        # The window (2 n_window mel columns), mel bins and positions are the real ones.
        audio_config={
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "output_dim": 32,
            "initializer_range": 0.3,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "num_heads": 2,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
            "initializer_range": 0.3,
            "tie_word_embeddings": False,
            "eos_token_id": token_id["<|im_end|>"],
            "pad_token_id": token_id["<|endoftext|>"],
        },
        audio_token_index=token_id["<|AUDIO|>"],
        image_token_index=token_id["<|IMAGE|>"],
        video_token_index=token_id["<|VIDEO|>"],
        audio_start_token_id=token_id["<|audio_bos|>"],
        audio_end_token_id=token_id["<|audio_eos|>"],
        vision_start_token_id=token_id["<|vision_bos|>"],
        vision_end_token_id=token_id["<|vision_eos|>"],
        initializer_range=0.3,
    )


def save_like_the_hub(lalm: QwenOmni, folder: Path) -> None:
    """`lalm` as the thinker of a whole Omni: the files of Qwen/Qwen2.5-Omni-7B, two shards, old names of weights.

    Talker and vocoder are a tensor each, there to be ignored.
    """
    tensors = {_hub_name(name): weight.contiguous() for name, weight in lalm.inner.state_dict().items()}
    tensors["talker.codec_head.weight"] = torch.zeros(4, 4)
    tensors["token2wav.code2wav_dit_model.proj_out.weight"] = torch.zeros(4, 4)
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": names[: len(names) // 2],
        "model-00002-of-00002.safetensors": names[len(names) // 2 :],
    }
    for file, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, inside in shards.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    thinker = lalm.inner.config.to_dict()
    rope = thinker["text_config"].pop("rope_parameters")  # which the hub's file spells in the old way
    thinker["text_config"]["rope_theta"] = rope["rope_theta"]
    thinker["text_config"]["rope_scaling"] = {
        "mrope_section": rope["mrope_section"],
        "rope_type": "default",
        "type": "default",
    }
    config = {
        "architectures": ["Qwen2_5OmniModel"],
        "model_type": "qwen2_5_omni",
        "enable_audio_output": True,
        "thinker_config": thinker,
        "talker_config": {"model_type": "qwen2_5_omni_talker"},
        "token2wav_config": {"model_type": "qwen2_5_omni_token2wav"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    extractor = lalm.feature_extractor.to_dict()
    extractor |= {"processor_class": "Qwen2_5OmniProcessor", "image_processor_type": "Qwen2VLImageProcessor"}
    extractor.pop("mel_filters", None)
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    template, lalm.tokenizer.chat_template = (
        lalm.tokenizer.chat_template,
        None,
    )  # the hub's is the processor's
    lalm.tokenizer.save_pretrained(str(folder))
    lalm.tokenizer.chat_template = template
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


def _hub_name(name: str) -> str:
    """The checkpoint is older than the layout `model.{audio_tower, visual, language_model}`."""
    for ours, theirs in (
        ("model.audio_tower.", "audio_tower."),
        ("model.visual.", "visual."),
        ("model.language_model.", "model."),
    ):
        if name.startswith(ours):
            return "thinker." + theirs + name.removeprefix(ours)
    return "thinker." + name
