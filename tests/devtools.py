"""Opens pages in Debian's headless Chromium, over its remote debugging pipe: no driver, no port, no further package."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")

_FLAGS = (
    *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
)


_CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  // Colours are [red, green, blue, alpha] from 0 to 1, the first three multiplied by the last.
  const parsed = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = [...canvas.getImageData(0, 0, 1, 1).data].map((one) => one / 255);
    return [r * a, g * a, b * a, a];
  };
  const over = (above, below) => above.map((one, i) => one + below[i] * (1 - above[3]));
  const light = (colour) => {
    const linear = (one) => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4;
    const [r, g, b] = colour.map(linear);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  // What is seen of the text and of what is behind it: every ancestor lies behind both, and fades both.
  const seen = (one, ink) => {
    let both = [parsed(ink), [0, 0, 0, 0]];
    for (; one; one = one.parentElement) {
      const {backgroundColor, opacity} = getComputedStyle(one), back = parsed(backgroundColor);
      both = both.map((colour) => over(colour, back).map((part) => part * opacity));
    }
    return both.map((colour) => over(colour, [1, 1, 1, 1]));
  };
  const found = {};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const one = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || one.closest("script, title") || !one.getClientRects().length) continue;
    const style = getComputedStyle(one), ink = one instanceof SVGElement ? style.fill : style.color;
    const [a, b] = seen(one, ink).map(light);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    found[`${one.tagName} ${one.className}`] = Math.min(ratio, found[`${one.tagName} ${one.className}`] ?? 99);
  }
  return found;
})()"""


class Page:
    """One tab. Every method waits for what it says, at most `PATIENCE` seconds."""

    PATIENCE = 60.0

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []
        """What the browser reported so far: console messages, errors, requests."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command of the protocol. Raises `AssertionError` with the browser's error."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        rest = json.dumps({"id": number, "method": method, "params": params} | session).encode() + b"\0"
        while rest:
            rest = rest[os.write(self._to, rest) :]
        while True:
            message = self._message()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. Raises `AssertionError` for what it throws."""
        given = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in given, given["exceptionDetails"]
        return given["result"].get("value")

    def wait(self, script: str) -> Any:
        """Wait until the expression is true, and give its value: the page itself looks again and again."""
        look = f"const value = ({script}); if (value) done(value);"
        late = f"else if (performance.now() > end) fail(new Error('waited {self.PATIENCE:.0f} s in vain'));"
        again = f"const look = () => {{ {look} {late} else setTimeout(look, 10); }}; look();"
        end = f"const end = performance.now() + {1000 * self.PATIENCE};"
        return self.run(f"new Promise((done, fail) => {{ {end} {again} }})")

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file from disk and wait until it has loaded."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        self.wait("location.protocol === 'file:' && document.readyState === 'complete'")

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window in pixels, and the colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """Press one key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def contrast(self) -> dict[str, float]:
        """The least contrast (WCAG 2.1) of any text that is shown with what is behind it, by element."""
        found: dict[str, float] = self.run(_CONTRAST)
        return found

    def violations(self) -> dict[str, list[str]]:
        """What axe, a checker of accessibility, finds wrong in what is shown: its rules, and the elements."""
        folder = find_spec("axe_playwright_python")
        assert folder is not None and folder.submodule_search_locations
        self.run(Path(folder.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8") + "; 0")
        wrong = "violations.map((rule) => [rule.help, rule.nodes.map((node) => node.html)])"
        passed, violations = self.run(f"axe.run().then(({{passes, violations}}) => [passes.length, {wrong}])")
        assert passed > 20  # it has looked
        return dict(violations)

    def picture(self, path: Path) -> None:
        """Write what is in the window as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def problems(self) -> list[str]:
        """Errors that the page logged or threw so far."""
        self.run("0")  # so that all that came before has arrived
        thrown = [
            str(event["params"]["exceptionDetails"].get("exception", {}).get("description"))
            for event in self.events
            if event.get("method") == "Runtime.exceptionThrown"
        ]
        logged = [event["params"]["entry"]["text"] for event in self.events if event.get("method") == "Log.entryAdded"]
        return thrown + logged

    def requests(self) -> list[str]:
        """The addresses of all that was asked for so far."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + 2 * self.PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._back], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._back, 1 << 20) if ready else b""
            assert part, "Chromium does not answer"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser of its own, with its profile in `folder`, which is closed in the end."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()

    def inherit() -> None:
        """The browser reads commands from descriptor 3 and answers on 4."""
        reading, writing = os.dup(theirs_in), os.dup(theirs_out)
        os.dup2(reading, 3)
        os.dup2(writing, 4)

    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(
        command, preexec_fn=inherit, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_out)
        os.close(ours_in)
        process.terminate()
        process.wait(30)
