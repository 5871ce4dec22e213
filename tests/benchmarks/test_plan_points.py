"""Plans beside measured figures: memory within 15 %, training on data-centre GPUs within 20 %."""

import pytest

from amenable.models.decoder import Decoder
from benchmarks import plan_points
from benchmarks.plan_points import MPT, Point, gpt

POINTS = list(plan_points.points())
OTHERWISE = {
    "of 500 W": (1.15, 1.4),  # the table's own remark: less power than an H100 has
    "PPO of OPT": (0.15, 0.45),  # an engine of 2023, most of whose time was generation
    "GRPO of": (0.55, 0.9),  # a plan is without waiting, and its division is FSDP's, not Megatron's
    "two cores": (0.45, 1.6),  # small models: calls, not products
}
"""part of a name -> ratios that are accepted, with the reason"""


def accepted(point: Point) -> tuple[float, float]:
    """The ratios of a point that are accepted."""
    if point.kind == "memory":
        return 0.85, 1.15
    return next((bounds for part, bounds in OTHERWISE.items() if part in point.name), (0.8, 1.2))


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_plan_is_near_what_was_measured(point: Point) -> None:
    low, high = accepted(point)
    assert low <= point.ratio <= high and point.source


def test_points_are_of_both_kinds_and_have_names_of_their_own() -> None:
    assert sum(point.kind == "memory" for point in POINTS) >= 15 and len({p.name for p in POINTS}) == len(POINTS)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("125M", 125_311_488),
        ("760M", 760_470_528),
        ("1B", 1_315_950_592),
        ("3B", 2_651_837_440),
        ("7B", 6_658_859_008),
        ("13B", 12_853_954_560),
        ("30B", 29_975_214_080),
        ("70B", 64_862_437_376),
    ],
)
def test_shapes_of_llm_foundry_have_its_counts(size: str, count: int) -> None:
    """The column NumParams of its tables, at 2,048 tokens; 70B's table counts without biases."""
    own = sum(p.numel() for p in Decoder(gpt(*MPT[size], 2048), "meta").parameters())
    assert own == pytest.approx(count, rel=1e-3)


def test_the_table_names_what_is_not_compared(capsys: pytest.CaptureFixture) -> None:
    assert plan_points.main([]) == 0
    out = capsys.readouterr().out
    assert out.count("\n| ") == len(POINTS) and "- not compared: H200 of our own" in out
