#!/usr/bin/env bash
# What each part of the method is worth, over seeds, on the miniatures: rows of tables 2 and 3, and claims with intervals.
#
#   recipes/findings.sh                  everything, in the order below, for at most HOURS (24) hours; run it again to go on
#   OUT=runs/small STEPS=10 TRAIN=32 CLIPS=20 WATCH=4 recipes/findings.sh  the same in some minutes: ten steps a run, few questions
#   ENGLISH=runs/en recipes/findings.sh  the English miniature too, on the clips that recipes/mini_en.sh has made there
#
# OUT/state.tsv says at each moment which step is done (with its minutes), which runs, and how long the rest is estimated
# to take by what the steps before it took. Each step resumes by itself: a run that is killed loses minutes. Two cores:
# about five hours for the digits' rows, five for English, three for the base's habits, two for altered sound.
#
#   base            vanilla: hears and talks, cannot time it; one, shared by all seeds
#   sta             stage 1
#   paper           both stages, Eq. 3's reward
#   grounded        both stages, the reward that looks where citations point (docs/rewards.md)
#   without-sta     GRPO by the paper's reward from the base
#   without-grounding   GRPO without R_tg
#   strict          both stages, Eq. 3's reward with timestamps counted by the strict counter
#   without-compaction  GRPO where any number of timestamps earns the most: the paper does not define it, our reading
#   reasoning-sft   four samples a question from the base, of which those are learned that are right and cite nothing
#   answer-only     the right answer alone is learned, without reasoning, from stage 1
#   plain, clock, soft, tokens   stage 1 as it is, and as other groups do it (benchmarks/stage1_options.py)
#   clock-grounded  as grounded, from the stage 1 with a clock
#   relisten        as paper, and a cited span's frames enter again before the answer, in training and when asked
#
# The seed is that of the LoRA, of the order and of the responses; the test questions are the same for all. OUT keeps what
# it was begun with: STEPS, TRAIN, CLIPS and WATCH are the same until its end, SEEDS and ENGLISH may add to it.
set -euo pipefail
OUT=${OUT:-runs/findings} HOURS=${HOURS:-24} SEEDS=${SEEDS:-0 1 2} STEPS=${STEPS:-120} TRAIN=${TRAIN:-800} CLIPS=${CLIPS:-300} WATCH=${WATCH:-40}
stop() { echo "findings: $*" >&2; exit 2; }
for name in STEPS TRAIN CLIPS WATCH; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || stop "$name=${!name}: must be a whole number, 1 or more"
done
[[ $HOURS =~ ^(0|[1-9][0-9]*)$ ]] || stop "HOURS=$HOURS: must be a whole number"
settings="STEPS=$STEPS TRAIN=$TRAIN CLIPS=$CLIPS WATCH=$WATCH"
mkdir -p "$OUT/done"
# A step that is done is not run again, whatever it was asked: small numbers must not stand under large settings.
if [ ! -e "$OUT/settings" ]; then
    [ -z "$(ls "$OUT/done")" ] || stop "$OUT has steps of an older version, which did not keep its settings: if they are" \
        "these, echo '$settings' > '$OUT/settings'; else choose another OUT"
    echo "$settings" > "$OUT/settings.new"
    mv "$OUT/settings.new" "$OUT/settings"
fi
[ "$(< "$OUT/settings")" = "$settings" ] || stop "$OUT was begun with $(< "$OUT/settings"), this is $settings: give those, or" \
    "another OUT"
SOME=$(((CLIPS + 2) / 3)) # clips or questions, where all take too long
started=$SECONDS

names=() guesses=() commands=()
step() { # NAME MINUTES COMMAND...: minutes on two quiet cores, a guess until steps of this run have been timed
    names+=("$1") guesses+=("$2") commands+=("$(printf '%q ' "${@:3}")")
}

