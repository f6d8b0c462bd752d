"""The paper's two stages on 8 H100s by the cost model (tgsr.training.cost), with the prefix shared and without.

Run: python benchmarks/cost.py. Nothing is measured here; the assumptions are the constants below.
"""

from __future__ import annotations

from tgsr.training.cost import (
    H100,
    QWEN2_7B,
    ClipTokens,
    activation_bytes,
    stage_1_hours,
    stage_2_hours,
    tokens,
    update_flops,
)

N_GPUS = 8
SYSTEM = 20  # tokens before the audio
FRAMES = 750  # 30 s at 25 a second
PHRASES, PHRASE_PROMPT, PHRASE_ANSWER = 8, 60, 25  # a clip's phrases, their tokens
QUESTION, RESPONSES, RESPONSE = 100, 8, 150
STAGE_1_PHRASES, STAGE_2_PROMPTS = 268_000, 47_000  # section 4.1

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


def main() -> None:
    print(f"7B decoder, {N_GPUS} x H100 at {H100.utilisation:.0%} of its peak, layers checkpointed")
    print("| | separate | shared | ratio |")
    print("|---|---|---|---|")
    for what, separate, shared in rows():
        print(f"| {what} | {separate:,.3g} | {shared:,.3g} | {separate / shared:.1f} |")


if __name__ == "__main__":
    main()
