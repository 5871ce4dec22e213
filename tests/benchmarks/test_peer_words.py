"""Ids as text come back as the ids they were, whatever trainers do to the text."""

from benchmarks.peer_words import text, words


def test_ids_survive_being_text() -> None:
    """Digits of EOS (0) and PAD (1) stand in many numbers; a trainer appends EOS without a space."""
    tokenizer = words(320, eos=0, pad=1)
    ids = list(range(2, 320))
    assert tokenizer(text(ids))["input_ids"] == ids
    assert tokenizer(text(ids[:5]) + " " + text(ids[5:]) + tokenizer.eos_token)["input_ids"] == [*ids, 0]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1)