state() { # [RUNNING]: what is done, runs, is left or did not fit
    local index name took
    for index in "${!names[@]}"; do
        name=${names[index]}
        if [ -e "$OUT/done/$name" ]; then
            read -r took < "$OUT/done/$name"
            printf '%s\tdone\t%s\t%s\n' "$name" "$took" "${guesses[index]}"
        elif [ "$name" = "${1:-}" ]; then printf '%s\truns\t\t%s\n' "$name" "${guesses[index]}"
        else printf '%s\t%s\t\t%s\n' "$name" "${2:-left}" "${guesses[index]}"; fi
    done | awk -F'\t' 'BEGIN { OFS = "\t" }
        { row[NR] = $0; if ($2 == "done") { took += $3; guessed += $4 } }
        END {
            ratio = guessed > 0 ? took / guessed : 1
            print "step", "state", "minutes"
            for (i = 1; i <= NR; i++) {
                split(row[i], part, "\t")
                if (part[2] != "done") { part[3] = sprintf("about %.1f", part[4] * ratio); left += part[4] * ratio }
                print part[1], part[2], part[3]
            }
            printf "all\t%s\tabout %.0f\n", (left > 0 ? "left" : "done"), left
        }' > "$OUT/state.tsv.new"
    mv "$OUT/state.tsv.new" "$OUT/state.tsv"
}

run() {
    local index name before
    for index in "${!names[@]}"; do
        name=${names[index]}
        [ -e "$OUT/done/$name" ] && continue
        if [ $((SECONDS - started)) -ge $((HOURS * 3600)) ]; then
            state "" "not run"
            echo "findings: $HOURS hours are over; $OUT/state.tsv lists what was not run, and the same command goes on" >&2
            return
        fi
        state "$name"
        before=$SECONDS
        eval "${commands[index]}"
        awk "BEGIN { printf \"%.1f\n\", ($SECONDS - $before) / 60 }" > "$OUT/done/$name.new"
        mv "$OUT/done/$name.new" "$OUT/done/$name"
    done
    state
}

# --- data ------------------------------------------------------------------------------------------------
build() { # STAGE OPTIONS... --out FOLDER: questions that are there are whole
    [ -e "${*: -1}/questions.jsonl" ] || tgsr build "$@"
}
step data-sta 1 build sta --digits $((TRAIN * 5 / 2)) --phrases 4 --split train --out "$OUT/data-sta"
step data-qa 1 build qa --digits "$TRAIN" --split train --without who count --out "$OUT/data-qa"
step data-watch 1 build qa --digits "$WATCH" --first 70000 --split train --without who count --out "$OUT/data-watch"
for split in heldout-recordings heldout-speaker; do
    step "data-$split" 1 build qa --digits "$CLIPS" --first 90000 --split "$split" --without who count --out "$OUT/$split"
done

# --- who is asked, and how -------------------------------------------------------------------------------
asked=()
ask() { # WORLD NAME MODEL SPLIT...: under its name, a file for each split; ASK_FLAGS: of predict
    local world=$1 name=$2 model=$3 split
    for split in "${@:4}"; do
        tgsr predict --questions "$split/questions.jsonl" --model "$model" --name "$name" ${ASK_FLAGS:-} \
            --out "$OUT/answers/$world/$name-$(basename "$split").jsonl"
    done
}
ask_again() { ASK_FLAGS=--relisten ask "$@"; }
ask_some() { ASK_FLAGS="--limit $SOME" ask "$@"; } # the same for every model
digits() { # NAME MODEL
    step "ask-$1" 2 ask digits "$1" "$2" "$OUT/heldout-recordings" "$OUT/heldout-speaker"
    asked+=("$2")
}
grpo() { # NAME FROM SEED OPTIONS...
    tgsr train grpo --questions "$OUT/data-qa/questions.jsonl" --model "$2" --learning-rate 2e-3 --max-steps "$STEPS" \
        --watch "$OUT/data-watch/questions.jsonl" --watch-every $((STEPS / 12 > 0 ? STEPS / 12 : 1)) \
        --seed "$3" --out "$OUT/$1" "${@:4}"
}
sample() { # SEED: four responses a question from the base
    local nth
    for nth in 0 1 2 3; do
        tgsr predict --questions "$OUT/data-qa/questions.jsonl" --model mini --temperature 0.7 --top-p 0.9 \
            --seed $((10 * $1 + nth)) --out "$OUT/samples-$1/$nth.jsonl"
    done
    cat "$OUT/samples-$1"/[0-3].jsonl > "$OUT/samples-$1/all.jsonl"
}
sft() { # NAME FROM SEED RESPONSES OPTIONS...
    tgsr train sft --responses "$4" --model "$2" --learning-rate 1e-3 --max-steps "$STEPS" --seed "$3" --out "$OUT/$1" "${@:5}"
}

