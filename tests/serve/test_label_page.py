"""The labelling page in a real browser: headless Chromium, driven over its DevTools pipe."""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (result for name in ("chromium", "chromium-browser", "google-chrome") if (result := shutil.which(name))), None
)
KEYS = {"Enter": 13, "ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Backspace": 8}


class Browser:
    """A headless Chromium with one page at a time: go to an address, press keys, evaluate, look."""

    def __init__(self, folder: Path):
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()

        def hand_over() -> None:
            os.dup2(os.dup(theirs_read), 3)
            os.dup2(os.dup(theirs_write), 4)

        command = [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={folder}", "--remote-debugging-pipe", "--hide-scrollbars", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=hand_over,
        )
        os.close(theirs_read)
        os.close(theirs_write)
        self.reading, self.writing = os.fdopen(ours_read, "rb"), ours_write
        self.number, self.session = 0, None

    def fresh(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """A page that remembers nothing of the one before."""
        self.session = None
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        page = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.size(width, height)
        self.theme(dark)

    def ask(self, method: str, **params: Any) -> Any:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            text = bytearray()
            while (byte := self.reading.read(1)) not in (b"\0", b""):
                text += byte
            if not text:
                raise RuntimeError("the browser has gone")
            reply = json.loads(text)
            if reply.get("id") == self.number:
                assert "error" not in reply, reply
                return reply["result"]

    def size(self, width: int, height: int) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def theme(self, dark: bool) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=features)

    def go(self, address: str) -> None:
        self.ask("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 20) -> None:
        """Wait for an expression to be true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                value = self.js(f"!!({expression})")
            except AssertionError:
                value = None
            if value:
                return
            time.sleep(0.03)
        raise AssertionError(f"never true: {expression}\n{self.js('document.body.innerText')}")

    def press(self, *keys: str) -> None:
        for key in keys:
            control = key.startswith("Ctrl+")
            key = key.removeprefix("Ctrl+")
            code = KEYS.get(key, ord(key[0].upper()))
            text = {} if control or (key in KEYS and key != "Enter") else {"text": "\r" if key == "Enter" else key}
            about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 2 if control else 0}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        steps = 8
        points = [tuple(a + (b - a) * n / steps for a, b in zip(start, end)) for n in range(steps + 1)]
        self.mouse("mousePressed", points[0])
        for point in points[1:]:
            self.mouse("mouseMoved", point)
        self.mouse("mouseReleased", points[-1])

    def mouse(self, kind: str, point: tuple[float, ...]) -> None:
        x, y = point
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, file: Path, whole: bool = False) -> None:
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reading.close()
        os.close(self.writing)


SUGGESTED = "A rose, it is <b>red</b>."
ATTACK = "<img src=x onerror='document.title=1'><script>document.title=1</script>"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """Address and store of a page with one prompt of six answers, one of which is an attack."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    from amenable.feedback.store import Store
    from amenable.serve import label, security

    folder = tmp_path_factory.mktemp("page")
    answers = [f"Answer {letter}." for letter in "abcde"] + [ATTACK]
    rows = [
        {"prompt": [{"role": "user", "content": f"{n}. Name a thing. {ATTACK}"}], "completions": answers, "model": "m"}
        for n in range(4)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = label.Config(data=(folder / "samples.jsonl",), labels_db=folder / "labels.db", port=0)
    door = security.listen(config.host, config.port)
    with Store(config.labels_db) as store:

        def suggest(conversation: Any, number: int) -> dict[str, Any]:
            return {"text": SUGGESTED, "model": "m", "seed": number}

        label_app = label.make_label_app(config, store, label.load_tasks(config), None, suggest, None)
        server = security.make_server(label.protect(config, label_app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}", store
        server.should_exit = True
        thread.join(5)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    chromium.fresh()
    return chromium


def enter(browser: Browser, address: str) -> None:
    """Go to the page, read the instructions and close them."""
    browser.go(address)
    browser.until("document.querySelector('dialog[open]')")
    browser.js("document.querySelector('dialog[open]').close()")
    browser.until("document.querySelectorAll('.card').length === 6")


def last(store: Any, kind: str) -> dict[str, Any]:
    return store.events(kind)[-1].payload


def test_six_answers_are_ranked_by_keys_with_ties_and_taken_back(served: tuple[str, Any], browser: Browser) -> None:
    address, store = served
    enter(browser, address)
    shown = browser.js("[...document.querySelectorAll('.card .text')].map(node => node.textContent)")
    assert ATTACK in shown, "an answer is shown as the text it is"
    browser.press("3", "1", "=", "6", "2", "5")
    assert browser.js("document.querySelector('#send').disabled")
    browser.press("4", "Enter")
    browser.until("document.querySelector('#progress').textContent.startsWith('1 by you')")
    answer = last(store, "ranking")
    by_text = dict(zip(answer["completions"], answer["ranking"]))
    assert [by_text[text] for text in shown] == [1, 4, 1, 6, 5, 3]
    assert [answer["completions"][i] for i in answer["shown_order"]] == shown
    assert browser.js("document.title") != "1" and not browser.js("document.querySelectorAll('main img').length")

    browser.press("u")
    browser.until("document.querySelectorAll('.place .card').length === 6")
    browser.press("Backspace")
    assert browser.js("document.querySelectorAll('.pool .card').length") == 1
    browser.press("Ctrl+Enter")
    assert len(store.events("ranking")) == 1, "what is not whole is not sent"
    browser.press("Enter", "Enter")
    browser.until("document.querySelector('#progress').textContent.startsWith('1 by you')")
    first, second = store.events("ranking")
    assert second.payload["replaces"] == first.id and len(store.rankings()) == 1


def test_answers_are_dragged_and_an_unfinished_task_is_found_again(served: tuple[str, Any], browser: Browser) -> None:
    address, _ = served
    where = """(() => {
        const { x, y, width } = document.querySelector('[data-answer="%s"] %s').getBoundingClientRect();
        return [x + width / 2, y + %s];
    })()"""
    order = """[...document.querySelectorAll('.place')]
        .map(place => [...place.querySelectorAll('.card')].map(card => Number(card.dataset.answer) + 1))"""
    browser.size(1280, 1400)
    enter(browser, address)
    browser.press("1", "2", "3")
    browser.drag(browser.js(where % (4, ".grip", 12)), browser.js(where % (0, "", 4)))
    assert browser.js(order) == [[5], [1], [2], [3]]
    browser.drag(browser.js(where % (2, ".grip", 12)), browser.js(where % (0, "", 40)))
    assert browser.js(order) == [[5], [1, 3], [2]]
    request = browser.js("document.querySelector('#asked').innerText")
    browser.go(address)
    browser.until("document.querySelectorAll('.card').length === 6")
    assert browser.js("document.querySelector('#asked').innerText") == request
    assert browser.js(order) == [[5], [1, 3], [2]]


def test_a_suggestion_is_taken_and_one_is_edited(served: tuple[str, Any], browser: Browser) -> None:
    address, store = served
    browser.size(390, 844)
    enter(browser, address)
    assert browser.js("document.documentElement.scrollWidth") <= 390, "a phone scrolls one way only"
    browser.js("document.querySelector('[data-kind=demonstrate]').click()")
    browser.until("document.querySelector('#words')")
    browser.js("document.querySelector('#suggest').click()")
    browser.until("document.querySelector('.offer:not([hidden])')")
    assert SUGGESTED in browser.js("document.querySelector('.offer').textContent")
    browser.js("document.querySelector('#take').click()")
    browser.press("Ctrl+Enter")
    browser.until("document.querySelector('#progress').textContent.startsWith('1 by you')")
    answer = last(store, "demonstration")
    assert answer["messages"][-1] == {"role": "assistant", "content": SUGGESTED}
    assert [fate["kept"] for fate in answer["suggestions"]] == ["taken"]

    browser.js("document.querySelector('[data-kind=converse]').click()")
    browser.until("document.body.dataset.kind === 'converse'")
    browser.type("What is red?")
    browser.js("document.querySelector('#add').click()")
    browser.js("document.querySelector('#suggest').click()")
    browser.until("document.querySelector('.offer:not([hidden])')")
    browser.js("document.querySelector('#edit').click()")
    browser.type(" Gladly.")
    browser.press("Ctrl+Enter")
    browser.until("document.querySelector('#progress').textContent.startsWith('1 by you')")
    answer = last(store, "conversation")
    assert [turn["role"] for turn in answer["messages"]] == ["user", "assistant"]
    assert answer["messages"][1]["content"] == f"{SUGGESTED} Gladly."
    assert [fate["kept"] for fate in answer["suggestions"]] == ["edited"]


def test_two_answers_are_compared_and_the_owner_sees_it(served: tuple[str, Any], browser: Browser) -> None:
    address, store = served
    enter(browser, address)
    browser.js("document.querySelector('[data-kind=compare]').click()")
    browser.until("document.querySelector('#strength')")
    browser.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert browser.js("document.querySelector('.scale output').textContent") == "Right is clearly better"
    browser.press("Enter")
    browser.until("document.querySelector('#progress').textContent.startsWith('1 by you')")
    answer = last(store, "ranking")
    left, right = answer["shown_order"]
    assert answer["strength"] == 3 and answer["ranking"][right] == 1 and answer["ranking"][left] == 2
    browser.go(f"{address}/owner")
    browser.until("document.querySelector('.tiles')")
    assert "owner" in browser.js("document.querySelector('table').innerText")


@pytest.fixture
def choices(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """Address and store of a page of five comparisons by one key, which asks for four; a long answer was cut."""
    from amenable.feedback.store import Store
    from amenable.serve import label

    rows = [
        {
            "prompt": [{"role": "user", "content": f"{n}. Name a thing."}],
            "completions": ["A rose.", "Well, " * 30],
            "ended": [True, False],
        }
        for n in range(5)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = label.Config(
        data=(tmp_path / "samples.jsonl",),
        tasks=("compare",),
        one_key=True,
        overlap=0.0,
        labels_db=tmp_path / "labels.db",
        port=0,
    )
    with Store(config.labels_db) as store:
        app = label.make_label_app(config, store, label.load_tasks(config), "# Which do you like better?", None, None)
        app.goal, app.thanks = 4, "That is enough."
        app.is_complete = lambda: len(store.rankings()) >= 4
        with label.background_page(config, app) as address:
            yield address, store


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_one_key_or_tap_answers_a_comparison(
    choices: tuple[str, Any], browser: Browser, width: int, height: int
) -> None:
    address, store = choices
    browser.size(width, height)
    browser.go(address)
    browser.until("document.querySelector('dialog[open]')")
    assert "Which do you like better?" in browser.js("document.querySelector('dialog[open]').textContent")
    browser.js("document.querySelector('dialog[open]').close()")

    def side_of_the_short_one() -> str:
        browser.until("document.querySelectorAll('.side').length === 2")
        cut = browser.js("[...document.querySelectorAll('.side')].map(side => Boolean(side.querySelector('.cut')))")
        assert sorted(cut) == [False, True], "the answer that was cut is marked"
        return "ArrowLeft" if cut[1] else "ArrowRight"

    def answered(count: int) -> None:
        browser.until(f"document.querySelector('#progress').textContent.includes('{count} of 4 ')")
        assert len(store.rankings()) == count

    browser.press(side_of_the_short_one())
    answered(1)
    browser.press("u")
    browser.until("document.querySelector('.side.chosen')")
    assert not browser.js("document.querySelector('.side.chosen .cut')"), "what was chosen shows when it is taken back"
    browser.press("=")
    answered(1)
    side = 0 if side_of_the_short_one() == "ArrowLeft" else 2
    assert browser.js("document.documentElement.scrollWidth") <= width
    browser.js(f"document.querySelectorAll('.choices button')[{side}].click()")
    answered(2)
    question = browser.js("document.querySelector('#asked').innerText")
    browser.press("x")
    browser.until(f"document.querySelector('#asked').innerText !== {json.dumps(question)}")
    browser.press("e")
    answered(3)
    browser.press(side_of_the_short_one())
    browser.until("document.querySelector('.done')")
    assert "That is enough." in browser.js("document.querySelector('.done').textContent")
    events = [event.payload for event in store.active("ranking")]
    assert [payload["ranking"][payload["completions"].index("A rose.")] for payload in events] == [1, 1, 1, 1]
    assert sum(len(set(payload["ranking"])) == 1 for payload in events) == 2
    assert all(payload["strength"] is None for payload in events) and len(store.events("skip")) == 1


def test_every_control_has_a_name_and_the_words_stand_out(served: tuple[str, Any], browser: Browser) -> None:
    contrast = """(() => {
        const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const probe = document.body.appendChild(document.createElement("i"));
        const light = (name) => {
            probe.style.color = `var(${name})`;
            const [r, g, b] = getComputedStyle(probe).color.match(/[0-9.]+/g).map((v) => linear(v / 255));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        };
        const names = "ink paper,soft paper,soft sheet,soft wash,on-accent accent,good paper,bad paper";
        const pairs = names.split(",");
        const ratios = pairs.map((pair) => pair.split(" ").map((name) => light(`--${name}`)));
        return ratios.map(([a, b]) => Math.max(a, b) / Math.min(a, b));
    })()"""
    enter(browser, served[0])
    tree = browser.ask("Accessibility.getFullAXTree")["nodes"]
    controls = [
        node for node in tree if node.get("role", {}).get("value") in ("button", "textbox", "radio", "checkbox")
    ]
    assert len(controls) > 10
    assert [node for node in controls if not node.get("name", {}).get("value")] == []
    for dark in (False, True):
        browser.theme(dark)
        assert min(browser.js(contrast)) > 4.5, "WCAG AA for text"
