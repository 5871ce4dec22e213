"""The arena in a real browser: headless Chromium, driven over its DevTools pipe."""

import importlib.util
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amenable.feedback.leaderboard import RatingConfig
from amenable.feedback.store import Store
from amenable.generation.sampling import Sampling
from amenable.serve import arena, security
from amenable.serve.battles.arena_state import Arena
from amenable.serve.openai.scheduler import Chunk, Finished
from amenable.train.runtime import DeviceOptions, start_runtime

CHROMIUM = next(
    (result for name in ("chromium", "chromium-browser", "google-chrome") if (result := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: the arena is not tried in a browser")
ATTACK = "<img src=x onerror='window.bad=1'><script>window.bad=1</script>"
NAMES = ("plain", f"tiny {ATTACK}")

SIZES = [
    (1280, False),
    (390, True),
    pytest.param(1280, True, marks=pytest.mark.slow),
    pytest.param(390, False, marks=pytest.mark.slow),
]


def neighbour(name: str) -> Any:
    """Another file of tests, for the browser that it drives or what it looks for."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Talker:
    """A scheduler whose model says what it is told to; where `gate` is closed it waits after the first piece."""

    def __init__(self, says: str):
        self.says, self.gate = says, threading.Event()
        self.gate.set()

    def submit(self, requested: Any, tell: Any) -> Any:
        def speak() -> None:
            first, rest = self.says[:4], self.says[4:]
            tell(Chunk(0, first))
            self.gate.wait(10)
            tell(Finished(0, rest, SimpleNamespace(ids=[1], finish_reason="eos")))  # type: ignore[arg-type]

        threading.Thread(target=speak, daemon=True).start()
        return object()

    def cancel(self, request: Any) -> None:
        """Nothing is under way for long."""


@dataclass
class Running:
    url: str
    place: Arena
    talkers: dict[str, Talker]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, assistant: Path) -> Iterator[Running]:
    """An arena of two talkers, one of which has a name and says things that would be markup elsewhere."""
    from amenable.evaluation.entries import ModelEntry
    from amenable.serve.conversation import load_model
    from amenable.serve.openai.app_state import AppState, ServedModel

    model = load_model(assistant, start_runtime(DeviceOptions(device="cpu", precision="fp32", threads=1)))
    talkers = {NAMES[0]: Talker("A rose is red."), NAMES[1]: Talker(f"**Blue** {ATTACK}")}
    models = {
        name: ServedModel(replace(model, entry=ModelEntry(name, assistant)), talker)  # type: ignore[arg-type]
        for name, talker in talkers.items()
    }
    config = arena.Config(port=0, rate_limit_per_minute=10**6)
    with Store(tmp_path_factory.mktemp("arena") / "votes.db") as store:
        state = AppState(models, {}, store, lambda token: "owner")
        origins = {name: {"folder": name, "sha256": name} for name in models}
        place = Arena(state, store, origins, Sampling(max_new_tokens=8), RatingConfig(), time.time)
        door = security.listen(config.host, config.port)
        server = security.make_server(arena.protect(config, place, None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        try:
            yield Running(security.address_of(door, config.host), place, talkers)
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browser = neighbour("test_label_page").Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Any, running: Running) -> Any:
    browser.fresh()
    browser.go(running.url)
    browser.until("document.activeElement.id === 'say'")
    return browser


def say(page: Any, text: str, turns: int = 1) -> None:
    """By keys alone, until both have answered."""
    page.js("document.getElementById('say').focus()")
    page.type(text)
    page.press("Enter")
    page.until(f"document.querySelectorAll('.turn').length === {turns} && !document.getElementById('votes').hidden")


def words(page: Any) -> str:
    return str(page.js("document.body.innerText"))


@pytest.mark.parametrize(("key", "choice"), [("1", "left"), ("2", "right"), ("3", "tie"), ("4", "both_bad")])
def test_a_vote_by_keys_and_then_the_names(page: Any, running: Running, key: str, choice: str) -> None:
    before = len(running.place.store.events("vote"))
    say(page, "Name a red thing.")
    say(page, "And 2 more?", turns=2)
    assert page.js("document.querySelectorAll('.answer').length") == 4
    assert "plain" not in words(page) and "tiny" not in words(page)
    page.press(key)
    page.until("!document.getElementById('after').hidden")
    event = running.place.store.events("vote")[-1].payload
    assert len(running.place.store.events("vote")) == before + 1 and event["vote"] == choice
    assert [turn["user"] for turn in event["turns"]] == ["Name a red thing.", "And 2 more?"]
    for side in ("left", "right"):
        head = page.js(f"document.getElementById('{side}-head').innerText")
        assert event["models"][side] in head
    page.press(key)
    page.until("document.activeElement.id === 'next'")
    page.press("Enter")
    page.until("document.querySelectorAll('.turn').length === 0 && document.activeElement.id === 'say'")
    assert "plain" not in words(page) and len(running.place.store.events("vote")) == before + 1


def test_markup_is_text_in_answers_questions_and_names(page: Any, running: Running) -> None:
    say(page, ATTACK)
    page.press("3")
    page.until("!document.getElementById('after').hidden")
    assert words(page).count("<script>window.bad=1</script>") >= 3
    assert page.js("document.querySelector('.answer strong').textContent") == "Blue"
    page.go(f"{running.url}/leaderboard")
    page.until("document.querySelector('#standings tbody tr')")
    assert ATTACK in words(page)
    assert page.js("window.bad") is None and page.js("document.querySelectorAll('main img, main script').length") == 0


def test_a_page_loaded_anew_finds_its_battle_and_its_verdict(page: Any, running: Running) -> None:
    say(page, "Name a red thing.")
    page.go(running.url)
    page.until("document.querySelectorAll('.turn').length === 1 && !document.getElementById('votes').hidden")
    page.js("document.querySelector('[data-vote=left]').click()")
    page.until("!document.getElementById('after').hidden")
    page.go(running.url)
    page.until("document.activeElement.id === 'next'")
    assert "plain" in words(page)


def test_what_was_said_before_a_stop_stays(page: Any, running: Running) -> None:
    slow = running.talkers["plain"]
    slow.gate.clear()
    page.type("Name a red thing.")
    page.press("Enter")
    page.until("document.querySelector('.answer.open')?.innerText.includes('A ro')")
    assert page.js("document.getElementById('votes').hidden")
    page.ask("Input.dispatchKeyEvent", type="keyDown", key="Escape", windowsVirtualKeyCode=27)
    page.until("!document.getElementById('votes').hidden")
    slow.gate.set()
    assert "Stopped here." in words(page) and "A rose" not in words(page)
    page.press("4")
    page.until("!document.getElementById('after').hidden")
    turn = running.place.store.events("vote")[-1].payload["turns"][0]
    assert turn["stopped"] and {turn["left"], turn["right"]} >= {"A ro"}


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_says_what_it_is(page: Any, running: Running, dark: bool) -> None:
    page.size(390, 800)
    page.theme(dark)
    say(page, "w" * 60)
    assert page.js("document.documentElement.scrollWidth") <= 390
    boxes = json.loads(
        page.js("JSON.stringify([...document.querySelectorAll('.answer')].map((e) => e.getBoundingClientRect()))")
    )
    assert boxes[0]["bottom"] <= boxes[1]["top"] and boxes[1]["width"] > 330
    unnamed = "[...document.querySelectorAll('button, textarea, section, [role]')].filter((e) => e.offsetParent && "
    unnamed += "!(e.innerText || e.labels?.length || e.ariaLabel)).length"
    assert page.js(unnamed) == 0
    assert page.js("[...document.querySelectorAll('#votes button')].every((b) => b.offsetHeight >= 44)")
    page.press("1")
    page.until("!document.getElementById('after').hidden")
    page.go(f"{running.url}/leaderboard")
    page.until("document.querySelector('#standings tbody tr')")
    assert page.js("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_axe_finds_nothing(browser: Any, running: Running, width: int, dark: bool) -> None:
    look = neighbour("test_accessibility")
    if not look.AXE.is_file():
        pytest.skip("no axe-core here: make test installs it")
    look.open_page(browser, running.url, width, dark, "document.activeElement.id === 'say'")
    assert look.violations(browser) == [], "before a battle"
    say(browser, "Name a red thing.")
    assert look.violations(browser) == [], "during a battle"
    browser.js("document.querySelector('[data-vote=left]').click()")
    browser.until("!document.getElementById('after').hidden")
    assert look.violations(browser) == [], "after a battle"
    browser.go(f"{running.url}/leaderboard")
    browser.until("document.querySelector('table')")
    assert look.violations(browser) == [], "leaderboard"
    for shade in [f"shade{sign}-{depth}" for sign in ("", "-low") for depth in range(5)]:
        browser.js(f"document.querySelector('.matrix [class^=shade]').className = '{shade}'")
        assert look.violations(browser) == [], f"a win rate in the colour {shade}"
