"""A house of one room for tests of Python tasks: runtime, executor and sessions around a script."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicode_mcp.executor import SpawnExecutor
from dicode_mcp.executor.tree import all_pids, read_environ, read_stat
from dicode_mcp.ipc import SessionServer
from dicode_mcp.protocols import Exit, LaunchContext, RawLine, Report
from dicode_mcp.runs.logs import Level, read_line
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.spec.model import Permissions, Task, TaskSpec, TriggerSpec
from dicode_mcp.testing.task_calls import FakeTaskCalls
from dicode_runtimes.python import PythonRuntime

INSTANCE = f"test-{os.getpid()}"


@dataclass
class Ended:
    """How a run of a script ended, with all it wrote."""

    exit: Exit
    report: Report
    lines: list[RawLine]

    @property
    def value(self) -> Any:
        assert self.report.error is None, self.report.error
        assert self.report.finished
        return None if self.report.return_value is None else json.loads(self.report.return_value)

    @property
    def log(self) -> list[tuple[Level, str]]:
        return [read_line(line.stream, line.text) for line in self.lines]

    @property
    def messages(self) -> list[str]:
        return [message for _, message in self.log]


class House:
    """Runs scripts from strings."""

    def __init__(self, executor: SpawnExecutor, folder: Path, runtime: PythonRuntime) -> None:
        self.executor = executor
        self.folder = folder / "task"
        self.scratch = folder / "scratch"
        self.folder.mkdir()
        self.scratch.mkdir()
        self.runtime = runtime
        self.calls = FakeTaskCalls()
        self.server = SessionServer(self.calls)
        self.started = asyncio.Event()
        self.pids: list[int] = []

    def write(self, script: str, name: str = "task.py") -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(script))
        return path

    def task(self, permissions: Permissions | None = None, timeout: float | None = 30) -> Task:
        spec = TaskSpec(
            name="test",
            runtime="python",
            trigger=TriggerSpec(manual=True),
            permissions=permissions or Permissions(),
            timeout=timeout,
        )
        return Task("test", spec, self.folder, self.folder / "task.py", "0" * 64, "local")

    async def run(
        self,
        script: str,
        payload: Payload | None = None,
        *,
        permissions: Permissions | None = None,
        limit: float | None = 30,
        grace: float = 5,
        env: dict[str, str] | None = None,
        stop_on: str | None = None,
    ) -> Ended:
        self.write(script)
        task = self.task(permissions, limit)
        run = Run(new_run_id(), task.id, RunStatus.RUNNING, Trigger.MANUAL, 0)
        scratch = self.scratch / run.id
        scratch.mkdir(mode=0o700)
        payload = payload or Payload()
        lines: list[RawLine] = []
        seen = asyncio.Event()

        def sink(new: Any) -> None:
            lines.extend(new)
            if stop_on and any(stop_on in line.text for line in new):
                seen.set()

        context = LaunchContext(run, task, payload, env or {}, scratch, INSTANCE)
        launch = replace(self.runtime.prepare(context), grace_s=grace)
        async with asyncio.timeout(60), self.server.open(run, task, payload) as session:
            process = await self.executor.start(launch, sink, session.child_fd)
            self.pids.append(process.pid)
            if stop_on:
                await seen.wait()
                await process.stop()
            exit = await process.wait()
            return Ended(exit, await session.report(), lines)


def marked(run_mark: str) -> list[int]:
    """The processes alive that carry an entry in their environment."""
    alive: list[int] = []
    for pid in all_pids():
        stat = read_stat(pid)
        if stat and not stat.dead and run_mark.encode() in read_environ(pid):
            alive.append(pid)
    return alive
