"""Forced alignment against exact times and planted paths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForTokenClassification,
    Qwen3ASRProcessor,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)
from transformers.models.qwen3_asr.processing_qwen3_asr import (
    FORCED_ALIGNER_LANGUAGES,
    LANGUAGE_CODE_TO_NAME,
)

from tgsr.audio import SAMPLE_RATE
from tgsr.data.corpora.spoken_digits import compose, recordings
from tgsr.data.transcribe.forced_alignment import (
    Ctc,
    PocketSphinx,
    Qwen3,
    aligned,
    aligned_text,
    ctc_path,
    sounds,
    stretches,
)
from tgsr.data.transcribe.spelling import readings, spell
from tgsr.errors import ModelError
from tgsr.records import UNALIGNED
from tgsr.timeline import Span, Word
from tiny import learned_tokenizer


def test_digits_are_found_where_they_are_said() -> None:
    """Real recordings, joined at known times, four accents: half of the starts within 0.05 s."""
    off = []
    for seed in range(6):
        made = compose(seed, "train", seconds=(4.0, 9.0))
        found = aligned_text(" ".join(word.text for word in made.clip.words), made.samples, PocketSphinx())
        assert found is not None
        off += [abs(a.start - b.start) for a, b in zip(found.words, made.clip.words, strict=True)]
    assert np.median(off) < 0.05
    assert np.percentile(off, 90) < 0.3


def test_marks_of_a_publishers_text_are_no_words() -> None:
    made = compose(3, "train", seconds=(4.0, 6.0))
    first, *middle, last = (word.text for word in made.clip.words)
    plain = aligned_text(" ".join((first, *middle, last)), made.samples, PocketSphinx())
    marked = f"[NOISE] {first} <unk> {' '.join(middle)} {{cough}} {last} [laughter on the phone]"
    found = aligned_text(marked, made.samples, PocketSphinx())
    assert plain is not None
    assert found is not None
    assert (found.words, plain.missing) == (plain.words, ())
    assert [(gap.start, gap.end) for gap in found.missing] == [(plain.words[0].end, plain.words[1].start)]
    assert aligned_text("[NOISE]", made.samples, PocketSphinx()) is None


def test_what_was_aligned_before_does_not_matter() -> None:
    made, other = compose(1, "train", seconds=(4.0, 6.0)), compose(2, "train", seconds=(4.0, 6.0))
    words = [word.text for word in made.clip.words]
    aligner = PocketSphinx()
    first = aligner(made.samples, words)
    aligner(other.samples, [word.text for word in other.clip.words])
    assert aligner(made.samples, words) == first


def test_words_that_are_not_said_keep_their_times_and_say_so() -> None:
    silence = np.zeros(3 * SAMPLE_RATE, np.float32)
    heard = (Word("zero", 0.5, 0.9, None, "whisper", 0.7), Word("one", 1.0, 1.4, None, "whisper", 0.6))

    def fails(samples: np.ndarray, words: Sequence[str]) -> list[Span] | None:
        return None

    fails.source = "none"  # type: ignore[attr-defined]
    words, flags = aligned(heard, silence, fails)  # type: ignore[arg-type]
    assert words == heard
    assert flags == (UNALIGNED,)


class Shifted:
    """Every word a fifth of a second long, one after the other, `late` seconds into the stretch."""

    source = "shifted"

    def __init__(self, late: float) -> None:
        self.late = late

    def __call__(self, samples: np.ndarray, words: Sequence[str]) -> list[Span]:
        return [Span(self.late + i / 5, self.late + (i + 1) / 5) for i in range(len(words))]


def test_times_are_the_clips_own_and_confidence_stays() -> None:
    heard = (Word("a", 2.0, 2.2, "Ann", "whisper", 0.7), Word("b", 2.2, 2.5, "Ann", "whisper", 0.6))
    words, flags = aligned(heard, np.zeros(5 * SAMPLE_RATE, np.float32), Shifted(0.1))
    assert words[0] == replace(
        heard[0], start=1.8, end=2.0, source="shifted"
    )  # the stretch begins 0.3 s before
    assert words[1].confidence == 0.6
    assert flags == ()


def test_a_word_that_moved_further_than_a_second_is_not_believed() -> None:
    heard = (Word("a", 2.0, 2.2, None, "whisper", 0.7),)
    words, flags = aligned(heard, np.zeros(9 * SAMPLE_RATE, np.float32), Shifted(3.0))
    assert words == heard
    assert flags == (UNALIGNED,)


def test_stretches_end_at_pauses_and_share_the_silence_between_them() -> None:
    words = [Word("a", 1.0, 1.5), Word("b", 1.6, 2.0), Word("c", 2.6, 3.0), Word("d", 9.0, 9.5)]
    cut = stretches(words, 10.0)
    assert [[word.text for word in run] for run, _ in cut] == [["a", "b"], ["c"], ["d"]]
    bounds = [(round(span.start, 6), round(span.end, 6)) for _, span in cut]
    assert bounds == [(0.7, 2.3), (2.3, 3.3), (8.7, 9.75)]


def test_long_runs_without_a_pause_are_cut_all_the_same() -> None:
    words = [Word("a", i * 0.5, i * 0.5 + 0.5) for i in range(100)]
    assert all(span.duration < 16 for _, span in stretches(words, 50.0))


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello,", ["hello"]),
        ("don\u2019t", ["don't"]),
        ("--", []),
        ("1985.", ["nineteen", "eighty", "five"]),
        ("2,500", ["two", "thousand", "five", "hundred"]),
        ("$5.50", ["five", "dollars", "and", "fifty", "cents"]),
        ("$43,000", ["forty", "three", "thousand", "dollars"]),
        ("3.5%", ["three", "point", "five", "percent"]),
        ("1900", ["nineteen", "hundred"]),
        ("1905", ["nineteen", "oh", "five"]),
        ("1980s", ["nineteen", "eighties"]),
        ("2014.", ["twenty", "fourteen"]),
        ("7:05", ["seven", "oh", "five"]),
        ("10am", ["ten", "am"]),
        ("AT&T", ["at", "and", "t"]),
        ("007", ["zero", "zero", "seven"]),
        ("well-known", ["well", "known"]),
        ("42nd", ["forty", "second"]),
        ("20\u202f€", ["twenty", "euros"]),
        ("“¥500”", ["five", "hundred", "yen"]),
        ("ﬁancée’s", ["fiancee's"]),
        ("naïve", ["naive"]),
        ("m²", ["m"]),
    ],
)
def test_what_is_written_is_spelled_as_it_is_said(written: str, spoken: list[str]) -> None:
    assert spell(written) == spoken


@pytest.mark.parametrize("said", [("four", "zero", "seven"), ("four", "oh", "seven")])
def test_a_number_is_aligned_in_the_reading_that_is_said(said: tuple[str, ...]) -> None:
    """Words of numbers alone have no times in other aligners; here the sound says which reading it is."""
    written = readings("407")
    assert len(written) > 2
    assert said in written


def test_digits_written_as_one_number_are_found_where_they_are_said() -> None:
    pool = recordings("heldout-recordings")
    three = [pool["george", digit][0].samples for digit in (4, 0, 7)]
    (span,) = PocketSphinx()(np.concatenate([np.zeros(4800, np.float32), *three]), ["407"]) or ()
    assert span.start == pytest.approx(0.3, abs=0.1)
    assert span.end == pytest.approx(0.3 + sum(map(len, three)) / SAMPLE_RATE, abs=0.1)


def test_a_word_that_whisper_put_behind_a_pause_is_found_before_it() -> None:
    """Half a second of sound in a pause, and the word that belongs there written after it."""
    words = [Word("a", 1.0, 1.5), Word("b", 4.0, 4.4)]
    assert [len(run) for run, _ in stretches(words, 9.0)] == [1, 1]
    ((run, bounds),) = stretches(words, 9.0, [Span(1.0, 1.5), Span(2.2, 2.7), Span(4.0, 4.4)])
    assert (len(run), round(bounds.start, 3), round(bounds.end, 3)) == (2, 0.7, 4.7)
    assert len(stretches(words, 9.0, [Span(1.9, 3.6)])) == 2  # a hole: its words are missing
    late = [Word("a", 4.0, 4.4)]
    assert stretches(late, 9.0, [Span(2.0, 2.5)])[0][1].start == pytest.approx(1.7)
    found, flags = aligned(late, np.zeros(9 * SAMPLE_RATE, np.float32), Shifted(0.3), [Span(2.0, 2.5)])
    assert (found[0].start, flags) == (pytest.approx(2.0), ())


def test_a_word_that_no_dictionary_has_is_sounded_out() -> None:
    assert sounds("shingle") == "SH IH NG L EH"
    assert sounds("'") == "AH"


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 2), min_size=1, max_size=3),
    st.integers(0, 2**31 - 1),
    st.integers(1, 6),
)
def test_the_ctc_path_is_the_best_of_all(ids: list[int], seed: int, n_frames: int) -> None:
    logp = torch.randn(n_frames, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    best = max(
        (
            (sum(float(logp[t, s]) for t, s in enumerate(path)), path)
            for path in product(range(3), repeat=n_frames)
            if collapsed(path) == ids
        ),
        default=None,
    )
    found = ctc_path(logp, ids, 0)
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        scored = [0] * n_frames
        for token, (first, stop) in zip(ids, found, strict=True):
            scored[first:stop] = [token] * (stop - first)
        assert sum(float(logp[t, s]) for t, s in enumerate(scored)) == pytest.approx(best[0], abs=1e-4)


def collapsed(path: Sequence[int]) -> list[int]:
    kept = [s for i, s in enumerate(path) if i == 0 or s != path[i - 1]]
    return [s for s in kept if s]


def test_any_ctc_model_gives_each_word_a_span_in_order(tmp_path: Path) -> None:
    """Random numbers, real classes: the mechanics. The path itself is held against all paths above."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (tmp_path / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(str(tmp_path))
    Wav2Vec2FeatureExtractor().save_pretrained(str(tmp_path))
    config = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    torch.manual_seed(0)
    Wav2Vec2ForCTC(config).save_pretrained(str(tmp_path))
    aligner = Ctc(str(tmp_path))
    made = compose(1, "train", seconds=(4.0, 6.0))
    spans = aligner(made.samples, ["one", "--", "two", "three's"])
    assert spans is not None
    assert [a.start <= b.start for a, b in pairwise(spans)] == [True] * 3
    assert all(span.end <= len(made.samples) / SAMPLE_RATE for span in spans)
    assert aligner(made.samples[:8000], ["many"] * 40) is None  # more letters than frames
    with pytest.raises(ModelError, match="cannot be loaded as a CTC model"):
        Ctc(str(tmp_path / "nothing"))(made.samples, ["one"])


