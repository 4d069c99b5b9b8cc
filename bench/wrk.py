"""``wrk``, the load generator, as a function: how many answers a second, and how long they took."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.row import Unmeasurable

_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"city": "Bern", "n": 3}'
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, "failed": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """One round of requests."""

    rate: float
    p50_ms: float
    p99_ms: float
    requests: int


def require_wrk() -> str:
    """Give the path of ``wrk``; raises ``Unmeasurable`` where it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        raise Unmeasurable("wrk is not installed (Debian and Ubuntu: apt-get install wrk)")
    return found


def load(room: Path, url: str, *, connections: int, seconds: float) -> Load:
    """Post a small JSON body again and again; an answer of 400 or more cannot be measured."""
    script = room / "post.lua"
    script.write_text(_SCRIPT)
    argv = [require_wrk(), "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s"]
    done = subprocess.run(
        [*argv, "-s", str(script), url], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout[done.stdout.rindex("{") :])
    if told["failed"] or not told["requests"]:
        raise Unmeasurable(f"{url}: {told['failed']} of {told['requests']} requests failed")
    return Load(
        told["requests"] / told["us"] * 1e6,
        told["p50_us"] / 1000,
        told["p99_us"] / 1000,
        told["requests"],
    )
