import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from amenable.errors import InputError
from amenable.functional.kl import exact_kl
from amenable.models.attention import attend_rows
from amenable.models.cache import Cache
from amenable.models.decoder import Decoder, DecoderConfig, count_parameters
from amenable.models.layout import Layout

GPT1 = DecoderConfig(61, context_length=48, num_layers=2, hidden_size=32, num_heads=4, norm_placement="post")
GPT2 = DecoderConfig(61, context_length=48, num_layers=2, hidden_size=32, num_heads=4)
LLAMA = DecoderConfig(
    61,
    context_length=48,
    num_layers=2,
    hidden_size=32,
    num_heads=4,
    num_kv_heads=2,
    positions="rope",
    norm="rms",
    activation="swiglu",
    bias=False,
)
QWEN3 = DecoderConfig(
    61,
    context_length=48,
    num_layers=2,
    hidden_size=32,
    num_heads=4,
    num_kv_heads=1,
    head_width=16,
    positions="rope",
    norm="rms",
    activation="swiglu",
    bias=False,
    qk_norm=True,
    tie_embeddings=False,
)
GEMMA3 = replace(
    QWEN3,
    norm_placement="sandwich",
    activation="geglu",
    scale_embeddings=True,
    query_pre_attn_scalar=20,
    window=4,
    local_layers=(0,),
    local_rope_theta=500.0,
    tie_embeddings=True,
)
OLMO2 = replace(QWEN3, norm_placement="branch", qk_norm_over="heads", nope_layers=(0,))
NEOX = replace(
    GPT2,
    positions="rope",
    parallel_residual=True,
    activation="exact_gelu",
    interleave_qkv=True,
    rotary_width=2,
    tie_embeddings=False,
)
FAMILIES = {"gpt1": GPT1, "gpt2": GPT2, "llama": LLAMA, "qwen3": QWEN3, "gemma3": GEMMA3, "olmo2": OLMO2, "neox": NEOX}
families = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)


def lively(config, seed=0):
    """A decoder with every parameter away from its first value, so that no gain or bias can be forgotten."""
    decoder = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return decoder.eval()


def tokens(count, seed=0):
    return torch.randint(0, 61, (count,), generator=torch.Generator().manual_seed(seed))


@families
def test_a_packed_batch_is_its_rows_apart_in_values_and_gradients(config):
    decoder = lively(config)
    lengths = [5, 1, 31, 8, 8]
    layout, ids = Layout.of(lengths), tokens(sum(lengths))
    hidden = decoder(ids, layout)
    above = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1)) / 100
    packed = torch.autograd.grad((hidden * above).sum(), [p for p in decoder.parameters() if p is not unused(decoder)])

    total, apart = torch.zeros(()), []
    for row, grad in zip(ids.split(lengths), above.split(lengths)):
        apart.append(decoder(row, Layout.of([row.numel()])))
        total = total + (apart[-1] * grad).sum()
    separate = torch.autograd.grad(total, [p for p in decoder.parameters() if p is not unused(decoder)])
    torch.testing.assert_close(hidden, torch.cat(apart), rtol=1e-4, atol=1e-5)
    for a, b in zip(packed, separate):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def unused(decoder):
    """The unembedding of its own, which hidden states do not depend on."""
    return decoder.output.weight if decoder.output is not None else None


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)))
def test_order_of_rows_does_not_matter(order):
    decoder = lively(LLAMA)
    rows = [tokens(length, seed=length) for length in (3, 12, 7, 7, 20)]
    first = decoder(torch.cat(rows), Layout.of([row.numel() for row in rows])).split([row.numel() for row in rows])
    shuffled = [rows[i] for i in order]
    second = decoder(torch.cat(shuffled), Layout.of([row.numel() for row in shuffled]))
    torch.testing.assert_close(torch.cat([first[i] for i in order]), second, rtol=1e-4, atol=1e-5)


@families
def test_a_token_sees_nothing_that_follows(config):
    decoder = lively(config)
    ids = tokens(12)
    changed = torch.cat([ids[:7], (ids[7:] + 1) % 61])
    first, second = (decoder(x, Layout.of([12])) for x in (ids, changed))
    torch.testing.assert_close(first[:7], second[:7])
    assert not torch.allclose(first[7], second[7])


