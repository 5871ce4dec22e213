"""A loaded model in a conversation: its prompt, cut to the context from the oldest turn on, and its streamed answer."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from amenable.data.types import Message, Prompt
from amenable.errors import InputError
from amenable.evaluation.answering import LoadedModel
from amenable.evaluation.entries import ModelEntry
from amenable.generation.engine import Stream, generate
from amenable.generation.sampling import Sampling
from amenable.model_folder import adapter_of, is_adapter, parent_folder
from amenable.models.adapter_files import base_bits
from amenable.models.decoder import Decoder
from amenable.models.ngram.tables import is_ngram
from amenable.models.pretrained import decoder_on, is_reward_folder, load_decoder
from amenable.rewards.best_of import BestOf
from amenable.rewards.model import ModelReward
from amenable.text.chat import PLAIN_STOP, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading
from amenable.train.runtime import Runtime


def load_models(models: Sequence[tuple[str | None, Path]], runtime: Runtime) -> list[LoadedModel]:
    """Load (name, folder) for inference; the weights of a model that several are, or are adapters on, once."""
    return load_with_rewards(models, (), runtime)[0]


def load_with_rewards(
    models: Sequence[tuple[str | None, Path]], reward_models: Sequence[Path], runtime: Runtime
) -> tuple[list[LoadedModel], list[ModelReward]]:
    """Load (name, folder) and the folders of reward models for inference; the weights of a language model that several
    are, or are adapters on, once."""
    of_models, of_rewards = [weights_of(folder) for _, folder in models], [base_of(folder) for folder in reward_models]
    users = Counter([*of_models, *filter(None, of_rewards)])
    bases: dict[Path, Decoder] = {}
    for folder in (folder for folder, count in users.items() if count > 1 and not is_ngram(folder)):
        loading.require_model(folder, "amenable sft")
        bases[folder] = runtime.to_inference(load_decoder(folder, runtime.device))
    loaded = [load_model(folder, runtime, name, bases.get(base)) for (name, folder), base in zip(models, of_models)]
    shared = [loading.Base(base, bases[base]) if base in bases else None for base in of_rewards]
    return loaded, [ModelReward.load(folder, runtime, base=base) for folder, base in zip(reward_models, shared)]


def base_of(folder: Path) -> Path | None:
    """Return the folder of the language model that a reward model is, or has beside it, adapters on; None without."""
    adapter = adapter_of(folder)
    with contextlib.suppress(InputError):  # a merged model is read without the base of its adapters
        if adapter is not None and (base := weights_of(adapter)) != adapter.resolve() and not is_reward_folder(base):
            return base
    return None


def weights_of(folder: Path) -> Path:
    """Return the folder whose weights a model is, or an adapter is on: itself for one on a quantized base."""
    shares = is_adapter(folder) and not base_bits(folder)
    return (parent_folder(folder) if shares else folder).resolve()


def load_model(folder: Path, runtime: Runtime, name: str | None = None, base: Decoder | None = None) -> LoadedModel:
    """Load a model for inference, named as its folder by default. Unlike in evaluation its vocabulary never grows.

    base: the folder's own decoder, or that which its adapter is on, to share its weights. Raises InputError for a
    folder without a model, and for a tokenizer of more ordinary tokens than the model has.
    """
    if is_ngram(folder):
        return LoadedModel.load(ModelEntry(name or str(folder), folder), runtime)
    loading.require_model(folder, "amenable sft")
    if base is None:
        decoder = load_decoder(folder, runtime.device)
    else:
        decoder = base if weights_of(folder) == folder.resolve() else decoder_on(base, folder)
    tokenizer = Tokenizer.load(folder)
    # a tokenizer may have gained special tokens that its model never had; a prompt with one of those is refused
    ordinary = tokenizer.vocab_size - len(tokenizer.special_ids)
    if ordinary > decoder.config.vocab_size:
        sizes = f"{ordinary} tokens, and the model knows {decoder.config.vocab_size}"
        raise InputError(f"tokenizer and model do not belong together: it has {sizes}", folder)
    decoder.num_tokens = min(tokenizer.vocab_size, decoder.config.vocab_size)
    return LoadedModel(ModelEntry(name or str(folder), folder), runtime.to_inference(decoder), tokenizer, runtime)


def fit_prompt(
    model: LoadedModel,
    system: Sequence[Message],
    turns: Sequence[Message],
    message: Message,
    max_new_tokens: int,
    prefix: Sequence[int] = (),
) -> tuple[list[int], int]:
    """Return the ids of a prompt with a prefix of its answer, and the number of oldest `turns` dropped to fit.

    The tools of the first or last of all messages stay. Pairs of turns (and tools' calls and results with them) are
    dropped until `max_new_tokens`, or half the context, are left. Raises InputError for a message
    that is too long by itself, and for a token that the model does not have.
    """
    context = model.decoder.config.context_length
    room = min(max_new_tokens, context // 2)
    dropped = 0
    tools = message.tools or next((turn.tools for turn in (*system, *turns)), "")
    while True:
        first, *rest = (*system, *turns[dropped:], replace(message, tools=""))
        ids = [*render_prompt(model.tokenizer, (replace(first, tools=tools), *rest)), *prefix]
        if max(ids) >= model.decoder.num_tokens:
            raise InputError(f"token {max(ids)} of the message is unknown to the model", model.entry.name)
        if len(ids) + room <= context:
            return ids, dropped
        if dropped >= len(turns):
            break
        dropped = next_user(turns, dropped + 2)
    if len(ids) < context:
        return ids, dropped
    sizes = f"{len(ids)} tokens with what belongs to it, and {model.entry.name} reads {context}"
    raise InputError(f"the message is too long: {sizes}", how="shorten it")


def next_user(turns: Sequence[Message], index: int) -> int:
    """Return the index of the first message of the user from `index` on: no tool's result comes without its call."""
    return next((i for i in range(index, len(turns)) if turns[i].role == "user"), len(turns)) if index else 0


def stop_strings(model: LoadedModel) -> tuple[str, ...]:
    """Return the strings that end an answer: for a base model those that begin the transcript's next turn."""
    return () if model.is_chat_model else PLAIN_STOP


def stream_answer(model: LoadedModel, ids: list[int], sampling: Sampling, seed: int) -> Stream:
    """Return a stream of the answer's text to a prompt."""
    return Stream(
        model.decoder,
        ids,
        sampling,
        eos_id=model.tokenizer.stop_ids,
        decode=model.tokenizer.decode,
        seed=seed,
        stop=stop_strings(model),
    )


def best_answer(
    best_of: BestOf, model: LoadedModel, messages: Sequence[Message], ids: list[int], sampling: Sampling, seed: int
) -> Iterator[str]:
    """Yield the answer's text to a prompt that a reward chooses among n by its `messages`. ids: the prompt's, which may
    have more before it."""
    (completions,) = generate(
        model.decoder,
        [ids],
        sampling,
        eos_id=model.tokenizer.stop_ids,
        seeds=[seed],
        samples=best_of.n,
        stop=stop_strings(model),
        decode=model.tokenizer.decode,
    )
    prompt = Prompt(tuple(messages))
    own = render_prompt(model.tokenizer, prompt.messages)
    (best,), _ = best_of.choose(prompt, own, completions, model.tokenizer, cut=True)
    yield completions[best].text or ""
