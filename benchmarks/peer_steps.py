"""Parts that every peer's side of benchmarks/peers.py shares: steps on request, peak memory, the shape."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)


def wait() -> None:
    """Print `ready` and wait for `go`; end the process at the end of stdin."""
    print("ready", flush=True)
    if sys.stdin.readline().strip() != "go":
        sys.stdout.flush()
        raise SystemExit


def report_step(seconds: float, before: int) -> None:
    """Print the seconds of a step, and the peak memory beyond `before`."""
    print(json.dumps({"seconds": seconds, "peak": peak_bytes() - before}), flush=True)


def peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def language_model(config: PretrainedConfig) -> PreTrainedModel:
    """Return a language model with random weights."""
    return LlamaForCausalLM(config) if isinstance(config, LlamaConfig) else GPT2LMHeadModel(config)


def classifier(config: PretrainedConfig) -> PreTrainedModel:
    """Return a sequence classifier with random weights."""
    llama = isinstance(config, LlamaConfig)
    return LlamaForSequenceClassification(config) if llama else GPT2ForSequenceClassification(config)


def adapters(work: dict[str, Any]) -> Any:
    """Return peft's LoRA on all linear layers, or None where all weights train."""
    if not work.get("lora_rank"):
        return None
    from peft import LoraConfig

    return LoraConfig(r=work["lora_rank"], lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def trained_model(work: dict[str, Any], dropout: float) -> PreTrainedModel:
    """Return the model that is trained; under adapters its weights are in bf16, as peft's users load them."""
    model = language_model(shape(work, dropout))
    return model.to(torch.bfloat16) if work["bf16"] and work.get("lora_rank") else model


def shape(work: dict[str, Any], dropout: float, **others: Any) -> PretrainedConfig:
    """Return the shape as transformers names it."""
    shape = work["shape"]
    if shape["positions"] == "rope":
        return LlamaConfig(
            vocab_size=shape["vocab_size"],
            max_position_embeddings=shape["context_length"],
            hidden_size=shape["hidden_size"],
            intermediate_size=shape["mlp_width"],
            num_hidden_layers=shape["num_layers"],
            num_attention_heads=shape["num_heads"],
            num_key_value_heads=shape["num_kv_heads"],
            tie_word_embeddings=True,
            bos_token_id=work["eos"],
            eos_token_id=work["eos"],
            use_cache=work["row"] == "decode",
            **others,
        )
    return GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["context_length"],
        n_embd=shape["hidden_size"],
        n_layer=shape["num_layers"],
        n_head=shape["num_heads"],
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=0.0,  # as ours: with dropout inside it, the peer's attention would be slower still
        bos_token_id=work["eos"],
        eos_token_id=work["eos"],
        use_cache=work["row"] == "decode",
        **others,
    )
