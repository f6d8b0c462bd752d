"""The families that train, random and tiny, in memory and as folders in the layout of their hub repositories.

Real are the classes, the special tokens and the chat formats; in the folders also the files and their names, the old
names of Omni's weights, and the tokens' ids (a vocabulary of 151,643 pieces comes before them, most of it filler).
Small are the widths and the number of layers; everything is float32 and in evaluation mode.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GemmaTokenizer,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    MusicFlamingoProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen2TokenizerFast,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeThinkerConfig

from tgsr.audio import SAMPLE_RATE
from tgsr.data.questions.build import ask_about, compose_clips, write_questions
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.audio_flamingo3 import AUDIO_TOKEN, AudioFlamingo3
from tgsr.models.gemma4 import Gemma4, Gemma4Unified
from tgsr.models.merge import merge
from tgsr.models.mini import feature_extractor, train_tokenizer
from tgsr.models.music_flamingo import AFTER_AUDIO, BEFORE_AUDIO
from tgsr.models.qwen2_audio import Qwen2Audio
from tgsr.models.qwen_omni import QwenOmni
from tgsr.models.whisper import ResidualAligner, Whisper, with_time_tokens
from tgsr.rewards import RewardTerm

TEXTS = [
    "Which digit is said right after seven? (a) one (b) two (c) three (d) four",
    "To determine the best description, let's analyze the audio content and the given timestamps:",
    "From 1.20s to 3.40s, the speaker says seven two. Final answer: (b) two",
    "What is the timestamp of the following segment? The segment starts at 0.12 seconds and ends at 9.99 seconds.",
]
DECODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


Made = TypeVar("Made")


def made_once(make: Callable[..., Made]) -> Callable[..., Made]:
    """`make`, called once a process for the same arguments: each caller gets a copy.

    torch draws on as after a call, so that no number depends on who called first.
    """

    @cache
    def kept(*given: object, **named: object) -> tuple[Made, torch.Tensor]:
        return make(*given, **named), torch.get_rng_state()

    @wraps(make)
    def copied(*given: object, **named: object) -> Made:
        made, state = kept(*given, **named)
        torch.set_rng_state(state)
        return copy.deepcopy(made)

    return copied


def tiny_features(n_frames: int, seed: int) -> torch.Tensor:
    return torch.randn(n_frames, 16, generator=torch.Generator().manual_seed(seed))


def uneven(completions: Sequence[str], **columns: object) -> list[float]:
    """Rewards that differ within a group: a tiny model earns no real one."""
    return [float(index % 3) for index in range(len(completions))]


def rewarded_by(function: Callable[..., Sequence[float]]) -> tuple[RewardTerm, ...]:
    """The paper's two terms by name; the whole reward is the function's."""
    return RewardTerm("answer", function), RewardTerm("timestamp_grounding", function, 0.0)


def questions_in(folder: Path, stage: str, n_clips: int, n_phrases: int = 0, most: int | None = None) -> Path:
    """A file with the first `most` questions about composed clips, which lie beside it."""
    clips = compose_clips(n_clips, "train", 0, folder)
    return write_questions(clips, ask_about(clips, stage, n_phrases, 0)[:most], folder)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Mono samples at 16 kHz."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))
    return (0.1 * samples).astype(np.float32)


def trainable(lalm: Any, mixture: Sequence[str] = ()) -> Any:
    """The model with a LoRA that is not zero; it and the aligner train."""
    with_lora(lalm, 2, 4, 0, mixture)
    lalm.aligner.requires_grad_(True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in lalm.model.named_parameters():
            if ".lora_B." in name:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return lalm


def logged(run: Path, *, with_seconds: bool = False) -> list[dict[str, Any]]:
    """The rows of a run's log, without the seconds, which no two runs have alike."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds" or with_seconds} for row in rows]


# --- Audio Flamingo 3 ------------------------------------------------------------------------------------------


