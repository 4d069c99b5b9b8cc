"""Processes at the floor: a bare interpreter from spawn to exit, and code run in a warm one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from bench.row import Unmeasurable

AT_ONCE = 8
F0 = "python -I -S -c pass, spawn to exit"

_WARM = """\
import os, sys
code = compile("def main():\\n    return 1\\nresult = main()\\n", "warm", "exec")
while os.read(0, 1):
    pid = os.fork()
    if pid == 0:
        exec(code, {"__name__": "__main__"})
        os._exit(0)
    os.waitpid(pid, 0)
    os.write(1, b"x")
"""


def interpreter() -> str:
    """Give the real interpreter: neither a virtual environment's link nor a version manager's."""
    return os.path.realpath(sys.executable)


def bare() -> int:
    """Start F0; gives the pid."""
    argv = [interpreter(), "-I", "-S", "-c", "pass"]
    null = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    return os.posix_spawn(argv[0], argv, {"LANG": "C.UTF-8"}, file_actions=null)


def bare_ms() -> float:
    """Time one F0."""
    began = time.perf_counter()
    reap(bare())
    return (time.perf_counter() - began) * 1000


def reap(pid: int) -> None:
    """Wait for a child that must end well."""
    _, status = os.waitpid(pid, 0)
    if status:
        raise Unmeasurable(f"a process of the floor ended with status {status}")


def rate_at_once(number: int, start: Callable[[], int]) -> float:
    """Run ``number`` children, eight at a time; gives how many a second."""
    began = time.perf_counter()
    started, alive = 0, set[int]()
    while started < number or alive:
        while started < number and len(alive) < AT_ONCE:
            alive.add(start())
            started += 1
        pid, status = os.waitpid(-1, 0)
        if pid not in alive or status:
            raise Unmeasurable(f"process {pid} ended with status {status} while others were timed")
        alive.discard(pid)
    return number / (time.perf_counter() - began)


class WarmFork:
    """A small interpreter that forks and runs a few lines each time it is asked."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()

    def ms(self) -> float:
        """Time one fork, its code and its exit."""
        began = time.perf_counter()
        os.write(self._to, b"x")
        if os.read(self._from, 1) != b"x":
            raise Unmeasurable("the warm process is gone")
        return (time.perf_counter() - began) * 1000


@contextmanager
def warm_fork() -> Generator[WarmFork]:
    """Keep a warm process while the block lasts."""
    argv = [interpreter(), "-I", "-S", "-c", _WARM]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        yield WarmFork(process)
        assert process.stdin is not None
        process.stdin.close()


def command_ms(argv: list[str], env: dict[str, str], cwd: Path) -> float:
    """Time a command from spawn to exit, its output thrown away; it must end with 0."""
    began = time.perf_counter()
    done = subprocess.run(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    took = (time.perf_counter() - began) * 1000
    if done.returncode:
        raise Unmeasurable(f"{' '.join(argv)} ended with {done.returncode}")
    return took
