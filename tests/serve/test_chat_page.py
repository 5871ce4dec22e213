"""The chat page in a real browser: headless Chromium, driven over its DevTools pipe."""

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
    (result for name in ("chromium", "chromium-browser", "google-chrome") if (result := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium here: the chat page is not tried in a browser")


class Browser:
    """One page: go, evaluate, wait, type, press."""

    def __init__(self, folder: Path):
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()

        def hand_over() -> None:
            first, second = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(first, 3)
            os.dup2(second, 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        self.process = subprocess.Popen(
            [CHROMIUM, *options, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=hand_over,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.reading, self.writing, self.number, self.session = os.fdopen(ours_in, "rb"), ours_out, 0, ""
        self.messages: list[Any] = []
        pages = [one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        page = pages[0]["targetId"] if pages else self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        os.write(
            self.writing, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0"
        )
        while True:
            reply = json.loads(self.receive())
            report, about = reply.get("method"), reply.get("params", {})
            mistake = about.get("entry", {}).get("source") not in ("network", "recommendation")
            if report in ("Runtime.exceptionThrown", "Log.entryAdded") and mistake:
                self.messages.append(about)
            if reply.get("id") == self.number:
                assert "error" not in reply, reply
                return reply["result"]

    def receive(self) -> bytes:
        text = bytearray()
        while (byte := self.reading.read(1)) != b"\0":
            assert byte, "the browser has gone"
            text += byte
        return bytes(text)

    def js(self, expression: str) -> Any:
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def go(self, address: str, width: int = 1280) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        self.ask("Page.navigate", url=address)
        self.until("document.querySelector('#model option')")

    def until(self, expression: str, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not self.js(f"!!({expression})"):
            assert time.monotonic() < end, f"never true: {expression}\n{self.js('document.body.innerText')}"
            time.sleep(0.02)

    def press(self, key: str, code: int, text: str = "") -> None:
        about: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def say(self, text: str) -> None:
        """By keys alone."""
        self.js("document.getElementById('say').focus()")
        self.ask("Input.insertText", text=text)
        self.press("Enter", 13, "\r")

    def click(self, name: str) -> None:
        self.js(f"[...document.querySelectorAll('main button')].find((b) => b.textContent.includes({name!r})).click()")

    def answered(self, count: int) -> None:
        """Until there are so many answers, and none is under way."""
        done = "document.getElementById('stop').hidden"
        self.until(f"{done} && document.querySelectorAll('.turn.assistant .text').length === {count}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.process.terminate()
    browser.process.wait(20)


@pytest.fixture
def page(browser: Browser, served: Any) -> Iterator[Browser]:
    browser.go(served.url)
    browser.js("localStorage.setItem('amenable-settings', JSON.stringify({model: 'tiny', temperature: 0.7}))")
    mine = "Object.keys(localStorage).filter((key) => key.startsWith('amenable-chat'))"
    browser.js(f"{mine}.forEach((key) => localStorage.removeItem(key))")
    browser.go(served.url)
    browser.messages.clear()
    yield browser
    assert not browser.messages, browser.messages


def test_a_conversation_stays_and_can_be_edited(page: Browser, served: Any) -> None:
    page.say("Ann asks: name a red thing.")
    page.answered(1)
    page.say("Bo asks: name a blue thing.")
    page.answered(2)
    page.go(served.url)
    assert page.js("document.querySelectorAll('.turn').length") == 4
    page.click("Edit")
    page.js("document.querySelector('.turn form textarea').value = 'Cy asks: name a white thing.'")
    page.click("Send again")
    page.answered(1)
    assert "white thing" in page.js("document.querySelector('.turn.user .text').textContent")
    page.click("Regenerate")
    page.answered(1)


def test_a_thumb_goes_into_the_store(page: Browser, served: Any) -> None:
    page.say("Dee asks: name a green thing.")
    page.answered(1)
    page.click("Bad")
    page.until("document.querySelector('.deeds [aria-pressed=true]')")
    event = served.store.events("thumb")[-1]
    assert event.payload["up"] is False and event.payload["model"] == "tiny"
    assert event.payload["messages"][0]["content"] == "Dee asks: name a green thing."
    assert event.payload["messages"][-1]["content"] == page.js(
        "document.querySelector('.turn.assistant .text').innerText"
    )


def test_several_answers_are_ranked_by_keys(page: Browser, served: Any) -> None:
    page.js("temperature.value = 1.5; temperature.dispatchEvent(new Event('input'))")
    page.say("Eva asks: name a white thing.")
    page.answered(1)
    page.click("Rank several")
    page.until("document.querySelector('.rank')")
    count = page.js("document.querySelectorAll('.rank fieldset').length")
    for place in range(count):
        page.press(" ", 32, " ")
        page.press("ArrowRight", 39) if place else None
        page.press("Tab", 9)
    page.press("Enter", 13, "\r")
    page.until("!document.querySelector('.rank')")
    stored = served.store.rankings()[-1]
    assert stored.prompt[-1].content == "Eva asks: name a white thing."
    assert stored.ranks == (1.0, *[2.0] * (count - 1))
    assert page.js("document.querySelector('.turn.assistant .text').innerText") == stored.completions[0]


def test_an_answer_is_stopped(page: Browser, served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, step = threading.Event(), served.scheduler.decoder.step

    def wait(*values: Any) -> Any:
        gate.wait(10)
        return step(*values)

    monkeypatch.setattr(served.scheduler.decoder, "step", wait)
    page.say("Flo asks: name a red thing.")
    page.until("!document.getElementById('stop').hidden")
    page.press("Escape", 27)
    page.until("document.getElementById('status').textContent === 'Stopped.'")
    gate.set()
    end = time.monotonic() + 10
    while served.scheduler.pending:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_markup_is_text(page: Browser, served: Any) -> None:
    evil = "<img src=x onerror=window.bad=1><script>window.bad=1</script> [x](javascript:window.bad=1)"
    turns = [
        {"role": "user", "content": evil},
        {"role": "assistant", "content": f"{evil}\n\n```\n{evil}\n```", "model": evil},
    ]
    chats = [{"id": "a", "title": evil, "turns": turns}]
    page.js(f"localStorage.setItem('amenable-chats', {json.dumps(json.dumps(chats))})")
    page.go(served.url)
    assert page.js("document.body.innerText").count("<script>window.bad=1</script>") >= 4
    assert page.js("window.bad") is None
    assert page.js("document.querySelectorAll('main img, main script, main a').length") == 0


def test_it_fits_a_phone(page: Browser, served: Any) -> None:
    page.go(served.url, width=390)
    page.say("Gus asks: " + "w" * 36)
    page.answered(1)
    assert page.js("document.documentElement.scrollWidth") <= 390
    assert page.js("getComputedStyle(document.getElementById('side')).visibility") == "hidden"
    page.js("document.getElementById('menu').click()")
    assert page.js("getComputedStyle(document.getElementById('side')).visibility") == "visible"


CHATS = """Object.keys(localStorage).filter((key) => key.startsWith('amenable-chat-'))
    .map((key) => JSON.parse(localStorage.getItem(key)))"""


def test_two_tabs_keep_each_others_messages(page: Browser, served: Any) -> None:
    page.say("Hal asks: name a red thing.")
    page.answered(1)
    chat = page.js(f"{CHATS}[0]")
    # another tab goes on in the same conversation, and begins one of its own
    other = {**chat, "version": "other", "turns": [*chat["turns"], {"role": "user", "content": "From the other tab."}]}
    new = {"id": "new", "title": "New there", "turns": other["turns"][:1], "changed": 10**14, "version": "1"}
    for one in (other, new):
        page.js(f"localStorage.setItem('amenable-chat-{one['id']}', {json.dumps(json.dumps(one))})")
    page.say("Ida asks: name a blue thing.")
    page.answered(2)
    stored = page.js(CHATS)
    questions = [[turn["content"] for turn in chat["turns"] if turn["role"] == "user"] for chat in stored]
    assert sorted(map(len, questions)) == [1, 2, 2]
    assert ["Hal asks: name a red thing.", "From the other tab."] in questions
    assert ["Hal asks: name a red thing.", "Ida asks: name a blue thing."] in questions


def test_what_another_tab_keeps_is_shown(page: Browser, served: Any) -> None:
    page.say("Jon asks: name a red thing.")
    page.answered(1)
    chat = page.js(f"{CHATS}[0]")
    chat |= {"version": "other", "turns": [*chat["turns"], {"role": "user", "content": "From the other tab."}]}
    event = f"new StorageEvent('storage', {{ key: 'amenable-chat-{chat['id']}', newValue: 'x' }})"
    page.js(f"localStorage.setItem('amenable-chat-{chat['id']}', {json.dumps(json.dumps(chat))})")
    page.js(f"window.dispatchEvent({event})")
    page.until("document.querySelector('#thread').innerText.includes('From the other tab.')")


def test_the_list_of_before_is_taken_over(page: Browser, served: Any) -> None:
    turns = [{"role": "user", "content": "Kim"}, {"role": "assistant", "content": "Yes.", "model": "tiny"}]
    earlier = [{"id": name, "title": f"Title {name}", "turns": turns} for name in ("a", "b")]
    page.js(f"localStorage.setItem('amenable-chats', {json.dumps(json.dumps(earlier))})")
    page.go(served.url)
    assert page.js("[...document.querySelectorAll('#list .title')].map((b) => b.textContent)") == ["Title a", "Title b"]
    assert page.js("localStorage.getItem('amenable-chats')") is None and len(page.js(CHATS)) == 2
