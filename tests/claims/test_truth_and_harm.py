from amenable.claims.truth_and_harm import more_truthful
from amenable.claims.verdicts import HOLDS


def test_the_note_says_how_many_times_as_truthful(measured: type) -> None:
    verdict = more_truthful([measured()])
    assert verdict.note == "Sampled: 30% of answers before, 60% after, 2.0 times." and verdict.verdict == HOLDS
    assert more_truthful([measured(lacking=True)]).note == ""
