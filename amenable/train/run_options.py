"""Options that several stages have: `DataOptions` of stages that read data, `RunOptions` of those that run a model,
`TrainingOptions` of those that train one, `OfflineOptions` of those that train one on a fixed data set.

A stage's Config inherits them, and repeats an option only to give it another default.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from amenable.data.column_mapping import parse_mapping
from amenable.data.columns import TARGETS
from amenable.data.mixture import parse_sources
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.lora import LoraOptions, decoder_of
from amenable.models.prompt_tuning import VirtualTokens
from amenable.models.tensor_parallel import require_divisible
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading, plan
from amenable.train.loading import SaveDtype
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Device, DeviceOptions, Runtime
from amenable.train.trackers import TrackerName

MAY_CHANGE_ON_RESUME = (
    *("device", "checkpoint_activations", "save_steps", "keep_checkpoints", "max_bad_rows", "save_dtype"),
    *("inspect_batch", "max_kl", "scoring", "track", "track_project", "processes", "placement", "async_save"),
    *("sampler_url", "reference_url", "tensor_parallel"),
)
"""options that may change when a run resumes: they say where and how it computes, and not its result"""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options of every stage that reads data."""

    columns: tuple[str, ...] = ()
    """TARGET=COLUMN: columns of --data and --validation that have other names, as in prompt=question chosen=better
    rejected=worse; a part of a column is a dotted path (prompt=conversation.0.text). Columns that it does not name are
    not read"""
    max_bad_rows: float = 0.01
    """largest share of a file's rows that may be unusable; these are listed in rejected.jsonl"""
    column_targets: ClassVar[tuple[str, ...]] = TARGETS

    def __post_init__(self) -> None:
        plan.require_share(self, "max_bad_rows")
        parse_mapping(self.columns, self.column_targets)


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions):
    """Options of every stage that runs a model."""

    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)


@dataclass(frozen=True)
class ClusterOptions:
    """Options that place a command on a cluster."""

    cluster: Literal["none", "ray"] = "none"
    """ray: Ray places the processes that train, and servers beside them, and starts again what is lost"""
    cluster_resources: Path | None = None
    """YAML file of the workers and servers, with their CPUs and GPUs; without it --processes workers of a CPU each"""
    cluster_address: str = ""
    """address of a cluster of Ray, or auto; without it Ray is started on this machine"""

    def __post_init__(self) -> None:
        for name in ("cluster_resources", "cluster_address"):
            value = getattr(self, name)
            plan.forbid(value and self.cluster == "none", f"{name} is {value}, without a cluster", "add --cluster ray")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RunOptions):
    """Options of every stage that trains a model."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    warmup_steps: int | None = None
    """by default 10 (pretrain 20, online algorithms 5), and at most an eighth of the steps"""
    final_lr_frac: float = 0.1
    """share of the peak learning rate at which the cosine ends"""
    max_tokens_per_pass: int = 8192
    """tokens computed at once; the gradient of a larger step is accumulated, with the same result"""
    checkpoint_activations: bool = False
    """keep the input of each layer alone and compute its activations again in the backward pass: less memory, about a
    third more time, the same numbers"""
    save_steps: int = 100
    """steps between two checkpoints; 0 saves only when the run is stopped"""
    keep_checkpoints: int = 2
    """newest checkpoints that are kept during the run"""
    async_save: bool = False
    """write checkpoints in a thread while training goes on, from a copy of the state in memory"""
    save_dtype: SaveDtype = "source"
    """dtype of the final model's weights: that of the folder it started from (of a new model float32), or another;
    bfloat16 rounds to 8 bits and float16 to 11, in half the space. Training is fp32"""
    track: tuple[TrackerName, ...] = ()
    """trackers that get metrics, samples and options besides the files: tensorboard, wandb, trackio"""
    track_project: str = "amenable"
    """project of the run at wandb and trackio"""
    processes: int = 1
    """processes on this machine that divide the rows of a step, with the same result up to rounding: each has a GPU, or
    its share of the cores. Under torchrun leave it out"""
    tensor_parallel: int = 1
    """processes that divide the products of one model: heads, and the MLP's numbers. They have the same rows, which the
    groups of so many neighbouring processes divide; sampling and scoring take whole copies of the moment"""
    placement: Annotated[ClusterOptions, arg(name="")] = field(default_factory=ClusterOptions)
    inspect_batch: bool = False
    """show the first batch and its loss mask, and stop before training"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "max_tokens_per_pass", "processes", "tensor_parallel")
        plan.forbid(self.keep_checkpoints < 1, f"keep_checkpoints is {self.keep_checkpoints}", "it must be 1 or more")
        plan.require_at_least(0, self, "warmup_steps", "save_steps")
        plan.require_share(self, "final_lr_frac")


