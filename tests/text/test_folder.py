import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.text.folder import COPIED_FILES, TokenizerFiles
from amenable.text.tokenizer import Tokenizer

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
name = st.sampled_from(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
written = name | name.map(lambda text: {"__type": "AddedToken", "content": text, "lstrip": False, "special": True})
unknown = st.dictionaries(
    st.sampled_from(["model_max_length", "add_prefix_space", "ä", "extra"]), st.integers() | st.text()
)
configs = st.fixed_dictionaries(
    {}, optional={"bos_token": st.none() | written, "eos_token": written, "pad_token": st.none() | written}
)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@FEW
@given(
    config=configs,
    more=unknown,
    special=st.none() | configs,
    jinja=st.booleans(),
    extra=st.sets(st.sampled_from(COPIED_FILES)),
)
def test_a_folder_comes_back_as_it_was(qwen_folder, tmp_path_factory, config, more, special, jinja, extra):
    first, second, third = (tmp_path_factory.mktemp("files") for _ in range(3))
    template = json.loads((qwen_folder / "tokenizer_config.json").read_text())["chat_template"]
    config = {"eos_token": "<|im_end|>"} | config | more | ({} if jinja else {"chat_template": template})
    for file in extra - {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}:
        (first / file).write_bytes(b"{}")
    (first / "tokenizer.json").write_bytes((qwen_folder / "tokenizer.json").read_bytes())
    (first / "tokenizer_config.json").write_text(json.dumps(config, indent=4))
    if special is not None:
        (first / "special_tokens_map.json").write_text(json.dumps(special))
    if jinja:
        (first / "chat_template.jinja").write_text(template)
    Tokenizer.load(first).save(second)
    Tokenizer.load(second).save(third)
    assert contents(first) == contents(second) == contents(third)
    assert Tokenizer.load(first).special_tokens_map == Tokenizer.load(third).special_tokens_map


def test_added_names_are_written_and_the_rest_stays(gpt2_folder, tmp_path):
    chat = Tokenizer.load(gpt2_folder).with_chat_template()
    chat.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 1024 and config["chat_template"] == chat.chat_template
    named = {name: config[name] for name in config if name.endswith("_token")}
    assert named == {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    again = Tokenizer.load(tmp_path)
    assert again.special_tokens_map == chat.special_tokens_map and again.fingerprint == chat.fingerprint


def test_a_token_that_is_named_and_missing_is_added(qwen_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((qwen_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>", "pad_token": "[PAD]", "x": 1}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.pad_id == 324 and tokenizer.vocab_size == 325
    tokenizer.save(tmp_path / "b")
    assert Tokenizer.load(tmp_path / "b").pad_id == 324
    assert json.loads((tmp_path / "b" / "tokenizer_config.json").read_text())["x"] == 1


def test_stops_are_those_of_generation_or_else_of_the_model(tmp_path):
    assert TokenizerFiles.read(tmp_path).stop_ids == []
    (tmp_path / "config.json").write_text('{"eos_token_id": [7, 8]}')
    assert TokenizerFiles.read(tmp_path).stop_ids == [7, 8]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 9}')
    assert TokenizerFiles.read(tmp_path).stop_ids == [9]


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"])
def test_a_torn_file_is_named(file, tmp_path):
    (tmp_path / file).write_text("{")
    with pytest.raises(InputError, match=f"{file}: not JSON"):
        TokenizerFiles.read(tmp_path)


def test_a_byte_order_mark_is_no_fault_and_other_encodings_are_named(qwen_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((qwen_folder / "tokenizer.json").read_bytes())
    config = json.loads((qwen_folder / "tokenizer_config.json").read_text())
    template = config.pop("chat_template")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8-sig")
    assert Tokenizer.load(tmp_path).chat_template == template
    (tmp_path / "chat_template.jinja").write_bytes(b"{{ messages }}\xff")
    with pytest.raises(InputError, match="not UTF-8 at byte 14"):
        Tokenizer.load(tmp_path)