def af3_config(
    tokenizer: PreTrainedTokenizerBase, n_rows: int, encoder: dict[str, int], width: int = 32, **more: float
) -> AudioFlamingo3Config:
    """Two decoder layers of that width, one encoder layer of width 16; `more` goes to the decoder and the whole."""
    audio = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    wide = {"hidden_size": width, "intermediate_size": 2 * width}
    return AudioFlamingo3Config(
        audio_config=AudioFlamingo3EncoderConfig(**audio, **encoder),
        text_config=Qwen2Config(vocab_size=n_rows, **(DECODER | wide | ends | more)),
        audio_token_id=int(tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)),
        **more,
    )


@made_once
def tiny_lalm(seed: int = 0, window: int | None = None) -> AudioFlamingo3:
    """As the miniature: its mel bins, windows of 10 s, and a tokenizer learned from a few sentences.

    With a `window` the decoder's first layer attends to so many positions and the second to all.
    """
    tokenizer = train_tokenizer(TEXTS)
    torch.manual_seed(seed)
    config = af3_config(tokenizer, len(tokenizer), {"num_mel_bins": 80, "max_source_positions": 500})
    if window:
        config.text_config.sliding_window = window
        config.text_config.layer_types = ["sliding_attention", "full_attention"]
    model = AudioFlamingo3ForConditionalGeneration(config).eval()
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


# --- Music Flamingo --------------------------------------------------------------------------------------------

MF_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou hear music.<|im_end|>\n{% endif %}"
    "{% for m in messages if m.content is not none %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content if part.type == 'audio' %}<sound>{% endfor %}"
    "{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def mf_folder(folder: Path, seed: int = 0, window: int = 2, max_audio_len: int = 120) -> Path:
    """As nvidia/audio-flamingo-next-hf, with a small vocabulary and windows of `window` s (there of 30 s, 1,800 s in
    all): two decoder layers of width 32, one tower layer of width 16, and two end tokens.
    """
    tokenizer = train_tokenizer(TEXTS)
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [BEFORE_AUDIO, AFTER_AUDIO]}, replace_extra_special_tokens=False
    )
    tokenizer.chat_template = MF_TEMPLATE
    torch.manual_seed(seed)
    like = af3_config(tokenizer, len(tokenizer), {"max_source_positions": 50 * window}, initializer_range=0.3)
    before, after = tokenizer.convert_tokens_to_ids([BEFORE_AUDIO, AFTER_AUDIO])
    config = MusicFlamingoConfig(
        audio_config=like.audio_config,
        text_config=like.text_config,
        audio_token_id=like.audio_token_id,
        audio_bos_token_id=before,
        audio_eos_token_id=after,
        initializer_range=0.3,
    )
    model = MusicFlamingoForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.save_pretrained(str(folder), max_shard_size="50KB")
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=window)
    MusicFlamingoProcessor(
        extractor, tokenizer, chat_template=MF_TEMPLATE, max_audio_len=max_audio_len
    ).save_pretrained(str(folder))
    return folder


# --- Qwen2.5-Omni ----------------------------------------------------------------------------------------------

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


def learned_tokenizer(specials: Sequence[str]) -> PreTrainedTokenizerBase:
    """Qwen2's class with these special tokens, and pieces learned from a few sentences."""
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        TEXTS,
        vocab_size=600,
        new_special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    return tokenizer


def omni_tokenizer() -> PreTrainedTokenizerBase:
    """With Omni's special tokens."""
    return learned_tokenizer(SPECIALS)


