"""Every page in a real browser under axe-core, light and dark, on a desk and on a phone; odd texts; two tabs."""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from amenable.feedback.store import Store
from amenable.recipes import report
from amenable.serve import label

HERE = Path(__file__).parent
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
PACKAGE = importlib.util.find_spec("axe_playwright_python")
AXE = Path(PACKAGE.origin).parent / "axe.min.js" if PACKAGE and PACKAGE.origin else Path("axe.min.js")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium here: the pages are not tried in a browser"),
    pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here: make test installs it"),
]
VIOLATIONS = "axe.run().then(r => r.violations.map(v => [v.id, ...v.nodes.slice(0, 3).map(n => n.html.slice(0, 200))]))"
SIZES = [
    (1280, False),
    (390, True),
    pytest.param(1280, True, marks=pytest.mark.slow),
    pytest.param(390, False, marks=pytest.mark.slow),
]
LONG = "This goes on and on. " * 400
HEBREW, ARABIC = "שלום, מה שלומך?", "هذا نص عربي، وكلمة English في الوسط."
ROWS = [
    {
        "prompt": [{"role": "user", "content": HEBREW}],
        "completions": [ARABIC, f"- {HEBREW}\n- one", LONG],
        "model": "m",
    },
    {"prompt": [{"role": "user", "content": "Cook rice."}], "completions": ["**Wash** it.\n\n```\nboil\n```", "No."]},
]


