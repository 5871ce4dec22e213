import html
import json
import re
import shutil
from pathlib import Path

from amenable.claims.stage_folders import read_stages
from amenable.recipes.reports import curves
from amenable.recipes.reports.report_data import collect


def data_of(chart: str) -> dict:
    result = re.search(r'data-chart="([^"]*)"', chart)
    assert result is not None
    return json.loads(html.unescape(result.group(1)))


def panels(run: Path, over: list[dict] | None = None) -> dict[str, curves.Panel]:
    stages = read_stages(run)
    return {panel.title: panel for panel in curves.panels(stages, collect(stages, over=over or []))}


def over_rows(run: str) -> list[dict]:
    return [
        {
            "run": run,
            "step": s,
            "kl": s / 5,
            "proxy": s / 4,
            "gold": s * (9 - s),
            "gold_low": s * (9 - s) - 1,
            "gold_high": 20,
        }
        for s in range(6)
    ]


def test_every_command_with_curves_has_a_panel(demo_run: Path) -> None:
    result = panels(demo_run)
    assert list(result) == ["Pretraining", "Fine-tuning", "Reward model", "PPO", "DPO"]
    assert [panel.keys for panel in result.values()] == [[]] * 5
    sft = data_of(result["Fine-tuning"].charts[0])
    assert [one["name"] for one in sft["series"]] == ["held out", "training"]


def test_several_runs_of_a_command_share_their_charts(demo_run: Path) -> None:
    shutil.copytree(demo_run / "sft", demo_run / "sft-16")
    result = panels(demo_run)["Fine-tuning"]
    assert [name for name, _ in result.keys] == ["SFT", "SFT, 16 epochs"]
    assert len(result.charts) == 2, "one for the held-out loss, one for that in training"
    assert [one["name"] for one in data_of(result.charts[0])["series"]] == ["SFT", "SFT, 16 epochs"]
    assert all('class="key' not in chart for chart in result.charts), "their names stand above, once"


def test_gold_along_the_way_stands_beside_the_score(demo_run: Path) -> None:
    chart = data_of(panels(demo_run, over_rows("ppo"))["PPO"].charts[1])
    assert chart["series"][0]["points"] == [[s, s * (9 - s)] for s in range(6)]
    assert "Gold" not in "".join(panels(demo_run)["PPO"].charts), "where it was not worked out there is no chart"


def test_reward_and_gold_against_kl(demo_run: Path) -> None:
    figures = collect(read_stages(demo_run), over=over_rows("over"))
    paid, meant = map(data_of, curves.over_optimisation(figures))
    assert [one["name"] for one in meant["series"]] == ["over", "best of n, SFT"]
    assert paid["x"] == "KL" and paid["series"][0]["points"][2] == [0.4, 0.5]
    assert meant["series"][0]["points"][2] == [0.4, 14]
    assert [x for x, _ in meant["series"][1]["points"]] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert curves.over_optimisation({"over_optimisation": [], "best_of": {}}) == []


def test_a_band_has_the_rows_with_an_interval() -> None:
    rows = [{"kl": 1.0, "gold": 2.0, "gold_low": 1.5, "gold_high": 2.5}, {"kl": 2.0, "gold": 3.0}]
    series = curves.measured_series("x", rows, "kl", "gold", 3)
    assert series.points == [(1.0, 2.0), (2.0, 3.0)] and series.band == [(1.0, 1.5, 2.5)] and series.colour == 3
    assert curves.measured_series("x", rows, "kl", "gold", 3, with_band=False).band == ()


def test_sources_of_a_mixture_have_curves_of_their_own(demo_run: Path) -> None:
    file = demo_run / "sft" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for row in rows:
        row |= {"loss/books": row.get("loss", 1.0) + 1} if "loss" in row else {}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    chart = data_of(panels(demo_run)["Fine-tuning"].charts[0])
    assert [series["name"] for series in chart["series"]] == ["held out", "training", "training, books"]
