"""Use cases on tasks: list, look, pause, validate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Pause, Store
from dicode_mcp.queue import Queue
from dicode_mcp.reconciler.effective import change_of
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.runs.model import Run
from dicode_mcp.service.approvals import pending_view
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.cursors import decode, encode
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import (
    condition_view,
    is_paused,
    origin_view,
    problem_view,
    state_of,
    task_detail,
    task_view,
)
from dicode_mcp.service.visible import as_seen, as_told, sees_source, unknown_source
from dicode_mcp.sources.task_files import list_files
from dicode_mcp.spec.loader import MANIFEST, Change
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.problems import Problem, SpecError, nearest, problems_in
from dicode_mcp.spec.taskset.explain import Explained
from dicode_mcp.spec.taskset.resolution import Declared

NextRun = Callable[[str], int | None]
"""Gives when a task will start by itself next (epoch ms), if it will."""

Advise = Callable[[Task], Awaitable[Sequence[Condition]]]
"""Gives what to say of a task that is no fault."""

PAUSE_OWNER = "pause"
_MOST_TAGS = 30


class FolderLoader(Protocol):
    """Reads a task folder, strictly."""

    def load(
        self,
        folder: Path,
        *,
        task_id: str,
        source: str,
        source_root: Path,
        revision: str | None = None,
        task_set_dir: Path | None = None,
        change: Change | None = None,
    ) -> Task:
        """Give the task; raises SpecError."""
        ...

    def validate_text(self, text: str, filename: str) -> list[Problem]:
        """Give what is wrong with a manifest's text alone."""
        ...


class Layers(Protocol):
    """Knows what the sets lay over a task's own manifest."""

    async def explain(self, entry: Entry) -> Sequence[Explained]:
        """Say where each value of the effective manifest is written."""
        ...

    def declared(self, entry: Entry) -> Declared | None:
        """Give what is laid over the entry's folder."""
        ...


class NoLayers:
    """No sets: every manifest is as its file has it."""

    async def explain(self, entry: Entry) -> Sequence[Explained]:
        """Know nothing."""
        return ()

    def declared(self, entry: Entry) -> Declared | None:
        """Know nothing."""
        return None


