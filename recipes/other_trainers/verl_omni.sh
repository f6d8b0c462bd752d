#!/usr/bin/env bash
# Stage 2 of Qwen3-Omni's thinker with verl-omni (August 2026), rewarded by our plug-in for verl.
#
# verl-omni takes verl's reward functions, by verl's own loader; it is not on PyPI, and was read and not run here. The
# settings besides data, reward and table 6's are those of its own script, examples/gspo_trainer/qwen3_omni. Its
# environment needs this repository (pip install --no-deps -e FOLDER), msgspec and inflect; `tgsr` may be that of another
# one. QA_QUESTIONS and VAL_QUESTIONS are what `tgsr build qa` wrote, with clips.jsonl beside them.
set -euo pipefail
export VERL_USE_EXTERNAL_MODULES=verl_omni
MODEL=${MODEL:-Qwen/Qwen3-Omni-30B-A3B-Instruct}
OUT=${OUT:-runs/verl-omni}
REWARD=${REWARD:-paper}   # or grounded, dense, as for tgsr train grpo
mkdir -p "$OUT"
tgsr export "$QA_QUESTIONS" --to verl --family qwen3_omni --kind choice --out "$OUT/qa.parquet"
tgsr export "$VAL_QUESTIONS" --to verl --family qwen3_omni --kind choice --out "$OUT/val.parquet"
python3 -m verl_omni.trainer.main_omni algorithm.adv_estimator=grpo algorithm.use_kl_in_reward=False \
    data.train_files="$OUT/qa.parquet" data.val_files="$OUT/val.parquet" \
    data.custom_cls.path=pkg://verl_omni.utils.dataset.omni_rl_datasets \
    data.custom_cls.name=QwenOmniRLHFDataset ++data.mm_processor_kwargs.sampling_rate=16000 \
    data.train_batch_size=32 data.max_prompt_length=8192 data.max_response_length=200 \
    actor_rollout_ref.model.path="$MODEL" \
    actor_rollout_ref.model.lora_rank=16 actor_rollout_ref.model.lora_alpha=32 \
    actor_rollout_ref.model.target_modules="['q_proj','k_proj','v_proj','o_proj']" \
    actor_rollout_ref.model.exclude_modules=".*talker.*|.*code2wav.*|.*code_predictor.*|.*visual.*|.*audio_tower.*" \
    actor_rollout_ref.actor.strategy=fsdp2 actor_rollout_ref.actor.optim.lr=5e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 actor_rollout_ref.actor.use_dynamic_bsz=True \
    actor_rollout_ref.actor.clip_ratio=0.2 actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
    actor_rollout_ref.actor.use_kl_loss=True actor_rollout_ref.actor.kl_loss_coef=0.04 \
    actor_rollout_ref.rollout.n=8 actor_rollout_ref.rollout.temperature=0.7 \
    actor_rollout_ref.rollout.top_p=0.9 \
    +actor_rollout_ref.rollout.engine_kwargs.vllm_omni.output_mode=ar \
    +actor_rollout_ref.rollout.engine_kwargs.vllm_omni.pipeline_name=qwen3_omni_moe \
    reward.custom_reward_function.path=pkg://tgsr.data.plugins.tgsr_verl \
    reward.custom_reward_function.name=compute_score \
    +reward.custom_reward_function.reward_kwargs.reward="$REWARD" \
    trainer.n_gpus_per_node="${GPUS:-8}" trainer.nnodes="${NODES:-1}" trainer.total_epochs=1 \
    trainer.default_local_dir="$OUT" trainer.rollout_data_dir="$OUT/rollouts" "$@"
tgsr score "$OUT/rollouts" --questions "$QA_QUESTIONS" --out "$OUT/metrics.json"
