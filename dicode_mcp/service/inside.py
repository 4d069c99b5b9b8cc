"""What a running task may ask of the server, each call checked against ``permissions.dicode``."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus, RunProgress
from dicode_mcp.protocols import RunQuery, Store
from dicode_mcp.providers import ProviderTasks
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.follow_ups import MAX_CHAIN_DEPTH, origin_of, passed_on
from dicode_mcp.runs.model import Reason, Run, RunRequest, Trigger
from dicode_mcp.runs.questions import MAX_QUESTIONS, Answered, Draft, find
from dicode_mcp.service.agents import Agents
from dicode_mcp.service.principal import Principal, key_principal
from dicode_mcp.service.replays import NO_EDIT, Edit, Replays
from dicode_mcp.service.scopes import SECRETS, Scope
from dicode_mcp.service.secrets import SecretsService
from dicode_mcp.service.views import run_line, task_view
from dicode_mcp.spec.model import Task

MAX_KEY_CHARS = 512
MAX_VALUE_BYTES = 1024 * 1024
MAX_RUNS_GIVEN = 100


class Reach(Protocol):
    """Tells whether a task is within the rights of who asked for what a run comes of."""

    def __call__(self, run: Run, task_id: str, *, reading: bool = False) -> bool:
        """``reading``: to read of it, not to run it."""
        ...


def _everything(run: Run, task_id: str, *, reading: bool = False) -> bool:
    return True


class Inside:
    """The calls of ``dicode.*`` and ``kv.*``. ``run`` and ``task`` are the caller's own."""

    def __init__(
        self,
        *,
        queue: Queue,
        registry: Registry,
        store: Store,
        bus: EventBus,
        clock: Clock,
        providers: ProviderTasks,
        secrets: SecretsService,
        agents: Agents | None = None,
        reach: Reach = _everything,
    ) -> None:
        self._queue = queue
        self._reach = reach
        self._providers = providers
        self._secrets = secrets
        self._registry = registry
        self._store = store
        self._bus = bus
        self._clock = clock
        self._replays = Replays(registry, store)
        self._agents = agents or Agents(queue=queue, registry=registry, runtimes={}, runner=None)

    async def run_task(
        self, run: Run, task: Task, target: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Run another task and wait for its end: ``{runID, status, returnValue, error?}``."""
        entry = self._target(run, task, target)
        request = self._request(run, entry, params=params)
        own = entry.task.spec.priority if entry.task else 0
        # Who waits with a high priority would else wait as long as a low one.
        child = await self._queue.submit(replace(request, priority=max(own, run.priority)))
        child = await self._queue.wait_as_parent(run.id, child.id)
        if child.reason == Reason.DEADLOCK and child.error is not None:
            raise DicodeError(Code.CONFLICT, child.error.message, hint=child.error.hint)
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
        request = self._request(run, self._target(run, task, target), input=input)
        return {"runID": (await self._queue.submit(request)).id}

    async def list_tasks(self, run: Run, task: Task) -> list[dict[str, Any]]:
        """List all tasks, as ``list_tasks`` of MCP does."""
        self._require(task.spec.permissions.dicode.list_tasks, "list_tasks", "true")
        entries = self._registry.entries()
        return [task_view(e) for e in entries if self._reach(run, e.id, reading=True)]

    async def get_runs(self, run: Run, task: Task, target: str, limit: int) -> list[dict[str, Any]]:
        """List the newest runs of a task."""
        self._require(task.spec.permissions.dicode.get_runs, "get_runs", "true")
        entry = self._entry(task, target)
        if entry.id != task.id and not self._reach(run, entry.id, reading=True):
            raise self._registry.unknown_task(target)
        query = RunQuery(task_id=entry.id, limit=max(1, min(limit, MAX_RUNS_GIVEN)))
        page = await self._store.list_runs(query)
        return [run_line(found) for found in page.items]

    async def kv_get(self, run: Run, task: Task, key: str) -> Any:
        """Read a value of the task's own store; None when there is none."""
        text = await self._store.kv_get(task.id, _key(key))
        return None if text is None else json.loads(text)

    async def kv_set(self, run: Run, task: Task, key: str, value: Any) -> None:
        """Write a value, at most 1 MiB as JSON."""
        text = _small(value, "kv")
        await self._store.kv_set(task.id, _key(key), text, now_ms=self._clock.now_ms())

    async def kv_delete(self, run: Run, task: Task, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        return await self._store.kv_delete(task.id, _key(key))

    async def kv_list(self, run: Run, task: Task, prefix: str) -> list[str]:
        """List keys with a prefix, sorted."""
        return list(await self._store.kv_list(task.id, prefix))

    async def answer_to(self, run: Run, task: Task, draft: Draft, place: int) -> Answered | None:
        """Give what was answered to a question in an earlier start of the run."""
        if run.trigger in (Trigger.DAEMON, Trigger.AGENT):
            kind = "a daemon" if run.trigger is Trigger.DAEMON else "an agent"
            raise DicodeError(
                Code.NOT_SUPPORTED,
                f"ask: {kind} cannot wait for an answer, since its process would end",
                hint="start a task that asks: dicode.run_task waits for its end",
            )
        asked = await self._store.questions(run.id)
        found = find(draft, place, asked)
        if found is None and len(asked) >= MAX_QUESTIONS:
            raise DicodeError(
                Code.TOO_LARGE,
                f"ask: this run has asked {MAX_QUESTIONS} questions and may ask no more",
                hint="ask for several values in one question: its schema may have 30 properties",
            )
        return found.answered if found else None

    async def once_get(self, run: Run, task: Task, key: str) -> dict[str, Any]:
        """Read what this run did once: ``{found, value}``."""
        text = await self._store.once_get(run.id, _key(key))
        return {"found": text is not None, "value": None if text is None else json.loads(text)}

    async def once_put(self, run: Run, task: Task, key: str, value: Any) -> Any:
        """Keep what this run did once, at most 1 MiB as JSON; gives what is kept."""
        return json.loads(await self._store.once_put(run.id, _key(key), _small(value, "once")))

    async def agent(self, run: Run, task: Task, name: str, payload: Any, limit: Any) -> Any:
        """Run an agent of the task's own folder and wait: what it printed, as JSON."""
        return await self._agents.run(run, task, name, payload, limit)

    async def replay(
        self, run: Run, task: Task, run_id: str, params: Mapping[str, Any], **edited: Any
    ) -> dict[str, Any]:
        """Start a run again and go on: ``{runID, task, taskChanged}``.

        Repeating is granted by ``runs_replay``; editing what a task gets needs the task besides.
        """
        self._require(task.spec.permissions.dicode.runs_replay, "runs_replay", "true")
        edit = Edit(params, (edited["input"],) if "input" in edited else None)
        was = await self._store.get_run(run_id)
        if was is None or (was.task_id != task.id and not self._reach(run, was.task_id)):
            raise DicodeError(Code.RUN_NOT_FOUND, f"there is no run '{run_id[:64]}'")
        entry = self._registry.get(was.task_id)
        if entry is None:
            raise self._registry.unknown_task(was.task_id)
        if edit != NO_EDIT:
            self._target(run, task, entry.id)
        request, told = await self._replays.request(was, edit)
        own = self._request(run, entry)
        child = await self._queue.submit(
            replace(
                request,
                actor=own.actor,
                parent_run_id=own.parent_run_id,
                root_run_id=own.root_run_id,
                chain_depth=own.chain_depth,
                origin=own.origin,
            )
        )
        return {"runID": child.id, "task": child.task_id, "taskChanged": told["task_changed"]}

    async def usage(self, run: Run, task: Task, tokens: int) -> dict[str, Any]:
        """Add to the model tokens the run used; ``left`` is the rest of the day's budget."""
        return await self._queue.use(run, tokens)

    async def progress(
        self, run: Run, task: Task, done: float, total: float | None, message: str
    ) -> None:
        """Tell whoever waits for the run how far it is."""
        self._bus.publish(RunProgress(run.id, done, total, message[:1000]))

    async def provide(self, run: Run, task: Task, values: Mapping[str, str]) -> None:
        """Give secrets to the task that asked this provider's run."""
        self._providers.give(run, task, values)

    async def secrets_set(self, run: Run, task: Task, name: str, value: str) -> None:
        """Set a secret of the server's store; who asked is in the audit log."""
        self._require(task.spec.permissions.dicode.secrets_write, "secrets_write", "true")
        await self._secrets.set(_of_task(run), name, value=value)

    async def secrets_delete(self, run: Run, task: Task, name: str) -> bool:
        """Forget a secret; tells whether there was one."""
        self._require(task.spec.permissions.dicode.secrets_write, "secrets_write", "true")
        try:
            await self._secrets.delete(_of_task(run), name)
        except DicodeError as error:
            if error.code is Code.NOT_FOUND:
                return False
            raise
        return True

    def _target(self, run: Run, task: Task, target: str) -> Entry:
        """Give a task that the caller may start.

        One that its manifest names is its author's word, whoever started it. A pattern says only
        how far it may go: of that, no further than who asked for it all could go himself.
        """
        entry = self._entry(task, target)
        granted = task.spec.permissions.dicode.tasks
        if any(self._names(ref, entry, task) for ref in granted):
            return entry
        if not any(fnmatch.fnmatchcase(entry.id, pattern) for pattern in granted):
            self._require(False, "tasks", json.dumps([entry.id]))
        if not self._reach(run, entry.id):
            raise _beyond(origin_of(run), entry.id)
        return entry

    def _names(self, ref: str, entry: Entry, task: Task) -> bool:
        named = self._registry.resolve(ref, near=task.id)
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
            actor=passed_on(run, f"task:{run.task_id}"),
            strict_params=params is not None,
            parent_run_id=run.id,
            root_run_id=run.root_run_id or run.id,
            chain_depth=run.chain_depth + 1,
            origin=origin_of(run),
        )

    def _require(self, granted: bool, name: str, value: str) -> None:
        if not granted:
            raise DicodeError(
                Code.FORBIDDEN,
                f"the task may not do this: no permissions.dicode.{name} of it allows it",
                hint=f"add to task.yaml: permissions: {{dicode: {{{name}: {value}}}}}",
            )


def _beyond(actor: str, task_id: str) -> DicodeError:
    return DicodeError(
        Code.FORBIDDEN,
        f"{actor.partition('#')[0]}, who asked for this run, may not run {task_id}, and"
        " permissions.dicode.tasks of the task allows it by a pattern only",
        hint=f"name it in task.yaml: permissions: {{dicode: {{tasks: [{json.dumps(task_id)}]}}}};"
        f" or use a key with the scope run:{task_id}",
    )


def _small(value: Any, kind: str) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode("utf-8", "surrogatepass")) > MAX_VALUE_BYTES:
        raise DicodeError(
            Code.TOO_LARGE,
            f"a {kind} value may be {MAX_VALUE_BYTES} bytes as JSON",
            hint="split it over several keys, or keep a file in a path the task may write",
        )
    return text


def _of_task(run: Run) -> Principal:
    """Give a running task as a caller; its manifest was asked before."""
    return key_principal(f"task:{run.task_id}", "sdk", frozenset({Scope(SECRETS)}))


def _key(key: str) -> str:
    if not key or len(key) > MAX_KEY_CHARS:
        raise DicodeError(
            Code.INVALID_ARGUMENT, f"a kv key is a text of 1 to {MAX_KEY_CHARS} characters"
        )
    return key
