#!/usr/bin/env bash
# Stage 2 with TRL 1.16's command line, rewarded by our plug-in.
#
# TRL 1.16 gives its model text and images and no sound: this trains a model that does not hear, and is here for those
# whose TRL does. Its environment needs this repository (pip install --no-deps -e FOLDER), msgspec and inflect; `tgsr`
# may be that of another one. QA_QUESTIONS is what `tgsr build qa` wrote, with clips.jsonl beside it. The plug-in was
# loaded and rewarded with by TRL 1.16 itself (tests/parity/plugins.json).
set -euo pipefail
: "${IT_HEARS:?TRL 1.16 trains without the sound; set IT_HEARS=yes where yours does not}"
MODEL=${MODEL:?the model}
OUT=${OUT:-runs/trl}
PLUGIN=tgsr.data.plugins.tgsr_trl
REWARDS=${REWARDS:-$PLUGIN.answer $PLUGIN.timestamp_grounding}   # grounded: $PLUGIN.answer $PLUGIN.place
mkdir -p "$OUT/data"
tgsr export "$QA_QUESTIONS" --to trl --kind choice --out "$OUT/data/train.jsonl"
# shellcheck disable=SC2086  # several reward functions
trl grpo --model_name_or_path "$MODEL" --dataset_name "$OUT/data" --output_dir "$OUT" \
    --reward_funcs $REWARDS --use_peft --lora_r 16 --lora_alpha 32 --bf16 true \
    --learning_rate 5e-6 --warmup_steps 0.03 --num_train_epochs 1 \
    --num_generations 8 --temperature 0.7 --top_p 0.9 --beta 0.04 --epsilon 0.2 --loss_type grpo \
    --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --max_completion_length 200 \
    --log_completions true
tgsr score "$OUT/completions" --questions "$QA_QUESTIONS" --out "$OUT/metrics.json"
