"""The peer's side of benchmarks/peers.py: TRL's own trainers and transformers' own generate, at their best setting.

Both sides do the same arithmetic: the same ids (checked, where a trainer could have made others), bf16 products over
fp32 weights, dropout on embeddings and residuals for SFT alone and none inside attention, fused AdamW with gradients
clipped, no checkpointing, evaluation or logging. What TRL computes by itself in every step stays, such as entropy and
token accuracy. Its generate has weights in bf16 outright, and draws from the whole distribution as ours does.

Run by the interpreter of the peers' environment, in which this package is not installed:

    .venv-peers/bin/python benchmarks/peer_trl.py work.json

The work is a row's name, a GPT-2 shape and token ids. Says "ready", then for every line "go" on standard input makes
one step and says how many seconds it took and the peak of its memory; ends with its input.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from datasets import Dataset
from peer_steps import adapters, classifier, language_model, peak_bytes, report_step, shape, trained_model, wait
from peer_words import text, words
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

STEPS = 1000
"""more than anybody will ask for"""
AT_START = peak_bytes()
"""memory after the imports"""


class Gate(TrainerCallback):
    """Lets a trainer make a step when it is told to, and tells how long it took: batch, passes, and update."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        wait()
        self.begun = perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        report_step(perf_counter() - self.begun, AT_START)
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


def sft(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """SFTTrainer on the rows as they are, or packed."""
    rows = [
        {
            "input_ids": row["prompt"] + row["answer"],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["answer"]),
        }
        for row in work["rows"]
    ]
    data, length = Dataset.from_list(rows), work["shape"]["context_length"]

    def trainer(size: int, accumulated: int) -> SFTTrainer:
        config = SFTConfig(
            **common(work, folder, size),
            gradient_accumulation_steps=accumulated,
            packing=work["packing"],
            max_length=length,
            completion_only_loss=True,
        )
        trainer = SFTTrainer(
            trained_model(work, work["dropout"]),
            args=config,
            train_dataset=data,
            processing_class=own_words(work),
            callbacks=[Gate()],
            peft_config=adapters(work),
        )
        return same_tokens(trainer, {"input_ids": 1}, sum(len(row["input_ids"]) for row in rows))

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
        max_length=work["shape"]["context_length"],
    )
    model = classifier(shape(work, 0.0, num_labels=1, pad_token_id=work["pad"]))
    trainer = RewardTrainer(
        model, args=config, train_dataset=Dataset.from_list(pairs), processing_class=own_words(work), callbacks=[Gate()]
    )
    handed = sum(len(ids) for pair in pairs for ids in pair.values())
    return same_tokens(trainer, {"chosen_ids": 1, "rejected_ids": 1}, handed).train


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
        **common(work, folder, len(pairs)), max_length=work["shape"]["context_length"], precompute_ref_log_probs=True
    )
    trainer = DPOTrainer(
        trained_model(work, 0.0),  # its own reference, so that no second model is held
        args=config,
        train_dataset=Dataset.from_list(pairs),
        processing_class=own_words(work),
        callbacks=[Gate()],
        peft_config=adapters(work),
    )
    handed = sum(2 * len(row["prompt"]) + len(row["chosen"]) + len(row["rejected"]) for row in work["rows"])
    return same_tokens(trainer, {"prompt_ids": 2, "chosen_ids": 1, "rejected_ids": 1}, handed).train


def grouped(work: dict[str, Any], folder: str, config_of: Any, trainer_of: Any) -> Callable[[], Any]:
    """GRPOTrainer or RLOOTrainer: answers in groups, all in one batch and one update, none of them ended by EOS."""
    config = config_of(
        **sampling(work, folder, len(work["rows"]) * work["samples"]),
        num_generations=work["samples"],
        max_completion_length=work["new_tokens"],
        temperature=work["temperature"],
        beta=work["beta"],
        generation_kwargs={"min_new_tokens": work["new_tokens"]},
    )
    return trainer_of(
        policy_of(work, folder),
        reward_funcs=distinct,
        args=config,
        train_dataset=prompts_of(work),
        processing_class=left_padded(work),
        callbacks=[Gate()],
    ).train


def online_dpo(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """OnlineDPOTrainer: two answers to each prompt, all in one batch and one update, none of them ended by EOS."""
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    config = OnlineDPOConfig(
        **sampling(work, folder, len(work["rows"])),
        max_new_tokens=work["new_tokens"],
        max_length=work["shape"]["context_length"],
        temperature=work["temperature"],
        generation_kwargs={"min_new_tokens": work["new_tokens"]},
    )
    return OnlineDPOTrainer(
        policy_of(work, folder),
        reward_funcs=distinct,
        args=config,
        train_dataset=prompts_of(work),
        processing_class=left_padded(work),
        callbacks=[Gate()],
    ).train


def sampling(work: dict[str, Any], folder: str, size: int) -> dict[str, Any]:
    """Return options of trainers that sample: those of all, but for the one on data sets that they lack."""
    options = common(work, folder, size)
    del options["dataset_num_proc"]
    return options


def policy_of(work: dict[str, Any], folder: str) -> Any:
    """Return the model that is trained, saved where a trainer loads its reference from; it generates with the products
    that it is trained with."""
    model, path = trained_model(work, 0.0), f"{folder}/model"
    model.save_pretrained(path)
    model.config._name_or_path = path
    if work["bf16"]:
        model.generate = torch.autocast("cpu", dtype=torch.bfloat16)(model.generate)
    return model


def prompts_of(work: dict[str, Any]) -> Dataset:
    return Dataset.from_list([{"prompt": text(row["prompt"])} for row in work["rows"]])


def left_padded(work: dict[str, Any]) -> PreTrainedTokenizerFast:
    tokenizer = own_words(work)
    tokenizer.padding_side = "left"
    return tokenizer


def distinct(prompts: Any, completions: list[str], **_: Any) -> list[float]:
    """Reward that costs nothing: the number of different ids of an answer."""
    return [float(len(set(completion.split()))) for completion in completions]


def decode(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """generate over left-padded prompts of mixed lengths, sampling, no EOS."""
    prompts = [row["prompt"] for row in work["rows"]]
    longest = max(map(len, prompts))
    ids = torch.tensor([[work["pad"]] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model = language_model(shape(work, 0.0)).eval()
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
            report_step(perf_counter() - begun, AT_START)

    return steps


ROWS: dict[str, Callable[[dict[str, Any], str], Callable[[], Any]]] = {
    "sft": sft,
    "reward": reward,
    "dpo": dpo,
    "grpo": lambda work, folder: grouped(work, folder, GRPOConfig, GRPOTrainer),
    "rloo": lambda work, folder: grouped(work, folder, RLOOConfig, RLOOTrainer),
    "online-dpo": online_dpo,
    "decode": decode,
}


def common(work: dict[str, Any], folder: str, size: int) -> dict[str, Any]:
    """Return options that every trainer gets: one step is one batch, nothing is saved or logged, or computed twice."""
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


def own_words(work: dict[str, Any]) -> PreTrainedTokenizerFast:
    return words(work["shape"]["vocab_size"], work["eos"], work["pad"])


def same_tokens(trainer: Any, columns: dict[str, int], handed: int) -> Any:
    """Return the trainer; columns: times each is computed. RuntimeError if it has other tokens than it was handed."""
    data = trainer.train_dataset
    tokens = sum(times * sum(map(len, data[name])) for name, times in columns.items())
    if tokens != handed:
        raise RuntimeError(f"the trainer has {tokens} tokens, and was handed {handed}")
    return trainer


if __name__ == "__main__":
    main(ROWS)
