#!/usr/bin/env bash
# Stage 2 with verl 0.9: table 6, rewarded by our plug-in.
#
# QA_QUESTIONS is what `tgsr build qa` wrote, with clips.jsonl beside it; so is VAL_QUESTIONS, of other clips. verl's
# environment needs this repository (pip install --no-deps -e FOLDER), msgspec and inflect; `tgsr` may be that of another
# one. The plug-in was loaded by verl 0.9.1 itself (tests/parity/plugins.json); nobody has run this on a GPU yet.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen2.5-Omni-7B}
OUT=${OUT:-runs/verl}
REWARD=${REWARD:-paper}   # or grounded, dense, as for tgsr train grpo
mkdir -p "$OUT"
tgsr export "$QA_QUESTIONS" --to verl --kind choice --out "$OUT/qa.parquet"
tgsr export "$VAL_QUESTIONS" --to verl --kind choice --out "$OUT/val.parquet"
python3 -m verl.trainer.main_ppo algorithm.adv_estimator=grpo \
    data.train_files="$OUT/qa.parquet" data.val_files="$OUT/val.parquet" \
    data.train_batch_size=32 data.max_prompt_length=8192 data.max_response_length=200 \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.lora_rank=16 actor_rollout_ref.model.lora_alpha=32 \
    actor_rollout_ref.actor.optim.lr=5e-6 actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1 \
    actor_rollout_ref.actor.clip_ratio=0.2 actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
    actor_rollout_ref.actor.use_kl_loss=True actor_rollout_ref.actor.kl_loss_coef=0.04 \
    actor_rollout_ref.actor.kl_loss_type=low_var_kl \
    actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.temperature=0.7 actor_rollout_ref.rollout.top_p=0.9 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1 \
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1 \
    reward.custom_reward_function.path=pkg://tgsr.data.plugins.tgsr_verl \
    reward.custom_reward_function.name=compute_score \
    +reward.custom_reward_function.reward_kwargs.reward="$REWARD" \
    trainer.n_gpus_per_node="${GPUS:-8}" trainer.nnodes="${NODES:-1}" trainer.total_epochs=1 \
    trainer.default_local_dir="$OUT" trainer.rollout_data_dir="$OUT/rollouts" \
    trainer.validation_data_dir="$OUT/validation" "$@"
tgsr score "$OUT/rollouts" --questions "$QA_QUESTIONS" --out "$OUT/metrics.json"
