"""Put models side by side on the same prompts, sampled at temperature 1 and greedily.

For each model: gold and its parts where a world knows the truth, reward, KL to a reference, entropy, length, whether
answers end; bits per byte of raw text, few-shot tasks by likelihood. For each pair of models: how often a judge prefers
one, shown in both orders, ties half, with Wilson intervals. A gain at temperature 1 can be mere sharpening, so both
decodings are shown, and a model can be sharpened to another's entropy (@entropy-of-ppo; more in evaluation/entries.py).

Reads model directories and prompts; writes evaluation.json and samples.jsonl (every prompt with every model's answer).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.data import sources
from amenable.evaluation import entries as model_entries
from amenable.evaluation.answering import GenerationConfig, LoadedModel, sampling_temperature
from amenable.evaluation.base_prompts import read_transcripts
from amenable.evaluation.entries import ModelEntry, default_models, parse_entries, parse_suites
from amenable.evaluation.load_answers import TEST
from amenable.evaluation.metrics import Scorers
from amenable.evaluation.preference import DECODINGS, Decoding
from amenable.evaluation.prompting import Prompting, PromptingField, PromptingOptions
from amenable.evaluation.prompts import fitting_prompts, readers_of
from amenable.evaluation.results import Results, write_results
from amenable.evaluation.runner import Suites, evaluate_model, lm_metrics, plan_lines
from amenable.evaluation.tasks.forms import read_tasks, task_inputs, without_tasks
from amenable.evaluation.tasks.options import Tasking, TaskOptions
from amenable.evaluation.vllm_answers import answers_by, close
from amenable.generation.sampler_options import SamplerOptions
from amenable.generation.sampling import Sampling
from amenable.rewards.options import RewardOptions, Scoring
from amenable.rewards.spec import Specs, reads_column, reward_inputs
from amenable.train import defaults, plan
from amenable.train.defaults import FROM_MODEL, FromModel, sampling_traits
from amenable.train.examples import keep_usable
from amenable.train.failed_rewards import scoring
from amenable.train.run import Run
from amenable.train.run_options import RunOptions
from amenable.train.runtime import start_runtime
from amenable.train.stage_report import StageReport

REPORT = StageReport("Evaluation", "Models answer the same prompts, new to all.", facts=(("prompts", "prompts"),))


@dataclass(frozen=True)
class Config(SamplerOptions, RunOptions):
    """Compare models on the same prompts."""

    models: tuple[str, ...] = ()
    """name=folder of each model, or name=folder@modifier: @few-shot, @instructed, @best-of-16, @temperature-0.6,
    @entropy-of-NAME; by default base=runs/pretrain, sft=runs/sft, ppo=runs/ppo and dpo=runs/dpo, those finished"""
    data: Path | None = None
    """prompts: a file, or a folder of files; by default runs/world/prompts/test.jsonl, and none beside --tasks"""
    suites: tuple[str, ...] = ()
    """name=path of further prompts, each with figures of its own"""
    suite_decoding: tuple[Decoding, ...] = DECODINGS
    """how the suites are answered"""
    greedy: bool = True
    """answer --data greedily too, beside the sampled answers"""
    prompting: PromptingField = field(default_factory=PromptingOptions)
    instruction: str = ""
    """follows the user's last words, in the prompts of models @instructed"""
    transcripts: Path | None = None
    """how base models are asked: rows with name (zero-shot or few-shot), user, assistant, end"""
    tasks: tuple[str, ...] = ()
    """files of published tests, FILE or FORM:FILE, or folders of them"""
    tasking: Tasking = field(default_factory=TaskOptions)
    best_of_prompts: int = 600
    """of models @best-of-N"""
    world: Path | None = None
    """the closed world that knows the truth about these prompts"""
    reward: Specs = ()
    """scores the answers, and judges them where there is no world; SPECs as those of ppo, several are added"""
    scoring: Scoring = field(default_factory=RewardOptions)
    lm_data: Path | None = None
    """raw text for bits per byte"""
    demonstrations: Path | None = None
    """conversations whose likelihood is measured"""
    reference: str = "sft"
    """KL is measured to it: one of the models, or a folder; where it is neither, no KL is measured"""
    out: Path = Path("runs/evaluate")
    max_prompts: int = 0
    """take only so many prompts of each suite; 0 takes all"""
    temperature: float = 1.0
    """of the sampled answers"""
    max_new_tokens: FromModel[int] = FROM_MODEL
    """by default a quarter of the least context of the models, at most 256"""
    text_tokens: int = 30_000
    """at most so many tokens of raw text for bits per byte"""
    max_tokens_per_pass: int = 8192
    max_batch_size: int = 128
    """answers decoded at once"""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("max_batch_size", "max_tokens_per_pass", "text_tokens", "best_of_prompts", "max_new_tokens")
        plan.require_at_least(1, self, *sizes)
        plan.require_at_least(0, self, "max_prompts")
        sampling, hint = Sampling(temperature=self.temperature), "--greedy makes greedy answers; give one above 0"
        plan.forbid(not sampling.temperature, "temperature is 0", hint)
        model_entries.require_options(self.entries, self.reward, self.prompting.is_given, self.instruction, self.tasks)
        parse_suites(self.data, self.suites, self.tasks)

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        return parse_entries(self.models) if self.models else ()

    @property
    def reference_folder(self) -> Path | None:
        """The folder of the model that KL is measured to."""
        return model_entries.reference_folder(self.reference, self.entries)

    @property
    def folders(self) -> list[Path]:
        """The folders of all language models, each once."""
        return list(dict.fromkeys(filter(None, [*(entry.folder for entry in self.entries), self.reference_folder])))


