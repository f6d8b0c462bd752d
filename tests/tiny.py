"""A whole Audio Flamingo 3, random and tiny: real class, real tokenizer, real chat template, no weights needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    Qwen2Config,
)

from tgsr.models.audio_flamingo3 import AUDIO_TOKEN, AudioFlamingo3
from tgsr.models.mini import feature_extractor, train_tokenizer
from tgsr.rewards import RewardTerm

TEXTS = [
    "Which digit is said right after seven? (a) one (b) two (c) three (d) four",
    "To determine the best description, let's analyze the audio content and the given timestamps:",
    "From 1.20s to 3.40s, the speaker says seven two. Final answer: (b) two",
    "What is the timestamp of the following segment? The segment starts at 0.12 seconds and ends at 9.99 seconds.",
]


def tiny_lalm(seed: int = 0) -> AudioFlamingo3:
    """Two decoder layers of width 32, one encoder layer of width 16; float32, in evaluation mode."""
    tokenizer = train_tokenizer(TEXTS)
    torch.manual_seed(seed)
    config = AudioFlamingo3Config(
        audio_config=AudioFlamingo3EncoderConfig(
            num_mel_bins=80,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_source_positions=500,
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.3,
        ),
        audio_token_id=int(tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)),
    )
    model = AudioFlamingo3ForConditionalGeneration(config)
    model.eval()
    return AudioFlamingo3("tiny", model, tokenizer, feature_extractor(), max_seconds=10.0)


def saved(lalm: AudioFlamingo3, folder: Path) -> str:
    """The name by which `load` finds the model again, as transformers saves it."""
    lalm.inner.save_pretrained(str(folder))
    AudioFlamingo3Processor(
        lalm.feature_extractor,
        lalm.tokenizer,
        chat_template=lalm.tokenizer.chat_template,
        max_audio_len=int(lalm.max_seconds),
    ).save_pretrained(str(folder))
    return str(folder)


def tiny_base(name: str = "tiny", placement: object = None) -> AudioFlamingo3:
    """tiny_lalm in the place of tgsr.models.load.load."""
    return tiny_lalm()


def uneven(completions: Sequence[str], **columns: object) -> list[float]:
    """Rewards that differ within a group: a tiny model earns no real one."""
    return [float(index % 3) for index in range(len(completions))]


def rewarded_by(function: Callable[..., Sequence[float]]) -> tuple[RewardTerm, ...]:
    """The paper's two terms by name; the whole reward is the function's."""
    return RewardTerm("answer", function), RewardTerm("timestamp_grounding", function, 0.0)


def tiny_features(n_frames: int, seed: int) -> torch.Tensor:
    return torch.randn(n_frames, 16, generator=torch.Generator().manual_seed(seed))
