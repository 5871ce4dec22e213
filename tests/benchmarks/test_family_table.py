"""The table of families: measured on random models, and kept in docs/families.md."""

from pathlib import Path

import pytest

from amenable.models.family import model_types
from benchmarks import family_table

PAGE = Path(family_table.__file__).parents[1] / "docs" / "families.md"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_family_is_measured(tmp_path: Path) -> None:
    (tmp_path / "qwen2_5.jinja").write_text(CHATML.replace("\\\n", "\n"))
    row = dict(zip(family_table.COLUMNS, family_table.measure("qwen2", tmp_path)))
    assert float(row["logits in"]) < 1e-4 and float(row["reward"]) < 1e-4 and float(row["adapter"]) < 1e-4
    assert (row["text"], row["template"], row["mask"], row["GGUF"]) == ("equal", "equal", "equal", "qwen2")
    assert row["tools"] == row["thinking"] == ""


def test_a_template_that_writes_after_the_last_turn_is_not_equal(tmp_path: Path) -> None:
    (tmp_path / "more.jinja").write_text(CHATML + "and more")
    assert family_table.template(tmp_path / "more.jinja", tmp_path / "tokenizers") == {"template": False, "mask": True}


def test_what_is_trained_is_compared_with_what_the_assistant_says() -> None:
    messages = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]
    assert family_table.is_generated(["a", ""], messages)
    assert not any(
        family_table.is_generated(texts, messages) for texts in (["a"], ["b", ""], ["a", "b", ""], ["a", "b"])
    )
    thought = [{"role": "assistant", "content": "a", "reasoning_content": "c"}]
    assert family_table.is_generated(["<think>\nc\n</think>\n\na", ""], thought)
    assert not family_table.is_generated(["a", ""], thought)


def test_the_page_has_every_family_near_transformers() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == list(model_types())
    assert all(float(cell) <= 1e-4 for row in rows for cell in (row[1], row[2], row[4], row[5]))


def test_a_folder_without_templates_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert family_table.main(["--templates", str(tmp_path)]) == 2 and "no templates" in capsys.readouterr().err
