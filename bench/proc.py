"""Memory and processor time of another process, as Linux tells them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.row import Unmeasurable

_KIB_IN_MB = 1024 / 1e6


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB (10^6 bytes). ``pss`` counts shared pages by the share."""

    rss: float
    pss: float


def memory(pid: int) -> Memory:
    """Read what a process holds now."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError as error:
        raise Unmeasurable(f"needs /proc/PID/smaps_rollup: {error.strerror}") from None
    sizes = {
        name: int(rest.split()[0]) * _KIB_IN_MB
        for name, sign, rest in (line.partition(":") for line in text.splitlines())
        if sign and rest.endswith("kB")
    }
    return Memory(sizes["Rss"], sizes["Pss"])


def cpu_ms(pid: int) -> float:
    """Read the processor time of all threads of a process so far."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        # Nanoseconds, where the ticks of `stat` would be too coarse for an idle server.
        return sum(int((t / "schedstat").read_text().split()[0]) for t in threads) / 1e6
    except OSError:
        return _cpu_ticks(pid) * 1000 / os.sysconf("SC_CLK_TCK")


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise Unmeasurable(f"needs /proc/PID/stat: {error.strerror}") from None
    return int(fields[11]) + int(fields[12])
