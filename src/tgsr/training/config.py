"""The settings of both stages and of fine-tuning: the paper's tables 5 and 6; the command line is made from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tgsr.errors import OptionError, require
from tgsr.grpo import Eq6, KlEstimator, Normalisation
from tgsr.models.placement import Devices, LoadAs, Quantize
from tgsr.prompts import Times
from tgsr.rewards import C_MAX, C_MIN, K_MAX, K_REF, AnswerReader, check_compaction

Schedule = Literal["cosine", "linear", "constant"]

Tracker = Literal["none", "tensorboard", "trackio", "wandb"]

Reward = Literal["paper", "grounded", "dense"]
REWARD_WEIGHTS: dict[Reward | None, tuple[float, float]] = {
    None: (1.0, 0.0),  # the paper's
    "paper": (1.0, 0.0),
    "grounded": (0.0, 0.0),
    "dense": (1.0, 1.0),
}
"""What each reward weighs: the paper's count of timestamps, and the dense reward."""


LoraExperts = Annotated[
    bool,
    "of a mixture: a LoRA on its experts too, which are frozen otherwise; needs gradient checkpointing",
]
LoraRouter = Annotated[
    bool, "of a mixture: a LoRA on what chooses the experts too, which is frozen otherwise"
]
WatchFile = Annotated[
    str | None, "held-out questions that the model answers now and then; their words: clips.jsonl beside them"
]
AudioFolder = Annotated[str | None, "the folder that the sound files have moved to, where they have"]
WatchEvery = Annotated[
    int, "steps between two looks at --watch; before the first and after the last are two more"
]
BestBy = Literal[
    "evidence_hit", "trace_iou", "above_chance", "quote_truth", "accuracy", "accuracy_strict", "phrase_iou"
]
WatchBestBy = Annotated[BestBy, "what of --watch says which checkpoint is the best, which is kept"]

MAY_CHANGE = (
    *("max_steps", "checkpoint_every", "checkpoint_minutes", "keep_last"),
    *("watch", "watch_every", "best_by", "audio"),
    # Another machine's, or another number of processes': the same steps, to rounding.
    *("shard", "devices", "gradient_checkpointing", "clips_at_once", "prompts_at_once", "responses_at_once"),
    *("branches_at_once", "vllm", "quantize"),
)
"""Settings that a run may go on with changed: no step that is done rests on them, and none to come has other items."""


