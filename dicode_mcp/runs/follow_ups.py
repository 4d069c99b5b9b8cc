"""What follows from the end of a run: decided here, written in the finishing transaction.

Pure: given the ended run and the tasks in force, gives the runs to add. Chains and failure chains
are decided here; retry joins them with its own issue.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dicode_mcp.runs.model import Reason, Run, RunError, RunRequest, RunStatus, Trigger

MAX_CHAIN_DEPTH = 16
FAILURE_CHAIN = "failure-chain:"
"""What the actor of a run begins with when a failure chain started it."""
NOTIFY = "notify:"
"""What the actor of a run begins with that tells of another task; the rest is that task's id."""

ENDED_BADLY = frozenset({RunStatus.FAILURE, RunStatus.TIMEOUT, RunStatus.LOST})
"""The ends that say that the task does not work."""


def tells(run: Run) -> bool:
    """Tell whether a run itself tells of another's end, or is part of one that does."""
    return run.actor.startswith((NOTIFY, FAILURE_CHAIN))


def passed_on(run: Run, actor: str) -> str:
    """Give the actor of a run that ``run`` starts and waits for: it stays part of a telling."""
    return run.actor if tells(run) else actor


def origin_of(run: Run) -> str:
    """Give the ``origin`` of a run that comes of ``run``."""
    return run.origin or run.actor


def chain_matches(on: str, status: RunStatus) -> bool:
    """Tell whether a chain's ``on`` fits how the upstream run ended."""
    if status is RunStatus.SUCCESS:
        return on in ("success", "always")
    if status in ENDED_BADLY:
        return on in ("failure", "always")
    return False


def chain_input(run: Run, on: str = "success") -> Any:
    """Give what a chained run gets as ``input``: the return value of the run before it.

    Where there is none, a chain on success gets None, and one that also follows failures gets how
    the run ended: ``{status, error, returnValue}``.
    """
    if run.return_value is not None:
        return json.loads(run.return_value)
    if on == "success":
        return None
    return {"status": run.status.value, "error": _error(run), "returnValue": None}


def chain_requests(run: Run, downstream: Iterable[tuple[str, str]]) -> list[RunRequest]:
    """Give the requests of the tasks chained to ``run``: pairs of task id and ``on``."""
    return [
        RunRequest(
            task_id=task_id,
            trigger=Trigger.CHAIN,
            input=chain_input(run, on),
            actor=run.actor if run.actor.startswith(NOTIFY) else f"chain:{run.task_id}",
            strict_params=False,
            idempotency_key=f"chain:{run.id}",
            parent_run_id=run.id,
            root_run_id=run.root_run_id or run.id,
            chain_depth=run.chain_depth + 1,
            origin=origin_of(run),
        )
        for task_id, on in downstream
        if chain_matches(on, run.status)
    ]


def failure_request(run: Run, target: str, params: Mapping[str, Any]) -> RunRequest | None:
    """Give the failure chain's request, or None where SPEC 3.5 suppresses it.

    Never for a success, for the target's own failures, nor for a run that a failure chain
    started (told by its actor).
    """
    if run.status not in ENDED_BADLY or target == run.task_id:
        return None
    if run.actor.startswith(FAILURE_CHAIN):
        return None
    value = json.loads(run.return_value) if run.return_value is not None else None
    return RunRequest(
        task_id=target,
        trigger=Trigger.CHAIN,
        params=params,
        input={
            "taskID": run.task_id,
            "runID": run.id,
            "status": run.status.value,
            "output": value,
            "error": _error(run),
            "_chain_depth": run.chain_depth + 1,
            **params,
        },
        actor=f"{FAILURE_CHAIN}{run.task_id}",
        strict_params=False,
        idempotency_key=f"failure-chain:{run.id}",
        parent_run_id=run.id,
        root_run_id=run.root_run_id or run.id,
        chain_depth=run.chain_depth + 1,
        # No origin: an alarm is the owner's, and is raised whoever has lost a key meanwhile.
    )


def depth_error(request: RunRequest) -> RunError | None:
    """Say that a follow-up would be too deep, or give None."""
    if request.chain_depth <= MAX_CHAIN_DEPTH:
        return None
    return RunError(
        Reason.CHAIN_DEPTH,
        f"runs that follow one another may be {MAX_CHAIN_DEPTH} deep, and the one before this is",
        "look for tasks that start each other in a circle; get_runs shows each run's parent_run_id",
    )


def _error(run: Run) -> dict[str, Any] | None:
    if run.error is None:
        return None
    return {"code": run.error.code, "message": run.error.message}
