"""Prompt and prefix tuning: virtual tokens are tokens before every row, wherever the decoder goes; peft's files both
ways."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.models import pretrained
from amenable.models.adapter_files import describe_adapter, load_adapters, save_adapters
from amenable.models.cache import Cache
from amenable.models.config import DecoderConfig
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.inference import cast_for_inference
from amenable.models.layout import Layout
from amenable.models.lora import LoraOptions, add_adapters, without_adapters
from amenable.models.prompt_tuning import VirtualTokens, add_prompt, first_ids
from tests.models.adapted import GPT, IDS, LLAMA, logits

WINDOWED = replace(LLAMA, window=4, local_layers=(0,), scale_embeddings=True, norm_placement="sandwich", qk_norm=True)
configs = pytest.mark.parametrize("config", [GPT, LLAMA, WINDOWED], ids=["gpt", "llama", "windowed"])
kinds = pytest.mark.parametrize("every_layer", [False, True], ids=["prompt", "prefix"])
FRONT = [60, 3, 41, 7, 58]
"""tokens as which the virtual ones start here: before them, rows are those of a decoder without any"""


def with_prompt(config: DecoderConfig = LLAMA, ids: list[int] = FRONT, every_layer: bool = False) -> Decoder:
    decoder = Decoder(config).eval()
    add_prompt(decoder, VirtualTokens(len(ids), ids, every_layer), seed=0, base="somewhere/base")
    return decoder


def moved(decoder: Decoder, size: float = 0.5) -> Decoder:
    """The decoder with its virtual tokens far from their first values."""
    with torch.no_grad():
        tokens = decoder.virtual_tokens
        tokens.add_(size * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(4)))
    return decoder


def in_front(ids: Tensor, lengths: list[int]) -> tuple[Tensor, Layout]:
    """The rows of a batch, each with the tokens in front."""
    rows = [torch.cat([torch.tensor(FRONT), row]) for row in ids.split(lengths)]
    return torch.cat(rows), Layout.of([len(row) for row in rows])


def own(hidden: Tensor, lengths: list[int]) -> Tensor:
    """The hidden states of rows without those in front."""
    return torch.cat([part[len(FRONT) :] for part in hidden.split([len(FRONT) + n for n in lengths])])


@configs
def test_virtual_tokens_are_tokens_before_every_row_in_values_and_gradients(config: DecoderConfig) -> None:
    decoder, plain, lengths = with_prompt(config), Decoder(config).eval(), [5, 1, 6]
    above = torch.randn(12, 32, generator=torch.Generator().manual_seed(1))
    ours, theirs = decoder(IDS, Layout.of(lengths)), own(plain(*in_front(IDS, lengths)), lengths)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    (ours * above).sum().backward()
    trained = {name for name, p in decoder.named_parameters() if p.grad is not None}
    assert trained == {"prompt_embeddings"} == {n for n, p in decoder.named_parameters() if p.requires_grad}
    # a second way to the gradient: of virtual embeddings written into each row
    front = decoder.prompt_embeddings.detach().clone().requires_grad_()
    total = torch.zeros(())
    for row, down in zip(IDS.split(lengths), above.split(lengths)):
        x, layout = torch.cat([front, plain.embed(row)]), Layout.of([len(front) + len(row)])
        hidden = plain.apply_layers(x, layout.positions, lambda *a, layout=layout: attend(layout, *a))
        total = total + (hidden[len(front) :] * down).sum()
    torch.testing.assert_close(
        decoder.prompt_embeddings.grad, torch.autograd.grad(total, front)[0], rtol=1e-3, atol=1e-4
    )


@configs
def test_a_prefix_is_keys_and_values_before_those_of_every_row(config: DecoderConfig) -> None:
    """As tokens in front at first; then, far from these, as attention written out, in values and gradients."""
    decoder, lengths = with_prompt(config, every_layer=True), [5, 1, 6]
    first = own(Decoder(config).eval()(*in_front(IDS, lengths)), lengths)
    torch.testing.assert_close(decoder(IDS, Layout.of(lengths)), first, rtol=1e-4, atol=1e-5)
    above = torch.randn(12, 32, generator=torch.Generator().manual_seed(1))
    ours = moved(decoder)(IDS, Layout.of(lengths))
    (ours * above).sum().backward()
    assert {n for n, p in decoder.named_parameters() if p.grad is not None} == {"prefix_keys_values"}
    weights = decoder.prefix_keys_values.detach().clone().requires_grad_()
    pairs = weights.view(len(FRONT), config.num_layers, 2, config.kv_head_count, config.head_size)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        k, v = (torch.cat([pairs[:, layer, i], x]) for i, x in enumerate((k, v)))
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores = torch.einsum("qhw,khw->hqk", q, k) / q.shape[-1] ** 0.5
        distance = torch.arange(len(q))[:, None] + len(FRONT) - torch.arange(len(k))
        hidden = (distance < 0) | (distance >= (window or len(k)))
        return torch.einsum("hqk,khw->qhw", scores.masked_fill(hidden, float("-inf")).softmax(-1), v).flatten(1)

    rows = [
        decoder.apply_layers(decoder.embed(row), torch.arange(len(row)) + len(FRONT), attend)
        for row in IDS.split(lengths)
    ]
    torch.testing.assert_close(ours, torch.cat(rows), rtol=1e-4, atol=1e-5)
    expected = torch.autograd.grad((torch.cat(rows) * above).sum(), weights)[0]
    torch.testing.assert_close(decoder.prefix_keys_values.grad, expected, rtol=1e-3, atol=1e-4)


def attend(layout: Layout, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    from amenable.models.attention import attend_rows

    return attend_rows(layout, layer, q, k, v, window)


def flat(rows: list[list[int]]) -> Tensor:
    return torch.tensor(list(chain.from_iterable(rows)))


@configs
@kinds
def test_a_shared_prefix_stays_shared_after_virtual_tokens(config: DecoderConfig, every_layer: bool) -> None:
    """A prompt with three completions, a row of its own, and one that begins as that."""
    decoder = moved(with_prompt(config, every_layer=every_layer))
    rows = [[*range(1, 10), *tail] for tail in ([20, 21], [22], [23, 24, 25])]
    rows += [[30, 31, 32, 33], [30, 31, 40]]
    shared = [rows[0], rows[1][9:], rows[2][9:], rows[3], rows[4][2:]]
    layout = Layout.of([len(row) for row in rows], prefix_lengths=[0, 9, 9, 0, 2])
    apart = decoder(flat(rows), Layout.of([len(row) for row in rows]))
    together = decoder(flat(shared), layout)
    last = Layout.of([len(row) for row in rows]).last_tokens
    torch.testing.assert_close(together[layout.last_tokens], apart[last], rtol=1e-4, atol=1e-5)
    at = decoder(flat(shared), layout, at=layout.last_tokens)
    torch.testing.assert_close(at, together[layout.last_tokens], rtol=1e-5, atol=1e-6)
    gradients = []
    for hidden in (at, apart[last]):
        gradients.append(torch.autograd.grad(hidden.square().sum(), decoder.virtual_tokens)[0])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@configs
@kinds
@torch.inference_mode()
def test_a_cache_holds_them_and_steps_go_on_after_them(config: DecoderConfig, every_layer: bool) -> None:
    decoder = moved(with_prompt(config, every_layer=every_layer))
    rows = [torch.arange(1, 11), torch.arange(20, 30), torch.arange(40, 50)]
    prompts, cache = [4, 1, 6], Cache(decoder.config, 4, 10, virtual_tokens=len(FRONT))
    places = torch.tensor([3, 0, 1])
    decoder(torch.cat([row[:n] for row, n in zip(rows, prompts)]), Layout.of(prompts), cache, places)
    assert cache.lengths.tolist() == [6, 11, 0, 9]
    expected = [decoder(row, Layout.of([10])) for row in rows]
    for t in range(4):
        hidden = decoder.step(torch.stack([row[n + t] for row, n in zip(rows, prompts)]), cache, places)
        for i, n in enumerate(prompts):
            torch.testing.assert_close(hidden[i], expected[i][n + t], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="row 0 has 11 tokens; the cache holds 10"):
        decoder(torch.arange(11), Layout.of([11]), cache)


@kinds
def test_continuous_batches_of_samples_fill_the_context(every_layer: bool) -> None:
    """More requests than slots, several samples of each, up to the last token of what virtual tokens leave."""
    plain, decoder = Decoder(GPT).eval(), with_prompt(GPT, every_layer=every_layer)
    assert decoder.config.context_length == GPT.context_length - len(FRONT)
    prompts = [[1, 2, 3], [9], [4, 5, 6, 7], [8, 8]]
    room = decoder.config.context_length - 4
    sampling = Sampling(temperature=1.0, max_new_tokens=room)
    ours = generate(decoder, prompts, sampling, eos_id=0, seeds=range(4), samples=3, max_batch_size=5)
    theirs = generate(plain, [FRONT + ids for ids in prompts], sampling, eos_id=0, seeds=range(4), samples=3)
    assert [[a.ids for a in group] for group in ours] == [[a.ids for a in group] for group in theirs]
    assert max(len(a.ids) for group in ours for a in group) == room


@kinds
def test_they_are_kept_by_inference_copies_and_left_out_of_the_reference(every_layer: bool) -> None:
    decoder = with_prompt(every_layer=every_layer)
    reference = without_adapters(decoder)
    assert reference.config == LLAMA and reference.num_virtual_tokens == 0
    assert torch.equal(logits(reference), logits(Decoder(LLAMA).eval()))
    assert {p.data_ptr() for p in reference.parameters()} <= {p.data_ptr() for p in decoder.parameters()}
    copied = cast_for_inference(decoder, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = logits(copied).float()
    assert torch.allclose(ours, logits(decoder), atol=0.05)
    assert not torch.allclose(ours, logits(reference), atol=0.1)


@kinds
def test_checkpointed_activations_give_the_same_gradient(every_layer: bool) -> None:
    decoder, gradients = with_prompt(every_layer=every_layer), []
    for again in (False, True):
        decoder.checkpoint_activations = again
        decoder(IDS, Layout.of([5, 7])).square().sum().backward()
        gradients.append(decoder.virtual_tokens.grad.clone())
        decoder.virtual_tokens.grad = None
    assert torch.equal(*gradients)


def test_they_start_as_the_tokens_of_a_text_or_as_drawn_ones() -> None:
    assert first_ids(VirtualTokens(5, [7, 8]), 61, 0) == [7, 8, 7, 8, 7]
    assert first_ids(VirtualTokens(2, [7, 8, 9]), 61, 0) == [7, 8]
    drawn = [first_ids(VirtualTokens(9), 61, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and max(drawn[0]) < 61
    decoder = with_prompt(WINDOWED)
    assert torch.equal(decoder.prompt_embeddings, decoder.embed(torch.tensor(FRONT)))
    assert decoder.num_virtual_tokens == 5 and with_prompt(WINDOWED).adapter_base == "somewhere/base"


@kinds
def test_a_context_without_room_is_refused(every_layer: bool) -> None:
    with pytest.raises(InputError, match="32 virtual tokens leave nothing of a context of 32; take fewer"):
        add_prompt(Decoder(LLAMA), VirtualTokens(32, every_layer=every_layer), seed=0)
    decoder = with_prompt(every_layer=every_layer)
    with pytest.raises(InputError, match="row 0 has 28 tokens; the context holds 27"):
        decoder(torch.zeros(28, dtype=torch.long), Layout.of([28]))


def test_virtual_tokens_of_a_model_go_on_and_cannot_become_others() -> None:
    decoder = with_prompt()
    before = decoder.prompt_embeddings
    add_prompt(decoder, VirtualTokens(5), seed=3)
    assert decoder.prompt_embeddings is before and before.requires_grad
    for other in (VirtualTokens(4), VirtualTokens(5, [1])):
        with pytest.raises(
            InputError, match=r"has 5 virtual tokens already, .*; train them with --prompt-tuning 5 alone"
        ):
            add_prompt(decoder, other, seed=3)
    with pytest.raises(InputError, match="has virtual tokens already, of --prompt-tuning 5; train them with"):
        add_prompt(decoder, VirtualTokens(5, every_layer=True), seed=3)


def saved(folder: Path, config: DecoderConfig = LLAMA, every_layer: bool = False) -> tuple[Decoder, Path]:
    """A decoder with virtual tokens, and the folder of these, for a base that is saved."""
    pretrained.save(folder / "base", Decoder(config), eos_id=2, pad_id=0)
    decoder = moved(with_prompt(config, every_layer=every_layer))
    decoder.adapter_base = str(folder / "base")
    save_adapters(folder / "adapter", decoder)
    return decoder, folder / "adapter"


@kinds
def test_a_folder_of_virtual_tokens_is_a_model(tmp_path: Path, every_layer: bool) -> None:
    decoder, folder = saved(tmp_path, every_layer=every_layer)
    loaded, base = pretrained.load_decoder(folder).eval(), pretrained.load_decoder(tmp_path / "base").eval()
    assert torch.equal(logits(loaded), logits(decoder)) and not torch.allclose(logits(base), logits(decoder), atol=0.05)
    assert pretrained.read_config(folder) == loaded.config and loaded.adapter_base == str(tmp_path / "base")
    on_base = pretrained.decoder_on(base, folder)
    assert torch.equal(logits(on_base), logits(decoder)) and base.num_virtual_tokens == 0
    kind, width = ("prefix", 2 * 2 * 2 * 8) if every_layer else ("prompt", 32)
    assert describe_adapter(folder) == f"{kind} tuning: 5 virtual tokens before every row of {tmp_path / 'base'}"
    tensors = load_file(folder / "adapter_model.safetensors")
    assert list(tensors) == ["prompt_embeddings"] and tensors["prompt_embeddings"].shape == (5, width)


def test_a_plain_folder_cannot_hold_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no published name for prompt_embeddings"):
        pretrained.save(tmp_path, with_prompt())


@kinds
@torch.inference_mode()
def test_a_reward_model_has_its_head_beside_them(tmp_path: Path, every_layer: bool) -> None:
    pretrained.save(tmp_path / "base", Decoder(LLAMA), eos_id=2, pad_id=0)
    model = ScalarModel.from_decoder(Decoder(LLAMA), torch.Generator().manual_seed(0)).eval()
    model.score.bias.fill_(0.7)
    add_prompt(model, VirtualTokens(5, every_layer=every_layer), seed=1, base=str(tmp_path / "base"))
    assert model.score.weight.requires_grad and not model.decoder.token_embedding.weight.requires_grad
    save_adapters(tmp_path / "adapter", model)
    loaded, layout = pretrained.load_scalar(tmp_path / "adapter").eval(), Layout.of([5, 7])
    assert torch.equal(loaded(IDS, layout), model(IDS, layout)) and pretrained.is_reward_folder(tmp_path / "adapter")


def edited(folder: Path, **changes: object) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_virtual_tokens": 4},
            r"prompt_embeddings is \[5, 32\] where the base needs \[4, 32\]; is it for another",
        ),
        ({"num_virtual_tokens": None}, "num_virtual_tokens is None; it must be 1 or more"),
        ({"num_virtual_tokens": 0}, "num_virtual_tokens is 0; it must be 1 or more"),
        ({"num_transformer_submodules": 2}, "is for an encoder with a decoder; language models are read"),
        ({"base_model_name_or_path": "nowhere"}, "its base model 'nowhere' is no folder here"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    _, folder = saved(tmp_path)
    with pytest.raises(InputError, match=message):
        pretrained.load_decoder(edited(folder, **changes))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(LLAMA, hidden_size=16), r"\[5, 32\] where the base needs \[5, 16\]; is it for another model"),
        (replace(LLAMA, context_length=5), "5 virtual tokens leave nothing of a context of 5; is it for another model"),
    ],
)
def test_another_base_is_refused(tmp_path: Path, config: DecoderConfig, message: str) -> None:
    _, folder = saved(tmp_path)
    pretrained.save(tmp_path / "other", Decoder(config), eos_id=2, pad_id=0)
    with pytest.raises(InputError, match=message):
        pretrained.load_decoder(edited(folder, base_model_name_or_path=str(tmp_path / "other")))


def test_torn_and_foreign_files_are_refused(tmp_path: Path) -> None:
    decoder, folder = saved(tmp_path)
    inner = tmp_path / "inner"
    decoder.adapter_base = str(folder)
    save_adapters(inner, decoder)
    with pytest.raises(InputError, match="is for a model that has virtual tokens itself"):
        pretrained.load_decoder(inner)
    model = ScalarModel.from_decoder(Decoder(LLAMA))
    add_prompt(model, VirtualTokens(5), seed=1, base=str(tmp_path / "base"))
    save_adapters(folder, model)
    with pytest.raises(InputError, match=r"holds score.weight, which is no prompt"):
        load_adapters(folder, Decoder(LLAMA))
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        pretrained.load_scalar(folder)


def test_adapters_on_virtual_tokens_are_merged_below_them(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    decoder = Decoder(LLAMA)
    add_adapters(decoder, LoraOptions(rank=2), seed=1, base=str(folder))
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    save_adapters(tmp_path / "lora", decoder)
    loaded = pretrained.load_decoder(tmp_path / "lora").eval()
    assert loaded.num_virtual_tokens == 5 and pretrained.read_config(tmp_path / "lora") == loaded.config
    assert not torch.allclose(logits(loaded), logits(pretrained.load_decoder(folder).eval()), atol=0.05)


PEFT_CONFIGS = [GPT, LLAMA, replace(LLAMA, scale_embeddings=True, activation="geglu", window=None)]


@pytest.mark.parametrize("config", PEFT_CONFIGS, ids=["gpt2", "llama", "gemma"])
@kinds
@torch.inference_mode()
def test_peft_reads_them_with_the_same_logits(config: DecoderConfig, every_layer: bool, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    decoder, folder = saved(tmp_path, config, every_layer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, folder).eval()
    ours = decoder.logits(decoder(IDS, Layout.of([12])))
    torch.testing.assert_close(ours, theirs(IDS[None]).logits[0, -12:], rtol=1e-5, atol=1e-5)
    greedy = generate(decoder, [IDS.tolist()], Sampling(temperature=0.0, max_new_tokens=8), eos_id=60)[0][0].ids
    answer = theirs.generate(input_ids=IDS[None], max_new_tokens=8, do_sample=False, eos_token_id=60)
    assert answer[0].tolist()[-len(greedy) :] == greedy


@pytest.mark.parametrize("config", PEFT_CONFIGS, ids=["gpt2", "llama", "gemma"])
@pytest.mark.parametrize("kind", ["prompt", "prefix", "projected prefix"])
@torch.inference_mode()
def test_files_of_peft_are_read_with_the_same_logits(config: DecoderConfig, kind: str, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    pretrained.save(tmp_path / "base", Decoder(config), eos_id=2, pad_id=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    options = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    if kind != "prompt":
        projected = kind == "projected prefix"
        options = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=projected)
    theirs = peft.get_peft_model(theirs, options).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = pretrained.load_decoder(tmp_path / "theirs").eval()
    expected = theirs(IDS[None]).logits[0, -12:]
    torch.testing.assert_close(ours.logits(ours(IDS, Layout.of([12]))), expected, rtol=1e-5, atol=1e-5)


@kinds
@torch.inference_mode()
def test_rewards_are_those_of_peft_both_ways(every_layer: bool, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    pretrained.save(tmp_path / "base", Decoder(LLAMA), eos_id=2, pad_id=0)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    options = peft.PrefixTuningConfig if every_layer else peft.PromptTuningConfig
    theirs = peft.get_peft_model(base, options(task_type="SEQ_CLS", num_virtual_tokens=4)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = pretrained.load_scalar(tmp_path / "theirs").eval()
    layout, expected = Layout.of([12]), theirs(input_ids=IDS[None]).logits[0]
    torch.testing.assert_close(ours(IDS, layout, at=layout.last_tokens), expected, rtol=1e-5, atol=1e-5)
    save_adapters(tmp_path / "again", ours)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    again = peft.PeftModel.from_pretrained(base, tmp_path / "again").eval()
    torch.testing.assert_close(again(input_ids=IDS[None]).logits[0], expected, rtol=1e-5, atol=1e-5)
