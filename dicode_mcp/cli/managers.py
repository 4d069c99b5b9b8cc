"""The service managers of a user: systemd's user instance, and launchd.

Each is asked through its own program. Knows how to put a file in force and what became of it;
not what the file says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from dicode_mcp.cli.process import last_line
from dicode_mcp.cli.units import LABEL, Definition, launchd_agent, systemd_unit
from dicode_mcp.errors import Code, DicodeError

_ASK_SECONDS = 20.0
_STOP_SECONDS = 120.0
_COMPLAINT = "dicode: "
"""How the server begins the line that says why it could not start."""
_UP = frozenset({"running", "degraded", "starting", "initializing", "maintenance", "stopping"})


class State(NamedTuple):
    """What a manager says of the service."""

    loaded: bool
    active: bool
    pid: int | None = None
    failed: bool = False
    """The manager has given up on it."""


class Manager(Protocol):
    """One user's service manager."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def file(self) -> str:
        """Where the service's file belongs."""
        ...

    def unavailable(self) -> str | None:
        """Say why the manager does not answer here; None when it does."""
        ...

    def text(self, definition: Definition) -> str:
        """Write the service's file."""
        ...

    def apply(self, *, changed: bool) -> None:
        """Start the service now and at each login; anew when its file has ``changed``."""
        ...

    def restart(self) -> None:
        """End the service and start it again."""
        ...

    def withdraw(self) -> None:
        """End the service and start it no more; the file still lies there."""
        ...

    def forget(self) -> None:
        """Take note that the file is gone."""
        ...

    def state(self) -> State:
        """Ask how the service stands."""
        ...

    def last_words(self, log: str) -> str:
        """Give the last line the server wrote before it ended; empty when none is known."""
        ...

    def advice(self) -> list[str]:
        """Give what the user should know: where its log is, when it starts."""
        ...


class Systemd:
    """The user instance of systemd. ``linger`` is where it notes who has services without login."""

    name = "systemd"

    def __init__(self, env: Mapping[str, str], linger: str = "/var/lib/systemd/linger") -> None:
        config = env.get("XDG_CONFIG_HOME") or os.path.join(_home(env), ".config")
        self._unit = f"{LABEL}.service"
        self._user = env.get("USER") or env.get("LOGNAME") or ""
        self._linger = linger
        self.file = os.path.join(config, "systemd", "user", self._unit)

    def unavailable(self) -> str | None:
        done = _ask(["systemctl", "--user", "is-system-running"])
        if done is None:
            return "systemctl is not installed"
        if done.stdout.strip() in _UP:
            return None
        return _first_line(done.stderr) or f"systemctl --user says {done.stdout.strip()!r}"

    def text(self, definition: Definition) -> str:
        return systemd_unit(definition)

    def apply(self, *, changed: bool) -> None:
        self._do("daemon-reload")
        self._do("enable", self._unit)
        self._do("restart" if changed else "start", self._unit)

    def restart(self) -> None:
        self._do("restart", self._unit)

    def withdraw(self) -> None:
        self._do("disable", "--now", self._unit)

    def forget(self) -> None:
        self._do("daemon-reload")
        _ask(["systemctl", "--user", "reset-failed", self._unit])

    def state(self) -> State:
        shown = "LoadState,ActiveState,MainPID"
        done = _ask(["systemctl", "--user", "show", self._unit, f"--property={shown}"])
        facts = dict(line.split("=", 1) for line in _lines(done) if "=" in line)
        pid = facts.get("MainPID", "0")
        return State(
            loaded=facts.get("LoadState") == "loaded",
            active=facts.get("ActiveState") in ("active", "activating", "reloading"),
            pid=int(pid) if pid.isdecimal() and int(pid) else None,
            failed=facts.get("ActiveState") == "failed",
        )

    def last_words(self, log: str) -> str:
        # The manager's own lines on the service come after the server's.
        words = ["journalctl", "--user", "-u", LABEL, "-n", "20", "-o", "cat", "--no-pager"]
        said = [line for line in _lines(_ask(words)) if line.startswith(_COMPLAINT)]
        return said[-1].removeprefix(_COMPLAINT) if said else ""

    def advice(self) -> list[str]:
        lines = [f"its log: journalctl --user -u {LABEL} -f"]
        if not os.path.exists(os.path.join(self._linger, self._user)) or not self._user:
            lines.append(
                "it starts when you log in and ends when you log out; to keep it on from boot: "
                + f"loginctl enable-linger {self._user}".rstrip()
            )
        return lines

    def _do(self, *words: str) -> None:
        _must(["systemctl", "--user", *words], f"journalctl --user -u {LABEL} -n 20")


