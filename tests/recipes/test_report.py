import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from amenable.claims.stage_folders import read_stages
from amenable.cli import from_yaml
from amenable.errors import InputError
from amenable.recipes import report
from amenable.recipes.reports.report_data import collect


def test_the_report_is_written_and_told(demo_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.run(report.Config(run=demo_run)) == demo_run
    figures = json.loads((demo_run / "report.json").read_text("utf-8"))
    assert figures["models"] == collect(read_stages(demo_run))["models"]
    assert figures["claims"] == report.claims.decide([demo_run]) and len(figures["claims"]) > 0
    html = (demo_run / "report.html").read_text("utf-8")
    assert html.lstrip().startswith("<!doctype html>") and html.rstrip().endswith("</html>")
    reported = capsys.readouterr().out
    assert "PPO preferred to SFT, sampled: 62% (58–66%, 24 prompts, judges: heldout)" in reported
    assert f"report: {demo_run / 'report.html'}" in reported


def test_the_same_run_gives_the_same_report(demo_run: Path) -> None:
    report.run(report.Config(run=demo_run))
    first = [(demo_run / name).read_bytes() for name in ("report.json", "report.html")]
    report.run(report.Config(run=demo_run))
    assert first == [(demo_run / name).read_bytes() for name in ("report.json", "report.html")]


def test_it_is_renewed_only_where_what_it_is_made_from_has_changed(
    demo_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def times() -> list[int]:
        return [(demo_run / name).stat().st_mtime_ns for name in ("report.json", "report.html")]

    assert report.renew(demo_run) == demo_run
    reported, before = capsys.readouterr().out, times()
    assert "PPO preferred to SFT" in reported
    report.renew(demo_run)
    assert capsys.readouterr().out == reported and times() == before
    finished = demo_run / "ppo" / "finished.json"
    finished.write_text(finished.read_text("utf-8").replace("95.0", "94.0"))
    report.renew(demo_run)
    assert all(now > then for now, then in zip(times(), before))
    (demo_run / "report.html").unlink()
    report.renew(demo_run)
    assert (demo_run / "report.html").exists()
    (demo_run / "evaluate" / "finished.json").unlink()
    capsys.readouterr()
    report.renew(demo_run)
    assert "Not done yet: evaluate." in capsys.readouterr().out


def test_the_table_has_both_decodings(demo_run: Path) -> None:
    reply = io.StringIO()
    report.print_report(collect(read_stages(demo_run)), demo_run / "report.html", Console(file=reply))
    rows = [line.split() for line in reply.getvalue().splitlines()]
    ppo = [row for row in rows if row[:1] == ["PPO"] and row[2:3] == ["±0.12"]]
    assert ppo == [
        ["PPO", "0.57", "±0.12", "66%", "36%", "0%", "2%", "71%", "18.0", "0.420", "0.90", "0.28"],
        ["PPO", "1.18", "±0.12", "66%", "36%", "0%", "2%", "71%", "18.0", "0.420", "0.90", "0.59"],
    ]


def full_run(root: Path, demo: Path) -> Path:
    for seed in range(3):
        shutil.copytree(demo, root / f"seed-{seed}")
    return root


def test_a_full_run_has_a_report_a_seed_and_one_over_all(
    demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = full_run(tmp_path / "full", demo_run)
    judged: list[list[str]] = []
    monkeypatch.setattr(report.claims, "decide", lambda runs: judged.append([run.name for run in runs]) or [])
    assert report.run(report.Config(run=root)) == root
    assert judged == [["seed-0"], ["seed-1"], ["seed-2"], ["seed-0", "seed-1", "seed-2"]]
    assert all((root / f"seed-{seed}" / "report.html").is_file() for seed in range(3))
    figures = json.loads((root / "report.json").read_text("utf-8"))
    assert figures["seeds"] == [{"name": f"seed-{seed}", "finished": True} for seed in range(3)]
    assert figures["models"] == json.loads((root / "seed-0" / "report.json").read_text("utf-8"))["models"]
    html = (root / "report.html").read_text("utf-8")
    assert 'href="seed-2/report.html"' in html and "judged over all of them" in html


def test_claims_are_judged_over_the_seeds_that_are_finished(
    demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = full_run(tmp_path / "full", demo_run)
    (root / "seed-0" / "evaluate" / "finished.json").unlink()
    shutil.rmtree(root / "seed-2")
    (root / "seed-2").mkdir()
    judged: list[list[str]] = []
    monkeypatch.setattr(report.claims, "decide", lambda runs: judged.append([run.name for run in runs]) or [])
    report.run(report.Config(run=root))
    assert judged[-1] == ["seed-1"]
    figures = json.loads((root / "report.json").read_text("utf-8"))
    assert figures["seeds"] == [{"name": "seed-0", "finished": False}, {"name": "seed-1", "finished": True}]
    html = (root / "report.html").read_text("utf-8")
    assert "judged over the one that is finished; the rest of this page shows seed-1" in html


def test_an_unfinished_run_says_so(demo_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (demo_run / "evaluate").rename(demo_run.parent / "evaluate")
    report.run(report.Config(run=demo_run))
    assert "Not done yet: evaluate." in capsys.readouterr().out
    assert json.loads((demo_run / "report.json").read_text("utf-8"))["models"] == {}


def test_a_world_that_cannot_be_read_leaves_the_rest_of_the_report(
    demo_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (demo_run / "world" / "world.json").write_text("{")
    report.run(report.Config(run=demo_run))
    figures = json.loads((demo_run / "report.json").read_text("utf-8"))
    assert str(demo_run / "world") in figures["unjudged"] and figures["claims"] == []
    assert figures["models"]["ppo"]["gold"] == 0.57
    assert "The claims could not be judged" in capsys.readouterr().out


def test_a_folder_that_is_no_demo_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no stage"):
        report.run(report.Config(run=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_options_come_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: runs/mine\n")
    assert from_yaml(report.Config, tmp_path / "config.yaml") == report.Config(run=Path("runs/mine"))