@families
@torch.inference_mode()
def test_cached_equals_uncached_for_prompts_of_many_lengths(config):
    decoder = lively(config)
    full = [tokens(30, seed=i) for i in range(4)]
    prompts = [9, 1, 17, 4]
    cache = Cache(config, 4, 40)
    prefilled = decoder(torch.cat([row[:n] for row, n in zip(full, prompts)]), Layout.of(prompts), cache)
    expected = [decoder(row, Layout.of([30])) for row in full]
    torch.testing.assert_close(prefilled, torch.cat([e[:n] for e, n in zip(expected, prompts)]), rtol=1e-4, atol=1e-5)
    for t in range(10):
        hidden = decoder.step(torch.stack([row[n + t] for row, n in zip(full, prompts)]), cache)
        for b, n in enumerate(prompts):
            torch.testing.assert_close(hidden[b], expected[b][n + t], rtol=1e-4, atol=1e-5)
    assert cache.lengths.tolist() == [n + 10 for n in prompts]


@torch.inference_mode()
def test_rows_are_copied_chosen_and_refilled():
    decoder = lively(LLAMA)
    full = [tokens(20, seed=i) for i in range(3)]
    expected = [decoder(row, Layout.of([20])) for row in full]

    def close(a, b):
        return torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    cache = Cache(LLAMA, 4, 24)

    decoder(torch.cat([full[0][:6], full[1][:9]]), Layout.of([6, 9]), cache, torch.tensor([2, 0]))
    cache.copy(torch.tensor([2]), torch.tensor([3]))
    assert cache.lengths.tolist() == [9, 0, 6, 6]
    out = decoder.step(torch.stack([full[0][6], full[1][9]]), cache, torch.tensor([3, 0]))
    close(out, torch.stack([expected[0][6], expected[1][9]]))
    assert cache.lengths.tolist() == [10, 0, 6, 7]

    decoder(full[2][:5], Layout.of([5]), cache, torch.tensor([0]))  # a finished row gives way to a new prompt
    cache.copy(torch.tensor([3]), torch.tensor([1]))
    assert cache.lengths.tolist() == [5, 7, 6, 7]
    out = decoder.step(torch.stack([full[2][5], full[0][7]]), cache)
    close(out, torch.stack([expected[2][5], expected[0][7]]))
    assert cache.lengths.tolist() == [6, 8, 6, 7]


@torch.inference_mode()
def test_a_half_precision_cache_is_near():
    decoder = lively(QWEN3)
    ids, layout = tokens(11), Layout.of([10])
    cache = Cache(QWEN3, 1, 16, dtype=torch.bfloat16)
    decoder(ids[:10], layout, cache)
    hidden = decoder.step(ids[10:], cache)
    expected = decoder(ids, Layout.of([11]))[10:]
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, expected, rtol=0.05, atol=0.05)
    assert not torch.equal(hidden, expected)


@families
def test_bf16_products_are_near_and_gradients_stay_fp32(config):
    decoder = lively(config)
    layout, ids = Layout.of([6, 11]), tokens(17)
    exact = decoder(ids, layout)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = decoder(ids, layout)
    hidden.float().sum().backward()
    torch.testing.assert_close(hidden.float(), exact, rtol=0.1, atol=0.1)
    grads = [p.grad for p in decoder.parameters() if p is not unused(decoder)]
    assert all(grad is not None and grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)


def test_gpt1_block_is_post_norm_worked_out():
    decoder = lively(GPT1)
    block, x = decoder.layers[0], torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    layout = Layout.of([4])

    def attend(layer, q, k, v, window):
        return attend_rows(layout, layer, q, k, v)

    middle = block.attention_norm(x + block.attention(x, None, attend))
    torch.testing.assert_close(block(x, None, attend), block.mlp_norm(middle + block.mlp(middle)))
    assert decoder.final_norm is None


def test_init_statistics():
    config = DecoderConfig(500, context_length=300, num_layers=8, hidden_size=128, num_heads=4)
    decoder = Decoder(config)
    decoder.init_weights(torch.Generator().manual_seed(3))
    for name, parameter in decoder.state_dict().items():
        if parameter.ndim == 1:
            assert (parameter == (0.0 if name.endswith("bias") else 1.0)).all(), name
            continue
        std = 0.02
        if name == "position_embedding.weight":
            std = 0.01
        elif "attention.out" in name or "mlp.down" in name:
            std = 0.02 / math.sqrt(16)
        # the standard error of a deviation is std / sqrt(2 n)
        assert abs(float(parameter.std()) - std) < 5 * std / math.sqrt(2 * parameter.numel()), name
        assert abs(float(parameter.mean())) < 5 * std / math.sqrt(parameter.numel()), name


