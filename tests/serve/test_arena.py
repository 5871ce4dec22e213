from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from amenable.errors import InputError
from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.serve import arena, security
from amenable.serve.arena import Config, chosen_models, reused_names
from amenable.serve.battles.arena_state import Arena
from amenable.train.runtime import DeviceOptions


def test_without_names_the_demos_models_fight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no models to fight.*make demo"):
        chosen_models(Config())
    for name in ("sft", "dpo", "reward"):
        (tmp_path / "runs" / "demo" / name).mkdir(parents=True)
        (tmp_path / "runs" / "demo" / name / "finished.json").write_text("{}")
    assert chosen_models(Config()) == [("sft", Path("runs/demo/sft")), ("dpo", Path("runs/demo/dpo"))]
    assert chosen_models(Config(models=("a=x", "y"))) == [("a", Path("x")), ("y", Path("y"))]
    with pytest.raises(InputError, match="1 model to fight"):
        chosen_models(Config(models=("a=x",)))


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"max_batch_size": 0}, {"max_queue": -1}, {"port": 70_000}, {"rate_limit_per_minute": 0}):
        with pytest.raises(InputError, match="must lie between"):
            Config(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="two models have one name"):
        Config(models=("a=x", "a=y"))


def test_others_are_let_in_only_where_somebody_holds_a_token(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody holds a token"):
        arena.run(Config(models=("a=x", "b=y"), host="0.0.0.0", labels_db=tmp_path / "votes.db"))


def test_a_name_that_stood_for_another_model_is_told(tmp_path: Path) -> None:
    def arena_of(store: Store, sha256: str) -> Any:
        origins = {name: {"folder": name, "sha256": f"{name} {sha256}"} for name in ("a", "b")}
        return Arena(None, store, origins, Sampling(), RatingConfig(), lambda: 0.0)  # type: ignore[arg-type]

    with Store(tmp_path / "votes.db") as store:
        old = arena_of(store, "old")
        battle = old.begin("owner")
        battle.turns.append({"user": "x", "left": "a", "right": "b"})
        old.vote("owner", battle.id, "left", 1.0)
        assert reused_names(arena_of(store, "old")) == []
        new = arena_of(store, "new")
        assert reused_names(new) == ["a", "b"]
        new.origins = {**old.origins, "c": {"folder": "c", "sha256": "c"}}
        assert reused_names(new) == []


def test_the_command_opens_an_arena_of_its_models(
    assistant: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    got: list[Any] = []

    def server(protect: Any) -> Any:
        client = TestClient(protect, base_url="http://127.0.0.1")
        paths = ("/", "/leaderboard", "/api/leaderboard", "/healthy")
        return SimpleNamespace(run=lambda sockets: got.extend(client.get(path) for path in paths))

    monkeypatch.setattr(security, "make_server", server)
    device = DeviceOptions(device="cpu", precision="fp32", threads=1)
    models = (f"a={assistant}", f"b={base}")
    arena.run(Config(models=models, labels_db=tmp_path / "votes.db", port=0, device=device))
    assert [reply.status_code for reply in got] == [200, 200, 200, 404]
    assert "Arena" in got[0].text and "Leaderboard" in got[1].text and got[2].json()["waiting"] == ["a", "b"]
    report = capsys.readouterr().out.splitlines()
    assert report[0] == f"a, b fight; votes go into {tmp_path / 'votes.db'}" and report[1].startswith(
        "arena at http://127."
    )
