"""Model folders: what is saved comes back, and what does not belong together is told apart."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.decoder import Decoder
from amenable.models.heads import ScalarModel
from amenable.models.layout import Layout
from amenable.text.chat import render
from amenable.text.tokenizer import Tokenizer
from amenable.train import loading, reference_logits
from amenable.train.loading import SaveDtype
from amenable.train.runtime import Runtime


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_policy_comes_back_with_its_tokenizer(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    model = make_decoder(vocab_size=words.vocab_size)
    loading.save_model(tmp_path / "m", model, words)
    loaded, tokenizer = loading.load_policy(tmp_path / "m", runtime)
    assert same_weights(model, loaded) and not loaded.training
    assert tokenizer.fingerprint == words.fingerprint and tokenizer.chat_template == words.chat_template
    assert loaded.config.dropout == 0.0
    assert loading.load_policy(tmp_path / "m", runtime, dropout=0.3)[0].config.dropout == 0.3


def test_a_reward_model_comes_back(
    make_scalar_model: Callable[..., ScalarModel], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    model = make_scalar_model(vocab_size=words.vocab_size)
    with torch.no_grad():
        model.score.bias.fill_(0.25)
    loading.save_model(tmp_path / "m", model, words)
    loaded = loading.load_reward_model(tmp_path / "m", runtime, words)
    assert same_weights(model, loaded) and not loaded.training


OLD = Path(__file__).parent / "old_models"
"""written by 0.1 before parameters, options and the fields of reference logits got their present names"""


def test_old_folders_open_with_the_outputs_they_were_saved_with(runtime: Runtime, tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    policy, words = loading.load_policy(tmp_path / "policy", runtime)
    scorer = loading.load_reward_model(tmp_path / "reward", runtime, words)
    models: dict[str, Decoder | ScalarModel] = {"policy": policy, "reward": scorer}
    for name, model in models.items():
        stored = reference_logits.read(OLD / name)
        assert stored is not None and set(stored.environment) == {"torch", "device", "processor", "threads"}
        now = reference_logits.replay(stored, model)
        assert reference_logits.difference(stored.values, now.values) < reference_logits.TOLERANCE
        loading.save_model(tmp_path / "again", model, words)
        before, after = (load_file(folder / "model.safetensors") for folder in (OLD / name, tmp_path / "again"))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert words.encode("the rose is red.") == [266, 74, 263, 84, 265, 268, 269, 19]


def test_a_model_that_is_not_there_or_not_yet(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such model folder; make it with 'amenable sft'"):
        loading.load_policy(tmp_path / "none", runtime)
    with pytest.raises(InputError, match="holds no model; 'amenable reward' makes one"):
        loading.require_model(tmp_path, "amenable reward")
    (tmp_path / "config.yaml").write_text("command: sft\n")
    with pytest.raises(InputError, match="its run has not finished"):
        loading.require_model(tmp_path, "amenable sft")


def test_a_vocabulary_much_larger_than_the_model_is_refused(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    loading.save_model(tmp_path, make_decoder(vocab_size=words.vocab_size - 7), words)
    with pytest.raises(
        InputError, match=f"tokenizer has {words.vocab_size} tokens and the model {words.vocab_size - 7}"
    ):
        loading.load_policy(tmp_path, runtime)
    loading.save_model(tmp_path, make_decoder(vocab_size=words.vocab_size + 5), words)  # spare rows do no harm
    assert loading.load_policy(tmp_path, runtime)[0].config.vocab_size == words.vocab_size + 5


def test_a_model_gets_rows_for_control_tokens_that_it_lacks(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    model = make_decoder(vocab_size=words.vocab_size - 3)
    loading.save_model(tmp_path, model, words)
    grown = [loading.load_policy(tmp_path, runtime)[0] for _ in range(2)]
    assert grown[0].config.vocab_size == words.vocab_size
    assert torch.equal(grown[0].token_embedding.weight[:-3], model.token_embedding.weight)
    assert same_weights(*grown)  # the new rows are the same every time: a resumed run needs that


def test_a_vocabulary_that_grows_becomes_a_multiple_of_64_and_one_that_need_not_stays(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    """words has 320 tokens."""
    backend = Backend.from_str(words._backend.to_str())
    backend.add_special_tokens(["<x>"])
    more = Tokenizer(backend, bos=words.bos, eos=words.eos, pad=words.pad)
    for tokenizer, rows, loaded in ((more, 320, 384), (more, 321, 321), (words, 333, 333), (words, 317, 320)):
        folder = tmp_path / f"{rows}-{loaded}"
        loading.save_model(folder, make_decoder(vocab_size=rows), tokenizer)
        assert loading.load_policy(folder, runtime)[0].config.vocab_size == loaded


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PUBLISHED: dict[str, dict[str, Any]] = {
    "pad and bos as ChatML has them": {
        "tokenizer_config.json": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        "config.json": {
            "bos_token_id": 321,
            "eos_token_id": 322,
            "pad_token_id": 322,
            "torch_dtype": "float32",
            "a": 1,
        },
        "generation_config.json": {"bos_token_id": 321, "eos_token_id": 322, "pad_token_id": 322, "do_sample": True},
    },
    "another eos, no pad, several stops": {
        "tokenizer_config.json": {"bos_token": None, "eos_token": "<|endoftext|>", "extra": {"deep": ["ä"]}},
        "config.json": {"bos_token_id": 320, "eos_token_id": [320, 322], "pad_token_id": None, "dtype": "float32"},
        "generation_config.json": {"eos_token_id": [322, 320], "temperature": 0.7},
        "special_tokens_map.json": {"eos_token": {"content": "<|endoftext|>", "lstrip": False}},
    },
    "a base model": {
        "tokenizer_config.json": {"eos_token": "<|endoftext|>"},
        "config.json": {"eos_token_id": 320, "rope_scaling": None, "initializer_range": 0.1, "attention_dropout": 0.2},
        "generation_config.json": {"eos_token_id": 320},
    },
}


def published(folder: Path, model: Decoder | ScalarModel, words: Tokenizer, files: dict[str, Any]) -> Path:
    """A model folder with three special tokens after those of `words`, and these things in its files."""
    backend = Backend.from_str(words._backend.to_str())
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    pretrained.save(folder, model, eos_id=0)
    backend.save(str(folder / "tokenizer.json"))
    if len(files["tokenizer_config.json"]) > 1:
        (folder / "chat_template.jinja").write_text(CHATML)
    for name, facts in files.items():
        own = json.loads((folder / name).read_text()) if name == "config.json" else {}
        own = {key: value for key, value in own.items() if not key.endswith("_token_id") and key != "dtype"}
        (folder / name).write_text(json.dumps(own | facts))
    return folder


def read_folder(folder: Path) -> dict[str, Any]:
    """Every file: JSON as what it says, other files as their bytes."""
    return {
        file.name: json.loads(file.read_text()) if file.suffix == ".json" else file.read_bytes()
        for file in folder.iterdir()
        if file.name != "probe.tensors"
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_folder_comes_back_file_by_file(
    name: str, make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    first = published(tmp_path / "1", make_decoder(vocab_size=323), words, PUBLISHED[name])
    loading.save_model(tmp_path / "2", *loading.load_policy(first, runtime))
    loading.save_model(tmp_path / "3", *loading.load_policy(tmp_path / "2", runtime))
    before, after, again = (read_folder(tmp_path / folder) for folder in "123")
    dtype = "torch_dtype" if "torch_dtype" in before["config.json"] else "dtype"
    assert after["config.json"].pop(dtype) == again["config.json"].pop(dtype) == "float32"
    before["config.json"].pop(dtype, None)
    assert after == before and again == before


OTHER_FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "norm_placement": "sandwich",
        "activation": "geglu",
        "scale_embeddings": True,
        "window": 8,
        "local_layers": (0,),
        "local_rope_theta": 5e3,
    },
    "gpt_neox": {
        "norm": "layer",
        "bias": True,
        "qk_norm": False,
        "parallel_residual": True,
        "activation": "exact_gelu",
        "interleave_qkv": True,
        "rotary_width": 4,
        "tie_embeddings": False,
    },
}


@pytest.mark.parametrize("family", OTHER_FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_folders_of_other_families_come_back_with_their_spare_rows_and_added_tokens(
    family: str,
    dtype: SaveDtype,
    make_decoder: Callable[..., Decoder],
    words: Tokenizer,
    runtime: Runtime,
    tmp_path: Path,
) -> None:
    model = make_decoder(vocab_size=340, **OTHER_FAMILIES[family])
    loading.round_weights(model, getattr(torch, dtype))
    files = PUBLISHED["another eos, no pad, several stops"]
    first = published(tmp_path / "1", model, words, files | {"config.json": files["config.json"] | {"dtype": dtype}})
    backend = Backend.from_file(str(first / "tokenizer.json"))
    backend.add_tokens([AddedToken("<extra>", special=False)])
    backend.save(str(first / "tokenizer.json"))
    decoder, tokenizer = loading.load_policy(first, runtime)
    assert (decoder.num_tokens, decoder.config.vocab_size) == (324, 340) and same_weights(decoder, model)
    assert tokenizer.encode("<extra>") == [323] and 323 not in tokenizer.special_ids
    loading.save_model(tmp_path / "2", decoder, tokenizer, dtype)
    before, after = read_folder(first), read_folder(tmp_path / "2")
    assert after["config.json"]["model_type"] == family
    if dtype == "float32":
        assert after == before
    again = loading.load_policy(tmp_path / "2", runtime)[0]
    assert same_weights(again, decoder) and again.config == decoder.config


def test_a_changed_shape_is_told_and_not_what_the_folder_said(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    folder = published(tmp_path / "1", make_decoder(vocab_size=320), words, PUBLISHED["a base model"])
    decoder, tokenizer = loading.load_policy(folder, runtime)
    assert decoder.config.vocab_size == 384
    loading.save_model(tmp_path / "2", decoder, tokenizer)
    facts = json.loads((tmp_path / "2" / "config.json").read_text())
    assert facts["vocab_size"] == 384 and facts["attention_dropout"] == 0.2
    decoder.config = replace(decoder.config, context_length=decoder.config.context_length - 1)
    pretrained.save(tmp_path / "3", decoder)
    facts = json.loads((tmp_path / "3" / "config.json").read_text())
    assert facts["max_position_embeddings"] == decoder.config.context_length and facts["attention_dropout"] == 0.0


def test_transformers_reads_the_reward_where_we_do_though_the_folder_pads_with_its_eos(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    base = published(tmp_path / "1", make_decoder(vocab_size=323), words, PUBLISHED["pad and bos as ChatML has them"])
    decoder, tokenizer = loading.load_policy(base, runtime)
    model = ScalarModel.from_decoder(decoder, torch.Generator().manual_seed(0)).eval()
    model.score.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    loading.save_model(tmp_path / "2", model, tokenizer)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "2").eval()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "2")
    request = [Message("user", "Name a rose.")]
    rows = [render(tokenizer, [*request, Message("assistant", text)]).ids for text in ("A rose is red.", "No.")]
    batch = reader.pad({"input_ids": rows}, return_tensors="pt")
    with torch.inference_mode():
        scores = theirs(**batch).logits[:, 0]
        layout = Layout.of([len(row) for row in rows])
        ours = model(torch.tensor(rows[0] + rows[1]), layout, at=layout.last_tokens)
    torch.testing.assert_close(scores, ours, rtol=1e-4, atol=1e-4)
    loading.load_reward_model(tmp_path / "2", runtime, tokenizer)


def test_bf16_folders_come_back_to_the_bit_and_trained_weights_are_rounded_once(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    model = make_decoder(vocab_size=words.vocab_size)
    exact = {name: value.clone() for name, value in model.state_dict().items()}
    loading.save_model(tmp_path / "1", model, words, "bfloat16")
    assert load_file(tmp_path / "1" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert json.loads((tmp_path / "1" / "config.json").read_text())["dtype"] == "bfloat16"
    loaded, tokenizer = loading.load_policy(tmp_path / "1", runtime)
    assert all(p.dtype == torch.float32 for p in loaded.parameters()), "training goes on in fp32"
    assert all(torch.equal(value, exact[name].bfloat16().float()) for name, value in loaded.state_dict().items())
    assert same_weights(loaded, model), "the probe and every later use are of what was saved"
    loading.save_model(tmp_path / "2", loaded, tokenizer, "bfloat16")
    for name in ("model.safetensors", "config.json", "probe.tensors"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    loading.save_model(tmp_path / "3", loaded, tokenizer, "float32")
    assert same_weights(loading.load_policy(tmp_path / "3", runtime)[0], loaded)
    small, large = ((tmp_path / n / "model.safetensors").stat().st_size for n in "13")
    assert small < 0.6 * large


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_is_saved_in_the_dtype_it_came_in(
    dtype: SaveDtype, make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    """Of the files, whatever config.json says; reference logits are those of the weights that are saved."""
    loading.save_model(tmp_path / "1", make_decoder(vocab_size=words.vocab_size), words, dtype)
    facts = json.loads((tmp_path / "1" / "config.json").read_text())
    assert facts.pop("dtype") == dtype
    for reply in ({}, {"dtype": "float64"}, {"torch_dtype": "bfloat16"}):
        (tmp_path / "1" / "config.json").write_text(json.dumps(facts | reply))
        model, tokenizer = loading.load_policy(tmp_path / "1", runtime)
        with torch.no_grad():
            model.token_embedding.weight += 0.0123456789
        loading.save_model(tmp_path / "2", model, tokenizer)
        assert json.loads((tmp_path / "2" / "config.json").read_text())[next(iter(reply), "dtype")] == dtype
        assert {tensor.dtype for tensor in load_file(tmp_path / "2" / "model.safetensors").values()} == {
            getattr(torch, dtype)
        }
        stored, again = reference_logits.read(tmp_path / "2"), loading.load_policy(tmp_path / "2", runtime)[0]
        assert stored is not None and torch.equal(stored.values, reference_logits.replay(stored, again).values)


def test_a_new_model_is_saved_as_fp32_and_a_reward_model_as_its_base(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    loading.save_model(tmp_path / "1", make_decoder(vocab_size=words.vocab_size), words)
    assert json.loads((tmp_path / "1" / "config.json").read_text())["dtype"] == "float32"
    loading.save_model(tmp_path / "2", loading.load_policy(tmp_path / "1", runtime)[0], words, "float16")
    scorer = ScalarModel.from_decoder(loading.load_policy(tmp_path / "2", runtime)[0])
    loading.save_model(tmp_path / "3", scorer, words)
    assert load_file(tmp_path / "3" / "model.safetensors")["score.weight"].dtype == torch.float16


def test_weights_beyond_float16_are_refused_by_name_with_nothing_rounded(
    make_decoder: Callable[..., Decoder], words: Tokenizer, tmp_path: Path
) -> None:
    model = make_decoder(vocab_size=words.vocab_size)
    with torch.no_grad():
        model.layers[1].attention.qkv.weight[-1, 0] = -71_000.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    problem = r"v_proj\.weight holds 71,000, and float16 holds no number above 65,504; .*--save-dtype bfloat16, or"
    with pytest.raises(InputError, match=problem):
        loading.save_model(tmp_path, model, words, "float16")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not list(tmp_path.glob("*.safetensors"))
    loading.save_model(tmp_path, model, words, "bfloat16")


def test_large_weights_are_saved_in_parts_and_a_folder_of_parts_is_a_model(
    make_decoder: Callable[..., Decoder], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    loading.save_model(tmp_path, make_decoder(vocab_size=words.vocab_size), words, max_shard_bytes=30_000)
    assert len(list(tmp_path.glob("model-0*.safetensors"))) > 1
    stored, model = reference_logits.read(tmp_path), loading.load_policy(tmp_path, runtime)[0]
    assert stored is not None and torch.equal(stored.values, reference_logits.replay(stored, model).values)


def test_a_bf16_reward_model_gives_the_rewards_of_its_probe(
    make_scalar_model: Callable[..., ScalarModel], words: Tokenizer, runtime: Runtime, tmp_path: Path
) -> None:
    model = make_scalar_model(vocab_size=words.vocab_size)
    with torch.no_grad():
        model.score.bias.fill_(0.3)
    loading.save_model(tmp_path, model, words, "bfloat16")
    loaded = loading.load_reward_model(tmp_path, runtime, words)
    assert same_weights(model, loaded)
    stored = reference_logits.read(tmp_path)
    assert torch.equal(stored.values, reference_logits.replay(stored, loaded).values)


def test_another_tokenizer_is_refused(other_judge: Path, words: Tokenizer, runtime: Runtime) -> None:
    with pytest.raises(InputError, match="another tokenizer"):
        loading.load_reward_model(other_judge, runtime, words)


def test_a_chat_template_makes_no_other_tokenizer(words: Tokenizer, tokenizer_folder: Path) -> None:
    loading.require_same_tokenizer(words, Tokenizer.load(tokenizer_folder), tokenizer_folder)


def test_the_two_kinds_of_model_are_not_mistaken(
    assistant: Path, judge: Path, words: Tokenizer, runtime: Runtime
) -> None:
    with pytest.raises(InputError, match="holds a reward model"):
        loading.load_policy(judge, runtime)
    with pytest.raises(InputError, match="holds a language model"):
        loading.load_reward_model(assistant, runtime, words)


def test_a_folder_without_its_tokenizer_says_so(assistant: Path, runtime: Runtime, tmp_path: Path) -> None:
    shutil.copytree(assistant, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        loading.load_policy(tmp_path / "copy", runtime)
