"""Shared prefixes against the best other ways and the usual one: updates, sampling, a whole GRPO step, a benchmark's
questions, audio, memory.

All sides run in this process in turn, and compute the same: that is checked before anything is timed. Numbers
are medians, an update's the processor's seconds. The sides are described in sides.py; a ratio is a side's number over
ours.
The encoder is random and frozen; ours reads its output from memory as a run reads it from disk (see "audio").
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
import torch
from one_update import add_setting, setting_of
from sides import (
    BEST_OTHERS,
    SIDES,
    TEMPERATURE,
    TOP_P,
    Case,
    Setting,
    audio_of,
    check_same,
    grpo_case,
    loss_of,
    model_under_test,
    phrases_case,
    update,
)
from timing import HERE, Stopwatch, UpdateOf, about, in_fresh_process, in_turn
from torch import Tensor
from transformers import DynamicCache, StaticCache

from tgsr.answering.predict import sampled
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_audio
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.questions.build import ask_about
from tgsr.engine.features import FeatureCache
from tgsr.engine.plain_decoder import PlainDecoder
from tgsr.engine.sampling import ByModules, Decoder, Sampled, decoder_of, sample, uniforms
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.llm.decoding import GREEDY, Decoding
from tgsr.models.aligner_and_lora import lora_off
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.load import load
from tgsr.prompts import prompt_text

PARTS = ("encode", "prefill", "decoding", "reference", "forward", "backward", "rest")
ROW = dict[str, Any]


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {side: statistics.median(of_side) for side, of_side in seconds.items()}


def row(what: str, of_side: Mapping[str, float], unit: str = "s", **more: object) -> ROW:
    """A result: each side's number, and each other side's over that of "shared". Printed at once."""
    ours = of_side["shared"]
    ratios = {side: number / ours for side, number in of_side.items() if side != "shared"}
    numbers = ", ".join(f"{side} {number:.3g} {unit}" for side, number in of_side.items())
    print(
        f"{what}: {numbers}; " + ", ".join(f"{side}/shared {r:.2f}" for side, r in ratios.items()), flush=True
    )
    return {"what": what, "unit": unit, **of_side, "ratios": ratios, **more}


# A whole step of GRPO, part by part


def sample_shared(case: Case, n_new: int, decoder: Callable[[Lalm], Decoder] = decoder_of) -> list[Sampled]:
    """The group's answers: the prompt computed once, then token by token by `decoder`."""
    n = len(case.branches)
    with torch.no_grad():
        prefix = listen(case.lalm, [case.features], after=[case.after])
    return sample(
        prefix,
        [0] * n,
        [branch.prompt for branch in case.branches],
        max_new_tokens=n_new,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        uniform_BN=uniforms(n, n_new, 0),
        decoder=decoder(case.lalm),
    )


def drawing(n_new: int) -> dict[str, Any]:
    """How transformers' generate draws as `sample` does, answers of full length."""
    length = {"min_new_tokens": n_new, "max_new_tokens": n_new}
    return {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0, **length}


@torch.no_grad()
def sample_usual(case: Case, n_new: int) -> None:
    """The group's answers by transformers' generate, from token ids and spectrograms."""
    ids = torch.tensor([[*case.prompt, *case.branches[0].prompt]], device=device_of(case.lalm))
    mels_WMF, mel_mask_WF = case.mels
    case.lalm.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        input_features=mels_WMF,
        input_features_mask=mel_mask_WF,
        num_return_sequences=len(case.branches),
        **drawing(n_new),
    )


@torch.no_grad()
def sample_static(case: Case, n_new: int) -> None:
    """The group's answers by transformers' generate at its best: the prompt, from kept encoder outputs, computed once,
    its keys and values repeated into a cache of fixed size.
    """
    lalm, n = case.lalm, len(case.branches)
    (row_PD,) = listen(lalm, [case.features], after=[case.after]).rows
    once: Any = DynamicCache()
    lalm.language_model(inputs_embeds=row_PD[None], past_key_values=once, use_cache=True)
    once.batch_repeat_interleave(n)
    ids = torch.tensor([[*case.prompt, *case.branches[0].prompt]], device=device_of(lalm)).expand(n, -1)
    kept = StaticCache(config=lalm.language_model.config, max_cache_len=ids.shape[1] + n_new)
    for layer, before in enumerate(once.layers):
        places = {"cache_position": torch.arange(len(row_PD), device=ids.device)}
        kept.update(before.keys, before.values, layer, places)
    lalm.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=kept,
        **drawing(n_new),
    )


