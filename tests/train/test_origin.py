"""Where a model's weights are from."""

import json
from pathlib import Path

import pytest

from amenable.train.origin import Origin, bits_of

WHOLE = Origin("owner/name", "apache-2.0", "a.gguf", "ab12", "Q4_1")


def test_it_is_written_and_read(tmp_path: Path) -> None:
    assert Origin.read(tmp_path) is None
    WHOLE.write(tmp_path)
    assert Origin.read(tmp_path) == WHOLE


def test_an_adapter_has_that_of_its_base(tmp_path: Path) -> None:
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
    WHOLE.write(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text("{}")
    fields = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(fields))
    assert Origin.read(tmp_path / "adapter") == WHOLE


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_what_is_no_origin_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text(content)
    assert Origin.read(tmp_path) is None


def test_quantised_weights_are_remarked() -> None:
    assert "about 4 bits (Q4_1)" in WHOLE.remark()
    assert [bits_of(kind) for kind in ("Q4_1", "Q6_K", "Q8_0", "IQ4_XS", "TQ2_0", "MXFP4")] == [4, 6, 8, 4, 2, 4]
    assert [bits_of(kind) for kind in ("F16", "BF16", "F32", "")] == [0, 0, 0, 0]
    assert Origin(weights="BF16").remark() == "" == Origin().remark()