# As the published one: the sound, then each word with the two marks whose classes are its times.
QWEN3_TEMPLATE = (
    "{% for m in messages %}{% for part in m.content %}{% if part.type == 'audio' %}"
    "<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ part.text }}<timestamp><timestamp>{% endif %}"
    "{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def qwen3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Qwen/Qwen3-ForcedAligner-0.6B-hf, of width 32, with random weights and 100 steps of 80 ms."""
    folder = tmp_path_factory.mktemp("qwen3-aligner")
    tokenizer = learned_tokenizer(("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>", "<timestamp>"))
    token_id = tokenizer.get_vocab()
    named = {"audio_token": "pad", "audio_bos_token": "start", "audio_eos_token": "end"}
    for name, kind in named.items():
        setattr(tokenizer, name, f"<|audio_{kind}|>")
    tokenizer.init_kwargs |= {name: f"<|audio_{kind}|>" for name, kind in named.items()}
    Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), tokenizer, QWEN3_TEMPLATE).save_pretrained(str(folder))
    small = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    narrow = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    config = Qwen3ASRConfig(
        audio_config={**small, "downsample_hidden_size": 8, "output_dim": 32},
        text_config={
            **narrow,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": len(token_id) + 9,
        },
        audio_token_id=token_id["<|audio_pad|>"],
        timestamp_token_id=token_id["<timestamp>"],
        pad_token_id=0,
        eos_token_id=0,
        num_labels=100,
    )
    torch.manual_seed(0)
    Qwen3ASRForTokenClassification(config).save_pretrained(str(folder))
    return folder


