"""Login in a real browser, by the same dialog on every page: a wrong token is refused, a right one opens the page."""

import importlib.util
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amenable.feedback import annotators
from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.serve import arena, label, security, serve
from amenable.serve.battles.arena_state import Arena
from amenable.serve.openai.app_state import AppState
from amenable.serve.tokens import TokenCache

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium here: the pages are not tried in a browser")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("driven_browser", Path(__file__).parent / "test_label_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    browser = module.Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def page_of(name: str, store: Store) -> security.SecurityMiddleware:
    tokens = TokenCache(store)
    state = AppState({}, {}, store, lambda token: tokens.user_for_token(token or ""))
    if name == "chat":
        return serve.protect(serve.Config(require_tokens=True), state, tokens)
    if name == "arena":
        battles = Arena(state, store, {}, Sampling(), RatingConfig(), time.time)
        return arena.protect(arena.Config(require_tokens=True), battles, tokens)
    config = label.Config(require_tokens=True, tasks=("converse",))
    return label.protect(config, label.make_label_app(config, store, [], None, None, None))


@pytest.mark.parametrize(
    ("name", "path", "request_path"),
    [("chat", "", "/v1/models"), ("arena", "/leaderboard", "/api/leaderboard"), ("label", "", "/api/me")],
)
def test_a_token_opens_the_page(
    browser: Any, run_guard: Any, tmp_path: Path, name: str, path: str, request_path: str
) -> None:
    with Store(tmp_path / "labels.db") as store:
        token = annotators.add(store, "Ann", "annotator", 0.0)
        with run_guard(page_of(name, store)) as (port, _):
            browser.fresh()
            browser.go(f"http://127.0.0.1:{port}{path}")
            browser.until("document.querySelector('#login').open")
            for text, end in (
                ("wrong", "document.querySelector('#login-note').textContent.includes('not known')"),
                (token, "!document.querySelector('#login').open"),
            ):
                browser.js(f"document.querySelector('#token').value = '{text}'")
                browser.js("document.querySelector('#login button').click()")
                browser.until(end)
            assert browser.js(f"fetch('{request_path}').then((response) => response.status)") == 200
            if name == "label":
                browser.until("document.querySelector('#me').textContent.includes('Ann')")
                browser.until("document.querySelector('#words')")
