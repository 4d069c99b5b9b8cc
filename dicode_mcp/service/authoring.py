"""Use cases of writing tasks: new ones, their files, commits.

Only what lies in a folder on this machine that a source shows is written: local sources, and
sources in dev mode. What is written is checked at once and shown as it is then in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import GitRef
from dicode_mcp.registry import Entry, Registry, SourceState
from dicode_mcp.service import starters
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.commit_forms import (
    checked_author,
    checked_branch,
    checked_message,
    commit_view,
)
from dicode_mcp.service.file_texts import bytes_of, diff_of, part_of, text_of
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.sources import SourcesService, Syncer
from dicode_mcp.service.views import condition_view, problem_view
from dicode_mcp.sources import task_files
from dicode_mcp.sources.discovery import MANIFEST, SET_FILES, is_ignored
from dicode_mcp.sources.git.jobs import Access
from dicode_mcp.sources.git.remote import Reach
from dicode_mcp.sources.working.model import CommitOrder, Committed
from dicode_mcp.spec.ids import check_task_id

READ_CHARS = 16_000


class Commits(Protocol):
    """Commits in work trees."""

    @property
    def reach(self) -> Reach:
        """How far the ``origin`` of a work tree may lead."""
        ...

    def remote_of(self, ref: GitRef) -> Access:
        """Give how to reach a source's remote, with its credentials."""
        ...

    async def commit(self, order: CommitOrder) -> Committed:
        """Commit, and push when asked."""
        ...


@dataclass(frozen=True, slots=True)
class Grounds:
    """What writing needs to know of sources.

    ``refs`` gives a git source's remote, ``namespace`` what a source's ids begin with.
    """

    refs: Callable[[str], GitRef | None]
    namespace: Callable[[str], str]