class TasksService:
    """What callers may do with tasks."""

    def __init__(
        self,
        *,
        registry: Registry,
        queue: Queue,
        store: Store,
        loader: FolderLoader,
        check: Callable[[Task], list[Condition]],
        audit: Audit,
        clock: Clock,
        next_run: NextRun,
        layers: Layers | None = None,
        base_url: Callable[[], str | None] = lambda: None,
        shipped: str | None = None,
        advise: Advise | None = None,
        approved: Callable[[Task], Mapping[str, Any] | None] = lambda task: None,
    ) -> None:
        self._advise = advise
        self._approved = approved
        self._registry = registry
        self._queue = queue
        self._store = store
        self._loader = loader
        self._check = check
        self._audit = audit
        self._clock = clock
        self._next_run = next_run
        self._layers = layers or NoLayers()
        self._base_url = base_url
        self._shipped = shipped
        """The source of the tasks that come with the server: they are listed after all others."""

    async def list(
        self,
        principal: Principal,
        *,
        query: str | None = None,
        tag: str | None = None,
        source: str | None = None,
        status: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> dict[str, Any]:
        """List tasks by id: ``{tasks: […], next_cursor?}``, those that lost their id included.

        ``query`` matches id, name, description and tags, all its words. ``status`` is ``paused``
        or a ``state_of``. The tasks that come with the server are the last, and left out when
        nothing is asked for and they are well; ``note`` says so, and of a tag that no task has.
        Raises SOURCE_NOT_FOUND.
        """
        principal.require("read")
        if source and not self._is_source(principal, source):
            raise unknown_source(self._registry, principal, source)
        after = decode(cursor) if cursor else ""
        found = [
            entry
            for entry in self._everything()
            if self._key(entry) > after
            and principal.sees(entry.id)
            and _matches(entry, query=query, tag=tag, source=source, status=status)
        ]
        hidden = 0
        if not (query or tag or source or status):
            shown = [entry for entry in found if not self._is_quiet(entry)]
            found, hidden = shown, len(found) - len(shown)
        page = found[:limit]
        last = await self._last_runs(principal, page)
        told = [as_told(self._registry, principal, entry) for entry in page]
        result: dict[str, Any] = {"tasks": [self._view(entry, last) for entry in told]}
        if len(found) > limit:
            result["next_cursor"] = encode(self._key(page[-1]))
        if tag and not found and (note := self._unknown_tag(principal, tag)):
            result["note"] = note
        elif hidden and len(found) <= limit:
            result["note"] = (
                f"{hidden} tasks that come with dicode (to notify people, for one) are not listed"
                f' here; list_tasks with source "{self._shipped}" shows them'
            )
        return result

    async def get(
        self, principal: Principal, task_id: str, *, explain: bool = False
    ) -> dict[str, Any]:
        """Show one task whole. Raises TASK_NOT_FOUND with the nearest names.

        ``explain`` adds ``origins``: the layer, file and line of each value of ``spec``.
        """
        principal.require("read")
        entry = self._entry(principal, task_id)
        entry = as_told(self._registry, principal, entry)
        last = await self._last_runs(principal, [entry])
        files, more = await asyncio.to_thread(list_files, entry.folder)
        view = task_detail(
            entry,
            last_run=last.get(entry.id),
            next_run_ms=self._next_run(entry.id),
            dev_mode=self._registry.in_dev_mode(entry.source),
            base_url=self._base_url(),
        )
        spending = self._queue.spending(entry.task) if entry.task else None
        if spending is not None:
            view["budget"] = spending
        view["files"] = [{"path": path, "size": size} for path, size in files]
        if more:
            view["files_truncated"] = True
        approved = self._approved(entry.task) if entry.task else None
        if approved is not None:
            view["approved"] = approved
        if entry.waiting is not None:
            view["pending"] = await asyncio.to_thread(pending_view, entry, entry.waiting)
        if explain:
            view["origins"] = [origin_view(e) for e in await self._layers.explain(entry)]
        return view

    async def set_enabled(
        self, principal: Principal, task_id: str, enabled: bool, reason: str = ""
    ) -> dict[str, Any]:
        """Pause a task or end its pause. Stored; files stay untouched."""
        async with self._audit.action(principal, "set_task_enabled", task_id, enabled=enabled):
            entry = self._entry(principal, task_id)
            principal.require("author", entry.id)
            if enabled:
                await self._store.clear_pause(entry.id)
                self._registry.set_conditions(entry.id, PAUSE_OWNER, ())
            else:
                pause = Pause(entry.id, self._clock.now_ms(), principal.actor, reason)
                await self._store.set_pause(pause)
                self.show_pause(pause)
        view = await self.get(principal, entry.id)
        spent = find(self._entry(principal, entry.id).conditions, ConditionType.BUDGET_REACHED)
        if enabled and spent is not None:
            view["note"] = f"enabled, but no run starts yet: {spent.message}"
        return view

    def show_pause(self, pause: Pause) -> None:
        """Put a stored pause on the task as a condition."""
        message = f"paused by {pause.actor}" + (f": {pause.reason}" if pause.reason else "")
        self._registry.set_conditions(
            pause.task_id,
            PAUSE_OWNER,
            (Condition(ConditionType.PAUSED, True, "Paused", message, pause.at_ms),),
        )

    async def validate(
        self,
        principal: Principal,
        *,
        task_id: str | None = None,
        path: str | None = None,
        text: str | None = None,
    ) -> dict[str, Any]:
        """Check a task of the server, a folder of its machine, or the text of a manifest.

        Gives ``{valid, problems[], conditions[], id?}``; nothing is put in force. Exactly one of
        the three is given.
        """
        given = [name for name, v in (("id", task_id), ("path", path), ("text", text)) if v]
        if len(given) != 1:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                f"give exactly one of id, path and text; found {', '.join(given) or 'none'}",
                hint='for example {"id": "hello"}',
            )
        principal.require("read" if task_id else "author")
        if path is not None and principal.scopes is not None:
            # A key is for tasks, not for the machine that they are on.
            principal.require("admin")
        if text is not None:
            problems = await asyncio.to_thread(self._loader.validate_text, text, "task.yaml")
            return _verdict(problems, [])
        if task_id is not None:
            entry = self._entry(principal, task_id)
            return {"id": entry.id, **await self._validate_entry(entry)}
        folder = await asyncio.to_thread(_task_folder, path or "")
        return await self._validate_folder(folder, folder.name)

    async def _validate_entry(self, entry: Entry) -> dict[str, Any]:
        """Check a task with what its sets lay over it."""
        declared = self._layers.declared(entry)
        if declared is None:
            return await self._validate_folder(entry.folder, entry.id, known=True)
        return await self._validate_folder(
            entry.folder,
            entry.id,
            source_root=declared.tree.root,
            task_set_dir=declared.set_dir,
            change=change_of(declared),
            known=True,
        )

    async def _validate_folder(
        self,
        folder: Path,
        task_id: str,
        *,
        source_root: Path | None = None,
        task_set_dir: Path | None = None,
        change: Change | None = None,
        known: bool = False,
    ) -> dict[str, Any]:
        try:
            task = await asyncio.to_thread(
                self._loader.load,
                folder,
                task_id=task_id,
                source="",
                source_root=source_root or folder.parent,
                task_set_dir=task_set_dir,
                change=change,
            )
        except SpecError as error:
            return _verdict(list(error.problems), [])
        advice = await self._advise(task) if known and self._advise else ()
        return _verdict([], [*await asyncio.to_thread(self._check, task), *advice])

    def _unknown_tag(self, principal: Principal, tag: str) -> str | None:
        tags = {
            known
            for entry in self._everything()
            if entry.task is not None and principal.sees(entry.id)
            for known in entry.task.spec.tags
        }
        if tag in tags:
            return None
        match = nearest(tag, sorted(tags))
        shown = ", ".join(sorted(tags)[:_MOST_TAGS]) or "none"
        more = f" and {len(tags) - _MOST_TAGS} more" if len(tags) > _MOST_TAGS else ""
        closest = f" Did you mean '{match}'?" if match else ""
        return f"no task has the tag '{tag[:128]}'.{closest} Tags here: {shown}{more}."

    def _is_source(self, principal: Principal, name: str) -> bool:
        known = self._registry.source_state(name) is not None
        return known and sees_source(self._registry, principal, name)

    def _everything(self) -> list[Entry]:
        """Give what is in force, and what lost its id to another source, in order."""
        return sorted((*self._registry.entries(), *self._registry.contested()), key=self._key)

    def _is_quiet(self, entry: Entry) -> bool:
        return entry.source == self._shipped and state_of(entry) == "ready"

    def _key(self, entry: Entry) -> str:
        last = "\x7f" if entry.source == self._shipped else ""
        return f"{last}{entry.id}\0{entry.source}"

    def _entry(self, principal: Principal, task_id: str) -> Entry:
        entry = self._registry.resolve(task_id)
        if entry is None or not principal.sees(entry.id):
            raise self._registry.unknown_task(task_id, principal.sees)
        return entry

    async def _last_runs(self, principal: Principal, entries: Sequence[Entry]) -> Mapping[str, Run]:
        found = await self._store.last_runs([entry.id for entry in entries])
        seen = await as_seen(self._store, principal, found.values())
        return {run.task_id: run for run in seen}

    def _view(self, entry: Entry, last: Mapping[str, Run]) -> dict[str, Any]:
        return task_view(
            entry,
            last_run=last.get(entry.id),
            next_run_ms=self._next_run(entry.id),
            dev_mode=self._registry.in_dev_mode(entry.source),
            base_url=self._base_url(),
        )


