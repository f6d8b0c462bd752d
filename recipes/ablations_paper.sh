#!/usr/bin/env bash
# Tables 2 to 4's ablation variants of a 7B model on one machine with 8 GPUs, with the settings of paper_qwen_omni.sh
# and paper_af3.sh: each is trained, then asked MMAU-mini, MMAR, AIR-Bench and MELD.
#
#   vanilla         the base under a chain-of-thought prompt
#   sta             Only STA (stage 1)
#   reasoning-sft   Reasoning SFT, "without timestamp supervision". The paper does not say how its own was made. Here:
#                   four samples a question from the base under that prompt, of which those are learned that are right
#                   and cite no interval; stage 2's LoRA and learning rate
#   wo-grounding    GRPO without R_tg
#   wo-compaction   GRPO, any number of timestamps earns the most: the paper does not define it, this is our reading
#   ours            both stages as in the paper
# With DENSE_CLIPS=clips.jsonl also `dense`: ours with the dense grounding reward beside it (docs/rewards.md).
#
# MODEL is the hub's id or a folder (nvidia/audio-flamingo-3-hf for the other); STA_QUESTIONS and QA_QUESTIONS come from
# `tgsr build`; MMAU, MMAR, AIRBENCH and MELD are the benchmarks' own files; JUDGE, if set, is a text LLM that judges
# consistency (the paper's: Qwen/Qwen3-32B, here behind any OpenAI-compatible server: http://HOST:PORT/v1#MODEL).
set -euo pipefail
: "${STA_QUESTIONS:?}" "${QA_QUESTIONS:?}" "${MMAU:?}" "${MMAR:?}" "${AIRBENCH:?}" "${MELD:?}" # what is missing is told now, not after hours
MODEL=${MODEL:-Qwen/Qwen2.5-Omni-7B}
OUT=${OUT:-runs/ablations-paper}

torchrun --nproc-per-node 4 -m tgsr.cli train sta --questions "$STA_QUESTIONS" --model "$MODEL" \
    --bfloat16 --learning-rate 2e-5 --warmup-share 0.03 --epochs 1 \
    --clips-per-step 16 --clips-at-once 2 --gradient-checkpointing --out "$OUT/sta"

grpo() { # FOLDER OPTIONS...
    torchrun --nproc-per-node 8 -m tgsr.cli train grpo --questions "$QA_QUESTIONS" --model "$OUT/sta/adapter" \
        --bfloat16 --learning-rate 5e-6 --warmup-share 0.03 --epochs 1 \
        --prompts-per-step 32 --prompts-at-once 1 --gradient-checkpointing \
        --group-size 8 --temperature 0.7 --top-p 0.9 --beta 0.04 --epsilon 0.2 --out "$OUT/$1" "${@:2}"
}
grpo ours
grpo wo-grounding --grounding-weight 0
grpo wo-compaction --no-compaction
if [ -n "${DENSE_CLIPS:-}" ]; then grpo dense --reward dense --clips "$DENSE_CLIPS"; fi

# One process and one GPU each: a sample a question.
running=()
for seed in 0 1 2 3; do
    CUDA_VISIBLE_DEVICES=$seed tgsr predict --questions "$QA_QUESTIONS" --model "$MODEL" --prompt cot \
        --temperature 0.7 --top-p 0.9 --seed "$seed" --out "$OUT/samples/$seed.jsonl" &
    running+=($!)
done
for process in "${running[@]}"; do wait "$process"; done
cat "$OUT"/samples/[0-3].jsonl > "$OUT/samples/all.jsonl"
torchrun --nproc-per-node 8 -m tgsr.cli train sft --responses "$OUT/samples/all.jsonl" --model "$MODEL" \
    --right-only --without-timestamps --bfloat16 --learning-rate 5e-6 --warmup-share 0.03 \
    --clips-per-step 32 --clips-at-once 1 --gradient-checkpointing --out "$OUT/reasoning-sft"

variants=(vanilla sta reasoning-sft wo-compaction wo-grounding ours)
labels=("Vanilla" "+ Only STA" "+ Reasoning SFT" "w/o compaction" "w/o grounding" "Ours")
if [ -n "${DENSE_CLIPS:-}" ]; then variants+=(dense) labels+=("Ours + dense"); fi
declare -A model prompt
for variant in "${variants[@]}"; do
    model[$variant]="$OUT/$variant/adapter" prompt[$variant]=reasoning
done
model[vanilla]=$MODEL prompt[vanilla]=cot prompt[reasoning-sft]=cot # as it was taught

# Table 2's benchmarks, then table 3's behaviour and table 4's attention on MMAU-mini's speech.
examine() { # VARIANT GPU
    local folder="$OUT/tests/$1"
    ask() { # NAME FILE OPTIONS...
        CUDA_VISIBLE_DEVICES=$gpu tgsr predict --questions "$2" --model "$examined" --prompt "$asked" \
            --out "$folder/predictions-$1.jsonl" "${@:3}"
        tgsr score "$folder/predictions-$1.jsonl" --out "$folder/metrics-$1.json"
    }
    local gpu=$2 examined=${model[$1]} asked=${prompt[$1]}
    ask mmau "$MMAU" --only speech
    ask mmar "$MMAR" --only speech
    ask airbench "$AIRBENCH" --only SER SNV SIC
    ask meld "$MELD"
    tgsr behaviour "$folder/predictions-mmau.jsonl" --out "$folder/behaviour" ${JUDGE:+--judge "$JUDGE"}
    CUDA_VISIBLE_DEVICES=$gpu tgsr attend --questions "$folder/predictions-mmau.jsonl" \
        --predictions "$folder/predictions-mmau.jsonl" --model "$examined" --out "$folder/attention"
}
running=()
rows=()
for index in "${!variants[@]}"; do
    rows+=(--row "${labels[index]}=${model[${variants[index]}]}")
    examine "${variants[index]}" "$index" &
    running+=($!)
done
for process in "${running[@]}"; do wait "$process"; done
tgsr tables "$OUT/tests" --out "$OUT/tables" "${rows[@]}"
