"""Model cards: what a run's README.md says, and that one's own is never overwritten."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from amenable.stages import reward, sft
from amenable.train import model_card
from amenable.train.model_card import MARK, gguf_card, is_own_card, origin_of, write_card
from amenable.train.origin import Origin

ORIGIN = Origin("owner/name", "apache-2.0", "a.gguf of the package p 1.0", "ab", "Q4_1")


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_run_writes_its_card(assistant: Path, base: Path, sft_config: sft.Config) -> None:
    text = (assistant / "README.md").read_text("utf-8")
    assert front_matter(text) == {"library_name": "transformers", "tags": ["amenable", "sft", "language-model"]}
    for line in (
        "A language model by `amenable sft`. It imitates demonstrations.",
        f"- model: `{base}`",
        f"- data: `{sft_config.data}`",
        "amenable sft --config config.yaml --out NEW",
        "36 steps. Options that are not the defaults:",
        "- `optimizer.learning_rate`: 0.01",
        f"From `{base}`.",
        "amenable chat --model FOLDER",
    ):
        assert line in text.splitlines(), line
    assert "device." not in text and "`out`" not in text and "`model`: " not in text
    assert not (assistant / "origin.json").exists()
    assert "README.md" in (assistant / "manifest.json").read_text()


def test_a_model_from_nothing_and_a_reward_model(base: Path, judge: Path) -> None:
    assert "Drawn at random, and trained here." in (base / "README.md").read_text("utf-8")
    text = (judge / "README.md").read_text("utf-8")
    assert front_matter(text)["tags"] == ["amenable", "reward", "reward-model"]
    assert "AutoModelForSequenceClassification" in text and "amenable ppo --model POLICY --reward FOLDER" in text


def test_a_run_without_a_model_has_none(tokenizer_folder: Path) -> None:
    assert not (tokenizer_folder / "README.md").exists()


def test_an_origin_goes_from_run_to_run(assistant: Path, sft_config: sft.Config, tmp_path: Path) -> None:
    fetched, tuned, judge = tmp_path / "fetched", tmp_path / "tuned", tmp_path / "judge"
    for folder in (fetched, tuned, judge):
        shutil.copytree(assistant, folder)
    ORIGIN.write(fetched)
    write_card(tuned, "sft", sft_config, {"model": fetched}, 3, {})
    config = reward.Config(model=tuned)
    write_card(judge, "reward", config, {"data": tmp_path / "x", "model": tuned}, 3, {"accuracy": 0.75, "name": "x"})
    assert Origin.read(judge) == ORIGIN
    text = (judge / "README.md").read_text("utf-8")
    assert front_matter(text)["base_model"] == "owner/name" and front_matter(text)["license"] == "apache-2.0"
    assert "- accuracy: 0.75" in text and "- name" not in text
    assert "From owner/name (a.gguf of the package p 1.0); its weights were rounded to about 4 bits (Q4_1)" in text


def test_ones_own_card_stays(assistant: Path, sft_config: sft.Config, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(assistant, folder)
    assert not is_own_card(folder)
    write_card(folder, "sft", replace(sft_config, epochs=9), {}, 3, {})
    assert "- `epochs`: 9" in (folder / "README.md").read_text("utf-8")
    (folder / "README.md").write_text("mine")
    write_card(folder, "sft", sft_config, {}, 3, {})
    assert is_own_card(folder) and (folder / "README.md").read_text("utf-8") == "mine"


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# A model\n", "mit"),
        ("---\ntags: [a]\n---\n", ""),
        ("---\n{\n---\n", ""),
        ("---\n- a\n---\n", ""),
        ("---\n", ""),
        ("# A model\n", ""),
    ],
)
def test_a_published_folders_licence_is_read_off_its_readme(text: str, license: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert origin_of(tmp_path) == Origin(license=license)
    ORIGIN.write(tmp_path)
    assert origin_of(tmp_path) == ORIGIN


def test_options_of_groups_are_shown_by_their_dotted_names() -> None:
    values = {"a": 1, "group": {"b": 2, "c": [1, 2]}, "new": None}
    assert model_card.changes(values, {"a": 1, "group": {"b": 3, "c": []}}) == {"group.b": 2, "group.c": "1 2"}


def test_the_card_beside_a_gguf_file() -> None:
    text = gguf_card("sft", "sft-q8_0.gguf", "q8_0", ORIGIN)
    assert front_matter(text) == {
        "base_model": "owner/name",
        "license": "apache-2.0",
        "library_name": "gguf",
        "tags": ["amenable", "gguf"],
    }
    assert MARK in text and "llama-cli -m sft-q8_0.gguf" in text and "Matrices are q8_0" in text
    assert "Matrices" not in gguf_card("sft", "sft-f16.gguf", "f16", Origin())
