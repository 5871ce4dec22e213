"""Model folders: what is saved comes back, and what does not belong together is told apart."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.text.tokenizer import Tokenizer
from amenable.train import artifacts
from amenable.train.runtime import Runtime


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_policy_comes_back_with_its_tokenizer(
    make_decoder: Callable[..., Decoder], words: Tokenizer, machine: Runtime, tmp_path: Path
) -> None:
    model = make_decoder(vocab_size=words.vocab_size)
    artifacts.save_model(tmp_path / "m", model, words)
    loaded, tokenizer = artifacts.load_policy(tmp_path / "m", machine)
    assert same_weights(model, loaded) and not loaded.training
    assert tokenizer.fingerprint == words.fingerprint and tokenizer.chat_template == words.chat_template
    assert loaded.config.dropout == 0.0
    assert artifacts.load_policy(tmp_path / "m", machine, dropout=0.3)[0].config.dropout == 0.3


def test_a_reward_model_comes_back(
    make_scalar_model: Callable[..., ScalarModel], words: Tokenizer, machine: Runtime, tmp_path: Path
) -> None:
    model = make_scalar_model(vocab_size=words.vocab_size)
    with torch.no_grad():
        model.score.bias.fill_(0.25)
    artifacts.save_model(tmp_path / "m", model, words)
    loaded = artifacts.load_reward_model(tmp_path / "m", machine, words)
    assert same_weights(model, loaded) and not loaded.training


def test_a_model_that_is_not_there_or_not_yet(machine: Runtime, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such model folder; make it with 'amenable sft'"):
        artifacts.load_policy(tmp_path / "none", machine)
    with pytest.raises(InputError, match="holds no model; 'amenable reward' makes one"):
        artifacts.require_model(tmp_path, "amenable reward")
    (tmp_path / "config.yaml").write_text("command: sft\n")
    with pytest.raises(InputError, match="its run has not finished"):
        artifacts.require_model(tmp_path, "amenable sft")


def test_a_vocabulary_much_larger_than_the_model_is_refused(
    make_decoder: Callable[..., Decoder], words: Tokenizer, machine: Runtime, tmp_path: Path
) -> None:
    artifacts.save_model(tmp_path, make_decoder(vocab_size=words.vocab_size - 7), words)
    with pytest.raises(
        InputError, match=f"tokenizer has {words.vocab_size} tokens and the model {words.vocab_size - 7}"
    ):
        artifacts.load_policy(tmp_path, machine)
    artifacts.save_model(tmp_path, make_decoder(vocab_size=words.vocab_size + 5), words)  # spare rows do no harm
    assert artifacts.load_policy(tmp_path, machine)[0].config.vocab_size == words.vocab_size + 5


def test_a_model_gets_rows_for_control_tokens_that_it_lacks(
    make_decoder: Callable[..., Decoder], words: Tokenizer, machine: Runtime, tmp_path: Path
) -> None:
    model = make_decoder(vocab_size=words.vocab_size - 3)
    artifacts.save_model(tmp_path, model, words)
    grown = [artifacts.load_policy(tmp_path, machine)[0] for _ in range(2)]
    assert grown[0].config.vocab_size == words.vocab_size
    assert torch.equal(grown[0].token_embedding.weight[:-3], model.token_embedding.weight)
    assert same_weights(*grown)  # the new rows are the same every time: a resumed run needs that


def test_another_tokenizer_is_refused(other_judge: Path, words: Tokenizer, machine: Runtime) -> None:
    with pytest.raises(InputError, match="another tokenizer"):
        artifacts.load_reward_model(other_judge, machine, words)


def test_a_chat_template_makes_no_other_tokenizer(words: Tokenizer, tokenizer_folder: Path) -> None:
    artifacts.require_same_tokenizer(words, Tokenizer.load(tokenizer_folder), tokenizer_folder)


def test_the_two_kinds_of_model_are_not_mistaken(
    assistant: Path, judge: Path, words: Tokenizer, machine: Runtime
) -> None:
    with pytest.raises(InputError, match="holds a reward model"):
        artifacts.load_policy(judge, machine)
    with pytest.raises(InputError, match="holds a language model"):
        artifacts.load_reward_model(assistant, machine, words)


def test_a_folder_without_its_tokenizer_says_so(assistant: Path, machine: Runtime, tmp_path: Path) -> None:
    shutil.copytree(assistant, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        artifacts.load_policy(tmp_path / "copy", machine)
