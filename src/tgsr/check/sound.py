"""Part 1: the sound enters. As many frames as published, the authors' embeddings, and answers that change with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from tgsr.answering.in_windows import TRANSCRIBE
from tgsr.answering.predict import respond
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_sound
from tgsr.check.bench import SHORTEST_ENGLISH, Bench, longest_heard
from tgsr.check.official import official_frames
from tgsr.check.rows import Row, not_asked
from tgsr.data.questions.phrases import plain_words
from tgsr.engine.features import without_cache
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.llm.decoding import Decoding

HEARD = 1e-3  # nats: a change that no rounding makes, where nothing but the sound has changed
WORDS_WRONG = 0.5  # at most: who hears nothing has about all of them wrong
CHANGES = ("silence", "another clip", "a shift by 1 s")


def audio_tokens(bench: Bench) -> Row:
    """How many places a clip takes, by us and by the official class, for a whole clip and for 0.1 s of it."""
    lalm = bench.lalm
    rate = 1 / lalm.seconds_per_frame
    counts: list[str] = []
    right = True
    for samples in (*bench.sounds, bench.sounds[0][: SAMPLE_RATE // 10]):
        seconds, n = len(samples) / SAMPLE_RATE, len(lalm.encode_audio(samples))
        right &= abs(n - lalm.heard(seconds) * rate) <= 2
        if not lalm.cross_attends:  # who makes another number raises ValueError, which names both
            right &= len(official_frames(lalm, samples)) == n
        counts.append(f"{n} of {seconds:.2f} s")
    return Row(
        1,
        "audio tokens",
        ", ".join(counts),
        f"{rate:g} a second (2 more or fewer)"
        + (f" of whole windows of {lalm.filled_up:g} s" if lalm.filled_up else "")
        + ("" if lalm.cross_attends else ", as many as the official class makes"),
        right,
        "frames are lost or doubled: take the preprocessor_config.json and processor that came with the weights",
        {"tokens_per_second": rate},
    )


def embeddings(bench: Bench) -> Row:
    """The aligned frames against what the official class puts into the decoder, clip by clip."""
    lalm, bar = bench.lalm, 1e-3 if bench.is_exact else 0.05
    off: list[float] = []
    with torch.no_grad():
        for samples in bench.sounds:
            if lalm.cross_attends:  # the official encoder knows whole windows alone
                window = round(lalm.max_seconds * SAMPLE_RATE)
                samples = np.resize(samples, window)
            ours, theirs = lalm.align(lalm.encode_audio(samples)).float(), official_frames(lalm, samples)
            off.append(float((ours - theirs).norm() / theirs.norm()))
    worst = float(np.max(off))  # NaN where one is
    return Row(
        1,
        "embeddings",
        f"{worst:.1e} off, relative",
        f"the official class's for the same clip, to {bar:g}",
        worst <= bar,
        "the encoder or the aligner is not the authors': zero or foreign features, layers in another order, weights "
        "that were not loaded",
        {"relative_error": worst},
    )


def change(bench: Bench, what: str) -> Row:
    """How far log-probs and loss of the same answers move where nothing but the sound is another one.

    What is shifted is followed by as much silence before, so that all of it is heard both times.
    """
    lalm, samples = bench.lalm, bench.sounds[0]
    if what == "a shift by 1 s":
        room = math.floor((min(longest_heard(lalm), SHORTEST_ENGLISH) - 1) * SAMPLE_RATE)
        samples = np.concatenate([samples[:room], np.zeros(SAMPLE_RATE, samples.dtype)])
    heard = {
        "silence": np.zeros_like(samples),
        "another clip": np.resize(bench.sounds[1], len(samples)),
        "a shift by 1 s": np.roll(samples, SAMPLE_RATE),
    }[what]
    branches = [Branch(0, branch.prompt, branch.answer) for branch in bench.branches]
    with torch.no_grad(), bench.rounded():
        before, after = (
            branch_logps(listen(lalm, [without_cache(lalm, sound)]), branches) for sound in (samples, heard)
        )
    mask_BT = before.mask_BT
    moved = (after.logp_BT - before.logp_BT)[mask_BT].abs()
    largest, loss = float(moved.max()), float(before.logp_BT[mask_BT].mean() - after.logp_BT[mask_BT].mean())
    return Row(
        1,
        what,
        f"log-probs move by up to {largest:.3g}, the loss by {loss:+.3g}",
        f"by more than {HEARD:g} nats",
        largest > HEARD and loss != 0,
        "the answers do not depend on the sound: it is dropped, replaced, or masked before it reaches the decoder",
        {"largest": largest, "loss": loss},
    )


def transcription(bench: Bench) -> Row:
    """Shipped clips written down, and how many words are wrong."""
    if not bench.has_learned_to_write:
        return not_asked(1, "transcription", "its weights are random")
    lalm = bench.lalm
    clips = [(clip, load_sound(path)) for clip, path in bench.speech.clips[: bench.size.transcribed]]
    prompt = lalm.prompt(TRANSCRIBE).after
    with torch.no_grad(), bench.rounded():
        texts = respond(
            lalm,
            [without_cache(lalm, samples) for _, samples in clips],
            [(place, prompt) for place in range(len(clips))],
            Decoding(max_new_tokens=bench.size.new_tokens),
        )
    said = [plain_words(word.text for word in clip.words) for clip, _ in clips]
    n_wrong = sum(
        word_errors(words, plain_words([str(text)])) for words, text in zip(said, texts, strict=True)
    )
    rate = n_wrong / sum(map(len, said))
    return Row(
        1,
        "transcription",
        f"{rate:.0%} of {sum(map(len, said))} words wrong; the first: {str(texts[0])[:80]!r}",
        f"{WORDS_WRONG:.0%} at most",
        rate <= WORDS_WRONG,
        "it does not write down what is said: see that these are the weights that were meant, and what an adapter's "
        "base wrote; a model that never learned to transcribe fails here, too",
        {"word_error_rate": rate},
    )


def word_errors(said: Sequence[str], written: Sequence[str]) -> int:
    """The fewest words to be put in, taken out or replaced to make one of the other."""
    row = list(range(len(written) + 1))
    for place, word in enumerate(said, 1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(written, 1):
            cheapest = min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
            diagonal, row[column] = row[column], cheapest
    return row[-1]
