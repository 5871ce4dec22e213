"""The peer's side of benchmarks/peers.py: TRL's own trainers and transformers' own generate, at their best setting.

Run by the interpreter of the peers' environment, in which this package is not installed:

    .venv-peers/bin/python benchmarks/peer_trl.py work.json

The work is a row's name, a GPT-2 shape and token ids. Says "ready", then for every line "go" on standard input makes
one step and says how many seconds it took and the peak of its memory; ends with its input.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

STEPS = 1000
"""more than anybody will ask for"""
AT_START = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""memory after the imports"""


class Gate(TrainerCallback):
    """Lets a trainer make a step when it is told to, and tells how long it took: batch, passes, and update."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        wait()
        self.begun = perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        told(perf_counter() - self.begun)
        wait()
        self.begun = perf_counter()


def main(rows: dict[str, Callable[[dict[str, Any], str], Callable[[], Any]]]) -> None:
    """Read the work, build it, make steps until the input ends."""
    work = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(work["threads"])
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        step = rows[work["row"]](work, folder)
        step()


def wait() -> None:
    """Say that all is ready, and wait to be told to go; end where nobody will."""
    print("ready", flush=True)
    if sys.stdin.readline().strip() != "go":
        sys.stdout.flush()
        raise SystemExit


def told(seconds: float) -> None:
    """Say how long a step took, and the most memory so far beyond what was there after the imports."""
    print(json.dumps({"seconds": seconds, "peak": peak_bytes() - AT_START}), flush=True)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def sft(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """SFTTrainer on the rows as they are, or packed."""
    rows = [
        {
            "input_ids": row["prompt"] + row["answer"],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["answer"]),
        }
        for row in work["rows"]
    ]
    data, length = Dataset.from_list(rows), work["shape"]["context"]

    def trainer(size: int, accumulated: int) -> SFTTrainer:
        config = SFTConfig(
            **common(work, folder, size),
            gradient_accumulation_steps=accumulated,
            packing=work["packing"],
            max_length=length,
            completion_only_loss=True,
        )
        model = GPT2LMHeadModel(shape(work, work["dropout"]))
        return SFTTrainer(model, args=config, train_dataset=data, processing_class=words(work), callbacks=[Gate()])

    if not work["packing"]:
        return trainer(len(rows), 1).train
    # packs of one pass lie in one long row, whose attention costs its square: one at a time is the faster way
    return trainer(1, len(trainer(1, 1).train_dataset)).train


def reward(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """RewardTrainer on pairs; of a ranking, all its pairs."""
    pairs = [
        {"chosen_ids": row["prompt"] + row["chosen"], "rejected_ids": row["prompt"] + row["rejected"]}
        for row in work["rows"]
    ]
    config = RewardConfig(
        **common(work, folder, work["at_once"]),
        gradient_accumulation_steps=len(pairs) // work["at_once"],
        max_length=work["shape"]["context"],
    )
    model = GPT2ForSequenceClassification(shape(work, 0.0, num_labels=1, pad_token_id=work["pad"]))
    return RewardTrainer(
        model, args=config, train_dataset=Dataset.from_list(pairs), processing_class=words(work), callbacks=[Gate()]
    ).train


def dpo(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """DPOTrainer on pairs, the reference's log-probabilities computed beforehand."""
    pairs = [
        {
            "prompt": text(row["prompt"]),
            "chosen": " " + text(row["chosen"][:-1]),
            "rejected": " " + text(row["rejected"][:-1]),
        }
        for row in work["rows"]
    ]
    config = DPOConfig(
        **common(work, folder, len(pairs)), max_length=work["shape"]["context"], precompute_ref_log_probs=True
    )
    model = GPT2LMHeadModel(shape(work, 0.0))
    model.config._name_or_path = folder  # the trainer asks where its reference is from
    reference = GPT2LMHeadModel(shape(work, 0.0))
    return DPOTrainer(
        model,
        ref_model=reference,
        args=config,
        train_dataset=Dataset.from_list(pairs),
        processing_class=words(work),
        callbacks=[Gate()],
    ).train


def decode(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """generate over left-padded prompts of mixed lengths, sampling, no EOS."""
    prompts = [row["prompt"] for row in work["rows"]]
    longest = max(map(len, prompts))
    ids = torch.tensor([[work["pad"]] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model = GPT2LMHeadModel(shape(work, 0.0)).eval()
    if work["bf16"]:
        model = model.to(torch.bfloat16)

    def steps() -> None:
        while True:
            wait()
            begun = perf_counter()
            with torch.inference_mode():
                model.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=True,
                    top_k=0,
                    max_new_tokens=work["new_tokens"],
                    eos_token_id=None,
                    pad_token_id=work["pad"],
                )
            told(perf_counter() - begun)

    return steps


ROWS: dict[str, Callable[[dict[str, Any], str], Callable[[], Any]]] = {
    "sft": sft,
    "reward": reward,
    "dpo": dpo,
    "decode": decode,
}


def common(work: dict[str, Any], folder: str, size: int) -> dict[str, Any]:
    """What every trainer is told: one step is one batch, nothing is saved or logged, nothing computed twice."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": size,
        "max_steps": STEPS,
        "learning_rate": 1e-5,
        "bf16": work["bf16"],
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "dataset_num_proc": None,
    }


def shape(work: dict[str, Any], dropout: float, **others: Any) -> GPT2Config:
    """The shape as transformers names it."""
    told = work["shape"]
    return GPT2Config(
        vocab_size=told["vocab_size"],
        n_positions=told["context"],
        n_embd=told["width"],
        n_layer=told["layers"],
        n_head=told["heads"],
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=work["eos"],
        eos_token_id=work["eos"],
        use_cache=work["row"] == "decode",
        **others,
    )


def words(work: dict[str, Any]) -> PreTrainedTokenizerFast:
    """A tokenizer in which a number, written out, is a token: so text can stand for exact ids."""
    vocabulary = {str(i): i for i in range(work["shape"]["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=str(work["pad"])))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=str(work["pad"]), eos_token=str(work["eos"]), unk_token=str(work["pad"])
    )


def text(ids: list[int]) -> str:
    return " ".join(map(str, ids))


if __name__ == "__main__":
    main(ROWS)
