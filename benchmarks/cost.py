"""The paper's two stages on H100s by the cost model (tgsr.training.cost): with the prefix shared and without on eight,
and where the hours go on 8 and on 64, of a dense model and of a mixture.

Run: python benchmarks/cost.py. Nothing is measured here; the assumptions are the constants below.
"""

from __future__ import annotations

from tgsr.training.cost import (
    H100,
    QWEN2_7B,
    QWEN3_30B_A3B,
    ClipTokens,
    DecoderShape,
    activation_bytes,
    forward_flops,
    stage_1_hours,
    stage_2_hours,
    stage_2_seconds,
    tokens,
    update_flops,
)

N_GPUS = 8
SYSTEM = 20  # tokens before the audio
FRAMES = 750  # 30 s at 25 a second
PHRASES, PHRASE_PROMPT, PHRASE_ANSWER = 8, 60, 25  # a clip's phrases, their tokens
QUESTION, RESPONSES, RESPONSE = 100, 8, 150
STAGE_1_PHRASES, STAGE_2_PROMPTS = 268_000, 47_000  # section 4.1
RUNS = ((8, 32), (64, 64), (64, 256))  # GPUs, and questions a step: table 6's 32, one a GPU, four a GPU

STAGE_1 = ClipTokens(SYSTEM + FRAMES, (PHRASE_PROMPT + PHRASE_ANSWER,) * PHRASES, (PHRASE_ANSWER,) * PHRASES)
STAGE_2 = ClipTokens(SYSTEM + FRAMES + QUESTION, (RESPONSE,) * RESPONSES, (RESPONSE,) * RESPONSES)


def rows() -> list[tuple[str, float, float]]:
    """What is counted, separate and shared: a clip's tokens, an update's FLOPs and activations, an epoch's hours."""
    counted = []
    for stage, clip in (("stage 1", STAGE_1), ("stage 2", STAGE_2)):
        for what, count in (
            ("tokens a forward", lambda shared, clip=clip: tokens(clip, shared)),
            (
                "update, PFLOP",
                lambda shared, clip=clip: update_flops(QWEN2_7B, clip, shared, checkpointing=True) / 1e15,
            ),
            (
                "activations, GB",
                lambda shared, clip=clip: activation_bytes(QWEN2_7B, clip, shared, checkpointing=True) / 1e9,
            ),
        ):
            counted.append((f"{stage}, {what}, a clip", float(count(False)), float(count(True))))
    hours_1 = [
        stage_1_hours(QWEN2_7B, H100, N_GPUS, STAGE_1, STAGE_1_PHRASES // PHRASES, shared=shared)
        for shared in (False, True)
    ]
    hours_2 = [
        stage_2_hours(QWEN2_7B, H100, N_GPUS, STAGE_2, STAGE_2_PROMPTS, shared=shared)
        for shared in (False, True)
    ]
    counted.append((f"stage 1, {STAGE_1_PHRASES:,} phrases, hours", hours_1[0], hours_1[1]))
    counted.append((f"stage 2, {STAGE_2_PROMPTS:,} questions, hours", hours_2[0], hours_2[1]))
    return counted


Cell = float | str


def at_scale(shape: DecoderShape, n_gpus: int, questions: int) -> dict[str, Cell]:
    """What one model needs on so many GPUs with so many questions a step, the prefix shared, layers checkpointed."""
    one = stage_2_seconds(shape, H100, STAGE_2, shared=True, prompts_at_once=questions // n_gpus)
    parts = {part: getattr(one, part) for part in ("prefill", "decoding", "reference", "update")}
    flops = [
        update_flops(shape, STAGE_1, True, checkpointing=True),
        update_flops(shape, STAGE_2, True, checkpointing=True) + forward_flops(shape, STAGE_2, True),
    ]
    n_clips = STAGE_1_PHRASES // PHRASES
    kept = max(activation_bytes(shape, clip, True, checkpointing=True) for clip in (STAGE_1, STAGE_2))
    return {
        "GPUs, questions a step": f"{n_gpus}, {questions}",
        "weights in bfloat16, GB a GPU": 2 * shape.weights / 1e9,
        "activations of one clip, at most, GB": kept / 1e9,
        "stage 1: tokens, in all": f"{n_clips * tokens(STAGE_1, True):.2g}",
        "stage 1: FLOP, in all": f"{n_clips * flops[0]:.2g}",
        "stage 1: hours": stage_1_hours(shape, H100, n_gpus, STAGE_1, n_clips, shared=True),
        "stage 2: tokens, in all": f"{STAGE_2_PROMPTS * tokens(STAGE_2, True):.2g}",
        "stage 2: FLOP without sampling, in all": f"{STAGE_2_PROMPTS * flops[1]:.2g}",
        "stage 2: hours": STAGE_2_PROMPTS * one.total / n_gpus / 3600,
        "stage 2: seconds a step": questions / n_gpus * one.total,
        **{f"of which {part}": f"{spent / one.total:.0%}" for part, spent in parts.items()},
        "bottleneck": max(parts, key=lambda part: parts[part]),
    }


def main() -> None:
    print(f"7B decoder, {N_GPUS} x H100 at {H100.utilisation:.0%} of its peak, layers checkpointed")
    print("| | separate | shared | ratio |")
    print("|---|---|---|---|")
    for what, separate, shared in rows():
        print(f"| {what} | {separate:,.3g} | {shared:,.3g} | {separate / shared:.1f} |")
    columns = {
        name: [at_scale(shape, *run) for run in RUNS]
        for name, shape in (("7B", QWEN2_7B), ("30B-A3B", QWEN3_30B_A3B))
    }
    print("\n| | " + " | ".join(name for name, runs in columns.items() for _ in runs) + " |")
    print("|---" * (1 + sum(map(len, columns.values()))) + "|")
    for what in columns["7B"][0]:
        cells = [run[what] for runs in columns.values() for run in runs]
        print(
            f"| {what} | "
            + " | ".join(cell if isinstance(cell, str) else f"{cell:.3g}" for cell in cells)
            + " |"
        )


if __name__ == "__main__":
    main()
