"""The whole method at its smallest: every stage runs, a report comes out, and running it again does nothing anew."""

import json
from pathlib import Path

from amenable.recipes import demo


def test_the_demo_from_end_to_end_and_again(tmp_path: Path) -> None:
    config = demo.Config(out=tmp_path / "demo", size="smoke", claims=("b",))
    demo.run(config)
    report = json.loads((config.out / "report.json").read_text())
    assert report["schema"] == 1
    assert set(report["models"]) == {"base", "prompted", "sft", "sharpened", "ppo"}
    verdicts = {row["id"]: row["verdict"] for row in report["claims"]}
    assert verdicts["b"] != "not measured" and verdicts["a"] == "not measured" and len(verdicts) == 15
    for model in report["models"].values():
        assert -5 < model["gold"] < 2.5 and model["bpb"] > 0 and 0 <= model["ended"] <= 1
        assert "gold" in model["greedy"]
    assert {(row["a"], row["b"]) for row in report["preference"]} >= {("sft", "ppo"), ("base", "sft")}
    assert 0 <= report["reward_model"]["accuracy_heldout_annotators"] <= 1
    page = (config.out / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")
    times = {path: path.stat().st_mtime_ns for path in config.out.rglob("*.safetensors")}
    demo.run(config)
    assert times == {path: path.stat().st_mtime_ns for path in config.out.rglob("*.safetensors")}