@dataclass(frozen=True, kw_only=True)
class OfflineOptions(TrainingOptions):
    """Options of every stage that trains a model on a fixed data set."""

    validation: Path | None = None
    """held-out data of the same kind; without it a share of the data is held out"""
    validation_split: float = 0.05
    """share of the data (of its prompts, where it has prompts) held out where no validation file is given"""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_sources(getattr(self, "data", "data"))  # each stage has it, with a default of its own
        outside = self.validation is None and not 0 < self.validation_split < 1
        hint = "it must lie between 0 and 1, or give --validation"
        plan.forbid(outside, f"validation_split is {self.validation_split}", hint)


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(TrainingOptions):
    """Options of every stage that trains a model which is there already."""

    lora: LoraOptions = field(default_factory=LoraOptions)
    prompt_tuning: int = 0
    """virtual tokens before every row, whose embeddings are trained in place of the weights; 0 is none"""
    prefix_tuning: int = 0
    """virtual tokens before every row, whose keys and values in every layer are trained in place of the weights; 0 is
    none"""
    prompt_tuning_text: str = ""
    """text as whose tokens either start, repeated or cut to their number; without it tokens are drawn by the seed"""
    frozen_layers: int = 0
    """lowest layers (with the embeddings) that are not trained, nor get adapters; a critic trains all"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "frozen_layers", "prompt_tuning", "prefix_tuning")
        if self.virtual_tokens:
            names = {"lora.rank": self.lora.rank, "frozen_layers": self.frozen_layers}
            if self.prompt_tuning:
                names["prefix_tuning"] = self.prefix_tuning
            also = next((f"{name} is {value}" for name, value in names.items() if value), None)
            option = "prompt_tuning" if self.prompt_tuning else "prefix_tuning"
            plan.forbid(also, f"{also} with {option}", "virtual tokens are trained alone: leave one out")
            other = self.save_dtype not in ("source", "float32")
            plan.forbid(other, f"save_dtype is {self.save_dtype}", "virtual tokens are saved in float32: leave it out")
        adapted = self.tensor_parallel > 1 and self.trains_adapters
        hint = "train the weights, or divide them with --optimizer.fsdp"
        plan.forbid(adapted, f"tensor_parallel is {self.tensor_parallel} with adapters or virtual tokens", hint)
        unused = self.prompt_tuning_text and not self.virtual_tokens
        plan.forbid(unused, "prompt_tuning and prefix_tuning are 0", "give the number of virtual tokens too")

    @property
    def trains_adapters(self) -> bool:
        """True if adapters or virtual tokens are trained in place of the weights."""
        return bool(self.lora.rank or self.virtual_tokens)

    @property
    def virtual_tokens(self) -> int:
        """The number of virtual tokens before every row, of prompt or of prefix tuning."""
        return self.prompt_tuning or self.prefix_tuning

    def adapt(
        self, model: Decoder | ScalarModel, folder: Path, tokenizer: Tokenizer, runtime: Runtime, new_tokens: int = 0
    ) -> None:
        """Freeze what these options do not train of a model loaded from a folder, and add adapters or virtual tokens
        (see `loading.add_adapters`). InputError for a model that cannot be divided as they say."""
        require_divisible(decoder_of(model).config, self.tensor_parallel)
        text = self.prompt_tuning_text
        ids = [*tokenizer.opening_ids, *tokenizer.encode(text)] if text else []
        count, layers = self.virtual_tokens, self.frozen_layers
        virtual_tokens = VirtualTokens(count, ids, every_layer=self.prefix_tuning > 0) if count else None
        loading.add_adapters(model, self.lora, self.seed, folder, runtime, layers, new_tokens, virtual_tokens)


def plain_defaults(config: Any) -> dict[str, Any]:
    """Return the defaults of a Config's options as YAML has them: the values of options that an older run lacks."""
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(config)
    }
    return {name: plain_values(value) for name, value in defaults.items() if value is not MISSING}


def plain_values(value: Any) -> Any:
    """Convert options to values that YAML can write."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    if is_dataclass(value):
        return {field.name: plain_values(getattr(value, field.name)) for field in fields(value)}
    return str(value) if isinstance(value, Path) else value
