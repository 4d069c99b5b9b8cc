"""The real server as a process of its own on a new data dir, and its end whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.row import Unmeasurable
from bench.wire import line_to

START_S = 60.0
STOP_S = 20.0
_POLL_S = 0.005

_CONFIG = """\
execution:
  max_concurrent_runs: 8
  standby: {standby}
bundled: {{enabled: false}}
"""


@dataclass(frozen=True, slots=True)
class House:
    """A server that answers."""

    data: Path
    pid: int
    answered_s: float
    """From its spawn to the first answer in which every task was there."""
    env: dict[str, str] = field(repr=False)

    @property
    def socket(self) -> Path:
        """Its local socket."""
        return self.data / "dicode.sock"

    @property
    def port(self) -> int:
        """Its HTTP port."""
        lock: dict[str, Any] = json.loads((self.data / "server.lock").read_text())
        return int(lock["port"])


def clean_environ(home: Path) -> dict[str, str]:
    """Give an environment in which no configuration of the user can play a part."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, "HOME": str(home)}


@contextmanager
def serving(
    room: Path,
    tasks: Path | None,
    number: int,
    *,
    data: Path | None = None,
    config: str = "",
    environ: Mapping[str, str] | None = None,
    standby: int = 4,
) -> Generator[House]:
    """Serve ``tasks`` (``number`` of them) from a data dir in ``room`` while the block lasts.

    ``config`` is put behind the usual configuration, for sources that are no folder. ``standby`` is
    how many processes may wait for runs.
    """
    data = data or room / "data"
    file = room / "dicode.yaml"
    file.write_text(_CONFIG.format(standby=standby) + config)
    argv = [sys.executable, "-m", "dicode_mcp.daemon", "--config", str(file)]
    argv += ["--data-dir", str(data), "--port", "0"]
    argv += ["--source", str(tasks)] if tasks else []
    env = {**clean_environ(room), **(environ or {})}
    log = room / "server.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=room,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_tasks(process, data / "dicode.sock", number, log)
        answered_s = time.perf_counter() - began
        yield House(data, process.pid, answered_s, env)
    finally:
        stop(process)


def _await_tasks(process: subprocess.Popen[bytes], path: Path, number: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unmeasurable(f"the server did not start: {log.read_text()[-500:]}")
        try:
            with line_to(path) as line:
                while (tasks := line.call("get_status")["tasks"])["total"] < number:
                    time.sleep(_POLL_S)
                if tasks["ready"] != number:
                    raise Unmeasurable(f"not every task is ready: {tasks}")
                return
        except OSError:
            time.sleep(_POLL_S)
    raise Unmeasurable(f"the server did not answer within {START_S:g} s")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in order, or else by force."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