def test_qwen3s_aligner_gives_each_word_a_span_on_its_grid_in_order_or_none(qwen3_folder: Path) -> None:
    aligner = Qwen3(str(qwen3_folder))
    made = compose(1, "train", seconds=(4.0, 6.0))
    words = ["one", "--", "two", "three's", "l'été", "你好", "five", "six"]
    spans = aligner(made.samples, words)
    assert spans is not None
    assert len(spans) == len(words)
    timed = [span for span in spans if span]
    assert timed
    assert all(a.start <= b.start for a, b in pairwise(timed))
    on_grid = [
        round(time / 0.08, 6).is_integer()
        for n, span in enumerate(spans)
        if span and n != 1
        for time in (span.start, span.end)
    ]
    assert all(on_grid)
    assert aligner(made.samples, ["--"]) is None
    assert aligner(made.samples[:100], words) is None
    assert aligner(made.samples, words) == spans


def test_a_word_without_length_keeps_the_time_that_it_was_heard_at() -> None:
    """Qwen3's aligner often gives short words the same step for both ends."""

    class Stuck(Qwen3):
        def __call__(self, samples: np.ndarray, words: Sequence[str]) -> list[Span | None]:
            return [Span(0.48, 0.88), None]

    heard = (Word("zero", 0.5, 0.9, None, "whisper", 0.7), Word("a", 1.0, 1.1, None, "whisper", 0.6))
    silence = np.zeros(3 * SAMPLE_RATE, np.float32)
    words, flags = aligned(heard, silence, Stuck("none"))
    assert [(word.start, word.source) for word in words] == [
        (pytest.approx(0.73), "qwen3-aligner"),
        (1.0, "whisper"),
    ]
    assert flags == (UNALIGNED,)
    assert aligned_text("zero a", silence, Stuck("none")) is None


def test_qwen3s_aligner_says_what_it_cannot_load(qwen3_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded as Qwen3's aligner"):
        Qwen3(str(tmp_path))(np.zeros(SAMPLE_RATE, np.float32), ["one"])
    assert Qwen3("none").languages == {
        code for code, name in LANGUAGE_CODE_TO_NAME.items() if name in FORCED_ALIGNER_LANGUAGES
    }