@torch.no_grad()
def products_alone(case: Case, decoder: PlainDecoder, n_new: int) -> None:
    """The matrix products of so many steps and nothing else: what no sampler with these matrices goes below."""
    h_BD = torch.randn(len(case.branches), case.lalm.language_model.config.hidden_size)
    for _ in range(n_new):
        for layer in decoder.layers:
            heads_BX = layer.qkv(h_BD)
            layer.out(heads_BX[:, : layer.n_heads * layer.width])
            layer.feed_forward(h_BD)
        decoder.head(h_BD)


def sampling_rows(setting: Setting, runs: int) -> list[ROW]:
    """Sampling by each side in turn, processor seconds, median and spread; ours says the same by its own modules.

    "static cache" is the best other, "usual" starts from ids and spectrograms; "products" and "products, int8" are the
    bounds of "shared" and "int8".
    """
    lalm = model_under_test(setting, "lora")
    lalm.eos_id, lalm.end_ids = (
        -1,
        (),
    )  # answers of full length: how soon a model ends is its weights' business
    case, n_new = grpo_case(lalm, setting), setting.answer
    by_rounded = partial(decoder_of, quantize="int8")
    exact, ours, rounded = (
        sample_shared(case, n_new, decoder) for decoder in (ByModules, decoder_of, by_rounded)
    )
    if [one.ids for one in ours] != [one.ids for one in exact]:
        raise RuntimeError("plain layers and the decoder's own modules draw unlike tokens")
    apart = max(
        abs(a - b)
        for one, other in zip(ours, exact, strict=True)
        for a, b in zip(one.logps, other.logps, strict=True)
    )
    drifts = [float((_logps_of(case, one) - torch.tensor(one.logps)).abs().mean()) for one in rounded]
    plain, plain_int8 = PlainDecoder.read(lalm), PlainDecoder.read(lalm, "int8")
    sides: dict[str, Callable[[], object]] = {
        "shared": partial(sample_shared, case, n_new),
        "int8": partial(sample_shared, case, n_new, by_rounded),
        "own modules": partial(sample_shared, case, n_new, ByModules),
        "static cache": partial(sample_static, case, n_new),
        "usual": partial(sample_usual, case, n_new),
        "products": partial(products_alone, case, plain, n_new),
        "products, int8": partial(products_alone, case, plain_int8, n_new),
    }
    for call in sides.values():
        call()
    seconds = in_turn(sides, runs, time.process_time)
    of_side = medians(seconds)
    spread = {side: [min(times), max(times)] for side, times in seconds.items()}
    print("  " + ", ".join(f"{side} {low:.2f} to {high:.2f}" for side, (low, high) in spread.items()))
    best = {side: of_side[side] / of_side["static cache"] for side in ("shared", "int8")}
    print("  of the static cache's seconds: " + ", ".join(f"{side} {r:.3f}" for side, r in best.items()))
    print(
        f"  log-probs: plain layers {apart:.1e} nats from the modules' at most, int8 {max(drifts):.1e} in the mean"
    )
    return [
        row(
            f"sampling {setting.group} x {n_new} tokens, processor seconds",
            of_side,
            spread=spread,
            over_static_cache=best,
            largest_difference_nats=apart,
            int8_mean_difference_nats=drifts,
        )
    ]


@torch.no_grad()
def _logps_of(case: Case, one: Sampled) -> Tensor:
    """The log-probs of a response as the trainer has them, T."""
    prefix = listen(case.lalm, [case.features], after=[case.after])
    branch = Branch(0, case.branches[0].prompt, one.ids)
    return branch_logps(prefix, [branch], temperature=TEMPERATURE).logp_BT[0]


STEP_SIDES: dict[str, tuple[Callable[[Case, int], object], str]] = {
    "shared": (sample_shared, "shared"),
    "best others": (sample_static, BEST_OTHERS[0]),
    "usual": (sample_usual, "usual"),
}
"""How each side of a step samples, and whose log-probs it takes."""


