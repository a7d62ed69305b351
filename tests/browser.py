"""A real browser for tests of pages: headless Chromium, asked by the DevTools protocol over a pipe."""

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> str:
    """Returns the program; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("needs Chromium, and there is no `chromium` on the PATH")
    return found


class Browser:
    """One page of a browser that may ask this machine alone: every name of a host is unknown to it."""

    def __init__(self, folder: Path) -> None:
        words = [
            find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={folder}", "--remote-debugging-pipe",
        ]  # fmt: skip
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        high = [fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in (theirs_in, theirs_out)]
        self._process = subprocess.Popen(
            words, preexec_fn=lambda: [os.dup2(number, at) for number, at in zip(high, (3, 4), strict=True)],
            pass_fds=(3, 4), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for number in (theirs_in, theirs_out, *high):
            os.close(number)
        self._out, self._in = os.fdopen(ours_out, "wb", buffering=0), os.fdopen(ours_in, "rb")
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Page.setLifecycleEventsEnabled", enabled=True)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Returns what the browser answers; what it says meanwhile goes to `events`."""
        number = next(self._numbers)
        own = {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps({"id": number, "method": method, "params": params, **own}).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def _read(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser has ended"
            content += byte
        return json.loads(content)

    def open(self, url: str, *, width: int = 1200, scheme: str = "light", with_scripts: bool = True) -> None:
        """Loads a page anew and waits until it is there."""
        self.ask("Emulation.setScriptExecutionDisabled", value=not with_scripts)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        for address in ("about:blank", url):  # another place on the page that is there would load nothing
            self.events.clear()
            loader = self.ask("Page.navigate", url=address)["loaderId"]
            while not any(self._is_load(event, loader) for event in self.events):
                self.events.append(self._read())

    @staticmethod
    def _is_load(event: dict[str, Any], loader: str) -> bool:
        params = event.get("params", {})
        return event.get("method") == "Page.lifecycleEvent" and (params["name"], params["loaderId"]) == ("load", loader)

    def value(self, expression: str) -> Any:
        """Returns what an expression of JavaScript is in the page, whatever the page itself may run."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, *, timeout_s: float = 60) -> None:
        """Waits until an expression is true in the page."""
        until = time.monotonic() + timeout_s
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < until, f"waited {timeout_s} s for {expression}"
            time.sleep(0.05)

    def upload(self, selector: str, path: Path) -> None:
        """Chooses a file for an input of the page, as people do in a dialogue."""
        found = self.ask("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.ask("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def type(self, selector: str, text: str) -> None:
        """Puts a text into a field of the page and says so, as typing does."""
        self.value(
            f"(() => {{ const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(text)};"
            "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    def picture(self) -> bytes:
        """Returns the page as it looks, all of it, as a PNG."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def requested(self) -> list[str]:
        """Returns the addresses that the page has asked for, its own and what it holds itself left out."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        urls = [one["request"]["url"] for one in sent if one.get("type") != "Document"]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Returns what the browser's console says is wrong."""
        return [
            str(event["params"]) for event in self.events
            if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        ]  # fmt: skip

    def close(self) -> None:
        """Ends the browser."""
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()
