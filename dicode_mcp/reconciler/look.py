"""Looks at what one source declares and reads it. Blocks; belongs to one thread."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import GitRef, Revision, Runtime
from dicode_mcp.reconciler.declare import Declaration, Declarer, Identity
from dicode_mcp.reconciler.earlier import Approved, Beside, Earlier, nothing_beside
from dicode_mcp.reconciler.effective import change_of, tagged
from dicode_mcp.reconciler.guarded import Guarded
from dicode_mcp.reconciler.inline import materialise
from dicode_mcp.reconciler.memory import Memory, elsewhere, lines, moved, names_place
from dicode_mcp.reconciler.plan import Desired, Seen
from dicode_mcp.reconciler.world import Places, git_ref
from dicode_mcp.registry import merge
from dicode_mcp.sources.discovery import inspect
from dicode_mcp.sources.fingerprint import fingerprint
from dicode_mcp.sources.trouble import MANIFEST
from dicode_mcp.spec.loader import Change
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.problems import Problem, SpecError, problems_in
from dicode_mcp.spec.taskset.resolution import Broken, Declared, Off, Trust

_log = logging.getLogger("dicode.reconciler")

NotInForce = Callable[[Task], Sequence[Condition]]
Gate = Callable[[Task, Trust], Condition | None]
"""Says, as a ``Ready`` that is false, why a version that was read must wait; None lets it in."""


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
        change: Change | None = None,
    ) -> Task:
        """Give the task in ``folder``, its manifest as ``change`` makes it."""
        ...


@dataclass(frozen=True, slots=True)
class Eyes:
    """What looking needs: how to read a folder, and whom to ask about what was read."""

    loader: TaskLoader
    runtimes: Mapping[str, Runtime]
    not_in_force: NotInForce
    clock: Clock
    places: Places = field(default_factory=Places)
    inline_dir: Path = Path("/nowhere")
    """Where the folders of inline tasks are made."""
    gate: Gate = lambda task, trust: None
    approved: Approved = lambda task_id: ()
    beside: Beside = nothing_beside
    dev: Callable[[str], bool] = lambda source: False


@dataclass(frozen=True, slots=True)
class Look:
    """What is desired; ``declaration`` is set when the source was resolved for it."""

    desired: Desired
    declaration: Declaration | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the source: what was not searched, then entries that give no task."""
        if self.declaration is None:
            return ()
        resolution = self.declaration.resolution
        found = (p for broken in resolution.broken for p in broken.problems)
        return tuple(dict.fromkeys((*resolution.problems, *found)))

    @property
    def off(self) -> tuple[tuple[str, str], ...]:
        """The entries that this server does not take, each with why."""
        if self.declaration is None:
            return ()
        return tuple((off.id, _why_off(off)) for off in self.declaration.resolution.off)


