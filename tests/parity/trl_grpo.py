"""Asks TRL for GRPO's advantages, loss and gradient on fixed numbers; writes trl_grpo.json beside this file.

Needs an environment with TRL (pip install torch==2.13.0 trl==1.16.0 datasets peft); no network, no GPU:

    python tests/parity/trl_grpo.py

What runs is TRL's own GRPOTrainer. Two of its methods are replaced on the instance, so that the numbers
can be ours: the one that generates text and the one that returns the model's per-token log-probs.
tests/test_grpo.py compares tgsr.grpo with the file, so the test itself needs no TRL.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import datasets
import tokenizers
import torch
import transformers
import trl

SEED = 20240817
P, G, T = 4, 4, 6
LENGTHS = [6, 1, 4, 0, 3, 5, 2, 6, 6, 6, 1, 2, 5, 3, 4, 2]  # response tokens; one response has none
REWARDS_PG = [[1.5, 0.5, 0.0, 0.4], [1.0, 1.0, 1.0, 1.0], [0.3, 0.3, 0.3, 1.3], [0.0, 0.1, 0.2, 1.5]]


def make_trainer(
    folder: str, beta: float, loss_type: str = "grpo", epsilon_high: float | None = None, scale: str = "group"
) -> trl.GRPOTrainer:
    """A real trainer around a model of a few hundred parameters that is never run."""
    words = {"[PAD]": 0, "[EOS]": 1, "x": 2}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="x")),
        pad_token="[PAD]",
        eos_token="[EOS]",
    )
    config = transformers.Qwen2Config(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=1,
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)  # TRL loads the reference model from there
    arguments = trl.GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        report_to=[],
        bf16=False,
        per_device_train_batch_size=P * G,
        num_generations=G,
        loss_type=loss_type,
        max_completion_length=T,
        beta=beta,
        epsilon=0.2,
        epsilon_high=epsilon_high,
        scale_rewards=scale,
        use_bias_correction_kl=False,
    )
    trainer = trl.GRPOTrainer(
        model=folder,
        reward_funcs=lambda completions, **columns: [float(text) for text in completions],
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["x"] * P}),
        processing_class=tokenizer,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def trl_advantages(trainer: trl.GRPOTrainer) -> torch.Tensor:
    """Advantages of REWARDS_PG, (P * G,): each "generated" text is its own reward."""
    texts = [str(reward) for rewards in REWARDS_PG for reward in rewards]
    n = len(texts)
    trainer._generate = lambda prompts: ([[2]] * n, [[2, 1]] * n, None, texts, None, {}, None, None)
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (torch.zeros(n, 2), None, None)
    return trainer._generate_and_score_completions([{"prompt": "x"}] * n)["advantages"]


def trl_loss(trainer: trl.GRPOTrainer, case: dict[str, torch.Tensor | None]) -> tuple[float, torch.Tensor]:
    """Loss and its gradient with respect to the log-probs, (B, T)."""
    logp_BT = case["logp_BT"].clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (
        logp_BT,
        torch.zeros_like(logp_BT),
        None,
    )
    mask_BT = case["mask_BT"].long()
    inputs = {
        "prompt_ids": torch.full((len(mask_BT), 1), 2),
        "prompt_mask": torch.ones(len(mask_BT), 1, dtype=torch.long),
        "completion_ids": torch.full_like(mask_BT, 2),
        "completion_mask": mask_BT,
        "advantages": case["advantages_B"],
        "ref_per_token_logps": case["ref_logp_BT"],
        "num_items_in_batch": mask_BT.sum(),
    }
    if case["old_logp_BT"] is not None:  # TRL leaves it out where the sampling policy is the current one
        inputs["old_per_token_logps"] = case["old_logp_BT"]
    loss = trainer.compute_loss(trainer.model, inputs)
    (gradient_BT,) = torch.autograd.grad(loss, logp_BT)
    return loss.item(), gradient_BT


def main() -> None:
    generator = torch.Generator().manual_seed(SEED)
    shape = (P * G, T)
    logp_BT = -3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    old_logp_BT = logp_BT + 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    ref_logp_BT = logp_BT + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    mask_BT = torch.arange(T) < torch.tensor(LENGTHS).unsqueeze(1)
    result = {"trl": trl.__version__, "torch": torch.__version__, "seed": SEED, "rewards_PG": REWARDS_PG}
    result |= {"logp_BT": logp_BT.tolist(), "old_logp_BT": old_logp_BT.tolist()}
    result |= {"ref_logp_BT": ref_logp_BT.tolist(), "mask_BT": mask_BT.tolist(), "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        result["unscaled_advantages_B"] = trl_advantages(make_trainer(folder, 0.0, scale="none")).tolist()
        for beta, on_policy, loss_type, epsilon_high in (
            (0.04, False, "grpo", None),
            (0.04, True, "grpo", None),
            (0.0, False, "grpo", None),
            (0.04, False, "dapo", 0.28),
            (0.04, False, "dr_grpo", None),
        ):
            trainer = make_trainer(folder, beta, loss_type, epsilon_high)
            advantages_B = trl_advantages(trainer)
            result["advantages_B"] = advantages_B.tolist()
            case = {"logp_BT": logp_BT, "old_logp_BT": None if on_policy else old_logp_BT, "mask_BT": mask_BT}
            case |= {"ref_logp_BT": ref_logp_BT, "advantages_B": advantages_B.double()}
            loss, gradient_BT = trl_loss(trainer, case)
            metrics = trainer._metrics["train"]
            result["cases"].append(
                {
                    "beta": beta,
                    "epsilon": trainer.epsilon_low,
                    "on_policy": on_policy,
                    "normalisation": loss_type,
                    "epsilon_high": epsilon_high,
                    "loss": loss,
                    "gradient_BT": gradient_BT.tolist(),
                    "mean_kl": metrics["kl"][-1] if beta else None,
                    "clip_fraction": metrics["clip_ratio/region_mean"][-1],
                }
            )
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(f"wrote {path}: " + ", ".join(f"loss {case['loss']:.6f}" for case in result["cases"]))


if __name__ == "__main__":
    main()