# --- the digits' world: rows of tables 2 and 3 --------------------------------------------------------------
digits base mini
digits mini:paper mini:paper
digits mini:tgsr mini:tgsr
step answers 1 python "$(dirname "$0")/../benchmarks/findings.py" answers "$OUT/data-qa/questions.jsonl" "$OUT/data-qa/answers.jsonl"
for seed in $SEEDS; do
    sta=$OUT/sta-$seed/adapter
    step "sta-$seed" 4 tgsr train sta --questions "$OUT/data-sta/questions.jsonl" --model mini --clips-per-step 8 \
        --learning-rate 1e-3 --max-steps $((2 * STEPS)) --seed "$seed" --out "$OUT/sta-$seed"
    digits "sta-$seed" "$sta"
    for reward in paper grounded; do
        step "$reward-$seed" 10 grpo "$reward-$seed" "$sta" "$seed" --reward $reward
        digits "$reward-$seed" "$OUT/$reward-$seed/adapter"
    done
done
for seed in $SEEDS; do
    sta=$OUT/sta-$seed/adapter
    step "without-grounding-$seed" 10 grpo "without-grounding-$seed" "$sta" "$seed" --grounding-weight 0
    digits "without-grounding-$seed" "$OUT/without-grounding-$seed/adapter"
    step "without-sta-$seed" 10 grpo "without-sta-$seed" mini "$seed"
    digits "without-sta-$seed" "$OUT/without-sta-$seed/adapter"
    step "without-compaction-$seed" 10 grpo "without-compaction-$seed" "$sta" "$seed" --no-compaction
    digits "without-compaction-$seed" "$OUT/without-compaction-$seed/adapter"
    step "strict-$seed" 10 grpo "strict-$seed" "$sta" "$seed" --counter strict
    digits "strict-$seed" "$OUT/strict-$seed/adapter"
    step "samples-$seed" 4 sample "$seed"
    step "reasoning-sft-$seed" 3 sft "reasoning-sft-$seed" mini "$seed" "$OUT/samples-$seed/all.jsonl" --right-only --without-timestamps
    digits "reasoning-sft-$seed" "$OUT/reasoning-sft-$seed/adapter"
    step "answer-only-$seed" 3 sft "answer-only-$seed" "$sta" "$seed" "$OUT/data-qa/answers.jsonl"
    digits "answer-only-$seed" "$OUT/answer-only-$seed/adapter"
done

