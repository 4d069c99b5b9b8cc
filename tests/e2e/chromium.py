"""A headless Chromium driven over its debugging pipe: open a page, ask what it made of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from dicode_mcp.testing.lacking import lacking

NAMES = ("chromium", "chromium-browser", "google-chrome")
DEADLINE_S = 60.0
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


def find_chromium() -> str:
    """Give the browser's path; without one the test is skipped, in CI it fails."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    lacking(f"no Chromium here: none of {', '.join(NAMES)} is on PATH")


class Browser:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to = to_browser
        self._from = os.fdopen(from_browser, "rb", buffering=0)
        self._rest = b""
        self._next_id = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.send(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to a page and return once it has loaded whole."""
        self._events.clear()
        self.send("Page.navigate", url=url)
        self._until("Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript in the page; gives its JSON value."""
        made = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in made, made
        return made["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Return once an expression is true, whatever pages load meanwhile."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            # While a page gives way to the next there is nothing to ask.
            with suppress(AssertionError):
                if self.ask(expression):
                    return
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.1)

    def show_as(self, *, width: int, scheme: str) -> None:
        """Be a screen of a width, with the user's preference for light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def complaints(self) -> list[str]:
        """Give what the browser logged of the page since ``open``: violations, failed requests."""
        self.ask("1")
        return [
            event["params"]["entry"]["text"]
            for event in self._events
            if event["method"] == "Log.entryAdded"
        ]

    def requested(self) -> list[str]:
        """Give the addresses the page asked for since ``open``."""
        return [
            event["params"]["request"]["url"]
            for event in self._events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and wait for its result."""
        self._next_id += 1
        message: dict[str, Any] = {"id": self._next_id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._next_id:
                assert "error" not in answer, answer
                return cast("dict[str, Any]", answer["result"])

    def _until(self, method: str) -> None:
        while not any(event["method"] == method for event in self._events):
            self._receive()

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = self._from.read(2**16)
            assert piece, "Chromium ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self._events.append(message)
        return message

    def close(self) -> None:
        """Ask the browser to end."""
        self._session = None
        with suppress(AssertionError, OSError):
            self.send("Browser.close")
        self._from.close()
        os.close(self._to)


@contextmanager
def browsing(profile: Path) -> Generator[Browser]:
    """Run a browser with an empty profile while the block lasts."""
    path = find_chromium()
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    # The pipe is descriptors 3 and 4 of the browser; the shell puts ours there.
    script = f'exec "$@" 3<&{commands_out} 4>&{answers_in}'
    words = [path, *_FLAGS, f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        words.append("--no-sandbox")
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *words, "about:blank"],
        pass_fds=(commands_out, answers_in),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(commands_out)
    os.close(answers_in)
    try:
        browser = Browser(commands_in, answers_out)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
