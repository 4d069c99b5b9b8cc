"""The use case of moving an installed entry to another commit: shown first, then pinned.

Nothing else moves a pin: no poll, no branch, no edit of the set. The new version waits for its
approval while the old one stays in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.approvals import how_to_approve
from dicode_mcp.service.desk import ATTEMPTS, Desk
from dicode_mcp.service.entry_files import Changed, changed, not_read
from dicode_mcp.service.entry_forms import Wanted
from dicode_mcp.service.installed import Standing
from dicode_mcp.service.previews import Preview, Previewed
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.sharing_views import (
    MOST_CHANGES,
    MOST_PROBLEMS,
    MOST_TASKS,
    approval_of,
    commit_view,
    next_step,
    pin_view,
    problems_of,
    start_view,
)
from dicode_mcp.service.views import problem_view
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import Ref, read_set
from dicode_mcp.spec.taskset.edit import set_version
from dicode_mcp.spec.taskset.lock import Pin, Pins
from dicode_mcp.spec.taskset.world import Remote

_PENDING = "pending_approval"


@dataclass(frozen=True, slots=True)
class _Move:
    """An entry as it would be after an update."""

    text: str
    ref: Ref
    preview: Preview

    def own(self, pins: Pins) -> Pin | None:
        """Give the pin of the entry's own repository."""
        return next((pin for pin in pins if pin.url == self.ref.url), None)


class UpdateService:
    """Updates what is installed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def update(
        self,
        principal: Principal,
        wanted: str,
        *,
        commit: str | None = None,
        tag: str | None = None,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Ask for a newer version of an entry, show what it changes, and pin it.

        ``status`` is ``up_to_date``, ``available`` (with ``dry_run``) or ``updated``.
        """
        detail = {"dry_run": True} if dry_run else {}
        async with self._desk.audit.action(principal, "update_task", wanted, **detail):
            principal.require("author")
            Wanted(commit=commit, tag=tag).check()
            attempts = 0
            while True:
                attempts += 1
                standing = await self._desk.found(principal, wanted)
                try:
                    return await self._moved(principal, standing, commit, tag, dry_run)
                except Changed:
                    if attempts == ATTEMPTS:
                        raise changed(standing.home.file) from None
                except SpecError as error:
                    raise not_read(standing.home.file, error) from None

    async def _moved(
        self,
        principal: Principal,
        standing: Standing,
        commit: str | None,
        tag: str | None,
        dry_run: bool,
    ) -> dict[str, Any]:
        desk, home, old = self._desk, standing.home, standing.pins
        if old is None:
            raise _not_installed(standing)
        for task_id in (standing.id, *desk.tasks_of(standing)):
            principal.require("author", task_id)
        move = await self._wanted(standing, commit, tag)
        preview = move.preview
        if set(preview.pins) <= set(old) and move.text == standing.texts.text():
            waiting = [{"id": task.id, "hash": task.digest} for task in preview.good]
            return self._shown(standing, move, old, "up_to_date", tuple(waiting))
        if not preview.good:
            raise _unreadable(standing, preview)
        claims = desk.registry.claims(home.source)
        old_tasks = {i: claims[i].task for i in desk.tasks_of(standing)}
        tasks = await asyncio.to_thread(self._changes, old_tasks, preview)
        if dry_run:
            return self._shown(standing, move, old, "available", tasks)
        lock = standing.texts.lock().with_entry(home.file.name, standing.key, preview.pins)
        await desk.write(standing.texts, move.text, lock, lock_first=True)
        await desk.syncer.sync(home.source)
        return self._shown(standing, move, old, "updated", tasks)

    # ── What it would be ──

    async def _wanted(self, standing: Standing, commit: str | None, tag: str | None) -> _Move:
        entry, text = standing.doc, standing.texts.text()
        if entry is None or entry.problems or entry.ref is None or entry.ref.url is None:
            raise _not_there(standing)
        ref, known = entry.ref, ()
        remote = Remote(ref.url or "", ref.branch or "main", ref.tag, ref.commit, trusted=True)
        if commit is not None or tag is not None:
            if ref.tag is not None or ref.commit is not None:
                kind, value = ("commit", commit) if commit is not None else ("tag", tag or "")
                text = set_version(text, standing.home.shown, standing.key, kind, value or "")
            elif commit is not None:
                known = (Pin(remote.url, commit, branch=remote.branch),)
            else:
                newest = await self._desk.previews.newest(Remote(remote.url, tag=tag, trusted=True))
                known = (Pin(remote.url, newest.commit, branch=remote.branch),)
        document = read_set(text, standing.home.shown)
        preview = await self._desk.previews.look(standing.home, document, standing.key, known)
        written = next(e.ref for e in document.entries if e.key == standing.key)
        return _Move(text, written or ref, preview)

    def _changes(
        self, old: Mapping[str, Task | None], preview: Preview
    ) -> tuple[dict[str, Any], ...]:
        """Give each task of either version with what is different, compared with what is in force.

        What would make the answer too long is left to get_task. Blocks.
        """
        new = {found.declared.id: found for found in preview.tasks}
        lines: list[dict[str, Any]] = []
        room = MOST_CHANGES
        for task_id in sorted({*new, *old})[:MOST_TASKS]:
            line = self._line(task_id, old.get(task_id), new.get(task_id))
            size = len(str(line.get("changes", "")))
            if size > room:
                line["changes_left_out"] = f"get_task with id {task_id!r} shows them once pinned"
                line["changes"] = _short(cast("Mapping[str, Any]", line["changes"]))
            else:
                room -= size
            lines.append(line)
        return tuple(lines)

    def _line(self, task_id: str, old: Task | None, new: Previewed | None) -> dict[str, Any]:
        if new is None:
            return {"id": task_id, "change": "removed"}
        if new.task is None:
            problems = [problem_view(problem) for problem in new.problems[:MOST_PROBLEMS]]
            return {"id": task_id, "change": "broken", "problems": problems}
        if old is not None and old.digest == new.task.digest:
            return {"id": task_id, "change": "unchanged", "hash": old.digest}
        return {
            "id": task_id,
            "change": "changed" if old is not None else "added",
            "hash": new.task.digest,
            "changes": self._desk.review.changes(old, new.task),
        }

    # ── What is shown ──

    def _shown(
        self,
        standing: Standing,
        move: _Move,
        old: Pins,
        status: str,
        lines: tuple[dict[str, Any], ...],
    ) -> dict[str, Any]:
        before, after = move.own(old), move.own(move.preview.pins)
        view: dict[str, Any] = {
            "entry": standing.key,
            "id": standing.id,
            "source": standing.home.source,
            "file": str(standing.home.file),
            "status": status,
            "url": short_url(move.ref.url or ""),
        }
        if before is not None:
            view["from"] = before.commit
        if after is not None:
            view |= {"to": after.commit, "ref": pin_view(after, None)["ref"]}
            view["log"] = commit_view(move.preview.revisions.get(after))
        others = [pin for pin in move.preview.pins if pin != after and pin not in old]
        if others:
            revisions = move.preview.revisions
            view["repositories"] = [pin_view(pin, revisions.get(pin)) for pin in others]
        if status == "up_to_date" and move.ref.commit is not None:
            view["note"] = "the entry names a commit; give commit or tag to move it"
        if status == "available":
            view["tasks"] = list(lines)
            view["next"] = "call again without dry_run to pin this version; it then waits"
        else:
            tasks = [self._standing(line, move.preview) for line in lines]
            if status == "up_to_date":
                tasks = [task for task in tasks if task.get("state") == _PENDING][:MOST_TASKS]
            view["tasks"] = tasks
            view["pending"] = any(task.get("state") == _PENDING for task in tasks)
            view["next"] = next_step(tasks)
        if move.preview.problems:
            view["problems"] = problems_of(move.preview)
        return view

    def _standing(self, line: dict[str, Any], preview: Preview) -> dict[str, Any]:
        """Add how a task stands after the update."""
        task = next((task for task in preview.good if task.id == line["id"]), None)
        if task is None:
            return line
        state = approval_of(self._desk.registry.get(task.id), task)
        start = start_view(task, self._desk.zone, self._desk.clock.now_ms())
        more = {"approve": how_to_approve(task)} if state == _PENDING else {}
        return {**line, **start, "state": state, **more}