# --- the English world -----------------------------------------------------------------------------------
if [ -n "${ENGLISH:-}" ]; then
    tests=("$ENGLISH/librispeech-test-qa" "$ENGLISH/speechocean-test-qa" "$ENGLISH/queen-test-qa")
    for test in "${tests[@]}"; do
        step "data-$(basename "$test")" 1 build qa --clips "${test%-qa}/clips.jsonl" --without "speaker count" --out "$test"
    done
    step ask-english-base 4 ask_some english base mini-en "${tests[@]}"
    for seed in $SEEDS; do
        sta=$OUT/english-sta-$seed/adapter
        step "english-sta-$seed" 8 tgsr train sta --questions "$ENGLISH/data-sta/questions.jsonl" --model mini-en --soft-times 3 \
            --clips-per-step 8 --learning-rate 1e-3 --bfloat16 --max-steps $(((STEPS * 5 + 5) / 6)) --seed "$seed" --out "$OUT/english-sta-$seed"
        step "ask-english-sta-$seed" 4 ask_some english "sta-$seed" "$sta" "${tests[@]}"
        for reward in paper grounded; do
            step "english-$reward-$seed" 15 tgsr train grpo --questions "$ENGLISH/data-qa/questions.jsonl" --model "$sta" \
                --reward $reward --prompts-per-step 4 --learning-rate 3e-4 --max-steps $(((STEPS + 2) / 3)) --bfloat16 \
                --seed "$seed" --out "$OUT/english-$reward-$seed"
            step "ask-english-$reward-$seed" 4 ask_some english "$reward-$seed" "$OUT/english-$reward-$seed/adapter" "${tests[@]}"
        done
    done
fi

# --- why greedy answers do not rise: what the same models answer when they are sampled ---------------------
sampled() { # NAME MODEL
    tgsr predict --questions "$OUT/heldout-recordings/questions.jsonl" --model "$2" --name "$1" --temperature 1 --seed 0 \
        --out "$OUT/answers/digits-sampled/$1.jsonl"
}
step sample-base 1 sampled base mini
for seed in $SEEDS; do
    for row in sta paper grounded without-grounding; do
        step "sample-$row-$seed" 1 sampled "$row-$seed" "$OUT/$row-$seed/adapter"
    done
done

# --- what the base's habits must be: lessons whose answers are right more often for better evidence, or not ---
for gain in 0 0.5 1; do
    step "base-gain-$gain" 15 tgsr train base --start mini --talking-steps $((STEPS * 5 / 2)) \
        --n-clips $((TRAIN * 5)) --evidence-gain "$gain" --out "$OUT/base-gain-$gain"
    base=$OUT/base-gain-$gain/model sta=$OUT/sta-gain-$gain/adapter
    step "ask-base-gain-$gain" 2 ask "digits-gain-$gain" base "$base" "$OUT/heldout-recordings" "$OUT/heldout-speaker"
    step "sta-gain-$gain" 4 tgsr train sta --questions "$OUT/data-sta/questions.jsonl" --model "$base" --clips-per-step 8 \
        --learning-rate 1e-3 --max-steps $((2 * STEPS)) --out "$OUT/sta-gain-$gain"
    step "ask-sta-gain-$gain" 2 ask "digits-gain-$gain" sta-0 "$sta" "$OUT/heldout-recordings" "$OUT/heldout-speaker"
    for seed in $SEEDS; do
        step "gain-$gain-$seed" 10 grpo "gain-$gain-$seed" "$sta" "$seed"
        step "ask-gain-$gain-$seed" 2 ask "digits-gain-$gain" "paper-$seed" "$OUT/gain-$gain-$seed/adapter" \
            "$OUT/heldout-recordings" "$OUT/heldout-speaker"
    done
done

