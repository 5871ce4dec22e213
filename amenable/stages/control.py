"""Control: an agent learns to act in a gymnasium environment from its reward, or from comparisons of clips.

    reinforce   -mean log pi(a | s) (G - V), on whole episodes                      control/reinforce.py
    a2c         the same with n-step returns, on short rollouts                     control/a2c.py
    trpo        the natural gradient's step within a KL constraint                  control/trpo.py
    ppo         epochs of clipped steps                                             control/ppo.py

Advantages are GAE, and a time limit is no end: the value of the observation that it cut off stands for what would have
followed. The same functional/ as for language: [E, T] is environment x step here, response x token there.

With `--from comparisons` nobody writes a reward down (Christiano et al., 2017): a judge, or people in the browser, say
which of two clips is better, an ensemble of reward predictors learns from that, and the agent from them
(control/preference_training.py).

    P(left) = (1 - n) sigma(sum_t r(left_t) - sum_t r(right_t)) + n / 2             control/reward_learning.py

Reads nothing; needs `pip install 'amenable[control]'`. Writes policy.safetensors, policy.json, metrics.jsonl and, from
comparisons, reward.safetensors and probes.json; episodes.jsonl has the episodes that `amenable report --run` plays.
`--env` is any gymnasium id, or amenable/Gridworld-v0, amenable/MovingDot-v0, amenable/Backflip-v0 (docs/control.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from amenable.control import saved_policy
from amenable.control.a2c import A2C
from amenable.control.agent import Agent
from amenable.control.clip_judges import load_judge
from amenable.control.clip_pictures import RecordedEnvironments
from amenable.control.comparison_options import ComparisonOptions
from amenable.control.environments import Environments
from amenable.control.label_sources import JudgeLabels, LabelSource
from amenable.control.options import AgentOptions, fill
from amenable.control.people_labels import PeopleLabels
from amenable.control.ppo import PPO
from amenable.control.preference_training import PROBES, PreferenceTraining, write_probes
from amenable.control.recorded_episodes import EpisodeRecorder
from amenable.control.reinforce import Reinforce
from amenable.control.saved_policy import Description
from amenable.control.training import Training, evaluate, train
from amenable.control.trpo import TRPO
from amenable.errors import InputError
from amenable.models.tensor_files import write_tensors
from amenable.seeds import derive_seed
from amenable.train import plan
from amenable.train.run import Run
from amenable.train.stage_report import StageReport
from amenable.train.trackers import TrackerName

RESULTS = ("episode/return", "labels", "eval_rm/accuracy", "eval_rm/spearman", "eval_rm/concordance")
"""metrics of the last rollout that are facts of the run"""
ALGORITHMS: dict[str, type[Agent]] = {"reinforce": Reinforce, "a2c": A2C, "trpo": TRPO, "ppo": PPO}
REPORT = StageReport(
    "Control",
    "An agent learns to act in an environment, from its reward or from comparisons of clips.",
    "episode/return",
    (
        *(("return", "eval/return"), ("return in training", "episode/return"), ("steps", "timesteps")),
        *(("labels", "labels"), ("rank correlation with the true reward", "eval_rm/spearman")),
        *(("backward turns in an episode", "eval/rotation"), ("share with a full turn", "eval/full_turn")),
    ),
    (
        ("Return of the last 100 episodes", (("episode/return", "training"),)),
        ("Backward rotation in an episode, turns", (("episode/rotation", "training"),)),
        ("Entropy of the policy, nats", (("policy/entropy", "policy"),)),
        ("KL from the policy that acted", (("policy/approx_kl", "policy"),)),
        ("Explained variance of the critic", (("value/explained_variance", "critic"),)),
        ("Return of an episode by the learned reward", (("episode/predicted_return", "training"),)),
        ("Labels", (("labels", "answers"),)),
        ("Comparisons that the learned reward orders as the answers", (("eval_rm/accuracy", "held out"),)),
        ("Rank correlation of learned and true reward", (("eval_rm/spearman", "clips"),)),
    ),
)


@dataclass(frozen=True)
class Config(AgentOptions, ComparisonOptions):
    """Train an agent in an environment, from its reward or from comparisons of clips."""

    learn_from: Annotated[Literal["reward", "comparisons"], arg(name="from")] = "reward"
    """the environment's reward, or comparisons of clips (--judge): episodes then have a fixed length"""
    algorithm: Literal["reinforce", "a2c", "trpo", "ppo"] = "ppo"
    env: str = "CartPole-v1"
    """a gymnasium id, or one of ours: amenable/Gridworld-v0, amenable/MovingDot-v0, amenable/Backflip-v0"""
    env_options: tuple[str, ...] = ()
    """NAME=VALUE: options of the environment itself, as in slip=0.2"""
    fixed_length: bool = False
    """episodes end at the time limit alone, so that their length says nothing of the task"""
    total_timesteps: int = 100_000
    """steps in all copies of the environment together"""
    out: Path = Path("runs/control")
    seed: int = 0
    eval_episodes: int = 20
    """episodes played at the end by the likeliest actions; 0 is none"""
    save_steps: int = 50
    """rollouts between two checkpoints; 0 saves only when the run is stopped"""
    keep_checkpoints: int = 2
    track: tuple[TrackerName, ...] = ()
    """trackers that get metrics besides the files: tensorboard, wandb, trackio"""
    track_project: str = "amenable"
    """project of the run at wandb and trackio"""

    def __post_init__(self) -> None:
        AgentOptions.__post_init__(self)
        ComparisonOptions.__post_init__(self)
        plan.require_at_least(1, self, "total_timesteps")
        plan.require_at_least(0, self, "eval_episodes", "save_steps")
        plan.forbid(self.keep_checkpoints < 1, f"keep_checkpoints is {self.keep_checkpoints}", "it must be 1 or more")
        read_options(self.env_options)

    @property
    def ends_at_limit(self) -> bool:
        """True where episodes end at the time limit alone."""
        return self.fixed_length or self.learn_from == "comparisons"


