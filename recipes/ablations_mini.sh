#!/usr/bin/env bash
# Tables 2 to 4's ablation variants on the miniature: each is trained, then asked the same held-out questions.
# Two cores: about 10 minutes for each GRPO run, as in mini.sh; four samples of each of 800 clips, and attention, come on
# top. Each command resumes.
#
#   mini            vanilla: hears and talks, cannot time it
#   mini:sta        Only STA (stage 1)
#   reasoning-sft   Reasoning SFT, without timestamps. The paper does not say how its own was made. Here: four samples
#                   a question from the base, of which those are learned that are right and cite no interval
#   wo-grounding    GRPO without R_tg
#   wo-compaction   GRPO, any number of timestamps earns the most: the paper does not define it, this is our reading
#   mini:paper      Ours, by the paper's reward; shipped, made by mini.sh with the same settings
#   mini:tgsr       the grounded reward instead (docs/rewards.md), not the paper's; shipped as well
#   dense           Ours with the dense grounding reward beside it: not the paper's
#
# The miniature was taught B.1.3's prompt alone, so that all of them are asked with it.
set -euo pipefail
OUT=${OUT:-runs/ablations}

test -e "$OUT/train/questions.jsonl" || tgsr build qa --digits 800 --split train --without who count --out "$OUT/train"
for split in heldout-recordings heldout-speaker; do
    test -e "$OUT/$split/questions.jsonl" ||
        tgsr build qa --digits 400 --first 90000 --split "$split" --without who count --out "$OUT/$split"
done

grpo() { # FOLDER OPTIONS...
    tgsr train grpo --questions "$OUT/train/questions.jsonl" --model mini:sta --learning-rate 2e-3 \
        --max-steps 120 --out "$OUT/$1" "${@:2}"
}
grpo wo-grounding --grounding-weight 0
grpo wo-compaction --no-compaction
grpo dense --reward dense --clips "$OUT/train/clips.jsonl"

for seed in 0 1 2 3; do
    tgsr predict --questions "$OUT/train/questions.jsonl" --model mini --temperature 0.7 --top-p 0.9 \
        --seed "$seed" --out "$OUT/samples/$seed.jsonl"
done
cat "$OUT"/samples/[0-3].jsonl > "$OUT/samples/all.jsonl"
tgsr train sft --responses "$OUT/samples/all.jsonl" --model mini --right-only --without-timestamps \
    --learning-rate 1e-3 --out "$OUT/reasoning-sft"

models=(mini mini:sta "$OUT/reasoning-sft/adapter" "$OUT/wo-compaction/adapter" "$OUT/wo-grounding/adapter"
    mini:paper mini:tgsr "$OUT/dense/adapter")
labels=("Vanilla" "+ Only STA" "+ Reasoning SFT" "w/o compaction" "w/o grounding" "Ours" "Grounded" "Ours + dense")
rows=()
attended=()
for index in "${!models[@]}"; do
    rows+=(--row "${labels[index]}=${models[index]}")
    attended+=(--model "${models[index]}")
    for split in heldout-recordings heldout-speaker; do
        tgsr predict --questions "$OUT/$split/questions.jsonl" --model "${models[index]}" \
            --out "$OUT/tests/predictions.jsonl"
    done
done
tgsr score "$OUT/tests/predictions.jsonl" --out "$OUT/tests/metrics.json"
tgsr behaviour "$OUT/tests/predictions.jsonl" --out "$OUT/tests/behaviour"
tgsr attend --questions "$OUT/heldout-recordings/questions.jsonl" "${attended[@]}" --out "$OUT/tests/attention"
tgsr rewards "$OUT/heldout-recordings/questions.jsonl" --predictions "$OUT/tests/predictions.jsonl" \
    --out "$OUT/tests/hacking"
tgsr tables "$OUT/tests" --out "$OUT/tables" "${rows[@]}"