def _short(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a version may do, which matters most and is short."""
    return {"grants": changes["grants"]} if "grants" in changes else {}


def _not_installed(standing: Standing) -> DicodeError:
    ref = standing.doc.ref if standing.doc else None
    if ref is not None and ref.url is not None:
        hint = "it follows its branch by itself; sync_source asks its remote now"
    else:
        hint = "edit it where it is; it is live when saved"
    return DicodeError(
        Code.NOT_SUPPORTED,
        f"'{standing.id}' is an entry of your own in {standing.home.file}, and not pinned",
        hint=hint,
    )


def _not_there(standing: Standing) -> DicodeError:
    problems = [problem_view(p) for p in standing.doc.problems] if standing.doc else []
    return DicodeError(
        Code.CONFLICT,
        f"the lock pins '{standing.key}', which {standing.home.file} does not name with a URL",
        hint=f'mend the entry, or call uninstall_task with id "{standing.id}" to remove its pins',
        data={"problems": problems},
    )


def _unreadable(standing: Standing, preview: Preview) -> DicodeError:
    broken = [*(p for found in preview.tasks for p in found.problems), *preview.problems]
    told = "\n".join(str(problem) for problem in broken[:5]) or "it holds no task any more"
    return DicodeError(
        Code.INVALID_SPEC,
        f"the new version of '{standing.id}' cannot be used, and nothing was changed:\n{told}",
        hint="give commit or tag to choose another version, or tell its author",
        data={"problems": [problem_view(problem) for problem in broken[:MOST_PROBLEMS]]},
    )
