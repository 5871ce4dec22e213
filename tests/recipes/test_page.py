import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from amenable.recipes.figures import figures_of
from amenable.recipes.folders import read_stages
from amenable.recipes.page import render

VOID = {"meta", "link", "input"}
SCRIPT = "<script>alert('a model said this')</script>"


class Reader(HTMLParser):
    """Checks that every tag is closed in its place, and collects what a reader and a browser would meet."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts, self.ids = 0, set[str]()
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        self.scripts += tag == "script"
        self.ids |= {value for key, value in attributes if key == "id" and value}
        self.links += [value for key, value in told.items() if key in ("href", "src", "action", "srcset") and value]
        assert not [key for key in told if key.startswith("on")], "no script in attributes"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)


def page_of(run: Path) -> tuple[str, Reader]:
    stages = read_stages(run)
    html = render(figures_of(stages), stages, run)
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return html, reader


def test_the_page_is_whole_and_stands_alone(demo_run: Path) -> None:
    html, reader = page_of(demo_run)
    assert all(link == "data:," or link.startswith("#") for link in reader.links), reader.links
    assert {link[1:] for link in reader.links if link.startswith("#")} <= reader.ids
    assert not re.search(r"https?://|url\(|@import|//[a-z]+\.[a-z]", html)
    assert len(html.encode()) < 5_000_000


def test_what_models_and_users_wrote_is_escaped(demo_run: Path) -> None:
    for path in (demo_run / "ppo" / "samples.jsonl", demo_run / "evaluate" / "samples.jsonl"):
        path.write_text(
            path.read_text().replace("Name 2 foods", "<img src=x onerror=alert(1)>").replace("story", "<u>")
        )
    html, reader = page_of(demo_run)
    assert reader.scripts == 1, "the page's own script alone"
    assert SCRIPT not in html and SCRIPT in "".join(reader.text)
    assert "<img" not in html and "<u>" not in html


def test_every_part_of_a_finished_run_is_shown(demo_run: Path) -> None:
    _, reader = page_of(demo_run)
    ids = {"steps", "models", "preference", "kinds", "reward", "curves", "answers", "ppo"}
    assert reader.ids == ids
    text = " ".join(reader.text)
    for told in (
        f"amenable ppo --config {demo_run}/ppo/config.yaml",
        "PPO preferred to SFT, greedy",
        "reads world/text/train.jsonl",
        "Explained variance of the critic",
        "Margin of the implicit reward",
        "from a run with seed 3",
        "torch 2.13.0",
        "Not done",
    ):
        assert (told in text) == (told != "Not done"), told


def test_six_prompts_are_open_and_the_last_decoding_waits(demo_run: Path) -> None:
    html, _ = page_of(demo_run)
    cards = re.findall(r'<article class="card"[^>]*>', html)
    assert len(cards) == 24 and sum(" hidden" not in card for card in cards) == 6
    assert html.count('data-decoding="sampled" hidden') == 24


@pytest.mark.parametrize("kept", [("world",), ("world", "tokenizer", "pretrain"), ("evaluate",), ("reward", "ppo")])
def test_an_unfinished_run_shows_what_there_is(demo_run: Path, kept: tuple[str, ...]) -> None:
    for folder in demo_run.iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)
    (demo_run / kept[-1] / "finished.json").unlink()
    _, reader = page_of(demo_run)
    text = "".join(reader.text)
    assert f"Not done yet: {kept[-1]}" in text and "not finished" in text
    assert ("models" in reader.ids) == ("evaluate" in kept)
    assert ("curves" in reader.ids) == bool({"pretrain", "ppo"} & set(kept))


def test_a_run_without_a_world_is_not_called_unfinished(demo_run: Path) -> None:
    for name in ("world", "sample", "annotate"):
        shutil.rmtree(demo_run / name)
    _, reader = page_of(demo_run)
    text = "".join(reader.text)
    assert "Not in this folder: world, sample, annotate." in text
    assert "Not done yet" not in text and "In 7 stages" in text
    assert "Held-out comparisons" in text, "no annotators are known by name"
