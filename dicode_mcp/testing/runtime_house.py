"""A house of one room: a runtime, an executor and sessions around one script from a string."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicode_mcp.accesses import Observed, observed
from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition
from dicode_mcp.executor import SpawnExecutor
from dicode_mcp.ipc import SessionServer
from dicode_mcp.outcome import decide
from dicode_mcp.protocols import Exit, LaunchContext, RawLine, Report, Runtime
from dicode_mcp.runs.logs import Level, read_line
from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.spec.model import Permissions, ResourceSpec, Task, TaskSpec, TriggerSpec
from dicode_mcp.testing.task_calls import FakeTaskCalls

INSTANCE = f"test-{os.getpid()}"


@dataclass
class Ended:
    """How a run ended, as the store would see it, with all it wrote."""

    exit: Exit
    report: Report
    outcome: Outcome
    lines: list[RawLine]
    scratch: Path
    seen: Observed

    @property
    def value(self) -> Any:
        """The value of a run that must have succeeded."""
        assert self.outcome.status is RunStatus.SUCCESS, (self.outcome, self.lines)
        return None if self.outcome.return_value is None else json.loads(self.outcome.return_value)

    @property
    def log(self) -> list[tuple[Level, str]]:
        """The lines as the store would keep them."""
        return [read_line(line.stream, line.text) for line in self.lines]

    @property
    def messages(self) -> list[str]:
        """The lines without their levels."""
        return [message for _, message in self.log]


class RuntimeHouse:
    """Runs scripts from strings with one runtime."""

    def __init__(
        self, runtime: Runtime, suffix: str, executor: SpawnExecutor, folder: Path
    ) -> None:
        self.runtime = runtime
        self.executor = executor
        self.folder = folder / "task"
        self.folder.mkdir()
        self.scratch = folder / "runs"
        self.scratch.mkdir()
        self.script = self.folder / f"task{suffix}"
        self.calls = FakeTaskCalls()
        self.server = SessionServer(self.calls)

    def write(self, script: str, name: str | None = None) -> Path:
        """Write the script, or another file of the task."""
        path = self.folder / name if name else self.script
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(script))
        return path

    def task(
        self,
        permissions: Permissions | None = None,
        timeout: float | None = 30,
        resources: ResourceSpec | None = None,
    ) -> Task:
        """Give the task as it is written now."""
        spec = TaskSpec(
            name="test",
            runtime=self.runtime.name,
            trigger=TriggerSpec(manual=True),
            permissions=permissions or Permissions(),
            timeout=timeout,
            resources=resources,
        )
        digest = hashlib.sha256(spec.model_dump_json().encode())
        for path in sorted(self.folder.rglob("*")):
            digest.update(path.read_bytes() if path.is_file() else b"")
        return Task("test", spec, self.folder, self.script, digest.hexdigest(), "local")

    def check(self, script: str, permissions: Permissions | None = None) -> list[Condition]:
        """Give what the runtime says of a script before any run."""
        self.write(script)
        return list(self.runtime.check(self.task(permissions)))

    async def run(
        self,
        script: str,
        payload: Payload | None = None,
        *,
        permissions: Permissions | None = None,
        limit: float | None = 30,
        grace: float = 5,
        env: dict[str, str] | None = None,
        resources: ResourceSpec | None = None,
    ) -> Ended:
        """Register and run a script to its end."""
        self.write(script)
        task = self.task(permissions, limit, resources)
        # As at registration, whose findings the run uses.
        await asyncio.to_thread(self.runtime.check, task)
        run = Run(new_run_id(), task.id, RunStatus.RUNNING, Trigger.MANUAL, 0)
        scratch = self.scratch / run.id
        scratch.mkdir(mode=0o700)
        payload = payload or Payload()
        lines: list[RawLine] = []
        context = LaunchContext(run, task, payload, env or {}, scratch, INSTANCE)
        launch = replace(self.runtime.prepare(context), grace_s=grace)
        opened = self.server.open(run, task, payload, at=launch.ipc_path)
        async with asyncio.timeout(60), opened as session:
            process = await self.executor.start(launch, lines.extend, session.child_fd)
            exit = await process.wait()
            report = await session.report()
        seen = await observed(task, self.runtime, launch, exit, report)
        outcome = decide(
            exit,
            report,
            now_ms=SystemClock().now_ms(),
            timeout_s=limit,
            explained=self.runtime.explain(exit, task),
            refused=seen.refused,
        )
        return Ended(exit, report, outcome, lines, scratch, seen)
