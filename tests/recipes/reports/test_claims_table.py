import re
from pathlib import Path

from amenable.claims.stage_folders import read_stages
from amenable.recipes.reports import claims_table


def rows_of(claims: list[dict], run: Path) -> list[dict]:
    return claims_table.table(claims, read_stages(run), run)


def test_a_claim_is_told_with_its_figures(claims: list[dict], demo_run: Path) -> None:
    held, failed, unclear, _ = rows_of(claims, demo_run)
    assert (held["verdict"], held["measured"], held["interval"]) == ("holds", "90%", "86% to 94%")
    assert (failed["verdict"], failed["measured"]) == ("does not hold", "−10%")
    assert (unclear["measured"], unclear["unit"], unclear["interval"]) == ("0.40", "gold", "−0.10 to 0.90")
    assert held["sources"] == ["ppo", "evaluate"] and held["paper"] == "71 % of pairs"


def test_parts_are_shown_where_there_are_several(claims: list[dict], demo_run: Path) -> None:
    held, failed, *_ = rows_of(claims, demo_run)
    assert [part["decides"] for part in held["parts"]] == [True, False]
    assert failed["parts"] == [] and failed["what"] == "PPO against SFT"


def test_what_was_not_measured_says_what_would(claims: list[dict], demo_run: Path) -> None:
    held, *_, absent = rows_of(claims, demo_run)
    assert absent["axis"] is None and absent["commands"] == ["amenable demo --full"]
    assert held["commands"] == []
    (demo_run / "plan").mkdir()
    (demo_run / "plan" / "ppo-ptx.yaml").write_text("command: ppo\n")
    *_, planned = rows_of(claims, demo_run)
    assert planned["commands"] == [f"amenable ppo --config {demo_run}/plan/ppo-ptx.yaml"]


def test_the_axis_has_everything_in_its_place() -> None:
    one = {"measured": 0.75, "low": 0.7, "high": 0.8, "null": 0.5, "wanted": "above", "seeds": [0.7, 0.8]}
    report = str(claims_table.axis(one, "share"))
    null, start, end, measured = (
        float(result)
        for pattern in (
            r'"null" d="M([\d.]+)',
            r'"interval" d="M([\d.]+)',
            r'14H([\d.]+)"/><circle',
            r'cx="([\d.]+)" cy="14"',
        )
        for result in re.findall(pattern, report)
    )
    assert claims_table.LEFT < null < start < measured < end < claims_table.RIGHT
    # from 0.5 to 0.8 with 12 % of that on either side: 0.464 .. 0.836
    assert measured == round(8 + 244 * (0.75 - 0.464) / 0.372, 1)
    assert report.count('class="seed"') == 2 and ">50%</text>" in report
    shaded = re.search(r'class="wanted" x="([\d.]+)"', report)
    assert shaded is not None and float(shaded[1]) == null


def test_one_seed_has_no_dot_of_its_own_and_nothing_measured_no_axis() -> None:
    assert 'class="seed"' not in str(claims_table.axis({"measured": 1.0, "seeds": [1.0]}, "gold"))
    assert claims_table.axis({"measured": None}, "share") is None


def test_the_side_that_a_claim_is_on_may_be_the_lower() -> None:
    report = str(claims_table.axis({"measured": -0.2, "null": 0.0, "wanted": "below"}, "gold"))
    assert f'class="wanted" x="{claims_table.LEFT:.1f}"' in report


def test_claims_are_counted_by_verdict(claims: list[dict]) -> None:
    report = [(one["count"], one["verdict"]) for one in claims_table.tally([*claims, claims[0]])]
    assert report == [(2, "hold"), (1, "does not hold"), (1, "undecided"), (1, "not measured")]
    assert claims_table.tally([]) == []