# --- altered sound, and clips longer than those that stage 1 has heard --------------------------------------
alter() {
    build sta --digits "$SOME" --first 90000 --split heldout-speaker --phrases 2 --out "$OUT/altered-phrases"
    build qa --digits "$SOME" --first 90000 --split heldout-speaker --without who count --out "$OUT/altered-choices"
    python "$(dirname "$0")/../benchmarks/robustness.py" "$OUT/altered-phrases/questions.jsonl" "$OUT/altered-choices/questions.jsonl" \
        --out "$OUT/altered-sound"
}
hear_altered() { # NAME MODEL
    local folder
    for folder in "$OUT"/altered-sound/*/; do
        [ -s "$folder/questions.jsonl" ] || continue
        tgsr predict --questions "$folder/questions.jsonl" --model "$2" --name "$1" --out "$OUT/altered/$(basename "$folder")/$1.jsonl"
    done
}
step alter 1 alter
step short 1 python "$(dirname "$0")/../benchmarks/findings.py" short "$OUT/data-sta/questions.jsonl" 5
step altered-base 6 hear_altered base mini
for model in mini:paper mini:tgsr; do step "altered-$model" 6 hear_altered "$model" "$model"; done
for seed in $SEEDS; do
    for row in sta paper grounded; do step "altered-$row-$seed" 6 hear_altered "$row-$seed" "$OUT/$row-$seed/adapter"; done
    step "short-sta-$seed" 4 tgsr train sta --questions "$OUT/data-sta/short.jsonl" --model mini --clips-per-step 8 \
        --learning-rate 1e-3 --max-steps $((2 * STEPS)) --seed "$seed" --out "$OUT/short-sta-$seed"
    step "altered-short-sta-$seed" 6 hear_altered "short-sta-$seed" "$OUT/short-sta-$seed/adapter"
done

# --- the options: what others do, or propose --------------------------------------------------------------
way() { # WAY SEED: stage 1 otherwise, asked for phrases
    python "$(dirname "$0")/../benchmarks/stage1_options.py" "$1" --questions "$OUT/data-sta/questions.jsonl" \
        --test "$OUT/phrases/questions.jsonl" --steps $((2 * STEPS)) --seed "$2" --out "$OUT/options"
}
step data-phrases 1 build sta --digits "$SOME" --first 90000 --split heldout-recordings --phrases 4 --out "$OUT/phrases"
for seed in $SEEDS; do
    step "relisten-$seed" 13 grpo "relisten-$seed" "$OUT/sta-$seed/adapter" "$seed" --reward paper --relisten
    step "ask-relisten-$seed" 3 ask_again digits "relisten-$seed" "$OUT/relisten-$seed/adapter" \
        "$OUT/heldout-recordings" "$OUT/heldout-speaker"
    for way in plain clock soft tokens; do step "$way-$seed" 6 way "$way" "$seed"; done
    step "clock-grounded-$seed" 10 grpo "clock-grounded-$seed" "$OUT/options/clock-$seed/adapter" "$seed" --reward grounded
    digits "clock-grounded-$seed" "$OUT/clock-grounded-$seed/adapter"
done

# --- what they do besides being right --------------------------------------------------------------------
attend() { # a dozen clips: attention by block, of every model
    local model flags=()
    for model in "${asked[@]}"; do flags+=(--model "$model"); done
    tgsr attend --questions "$OUT/heldout-recordings/questions.jsonl" --limit 40 "${flags[@]}" --out "$OUT/attention"
}
step attention 15 attend
control() {
    local model flags=()
    for model in "${asked[@]}"; do flags+=(--model "$model"); done
    tgsr control --questions "$OUT/heldout-recordings/questions.jsonl" --limit 60 "${flags[@]}" \
        --conditions silenced evidence-only evidence-removed --out "$OUT/controls"
}
step controls 20 control
behave() { # the first questions of each split: Whisper hears each cited span
    local file
    mkdir -p "$OUT/heard/digits" && rm -f "$OUT"/heard/digits/*
    for file in "$OUT"/answers/digits/*.jsonl; do
        head -n "$SOME" "$file" > "$OUT/heard/digits/$(basename "$file")"
    done
    tgsr behaviour "$OUT"/heard/digits/*.jsonl --out "$OUT/behaviour"
}
step behaviour 20 behave
run
python "$(dirname "$0")/../benchmarks/findings.py" gather "$OUT" --out "$OUT/findings.json.gz"
python "$(dirname "$0")/../benchmarks/findings.py" tables "$OUT/findings.json.gz" --out "$OUT/findings.md"