def run(config: Config) -> Path:
    """Evaluate and return the run directory."""
    config = config if config.models else replace(config, models=default_models())
    config, by_default = defaults.evaluate(config, [sampling_traits(folder) for folder in config.folders])
    run = Run(config.out, "evaluate", config, inputs(config))
    if run.skip_finished():
        return run.out
    runtime = start_runtime(config.device)
    limits, rows = (config.temperature, runtime, config.max_tokens_per_pass), config.max_batch_size
    vllm = answers_by(config, [entry.folder for entry in config.entries], run.out, *limits[1:], rows)
    scorers = Scorers.load(config.world, config.reward, config.reference_folder, *limits, run.log.bar, config.scoring)
    suites = read(config, scorers, run)
    generation = generation_settings(config, suites, run)
    run.begin(runtime=runtime)
    for line in [*plan_lines(config.entries, suites, scorers, config.reference), by_default]:
        run.log.info(line)
    results = Results()
    for step in run.steps(len(config.entries), {"results": results}, save_steps=1):
        entry = config.entries[step - 1]
        model = LoadedModel.load(entry, runtime, vllm)
        temperature = sampling_temperature(model, config.entries, suites.prompts.get(TEST, ()), generation)
        if str(entry.folder) not in results.known:
            results.known[str(entry.folder)] = lm_metrics(model, suites, scorers, generation)
        with scoring(run):
            evaluated = evaluate_model(model, temperature, suites, generation, scorers)
        for note in evaluated.notes:
            run.log.info(f"{entry.name}: {note}")
        results.add(entry, evaluated, scorers.judge)
        run.record(step, 0, ("model", "gold"), model=entry.name, **evaluated.numbers)

    close(vllm)
    write_results(run, results, suites, scorers, config.reference, config.seed)
    return run.finish(prompts=len(suites.prompts.get(TEST, ())))


def inputs(config: Config) -> dict[str, Path | None]:
    """Return every file and folder that is read, by its name in the lineage."""
    models: dict[str, Path | None] = {f"model {entry.name}": entry.folder for entry in config.entries}
    suites = parse_suites(config.data, config.suites, config.tasks)
    prompts = {"data" if name == TEST else f"suite {name}": path for name, path in suites.items()}
    tasks = task_inputs(config.tasks, config.tasking)
    others = {name: getattr(config, name) for name in ("lm_data", "demonstrations", "transcripts", "world")}
    others |= reward_inputs(config.reward, rubric=config.scoring.judge_rubric)
    return {**models, **prompts, **tasks, **others, **config.prompting.inputs, "reference": config.reference_folder}


def read(config: Config, scorers: Scorers, run: Run) -> Suites:
    """Read prompts, texts, demonstrations and tasks. Prompts that leave a model no room to answer are left out."""
    readers = readers_of(config.folders, scorers.reward)
    limits = (config.max_new_tokens, run.rejected, config.columns, reads_column(scorers.reward))
    prompts = {
        name: fitting_prompts(name, path, readers, *limits)[: config.max_prompts or None]
        for name, path in parse_suites(config.data, config.suites, config.tasks).items()
    }
    scorers.require_columns(prompts)
    few_shot, has_judge = model_entries.any_few_shot(config.entries), scorers.judge is not None
    texts = config.lm_data and keep_usable(sources.read_texts(config.lm_data), run.rejected)
    shown = config.demonstrations and keep_usable(sources.read_demonstrations(config.demonstrations), run.rejected)
    return Suites(
        prompts=prompts,
        decodings=config.suite_decoding,
        test_decodings=DECODINGS if config.greedy else ("sampled",),
        best_of_prompts=config.best_of_prompts,
        texts=texts or [],
        text_tokens=config.text_tokens,
        demonstrations=shown or [],
        tasks=read_tasks(config.tasks, config.tasking, config.prompting, config.seed, has_judge, few_shot),
        tasking=config.tasking,
    )


def generation_settings(config: Config, suites: Suites, run: Run) -> GenerationConfig:
    """Return the settings of generation, the same for all models. InputError for an example that is a prompt."""
    options = replace(config.prompting, shots=without_tasks(config.prompting.shots, suites.tasks))
    options = options if model_entries.any_few_shot(config.entries) else PromptingOptions()
    prompting = Prompting.read(options, config.seed, run.rejected)
    prompting.require_no_leak(suites.prompts)
    settings = (config.temperature, config.max_new_tokens, prompting, config.instruction)
    transcripts = read_transcripts(config.transcripts)
    return GenerationConfig(*settings, transcripts, config.max_batch_size, config.seed, run.log.bar)