def run(config: Config) -> Path:
    """Train and return the run directory."""
    algorithm = ALGORITHMS[config.algorithm]
    config = fill(config, algorithm.defaults)
    run = Run(config.out, "control", config)
    if run.skip_finished():
        return run.out
    training = make_training(config, algorithm)
    agent = training.agent
    run.log.info(f"{config.algorithm} in {config.env}, {training.environments.spaces}: {plan.parameters(agent.policy)}")
    run.begin()
    metrics = train(training, run, config.save_steps, EpisodeRecorder(run.out, partial(one_recorded, config)))
    facts: dict[str, Any] = {name: metrics[name] for name in ("timesteps", "episodes")}
    facts |= {name: metrics[name] for name in RESULTS if name in metrics}
    if config.eval_episodes:
        seed = derive_seed(config.seed, "evaluation")
        copies = make_environments(config, config.eval_episodes, seed)
        facts |= evaluate(copies, agent.policy, training.normalizer)
    saved_policy.save(run.out, agent.policy, training.normalizer, describe(config, training))
    if isinstance(training, PreferenceTraining):
        write_tensors(run.out / "reward.safetensors", training.ensemble.tensors)
        write_probes(run.out / PROBES, training)
    return run.finish(**facts)


def make_training(config: Config, algorithm: type[Agent]) -> Training:
    """Return the agent in its environments, with the reward that it learns from."""
    from_people = config.learn_from == "comparisons" and config.judge == "people"
    environments = make_environments(config, config.num_envs, config.seed, from_people)
    agent = algorithm(environments.spaces, config, config.seed)
    if config.learn_from == "reward":
        return Training(agent, environments, config.total_timesteps)
    labels: LabelSource
    if isinstance(environments, RecordedEnvironments):
        labels = PeopleLabels(config.labels_db, config.out, environments.painter.scene)
    else:
        labels = JudgeLabels(load_judge(config.judge, config, config.seed))
    untrained = partial(make_environments, config, config.num_envs, recorded=from_people)
    return PreferenceTraining(agent, environments, config.total_timesteps, config, labels, untrained)


def make_environments(config: Config, count: int, seed: int, recorded: bool = False) -> Environments:
    """Return copies of the environment, in which an end says nothing of the task if clips are compared."""
    kind = RecordedEnvironments if recorded else Environments
    return kind(config.env, count, seed, config.ends_at_limit, **read_options(config.env_options))


def one_recorded(config: Config) -> RecordedEnvironments:
    """Return one copy of the environment, always with the same start, whose pictures are kept."""
    seed, options = derive_seed(config.seed, "recorded episode"), read_options(config.env_options)
    return RecordedEnvironments(config.env, 1, seed, config.ends_at_limit, **options)


def read_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return NAME=VALUE pairs as options: values are JSON, or else text. InputError for one without a name."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"'{pair}' is not NAME=VALUE", "env_options", "as in --env-options slip=0.2")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def describe(config: Config, training: Training) -> Description:
    """Return what a saved policy is for."""
    spaces = training.environments.spaces
    sizes = list(spaces.shape), spaces.num_actions, spaces.is_discrete
    networks = list(config.hidden), config.activation, training.normalizer.enabled
    return Description(config.env, read_options(config.env_options), *sizes, *networks)
