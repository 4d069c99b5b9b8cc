"""What humans have approved, and the use case of approving.

A version of a task that is not the user's own is in force only when a human has said yes to its
content hash. Whoever asks a human is the surface; here it is decided that somebody must.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicode_mcp.clock import Clock, iso
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Approval, Store
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.changes import ROOM, changes, grants
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.sources import Syncer
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.resolution import Trust

PENDING = "PendingApproval"
"""Reason of a ``Ready`` that waits for a human."""
_WHOLE = 8 * 2**20
_HASH = re.compile(r"[0-9a-f]{12,64}")


class Approvals:
    """The approvals there are, in memory. Any thread may ask."""

    def __init__(self, known: Mapping[str, Sequence[Approval]]) -> None:
        self._known = {task_id: tuple(found) for task_id, found in known.items()}

    def gate(self, task: Task, trust: Trust) -> Condition | None:
        """Say why a version must wait; None lets it in.

        From git it is let in at the commit it was approved at: what the hash does not cover (hidden
        files, and those around the folder) is as it was then.
        """
        if trust == "trusted" or any(_covers(a, task) for a in self.of(task.id)):
            return None
        message = f"version {task.digest} waits for an approval: {how_to_approve(task)}"
        return Condition(ConditionType.READY, False, PENDING, message)

    def of(self, task_id: str) -> tuple[Approval, ...]:
        """Give the approvals of a task, newest first."""
        return self._known.get(task_id, ())[::-1]

    def behind(self, task: Task) -> Approval | None:
        """Give the newest approval that lets a version in, when there is one."""
        return next((a for a in self.of(task.id) if _covers(a, task)), None)

    def add(self, approval: Approval) -> None:
        """Note an approval that is stored."""
        others = (a for a in self._known.get(approval.task_id, ()) if a.digest != approval.digest)
        self._known[approval.task_id] = (*others, approval)

    def forget(self, task_id: str) -> None:
        """Forget every approval of a task."""
        self._known.pop(task_id, None)


def _covers(approval: Approval, task: Task) -> bool:
    same_place = task.revision is None or approval.revision == task.revision
    return approval.digest == task.digest and same_place


def how_to_approve(task: Task) -> str:
    """Say what brings a version in force once a human has reviewed it."""
    return (
        f'approve_task with id "{task.id}" and hash "{task.digest}" (it asks a human), or on a'
        f" terminal: dicode task approve {task.id}"
    )


def approved_view(approval: Approval, holds: Callable[[str], bool]) -> dict[str, Any]:
    """Show who approved a version, and whether his key is gone: ``{by, at, key_gone?}``.

    It stands all the same: what was approved is what is in force, to the letter.
    """
    view: dict[str, Any] = {"by": approval.actor, "at": iso(approval.at_ms)}
    return view if holds(approval.actor) else {**view, "key_gone": True}


def pending_view(entry: Entry, waiting: Task, *, room: int = ROOM) -> dict[str, Any]:
    """Show a version that waits: ``{hash, revision?, grants, changes, approve}``. Blocks.

    ``room`` is for the characters of differences.
    """
    old = entry.task if entry.kept else None
    view: dict[str, Any] = {"hash": waiting.digest}
    if waiting.revision:
        view["revision"] = waiting.revision
    view |= {"grants": grants(waiting), "changes": changes(old, waiting, room=room)}
    return view | {"approve": how_to_approve(waiting)}


@dataclass(frozen=True, slots=True)
class Review:
    """What a human is asked about. ``over``: it is in force already, there is nothing to ask."""

    task: Task
    source: str
    view: Mapping[str, Any]
    over: bool = False


class ApprovalsService:
    """Approving versions of tasks."""

    def __init__(
        self,
        *,
        approvals: Approvals,
        registry: Registry,
        syncer: Syncer,
        store: Store,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._approvals = approvals
        self._registry = registry
        self._syncer = syncer
        self._store = store
        self._audit = audit
        self._clock = clock

    async def review(self, principal: Principal, task_id: str, digest: str) -> Review:
        """Give the version that waits for an id, when it is the one that ``digest`` names.

        Raises TASK_NOT_FOUND, INVALID_ARGUMENT for what is no hash, CONFLICT when nothing waits or
        another version does.
        """
        entry = self._entry(principal, task_id)
        if not _HASH.fullmatch(digest):
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                "hash is not a content hash: 12 to 64 hex digits, lower case",
                hint=f'get_task with id "{entry.id}" shows it under pending.hash',
            )
        waiting = entry.waiting
        if waiting is None:
            if entry.task is not None and entry.ready and entry.task.digest.startswith(digest):
                return Review(entry.task, entry.source, {}, over=True)
            raise DicodeError(
                Code.CONFLICT,
                f"no version of task {entry.id} waits for an approval",
                hint=f'get_task with id "{entry.id}" shows how it stands',
            )
        if not waiting.digest.startswith(digest):
            raise DicodeError(
                Code.CONFLICT,
                f"what waits for task {entry.id} is version {waiting.digest}, not {digest}: it is"
                " another than the one that was reviewed",
                hint=f'review it: get_task with id "{entry.id}"; then approve_task with its hash',
                data={"hash": waiting.digest},
            )
        view = await asyncio.to_thread(pending_view, entry, waiting)
        return Review(waiting, entry.source, view)

    async def pending(self, principal: Principal, task_id: str) -> dict[str, Any]:
        """Show the version that waits, with all that can be shown of it.

        Raises TASK_NOT_FOUND, and NOT_FOUND when nothing waits.
        """
        principal.require("read")
        entry = self._entry(principal, task_id)
        if entry.waiting is None:
            raise DicodeError(
                Code.NOT_FOUND,
                f"no version of task {entry.id} waits for an approval",
                hint=f'get_task with id "{entry.id}" shows how it stands',
            )
        view = await asyncio.to_thread(pending_view, entry, entry.waiting, room=_WHOLE)
        return {"id": entry.id, **view}

    async def approve(
        self, principal: Principal, task_id: str, digest: str, *, by_human: bool
    ) -> dict[str, Any]:
        """Approve the version with the whole hash ``digest`` and put it in force.

        ``by_human``: the surface has asked a human about this very version, who said yes. Gives
        ``{id, hash, approved, in_force}``. Raises as ``review`` does, and FORBIDDEN.
        """
        async with self._audit.action(principal, "approve_task", task_id, hash=digest[:64]):
            review = await self.review(principal, task_id, digest)
            task = review.task
            if not review.over:
                _require_human(principal, task, by_human)
                approval = Approval(
                    task.id, task.digest, self._clock.now_ms(), principal.actor, task.revision
                )
                await self._store.add_approval(approval)
                self._approvals.add(approval)
                await self._syncer.sync(review.source)
        entry = self._registry.get(task.id)
        in_force = entry is not None and entry.task is not None and entry.task.digest == task.digest
        return {"id": task.id, "hash": task.digest, "approved": True, "in_force": in_force}

    async def withdraw(self, ids: Iterable[str]) -> None:
        """Forget every approval of some tasks."""
        for task_id in ids:
            await self._store.clear_approvals(task_id)
            self._approvals.forget(task_id)

    def _entry(self, principal: Principal, task_id: str) -> Entry:
        entry = self._registry.resolve(task_id)
        if entry is None or not principal.sees(entry.id):
            raise self._registry.unknown_task(task_id, principal.sees)
        return entry


def _require_human(principal: Principal, task: Task, by_human: bool) -> None:
    """Let nobody approve alone but a caller whose key says that a human stands behind it.

    Of a key that does not say so no answer counts: its holder could give it by itself.
    """
    if principal.allows("approve", task.id) or (by_human and principal.scopes is None):
        return
    if principal.scopes is not None:
        raise DicodeError(
            Code.FORBIDDEN,
            f"approving task {task.id} needs a key with the scope 'approve'; no other implies it",
            hint=f"ask the server's owner to type: dicode task approve {task.id}",
        )
    raise DicodeError(
        Code.FORBIDDEN,
        f"approving task {task.id} needs a human, and this client cannot ask one",
        hint=f"have a human type in a terminal: dicode task approve {task.id}",
    )
