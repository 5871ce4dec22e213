"""Folders of n-gram models."""

import json

import numpy as np
import pytest

from amenable.errors import InputError
from amenable.models import pretrained
from amenable.models.ngram import tables as table_files
from amenable.models.ngram.estimate import estimate


@pytest.fixture
def folder(counted, tmp_path):
    table_files.save(tmp_path, estimate(counted[13], "kneser-ney")[0], {"smoothing": "kneser-ney"})
    return tmp_path


def test_a_folder_is_read_as_it_was_written(folder, counted):
    tables, stored = estimate(counted[13], "kneser-ney")[0], table_files.load(folder)
    assert table_files.is_ngram(folder) and stored.order == 13
    assert table_files.count_ngrams(folder) == sum(tables.sizes)
    for ours, theirs in zip([*stored.keys, *stored.logprobs], [*tables.keys, *tables.logprobs]):
        np.testing.assert_array_equal(ours, theirs)


def test_a_torn_file_is_one_line(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="not a whole n-gram model"):
        table_files.load(folder)


def test_tables_of_another_model_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 15}))
    with pytest.raises(InputError, match="different lengths"):
        table_files.load(folder)


def test_a_transformer_is_not_read_from_it(folder):
    assert pretrained.read_context(folder) == table_files.CONTEXT
    for read in (pretrained.load_decoder, pretrained.read_config):
        with pytest.raises(InputError, match="n-gram model, which is counted, not trained"):
            read(folder)


def test_other_folders_hold_no_ngrams(tmp_path):
    assert not table_files.is_ngram(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert not table_files.is_ngram(tmp_path)
