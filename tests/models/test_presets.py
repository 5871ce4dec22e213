from dataclasses import replace

import pytest

from amenable.errors import InputError
from amenable.models.decoder import count_parameters
from amenable.models.family import model_types
from amenable.models.hf_config import model_type_of
from amenable.models.presets import PRESETS, preset


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt1", 116_534_784),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("gpt3-125m", 125_226_240),
        ("gpt3-1.3b", 1_315_723_264),
        ("gpt3-6.7b", 6_658_404_352),
        ("gpt3-175b", 174_604_259_328),
    ],
)
def test_published_parameter_counts(name, count):
    assert count_parameters(preset(name)) == count
    c = preset(name)
    final = 2 * c.hidden_size if c.norm_placement == "pre" else 0
    per_layer = 12 * c.hidden_size**2 + 13 * c.hidden_size
    assert count == c.vocab_size * c.hidden_size + c.context_length * c.hidden_size + c.num_layers * per_layer + final


def test_untied_adds_an_unembedding():
    tied = preset("nano")
    assert (
        count_parameters(replace(tied, tie_embeddings=False))
        == count_parameters(tied) + tied.vocab_size * tied.hidden_size
    )


def test_nano_counted_by_hand():
    d, mlp, layers, vocab = 192, 512, 4, 2048
    layer = d * 3 * d + d * d + 3 * d * mlp + 2 * d + 2 * 64
    assert count_parameters(preset("nano", vocab)) == vocab * d + layers * layer + d


def test_micro_is_a_base_of_several_times_nano_at_the_same_context():
    assert count_parameters(preset("micro", 1280)) / count_parameters(preset("nano", 1280)) == pytest.approx(
        4.6, abs=0.1
    )
    assert preset("micro").context_length == preset("nano").context_length


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_saved(name):
    assert model_type_of(preset(name)) in model_types()


def test_vocabulary_is_replaced_and_a_wrong_name_answered():
    assert preset("gpt2", 300).vocab_size == 300
    with pytest.raises(InputError, match=r"no preset is called 'gpt-2'; did you mean 'gpt2'\?"):
        preset("gpt-2")
    with pytest.raises(InputError, match="choose from gpt1, gpt2"):
        preset("?")
