"""What a running task may ask of the server, each call checked against ``permissions.dicode``."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus, RunProgress
from dicode_mcp.protocols import RunQuery, Store
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.follow_ups import MAX_CHAIN_DEPTH
from dicode_mcp.runs.model import Run, RunRequest, Trigger
from dicode_mcp.service.views import run_line, task_view
from dicode_mcp.spec.model import Task

MAX_KEY_CHARS = 512
MAX_VALUE_BYTES = 1024 * 1024
MAX_RUNS_GIVEN = 100


class Inside:
    """The calls of ``dicode.*`` and ``kv.*``. ``run`` and ``task`` are the caller's own."""

    def __init__(
        self, *, queue: Queue, registry: Registry, store: Store, bus: EventBus, clock: Clock
    ) -> None:
        self._queue = queue
        self._registry = registry
        self._store = store
        self._bus = bus
        self._clock = clock

    async def run_task(
        self, run: Run, task: Task, target: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Run another task and wait for its end: ``{runID, status, returnValue, error?}``."""
        request = self._request(run, self._target(task, target), params=params)
        child = await self._queue.submit(request)
        child = await self._queue.wait_as_parent(run.id, child.id)
        result: dict[str, Any] = {
            "runID": child.id,
            "status": child.status.value,
            "returnValue": json.loads(child.return_value) if child.return_value else None,
        }
        if child.error is not None:
            result["error"] = {"code": child.error.code, "message": child.error.message}
        return result

    async def trigger(self, run: Run, task: Task, target: str, input: Any) -> dict[str, Any]:
        """Start another task and go on: ``{runID}``."""
        request = self._request(run, self._target(task, target), input=input)
        return {"runID": (await self._queue.submit(request)).id}

    async def list_tasks(self, run: Run, task: Task) -> list[dict[str, Any]]:
        """List all tasks, as ``list_tasks`` of MCP does."""
        self._require(task.spec.permissions.dicode.list_tasks, "list_tasks", "true")
        return [task_view(entry) for entry in self._registry.entries()]

    async def get_runs(self, run: Run, task: Task, target: str, limit: int) -> list[dict[str, Any]]:
        """List the newest runs of a task."""
        self._require(task.spec.permissions.dicode.get_runs, "get_runs", "true")
        entry = self._entry(task, target)
        query = RunQuery(task_id=entry.id, limit=max(1, min(limit, MAX_RUNS_GIVEN)))
        page = await self._store.list_runs(query)
        return [run_line(found) for found in page.items]

    async def kv_get(self, run: Run, task: Task, key: str) -> Any:
        """Read a value of the task's own store; None when there is none."""
        text = await self._store.kv_get(task.id, _key(key))
        return None if text is None else json.loads(text)

    async def kv_set(self, run: Run, task: Task, key: str, value: Any) -> None:
        """Write a value, at most 1 MiB as JSON."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) > MAX_VALUE_BYTES:
            raise DicodeError(
                Code.TOO_LARGE,
                f"a kv value may be {MAX_VALUE_BYTES} bytes as JSON",
                hint="split it over several keys, or keep a file in a path the task may write",
            )
        await self._store.kv_set(task.id, _key(key), text, now_ms=self._clock.now_ms())

    async def kv_delete(self, run: Run, task: Task, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        return await self._store.kv_delete(task.id, _key(key))

    async def kv_list(self, run: Run, task: Task, prefix: str) -> list[str]:
        """List keys with a prefix, sorted."""
        return list(await self._store.kv_list(task.id, prefix))

    async def progress(
        self, run: Run, task: Task, done: float, total: float | None, message: str
    ) -> None:
        """Tell whoever waits for the run how far it is."""
        self._bus.publish(RunProgress(run.id, done, total, message[:1000]))

    def _target(self, task: Task, target: str) -> Entry:
        entry = self._entry(task, target)
        granted = task.spec.permissions.dicode.tasks
        if not any(self._grants(pattern, entry, task) for pattern in granted):
            self._require(False, "tasks", json.dumps([entry.id]))
        return entry

    def _grants(self, pattern: str, entry: Entry, task: Task) -> bool:
        if pattern == "*" or fnmatch.fnmatchcase(entry.id, pattern):
            return True
        named = self._registry.resolve(pattern, near=task.id)
        return named is not None and named.id == entry.id

    def _entry(self, task: Task, target: str) -> Entry:
        entry = self._registry.resolve(target, near=task.id)
        if entry is None:
            raise self._registry.unknown_task(target)
        return entry

    def _request(
        self, run: Run, entry: Entry, *, params: Mapping[str, Any] | None = None, input: Any = None
    ) -> RunRequest:
        if run.chain_depth >= MAX_CHAIN_DEPTH:
            raise DicodeError(
                Code.CONFLICT,
                f"runs that start runs may be {MAX_CHAIN_DEPTH} deep; this one is",
                hint="look for tasks that start each other in a circle",
            )
        return RunRequest(
            task_id=entry.id,
            trigger=Trigger.SDK,
            params=params or {},
            input=input,
            actor=f"task:{run.task_id}",
            strict_params=params is not None,
            parent_run_id=run.id,
            root_run_id=run.root_run_id or run.id,
            chain_depth=run.chain_depth + 1,
        )

    def _require(self, granted: bool, name: str, value: str) -> None:
        if not granted:
            raise DicodeError(
                Code.FORBIDDEN,
                f"the task may not do this: no permissions.dicode.{name} of it allows it",
                hint=f"add to task.yaml: permissions: {{dicode: {{{name}: {value}}}}}",
            )


def _key(key: str) -> str:
    if not key or len(key) > MAX_KEY_CHARS:
        raise DicodeError(
            Code.INVALID_ARGUMENT, f"a kv key is a text of 1 to {MAX_KEY_CHARS} characters"
        )
    return key