class AuthoringService:
    """What callers may do to the files of tasks."""

    def __init__(
        self,
        *,
        grounds: Grounds,
        commits: Commits,
        sources: SourcesService,
        syncer: Syncer,
        registry: Registry,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._grounds = grounds
        self._commits = commits
        self._sources = sources
        self._syncer = syncer
        self._registry = registry
        self._audit = audit
        self._clock = clock
        self._writing: dict[str, asyncio.Lock] = {}

    # ── New tasks ──

    async def new(
        self,
        principal: Principal,
        *,
        source: str,
        task_id: str,
        template: str,
        trigger: str = "manual",
        value: str | None = None,
        name: str | None = None,
        description: str | None = None,
    ) -> dict[str, Any]:
        """Make a task's folder from a template: ``{id, folder, files[], live, …}``.

        ``value`` is the trigger's: a cron line, a webhook path, the id of the task before.
        """
        async with self._audit.action(principal, "new_task", task_id, source=source):
            principal.require("author")
            state = self._sources.state(source, principal)
            whole, parts = _place(task_id, self._grounds.namespace(source))
            principal.require("author", whole)
            root = self._root(state)
            self._require_free(whole)
            value = value or starters.default_value(trigger, whole)
            if trigger == "chain" and value is None:
                raise _invalid("trigger_value is missing", "give the id of the task before")
            files = starters.files_of(
                template=template,
                trigger=trigger,
                value=value,
                name=name or parts[-1],
                description=description or "",
            )
            await asyncio.to_thread(_require_searched, root, parts, _shows_set(state))
            folder = await asyncio.to_thread(task_files.make_folder, root, parts, files)
            await self._syncer.sync(source)
        made = {"id": whole, "source": source, "folder": str(folder), "files": sorted(files)}
        return {**made, **self._standing(whole, folder)}

    def _require_free(self, task_id: str) -> None:
        entry = self._registry.get(task_id)
        if entry is not None:
            raise DicodeError(
                Code.CONFLICT,
                f"there is a task '{task_id}' already, in source '{entry.source}'",
                hint="choose another id; read_task_file and write_task_file edit the one there is",
            )

    # ── Files ──

    async def read(
        self,
        principal: Principal,
        task_id: str,
        path: str,
        *,
        offset: int = 1,
        limit: int | None = None,
        most: int = READ_CHARS,
    ) -> dict[str, Any]:
        """Give lines of a file from ``offset`` (1 is the first): at most ``most`` characters.

        ``{id, path, content, hash, size, lines, offset, next_offset?, truncated?}``; ``truncated``
        says that a single line was too long to be given whole.
        """
        entry = self._entry(principal, task_id)
        found = await asyncio.to_thread(task_files.read_file, entry.folder, path)
        text = text_of(found.data, path)
        view: dict[str, Any] = {"id": entry.id, "path": path}
        return {
            **view,
            **part_of(text, offset, limit, most),
            "hash": found.hash,
            "size": len(found.data),
        }

    async def write(
        self,
        principal: Principal,
        task_id: str,
        path: str,
        content: str,
        *,
        expected_hash: str | None = None,
    ) -> dict[str, Any]:
        """Write a file and check the task: ``{id, path, hash, changed, diff, live, valid, …}``."""
        async with self._audit.action(principal, "write_task_file", task_id, path=path[:256]):
            entry = self._entry(principal, task_id)
            task_files.check_path(path)
            self._require_writable(entry)
            data = bytes_of(content)
            async with self._writing.setdefault(entry.id, asyncio.Lock()):
                before = await asyncio.to_thread(
                    task_files.write_file, entry.folder, path, data, expected_hash
                )
                await self._syncer.sync(entry.source)
        old = before.data if before else b""
        return {
            "id": entry.id,
            "path": path,
            "hash": task_files.content_hash(data),
            "changed": before is None or old != data,
            "diff": diff_of(old, data, path, made=before is None),
            **self._standing(entry.id, entry.folder),
        }

    # ── Commits ──

    async def commit(
        self,
        principal: Principal,
        task_id: str,
        message: str,
        *,
        branch: str | None = None,
        push: bool = False,
        author: str | None = None,
    ) -> dict[str, Any]:
        """Commit a task's files: ``{id, commit, branch, author, files[], pushed, …}``."""
        detail = {"push": push, **({"branch": branch[:256]} if branch else {})}
        async with self._audit.action(principal, "commit_task", task_id, **detail):
            entry = self._entry(principal, task_id)
            self._require_writable(entry)
            order = CommitOrder(
                folder=str(await asyncio.to_thread(entry.folder.resolve)),
                message=checked_message(message),
                at_s=self._clock.now_ms() // 1000,
                branch=checked_branch(branch),
                author=checked_author(author),
                push=push,
                remote=self._remote(entry) if push else None,
                reach=self._commits.reach,
            )
            async with self._writing.setdefault(entry.id, asyncio.Lock()):
                made = await self._commits.commit(order)
        return commit_view(entry.id, made)

    def _remote(self, entry: Entry) -> Access | None:
        """Give where to push: a git source's own remote; a local source's ``origin`` otherwise."""
        ref = self._grounds.refs(entry.source)
        return None if ref is None else self._commits.remote_of(ref)

    # ── Rules ──

    def _entry(self, principal: Principal, task_id: str) -> Entry:
        principal.require("author")
        entry = self._registry.resolve(task_id)
        if entry is None or not principal.sees(entry.id):
            raise self._registry.unknown_task(task_id, principal.sees)
        principal.require("author", entry.id)
        return entry

    def _require_writable(self, entry: Entry) -> None:
        root = self._root(self._sources.state(entry.source))
        if not _is_below(entry.folder, root):
            raise DicodeError(
                Code.FORBIDDEN,
                f"the files of task '{entry.id}' are not in the folder of source"
                f" '{entry.source}'; they are not written from here",
                hint="edit them where they come from, or use a dev_ref and dev mode",
            )

    def _root(self, state: SourceState) -> Path:
        """Give the folder of a source that may be written. Raises FORBIDDEN when there is none."""
        if state.dev is not None and state.dev.folder is not None:
            return state.dev.folder if state.dev.folder.is_dir() else state.dev.folder.parent
        revision = state.revision
        if state.kind == "local" and (revision is None or revision.commit is None):
            root = revision.root if revision else Path(state.location)
            return root if root.is_dir() else root.parent
        raise DicodeError(
            Code.FORBIDDEN,
            f"source '{state.name}' comes from git and is not in dev mode; its files are read-only",
            hint=f'switch_dev_mode with source "{state.name}", enabled true and a branch (or'
            " local_path), then write",
        )

    def _standing(self, task_id: str, folder: Path) -> dict[str, Any]:
        """Say how a task stands after a write: in force, or what keeps it from that."""
        entry = self._registry.get(task_id)
        if entry is None or entry.folder != folder:
            return {"live": False, "valid": False, "problems": [], "conditions": []}
        live = entry.task is not None and entry.ready and not entry.contested
        view: dict[str, Any] = {
            "live": live,
            "valid": entry.ready and not entry.problems,
            "problems": [problem_view(problem) for problem in entry.problems],
            "conditions": [condition_view(condition) for condition in entry.conditions],
        }
        if entry.task is not None:
            view["task_hash"] = entry.task.short_hash
        return view


def _place(task_id: str, namespace: str) -> tuple[str, tuple[str, ...]]:
    """Give a new task's whole id and its folders below the source."""
    try:
        check_task_id(task_id)
    except ValueError as error:
        raise _invalid(f"id {error}", 'for example "reports/daily"') from None
    inside = task_id.removeprefix(f"{namespace}/") if namespace else task_id
    parts = tuple(inside.split("/"))
    odd = next((part for part in parts if is_ignored(part, folder=True)), None)
    if odd is not None:
        raise _invalid(f"a folder named '{odd}' is not searched for tasks", "choose another id")
    whole = f"{namespace}/{inside}" if namespace else inside
    try:
        check_task_id(whole)
    except ValueError as error:
        raise _invalid(f"id {error}", "choose a shorter one") from None
    return whole, parts


def _shows_set(state: SourceState) -> bool:
    """Tell whether a source names a set's file rather than a folder."""
    shown = state.dev.folder if state.dev and state.dev.folder else Path(state.location)
    return shown.suffix in (".yaml", ".yml")


def _require_searched(root: Path, parts: tuple[str, ...], shows_set: bool) -> None:
    """Refuse a place below which no task is looked for. Blocks."""
    if shows_set or any((root / name).exists() for name in SET_FILES):
        raise DicodeError(
            Code.NOT_SUPPORTED,
            "the source is a TaskSet: a new folder is no task there until an entry names it",
            hint="add the entry to taskset.yaml on the server's machine, or use a source that is"
            " a plain folder",
        )
    for depth in range(len(parts)):
        above = root.joinpath(*parts[:depth])
        if any((above / name).exists() for name in (MANIFEST, *SET_FILES)):
            shown = "/".join(parts[:depth]) or "the source's folder"
            raise DicodeError(
                Code.CONFLICT,
                f"{shown} is itself a task or a TaskSet; below it no other is looked for",
                hint="choose another id",
            )


def _is_below(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def _invalid(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)