def require_counts(config: object, *names: str) -> None:
    """The named settings are 1 or more; None where a setting may be None."""
    for name in names:
        value = getattr(config, name)
        require(name, value, "1 or more", value is None or value >= 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """What every stage that trains an adapter has; a stage may have a default of its own."""

    load_as: Annotated[
        LoadAs, "how the base's weights are held; 4bit is for a LoRA and needs CUDA and bitsandbytes"
    ] = "checkpoint"
    devices: Annotated[Devices, "all: the base's layers are spread over this process's GPUs"] = "one"
    epochs: Annotated[int, "passes over the data"] = 1
    bfloat16: Annotated[
        bool, "products in bfloat16 (tables 5 and 6); trained weights and their updates stay float32"
    ] = False
    gradient_checkpointing: Annotated[bool, "compute layers twice, keep only their inputs"] = False
    shard: Annotated[
        bool, "spread the frozen decoder over the processes (FSDP2); stage 2's sampling holds it whole"
    ] = False
    learning_rate: Annotated[float, "peak"] = 2e-5
    schedule: Annotated[Schedule, "of the learning rate after the warm-up; the paper is silent"] = "cosine"
    warmup_share: Annotated[float, "of the steps"] = 0.03
    clip_norm: Annotated[float, "of the gradient; table 5 is silent"] = 1.0
    max_steps: Annotated[
        int,
        "end after so many; 0: after the epochs. Lowered for a run that goes on it ends it early, raised it goes on",
    ] = 0
    checkpoint_every: Annotated[int, "steps"] = 50
    checkpoint_minutes: Annotated[float, "and whenever so many have passed since the last one; 0: never"] = (
        0.0
    )
    keep_last: Annotated[int, "checkpoints; the best one by --best-by, if it is given, is kept besides"] = 2
    tracker: Annotated[Tracker, "where numbers go beside metrics.jsonl; needs its package"] = "none"
    seed: Annotated[int, "of the LoRA, of the order, and of the responses"] = 0

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "checkpoint_every", "keep_last")
        require("max_steps", self.max_steps, "0 or more", self.max_steps >= 0)
        minutes = self.checkpoint_minutes
        require("checkpoint_minutes", minutes, "0 or more", minutes >= 0)
        require("learning_rate", self.learning_rate, "above 0", self.learning_rate > 0)
        require("warmup_share", self.warmup_share, "0 to 1", 0 <= self.warmup_share <= 1)
        require("clip_norm", self.clip_norm, "above 0", self.clip_norm > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedConfig(TrainingConfig):
    """Table 5 gives the defaults but for a step's size; section 4.2 contradicts it: 8 GPUs x 8 a GPU x 4 passes."""

    clips_per_step: Annotated[
        int, "clips a step, over all processes, with all their texts; the paper counts texts, 128 a step"
    ] = 8
    clips_at_once: Annotated[int | None, "clips a pass; fewer need less memory and change no number"] = None
    weight_decay: Annotated[float, "the paper is silent"] = 0.0

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        require_counts(self, "clips_per_step", "clips_at_once")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaConfig(SupervisedConfig):
    """Stage 1: what is asked, and of which model."""

    questions: Annotated[str, "questions of kind phrase, JSONL"]
    audio: AudioFolder = None
    model: Annotated[str, "the model whose aligner is trained"] = "mini"
    lora_rank: Annotated[int, "above 0: a LoRA on the decoder trains too, a departure from the paper"] = 0
    times: Annotated[
        Times | None,
        "how times are written from now on: in words, as the paper's models do, or in Whisper's time tokens; as the "
        "model was taught if not given",
    ] = None
    clock: Annotated[
        bool,
        "the aligned audio says what second it is: sinusoids through one layer, added to each frame, which trains with "
        "the aligner (not the paper)",
    ] = False
    soft_times: Annotated[
        float,
        "above 0: a time token's target is spread over near ones, a Gaussian of so many ticks of 0.02 s (TEMPO, not "
        "the paper)",
    ] = 0.0
    watch: WatchFile = None
    watch_every: WatchEvery = 50
    best_by: WatchBestBy = "phrase_iou"

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        require_counts(self, "watch_every")
        require("soft_times", self.soft_times, "0 or more", self.soft_times >= 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SftConfig(SupervisedConfig):
    """The paper gives no settings for its reasoning SFT; the LoRA's are stage 2's."""

    responses: Annotated[str, "responses to be written, JSONL as `tgsr predict` writes it"]
    audio: AudioFolder = None
    model: Annotated[str, "the model whose decoder gets a LoRA"] = "mini:sta"
    right_only: Annotated[bool, "leave out responses whose final letter is wrong"] = False
    without_timestamps: Annotated[bool, "leave out responses that cite an interval, by any counter"] = False
    keep_truncated: Annotated[bool, "learn from responses, too, that were cut off before their end"] = False
    lora_rank: Annotated[int, "the paper is silent"] = 16
    lora_alpha: Annotated[int, "scale of the LoRA, as PEFT has it"] = 32
    lora_experts: LoraExperts = False
    lora_router: LoraRouter = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoConfig(TrainingConfig):
    """Table 6 gives the defaults but for a step's size; section 4.2 has a temperature of 0.8, the table of 0.7."""

    questions: Annotated[str, "questions of kind choice, JSONL"]
    audio: AudioFolder = None
    model: Annotated[str, "the stage-1 model: where training starts, and the KL's reference"] = "mini:sta"
    prompts_per_step: Annotated[
        int,
        "questions a step, over all processes; table 6's 8 a GPU x 8 GPUs x 4 count responses: 32 questions",
    ] = 8
    group_size: Annotated[int, "G, responses to each question"] = 8
    temperature: Annotated[float, "of sampling, and of all log-probs in the loss"] = 0.7
    top_p: Annotated[float, "nucleus of sampling"] = 0.9
    max_new_tokens: Annotated[int, "a response's most; longer ones are cut and counted (ours)"] = 200
    relisten: Annotated[
        bool,
        "once a response has cited a span, the span's frames enter again, and it goes on from there (ours)",
    ] = False
    relisten_seconds: Annotated[float, "of --relisten: most that a response hears again"] = 10.0
    mask_cut: Annotated[bool, "cut responses earn their reward and teach nothing (DAPO's filter)"] = False
    learning_rate: Annotated[float, "peak"] = 5e-6
    epsilon: Annotated[float, "clip of the ratio, both ways (Eq. 6)"] = 0.2
    epsilon_high: Annotated[float | None, "clip upwards, if another (DAPO)"] = None
    beta: Annotated[float, "weight of the KL to the stage-1 model"] = 0.04
    kl: Annotated[KlEstimator, "how the KL is estimated"] = "k3"
    normalisation: Annotated[Normalisation, "grpo is Eq. 6: each response alike, however long"] = "grpo"
    scale_rewards: Annotated[bool, "divide by the group's deviation (Eq. 5); Dr. GRPO does not"] = True
    updates_per_rollout: Annotated[int, "optimizer steps on the same responses"] = 1
    dynamic_sampling: Annotated[
        int | None,
        "leave questions out of the update whose responses all earn the same, and draw others in their place, at most "
        "so many times a step; 0: none are drawn (DAPO's; if not given all are in the update, as in the paper)",
    ] = None
    counter: Annotated[Literal["official", "strict"], "how timestamps are counted in Eq. 2"] = "official"
    answer_reader: Annotated[
        AnswerReader, "how the answer is read in Eq. 1; official reads (a) to (d), strict any choice"
    ] = "official"
    reward: Annotated[
        Reward | None,
        "what a response earns beside its answer. paper (the default): for having few timestamps, wherever they point "
        "(Eq. 3); grounded: for citing where the evidence is and quoting what is said there; dense: the paper's and "
        "the dense reward. It sets the weights of both, which cannot be given with it",
    ] = None
    answer_weight: Annotated[float, "of the answer's reward in Eq. 3"] = 1.0
    grounding_weight: Annotated[
        float | None, "of the paper's grounding reward, 1 if not given; 0 is its w/o grounding"
    ] = None
    compaction: Annotated[
        bool, "without it any number of timestamps earns c_max: our reading of the paper's w/o compaction"
    ] = True
    k_ref: Annotated[int, "most timestamps that earn c_max (Eq. 2)"] = K_REF
    k_max: Annotated[int, "from so many on they earn c_min; the paper omits it"] = K_MAX
    c_max: Annotated[float, "most that timestamps earn"] = C_MAX
    c_min: Annotated[float, "least that timestamps earn"] = C_MIN
    dense_weight: Annotated[
        float | None,
        "of the dense reward, 0 (off) if not given: what each cited span holds against what is said to be heard",
    ] = None
    clips: Annotated[
        str | None,
        "with the words' times, which grounded and dense need; clips.jsonl beside the questions if not given",
    ] = None
    lora_rank: Annotated[int, "the paper is silent about the LoRA's size"] = 16
    lora_alpha: Annotated[int, "scale of the LoRA, as PEFT has it"] = 32
    lora_experts: LoraExperts = False
    lora_router: LoraRouter = False
    vllm: Annotated[
        str | None, "URL of a vLLM server that samples instead of us, or URL,URL,...; see `tgsr decoder`"
    ] = None
    weight_cap: Annotated[
        float, "most that log-probs of vLLM or --quantize may weigh a token (truncated importance)"
    ] = 2.0
    quantize: Annotated[
        Quantize | None,
        "on a CPU: responses are drawn with the decoder's matrices rounded to 8 bits, and weighed as vLLM's are",
    ] = None
    branches_at_once: Annotated[int | None, "responses that decode together; fewer need less memory"] = None
    prompts_at_once: Annotated[int | None, "prompts a pass of the update; fewer need less memory"] = None
    responses_at_once: Annotated[
        int | None,
        "responses a pass of the update, where a whole group is too much; each pass reads the prompt anew",
    ] = None
    checkpoint_every: Annotated[int, "steps"] = 10
    watch: WatchFile = None
    watch_every: WatchEvery = 10
    best_by: WatchBestBy = "evidence_hit"

    def __post_init__(self) -> None:
        TrainingConfig.__post_init__(self)
        counts = ("prompts_per_step", "max_new_tokens", "updates_per_rollout", "lora_rank", "watch_every")
        require_counts(self, *counts, "branches_at_once", "prompts_at_once", "responses_at_once")
        draws = self.dynamic_sampling
        require("dynamic_sampling", draws, "0 or more", draws is None or draws >= 0)
        without_shards = "without --shard, whose processes need equal work"
        require("dynamic_sampling", draws, without_shards, draws is None or not self.shard)
        require("group_size", self.group_size, "2 or more: rewards are compared", self.group_size >= 2)
        require("temperature", self.temperature, "above 0", self.temperature > 0)
        require("top_p", self.top_p, "above 0, up to 1", 0 < self.top_p <= 1)
        require("epsilon", self.epsilon, "between 0 and 1", 0 < self.epsilon < 1)
        high = self.epsilon_high
        require("epsilon_high", high, "above 0", high is None or high > 0)
        require("beta", self.beta, "0 or more", self.beta >= 0)
        blank = self.vllm is not None and not all(url.strip() for url in self.vllm.split(","))
        require("vllm", self.vllm, "URL, or URL,URL", not blank)
        apart = self.vllm is None or self.quantize is None
        require("quantize", self.quantize, "without --vllm, whose server rounds by itself", apart)
        again = self.relisten_seconds
        require("relisten_seconds", again, "above 0", 0 < again < math.inf)
        sampled_here = self.vllm is None or not self.relisten
        require("vllm", self.vllm, "without --relisten, whose frames a server would not take", sampled_here)
        require("weight_cap", self.weight_cap, "1 or more", self.weight_cap >= 1)
        try:
            check_compaction(self.k_ref, self.k_max, self.c_max, self.c_min)
        except ValueError as error:
            raise OptionError(f"--k-ref, --k-max, --c-max, --c-min: {error}") from None
        given = [name for name in ("grounding_weight", "dense_weight") if getattr(self, name) is not None]
        if self.reward is not None and given:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise OptionError(f"--reward {self.reward}: sets {flags}; give either it or the weights")
        require("dense_weight", self.dense_weight, "0 or more", self.weights[1] >= 0)

    @property
    def weights(self) -> tuple[float, float]:
        """What the paper's grounding reward and the dense one weigh, by their options or by --reward."""
        grounding, dense = REWARD_WEIGHTS[self.reward]
        return (
            grounding if self.grounding_weight is None else self.grounding_weight,
            dense if self.dense_weight is None else self.dense_weight,
        )

    @property
    def hears_again(self) -> float:
        """As Decoding.hears_again."""
        return self.relisten_seconds if self.relisten else 0.0

    @property
    def needs_words(self) -> bool:
        """Whether a reward asks what is said in a clip."""
        return self.reward == "grounded" or self.weights[1] > 0

    @property
    def spelled_out(self) -> dict[str, object]:
        """As run.json has it: a run is the same however its reward was asked for, and can be asked for again."""
        if self.reward == "grounded":
            return {"reward": "grounded", "grounding_weight": None, "dense_weight": None}
        grounding, dense = self.weights  # the others are their weights
        return {"reward": None, "grounding_weight": grounding, "dense_weight": dense}

    @property
    def eq6(self) -> Eq6:
        """The constants of the loss; draws of vLLM and of rounded matrices are weighed."""
        return Eq6(
            self.epsilon,
            self.beta,
            self.epsilon_high,
            self.normalisation,
            self.max_new_tokens,
            self.kl,
            weight_cap=None if self.vllm is None and self.quantize is None else self.weight_cap,
        )


StageConfig = StaConfig | SftConfig | GrpoConfig
STAGES: dict[str, type[StageConfig]] = {"sta": StaConfig, "sft": SftConfig, "grpo": GrpoConfig}
