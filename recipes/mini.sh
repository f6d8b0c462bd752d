#!/usr/bin/env bash
# The miniature: its base, stage 1, and stage 2 by both rewards, from the encoder and composed clips.
# Two cores: about 75 minutes for the base, 4 for stage 1, 10 for each of the six runs of stage 2. Each command resumes or is
# skipped.
# The base that ships went on from an earlier one instead (docs/findings/miniature.md); the other commands are its own.
#
# Of three seeds of each stage 2 the one ships that hits the evidence most often on the validation clips (recordings of
# the training split in clips of their own) among those that answer at most 2 points worse than the best of the three.
set -euo pipefail
build() { # STAGE OPTIONS... --out FOLDER: questions that are there are whole
    [ -e "${*: -1}/questions.jsonl" ] || tgsr build "$@"
}
build sta --digits 2000 --phrases 4 --split train --out runs/data-sta
build qa --digits 800 --split train --without who count --out runs/data-qa
build qa --digits 150 --first 70000 --split train --without who count --out runs/validation
tgsr train base --out runs/base
tgsr train sta --questions runs/data-sta/questions.jsonl --model runs/base/model \
    --clips-per-step 8 --learning-rate 1e-3 --out runs/sta
for reward in paper grounded; do
    for seed in 0 1 2; do
        tgsr train grpo --questions runs/data-qa/questions.jsonl --model runs/sta/adapter --reward $reward \
            --learning-rate 2e-3 --max-steps 120 --seed $seed --out runs/$reward-$seed
        tgsr predict --questions runs/validation/questions.jsonl --model runs/$reward-$seed/adapter \
            --out runs/validation/$reward.jsonl
    done
    tgsr score runs/validation/$reward.jsonl --out runs/validation/$reward.json
done
