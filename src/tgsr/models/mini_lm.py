"""mini-lm: the miniature with SmolLM2-135M-Instruct as decoder. Fluent, slower, and untrained.

Audio Flamingo 3's class, Whisper base's encoder with its whole window of 30 s, a random aligner, a Llama decoder.
Nobody has taught it to hear: train it before its answers mean anything.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

from tgsr.models import mini
from tgsr.models.audio_flamingo3 import AUDIO_TOKEN, AudioFlamingo3
from tgsr.models.packaged_weights import language_model, load_encoder

RESERVED = "<empty_output>"  # a token of SmolLM2's that chats never use: the audio's place needs no new one
UNTRAINED = (
    "mini-lm is untrained: its aligner is random, so that it writes fluent text about sound that it cannot hear; "
    "train stage 1 first (tgsr train sta --model mini-lm)"
)
# ChatML as SmolLM2 was tuned on it, with its own system turn, and a place for audio.
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
) + mini.CHAT_TEMPLATE


def load_mini_lm(name: str = "mini-lm", seed: int = 0) -> AudioFlamingo3:
    """The untrained model, float32; the same weights for the same seed.

    Raises FetchError where encoder or decoder cannot be had.
    """
    folder = language_model()
    tokenizer = tokenizer_of((folder / "tokenizer.json").read_text())
    decoder = LlamaConfig.from_pretrained(str(folder), dtype=torch.float32)
    model = assembled(decoder, tokenizer, seed)
    weights = {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}
    embeddings = weights["model.embed_tokens.weight"]
    inner = {f"model.language_model.{n.removeprefix('model.')}": w for n, w in weights.items()}
    encoder = {f"model.audio_tower.{n}": torch.from_numpy(w).float() for n, w in load_encoder().items()}
    missing, unexpected = model.load_state_dict(inner | encoder, False)
    missing = [key for key in missing if "multi_modal_projector" not in key and key != "lm_head.weight"]
    if missing or unexpected:
        raise RuntimeError(f"mini-lm: weights do not fit: missing {missing[:3]}, unknown {unexpected[:3]}")
    as_loud_as_text(model, embeddings)
    model.requires_grad_(False)
    model.eval()
    extractor = WhisperFeatureExtractor(feature_size=80)
    return AudioFlamingo3(name, model, tokenizer, extractor)


def tokenizer_of(tokenizer_json: str) -> PreTrainedTokenizerFast:
    """SmolLM2's tokenizer with <sound> in the place of a token that chats never use."""
    described = json.loads(tokenizer_json.replace(RESERVED, AUDIO_TOKEN))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


def assembled(
    decoder: LlamaConfig, tokenizer: PreTrainedTokenizerFast, seed: int, **encoder: Any
) -> AudioFlamingo3ForConditionalGeneration:
    """Audio Flamingo 3's class around a Llama decoder, random; the tower is Whisper base's unless `encoder` differs."""
    torch.manual_seed(seed)
    config = AudioFlamingo3Config(
        audio_config=AudioFlamingo3EncoderConfig(**(mini.WHISPER_BASE | encoder)),
        text_config=decoder,
        audio_token_id=tokenizer.get_vocab()[AUDIO_TOKEN],
    )
    config.tie_word_embeddings = bool(decoder.tie_word_embeddings)
    model = AudioFlamingo3ForConditionalGeneration(config)
    if config.tie_word_embeddings:  # which this class does not do by itself
        model.lm_head.weight = model.model.language_model.embed_tokens.weight
    return model


@torch.no_grad()
def as_loud_as_text(model: AudioFlamingo3ForConditionalGeneration, embeddings_VD: torch.Tensor) -> None:
    """Scales the aligner's last layer so that its outputs are as long as text embeddings are on average.

    For inputs of unit variance, which is what the encoder's last layer norm gives.
    """
    projector: Any = model.model.multi_modal_projector
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(256, projector.linear_1.weight.shape[1], generator=generator)
    scale = embeddings_VD.float().norm(dim=-1).mean() / projector(probe).norm(dim=-1).mean()
    projector.linear_2.weight *= scale
    projector.linear_2.bias *= scale
