"""Runs of tests in forked interpreters: few imports, so that a test's own fork server is quick."""

from __future__ import annotations

from dataclasses import replace

from dicode_mcp.executor import SpawnExecutor
from dicode_mcp.protocols import Runtime, Warming
from dicode_runtimes.python import WARM

QUICK = replace(WARM, imports=tuple(n for n in WARM.imports if n.startswith("dicode_sdk")))
"""What a Python task's interpreter must have imported at least."""


async def kept_ready(executor: SpawnExecutor, runtime: Runtime) -> None:
    """Wait until a runtime's runs are forked, if they are to be."""
    kept = runtime.warm() if isinstance(runtime, Warming) else None
    if kept is not None:
        await executor.forks.until_ready(*kept)
