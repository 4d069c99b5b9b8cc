"""Connecting through the network gate against connecting directly, and moving data through it.

A task does the very same calls as the floor, which is a plain process outside any sandbox; the
other end is a server of the benchmark on this machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any

from bench.figures import Limit, Result, figure
from bench.folders import HELLO_MANIFEST, HELLO_SCRIPT, write_task
from bench.house import serving
from bench.row import Plan, Row, Unmeasurable
from bench.wire import Line, call_message, line_to, value_of

_MANIFEST = (
    "name: Gate\nruntime: python\ntrigger:\n  manual: true\ntimeout: 5m\n"
    "permissions:\n  net: ['localhost:{port}']\n"
)
_HOSTS = HELLO_MANIFEST + "permissions:\n  net: [api.example.com]\n"
_SCRIPT = """\
import http.client, time

def once(path):
    began = time.perf_counter()
    link = http.client.HTTPConnection("localhost", {port})
    link.request("GET", path)
    answer = link.getresponse()
    size = 0
    while more := answer.read(1 << 18):
        size += len(more)
    link.close()
    return size, (time.perf_counter() - began) * 1000

def main():
    for _ in range(5):
        once("/small")
    small = [once("/small")[1] for _ in range({times})]
    large = []
    for _ in range({rounds}):
        size, took = once("/large")
        large.append(size / took / 1000)
    return {{"small": small, "large": large}}
"""
_LARGE = 256 * 2**20


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        size = _LARGE if self.path == "/large" else 100
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        block = bytes(min(size, 1 << 20))
        for _ in range(size // len(block)):
            self.wfile.write(block)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def _listening() -> Generator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def measure(plan: Plan) -> Iterator[Result]:
    """Give what a small request, a large answer, and a run with a gate take."""
    tasks = plan.room / "tasks"
    with _listening() as port:
        script = _SCRIPT.format(port=port, times=plan.times(300, 60), rounds=plan.times(5, 2))
        write_task(tasks, "gate", _MANIFEST.format(port=port), script)
        write_task(tasks, "plain", HELLO_MANIFEST, HELLO_SCRIPT)
        write_task(tasks, "hosts", _HOSTS, HELLO_SCRIPT)
        with serving(plan.room, tasks, 3) as house, line_to(house.socket) as line:
            ours = _value(line, "gate")
            pairs = [
                (_run_ms(line, "hosts"), _run_ms(line, "plain")) for _ in range(plan.times(60, 15))
            ][3:]
        floor = _directly(script)
    yield Result(
        name="gate.get",
        what="connect by name and GET 100 bytes through the gate, as the task sees it",
        ours=figure("through the gate", "ms", ours["small"]),
        floor=figure("directly", "ms", floor["small"]),
        limits=(Limit("ratio", "<=", 6),),
    )
    yield Result(
        name="gate.rate",
        what="one answer of 256 MB through the gate",
        ours=figure("MB a second", "/s", ours["large"]),
        floor=figure("directly", "/s", floor["large"]),
        limits=(Limit("ratio", ">=", 0.3),),
    )
    yield Result(
        name="gate.run",
        what="run_task hello with hosts in its permissions, which so has a gate, one at a time",
        ours=figure("with a gate", "ms", [gated for gated, _ in pairs]),
        floor=figure("without network", "ms", [plain for _, plain in pairs]),
        notes=(f"median difference {median(g - p for g, p in pairs):.1f} ms",),
    )


def _value(line: Line, task: str) -> dict[str, list[float]]:
    run = value_of(line.ask(call_message("run_task", {"id": task, "wait_seconds": 55})))
    if run["status"] != "success":
        raise Unmeasurable(f"{task} ended as {run}")
    return run["return_value"]


def _run_ms(line: Line, task: str) -> float:
    began = time.perf_counter()
    answer = line.ask(call_message("run_task", {"id": task, "wait_seconds": 30}))
    took = (time.perf_counter() - began) * 1000
    if value_of(answer)["status"] != "success":
        raise Unmeasurable(f"{task} ended as {value_of(answer)}")
    return took


def _directly(script: str) -> dict[str, list[float]]:
    words = [sys.executable, "-I", "-c", script + "\nimport json\nprint(json.dumps(main()))\n"]
    told = subprocess.run(words, capture_output=True, check=True, timeout=120)
    return json.loads(told.stdout)


ROW = Row("gate", "connecting and moving data through the network gate", measure)