def narrow_qwen2(tokenizer: PreTrainedTokenizerBase) -> Qwen2Config:
    """A text model for other trainers, which need one and learn nothing that is looked at."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


@made_once
def tiny_qwen_omni(seed: int = 0, seconds: int = 300) -> QwenOmni:
    """Two decoder layers of width 32, one layer of width 16 in each tower; float32, in evaluation mode.

    The official path pads to `seconds`, which changes no number and costs most of a test's time.
    """
    tokenizer = omni_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = Qwen2_5OmniThinkerForConditionalGeneration(omni_config(tokenizer))
    model.eval()
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=seconds)
    return QwenOmni("tiny", model, tokenizer, extractor, max_seconds=float(seconds))


def omni_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5OmniThinkerConfig:
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
            **DECODER,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
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
    template = lalm.tokenizer.chat_template
    lalm.tokenizer.chat_template = None  # the hub's is the processor's
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


# --- Qwen2-Audio -----------------------------------------------------------------------------------------------

TEXT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)  # of a tokenizer that was made for text


@made_once
def tiny_qwen2_audio(seed: int = 0, seconds: int = 30) -> Qwen2Audio:
    """Two decoder layers of width 32, one encoder layer of width 16, windows of `seconds`; a small vocabulary."""
    tokenizer = omni_tokenizer()
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=seconds)
    tokenizer.chat_template = Qwen2AudioProcessor(extractor, tokenizer).chat_template
    token_id = tokenizer.get_vocab()
    torch.manual_seed(seed)
    config = Qwen2AudioConfig(
        audio_config={
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "max_source_positions": 50 * seconds,
            "initializer_range": 0.3,
        },
        text_config=Qwen2Config(
            vocab_size=len(tokenizer) + 8,  # more rows than tokens
            eos_token_id=token_id["<|im_end|>"],
            pad_token_id=token_id["<|endoftext|>"],
            **DECODER,
        ),
        audio_token_index=token_id["<|AUDIO|>"],
        initializer_range=0.3,
    )
    model = Qwen2AudioForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = [token_id["<|endoftext|>"], token_id["<|im_end|>"]]
    return Qwen2Audio("tiny", model, tokenizer, extractor, max_seconds=float(seconds))


def qwen2_audio_folder(folder: Path, seed: int = 0) -> Path:
    """As Qwen/Qwen2-Audio-7B-Instruct: shards, the hub's names of weights, its old spelling of a configuration.

    No file has a template that knows of audio.
    """
    lalm = tiny_qwen2_audio(seed)
    lalm.inner.save_pretrained(str(folder), max_shard_size="100KB")
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    text |= {
        "rope_theta": text.pop("rope_parameters")["rope_theta"],
        "use_mrope": False,
        "sliding_window": 32768,
    }
    del text["layer_types"]
    config |= {"ignore_index": -100, "vocab_size": text["vocab_size"]}
    (folder / "config.json").write_text(json.dumps(config))
    extractor = lalm.feature_extractor.to_dict() | {"processor_class": "Qwen2AudioProcessor"}
    extractor.pop("mel_filters", None)
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    lalm.tokenizer.chat_template = TEXT_TEMPLATE
    lalm.tokenizer.save_pretrained(str(folder), save_jinja_files=False)
    return folder


# --- Whisper ---------------------------------------------------------------------------------------------------

WHISPER_SPECIALS = (
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>"),
    *("<|startofprev|>", "<|notimestamps|>"),
)


@cache
def whisper_tokenizer() -> PreTrainedTokenizerBase:
    """Pieces learned from a few sentences, Whisper's special tokens that a prompt needs, and its time tokens."""
    learned = Qwen2TokenizerFast().train_new_from_iterator(
        TEXTS, vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    state = json.loads(learned.backend_tokenizer.to_str())["model"]
    backend = Tokenizer(models.BPE(state["vocab"], [tuple(pair) for pair in state["merges"]]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in WHISPER_SPECIALS]
    )
    end = "<|endoftext|>"
    return with_time_tokens(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end))


@made_once
def tiny_whisper(seed: int = 0) -> Whisper:
    """Two layers of width 32 on either side, windows of 30 s, a random aligner; float32, in evaluation mode."""
    tokenizer = whisper_tokenizer()
    end = int(tokenizer.convert_tokens_to_ids("<|endoftext|>"))
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
        **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
        **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
        init_std=0.3,
        decoder_start_token_id=int(tokenizer.convert_tokens_to_ids("<|startoftranscript|>")),
        **{f"{name}_token_id": end for name in ("bos", "eos", "pad")},
    )
    model = WhisperForConditionalGeneration(config).eval().requires_grad_(False)
    model.model.aligner = ResidualAligner(config.d_model)
    torch.nn.init.normal_(model.model.aligner.linear_2.weight, std=0.1)
    return Whisper("tiny", model, tokenizer, WhisperFeatureExtractor())


def whisper_folder(folder: Path, seed: int = 0) -> Path:
    """tiny_whisper as `load` finds it, its aligner beside the official class's weights."""
    return merge(tiny_whisper(seed), folder)


# --- the hub's folders -----------------------------------------------------------------------------------------

