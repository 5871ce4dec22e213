from amenable.claims.preferences import in_order, not_mere_sharpening
from amenable.claims.verdicts import FAILS, HOLDS, Estimate


def test_one_step_that_is_not_preferred_breaks_the_order(measured: type) -> None:
    class Unordered(measured):  # type: ignore[misc]
        def preference(self, first: str, second: str, *_: object, **__: object) -> Estimate:
            return Estimate(0.2 if (first, second) == ("sft", "prompted") else 0.8, 0.01)

    assert [part.verdict for part in in_order([Unordered()]).parts] == [HOLDS, FAILS, HOLDS, HOLDS]
    assert in_order([Unordered()]).verdict == FAILS


def test_a_gain_that_sharpening_also_gives_is_not_learned(measured: type) -> None:
    class Sharpened(measured):  # type: ignore[misc]
        def preference(self, first: str, second: str, *_: object, **__: object) -> Estimate:
            return Estimate(0.4 if second == "sharpened" else 0.8, 0.01)

    assert not_mere_sharpening([Sharpened()]).verdict == FAILS
