"""What a model says to a few ids: asked in any mode, stored to the bit, and read back only whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading, reference_logits
from amenable.train.runtime import Runtime


def test_the_numbers_are_those_of_each_row_alone(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder()
    result = reference_logits.record(decoder)
    assert result.values.shape == (4, decoder.config.vocab_size) and result.values.dtype == torch.float32
    assert [len(row) for row in result.rows()] == [1, 4, 9, 16]
    for row, values in zip(result.rows(), result.values):
        alone = decoder.logits(decoder(row, Layout.of([len(row)])))[-1]
        assert torch.allclose(values, alone, atol=1e-5)


def test_rewards_are_those_of_the_last_tokens(make_scalar_model: Callable[..., ScalarModel]) -> None:
    model = make_scalar_model()
    result = reference_logits.record(model)
    alone = [model(row, Layout.of([len(row)]))[-1] for row in result.rows()]
    assert torch.allclose(result.values, torch.stack(alone), atol=1e-5)


def test_dropout_has_no_say_and_stays_on(make_decoder: Callable[..., Decoder]) -> None:
    decoder = make_decoder(dropout=0.5)
    asleep = reference_logits.record(decoder).values
    assert torch.equal(reference_logits.record(decoder.train()).values, asleep) and decoder.training


def test_a_short_context_is_enough(make_decoder: Callable[..., Decoder]) -> None:
    assert reference_logits.record(make_decoder(context_length=6)).lengths == (1, 4, 6, 6)


def test_the_ids_are_always_the_same_and_within_the_vocabulary(make_decoder: Callable[..., Decoder]) -> None:
    one, other = (
        reference_logits.record(make_decoder(vocab_size=40)),
        reference_logits.record(make_decoder(seed=1, vocab_size=40)),
    )
    assert torch.equal(one.ids, other.ids) and int(one.ids.max()) < 40
    assert not torch.equal(one.values, other.values)


@pytest.mark.parametrize("kind", ["decoder", "scalar"])
def test_a_saved_model_says_the_same_to_the_bit(
    kind: str,
    make_decoder: Callable[..., Decoder],
    make_scalar_model: Callable[..., ScalarModel],
    words: Tokenizer,
    runtime: Runtime,
    tmp_path: Path,
) -> None:
    make = make_decoder if kind == "decoder" else make_scalar_model
    loading.save_model(tmp_path, make(vocab_size=words.vocab_size), words)
    stored = reference_logits.read(tmp_path)
    loaded = (
        loading.load_policy(tmp_path, runtime)[0]
        if kind == "decoder"
        else loading.load_reward_model(tmp_path, runtime, words)
    )
    assert stored is not None
    now = reference_logits.replay(stored, loaded)
    assert torch.equal(now.values, stored.values) and now.environment == stored.environment
    assert now.environment["threads"] == torch.get_num_threads() and now.environment["torch"] == torch.__version__


def test_the_file_is_written_the_same_every_time_and_is_no_file_of_weights(
    make_decoder: Callable[..., Decoder], words: Tokenizer, tmp_path: Path
) -> None:
    model, files = make_decoder(vocab_size=words.vocab_size), []
    for name in "ab":
        loading.save_model(tmp_path / name, model, words)
        files.append((tmp_path / name / reference_logits.NAME).read_bytes())
    assert files[0] == files[1]
    assert [path.name for path in (tmp_path / "a").glob("*.safetensors")] == ["model.safetensors"]
    assert load_file(tmp_path / "a" / reference_logits.NAME).keys() == {"ids", "lengths", "values"}


def test_what_is_not_there_and_what_is_torn(make_decoder: Callable[..., Decoder], tmp_path: Path) -> None:
    assert reference_logits.read(tmp_path) is None
    reference_logits.save(tmp_path, make_decoder())
    whole = (tmp_path / reference_logits.NAME).read_bytes()
    for torn in (whole[:-1], whole[:40], b"", whole.replace(b'"place"', b'"plice"')):
        (tmp_path / reference_logits.NAME).write_bytes(torn)
        with pytest.raises(InputError, match=r"probe\.tensors: cannot be read"):
            reference_logits.read(tmp_path)


def test_how_far_two_answers_are_apart() -> None:
    stored = torch.tensor([[10.0, -20.0]])
    assert reference_logits.difference(stored, stored + 0.5) == pytest.approx(0.025)
    assert reference_logits.difference(stored / 100, stored / 100 + 0.5) == pytest.approx(
        0.5
    )  # small numbers: as they are
    for strange in (stored[:, :1], stored * float("nan"), stored * float("inf")):
        assert reference_logits.difference(stored, strange) == float("inf")