def module_at(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browser = module_at(HERE / "test_label_page.py", "driven_browser").Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@contextmanager
def labelling(folder: Path, **options: Any) -> Iterator[str]:
    """The address of a labelling server with a fresh store."""
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = label.Config(data=(folder / "samples.jsonl",), labels_db=folder / "labels.db", port=0, **options)
    with Store(config.labels_db) as store:
        label_app = label.make_label_app(config, store, label.load_tasks(config), None, None, None)
        with label.background_page(config, label_app) as address:
            yield address


@pytest.fixture
def label_page(tmp_path: Path) -> Iterator[str]:
    with labelling(tmp_path) as address:
        yield address


def violations(browser: Any) -> Any:
    """What axe-core finds on the page as it stands: rule and places, nothing where all is well."""
    browser.ask("Runtime.evaluate", expression=AXE.read_text("utf-8"))
    return browser.js(VIOLATIONS)


def open_page(browser: Any, address: str, width: int, dark: bool, ready: str) -> None:
    browser.fresh(width, 844, dark)
    browser.ask("Page.setBypassCSP", enabled=True)
    browser.ask("Emulation.setTouchEmulationEnabled", enabled=width < 500)
    browser.go(address)
    browser.until(ready)


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_the_labelling_pages(chromium: Any, label_page: str, width: int, dark: bool) -> None:
    open_page(chromium, label_page, width, dark, "document.querySelector('dialog[open]')")
    assert violations(chromium) == [], "instructions"
    chromium.js("document.querySelector('dialog[open]').close()")
    for kind, ready in (("rank", ".card"), ("compare", "#strength"), ("demonstrate", "#words"), ("converse", "#add")):
        chromium.js(f"document.querySelector('[data-kind={kind}]').click()")
        chromium.until(f"document.body.dataset.kind === '{kind}' && document.querySelector('{ready}')")
        assert violations(chromium) == [], kind
        assert chromium.js("document.documentElement.scrollWidth") <= width, kind
    chromium.go(f"{label_page}/owner")
    chromium.until("document.querySelector('.tiles')")
    assert violations(chromium) == [] and chromium.js("document.documentElement.scrollWidth") <= width
    overlap = """[...document.querySelectorAll('.tile')].some((tile) => tile.scrollWidth > tile.clientWidth + 1)"""
    assert not chromium.js(overlap), "a caption runs into its neighbour"


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_the_page_of_comparisons_by_one_key(chromium: Any, tmp_path: Path, width: int, dark: bool) -> None:
    with labelling(tmp_path, tasks=("compare",), one_key=True) as address:
        open_page(chromium, address, width, dark, "document.querySelector('dialog[open]')")
        assert violations(chromium) == [], "instructions"
        chromium.js("document.querySelector('dialog[open]').close()")
        chromium.until("document.querySelector('.at-once')")
        assert violations(chromium) == [] and chromium.js("document.documentElement.scrollWidth") <= width
        chromium.js("document.querySelector('.choices button').click()")
        chromium.until("document.querySelector('#progress').textContent.startsWith('1 by you')")


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_the_chat_page(chromium: Any, served: Any, width: int, dark: bool) -> None:
    open_page(chromium, served.url, width, dark, "document.querySelector('#model option')")
    turns = [{"role": "user", "content": HEBREW}, {"role": "assistant", "content": f"{ARABIC}\n\n- a", "model": "tiny"}]
    stored = {"id": "a", "title": HEBREW, "turns": turns, "changed": 1, "version": "1"}
    chromium.js(f"localStorage.setItem('amenable-chat-a', {json.dumps(json.dumps(stored))})")
    chromium.go(served.url)
    chromium.until("document.querySelectorAll('.turn').length === 2")
    assert violations(chromium) == []
    directions = (
        "[...document.querySelectorAll('.turn .text[dir], .turn .text p')].map((n) => getComputedStyle(n).direction)"
    )
    assert chromium.js(directions) == ["rtl", "rtl"]


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_the_report(chromium: Any, tmp_path: Path, width: int, dark: bool) -> None:
    root = module_at(HERE.parent / "recipes" / "conftest.py", "demo_folders").write_demo(tmp_path / "demo")
    report.run(report.Config(run=root))
    open_page(chromium, (root / "report.html").as_uri(), width, dark, "document.querySelector('table')")
    assert violations(chromium) == []


def test_text_runs_its_own_way_and_a_long_answer_is_folded(chromium: Any, label_page: str) -> None:
    open_page(chromium, label_page, 390, False, "document.querySelector('dialog[open]')")
    chromium.js("document.querySelector('dialog[open]').close()")
    if chromium.js("document.querySelectorAll('.card').length") == 2:  # the other task came first
        for _ in range(2):
            chromium.js("[...document.querySelectorAll('.pool button.wide')][0].click()")
        chromium.js("document.querySelector('#send').click()")
    chromium.until("document.querySelectorAll('.card').length === 3")
    reply = "[...document.querySelectorAll('#asked .text, .card .text p, .card .text li')]"
    texts = chromium.js(f"{reply}.map((n) => [n.textContent.trim().slice(0, 6), getComputedStyle(n).direction])")
    assert len(texts) == 5
    for text, direction in texts:
        assert direction == ("ltr" if text.isascii() else "rtl"), text
    assert chromium.js("document.querySelectorAll('.unfold').length") == 1
    folded = chromium.js("document.documentElement.scrollHeight")
    chromium.js("document.querySelector('.unfold').click()")
    opened = chromium.js("document.documentElement.scrollHeight")
    assert folded < 1800 < opened and chromium.js("document.querySelector('.unfold').textContent") == "Show less"
    chromium.js("[...document.querySelectorAll('.pool button.wide')][0].click()")
    assert chromium.js("document.querySelector('.unfold').getAttribute('aria-expanded')") == "true", "it stays open"


def test_a_phone_is_told_of_taps_and_not_of_keys(chromium: Any, label_page: str) -> None:
    open_page(chromium, label_page, 390, False, "document.querySelector('dialog[open]')")
    assert chromium.js("getComputedStyle(document.querySelector('.by-keys')).display") == "none"
    assert "Tap" in chromium.js("document.querySelector('.place.empty').textContent")
    chromium.js("document.querySelector('dialog[open]').close()")
    chromium.js("document.querySelector('[data-kind=compare]').click()")
    chromium.until("document.querySelector('#strength')")
    top, bottom = (f"document.querySelector('{name}').getBoundingClientRect()" for name in ("#foot", ".choices"))
    chromium.until(f"{top}.top >= {bottom}.bottom")
    assert chromium.js("[...document.querySelectorAll('kbd')].every((n) => getComputedStyle(n).display === 'none')")


def test_two_tabs_label_one_after_the_other(chromium: Any, label_page: str) -> None:
    open_page(chromium, label_page, 1280, False, "document.querySelector('dialog[open]')")
    chromium.js("document.querySelector('dialog[open]').close()")
    chromium.js("document.querySelector('[data-kind=compare]').click()")
    chromium.until("document.querySelector('#strength')")
    here = chromium.js("document.querySelector('#asked').innerText")
    stored = """(async () => {
        const headers = { 'content-type': 'application/json' };
        const post = (path, body) => fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
        const { task } = await (await post('/api/next', { kind: 'compare' })).json();
        const about = { ratings: [null, null], flags: [[], []], seconds: 1, notes: '' };
        const answer = { assignment: task.assignment, ranks: [1, 2], strength: -4, ...about };
        return (await post('/api/rank', answer)).status;
    })()"""
    assert chromium.js(stored) == 200, "as another tab would"
    chromium.press("ArrowRight", "Enter")
    chromium.until("!document.querySelector('#say').hidden")
    chromium.until(f"document.querySelector('#asked').innerText !== {json.dumps(here)}")
    chromium.press("ArrowLeft", "Enter")
    chromium.until("document.querySelector('#progress').textContent.startsWith('2 by you')")
