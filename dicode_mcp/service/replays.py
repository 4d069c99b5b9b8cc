"""Starting a run again with what an earlier one was started with, as it was or edited.

What was kept of a run and how it fits the task in force is decided here; that only the version in
force ever starts is the queue's doing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Store
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.model import Payload, Run, RunRequest, Trigger
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import run_detail
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.params import fill_params

_GIVEN_BY_NAME = frozenset({Trigger.MCP, Trigger.CLI, Trigger.API, Trigger.SDK, Trigger.MANUAL})
"""Started with named parameters; those of all others were also filled from their input."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What a replay changes: ``params`` go over the run's own; a tuple of one is a new input."""

    params: Mapping[str, Any]
    input: tuple[Any] | None = None


NO_EDIT = Edit({})


class Replays:
    """Makes requests of runs that have been."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store

    async def request(
        self, was: Run, edit: Edit, sees: Callable[[str], bool] = lambda task_id: True
    ) -> tuple[RunRequest, dict[str, Any]]:
        """Give the request that repeats a run, and what to tell of it.

        Raises TASK_NOT_FOUND, or CONFLICT when its input was not kept.
        """
        payload = await self._store.get_payload(was.id)
        entry = self._registry.get(was.task_id)
        if entry is None:
            raise self._registry.unknown_task(was.task_id, sees)
        if payload is None or payload.dropped:
            raise _not_kept(was)
        return repeated(was, payload, entry, edit)


class ReplayService:
    """What callers may do with runs that have been."""

    def __init__(self, *, queue: Queue, registry: Registry, store: Store, audit: Audit) -> None:
        self._queue = queue
        self._replays = Replays(registry, store)
        self._store = store
        self._audit = audit

    async def replay(
        self,
        principal: Principal,
        run_id: str,
        edit: Edit = NO_EDIT,
        *,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Start a run again and show the new one, with ``replay``: what differs from then.

        Raises RUN_NOT_FOUND, CONFLICT when its input was not kept, and what ``Queue.submit``
        raises: the version of the task in force is started, never one that waits for approval.
        """
        async with self._audit.action(principal, "replay_run", run_id):
            principal.require("read")
            was = await self._store.get_run(run_id)
            if was is None or not principal.sees(was.task_id):
                raise _no_run(run_id)
            principal.require("run", was.task_id)
            request, told = await self._replays.request(was, edit, principal.sees)
            run = await self._queue.submit(
                replace(request, actor=principal.actor, idempotency_key=idempotency_key)
            )
        return {**run_detail(run), "replay": told}


def repeated(
    was: Run, payload: Payload, entry: Entry, edit: Edit
) -> tuple[RunRequest, dict[str, Any]]:
    """Give the request that repeats a run for the task in force, and what to tell of it."""
    task = entry.task
    params, left_out = _params(was, payload, task, edit)
    request = RunRequest(
        task_id=entry.id,
        trigger=Trigger.REPLAY,
        params=params,
        input=edit.input[0] if edit.input else payload.input,
        request=payload.request,
        replay_of=was.id,
        priority=was.priority or None,
    )
    told: dict[str, Any] = {
        "of": was.id,
        "task_changed": task is not None and task.digest != was.task_hash,
    }
    if told["task_changed"] and task is not None:
        told |= {"hash_then": was.task_hash[:6], "hash_now": task.short_hash}
    if edit.params or edit.input:
        told["edited"] = [*edit.params, *(["input"] if edit.input else [])]
    if left_out:
        told["params_left_out"] = left_out
    return request, told


def _params(
    was: Run, payload: Payload, task: Task | None, edit: Edit
) -> tuple[dict[str, Any], list[str]]:
    """Give the parameters, and the names of those that the task no longer declares."""
    declared = {param.name for param in task.spec.params} if task else set(payload.params)
    kept = {name: value for name, value in payload.params.items() if name in declared}
    if task is not None and edit.input and was.trigger not in _GIVEN_BY_NAME:
        source: object = edit.input[0]
        if isinstance(source, Mapping):
            kept |= fill_params(task.spec.params, cast("Mapping[str, Any]", source))
    return {**kept, **edit.params}, sorted(set(payload.params) - declared)


def _no_run(run_id: str) -> DicodeError:
    return DicodeError(
        Code.RUN_NOT_FOUND, f"run '{run_id[:64]}' not found", hint="call get_runs to list runs"
    )


def _not_kept(was: Run) -> DicodeError:
    return DicodeError(
        Code.CONFLICT,
        f"run {was.id} cannot be replayed: what it was started with is not kept (run_inputs of its"
        " task, or of defaults in dicode.yaml)",
        hint=f'call run_task with id "{was.task_id}" and the params and input it needs; with'
        " run_inputs: {enabled: true} later runs can be replayed",
        data={"run_id": was.id, "task": was.task_id},
    )
