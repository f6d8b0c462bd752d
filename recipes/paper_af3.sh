#!/usr/bin/env bash
# Audio Flamingo 3 with the paper's tables 5 and 6 (they contradict section 4.2, which has a temperature of
# 0.8 and stage 1 on 8 GPUs x 8 x 4). One process; the tables' 4 x 4 x 8 and 8 x 8 x 4 batches need several.
# Needs the hub's nvidia/audio-flamingo-3-hf, and QUESTIONS made from timed transcripts and dialogue.
set -euo pipefail
MODEL=${MODEL:-nvidia/audio-flamingo-3-hf}
tgsr train sta --questions "$STA_QUESTIONS" --model "$MODEL" --learning-rate 2e-5 --warmup-share 0.03 --out runs/af3-sta
tgsr train grpo --questions "$QA_QUESTIONS" --model runs/af3-sta/adapter --learning-rate 5e-6 --warmup-share 0.03 \
    --group-size 8 --temperature 0.7 --top-p 0.9 --beta 0.04 --epsilon 0.2 --out runs/af3-tgsr
