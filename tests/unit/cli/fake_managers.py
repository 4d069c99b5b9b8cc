"""Stands in for ``systemctl``, ``journalctl`` and ``launchctl``: one service, run for real.

State is in ``$FAKE_MANAGERS``: ``calls`` (a line for each call), ``loaded``, ``pid``, ``failed``.
"""

from __future__ import annotations

import os
import plistlib
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(os.environ["FAKE_MANAGERS"])
UNIT = Path(os.environ["HOME"], ".config", "systemd", "user", "dicode.service")
AGENT = Path(os.environ["HOME"], "Library", "LaunchAgents", "dicode.plist")


def pid() -> int:
    """Give the service's process, 0 when it has ended."""
    try:
        found = int((HERE / "pid").read_text())
        state = Path(f"/proc/{found}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return 0
    return 0 if state in "ZX" else found


def start(command: list[str], log: Path) -> None:
    if pid():
        return
    with log.open("ab") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    (HERE / "pid").write_text(str(child.pid))


def stop() -> None:
    found = pid()
    if found:
        os.kill(found, signal.SIGTERM)
    while pid():
        time.sleep(0.01)


def unit_command() -> list[str]:
    (line,) = [x for x in UNIT.read_text().splitlines() if x.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


def systemctl(words: list[str]) -> int:
    verb, rest = words[1], words[2:]
    if verb == "is-system-running":
        if (HERE / "away").exists():
            print("offline")
            return 1
        print("degraded")
        return 1
    if verb == "show":
        failed = (HERE / "pid").exists() and not pid()
        print("LoadState=" + ("loaded" if UNIT.exists() else "not-found"))
        print("ActiveState=" + ("active" if pid() else "failed" if failed else "inactive"))
        print(f"MainPID={pid()}")
    elif verb == "start":
        start(unit_command(), HERE / "journal")
    elif verb == "restart":
        stop()
        start(unit_command(), HERE / "journal")
    elif verb == "disable" and "--now" in rest:
        if (HERE / "stubborn").exists():
            print("Failed to stop it: no reason", file=sys.stderr)
            return 1
        stop()
    return 0


def launchctl(words: list[str]) -> int:
    loaded = HERE / "loaded"
    if words[0] == "print" and words[1].count("/") == 2:
        if not loaded.exists():
            return 113
        print("{\n\tstate = running\n" + (f"\tpid = {pid()}\n" if pid() else "") + "}")
    elif words[0] == "print":
        return 0 if words[1].startswith("gui/") and not (HERE / "no-gui").exists() else 113
    elif words[0] in ("bootstrap", "kickstart"):
        if words[0] == "bootstrap" and loaded.exists():
            return 5
        if "-k" in words:
            stop()
        loaded.touch()
        agent = plistlib.loads(AGENT.read_bytes())
        start(agent["ProgramArguments"], Path(agent["StandardErrorPath"]))
    elif words[0] == "bootout":
        stop()
        loaded.unlink()
    return 0


if __name__ == "__main__":
    name, *given = sys.argv[1:]
    with (HERE / "calls").open("a") as calls:
        calls.write(shlex.join([name, *given]) + "\n")
    if name == "journalctl":
        print((HERE / "journal").read_text(), end="")
        print("dicode.service: Failed with result 'exit-code'.")
        sys.exit(0)
    sys.exit(systemctl(given) if name == "systemctl" else launchctl(given))