N_PIECES = 151_643  # Qwen2.5's vocabulary without its special tokens
FEW_PIECES = 1_000  # enough for what tests say, and read in no time
MORE_ROWS = 421  # of embeddings than pieces: more than special tokens
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


@cache
def qwen_tokenizer(specials: tuple[str, ...], n_pieces: int) -> PreTrainedTokenizerBase:
    """Qwen2's pieces of a few sentences, fillers up to n_pieces, then `specials`: of N_PIECES with their real ids."""
    learned = Qwen2TokenizerFast().train_new_from_iterator(
        TEXTS, vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    state = json.loads(learned.backend_tokenizer.to_str())
    pieces = {p: i for p, i in state["model"]["vocab"].items() if p not in specials}
    vocabulary = {piece: index for index, piece in enumerate(sorted(pieces, key=lambda piece: pieces[piece]))}
    vocabulary |= {f"filler{index}": index for index in range(len(vocabulary), n_pieces)}
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


def af3_folder(
    folder: Path, seed: int = 0, width: int = 32, deviation: float = 0.3, n_pieces: int = FEW_PIECES
) -> Path:
    """As nvidia/audio-flamingo-3-hf: two decoder layers of that width, one tower layer of width 16, some shards."""
    tokenizer = qwen_tokenizer(AF3_SPECIALS, n_pieces)
    torch.manual_seed(seed)
    config = af3_config(tokenizer, n_pieces + MORE_ROWS, {}, width, initializer_range=deviation)
    model = AudioFlamingo3ForConditionalGeneration(config).eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder), max_shard_size=80 * n_pieces)
    extractor = WhisperFeatureExtractor(feature_size=128)
    AudioFlamingo3Processor(extractor, tokenizer, chat_template=AF3_TEMPLATE).save_pretrained(str(folder))
    return folder


def omni_folder(folder: Path, seed: int = 0, n_pieces: int = FEW_PIECES) -> Path:
    """As Qwen/Qwen2.5-Omni-7B: two decoder layers of width 32, one tower layer of width 16."""
    tokenizer = qwen_tokenizer(OMNI_SPECIALS, n_pieces)
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = omni_config(tokenizer)
    config.text_config.vocab_size = n_pieces + MORE_ROWS
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    folder.mkdir(parents=True, exist_ok=True)
    save_like_the_hub(QwenOmni("tiny", model, tokenizer, extractor), folder)
    return folder


# --- Qwen3-Omni ------------------------------------------------------------------------------------------------

QWEN3_SPECIALS = (
    *(*QWEN, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    *("<|audio_start|>", "<|audio_end|>", "<|audio_pad|>"),
)
# A system turn only where one is given, as the published template has it.
QWEN3_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING_TEMPLATE = QWEN3_TEMPLATE.replace("assistant\n", "assistant\n<think>\n")


@cache
def qwen3_tokenizer() -> PreTrainedTokenizerBase:
    """With <think>, too, a token that decoded responses show."""
    tokenizer = learned_tokenizer(QWEN3_SPECIALS)
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def qwen3_omni_config() -> Qwen3OmniMoeThinkerConfig:
    """Two decoder layers of width 32 with 4 experts, of which a token takes 2; chunks and windows are the real ones."""
    token_id = qwen3_tokenizer().get_vocab()
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1], "interleaved": True}
    return Qwen3OmniMoeThinkerConfig(
        audio_config={
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "downsample_hidden_size": 8,
            "output_dim": 32,
            "initializer_range": 0.3,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
        },
        text_config={
            **DECODER,
            "vocab_size": len(token_id) + 9,
            "moe_intermediate_size": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "eos_token_id": token_id["<|im_end|>"],
            "pad_token_id": token_id["<|endoftext|>"],
            "rope_parameters": rope,
            "max_position_embeddings": 65536,
        },
        audio_token_id=token_id["<|audio_pad|>"],
        image_token_id=token_id["<|image_pad|>"],
        video_token_id=token_id["<|video_pad|>"],
        audio_start_token_id=token_id["<|audio_start|>"],
        audio_end_token_id=token_id["<|audio_end|>"],
        vision_start_token_id=token_id["<|vision_start|>"],
        vision_end_token_id=token_id["<|vision_end|>"],
        initializer_range=0.3,
    )


