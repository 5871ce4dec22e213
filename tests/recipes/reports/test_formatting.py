from amenable.recipes.reports import formatting


def test_numbers_as_people_write_them() -> None:
    assert [formatting.decimal(value) for value in (-0.5, 0.004, -0.004, None)] == ["−0.50", "0.00", "0.00", "–"]
    assert [formatting.signed(value) for value in (1.07, -0.3, 0.0)] == ["+1.07", "−0.30", "0.00"]
    assert (formatting.percent(0.625), formatting.percent(0.0), formatting.percent(None)) == ("62%", "0%", "–")
    assert (formatting.interval(0.58, 0.66), formatting.interval(None, 0.5)) == ("58–66%", "")
    assert [formatting.amount(value) for value in (2_012_345, 12_345, 0.3012, 3.83, 402_112.5)] == [
        "2.0 million",
        "12,345",
        "0.301",
        "3.83",
        "402,112.5",
    ]


def test_durations() -> None:
    assert [formatting.duration(value) for value in (0.94, 9.96, 41, 59.9, 60, 451, 3600 + 125, None)] == [
        "0.9 s",
        "10 s",
        "41 s",
        "1 min 0 s",
        "1 min 0 s",
        "7 min 31 s",
        "1 h 2 min",
        "–",
    ]


def test_values_in_their_units() -> None:
    assert [formatting.in_unit(value, "share") for value in (0.625, -0.034, 0.0, None)] == ["62%", "−3.4%", "0%", "–"]
    assert [formatting.in_unit(0.2461, unit) for unit in ("bits", "gold", "accuracy")] == ["0.246", "0.25", "25%"]


def test_an_interval_is_left_out_where_it_is_not_known() -> None:
    assert formatting.share({"accuracy": 0.6, "low": None, "high": 0.7}, "accuracy") == "60%"
    assert formatting.change({"value": -0.5, "low": None, "high": None}) == "−0.50"
    assert (formatting.half_width(0.1, 0.5), formatting.half_width(None, 0.5)) == ("±0.20", "")