def _task_folder(path: str) -> Path:
    """Give the folder meant by ``path``, which may name its manifest. Blocks."""
    folder = Path(os.path.expanduser(path))
    if not folder.is_absolute():
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"path is relative: '{path[:256]}'; the server does not know your working directory",
            hint="give the absolute path of the folder that holds task.yaml, or a task's id",
        )
    if folder.name == MANIFEST:
        folder = folder.parent
    if not folder.exists():
        raise DicodeError(
            Code.NOT_FOUND,
            f"there is no folder {str(folder)[:1024]} on the server's machine",
            hint="correct the path; get_task and list_sources show the folders of tasks",
        )
    if not folder.is_dir():
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"{str(folder)[:1024]} is a file, and not one named {MANIFEST}",
            hint="give the folder that holds task.yaml, or the file's text as text",
        )
    return folder


def _verdict(problems: list[Problem], conditions: list[Condition]) -> dict[str, Any]:
    blocking = [c for c in conditions if c.type is ConditionType.READY and not c.status]
    found = [*problems, *(p for c in blocking for p in problems_in(c.message or c.reason))]
    return {
        "valid": not found,
        "problems": [problem_view(p) for p in found],
        "conditions": [condition_view(c) for c in conditions],
    }


def _matches(
    entry: Entry, *, query: str | None, tag: str | None, source: str | None, status: str | None
) -> bool:
    spec = entry.task.spec if entry.task else None
    if tag and (spec is None or tag not in spec.tags):
        return False
    if source and entry.source != source:
        return False
    if status and status != _status(entry):
        return False
    if not query:
        return True
    words = [entry.id, spec.name, spec.description, *spec.tags] if spec else [entry.id]
    haystack = " ".join(words).casefold()
    return all(word in haystack for word in query.casefold().split())


def _status(entry: Entry) -> str:
    if is_paused(entry):
        return "paused"
    return state_of(entry)
