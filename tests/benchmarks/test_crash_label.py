import pytest

from benchmarks import crash_label


@pytest.mark.slow
def test_a_few_kills_lose_no_label(tmp_path):
    result = crash_label.measure(tmp_path, kills=3, tasks=500, seed=1)
    assert result["acknowledged"] >= 4
    assert (result["lost"], result["double"], result["acknowledged_twice"], result["integrity"]) == (0, 0, 0, "ok")


def test_a_label_that_is_missing_or_changed_is_seen():
    label = crash_label.Acknowledged(7, "ann", 3, [2, 1, 1])
    shown = {"shown_order": [1, 2, 0]}
    stored = {"annotator": "ann", "assignment": 3, "ranking": [1, 3, 1]}
    assert crash_label.matches(label, stored, shown)
    assert not crash_label.matches(label, None, shown)
    assert not crash_label.matches(label, {**stored, "ranking": [1, 1, 3]}, shown)
    assert not crash_label.matches(label, {**stored, "annotator": "bo"}, shown)
