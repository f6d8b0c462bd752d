"""The miniature: Audio Flamingo 3's class with Whisper base's encoder and a small Qwen2 decoder of ours.

Its world is spoken digits, its window ten seconds. What ships in assets/mini is the decoder, the aligner
and the tokenizer; the encoder comes from `tgsr fetch`.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    WhisperFeatureExtractor,
)
from transformers.initialization import no_init_weights

from tgsr.disk.whole import whole, whole_files, write_whole
from tgsr.errors import ModelError
from tgsr.models.audio_flamingo3 import AUDIO_TOKEN, AudioFlamingo3
from tgsr.models.packaged_weights import load_encoder

WINDOW_SECONDS = 10
N_POSITIONS = WINDOW_SECONDS * 50  # Whisper's encoder has 50 positions a second
N_PIECES = 1280
WHISPER_BASE: dict[str, Any] = {
    "num_mel_bins": 80,
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
}  # its encoder
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", AUDIO_TOKEN)
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'audio' %}<sound>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Letters with the space before them, every digit alone, punctuation, white space. Qwen2's split also glues a bracket
# to the letters after it: "(b" in a list of choices, " (" and "b" in an answer; a small decoder never saw that the two
# are the same letter (its answers had the right text in 61 % and that text's letter in 18 %).
SPLIT = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level pieces learned from `texts`: any text can be written, digits of numbers stay single."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_PIECES,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIALS),
        chat_template=CHAT_TEMPLATE,
    )


def feature_extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_SECONDS)


def configuration(
    tokenizer: PreTrainedTokenizerFast, *, hidden: int = 256, layers: int = 6
) -> AudioFlamingo3Config:
    """Whisper base's encoder (512 wide, 6 layers) and a decoder of `layers` layers, `hidden` wide."""
    vocabulary = (len(tokenizer) + 63) // 64 * 64
    return AudioFlamingo3Config(
        audio_config=AudioFlamingo3EncoderConfig(**WHISPER_BASE, max_source_positions=N_POSITIONS),
        text_config=Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            num_key_value_heads=hidden // 64,
            max_position_embeddings=4096,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        audio_token_id=tokenizer.get_vocab()[AUDIO_TOKEN],
    )


def with_encoder(model: AudioFlamingo3ForConditionalGeneration) -> AudioFlamingo3ForConditionalGeneration:
    """The model given, with Whisper base's encoder in its audio tower, frozen; its position table cut to the window."""
    weights = {name: torch.from_numpy(array).float() for name, array in load_encoder().items()}
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:N_POSITIONS]
    model.model.audio_tower.load_state_dict(weights, strict=True)
    model.model.audio_tower.requires_grad_(False)
    return model


def untrained(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> AudioFlamingo3:
    """The miniature before any training: real encoder, random aligner and decoder."""
    torch.manual_seed(seed)
    model = AudioFlamingo3ForConditionalGeneration(configuration(tokenizer))
    previous_token_heads(model)
    return wrap("mini (untrained)", with_encoder(model), tokenizer)


def previous_token_heads(
    model: AudioFlamingo3ForConditionalGeneration, strength: float = 40.0, n_frequencies: int = 4
) -> None:
    """Lets one head a key head of the first layer begin by looking 1, 2, 3 ... tokens back.

    A decoder finds such heads by itself, but late, and copying from the context waits for them. The biases
    of query and key alone do it: equal vectors in the fastest rotary frequencies, the query's turned back
    by the distance, score highest at that distance. All of it stays trainable.
    """
    config: Any = model.config.text_config
    width = config.hidden_size // config.num_attention_heads
    n_shared = config.num_attention_heads // config.num_key_value_heads
    attention = model.model.language_model.layers[0].self_attn
    index = torch.arange(n_frequencies)
    turn = config.rope_parameters["rope_theta"] ** (-2 * index / width)  # radians a token
    with torch.no_grad():
        for head in range(config.num_key_value_heads):
            distance = head + 1
            key = attention.k_proj.bias.view(-1, width)[head]
            query = attention.q_proj.bias.view(-1, width)[head * n_shared]
            key[index] = strength**0.5
            query[index] = strength**0.5 * torch.cos(distance * turn)
            query[index + width // 2] = -(strength**0.5) * torch.sin(distance * turn)


def wrap(
    name: str, model: AudioFlamingo3ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
) -> AudioFlamingo3:
    model.eval()
    return AudioFlamingo3(name, model, tokenizer, feature_extractor(), max_seconds=float(WINDOW_SECONDS))


def assets() -> Path:
    with as_file(files("tgsr") / "assets" / "mini") as folder:
        return folder


def save_base(lalm: AudioFlamingo3, folder: Path) -> None:
    """Decoder, aligner and tokenizer as safetensors and JSON; the encoder is left out, `tgsr fetch` has it."""
    weights = {
        name: weight.detach().contiguous()
        for name, weight in lalm.inner.state_dict().items()
        if ".audio_tower." not in name
    }
    with whole(folder / "base.safetensors") as half:
        save_file(weights, half, metadata={"format": "pt"})
    with whole_files(folder) as half:
        lalm.tokenizer.save_pretrained(str(half))
    write_whole(folder / "chat_template.jinja", CHAT_TEMPLATE)


def load_base(folder: Path | None = None, name: str = "mini") -> AudioFlamingo3:
    """The base model from the package's own files or from a folder that `tgsr train base` wrote.

    Raises ModelError where a file is missing or does not fit.
    """
    folder = folder or assets()
    for needed in ("base.safetensors", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / needed).exists():
            raise ModelError(f"{folder}: {needed} is missing; install tgsr again or run `tgsr train base`")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / 'tokenizer.json'}: truncated or altered ({error}); train the base again"
        ) from error
    with no_init_weights():  # random numbers for all of them take longer than reading them
        model = AudioFlamingo3ForConditionalGeneration(configuration(tokenizer))
    try:
        weights = load_file(folder / "base.safetensors")
    except SafetensorError as error:
        raise ModelError(
            f"{folder / 'base.safetensors'}: truncated or altered ({error}); install tgsr again"
        ) from error
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [key for key in missing if ".audio_tower." not in key]
    if missing or unexpected:
        raise ModelError(
            f"{folder / 'base.safetensors'}: lacks {missing[:3]} and has unknown {unexpected[:3]}; "
            "it belongs to another version of the miniature"
        )
    return wrap(name, with_encoder(model), tokenizer)
