#!/usr/bin/env bash
# The table of the miniature that hears English (docs/miniature.md): the base, its stages, and what they are held against,
# on clips of voices that nothing was trained on, from recipes/mini_en.sh's folder (RUNS). Each command resumes.
#
# Beside the models: chance, the frame baseline (Viterbi over a head on the same encoder's frames), and Whisper base's
# words with the phrase looked up in them (cascade). MODELS: others than those that ship, "NAME=MODEL ...". MOST: so many
# questions with choices a corpus, where all (about 850, with reasoning) take too long.
set -euo pipefail
runs=${RUNS:-runs/en} table=${TABLE:-${RUNS:-runs/en}/table}
# shellcheck disable=SC2206  # several models
models=(${MODELS:-mini-en=mini-en mini-en:sta=mini-en:sta mini-en:paper=mini-en:paper mini-en:tgsr=mini-en:tgsr})
locators=(mini-en:tokens=mini-en:tokens "frames=$runs/frames/model" cascade=cascade)
# shellcheck disable=SC2206
[ -z "${LOCATORS:-}" ] || locators=($LOCATORS)

# The frame baseline (five minutes of one core).
tgsr train frames --clips "$runs"/{librispeech,speechocean,queen}-train/clips.jsonl --out "$runs/frames"

for corpus in librispeech speechocean queen; do
    phrases="$table/phrases-$corpus" choices="$table/choices-$corpus" test="$runs/$corpus-test/clips.jsonl"
    [ -e "$phrases/questions.jsonl" ] || tgsr build sta --clips "$test" --phrases 2 --max-words 6 --out "$phrases"
    [ -e "$choices/questions.jsonl" ] || tgsr build qa --clips "$test" --without "speaker count" --out "$choices"
    for model in "${locators[@]}" "${models[@]}"; do
        tgsr predict --questions "$phrases/questions.jsonl" --name "${model%%=*}" --model "${model#*=}" \
            --out "$phrases.jsonl"
    done
    for model in "${models[@]}"; do # as the paper asks, and for the letter alone
        tgsr predict --questions "$choices/questions.jsonl" ${MOST:+--limit "$MOST"} --name "${model%%=*}" \
            --model "${model#*=}" --out "$choices.jsonl"
        tgsr predict --questions "$choices/questions.jsonl" --name "${model%%=*}, the letter alone" \
            --model "${model#*=}" --prompt plain --max-new-tokens 8 --out "$choices.jsonl"
    done
    for kind in "$phrases" "$choices"; do
        tgsr score "$kind.jsonl" --clips "$test" --items "$kind.items.jsonl" --out "$kind.json"
    done
done