class Looker:
    """Looks at one source, and remembers what unchanged folders held."""

    def __init__(self, identity: Identity, eyes: Eyes) -> None:
        self._source = identity.name
        self._tags = identity.tags
        self._eyes = eyes
        self._declarer = Declarer(identity, eyes.places, eyes.clock)
        self._memory: dict[str, Memory] = {}
        self._earlier = Earlier(eyes.approved, eyes.beside)
        self._guarded = Guarded()

    @property
    def declaration(self) -> Declaration:
        """What is declared, as last resolved. Any thread may read it."""
        return self._declarer.now

    @property
    def needs(self) -> frozenset[GitRef]:
        """The repositories that the sets name."""
        home = self._eyes.places.home
        return frozenset(git_ref(remote, home) for remote in self.declaration.resolution.needs)

    def search(self, revision: Revision) -> Look:
        """Resolve the source; read the folders that changed since they were read."""
        return self._resolved(revision, self._look_at)

    def resolve(self, revision: Revision, again: frozenset[str] = frozenset()) -> Look:
        """Resolve the source; trust that only the folders of ``again`` changed."""

        def look(declared: Declared) -> Seen | None:
            memory = self._memory.get(declared.id)
            same = memory is not None and memory.declared == declared
            if same and declared.id not in again and memory is not None:
                return self._known(memory, declared)
            return self._look_at(declared, unchanged_is_known=declared.id not in again)

        return self._resolved(revision, look)

    def look(self, ids: Iterable[str]) -> Look:
        """Read the folders of some declared tasks again."""
        declaration = self.declaration
        wanted = {i: declaration.tasks[i] for i in sorted(ids) if i in declaration.tasks}
        seen = self._with_health(
            self._held(declared, declaration.held[task_id])
            if task_id in declaration.held
            else self._look_again(declared)
            for task_id, declared in wanted.items()
        )
        return Look(Desired(self._source, seen, looked=frozenset(wanted)))

    def _resolved(self, revision: Revision, look: Callable[[Declared], Seen | None]) -> Look:
        declaration = self._declarer.resolve(revision, dev=self._eyes.dev(self._source))
        self._memory = {i: m for i, m in self._memory.items() if i in declaration.tasks}
        unread = declaration.resolution.unread
        seen = self._with_health(
            (
                *(_lost(broken) for broken in declaration.lost.values()),
                *(
                    self._held(declared, declaration.held[task_id])
                    if task_id in declaration.held
                    else look(declared)
                    for task_id, declared in declaration.tasks.items()
                    if not _is_below(declared.folder, unread)
                ),
            )
        )
        desired = Desired(self._source, seen, whole=True, unread=unread)
        return Look(desired, declaration)

    def folders(self) -> dict[Path, list[str]]:
        """Give the folders that were read, with the ids of their tasks."""
        out: dict[Path, list[str]] = {}
        for task_id, memory in self._memory.items():
            if memory.declared.inline is None:
                out.setdefault(memory.declared.folder, []).append(task_id)
        return out

    # One task

    def _look_at(self, declared: Declared, *, unchanged_is_known: bool = True) -> Seen | None:
        memory = self._memory.get(declared.id)
        # Taken before reading: a change while reading must make the next stamp differ.
        stamp = self._stamp(declared)
        if unchanged_is_known and memory and stamp is not None and memory.stamp == stamp:
            if memory.declared == declared:
                return self._known(memory, declared)
            if moved(memory, declared):
                seen = elsewhere(memory.seen, declared)
                self._memory[declared.id] = Memory(stamp, seen, declared, portable=True)
                return seen
        seen = self._read(declared)
        if seen.task is None and self._is_away(declared):
            self._memory.pop(declared.id, None)
            return None
        return self._remember(declared, stamp, seen, declared.tree.trees is not None)

    def _look_again(self, declared: Declared) -> Seen | None:
        """Look at a folder as a search would: it may have gone, or become something else."""
        if self._is_away(declared):
            self._memory.pop(declared.id, None)
            return None
        gone = self._gone(declared)
        if gone is not None:
            return self._remember(declared, None, gone)
        return self._look_at(declared, unchanged_is_known=False)

    def _known(self, memory: Memory, declared: Declared) -> Seen | None:
        """Give what is remembered, unless its faults are told by lines that have moved."""
        if memory.seen.task is None and lines(memory.declared) != lines(declared):
            return self._look_at(declared, unchanged_is_known=False)
        if memory.declared is not declared:
            self._memory[declared.id] = replace(memory, declared=declared)
        return memory.seen

    def _remember(
        self, declared: Declared, stamp: int | str | None, seen: Seen, portable: bool = False
    ) -> Seen:
        portable = portable and seen.task is not None and not names_place(seen.task, declared)
        self._memory[declared.id] = Memory(stamp, seen, declared, portable)
        return seen

    def _stamp(self, declared: Declared) -> int | str | None:
        tree = declared.tree
        if tree.trees is not None:
            # By text: this is asked for every task of a repository at every commit.
            root, folder = str(tree.root), str(declared.folder)
            if folder == root or folder.startswith(f"{root}/"):
                return tree.trees.get(folder[len(root) + 1 :])
        return fingerprint(declared.folder, self._eyes.clock.now_ms() * 1_000_000)

    def _is_away(self, declared: Declared) -> bool:
        """Tell whether a search would not find the task any more; what a set names is not away."""
        if declared.inline is not None or declared.entry is not None:
            return False
        return inspect(declared.folder, _ground(declared)) is None

    def _gone(self, declared: Declared) -> Seen | None:
        """Say what is wrong with a folder that was a task and is not one that can be read."""
        if declared.inline is not None:
            return None
        if declared.entry is not None and not os.path.lexists(declared.folder / MANIFEST):
            shown = declared.tree.name_of(declared.folder)
            what = f"{MANIFEST} is gone from {shown or 'its folder'}"
            fault = declared.entry.problem(what, "put it back, or remove the entry")
            return _broken(declared.id, declared.folder, [fault], "NotFound")
        found = inspect(declared.folder, _ground(declared))
        trouble = found.trouble if found else None
        if trouble is None or trouble.path.name != MANIFEST:
            return None
        fault = Problem(str(trouble.path), 0, 0, "", trouble.message, trouble.hint)
        return _broken(declared.id, declared.folder, [fault])

    def _read(self, declared: Declared) -> Seen:
        task_id, folder = declared.id, declared.folder
        try:
            task = self._load(declared)
            checked, said = self._ask(task)
        except SpecError as error:
            return _broken(task_id, folder, error.problems)
        except DicodeError as error:
            fault = Problem(MANIFEST, 0, 0, "", error.message, error.hint or "")
            return _broken(task_id, folder, [fault])
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
            hint = "give the server's user read access"
            fault = Problem(error.filename or MANIFEST, 0, 0, "", what, hint)
            return _broken(task_id, folder, [fault])
        except Exception as error:
            # One folder that trips over a bug must not hide the others.
            _log.exception("a task folder could not be read", extra={"task": task_id})
            what = f"the server failed to read this folder ({type(error).__name__})"
            fault = Problem(MANIFEST, 0, 0, "", what, "see the server's log")
            return _broken(task_id, folder, [fault])
        faults = [c for c in checked if c.type is ConditionType.READY]
        if faults:
            problems = tuple(p for fault in faults for p in problems_in(fault.message))
            return Seen(task_id, task.folder, None, merge(checked, said), problems)
        ready = Condition(ConditionType.READY, True, "Loaded")
        return Seen(task_id, task.folder, task, merge((ready,), checked, said))

    def _load(self, declared: Declared) -> Task:
        folder = declared.folder
        if declared.inline is not None:
            folder = materialise(declared.inline, self._eyes.inline_dir)
        task = self._eyes.loader.load(
            folder,
            task_id=declared.id,
            source=self._source,
            source_root=declared.tree.root,
            revision=declared.revision,
            task_set_dir=declared.set_dir,
            change=change_of(declared),
        )
        return tagged(task, self._tags)

    def _held(self, declared: Declared, broken: Broken) -> Seen:
        return _broken(declared.id, declared.folder, broken.problems, broken.reason)

    # What no folder shows

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
                conditions = (*seen.conditions, *asked[name], *self._remote(seen.id))
                seen = self._gated(replace(seen, conditions=conditions), seen.task)
            out[seen.id] = self._guard(seen)
        return out

    def _gated(self, seen: Seen, task: Task) -> Seen:
        declared = self.declaration.tasks.get(seen.id)
        wait = self._eyes.gate(task, declared.trust) if declared else None
        if wait is None:
            return seen
        assert declared is not None
        approved = self._earlier.version(declared, task.digest, self._load)
        if approved is not None and approved.digest == task.digest:
            return replace(seen, folder=approved.folder, task=approved)
        rest = [c for c in seen.conditions if c.type is not ConditionType.READY]
        conditions = (wait, *rest)
        return replace(seen, task=None, conditions=conditions, waiting=task, approved=approved)

    def _guard(self, seen: Seen) -> Seen:
        """Take a version out of force whose files may be others than those that were approved."""
        declared = self.declaration.tasks.get(seen.id)
        if declared is None or declared.trust == "trusted":
            return seen
        if seen.task is not None:
            self._guarded.note(seen.task)
            return seen
        covered = frozenset(approval.digest for approval in self._eyes.approved(seen.id))
        seen = replace(seen, covered=covered)
        if self._guarded.lasts(seen.id):
            return seen
        return replace(seen, spoilt=True, conditions=tuple(map(_spoilt, seen.conditions)))

    def _remote(self, task_id: str) -> tuple[Condition, ...]:
        """Say that a task's repository cannot be asked, when it is another than the source's."""
        declared = self.declaration.tasks.get(task_id)
        remote = declared.tree.remote if declared else None
        trouble = self.declaration.troubles.get(remote) if remote else None
        return (trouble,) if trouble else ()

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


def _is_below(folder: Path, unread: Sequence[Path]) -> bool:
    return any(folder == above or above in folder.parents for above in unread)


def _why_off(off: Off) -> str:
    if off.reason == "hosts":
        return f"its hosts name other servers ({off.place})"
    return f"it is switched off ({off.place})"


def _lost(broken: Broken) -> Seen:
    return _broken(broken.id, broken.folder, broken.problems, broken.reason)


def _broken(
    task_id: str, folder: Path, problems: Sequence[Problem], reason: str = "InvalidSpec"
) -> Seen:
    message = SpecError(problems).message
    ready = Condition(ConditionType.READY, False, reason, message)
    return Seen(task_id, folder, None, (ready,), tuple(problems))


def _spoilt(condition: Condition) -> Condition:
    if condition.type is not ConditionType.READY or condition.reason == "InvalidSpec":
        return condition
    why = "nothing is in force meanwhile: the files of the approved version were written over"
    return replace(condition, message=f"{condition.message}; {why}")


def _ground(declared: Declared) -> Path:
    """Give the folder that no link may lead out of on the way to a task."""
    root = declared.tree.root
    return root if declared.folder.is_relative_to(root) else declared.folder
