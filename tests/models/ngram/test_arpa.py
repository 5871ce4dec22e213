"""ARPA files: out and in again, as KenLM reads them, and those that are none."""

import math

import numpy as np
import pytest
import torch

from amenable.errors import InputError
from amenable.models.layout import Layout
from amenable.models.ngram.arpa import read_arpa, read_words, write_arpa
from amenable.models.ngram.estimate import estimate
from amenable.models.ngram.model import NGramModel

NAMES = ["<s>", "</s>", *"abcdefghij", "<unk>", "never"]
IDS = {name: token for token, name in enumerate(NAMES)}
SMALL = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99 <s> -0.5
-0.3 </s>
-0.6 a -0.2
-1 <unk>

\\2-grams:
-0.1 <s> a
-0.25 a </s>

\\end\\
"""


@pytest.mark.parametrize("name", ["mle", "katz", "stupid-backoff", "modified-kneser-ney"])
def test_a_file_is_read_as_it_was_written(name, counted, tmp_path):
    tables, _ = estimate(counted[5], name)
    write_arpa(tmp_path / "a.arpa", tables, NAMES)
    stored = read_arpa(tmp_path / "a.arpa", IDS, 14)
    assert sorted(read_words(tmp_path / "a.arpa")) == sorted(NAMES)
    for ours, theirs in zip([*stored.keys, *stored.logprobs], [*tables.keys, *tables.logprobs]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    states = torch.tensor([[2, *[-1] * 3], [0, *[-2] * 3]])
    torch.testing.assert_close(NGramModel(stored).logits(states), NGramModel(tables).logits(states))


def test_kenlm_scores_our_file_as_we_do(documents, counted, tmp_path):
    """All tokens of sentences of the text and of new ones, with unknown words, to 1e-5 in log10."""
    kenlm = pytest.importorskip("kenlm", reason="pip install kenlm (it is built from source)")
    for name in ("katz", "stupid-backoff", "kneser-ney", "modified-kneser-ney"):
        tables, _ = estimate(counted[5], name)
        write_arpa(tmp_path / "a.arpa", tables, NAMES)
        theirs, ours = kenlm.Model(str(tmp_path / "a.arpa")), NGramModel(tables)
        rows = [*documents[:20], [0, 2, 12, 3, 4, 12, 1], [0, 11, 11, 11, 11, 11, 11, 1]]
        for row in rows:
            ids = torch.tensor(row)
            logps, _ = ours.logprobs(ours(ids, Layout.of([len(row)]))[:-1], ids[1:])
            scores = [score for score, _, _ in theirs.full_scores(" ".join(NAMES[token] for token in row[1:-1]))]
            np.testing.assert_allclose(logps.numpy() / math.log(10), scores, rtol=0, atol=1e-5)


def test_numbers_of_a_file_by_hand(tmp_path):
    """a after </s>, which no 2-gram begins with: 10^-0.6; </s> after <s>: 10^-(0.5 + 0.3); <s> never."""
    (tmp_path / "a.arpa").write_text(SMALL)
    words = read_words(tmp_path / "a.arpa")
    assert words == ["<s>", "</s>", "a", "<unk>"]
    model = NGramModel(read_arpa(tmp_path / "a.arpa", {word: i for i, word in enumerate(words)}, 4))
    logits = model.logits(torch.tensor([[0], [1], [2]])) / math.log(10)
    expected = [[-math.inf, -0.8, -0.1, -1.5], [-math.inf, -0.3, -0.6, -1], [-math.inf, -0.25, -0.8, -1.2]]
    torch.testing.assert_close(logits, torch.tensor(expected))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\end\\", "", "it has no"),
        ("ngram 2=2", "ngram 2=3", "says 3 n-grams of order 2 and has 2"),
        ("-0.25 a </s>", "-0.25 a", "no n-gram of order 2"),
        ("-0.25 a </s>", "x a </s>", "no n-gram of order 2"),
        ("-0.25 a </s>", "nan a </s>", "no n-gram of order 2"),
        ("-0.25 a </s>", "-0.25 <s> a", "is there twice"),
        ("-0.25 a </s>", "-0.25 a b", "no token 'b'"),
        ("\\1-grams:", "\\3-grams:", "no n-gram of order 3"),
    ],
)
def test_what_is_no_arpa_file_is_one_line(old, new, message, tmp_path):
    (tmp_path / "a.arpa").write_text(SMALL.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_arpa(tmp_path / "a.arpa", {"<s>": 0, "</s>": 1, "a": 2, "<unk>": 3}, 4)


def test_a_context_that_is_missing_is_named(tmp_path):
    lines = "ngram 3=1", "\\3-grams:\n-0.1 a a </s>\n\n\\end\\"
    text = SMALL.replace("ngram 2=2\n", f"ngram 2=2\n{lines[0]}\n").replace("\\end\\", lines[1])
    (tmp_path / "a.arpa").write_text(text)
    with pytest.raises(InputError, match="the context of 'a a </s>' is not among"):
        read_arpa(tmp_path / "a.arpa", {"<s>": 0, "</s>": 1, "a": 2, "<unk>": 3}, 4)


@pytest.mark.parametrize("names", [[*NAMES[:-1], "two words"], [*NAMES[:-1], "a"], [*NAMES[:-1], ""]])
def test_names_that_the_format_cannot_hold_are_refused(names, counted, tmp_path):
    with pytest.raises(InputError, match="cannot hold the token"):
        write_arpa(tmp_path / "a.arpa", estimate(counted[2], "katz")[0], names)


def test_add_k_is_refused(counted, tmp_path):
    with pytest.raises(InputError, match="add-k does not back off"):
        write_arpa(tmp_path / "a.arpa", estimate(counted[2], "add-k")[0], NAMES)
