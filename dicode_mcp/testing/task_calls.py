"""A double of what a running task reaches: a dict for kv, a list of what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.runs.model import Run
from dicode_mcp.runs.questions import Answered, Draft
from dicode_mcp.spec.model import Task


class FakeTaskCalls:
    """Answers a task's calls from memory.

    Grants are taken from the task's own ``permissions.dicode``, by exact id.
    """

    def __init__(self) -> None:
        self.kv: dict[str, Any] = {}
        self.once: dict[str, Any] = {}
        self.answers: dict[str | int, Answered] = {}
        self.asked: list[tuple[str, Any]] = []
        self.provided: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.in_flight = 0
        self.most_in_flight = 0
        self._gate = asyncio.Event()
        self._opens_at = 0

    def wait_for_all_of(self, count: int) -> None:
        """Hold ``run_task`` up until this many calls of it wait at once."""
        self._opens_at = count

    def open(self) -> None:
        """Let the calls go that are held up."""
        self._gate.set()

    async def run_task(
        self, run: Run, task: Task, target: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Pretend to run a task: the return value is its parameters."""
        self._check(target in task.spec.permissions.dicode.tasks)
        self.asked.append((target, dict(params)))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.in_flight >= self._opens_at:
            self._gate.set()
        try:
            await self._gate.wait()
        finally:
            self.in_flight -= 1
        return {"runID": f"child-{target}", "status": "success", "returnValue": dict(params)}

    async def agent(self, run: Run, task: Task, name: str, payload: Any, limit: Any) -> Any:
        """Pretend to run an agent: it prints its payload."""
        self._check(name in task.spec.permissions.dicode.agents)
        self.asked.append((name, limit))
        return payload

    async def trigger(self, run: Run, task: Task, target: str, input: Any) -> dict[str, Any]:
        """Pretend to start a task."""
        self._check(target in task.spec.permissions.dicode.tasks)
        self.asked.append((target, input))
        return {"runID": f"child-{target}"}

    async def list_tasks(self, run: Run, task: Task) -> list[dict[str, Any]]:
        """Give the one task there is."""
        self._check(task.spec.permissions.dicode.list_tasks)
        return [{"id": task.id}]

    async def get_runs(self, run: Run, task: Task, target: str, limit: int) -> list[dict[str, Any]]:
        """Give the one run there is."""
        self._check(task.spec.permissions.dicode.get_runs)
        return [{"runID": run.id, "taskID": target}][:limit]

    async def kv_get(self, run: Run, task: Task, key: str) -> Any:
        """Read."""
        return self.kv.get(key)

    async def kv_set(self, run: Run, task: Task, key: str, value: Any) -> None:
        """Write."""
        self.kv[key] = value

    async def kv_delete(self, run: Run, task: Task, key: str) -> bool:
        """Remove."""
        return self.kv.pop(key, None) is not None

    async def kv_list(self, run: Run, task: Task, prefix: str) -> list[str]:
        """List."""
        return sorted(key for key in self.kv if key.startswith(prefix))

    async def answer_to(self, run: Run, task: Task, draft: Draft, place: int) -> Answered | None:
        """Give the answer a test has put for the key, or for the place of one without."""
        self.asked.append(("ask", draft.message))
        return self.answers.get(draft.key or place)

    async def once_get(self, run: Run, task: Task, key: str) -> dict[str, Any]:
        """Read."""
        return {"found": key in self.once, "value": self.once.get(key)}

    async def once_put(self, run: Run, task: Task, key: str, value: Any) -> Any:
        """Write, once."""
        return self.once.setdefault(key, value)

    async def replay(
        self, run: Run, task: Task, run_id: str, params: Mapping[str, Any], **edited: Any
    ) -> dict[str, Any]:
        """Pretend to start a run again."""
        self._check(task.spec.permissions.dicode.runs_replay)
        self.asked.append(("replay", (run_id, dict(params), edited)))
        return {"runID": f"again-{run_id}", "task": task.id, "taskChanged": False}

    async def progress(
        self, run: Run, task: Task, done: float, total: float | None, message: str
    ) -> None:
        """Note."""
        self.asked.append(("progress", (done, total, message)))

    async def usage(self, run: Run, task: Task, tokens: int) -> dict[str, Any]:
        """Note."""
        self.asked.append(("usage", tokens))
        return {"tokens": tokens, "left": None}

    async def provide(self, run: Run, task: Task, values: Mapping[str, str]) -> None:
        """Keep what a provider gives."""
        self.provided |= values

    async def secrets_set(self, run: Run, task: Task, name: str, value: str) -> None:
        """Keep a secret."""
        self._check(task.spec.permissions.dicode.secrets_write)
        self.secrets[name] = value

    async def secrets_delete(self, run: Run, task: Task, name: str) -> bool:
        """Forget a secret."""
        self._check(task.spec.permissions.dicode.secrets_write)
        return self.secrets.pop(name, None) is not None

    def _check(self, granted: bool) -> None:
        if not granted:
            raise DicodeError(Code.FORBIDDEN, "the task may not do this")
