#!/usr/bin/env bash
# The miniature that hears English, from Whisper base and public recordings: sentences with the times of their words,
# clips composed of them, the base, stage 1 and stage 2. Two cores: about four hours. Each command resumes or is skipped.
#
#   LIBRISPEECH=... SPEECHOCEAN=... QUEEN=... recipes/mini_en.sh
#
# LIBRISPEECH: a folder as OpenSLR ships it. SPEECHOCEAN: speechocean762 as its owner ships it, the folder with train/ and
# test/. QUEEN: what `tgsr fetch amazon-queen` prints. HELD_OUT: a file of voices that nothing trains on, one a line
# ("amazon-queen BOB"), in place of the list beside this file: fifty readers, and all parts of the game's actors who play six
# characters. Those whose publisher says "test" are held out besides.
set -euo pipefail
: "${LIBRISPEECH:?}" "${SPEECHOCEAN:?}" "${QUEEN:?}" # what is missing is told now, not after hours
runs=${RUNS:-runs/en}
HELD_OUT=${HELD_OUT:-$(dirname "$0")/mini_en_held_out.txt}
mkdir -p "$runs"
clips_of() { [ -e "$runs/$1/clips.jsonl" ] || tgsr transcribe "$2" --corpus "$3" --language en --out "$runs/$1/clips.jsonl"; }
clips_of librispeech "$LIBRISPEECH" librispeech
clips_of speechocean "$SPEECHOCEAN" kaldi
clips_of queen "$QUEEN" amazon-queen

compose() { # corpus, split, clips
    [ -e "$runs/$1-$2/clips.jsonl" ] || tgsr compose "$runs/$1/clips.jsonl" --n "$3" --split "$2" --seconds 4 22 \
        --held-out "$HELD_OUT" --out "$runs/$1-$2"
}
compose librispeech train 800
compose speechocean train 700
compose queen train 700
trained=("$runs"/{librispeech,speechocean,queen}-train/clips.jsonl)
for corpus in librispeech speechocean queen; do
    compose $corpus test 150
    [ -e "$runs/$corpus-watch/clips.jsonl" ] || tgsr compose "$runs/$corpus/clips.jsonl" --n 12 --seed 1 --split test \
        --seconds 4 22 --held-out "$HELD_OUT" --out "$runs/$corpus-watch"
done
watched=("$runs"/{librispeech,speechocean,queen}-watch/clips.jsonl)

# The base: asked and answering, without time (2,000 steps: 65 minutes of two cores, 80 of one).
tgsr train english --clips "${trained[@]}" --watch "${watched[@]}" --out "$runs/base"

# Stage 1: the aligner alone; once for times in the paper's words, once for Whisper's time tokens.
[ -e "$runs/data-sta/questions.jsonl" ] || tgsr build sta --clips "${trained[@]}" --phrases 6 --max-words 8 --out "$runs/data-sta"
tgsr train sta --questions "$runs/data-sta/questions.jsonl" --model "$runs/base/model" --soft-times 3 \
    --clips-per-step 8 --learning-rate 1e-3 --bfloat16 --max-steps 100 --out "$runs/sta"
tgsr train sta --questions "$runs/data-sta/questions.jsonl" --model "$runs/base/model" --times tokens --soft-times 3 \
    --clips-per-step 8 --learning-rate 1e-3 --bfloat16 --max-steps 150 --out "$runs/tokens"

# Stage 2: by the reward that looks where citations point, and by the paper's.
[ -e "$runs/data-qa/questions.jsonl" ] || tgsr build qa --clips "${trained[@]}" --without "speaker count" --out "$runs/data-qa"
for reward in grounded paper; do
    tgsr train grpo --questions "$runs/data-qa/questions.jsonl" --model "$runs/sta/adapter" --reward $reward \
        --prompts-per-step 4 --learning-rate 3e-4 --max-steps 40 --bfloat16 --out "$runs/$reward"
done
