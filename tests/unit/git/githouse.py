"""A git server, and checkouts on a data dir of the test's own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dicode_mcp.clock import Clock, SystemClock
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.testing.gitserver import GitServer, serving
from dicode_mcp.testing.waiting import running

OpenCheckouts = Callable[..., AbstractAsyncContextManager[GitCheckouts]]


@pytest.fixture
def git(tmp_path: Path) -> Generator[GitServer]:
    """A server of repositories, on loopback over http."""
    with serving(tmp_path / "served") as server:
        yield server


@pytest.fixture
def open_checkouts(tmp_path: Path) -> OpenCheckouts:
    """Run checkouts on the test's data dir for the length of a block, again when called again."""

    @asynccontextmanager
    async def start(
        *, clock: Clock | None = None, allow_local: bool = True, **environ: str
    ) -> AsyncGenerator[GitCheckouts]:
        checkouts = GitCheckouts(
            tmp_path / "data",
            environ={**_plain(), **environ},
            clock=clock or SystemClock(),
            random=Random(1),
            allow_local=allow_local,
        )
        async with running(checkouts.run()):
            yield checkouts

    return start


def _plain() -> dict[str, str]:
    kept: dict[str, Any] = {name: os.environ.get(name) for name in ("PATH", "HOME", "LANG")}
    return {name: value for name, value in kept.items() if value}
