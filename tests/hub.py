"""The paper's two models, random and tiny, as folders in the layout of their hub repositories.

Real are the classes, the files and their names, the old names of the weights in two shards, the special tokens and
their ids (a vocabulary of 151,643 pieces comes before them, most of it filler), the chat formats, the mel bins and
windows. Small are the widths and the number of layers.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerBase,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Config,
    Qwen2TokenizerFast,
    WhisperFeatureExtractor,
)

from tgsr.models.qwen_omni import QwenOmni
from tiny import TEXTS
from tiny_qwen import CHAT_TEMPLATE, configuration, save_like_the_hub

N_PIECES = 151643  # Qwen2.5's vocabulary without its special tokens
QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
OMNI_SPECIALS = (
    *(*QWEN, "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>", "<|IMAGE|>", "<|VIDEO|>"),
)
AF3_SPECIALS = (
    *(*QWEN, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>"),
    *(
        "<|quad_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ),
    *(f"<|filler_{index}|>" for index in range(151657, 151669)),  # tools and code, and four more
    "<sound>",
)
AF3_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content if part.type == 'audio' %}<sound>{% endfor %}"
    "{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer(specials: tuple[str, ...]) -> PreTrainedTokenizerBase:
    """Qwen2's pieces of a few sentences, fillers up to N_PIECES, then `specials` with their real ids."""
    learned = Qwen2TokenizerFast().train_new_from_iterator(
        TEXTS, vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    state = json.loads(learned.backend_tokenizer.to_str())
    pieces = {p: i for p, i in state["model"]["vocab"].items() if p not in specials}
    vocabulary = {piece: index for index, piece in enumerate(sorted(pieces, key=lambda piece: pieces[piece]))}
    vocabulary |= {f"filler{index}": index for index in range(len(vocabulary), N_PIECES)}
    merges = [tuple(pair) for pair in state["model"]["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = learned.backend_tokenizer.pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in specials])
    return Qwen2TokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        extra_special_tokens=list(specials),
    )


def omni_folder(folder: Path, seed: int = 0) -> Path:
    """As Qwen/Qwen2.5-Omni-7B: two decoder layers of width 32, one tower layer of width 16."""
    tokenizer = qwen_tokenizer(OMNI_SPECIALS)
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = configuration(tokenizer)
    config.text_config.vocab_size = 152064  # as the real one: more rows than tokens
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    folder.mkdir(parents=True, exist_ok=True)
    save_like_the_hub(QwenOmni("tiny", model, tokenizer, extractor), folder)
    return folder


def af3_folder(folder: Path, seed: int = 0, width: int = 32, deviation: float = 0.3) -> Path:
    """As nvidia/audio-flamingo-3-hf: two decoder layers of that width, one tower layer of width 16."""
    tokenizer = qwen_tokenizer(AF3_SPECIALS)
    token_id = tokenizer.get_vocab()
    torch.manual_seed(seed)
    config = AudioFlamingo3Config(
        audio_config=AudioFlamingo3EncoderConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        text_config=Qwen2Config(
            vocab_size=152064,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            eos_token_id=token_id["<|im_end|>"],
            pad_token_id=token_id["<|endoftext|>"],
            initializer_range=deviation,
        ),
        audio_token_id=token_id["<sound>"],
        initializer_range=deviation,
    )
    model = AudioFlamingo3ForConditionalGeneration(config).eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder), max_shard_size="12MB")
    extractor = WhisperFeatureExtractor(feature_size=128)
    AudioFlamingo3Processor(extractor, tokenizer, chat_template=AF3_TEMPLATE).save_pretrained(str(folder))
    return folder
