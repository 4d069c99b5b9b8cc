"""kill -9 of the server at random moments under load, and what is left afterwards.

    python tests/e2e/crash_loop.py --cycles 50

Each cycle submits runs at a steady rate, kills the server with SIGKILL at a random moment, starts
it again on the same data dir and checks: every acknowledged run is still known, no run of the
former server is left ``running`` five seconds after the restart, no process of such a run is alive.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TASK = """\
name: Work
runtime: python
trigger: {manual: true}
params: {n: {type: number, default: 0}}
timeout: 30s
permissions: {run: ["*"]}
"""

SCRIPT = """\
import subprocess, sys, time
def main(params, kv):
    n = params.get("n")
    kv.set("last", n)
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"],
                             start_new_session=bool(n % 2))
    time.sleep((n % 7) / 10)
    child.kill()
    return n
"""

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "crash-loop", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Gone(Exception):
    """The server did not answer."""


@dataclass
class Report:
    """What all cycles together showed."""

    cycles: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list[str])
    left_running: list[str] = field(default_factory=list[str])
    strays: list[int] = field(default_factory=list[int])
    restart_s: list[float] = field(default_factory=list[float])
    statuses: Counter[str] = field(default_factory=Counter[str])

    @property
    def ok(self) -> bool:
        return not (self.lost or self.left_running or self.strays)


class Server:
    """One server process on a data dir."""

    def __init__(self, root: Path, *, config: str | None = None) -> None:
        self.data = root / "data"
        self.tasks = root / "tasks"
        self.log = root / "server.log"
        self._what = ["--source", str(self.tasks)]
        if config is not None:
            (root / "dicode.yaml").write_text(config)
            self._what = ["--config", str(root / "dicode.yaml")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start; gives the seconds until it answered."""
        began = time.monotonic()
        log = self.log.open("ab")
        argv = [sys.executable, "-m", "dicode_mcp.daemon", "--data-dir", str(self.data)]
        argv += [*self._what, "--no-http"]
        with log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        while time.monotonic() - began < 30:
            with contextlib.suppress(Gone):
                self.call("get_status", {})
                return time.monotonic() - began
            if self._process.poll() is not None:
                raise SystemExit(f"the server did not start, see {log.name}")
            time.sleep(0.02)
        raise SystemExit("the server did not answer within 30 s")

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(timeout=40)

    def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        params = {"name": tool, "arguments": arguments, "_meta": META}
        line = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(20)
                sock.connect(str(self.data / "dicode.sock"))
                sock.sendall(json.dumps(line).encode() + b"\n")
                with sock.makefile("rb") as stream:
                    answer = stream.readline()
        except OSError as error:
            raise Gone(str(error)) from error
        if not answer.endswith(b"\n"):
            raise Gone("half an answer")
        result = json.loads(answer).get("result")
        if result is None or result.get("isError"):
            raise SystemExit(f"{tool} was refused: {answer[:400]!r}")
        return result["structuredContent"]


def processes_of_tasks(data: Path) -> dict[int, str]:
    """Give the run id of each live process that a server on ``data`` started."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        values = dict(pair.split(b"=", 1) for pair in environ if b"=" in pair)
        run_id = values.get(b"DICODE_RUN_ID")
        home = values.get(b"HOME", b"").decode(errors="replace")
        if run_id and state not in "ZX" and home.startswith(str(data)):
            found[int(entry.name)] = run_id.decode()
    return found


def submit_until_killed(server: Server, rate: float, rng: random.Random, n: int) -> list[str]:
    """Submit at ``rate`` a second, kill at a random moment; gives the acknowledged run ids."""
    kill_at = time.monotonic() + rng.uniform(0.3, 2.0)
    acknowledged: list[str] = []
    while time.monotonic() < kill_at:
        began = time.monotonic()
        args = {"id": "work", "params": {"n": n + len(acknowledged)}, "wait_seconds": 0}
        acknowledged.append(server.call("run_task", args)["run_id"])
        time.sleep(max(0.0, min(began + 1 / rate, kill_at) - time.monotonic()))
    server.kill()
    return acknowledged


def check(server: Server, report: Report, ids: list[str], deadline: float) -> None:
    """Look at the runs of the killed server until settled or five seconds after the restart.

    Runs that were queued go on in the new server: such a one is ``running`` and has a process.
    Anything else that is ``running``, and any process of a run that is not, is left over.
    """
    while True:
        alive = processes_of_tasks(server.data)
        seen = {run_id: _status(server, run_id) for run_id in ids}
        running = {r for r, status in seen.items() if status == "running"}
        stuck = sorted(running - set(alive.values()))
        strays = [pid for pid, run in alive.items() if run in seen and run not in running]
        if not (stuck or strays) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    report.lost += [r for r, status in seen.items() if status is None]
    report.left_running += stuck
    report.strays += strays


def _status(server: Server, run_id: str) -> str | None:
    try:
        return str(server.call("get_run", {"run_id": run_id})["status"])
    except SystemExit:
        return None


def run(cycles: int, rate: float, seed: int) -> Report:
    """Run the whole loop in a new folder; gives the report."""
    rng = random.Random(seed)
    report = Report()
    root = Path(tempfile.mkdtemp(prefix="dicode-crash-"))
    server = Server(root)
    task = server.tasks / "work"
    task.mkdir(parents=True)
    (task / "task.yaml").write_text(TASK)
    (task / "task.py").write_text(SCRIPT)
    everything: list[str] = []
    try:
        server.start()
        for _ in range(cycles):
            ids = submit_until_killed(server, rate, rng, len(everything))
            everything += ids
            report.restart_s.append(server.start())
            check(server, report, ids, time.monotonic() + 5)
            report.cycles += 1
            report.acknowledged += len(ids)
        _settle(server)
        report.statuses.update(_status(server, r) or "unknown" for r in everything)
        report.left_running += [r for r in everything if _status(server, r) == "running"]
        server.stop()
        report.strays += list(processes_of_tasks(server.data))
    finally:
        with contextlib.suppress(Exception):
            server.kill()
        if report.ok:
            shutil.rmtree(root, ignore_errors=True)
        else:
            print(f"kept for a look: {root}", file=sys.stderr)
    return report


def _settle(server: Server) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        slots = server.call("get_status", {})["slots"]
        if not slots["running"] and not slots["waiting"]:
            return
        time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--rate", type=float, default=10.0, help="submits a second")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    report = run(options.cycles, options.rate, options.seed)
    restarts = sorted(report.restart_s)
    print(f"seed                         {options.seed}")
    print(f"kill -9 of the server        {report.cycles}")
    print(f"runs acknowledged            {report.acknowledged}")
    print(f"acknowledged runs lost       {len(report.lost)}")
    print(f"left running after 5 s       {len(report.left_running)}")
    print(f"stray processes              {len(report.strays)}")
    middle, worst = restarts[len(restarts) // 2], restarts[-1]
    print(f"restart to first answer      p50 {middle:.2f} s, max {worst:.2f} s")
    print(f"ends                         {dict(sorted(report.statuses.items()))}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