def grpo_step(case: Case, side: str, n_new: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """One prompt's step, processor seconds by part: sampling, the reference with the LoRA off, the update.

    What is sampled is not trained on: the update's answers are ragged and the same on all sides.
    """
    watch, lalm = Stopwatch(), case.lalm
    draw, logps = STEP_SIDES[side]
    with watch.inside(lalm.inner.model.audio_tower, lalm.language_model):
        with watch.part("rest"):
            optimizer.zero_grad()
        with watch.part("prefill"):
            draw(case, n_new)
        with watch.part("reference"), torch.no_grad(), lora_off(lalm):
            reference_BT, _ = SIDES[logps](case)
        with watch.part("forward"):
            logp_BT, mask_BT = SIDES[logps](case)
            loss = loss_of(case, logp_BT, mask_BT, reference_BT)
        with watch.part("backward"):
            loss.backward()
        with watch.part("rest"):
            torch.nn.utils.clip_grad_norm_(lalm.model.parameters(), 1.0)
            optimizer.step()
    return dict(watch.seconds)


def prefill_of(case: Case, n: int) -> Tensor:
    """Keys of n copies of the prompt: what a group's sampling begins with."""
    with torch.no_grad():
        prefix = listen(case.lalm, [case.features] * n, after=[case.after] * n)
        return decoder_of(case.lalm).prefill(prefix).keys[0]


def step_rows(setting: Setting, runs: int) -> list[ROW]:
    """The step's rows: prefill and the whole; all from the same runs, the sides in turn."""
    lalm = model_under_test(setting, "lora")
    lalm.eos_id, lalm.end_ids = (
        -1,
        (),
    )  # answers of full length: how soon a model ends is its weights' business
    case = grpo_case(lalm, setting)
    optimizer = torch.optim.AdamW([w for w in lalm.model.parameters() if w.requires_grad], lr=1e-6)
    for draw, _ in STEP_SIDES.values():
        draw(case, 2)
    steps: dict[str, list[dict[str, float]]] = {side: [] for side in STEP_SIDES}
    separate: dict[str, list[float]] = {"prefill": [], "cold": []}
    for _ in range(runs):
        for side, of_side in steps.items():
            of_side.append(grpo_step(case, side, setting.answer, optimizer))
        calls = {
            "prefill": lambda: prefill_of(case, len(case.branches)),
            "cold": lambda: lalm.encode_audio(case.samples),
        }
        for name, (seconds,) in in_turn(calls, 1, time.process_time).items():
            separate[name].append(seconds)

    def of(side: str, *parts: str) -> float:
        return statistics.median(sum(step.get(part, 0.0) for part in parts) for step in steps[side])

    alone = medians(separate)
    encode = of("usual", "encode") / 3  # for sampling, for the reference, for the update
    prefills = {side: of(side, "prefill") + (encode if side == "usual" else 0.0) for side in steps}
    prefill_row = row(f"prefill for {setting.group} answers", {**prefills, "separate": alone["prefill"]})
    parts = {side: {part: of(side, part) for part in PARTS} for side in steps}
    step_row = row("whole GRPO step", {side: of(side, *PARTS) for side in steps}, parts=parts)
    print(f"  {'':12}" + "".join(f"{part:>11}" for part in PARTS))
    for side, by_part in parts.items():
        print(f"  {side:12}" + "".join(f"{seconds:10.2f}s" for seconds in by_part.values()))
    print(
        f"  all but usual read the encoder's output from memory; a cold encode takes {alone['cold']:.2f} s a clip"
    )
    step_row["cold_encode_s"] = alone["cold"]
    return [prefill_row, step_row]


def update_row_of(what: str, case: Case, runs: int) -> ROW:
    """An update's processor seconds by every side, in turn, after a check that all compute the same."""
    sides = ("shared", *BEST_OTHERS, "usual")
    differ = check_same(case, sides[1:])
    seconds = in_turn({side: partial(update, case, side) for side in sides}, runs, time.process_time)
    spread = {side: (min(of_side), max(of_side)) for side, of_side in seconds.items()}
    made = row(what, medians(seconds), spread=spread, largest_difference_nats=differ)
    shares = {side: made["shared"] / made[side] for side in sides[1:]}
    print("  ours over theirs: " + ", ".join(f"{side} {share:.2f}" for side, share in shares.items()))
    print("  from, to: " + ", ".join(f"{side} {a:.2f}-{b:.2f}" for side, (a, b) in spread.items()))
    return made


def grpo_row(setting: Setting, runs: int) -> ROW:
    case = grpo_case(model_under_test(setting, "lora"), setting)
    return update_row_of(
        f"GRPO update, {setting.group} answers of {setting.answer} tokens, prompt of {len(case.prompt) + 1}",
        case,
        runs,
    )


def stage_1_row(setting: Setting, runs: int) -> ROW:
    case = phrases_case(model_under_test(setting, "aligner"), setting)
    lengths = [statistics.mean(len(getattr(b, text)) for b in case.branches) for text in ("prompt", "answer")]
    what = f"stage 1 update, {len(case.branches)} phrases of {lengths[0]:.0f} + {lengths[1]:.0f} tokens"
    return update_row_of(what, case, runs)


def audio_rows(setting: Setting, n_clips: int) -> ROW:
    """Two epochs of stage 1 over clips on disk, as sta.py and training/supervised.py hear and read them."""
    lalm = model_under_test(setting, "aligner")
    optimizer = torch.optim.AdamW(lalm.aligner.parameters(), lr=1e-6)
    asked = [phrases_case(lalm, replace(setting, seconds=1.0), seed) for seed in range(n_clips)]
    _ = lalm.encoder_key  # a hash of the weights, once a run
    seconds = {
        "decode": 0.0,
        "encode and write": 0.0,
        "read, epoch 1": 0.0,
        "read, epoch 2": 0.0,
        "train": 0.0,
    }

    def lap(name: str, start: float) -> None:
        seconds[name] += time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.flac" for seed in range(n_clips)]
        for seed, path in enumerate(paths):
            soundfile.write(path, audio_of(setting.seconds, seed), SAMPLE_RATE)
        cache, heard = FeatureCache(Path(folder) / "features"), []
        for path in paths:
            start = time.perf_counter()
            samples = load_audio(path)
            lap("decode", start)
            start = time.perf_counter()
            heard.append(cache.keep(lalm, samples))
            lap("encode and write", start)
        for epoch in (1, 2):
            for kept, case in zip(heard, asked, strict=True):
                start = time.perf_counter()
                features = kept.read()
                lap(f"read, epoch {epoch}", start)
                start = time.perf_counter()
                optimizer.zero_grad()
                logps = branch_logps(listen(lalm, [features], after=[case.after]), case.branches)
                (-logps.logp_BT.sum() / logps.mask_BT.sum()).backward()
                optimizer.step()
                lap("train", start)
    train = seconds["train"] / 2
    audio = {
        "epoch 1": seconds["decode"] + seconds["encode and write"] + seconds["read, epoch 1"],
        "epoch 2": seconds["read, epoch 2"],
    }
    shares = {epoch: spent / (spent + train) for epoch, spent in audio.items()}
    print(
        f"audio, {n_clips} clips, 2 epochs of stage 1: "
        + ", ".join(f"{share:.2%} of {epoch}" for epoch, share in shares.items())
        + f" ({1000 * seconds['read, epoch 2'] / n_clips:.1f} ms a clip to read)"
    )
    return {"what": f"audio, {n_clips} clips", "shares": shares, "seconds": seconds}


PREDICT_CLIPS = 32
AT_ONCE = {"shared": 8, "one by one": 1, "16 at once": 16, "32 at once": 32}  # clips; "shared" is predict's


def predict_row(lalm: Lalm, runs: int, n_clips: int, decoding: Decoding) -> ROW:
    """One question about each of `n_clips` clips, with what the encoder made of them: so many clips decoded together.

    "of like length" is as "shared" with the clips sorted by their length before. RuntimeError where what is said
    depends on who else is asked.
    """
    made = [compose(seed, "heldout-speaker", seconds=(4.0, 9.5)) for seed in range(n_clips)]
    start = time.process_time()
    heard = [lalm.encode_audio(one.samples) for one in made]
    encoding = time.process_time() - start
    asked = [ask_about([one.clip], "qa", 1, 0)[0] for one in made]
    prompts = [lalm.prompt(prompt_text(lalm, question)).after for question in asked]
    decoder = decoder_of(lalm)
    by_length = sorted(range(n_clips), key=lambda clip: len(made[clip].samples))

    def answers(at_once: int, order: Sequence[int]) -> dict[int, tuple[int, ...]]:
        said: dict[int, tuple[int, ...]] = {}
        for first in range(0, n_clips, at_once):
            some = order[first : first + at_once]
            texts = [(place, prompts[clip]) for place, clip in enumerate(some)]
            names = [asked[clip].id for clip in some]
            drawn = sampled(lalm, [heard[clip] for clip in some], texts, decoding, names, decoder=decoder)
            said |= {clip: one.ids for clip, one in zip(some, drawn, strict=True)}
        return said

    sides = {side: partial(answers, n, range(n_clips)) for side, n in AT_ONCE.items()}
    sides["of like length"] = partial(answers, AT_ONCE["shared"], by_length)
    said = {side: of_side() for side, of_side in sides.items()}
    for side, of_side in said.items():
        if of_side != said["one by one"]:
            raise RuntimeError(f"{side}: other answers than one by one")
    seconds = in_turn(sides, runs, time.process_time)
    n_tokens = sum(map(len, said["one by one"].values()))
    what = f"predict, {n_clips} clips, {n_tokens} tokens, {lalm.name}, processor seconds"
    made_row = row(what, medians(seconds), encoding=encoding, tokens=n_tokens)
    print(f"  encoding them before: {encoding:.3g} s")
    return made_row


def memory_row(setting: Setting, sides: Sequence[str], update_of: UpdateOf) -> ROW:
    """Peaks of the GRPO update above the weights, each side's by `update_of`."""
    results = {side: update_of(setting, side) for side in sides}
    peaks = {side: result["peak_bytes"] / 2**20 for side, result in results.items() if "failed" not in result}
    failed = {side: result["failed"] for side, result in results.items() if "failed" in result}
    for side, why in failed.items():
        print(f"memory of {side}: not measured: {why}")
    what = f"memory of the GRPO update above the weights, {setting.group} answers, {setting.seconds:g} s"
    return row(what, peaks, "MiB", failed=failed)


ROWS = ("sampling", "grpo", "stage1", "step", "predict", "audio", "memory", "large")
QUICK = Setting(layers=1, seconds=4.0, group=2, text=110, answer=12, heads=3, window=2)


def main(argv: Sequence[str] | None = None, update_of: UpdateOf = in_fresh_process) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_setting(parser)
    parser.add_argument(
        "--runs", type=int, default=5, help="runs a side, of which the median counts (%(default)s)"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=ROWS,
        default=[name for name in ROWS if name != "large"],
        help="what to measure (all but large: the memory of 32 answers, of 600 s, and of 10 s)",
    )
    parser.add_argument("--out", type=Path, default=HERE / "speed.json", help="the result (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one run, into a temporary file: a test"
    )
    args = parser.parse_args(argv)
    setting, runs, n_clips, out = setting_of(args), args.runs, 4, args.out
    if args.quick:
        setting, runs, n_clips = QUICK, 1, 2
        out = Path(tempfile.mkdtemp()) / "speed.json"
    print(
        f"{setting.layers} of 30 decoder layers, {setting.encoder_layers} of 6 encoder layers, vocabulary "
        f"{setting.vocabulary}; {setting.seconds:g} s of audio; {torch.get_num_threads()} threads; median of {runs}"
    )
    began, load_before = time.perf_counter(), os.getloadavg()[0]
    rows: list[ROW] = []
    if "sampling" in args.rows:
        rows += sampling_rows(setting, runs)
    if "grpo" in args.rows:
        rows.append(grpo_row(setting, runs))
    if "stage1" in args.rows:
        rows.append(stage_1_row(setting, runs))
    if "step" in args.rows:
        rows += step_rows(setting, runs)
    if "predict" in args.rows:
        asked = model_under_test(setting, "lora") if args.quick else load("mini:tgsr")
        decoding = replace(GREEDY, max_new_tokens=4) if args.quick else GREEDY
        rows.append(predict_row(asked, runs, n_clips if args.quick else PREDICT_CLIPS, decoding))
    if "audio" in args.rows:
        rows.append(audio_rows(setting, n_clips))
    if "memory" in args.rows:
        rows.append(memory_row(setting, ("shared", *(() if args.quick else BEST_OTHERS), "usual"), update_of))
    if "large" in args.rows:
        for larger in (
            replace(setting, group=32),
            replace(setting, seconds=600.0),
            replace(setting, seconds=10.0),
        ):
            rows.append(memory_row(larger, ("shared", *BEST_OTHERS[:1]), update_of))
    taken = time.perf_counter() - began
    about_setting = {
        **asdict(setting),
        "encoder_layers": setting.encoder_layers,
        "vocabulary": setting.vocabulary,
    }
    record = {**about(), "setting": about_setting, "runs": runs, "seconds": round(taken)}
    record |= {"load_before": load_before, "rows": rows}
    out.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{out} after {taken:.0f} s")


if __name__ == "__main__":
    main()
