#!/usr/bin/env bash
# The shipped miniature: its base and its two adapters, from the encoder and composed clips.
# Two cores: about 75 minutes for the base, 4 for stage 1, 15 for stage 2. Each command resumes.
set -euo pipefail
tgsr build sta --digits 2000 --phrases 4 --split train --out runs/data-sta
tgsr build qa --digits 800 --split train --out runs/data-qa
tgsr train base --out runs/base
tgsr train sta --questions runs/data-sta/questions.jsonl --model runs/base/model \
    --clips-per-step 8 --learning-rate 1e-3 --out runs/sta
tgsr train grpo --questions runs/data-qa/questions.jsonl --model runs/sta/adapter \
    --learning-rate 2e-3 --out runs/tgsr
