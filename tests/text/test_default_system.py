import pytest

from amenable.text.default_system import default_system_prompt
from amenable.text.tokenizer import Tokenizer

WORDS = {
    "qwen2_5": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "smollm2": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "llama3_1": "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024",
    "lfm2_v2": "",
    "llama2": "",
    "llama3": "",
    "gemma3": "",
    "mistral_v3": "",
    "phi3": "",
    "qwen3": "",
    "zephyr": "",
}


@pytest.mark.parametrize("name", WORDS)
def test_the_words_that_a_template_adds(name, published_tokenizers):
    assert default_system_prompt(published_tokenizers[name]) == WORDS[name]


def test_without_a_template_nothing_is_added():
    base = Tokenizer.train(["a hen"] * 3, 270)
    assert default_system_prompt(base) == default_system_prompt(base.with_chat_template()) == ""
