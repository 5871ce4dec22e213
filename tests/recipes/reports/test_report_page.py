import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from amenable.claims.stage_folders import ORDER, read_stages
from amenable.recipes.reports import inspector
from amenable.recipes.reports.report_data import collect
from amenable.recipes.reports.report_page import render

VOID = {"meta", "link", "input", "br"}
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
        report = dict(attributes)
        self.scripts += tag == "script"
        self.ids |= {value for key, value in attributes if key == "id" and value}
        self.links += [value for key, value in report.items() if key in ("href", "src", "action", "srcset") and value]
        assert not [key for key in report if key.startswith("on")], "no script in attributes"
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


def answers_of(html: str) -> dict:
    result = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert result is not None
    return json.loads(result.group(1))


def page_of(run: Path, claims: list[dict] | None = None) -> tuple[str, Reader]:
    stages = read_stages(run)
    over = [
        {"run": "ppo", "step": i, "kl": i / 2, "proxy": i, "gold": i, "gold_low": 0, "gold_high": i} for i in range(4)
    ]
    html = render(collect(stages, claims or [], over if claims else []), stages, run)
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return html, reader


def test_the_page_is_whole_and_stands_alone(demo_run: Path) -> None:
    html, reader = page_of(demo_run)
    assert all(link == "data:," or link.startswith("#") for link in reader.links), reader.links
    assert {link[1:] for link in reader.links if link.startswith("#")} <= reader.ids
    assert not re.search(r"https?://|url\((?!#)|@import|//[a-z]+\.[a-z]", html)
    assert len(html.encode()) < 5_000_000


def test_what_models_and_users_wrote_is_escaped(demo_run: Path) -> None:
    for path in (demo_run / "ppo" / "samples.jsonl", demo_run / "evaluate" / "samples.jsonl"):
        path.write_text(
            path.read_text().replace("Name 2 foods", "<img src=x onerror=alert(1)>").replace("story", "<u>")
        )
    html, reader = page_of(demo_run)
    assert reader.scripts == 2, "the page's own script and the answers as data"
    assert SCRIPT not in html and SCRIPT in str(answers_of(html))
    assert "<img" not in html and "<u>" not in html


def test_every_part_of_a_finished_run_is_shown(demo_run: Path, claims: list[dict]) -> None:
    _, reader = page_of(demo_run, claims)
    ids = {"claims", "steps", "models", "preference", "kinds", "suites", "over", "reward", "curves", "answers", "ppo"}
    assert reader.ids == ids | {"head"} | {f"stage-{name}" for name in ORDER}
    text = " ".join(reader.text)
    for report in (
        f"amenable ppo --config {demo_run}/ppo/config.yaml",
        "PPO preferred to SFT, greedy",
        "reads world/text/train.jsonl",
        "Explained variance of the critic",
        "Margin of the implicit reward",
        "from a run with seed 3",
        "torch 2.13.0",
        "Not done",
    ):
        assert (report in text) == (report != "Not done"), report


def test_the_claims_come_first(demo_run: Path, claims: list[dict]) -> None:
    html, reader = page_of(demo_run, claims)
    assert html.index('id="claims"') < html.index('id="steps"') < html.index('id="answers"')
    text = " ".join(" ".join(reader.text).split())
    assert "✓ holds" in text and "✗ does not hold" in text and "≈ undecided" in text and "– not measured" in text
    assert "<b>too few" not in html and "<b>too few prompts</b>" in text, "a note is text"
    assert "amenable demo --full" in text and "all 2 measurements" in text
    assert html.count('class="axis"') == 3 + 2, "a claim each that was measured, and both parts of the first"


def test_every_stage_is_a_box_that_opens(demo_run: Path) -> None:
    html, _ = page_of(demo_run)
    for name in ORDER:
        assert html.count(f'class="box done" popovertarget="stage-{name}"') == 1
        assert f'popover id="stage-{name}"' in html


def test_the_answers_are_data_with_models_by_name(demo_run: Path) -> None:
    html, reader = page_of(demo_run)
    data = answers_of(html)
    assert [model["name"] for model in data["models"]] == ["base", "SFT", "DPO", "PPO"]
    assert all(model["shown"] for model in data["models"]) and len(data["prompts"]) == 24
    assert len({model["colour"] for model in data["models"]}) == 4
    assert "PPO: made up" in "".join(reader.text) and '<option value="3" selected>PPO' in html


def test_of_many_models_a_few_are_shown_at_first(demo_run: Path) -> None:
    path = demo_run / "evaluate" / "evaluation.json"
    report = json.loads(path.read_text())
    report["models"] |= {f"mine-{i}": report["models"]["sft"] for i in range(4)}
    path.write_text(json.dumps(report))
    rows = [json.loads(line) for line in (demo_run / "evaluate" / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        row["answers"] |= {f"mine-{i}": row["answers"]["sft"] for i in range(4)}
    (demo_run / "evaluate" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    html, _ = page_of(demo_run)
    assert [model["name"] for model in answers_of(html)["models"] if model["shown"]] == ["base", "SFT", "DPO", "PPO"]
    assert 'class="grid one"' in html and "mine-3" in html


def test_a_run_of_ppo_that_kept_traces_is_shown_by_token(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'id="tokens"' not in page_of(demo_run)[0]
    monkeypatch.setattr(inspector, "part", lambda rows: Markup(f"<p>{len(rows)} traces</p>"))
    (demo_run / "ppo" / "traces.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    html, reader = page_of(demo_run)
    assert "tokens" in reader.ids and "<p>2 traces</p>" in html
    assert f"amenable inspect {demo_run}/ppo" in html


@pytest.mark.parametrize("stored", [("world",), ("world", "tokenizer", "pretrain"), ("evaluate",), ("reward", "ppo")])
def test_an_unfinished_run_shows_what_there_is(demo_run: Path, stored: tuple[str, ...]) -> None:
    for folder in demo_run.iterdir():
        if folder.name not in stored:
            shutil.rmtree(folder)
    (demo_run / stored[-1] / "finished.json").unlink()
    _, reader = page_of(demo_run)
    text = "".join(reader.text)
    assert f"Not done yet: {stored[-1]}" in text and "not finished" in text
    assert ("models" in reader.ids) == ("evaluate" in stored)
    assert ("curves" in reader.ids) == bool({"pretrain", "ppo"} & set(stored))


def test_a_run_without_a_world_is_not_called_unfinished(demo_run: Path) -> None:
    for name in ("world", "sample", "annotate"):
        shutil.rmtree(demo_run / name)
    _, reader = page_of(demo_run)
    text = "".join(reader.text)
    assert "Not in this folder: world, sample, annotate." in text
    assert "Not done yet" not in text and "In 7 stages" in text
    assert "Held-out comparisons" in text, "no annotators are known by name"
