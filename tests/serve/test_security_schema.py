"""Whatever fits the schema of an API, and whatever does not, is answered without a fault: made up by schemathesis."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from amenable.serve.labelling.routes import make_app
from amenable.serve.security import Limits

POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


def statuses(schema: Any, url: str, mode: GenerationMode) -> dict[str, set[int]]:
    """What every operation answered, by its path; a mistake can only be made where there is a body."""
    operations = [result.ok() for result in schema.get_all_operations()]
    return {one.path: request(one, url, mode) for one in operations if mode is POSITIVE or len(one.body)}


def request(operation: Any, url: str, mode: GenerationMode) -> set[int]:
    """What is answered to four made-up requests."""
    outcome = set()

    @settings(max_examples=4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        reply = case.call(base_url=url)
        case.validate_response(reply, checks=(not_a_server_error,))
        outcome.add(reply.status_code)

    ask()
    return outcome


@pytest.mark.parametrize("mode", [POSITIVE, NEGATIVE])
def test_the_api_of_serve(served: Any, mode: GenerationMode) -> None:
    outcome = statuses(schemathesis.openapi.from_url(f"{served.url}/openapi.json"), served.url, mode)
    assert {"/v1/chat/completions", "/v1/completions", "/score", "/feedback/ranking", "/login"} <= set(outcome)
    if mode is NEGATIVE:
        assert set().union(*outcome.values()) <= {400, 413}


@pytest.mark.parametrize("mode", [POSITIVE, NEGATIVE])
def test_the_api_of_label(run_labelling: Any, mode: GenerationMode) -> None:
    """Its schema is shown to nobody, and is there for this."""
    with run_labelling(20, Limits(per_minute=10**6)) as (port, label_app):
        schema = schemathesis.openapi.from_dict(make_app(label_app).openapi())
        outcome = statuses(schema, f"http://127.0.0.1:{port}", mode)
        assert {"/api/next", "/api/rank", "/api/write", "/api/suggest", "/api/enter", "/api/skip"} <= set(outcome)
        if mode is POSITIVE:
            assert 200 in outcome["/api/next"] and outcome["/api/me"] == {200}
        else:
            assert set().union(*outcome.values()) <= {400, 413, 422}
            assert not label_app.queue.store.events("ranking")
