"""The peer's side of the row "ppo" in benchmarks/peers.py: PPOTrainer, from the last version of TRL that had it.

Run by the interpreter of an environment of its own, as benchmarks/peer_trl.py is of the others':

    .venv-peers-ppo/bin/python benchmarks/peer_ppo.py work.json

A step is a whole iteration: answers to all prompts, reference, values and scores, and the updates.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from peer_steps import adapters, classifier, language_model, shape, trained_model
from peer_trl import STEPS, Gate, common, main, own_words
from transformers import PreTrainedModel, PrinterCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer


def ppo(work: dict[str, Any], folder: str) -> Callable[[], Any]:
    """PPOTrainer on prompts that are one batch, no EOS; one pass a minibatch, so that each is one update."""
    if work["bf16"]:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # the trainer makes its accelerator without the option
    count = len(work["rows"])
    batch = count // work["minibatches"]
    config = PPOConfig(
        **common(work, folder, batch),
        gradient_accumulation_steps=work["minibatches"],
        num_mini_batches=work["minibatches"],
        num_ppo_epochs=work["epochs"],
        total_episodes=STEPS * count,
        response_length=work["new_tokens"],
        temperature=work["temperature"],
        local_rollout_forward_batch_size=min(count, work["rollout_rows"]),
        missing_eos_penalty=1.0,
        num_sample_generations=0,
    )
    tokenizer = own_words(work)
    tokenizer.padding_side = "left"
    policy, lora = trained_model(work, 0.0), adapters(work)
    policy.generation_config.use_cache = True  # and not in training
    if work["bf16"]:  # with the products that it is trained with; the trainer alone would generate in fp32
        policy.generate = torch.autocast("cpu", dtype=torch.bfloat16)(policy.generate)
    trainer = PPOTrainer(
        config,
        tokenizer,
        model=policy,
        ref_model=frozen(language_model(shape(work, 0.0)), work) if lora is None else None,  # adapters off
        reward_model=frozen(scalar(work), work),
        value_model=read_in_bf16(scalar(work)) if work["bf16"] else scalar(work),
        train_dataset=Dataset.from_list([{"input_ids": row["prompt"]} for row in work["rows"]]),
        callbacks=[Gate()],
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer.train


def scalar(work: dict[str, Any]) -> PreTrainedModel:
    return classifier(shape(work, 0.0, num_labels=1, pad_token_id=work["pad"]))


def frozen(model: torch.nn.Module, work: dict[str, Any]) -> torch.nn.Module:
    """A model that is only asked, with weights of the precision of the products."""
    model = model.eval().requires_grad_(False)
    return model.to(torch.bfloat16) if work["bf16"] else model


def read_in_bf16(critic: PreTrainedModel) -> PreTrainedModel:
    """The critic with bf16 products where the trainer asks it for values, as in its updates."""
    body = getattr(critic, critic.base_model_prefix)
    body.forward = torch.autocast("cpu", dtype=torch.bfloat16)(body.forward)
    return critic


if __name__ == "__main__":
    main({"ppo": ppo})
