"""Running helper processes to their end, for the event loop and for threads that wait for them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from itertools import count
from pathlib import Path

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Executor, Helped, HelperContext, Launch, RawLine
from dicode_mcp.runs.logs import Stream

_MORE_S = 30.0
"""How long beyond its own time limit a helper may take to start and to end."""


async def run_helper(executor: Executor, launch: Launch) -> Helped:
    """Run a helper to its end, and give what it wrote. Raises ``DicodeError``."""
    lines: list[RawLine] = []
    process = await executor.start(launch, lines.extend)
    try:
        exit = await process.wait()
    except asyncio.CancelledError:
        await process.stop()
        raise
    return Helped(exit, _text(lines, "stdout"), _text(lines, "stderr"))


def _text(lines: Sequence[RawLine], stream: Stream) -> str:
    return "".join(f"{line.text}\n" for line in lines if line.stream == stream)


class ThreadHelpers:
    """Runs helpers for threads other than the event loop's, each in a folder of its own."""

    def __init__(
        self,
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
        scratch: Path,
        instance_id: str,
    ) -> None:
        self._executor = executor
        self._loop = loop
        self._scratch = scratch
        self._instance_id = instance_id
        self._numbers = count(1)

    def __call__(self, describe: Callable[[HelperContext], Launch]) -> Helped:
        """Run what ``describe`` gives and wait. Blocks; never to be called on the event loop.

        Raises ``DicodeError``, also when the server ends meanwhile.
        """
        mark = f"look-{next(self._numbers)}"
        scratch = self._scratch / mark
        scratch.mkdir(mode=0o700, parents=True)
        try:
            launch = describe(HelperContext(scratch, mark, self._instance_id))
            doing = asyncio.run_coroutine_threadsafe(self._run(launch), self._loop)
            return doing.result((launch.timeout_s or 0.0) + _MORE_S)
        except (CancelledError, RuntimeError, TimeoutError) as error:
            raise DicodeError(Code.INTERNAL, "the helper process was not waited for") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def _run(self, launch: Launch) -> Helped:
        return await run_helper(self._executor, launch)