def test_gpt1_weights_have_the_same_deviation_throughout():
    decoder = Decoder(
        DecoderConfig(500, context_length=300, num_layers=8, hidden_size=128, num_heads=4, norm_placement="post")
    )
    matrices = [p for p in decoder.state_dict().values() if p.ndim == 2]
    assert all(abs(float(p.std()) - 0.02) < 0.001 for p in matrices)


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = Decoder(QWEN3), Decoder(QWEN3)
    assert torch.equal(before, torch.get_rng_state())
    first.init_weights(torch.Generator().manual_seed(5))
    second.init_weights(torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    second.init_weights(torch.Generator().manual_seed(6))
    assert not torch.equal(first.unembedding, second.unembedding)


def test_dropout_only_while_training():
    decoder = Decoder(DecoderConfig(61, context_length=48, num_layers=2, hidden_size=32, num_heads=4, dropout=0.3))
    layout, ids = Layout.of([6, 9]), tokens(15)
    decoder.eval()
    assert torch.equal(decoder(ids, layout), decoder(ids, layout))
    decoder.train()
    assert not torch.allclose(decoder(ids, layout), decoder(ids, layout))
    plain = lively(GPT2).train()
    assert torch.equal(plain(ids, layout), plain(ids, layout))


def test_logits_use_the_tied_or_the_own_unembedding():
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    tied, untied = lively(GPT2), lively(QWEN3)
    assert tied.unembedding is tied.token_embedding.weight
    assert untied.unembedding is untied.output.weight
    for decoder in (tied, untied):
        torch.testing.assert_close(decoder.logits(hidden), hidden @ decoder.unembedding.T)


def test_count_parameters_counts_those_of_the_model():
    for config in FAMILIES.values():
        assert count_parameters(config) == sum(p.numel() for p in Decoder(config).parameters())


def test_a_row_longer_than_the_context_is_named():
    decoder = Decoder(GPT2)
    with pytest.raises(InputError, match="row 1 has 49 tokens; the context holds 48"):
        decoder(tokens(52), Layout.of([3, 49]))
    with pytest.raises(InputError, match="row 0 has 9 tokens; the cache holds 8"):
        decoder(tokens(9), Layout.of([9]), Cache(GPT2, 1, 8))


def test_a_full_cache_and_a_wrong_layout_are_errors():
    decoder = Decoder(GPT2).eval()
    cache = Cache(GPT2, 2, 4)
    decoder(tokens(6), Layout.of([2, 4]), cache)
    with pytest.raises(InputError, match="cache row 1 is full: it holds 4 tokens"):
        decoder.step(tokens(2), cache)
    with pytest.raises(ValueError, match="5 ids for a layout of 6 tokens"):
        decoder(tokens(5), Layout.of([2, 4]))


@families
def test_a_shared_prefix_equals_a_prefix_in_each_row(config):
    """Hidden states and gradients of all weights: a prompt computed once, or once per completion."""
    decoder = Decoder(config)
    generator = torch.Generator().manual_seed(3)
    prefix, second = torch.randint(50, (9,), generator=generator), torch.randint(50, (4,), generator=generator)
    answers = [torch.randint(50, (n,), generator=generator) for n in (3, 1, 5)]
    last = torch.randint(50, (2,), generator=generator)
    apart = [torch.cat([prefix, answer]) for answer in answers] + [second, torch.cat([second, last])]
    above = [torch.randn(len(row), 32, generator=generator) for row in (*answers, second, last)]

    whole = decoder(torch.cat(apart), Layout.of([len(row) for row in apart]))
    own = [part[len(part) - len(down) :] for part, down in zip(whole.split([len(row) for row in apart]), above)]
    sum((part * down).sum() for part, down in zip(own, above)).backward()
    expected = {key: p.grad.clone() for key, p in decoder.named_parameters() if p.grad is not None}
    decoder.zero_grad()

    together = Layout.of([len(row) for row in apart], prefix_lengths=[0, 9, 9, 0, 4])
    ids = torch.cat([prefix, *answers, second, last])
    assert together.tokens == len(ids) == sum(len(row) for row in apart) - 22
    hidden = decoder(ids, together)
    parts = hidden.split([12, 1, 5, 4, 2])
    parts = [parts[0][9:], *parts[1:]]
    for ours, theirs in zip(parts, own):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    sum((part * down).sum() for part, down in zip(parts, above)).backward()
    for key, p in decoder.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected[key], rtol=1e-3, atol=1e-5)


