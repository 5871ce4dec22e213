from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from amenable.serve.errors import APIError
from amenable.serve.openai.app_state import AppState, model_info, model_list, model_of, prometheus, reward_model_of
from amenable.serve.openai.scheduler import Counts

ASKED: Any = [{"role": "user", "content": "Ann asks: name a red thing."}]


def test_health_and_metrics(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    text = http.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    before = float(values['amenable_answers_total{model="tiny"}'])
    http.post("/v1/chat/completions", json={"model": "tiny", "messages": ASKED, "n": 2}).raise_for_status()
    after = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if not line.startswith("#"))
    assert float(after['amenable_answers_total{model="tiny"}']) == before + 2
    assert "# TYPE amenable_answers_total counter" in text


def state_of(name: str) -> Any:
    scheduler = SimpleNamespace(counts=Counts(requests=3, answer_seconds=0.5), pending=2, max_batch_size=4, max_queue=8)
    model = SimpleNamespace(is_chat_model=True)
    return AppState({name: SimpleNamespace(scheduler=scheduler, model=model, context=64)}, {"judge": None}, None, str)


def test_a_model_is_found_by_its_name_alone() -> None:
    state = state_of("tiny")
    assert model_of(state, "tiny").context == 64
    assert (model_info(state, "tiny")["kind"], model_info(state, "tiny")["context"]) == ("chat", 64)
    assert model_info(state, "judge")["kind"] == "reward"
    for name in ("../tiny", "tiny "):
        for finding in (model_of, reward_model_of):
            with pytest.raises(APIError) as refused:
                finding(state, name)
            assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    with pytest.raises(APIError):
        model_info(state, "x" * 1000)


def test_a_model_of_the_wrong_kind_is_refused_with_its_use() -> None:
    state = state_of("tiny")
    with pytest.raises(APIError, match="judge is a reward model: it scores answers") as refused:
        model_of(state, "judge")
    assert (refused.value.status, refused.value.param) == (404, "model")
    with pytest.raises(APIError, match="tiny gives answers and scores none"):
        reward_model_of(state, "tiny")
    assert reward_model_of(state, "judge") is None
    assert [row["id"] for row in model_list(state, state.models)["data"]] == ["tiny"]


def test_a_name_with_signs_stays_one_line_of_the_figures() -> None:
    lines = prometheus(state_of('a"} 1\nb')).splitlines()
    assert 'amenable_requests_total{model="a\\"} 1\\nb"} 3' in lines
    assert 'amenable_answers_most{model="a\\"} 1\\nb"} 12' in lines
    assert "# TYPE amenable_answers_pending gauge" in lines and len(lines) == 3 * 12
