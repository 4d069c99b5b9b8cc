"""Looks at the folders of one source and says what each holds. Blocks; belongs to one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Revision, Runtime
from dicode_mcp.reconciler.plan import Desired, Seen
from dicode_mcp.registry import merge
from dicode_mcp.sources.discovery import Discovery, Found, Limits, Scan, discover, inspect, scan
from dicode_mcp.sources.fingerprint import fingerprint
from dicode_mcp.sources.trouble import MANIFEST, Trouble, may_be_meant
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.problems import Problem, SpecError, problems_in

_log = logging.getLogger("dicode.reconciler")

NotInForce = Callable[[Task], Sequence[Condition]]


class TaskLoader(Protocol):
    """Reads a task folder; raises ``DicodeError`` (``SpecError`` with problems) when it cannot."""

    def load(
        self,
        folder: Path,
        *,
        task_id: str,
        source: str,
        source_root: Path,
        revision: str | None = None,
        task_set_dir: Path | None = None,
    ) -> Task:
        """Give the task in ``folder``."""
        ...


@dataclass(frozen=True, slots=True)
class Eyes:
    """What looking needs: how to read a folder, and whom to ask about what was read."""

    loader: TaskLoader
    runtimes: Mapping[str, Runtime]
    not_in_force: NotInForce
    clock: Clock
    limits: Limits = field(default_factory=Limits)
    scan: Scan = scan


@dataclass(frozen=True, slots=True)
class Look:
    """What is desired, and what could not be searched."""

    desired: Desired
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Memory:
    stamp: int | None
    seen: Seen
    commit: str | None


class Looker:
    """Looks at one source, and remembers what unchanged folders held."""

    def __init__(self, source: str, namespace: str, eyes: Eyes) -> None:
        self._source = source
        self._namespace = namespace
        self._eyes = eyes
        self._memory: dict[Path, _Memory] = {}

    def search(self, revision: Revision) -> Look:
        """Search the whole source; read the folders that changed since they were read."""
        discovery = discover(
            revision.root,
            prefix=self._namespace,
            limits=self._eyes.limits,
            scan=self._eyes.scan,
        )
        kept = {found.folder for found in discovery.found}
        self._memory = {
            folder: memory
            for folder, memory in self._memory.items()
            if folder in kept or _below(folder, discovery.unread)
        }
        seen = self._with_health(
            self._look_at(found, revision, unchanged_is_known=True) for found in discovery.found
        )
        desired = Desired(self._source, seen, whole=True, unread=discovery.unread)
        return Look(desired, _problems(discovery))

    def look(self, revision: Revision, folders: Mapping[Path, str]) -> Look:
        """Read some known task folders again; ``folders`` gives their ids."""
        seen = self._with_health(self._look_again(folder, revision) for folder in sorted(folders))
        return Look(Desired(self._source, seen, looked=frozenset(folders.values())))

    def concerned(self, paths: Iterable[Path]) -> dict[Path, str] | None:
        """Give the task folders, with their ids, to read again after ``paths`` changed.

        A task is concerned by what changes in the tasks inside its folder too. None: only a
        search can tell.
        """
        known = self.known()
        folders: dict[Path, str] = {}
        for path in paths:
            around = [p for p in (path, *path.parents) if p in known]
            if not around or _may_bring_tasks(path, known):
                return None
            inside = [] if path.exists() else _known_below(path, known)
            folders |= {folder: known[folder] for folder in (*around, *inside)}
        return folders

    def known(self) -> dict[Path, str]:
        """Give the folders with a manifest, and their ids, as last seen."""
        return {folder: memory.seen.id for folder, memory in self._memory.items()}

    def _look_again(self, folder: Path, revision: Revision) -> Seen | None:
        found = inspect(folder, revision.root, self._namespace)
        if found is None:
            self._memory.pop(folder, None)
            return None
        return self._look_at(found, revision, unchanged_is_known=False)

    def _look_at(
        self, found: Found, revision: Revision, *, unchanged_is_known: bool
    ) -> Seen | None:
        if found.trouble:
            return self._remember(found, None, revision, _broken(found, [_as(found.trouble)]))
        now_ns = self._eyes.clock.now_ms() * 1_000_000
        # Taken before reading: a change while reading must make the next stamp differ.
        stamp = fingerprint(found.folder, now_ns)
        memory = self._memory.get(found.folder)
        if unchanged_is_known and memory and stamp is not None:
            if (memory.stamp, memory.commit) == (stamp, revision.commit):
                return memory.seen
        seen = self._read(found, revision)
        if seen.task is None and inspect(found.folder, revision.root, self._namespace) is None:
            self._memory.pop(found.folder, None)
            return None
        return self._remember(found, stamp, revision, seen)

    def _remember(self, found: Found, stamp: int | None, revision: Revision, seen: Seen) -> Seen:
        self._memory[found.folder] = _Memory(stamp, seen, revision.commit)
        return seen

    def _read(self, found: Found, revision: Revision) -> Seen:
        try:
            task = self._eyes.loader.load(
                found.folder,
                task_id=found.id,
                source=self._source,
                source_root=revision.root,
                revision=revision.commit,
            )
            checked, declared = self._ask(task)
        except SpecError as error:
            return _broken(found, error.problems)
        except DicodeError as error:
            return _broken(found, [Problem(MANIFEST, 0, 0, "", error.message, error.hint or "")])
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            hint = "give the server's user read access"
            return _broken(found, [Problem(error.filename or MANIFEST, 0, 0, "", what, hint)])
        except Exception as error:
            # One folder that trips over a bug must not hide the others.
            _log.exception("a task folder could not be read", extra={"task": found.id})
            what = f"the server failed to read this folder ({type(error).__name__})"
            return _broken(found, [Problem(MANIFEST, 0, 0, "", what, "see the server's log")])
        faults = [c for c in checked if c.type is ConditionType.READY]
        if faults:
            problems = tuple(p for fault in faults for p in problems_in(fault.message))
            return Seen(found.id, found.folder, None, merge(checked, declared), problems)
        ready = Condition(ConditionType.READY, True, "Loaded")
        return Seen(found.id, found.folder, task, merge((ready,), checked, declared))

    def _ask(self, task: Task) -> tuple[Sequence[Condition], Sequence[Condition]]:
        """Give what the runtime says, and what is said of the manifest.

        A ``Ready`` of the runtime's keeps the task from coming in force. One of the manifest's
        does not: it is in force, and something it declares is not served.
        """
        runtime = self._eyes.runtimes.get(task.spec.runtime)
        checked = runtime.check(task) if runtime else ()
        # A ``Ready`` that is true says nothing: only this reader knows whether all is well.
        told = [c for c in checked if not (c.type is ConditionType.READY and c.status)]
        return told, self._eyes.not_in_force(task)

    def _with_health(self, looks: Iterable[Seen | None]) -> dict[str, Seen]:
        """Add what the machine lacks now, which no folder shows; runtimes are asked once a look."""
        asked: dict[str, tuple[Condition, ...]] = {}
        out: dict[str, Seen] = {}
        for seen in looks:
            if seen is None:
                continue
            if seen.task is not None:
                name = seen.task.spec.runtime
                if name not in asked:
                    asked[name] = self._health(name)
                seen = Seen(
                    seen.id,
                    seen.folder,
                    seen.task,
                    (*seen.conditions, *asked[name]),
                    seen.problems,
                )
            out[seen.id] = seen
        return out

    def _health(self, name: str) -> tuple[Condition, ...]:
        runtime = self._eyes.runtimes.get(name)
        if runtime is None:
            have = ", ".join(sorted(self._eyes.runtimes)) or "none"
            message = f"this server has no runtime {name!r}; it has: {have}"
            return (Condition(ConditionType.RUNTIME, False, "NotInstalled", message),)
        health = runtime.health()
        if health.ok:
            return ()
        return (Condition(ConditionType.RUNTIME, False, "Unhealthy", health.message),)


def _may_bring_tasks(path: Path, known: Mapping[Path, str]) -> bool:
    """Tell whether a changed path may hold tasks, or troubles, that are not known yet."""
    if path.is_dir():
        return True
    return may_be_meant(path.name) and not (path.name == MANIFEST and path.parent in known)


def _known_below(path: Path, known: Iterable[Path]) -> list[Path]:
    """Give the task folders inside a folder that went."""
    below = f"{path}/"
    return [folder for folder in known if str(folder).startswith(below)]


def _below(folder: Path, unread: Sequence[Path]) -> bool:
    return any(folder == above or above in folder.parents for above in unread)


def _broken(found: Found, problems: Sequence[Problem]) -> Seen:
    message = SpecError(problems).message
    ready = Condition(ConditionType.READY, False, "InvalidSpec", message)
    return Seen(found.id, found.folder, None, (ready,), tuple(problems))


def _problems(discovery: Discovery) -> tuple[Problem, ...]:
    return tuple(_as(trouble) for trouble in discovery.troubles)


def _as(trouble: Trouble) -> Problem:
    return Problem(str(trouble.path), 0, 0, "", trouble.message, trouble.hint)
