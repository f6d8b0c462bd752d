#!/usr/bin/env bash
# Section 4.1's corpora, each from a folder as its publisher ships it, to training sets of both stages.
#
# The paper's sets: about 268,000 examples for stage 1 (LibriSpeech, CoVoST 2, MELD, a multi-speaker set, YouTube8M speech)
# and 47,000 for stage 2 (MELD, multi-speaker, YouTube8M). It does not say how many come from which; all are kept here,
# and `shuf -n` draws as many as you want of questions.jsonl. `tgsr train` leaves out those of dev and test splits.
#
# LIBRISPEECH, COVOST, MELD, DIALOGUES and YOUTUBE are the corpora's folders.
set -euo pipefail
: "${LIBRISPEECH:?}" "${COVOST:?}" "${MELD:?}" "${DIALOGUES:?}" "${YOUTUBE:?}" # what is missing is told now, not after hours
OUT=${OUT:-data}
tgsr transcribe "$LIBRISPEECH" --corpus librispeech --out "$OUT/librispeech/clips.jsonl" --language en --workers 8
tgsr transcribe "$COVOST" --corpus covost --out "$OUT/covost/clips.jsonl" --workers 8
tgsr transcribe "$MELD" --corpus meld --out "$OUT/meld/clips.jsonl" --language en --workers 8
tgsr transcribe "$DIALOGUES" --corpus multispeaker --out "$OUT/dialogues/clips.jsonl" --language en --workers 8
tgsr transcribe "$YOUTUBE" --corpus folder --out "$OUT/youtube/clips.jsonl" --workers 8
tgsr build sta --clips "$OUT/librispeech/clips.jsonl" "$OUT/covost/clips.jsonl" "$OUT/meld/clips.jsonl" \
    "$OUT/dialogues/clips.jsonl" "$OUT/youtube/clips.jsonl" --out "$OUT/sta" --workers 8
tgsr build qa --clips "$OUT/meld/clips.jsonl" "$OUT/dialogues/clips.jsonl" "$OUT/youtube/clips.jsonl" \
    --out "$OUT/qa" --workers 8
