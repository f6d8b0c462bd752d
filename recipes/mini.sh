#!/usr/bin/env bash
# The shipped miniature: its base and its two adapters, from the encoder and 3,000 composed clips.
# Two cores: about 45 minutes for the base, 15 for stage 1, 15 for stage 2. Each command resumes.
set -euo pipefail
tgsr build sta --digits 3000 --split train --out runs/data-sta
tgsr build qa --digits 3000 --split train --out runs/data-qa
tgsr train base --out runs/base
tgsr train sta --questions runs/data-sta/questions.jsonl --model runs/base/model --epochs 3 \
    --clips-per-step 16 --learning-rate 1e-3 --out runs/sta
tgsr train grpo --questions runs/data-qa/questions.jsonl --model runs/sta/adapter \
    --learning-rate 1e-3 --max-steps 200 --out runs/tgsr
