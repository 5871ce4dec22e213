"""Options of every online algorithm: what is sampled, how it is scored, the KL penalty, evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from amenable.data.mixture import Sources, parse_sources
from amenable.generation.sampler_options import SamplerOptions
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Specs
from amenable.train import plan
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.optimizer import OptimizerConfig
from amenable.train.run_options import AdapterOptions

KLEstimator = Literal["k1", "k2", "k3", "abs", "full"]


@dataclass(frozen=True, kw_only=True)
class OnlineOptions(SamplerOptions, AdapterOptions):
    """Options of every algorithm that learns from its own samples."""

    model: Path = Path("runs/sft")
    """policy as it starts"""
    reference_model: Path | None = None
    """frozen model that KL is measured from; by default the policy as it starts"""
    reference_url: tuple[str, ...] = ()
    """addresses of servers of that model, in place of loading it: http://127.0.0.1:8018/logprobs/NAME, by `amenable
    serve --models NAME=FOLDER`; or a file of them, which is read again where a server is lost"""
    reward: Specs = ("runs/reward",)
    """scores the answers: a reward model's folder, FOLDER:LABEL, FILE.py:FUNCTION, a rule such as match:answer or
    length:4-30, or an http address; several are added, each SPEC or SPEC=WEIGHT"""
    eval_reward_model: Specs = ()
    """another reward, not trained on: a warning is given where its score falls while the trained score rises"""
    scoring: Scoring = field(default_factory=RewardOptions)
    data: Sources = (Path("runs/world/prompts/ppo.jsonl"),)
    """prompts: a file, or a folder of files; several are mixed, each SOURCE or SOURCE=WEIGHT"""
    validation: Path | None = None
    """held-out prompts: answered every eval_steps, with the same random numbers each time"""
    max_steps: int = 40
    """iterations of sampling and learning"""
    prompts_per_step: int = 128
    num_generations: int = 1
    """samples of each prompt"""
    num_mini_batches: int = 4
    """updates of one pass over the samples"""
    num_ppo_epochs: int = 1
    """passes over the samples"""
    temperature: FromModel[float] = FROM_MODEL
    """divides the logits when sampling and in every log-probability; by default generation_config.json's, or 0.7"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """by default a quarter of the context, at most 256"""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(eps=1e-5))
    kl_coef: FromModel[float] = FROM_MODEL
    """price of a nat away from the reference, in units of reward; 0 is none, and stays none whatever the target; by
    default 0.3 for answers of at most 64 tokens, and in proportion less for longer ones"""
    adaptive_kl_target: FromModel[float] = FROM_MODEL
    """nats a response; the coefficient adapts to meet it; 0 keeps it fixed; by default 1.5 for answers of at most 64
    tokens, and in proportion more for longer ones"""
    kl_horizon: float = 600.0
    """samples over which the coefficient changes by a fifth; below the samples of a step it does so in every step"""
    kl_in: Literal["reward", "loss"] = "reward"
    """where the KL penalty stands: in the rewards that advantages are of, or as a term of the loss"""
    kl_estimator: KLEstimator | None = None
    """estimate of KL that is penalised: k1, k2, k3, |k1| (abs), or in the loss the sum over the vocabulary (full); by
    default k1 in the reward and k2 in the loss, whose gradients are right (functional/kl.py says which are)"""
    entropy_coef: float = 0.0
    max_staleness: int = 0
    """1: the next step's answers are sampled while this one trains, by the policy before it; 0: never"""
    sampler_correction: Literal["none", "truncate", "mask"] = "none"
    """weighs advantages by the trainer's probabilities over the sampler's, where the two are not one (their rounding in
    bf16, say): truncated at the cap (TIS), or 0 beyond 1 / cap and cap"""
    sampler_correction_level: Literal["token", "sequence"] = "token"
    """what has such a weight: a token, or a whole answer"""
    sampler_correction_cap: float = 2.0
    missing_eos_penalty: float = 1.0
    """taken from the score of an answer that was cut by the length limit"""
    overlong_buffer: int = 0
    """tokens before max_new_tokens over which the score falls to less overlong_penalty (DAPO); 0 is none"""
    overlong_penalty: float = 1.0
    dynamic_sampling: int = 0
    """times in a step that prompts whose answers all have one score give way to others (DAPO); 0 never"""
    score_clip: float = 0.0
    """scores are clipped to this size; 0 leaves them"""
    target_kl: float = 0.0
    """an iteration's updates end before the minibatch on which the policy's KL from the sampler is above this (k3 in
    nats a token, as policy/approxkl_avg; stable-baselines3 waits for 1.5 times as much); 0 never"""
    max_kl: float = 100.0
    """the run stops when objective/kl stays above this, in nats a response; 0 never"""
    kl_budget: float = 0.0
    """the run ends, normally, when eval/kl on the validation prompts is above this, in nats a response; the weights of
    the best eval/score within it are saved; 0 is no budget"""
    ptx_coef: float = 0.0
    """weight of the next-token loss on raw text mixed in (PPO-ptx)"""
    ptx_data: Path | None = None
    ptx_tokens: int = 1024
    """raw tokens mixed into each update"""
    keep_weights: Literal["last", "score"] = "last"
    """weights that are saved: the last, or those of the best score on the validation prompts"""
    eval_steps: int = 10
    eval_prompts: int = 200
    """held-out prompts that are answered, from the first on; 0 takes all"""
    sample_steps: int = 5
    num_traced_prompts: int = 6
    """prompts of which every token's numbers are written, every sample_steps; 0 is none"""
    save_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_sources(self.data)
        counts = "max_steps prompts_per_step num_generations num_mini_batches num_ppo_epochs max_new_tokens ptx_tokens"
        plan.require_at_least(1, self, *counts.split(), "eval_steps", "sample_steps")
        plan.require_at_least(0, self, "overlong_buffer", "overlong_penalty", "dynamic_sampling")
        sizes = "kl_coef adaptive_kl_target target_kl max_kl kl_budget score_clip ptx_coef eval_prompts"
        plan.require_at_least(0, self, *sizes.split(), "num_traced_prompts", "entropy_coef", "missing_eos_penalty")
        plan.require_above_zero(self, "temperature", "kl_horizon")
        plan.require_at_least(1, self, "sampler_correction_cap")
        plan.require_minibatches(self)
        self.require_sampler()
        plan.forbid(self.ptx_coef and not self.ptx_data, "--ptx-coef needs raw text", "give --ptx-data")
        problem = "k1 as a loss has gradient 0 in expectation: it keeps no policy near its reference"
        plan.forbid(
            self.kl_in == "loss" and self.kl_estimator == "k1", problem, "give --kl-estimator k2, or --kl-in reward"
        )
        problem = (
            "the sum over the vocabulary does not depend on the token drawn: as a reward it teaches that token nothing"
        )
        full = self.kl_in == "reward" and self.kl_estimator == "full"
        plan.forbid(full, problem, "give --kl-in loss, or --kl-estimator k1")
        self.require_reference()
        problem = f"dynamic_sampling compares the answers to a prompt, and num_generations is {self.num_generations}"
        plan.forbid(self.dynamic_sampling and self.num_generations < 2, problem, "sample 2 or more")
        if self.max_new_tokens is not None:
            problem = f"overlong_buffer {self.overlong_buffer} is more than max_new_tokens {self.max_new_tokens}"
            plan.forbid(self.overlong_buffer > self.max_new_tokens, problem, "give a smaller one")
        for name, chosen in (("--keep-weights score", self.keep_weights == "score"), ("--kl-budget", self.kl_budget)):
            plan.forbid(chosen and not self.validation, f"{name} needs prompts", "give --validation")

    def require_sampler(self) -> None:
        """Raise InputError for samplers and staleness that do not go together, or with other options."""
        problem = f"max_staleness is {self.max_staleness}"
        plan.forbid(not 0 <= self.max_staleness <= 1, problem, "it must be 0 or 1")
        colocated = self.max_staleness and self.sampler == "vllm" and not self.sampler_url
        plan.forbid(
            colocated, f"{problem}, and vLLM in this process does not sample beside training", "use --sampler-url"
        )
        stale = self.max_staleness and self.weighs_samples and self.sampler_correction == "none"
        plan.forbid(stale, f"{problem}: answers are an older policy's", "add --sampler-correction truncate")
        if self.sampler == "vllm":
            plan.forbid(self.virtual_tokens, "vLLM takes no virtual tokens", "use --sampler amenable, or --lora.rank")
            kinds = [name for name in ("dora", "bits") if getattr(self.lora, name)]
            plan.forbid(kinds, f"lora.{' '.join(kinds)} with --sampler vllm", "use --sampler amenable, or plain LoRA")

    def require_reference(self) -> None:
        """Raise InputError for a reference on servers where its weights are needed here."""
        other = "kl_estimator full" if self.estimator == "full" else "lora.bits" if self.lora.bits else None
        problem = f"{other} with --reference-url: a server has log-probabilities of tokens by unquantized weights alone"
        plan.forbid(self.reference_url and other, problem, "leave one out")

    @property
    def reference_folder(self) -> Path:
        """Folder of the frozen model that KL is measured from."""
        return self.reference_model or self.model

    @property
    def weighs_samples(self) -> bool:
        """True for a loss on advantages, which sampler_correction weighs."""
        return True

    @property
    def estimator(self) -> KLEstimator:
        """Estimate of KL that is penalised."""
        return self.kl_estimator or ("k1" if self.kl_in == "reward" else "k2")

    @property
    def ratio_of_answers(self) -> bool:
        """True where a loss has probability ratios of whole answers."""
        return False

    @property
    def samples(self) -> int:
        """Answers of a step."""
        return self.prompts_per_step * self.num_generations


@dataclass(frozen=True, kw_only=True)
class ClipOptions(OnlineOptions):
    """Options of algorithms whose ratio to the sampling policy is clipped."""

    cliprange: float = 0.2
    cliprange_high: float | None = None
    """how far above 1 a ratio may rise where that is not cliprange (DAPO's clip-higher: 0.28)"""
    dual_clip: float = 0.0
    """bound above 1 on ratios of what had a negative advantage (dual clip: 3); 0 is none"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "cliprange", "cliprange_high", "dual_clip")
        high = self.cliprange if self.cliprange_high is None else self.cliprange_high
        problem = f"dual_clip {self.dual_clip} is not above 1 + cliprange {high}, where ratios are clipped already"
        plan.forbid(0 < self.dual_clip <= 1 + high, problem, "give a larger one, such as 3")

    @property
    def clips(self) -> tuple[float, float | None, float]:
        """The bounds of the ratio, as the losses take them: cliprange, cliprange_high, dual_clip."""
        return self.cliprange, self.cliprange_high, self.dual_clip