def qwen3_omni_folder(folder: Path, seed: int = 0, *, thinking: bool = False) -> Path:
    """As Qwen/Qwen3-Omni-30B-A3B-Instruct, or -Thinking, which has no talker; an expert's matrices by themselves."""
    torch.manual_seed(seed)
    thinker = Qwen3OmniMoeThinkerForConditionalGeneration(qwen3_omni_config()).eval()
    folder.mkdir(parents=True, exist_ok=True)
    thinker.save_pretrained(str(folder))
    weights = load_file(folder / "model.safetensors")
    whole = {f"thinker.{name.removeprefix('thinker.')}": weight for name, weight in weights.items()}
    whole |= {} if thinking else {"talker.codec_head.weight": torch.zeros(4, 4)}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "model_type": "qwen3_omni_moe",
        "enable_audio_output": not thinking,
        "thinker_config": thinker.config.to_dict(),
    }
    (folder / "config.json").write_text(json.dumps(config))
    ends = [qwen3_tokenizer().get_vocab()[name] for name in ("<|im_end|>", "<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "do_sample": True}))
    extractor = WhisperFeatureExtractor(feature_size=128).to_dict()
    extractor |= {"processor_class": "Qwen3OmniMoeProcessor", "image_processor_type": "Qwen2VLImageProcessor"}
    extractor.pop("mel_filters", None)
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    qwen3_tokenizer().save_pretrained(str(folder))
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described |= {f"{kind}_token": f"<|{kind}_pad|>" for kind in ("image", "audio", "video")}
    described |= {f"{kind}_bos_token": f"<|{kind}_start|>" for kind in ("vision", "audio")}
    described |= {f"{kind}_eos_token": f"<|{kind}_end|>" for kind in ("vision", "audio")}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    template = THINKING_TEMPLATE if thinking else QWEN3_TEMPLATE
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return folder


# --- Gemma 4 ---------------------------------------------------------------------------------------------------

GEMMA_NAMED = {
    **{"sot_token": "<|turn>", "eot_token": "<turn|>", "soc_token": "<|channel>", "eoc_token": "<channel|>"},
    **{
        "boa_token": "<|audio>",
        "audio_token": "<|audio|>",
        "eoa_token": "<audio|>",
        "think_token": "<|think|>",
    },
    **{"boi_token": "<|image>", "image_token": "<|image|>", "eoi_token": "<image|>"},
    "str_token": "<|tool_response>",
}
# A system turn only where one is given, and of one text; texts lose blanks at their ends, as in a published template.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.content is string or m.role == 'system' %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'audio' %}<|audio|>{% elif part.type == 'text' %}{{ part.text | trim }}{% endif %}"
    "{% endfor %}{% endif %}<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>model\n{% endif %}"
)


# The large models' opens and ends a thought where nobody asks for one.
LARGE_GEMMA_TEMPLATE = GEMMA_TEMPLATE.replace("<|turn>model\n", "<|turn>model\n<|channel>thought\n<channel|>")


@cache
def gemma_tokenizer(template: str = GEMMA_TEMPLATE) -> PreTrainedTokenizerBase:
    """Pieces of a few sentences, bytes for all else, and Gemma 4's special tokens."""
    learned = Tokenizer(models.BPE())
    learned.train_from_iterator(
        [text.replace(" ", "▁") for text in TEXTS], trainers.BpeTrainer(vocab_size=300, show_progress=False)
    )
    state = json.loads(learned.to_str())["model"]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(state["vocab"], key=lambda piece: state["vocab"][piece])
    return GemmaTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[tuple(pair) for pair in state["merges"]],
        add_bos_token=False,
        extra_special_tokens=GEMMA_NAMED | {"video_token": "<|video|>"},
        chat_template=template,
    )


