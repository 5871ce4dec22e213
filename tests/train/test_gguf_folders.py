"""GGUF files as folders: the same model and tokenizer, or nothing at all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from amenable.errors import InputError
from amenable.models import gguf, pretrained
from amenable.models.decoder import Decoder
from amenable.models.gguf_file import Kind
from amenable.text.gguf import tokenizer_metadata
from amenable.text.tokenizer import Tokenizer
from amenable.train.gguf_folders import import_gguf
from amenable.train.origin import Origin

Make = Callable[..., Decoder]
GENERAL = {"general.name": "Tiny", "general.organization": "Us", "general.license": "mit"}


def write(path: Path, decoder: Decoder, words: Tokenizer, kind: Kind = "f32", rows: int | None = None) -> Path:
    gguf.save_decoder(path, decoder, kind, tokenizer_metadata(words, rows or decoder.config.vocab_size), GENERAL)
    return path


def test_a_file_becomes_a_folder(tmp_path: Path, make_decoder: Make, words: Tokenizer) -> None:
    decoder = make_decoder(0, vocab_size=words.vocab_size + 7)
    out = import_gguf(write(tmp_path / "a.gguf", decoder, words), tmp_path / "models" / "a")
    loaded, tokenizer = pretrained.load_decoder(out), Tokenizer.load(out)
    for ours, theirs in zip(loaded.parameters(), decoder.parameters()):
        assert torch.equal(ours, theirs)
    assert tokenizer.fingerprint == words.fingerprint and tokenizer.chat_template is not None
    assert loaded.origin is not None and loaded.origin["dtype"] == "float32"
    assert (loaded.origin["bos_token_id"], loaded.origin["eos_token_id"]) == (words.bos_id, words.eos_id)
    origin = Origin.read(out)
    assert origin is not None and len(origin.sha256) == 64
    assert (origin.base_model, origin.license, origin.source, origin.weights) == ("Us/Tiny", "mit", "a.gguf", "F32")
    assert list((tmp_path / "models").iterdir()) == [out]


def test_weights_that_bfloat16_holds_stay_bfloat16(tmp_path: Path, make_decoder: Make, words: Tokenizer) -> None:
    decoder = make_decoder(0, vocab_size=words.vocab_size)
    out = import_gguf(write(tmp_path / "a.gguf", decoder, words, "bf16"), tmp_path / "a")
    loaded = pretrained.load_decoder(out)
    assert loaded.origin is not None and loaded.origin["dtype"] == "bfloat16"
    for ours, theirs in zip(loaded.parameters(), decoder.parameters()):
        assert torch.equal(ours, theirs.bfloat16().float())


def test_nothing_is_left_of_a_torn_or_foreign_file(tmp_path: Path, make_decoder: Make, words: Tokenizer) -> None:
    decoder = make_decoder(0, vocab_size=words.vocab_size)
    whole = write(tmp_path / "a.gguf", decoder, words).read_bytes()
    (tmp_path / "torn.gguf").write_bytes(whole[:-200])
    (tmp_path / "text.gguf").write_bytes(b"a text")
    cases = {"torn": "is not a whole GGUF file", "text": "is not a GGUF file"}
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            import_gguf(tmp_path / f"{name}.gguf", tmp_path / "out" / name)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_more_tokens_than_embeddings_are_refused(tmp_path: Path, make_decoder: Make, words: Tokenizer) -> None:
    decoder = make_decoder(0, vocab_size=words.vocab_size - 5)
    write(tmp_path / "a.gguf", decoder, words, rows=words.vocab_size)
    with pytest.raises(InputError, match=f"has {words.vocab_size} tokens and {words.vocab_size - 5} embeddings"):
        import_gguf(tmp_path / "a.gguf", tmp_path / "out" / "a")
    assert not list((tmp_path / "out").iterdir())