class Launchd:
    """launchd, for the user's graphical session or, without one, for the user."""

    name = "launchd"

    def __init__(self, env: Mapping[str, str], uid: int) -> None:
        self._uid = uid
        self.file = os.path.join(_home(env), "Library", "LaunchAgents", f"{LABEL}.plist")

    def unavailable(self) -> str | None:
        if _ask(["launchctl", "version"]) is None:
            return "launchctl is not installed"
        return None

    def text(self, definition: Definition) -> str:
        return launchd_agent(definition)

    def apply(self, *, changed: bool) -> None:
        if changed and self.state().loaded:
            self.withdraw()
        if self.state().loaded:
            self._do("kickstart", self._service())
            return
        self._do("enable", self._service())
        self._do("bootstrap", self._domain(), self.file)

    def restart(self) -> None:
        self._do("kickstart", "-k", self._service())

    def withdraw(self) -> None:
        if not self.state().loaded:
            return
        self._do("bootout", self._service())
        # It answers before the service has ended, and cannot be loaded again until it has.
        deadline = time.monotonic() + _STOP_SECONDS
        while self.state().loaded and time.monotonic() < deadline:
            time.sleep(0.1)

    def forget(self) -> None:
        """Do nothing: what is booted out is forgotten."""

    def state(self) -> State:
        done = _ask(["launchctl", "print", self._service()])
        if done is None or done.returncode != 0:
            return State(loaded=False, active=False)
        pid = re.search(r"^\s*pid = (\d+)$", done.stdout, re.MULTILINE)
        return State(True, pid is not None, int(pid[1]) if pid else None)

    def last_words(self, log: str) -> str:
        return last_line(log).removeprefix(_COMPLAINT)

    def advice(self) -> list[str]:
        return ["it starts when you log in and ends when you log out"]

    def _domain(self) -> str:
        done = _ask(["launchctl", "print", f"gui/{self._uid}"])
        seen = done is not None and done.returncode == 0
        return f"{'gui' if seen else 'user'}/{self._uid}"

    def _service(self) -> str:
        return f"{self._domain()}/{LABEL}"

    def _do(self, *words: str) -> None:
        _must(["launchctl", *words], f"launchctl print {self._service()}")


def own_manager(env: Mapping[str, str]) -> Manager:
    """Give this system's kind of manager, whether it answers or not."""
    return Launchd(env, os.getuid()) if sys.platform == "darwin" else Systemd(env)


def managing(env: Mapping[str, str], pid: int) -> Manager | None:
    """Give the manager whose service the process ``pid`` is."""
    manager = own_manager(env)
    # Asked only when there is a file: most servers are no service.
    if not os.path.exists(manager.file) or manager.unavailable():
        return None
    return manager if manager.state().pid == pid else None


def _home(env: Mapping[str, str]) -> str:
    return env.get("HOME") or os.path.expanduser("~")


def _ask(words: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a manager's program; None when it is not there or does not answer."""
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _must(words: list[str], look: str) -> None:
    """Run a manager's program to its end; raises with its own words when it refuses."""
    shown = " ".join(words)
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_STOP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise DicodeError(Code.CONFLICT, f"`{shown}` did not end", hint=f"see `{look}`") from None
    if done.returncode != 0:
        why = _first_line(done.stderr) or f"exit code {done.returncode}"
        raise DicodeError(Code.CONFLICT, f"`{shown}` failed: {why}", hint=f"see `{look}`")


def _lines(done: subprocess.CompletedProcess[str] | None) -> list[str]:
    return done.stdout.splitlines() if done is not None else []


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
