#!/usr/bin/env bash
# Stage 2 with ms-swift 4.6, as the paper's authors train: table 6, rewarded by our plug-in.
#
# QA_QUESTIONS is what `tgsr build qa` wrote, with clips.jsonl beside it. ms-swift's environment needs this repository
# (pip install --no-deps -e FOLDER), msgspec and inflect; `tgsr` may be that of another one. The plug-in was loaded by
# ms-swift 4.6 itself (tests/parity/plugins.json); nobody has run this command on a GPU yet.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen2.5-Omni-7B}
OUT=${OUT:-runs/ms-swift}
FAMILY=${FAMILY:-qwen_omni}
REWARDS=${REWARDS:-tgsr_answer tgsr_timestamp_grounding}   # grounded: tgsr_answer tgsr_place
mkdir -p "$OUT"
EXPORTED=$(tgsr export "$QA_QUESTIONS" --to ms-swift --family "$FAMILY" --kind choice --out "$OUT/qa.jsonl")
echo "$EXPORTED"
PLUGIN=$(sed -n 's/^rewards: \([^;]*\).*/\1/p' <<< "$EXPORTED")
# shellcheck disable=SC2086  # several reward functions
swift rlhf --rlhf_type grpo --model "$MODEL" --dataset "$OUT/qa.jsonl" --output_dir "$OUT" --add_version false \
    --external_plugins "$PLUGIN" --reward_funcs $REWARDS \
    --tuner_type lora --lora_rank 16 --lora_alpha 32 --torch_dtype bfloat16 \
    --learning_rate 5e-6 --warmup_ratio 0.03 --num_train_epochs 1 \
    --num_generations 8 --temperature 0.7 --top_p 0.9 --beta 0.04 --epsilon 0.2 --loss_type grpo \
    --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --max_completion_length 200 \
    --log_completions true
# A log names no questions: they are found by their prompts.
tgsr score "$OUT/completions.jsonl" --questions "$QA_QUESTIONS" --out "$OUT/metrics.json"