def tiny_gemma4(seed: int = 0, *, unified: bool = False, decoder: Mapping[str, Any] = DECODER) -> Gemma4:
    """Four layers of width 32, a sliding window of 12; without `unified` the last two attend to the keys of the others.

    Frames are 16 wide, with `unified` 640 samples of the sound itself.
    """
    tokenizer = gemma_tokenizer(LARGE_GEMMA_TEMPLATE if unified else GEMMA_TEMPLATE)
    token_id = tokenizer.get_vocab()
    text: dict[str, Any] = {
        **{"head_dim": 8, "global_head_dim": 16, "sliding_window": 12},
        **decoder,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "final_logit_softcapping": 5.0,
        "vocab_size": len(tokenizer) + 8,
        "initializer_range": 0.15,
        **{"attention_k_eq_v": True, "num_global_key_value_heads": 1},
    }
    shared = {"num_kv_shared_layers": 2, "use_double_wide_mlp": True, "attention_k_eq_v": False}
    pieces = {"hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": text["vocab_size"]}
    ids = {
        **{f"{kind}_token_id": token_id[f"<|{kind}|>"] for kind in ("audio", "image", "video")},
        **{"boa_token_id": token_id["<|audio>"], "eoa_token_index": token_id["<audio|>"]},
        **{"boi_token_id": token_id["<|image>"], "eoi_token_id": token_id["<image|>"]},
    }
    tower = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "initializer_range": 0.3}
    heard = tower | {"subsampling_conv_channels": [128, 4], "output_proj_dims": 16}
    seen = tower | {"intermediate_size": 16, "head_dim": 8, "num_key_value_heads": 2}
    raw = {"mm_embed_dim": 8, "mm_posemb_size": 4, "output_proj_dims": text["hidden_size"]}
    torch.manual_seed(seed)
    kind, model_class, config, extractor = (
        (
            Gemma4Unified,
            Gemma4UnifiedForConditionalGeneration,
            Gemma4UnifiedConfig(text_config=text, audio_config={}, vision_config=raw, **ids),
            Gemma4UnifiedAudioFeatureExtractor(),
        )
        if unified
        else (
            Gemma4,
            Gemma4ForConditionalGeneration,
            Gemma4Config(
                text_config=text | shared | pieces,
                audio_config=heard,
                vision_config=seen | {"position_embedding_size": 16},
                **ids,
            ),
            Gemma4AudioFeatureExtractor(),
        )
    )
    model: Any = model_class(config).eval()
    with torch.no_grad():
        torch.nn.init.normal_(model.model.embed_audio.embedding_projection.weight, std=0.3)
        fills = {"layer_scalar": 0.7, "output_max": 2.0}
        # Calmer than at random: each rounding would else grow from layer to layer.
        fills |= {"q_norm.weight": 0.25, "post_per_layer_input_norm.weight": 0.3}
        fills |= {f"post_{part}_layernorm.weight": 0.3 for part in ("attention", "feedforward")}
        for name, weight in model.state_dict().items():
            for end in (end for end in fills if name.endswith(end)):
                weight.fill_(fills[end])
    model.generation_config.eos_token_id = [
        token_id[name] for name in ("<eos>", "<turn|>", "<|tool_response>")
    ]
    return kind("tiny", model, tokenizer, extractor)


def gemma4_folder(folder: Path, seed: int = 0, *, unified: bool = False) -> Path:
    """As google/gemma-4-E2B-it, or with `unified` google/gemma-4-12B-it.

    Keys of layers that attend to others' lie in the former's file all the same.
    """
    lalm = tiny_gemma4(seed, unified=unified)
    lalm.inner.save_pretrained(str(folder))
    if not unified:
        weights = load_file(folder / "model.safetensors")
        for kind in ("k_proj", "v_proj", "k_norm"):
            of_layer = "model.language_model.layers.{}.self_attn." + kind + ".weight"
            for layer in (2, 3):
                weights[of_layer.format(layer)] = torch.zeros_like(weights[of_layer.format(layer - 2)])
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    lalm.tokenizer.save_pretrained(str(folder))
    described = {
        "processor_class": "Gemma4UnifiedProcessor" if unified else "Gemma4Processor",
        "audio_seq_length": 750,
        "feature_extractor": json.loads(lalm.feature_extractor.to_json_string()),
        "image_processor": {"image_processor_type": "Gemma4ImageProcessor"},
        "video_processor": {"video_processor_type": "Gemma4VideoProcessor"},
    }
    (folder / "processor_config.json").write_text(json.dumps(described))
    return folder
