"""Every stage declares how it is told in reports."""

import importlib

import pytest

from amenable import cli
from amenable.train.stage_report import SCORE_AND_KL, StageReport, online_report


@pytest.mark.parametrize("command", [cli.command_of(file) for file in cli.command_files()["stages"]])
def test_every_stage_has_a_title_and_a_sentence(command: str) -> None:
    report = importlib.import_module(f"amenable.stages.{command.replace('-', '_')}").REPORT
    assert isinstance(report, StageReport) and report.title and report.summary.endswith(".")
    assert all(lines for _, lines in report.curves)


def test_online_algorithms_share_their_charts() -> None:
    report = online_report("X", "It learns.")
    assert report.curves == SCORE_AND_KL and report.spark == "objective/scores"