@torch.inference_mode()
def test_a_shared_prefix_fills_the_cache_of_each_of_its_rows():
    decoder, caches = lively(LLAMA), [Cache(LLAMA, 3, 16) for _ in range(2)]
    ids, rows = tokens(12), torch.tensor([2, 0])
    decoder(torch.cat([ids[:9], ids[:3], ids[9:]]), Layout.of([9, 6]), caches[0], rows)
    decoder(ids, Layout.of([9, 6], prefix_lengths=[0, 3]), caches[1], rows)
    assert caches[1].lengths.tolist() == [6, 0, 9]
    for first, second in zip(caches[0].pairs, caches[1].pairs):
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-6)


@families
def test_hidden_states_at_some_indices_are_those_of_all(config):
    """Values and gradients of all weights; indices may repeat, and rows may share a prefix."""
    decoder = lively(config)
    layout = Layout.of([12, 9, 3], prefix_lengths=[0, 4, 0])
    ids, indices = tokens(layout.tokens), torch.tensor([11, 3, 3, 16, 17, 5])
    above = torch.randn(len(indices), 32, generator=torch.Generator().manual_seed(1)) / 100
    learnt = [p for p in decoder.parameters() if p is not unused(decoder)]
    every, some = decoder(ids, layout)[indices], decoder(ids, layout, at=indices)
    torch.testing.assert_close(some, every, rtol=1e-5, atol=1e-6)
    expected, actual = (torch.autograd.grad((hidden * above).sum(), learnt) for hidden in (every, some))
    for ours, theirs in zip(actual, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_prefill_at_the_ends_fills_the_whole_cache():
    decoder, layout, ids = lively(LLAMA), Layout.of([5, 9, 2]), tokens(16)
    caches = [Cache(LLAMA, 3, 16) for _ in range(2)]
    every = decoder(ids, layout, caches[0])
    last = decoder(ids, layout, caches[1], at=layout.last_tokens)
    torch.testing.assert_close(last, every[layout.last_tokens], rtol=1e-5, atol=1e-6)
    for first, second in zip(caches[0].keys + caches[0].values, caches[1].keys + caches[1].values):
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-6)
    assert caches[0].lengths.tolist() == caches[1].lengths.tolist() == [5, 9, 2]


def test_building_a_model_does_not_import_torchs_compiler():
    """The import takes a second in every process, and nothing here compiles."""
    code = "import sys; from amenable.recipes import demo; from amenable.models.decoder import Decoder; "
    code += "from amenable.models.config import DecoderConfig; Decoder(DecoderConfig(9, 8, 1, 8, 2)); "
    code += "print('torch._dynamo' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"


@families
def test_second_derivative_of_the_kl_is_the_fisher_matrix(config):
    """F = mean over tokens of J^T (diag(p) - p p^T) J, with J of first derivatives alone, as TRPO's steps need F v."""
    decoder = lively(replace(config, vocab_size=7, num_layers=1, hidden_size=8, mlp_width=16))
    layout, ids = Layout.of((5, 6, 3), prefix_lengths=(0, 4, 0)), tokens(10) % 7
    parameters = list(decoder.parameters())
    direction = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(parameters)]
    with sdpa_kernel(SDPBackend.MATH):
        logits = decoder.logits(decoder(ids, layout))
        gradients = torch.autograd.grad(exact_kl(logits, logits.detach()).mean(), parameters, create_graph=True)
        slope = sum((g * v).sum() for g, v in zip(gradients, direction))
        product = torch.autograd.grad(slope, parameters)

    logits = decoder.logits(decoder(ids, layout))
    rows = [torch.autograd.grad(logit, parameters, retain_graph=True, allow_unused=True) for logit in logits.flatten()]
    along = torch.stack([sum((g * v).sum() for g, v in zip(row, direction) if g is not None) for row in rows])
    p = logits.softmax(-1).detach()
    change = p * (along.view_as(p) - (p * along.view_as(p)).sum(-1, keepdim=True)) / len(p)
    expected = torch.autograd.grad(logits, parameters, change)
    for ours, theirs in zip(product, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()) + 1e-6)
    assert max(float(theirs.abs().max()) for theirs in expected) > 0.01
