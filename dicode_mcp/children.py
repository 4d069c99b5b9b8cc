"""The processes that this one starts for its own use and waits for itself.

A process has one list of children, so there is one list of these, for whoever clears away what
others left behind. Any thread may use it. Whoever asks, asks ``being_started`` first: when it says
no, ``is_own`` knows every child that is ours.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from asyncio.subprocess import Process
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_own: set[int] = set()
_starting = 0
_counting = threading.Lock()


def is_own(pid: int) -> bool:
    """Tell whether a child was started here and is still waited for."""
    return pid in _own


def being_started() -> bool:
    """Tell whether a child is there, or will be, whose number is not known yet."""
    return _starting > 0


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as ``subprocess.run`` does with its output captured, and nothing checked."""
    with _being_started():
        process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _own.add(process.pid)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    finally:
        _own.discard(process.pid)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


async def start(*argv: str, **options: Any) -> Process:
    """Start a process as ``asyncio.create_subprocess_exec`` does.

    It is this process's own until ``waited`` is called, which comes after its end.
    """
    with _being_started():
        process = await asyncio.create_subprocess_exec(*argv, **options)
        _own.add(process.pid)
    return process


async def waited(process: Process) -> None:
    """Wait for the end of a process that was started here, and let go of its number."""
    try:
        await process.wait()
    finally:
        if process.returncode is not None:
            _own.discard(process.pid)


@contextmanager
def _being_started() -> Generator[None]:
    global _starting
    with _counting:
        _starting += 1
    try:
        yield
    finally:
        with _counting:
            _starting -= 1
