"""The comparison of word times: its scores by hand, its recordings' times, and the page beside its numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import word_times
from word_times import Part, Said, Written, joined, openai_name, part_of, scored

from tgsr.audio import SAMPLE_RATE


def test_the_page_says_what_was_measured() -> None:
    page = word_times.PAGE.read_text("utf-8")
    assert word_times.page_with(page, json.loads(word_times.RESULT.read_text("utf-8"))) == page
    with pytest.raises(ValueError, match="marks"):
        word_times.page_with("no marks", {"recordings": []})


def test_words_are_counted_and_their_errors_taken_where_times_are_known() -> None:
    said = [Said("the", 0.5, 0.4), Said("house", 1.0), Said("fell", 1.5, None, 1.7)]
    score = scored(said, [Written("The", 0.5, 0.6), Written("house", 0.8, 1.2), Written("fell.", 1.4, 2.0)])
    assert (score.n_said, score.n_found, score.n_invented, score.n_lost_stretches) == (3, 3, 0, 0)
    assert (score.starts, score.ends) == ((0.1,), (0.3,))
    assert (score.row()["start_far"], score.row()["end_far"]) == (0.0, 1.0)


def test_a_number_starts_with_its_first_spoken_word_and_ends_with_its_last() -> None:
    said = [Said("nineteen", 1.0, 0.9), Said("eighty", 1.4), Said("five", 1.8, None, 2.0)]
    score = scored(said, [Written("1985.", 1.0, 1.9)])
    assert (score.n_found, score.starts, score.ends) == (3, (0.1,), (-0.1,))


def test_the_same_word_twice_is_matched_by_time_and_what_is_missing_is_lost() -> None:
    said = [
        Said("no", 1.0, 1.0),
        *(Said(text, 5.0) for text in ["one", "two", "three"]),
        Said("no", 9.0, 9.0),
    ]
    score = scored(said, [Written("no", 9.1, 9.3)])
    assert score.starts == (0.1,)
    assert (score.n_found, score.n_lost_stretches) == (1, 1)
    assert scored(said[:1], [Written("no", 1.0, 1.0), Written("thanks", None, None)]).n_untimed == 2
    assert scored(said[:1], [Written("no", 1.0, 1.1), Written("thanks", 2.0, 3.0)]).n_invented == 1
    assert scored([], []).row()["start_median"] is None


def test_a_part_begins_and_ends_with_its_sound_and_breath_is_none() -> None:
    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 200 * seconds).astype(np.float32) * ((seconds > 0.5) & (seconds < 1.2))
    breath = 0.1 * np.sin(2 * np.pi * 900 * seconds).astype(np.float32) * ((seconds > 1.6) & (seconds < 1.8))
    part = part_of(tone + breath, ["one", "two"])
    assert len(part.samples) / SAMPLE_RATE == pytest.approx(0.7, abs=0.05)
    made = joined("test", [part, Part(part.samples, (Said("three", 0.1, 0.0, 0.7),))], [1.0, 2.0, 0.5])
    assert [word.text for word in made.said] == ["one", "two", "three"]
    assert (made.said[0].start, made.said[0].end, made.said[1].start) == (1.0, None, None)
    assert made.said[2].start == pytest.approx(3.7, abs=0.05)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model.encoder.layers.0.self_attn.q_proj.weight", "encoder.blocks.0.attn.query.weight"),
        ("model.decoder.layers.5.encoder_attn_layer_norm.bias", "decoder.blocks.5.cross_attn_ln.bias"),
        ("model.decoder.layers.5.encoder_attn.out_proj.bias", "decoder.blocks.5.cross_attn.out.bias"),
        ("model.decoder.layers.1.fc2.weight", "decoder.blocks.1.mlp.2.weight"),
        ("model.decoder.layers.1.final_layer_norm.weight", "decoder.blocks.1.mlp_ln.weight"),
        ("model.encoder.layer_norm.weight", "encoder.ln_post.weight"),
        ("model.decoder.embed_positions.weight", "decoder.positional_embedding"),
    ],
)
def test_the_packaged_whisper_is_named_as_openais(name: str, other: str) -> None:
    assert openai_name(name) == other
