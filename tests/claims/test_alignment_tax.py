import pytest

from amenable.claims.alignment_tax import tax_paid_back
from amenable.claims.verdicts import FAILS, HOLDS, Estimate


@pytest.mark.parametrize(("wins", "verdict"), [(0.48, HOLDS), (0.42, FAILS)])
def test_no_loss_of_preference_is_within_a_tolerance_of_a_tie(measured: type, wins: float, verdict: str) -> None:
    class NearTie(measured):  # type: ignore[misc]
        def preference(self, *_: object, **__: object) -> Estimate:
            return Estimate(wins, 0.005)

    assert tax_paid_back([NearTie()]).verdict == verdict
