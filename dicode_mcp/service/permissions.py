"""Use cases on what tasks may do: what their last runs used of it, and what to declare instead."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any, cast

from dicode_mcp.accesses import AccessBook
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.registry import Registry
from dicode_mcp.runs.accesses import MOST_RUNS, Seen
from dicode_mcp.runs.findings import Finding, as_line, as_yaml, instead_line
from dicode_mcp.runs.suggesting import ENOUGH, Suggestion, suggest, wider_than_used
from dicode_mcp.service.principal import Principal
from dicode_mcp.spec.grants import Ground, absolute, refusal
from dicode_mcp.spec.model import Task

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Walls:
    """What no task is granted: the server's own folders and files."""

    home: Path
    data_dir: Path
    guarded: tuple[Path, ...] = ()

    def ground(self, task: Task) -> Ground:
        """Give where a task stands."""
        return Ground(task.folder, self.home, self.data_dir, (task.folder,), self.guarded)


class PermissionsService:
    """What callers may learn of what tasks use."""

    def __init__(self, *, registry: Registry, book: AccessBook, walls: Walls) -> None:
        self._registry = registry
        self._book = book
        self._walls = walls

    async def suggest(self, principal: Principal, task_id: str) -> dict[str, Any]:
        """Give the smallest permissions: ``{task, runs, permissions, diff, add[], wider[], …}``.

        Raises TASK_NOT_FOUND, TASK_NOT_READY for one that never loaded.
        """
        principal.require("read")
        task = self._task(principal, task_id)
        seen = await self._book.of(task.id)
        found = await asyncio.to_thread(self._suggest, task, seen)
        view: dict[str, Any] = {
            "task": task.id,
            "runs": len(seen.runs),
            "judged": found.runs,
            "permissions": as_yaml(found.permissions),
            "diff": _diff(_declared(task), found.permissions),
            "add": [_finding_view(each) for each in found.add],
            "wider": [_finding_view(each) for each in found.wider],
            "refused": [_finding_view(each) for each in found.refused],
        }
        if principal.scopes is None or principal.allows("admin"):
            # The machine's owner may know what is there; a key that only reads tasks may not.
            await asyncio.to_thread(self._mark_absent, task, found, view)
        if found.unseen:
            view["unseen"] = dict(found.unseen)
        if note := _note(seen, found):
            view["note"] = note
        return view

    async def advice(self, task: Task) -> Sequence[Condition]:
        """Say which permissions the last runs of a task did without."""
        try:
            seen = await self._book.of(task.id)
        except DicodeError:
            return ()  # the store is in trouble, which is no fault of the task
        found = wider_than_used(
            seen,
            task.spec.permissions,
            _declared(task),
            runtime=task.spec.runtime,
            folder=str(task.folder),
        )
        if not found:
            return ()
        lines = [_advice(finding) for finding in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"and {len(found) - _SHOWN} more")
        message = (
            f"wider than what the last {MOST_RUNS} runs used: {'; '.join(lines)}; "
            f'suggest_permissions with id "{task.id}" writes the block'
        )
        return (Condition(ConditionType.PERMISSIONS, False, "WiderThanUsed", message),)

    def _task(self, principal: Principal, task_id: str) -> Task:
        entry = self._registry.resolve(task_id)
        if entry is None or not principal.sees(entry.id):
            raise self._registry.unknown_task(task_id, principal.sees)
        if entry.task is None:
            raise DicodeError(
                Code.TASK_NOT_READY,
                f"task '{entry.id}' was never in force, so no run used anything",
                hint="get_task shows what is wrong with it",
            )
        return entry.task

    def _suggest(self, task: Task, seen: Seen) -> Suggestion:
        ground = self._walls.ground(task)

        def forbidden(path: str, how: str) -> str | None:
            found = refusal(path, how, ground)
            return None if found is None else f"{found[0]}; {found[1]}"

        return suggest(
            seen,
            task.spec.permissions,
            _declared(task),
            runtime=task.spec.runtime,
            folder=str(task.folder),
            home=str(self._walls.home),
            forbidden=forbidden,
        )

    def _mark_absent(self, task: Task, found: Suggestion, view: dict[str, Any]) -> None:
        """Say of paths that a task was refused whether they are there at all. Blocks."""
        ground = self._walls.ground(task)
        for name, findings in (("add", found.add), ("refused", found.refused)):
            for finding, shown in zip(findings, view[name], strict=True):
                if finding.field == "fs" and finding.value["permission"] == "r":
                    path = absolute(finding.value["path"], ground)
                    shown["exists"] = os.path.lexists(path)


def _declared(task: Task) -> Mapping[str, Any]:
    """Give the permissions as the manifest shows them: no value of the server's environment."""
    if task.manifest is None:
        return task.spec.permissions.model_dump(mode="json", exclude_defaults=True)
    return cast("Mapping[str, Any]", task.manifest.get("permissions") or {})


def _diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    lines = unified_diff(
        as_yaml(before).splitlines(keepends=True),
        as_yaml(after).splitlines(keepends=True),
        "declared",
        "suggested",
    )
    return "".join(lines)


def _finding_view(finding: Finding) -> dict[str, Any]:
    view: dict[str, Any] = {"line": as_line(finding)}
    if finding.runs:
        view |= {"runs": finding.runs, "last_run": finding.last_run}
    if finding.why:
        view["why"] = finding.why
    if (instead := instead_line(finding)) is not None:
        view["instead"] = instead
    return view


def _advice(finding: Finding) -> str:
    instead = instead_line(finding)
    return f"{as_line(finding)} ({'remove it' if instead is None else f'write {instead}'})"


def _note(seen: Seen, found: Suggestion) -> str | None:
    if not seen.runs:
        return "no run of this task was seen yet; run it, then ask again"
    if found.runs < ENOUGH:
        return (
            f"{found.runs} runs succeeded under these permissions and were seen whole; from "
            f"{ENOUGH} on, what they did without is left out"
        )
    return None
