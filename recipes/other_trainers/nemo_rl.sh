#!/usr/bin/env bash
# Stage 2 with NeMo-RL (August 2026), rewarded by our environment.
#
# Run in a checkout of NeMo-RL, whose environment needs this repository (uv pip install --no-deps -e FOLDER), msgspec,
# inflect and soxr; `tgsr` may be that of another one. NeMo-RL is not on PyPI, and was read and not run here. Everything
# that is not data, reward or table 6's is CONFIG's, one of NeMo-RL's for audio. QA_QUESTIONS is what `tgsr build qa`
# wrote, with clips.jsonl beside it.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen2.5-Omni-7B}
OUT=$(realpath -m "${OUT:-runs/nemo-rl}")
CONFIG=${CONFIG:-examples/configs/audio_grpo_3B_megatron.yaml}
REWARD=${REWARD:-paper}   # or grounded, dense, as for tgsr train grpo
mkdir -p "$OUT"
tgsr export "$QA_QUESTIONS" --to nemo-rl --kind choice --out "$OUT/qa.jsonl"
uv run python -m tgsr.data.plugins.tgsr_nemo_rl examples/run_vlm_grpo.py --config "$CONFIG" \
    policy.model_name="$MODEL" checkpointing.checkpoint_dir="$OUT" \
    data.train.dataset_name=tgsr.data.plugins.tgsr_nemo_rl.ExportedDataset \
    ++data.train.data_path="$OUT/qa.jsonl" ++data.train.split_validation_size=64 data.validation=null \
    data.default.processor=tgsr data.default.env_name=vlm ++env.vlm.reward="$REWARD" \
    grpo.num_prompts_per_step=32 grpo.num_generations_per_prompt=8 \
    policy.train_global_batch_size=256 policy.generation.max_new_tokens=200 \
    policy.generation.temperature=0.7 policy.generation.top_p=0.9 \
    policy.megatron_cfg.optimizer.lr=5e-6 loss_fn.reference_policy_kl_penalty=0.04 \
    loss_fn.ratio_clip_min=0.2 loss_fn.ratio_clip_max=0.2 loss_fn.token_level_loss=false \
    grpo.use_leave_one_out_baseline=false logger.log_dir="$OUT/logs" "$@"
# A log names no questions: they are found by their prompts.
LOG=$(printf '%s\n' "$OUT"/logs/exp_* | tail -n 1)
tgsr score "$LOG" --questions "$QA_QUESTIONS" --out "$OUT/metrics.json"
