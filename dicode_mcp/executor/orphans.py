"""Whose orphans this process's children are, also when they wiped their mark.

A server starts nothing but launches and its own helpers (``dicode_mcp.children``), and the kernel
gives it every process below it whose parent ends (``become_subreaper``). So a child of the server
that is neither is an orphan of a launch, whatever it did to its environment, group and session. It
is one of those launches that were on when it started; one that holds a launch's output pipe is that
launch's. It is cleared away as soon as no launch that is on could be its owner: at the end of the
last one that could.

Nothing else may be taken for an orphan: see ``Strangers``. Decides and reaps; signals nobody that
a launch still on could own. All calls come from the event loop's thread, which also starts and
reaps the launches, so the list of children cannot change under them but by additions.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto

from dicode_mcp.children import being_started, is_own
from dicode_mcp.executor import tree
from dicode_mcp.executor.linux import become_subreaper

_SELF = "/proc/self/task"
_TRIES = 3


class Strangers(Enum):
    """Which processes may be children of this one and yet come from no launch.

    Whoever builds the executor knows; whatever is not certain makes fewer orphans ours.
    """

    NONE = auto()
    """A server with a process of its own: all of its children come from launches."""
    ADOPTED = auto()
    """Orphans of others come to it too: it is a container's first process (``docker exec``), or
    had children before it became a server, and these may leave orphans."""
    STARTED = auto()
    """It also starts processes itself: a program, or a test, that has an executor inside."""


def take_process() -> Strangers:
    """Make this process a server's own: the parent of every orphan below it."""
    if not become_subreaper():
        return Strangers.STARTED
    return Strangers.ADOPTED if os.getpid() == 1 or children() else Strangers.NONE


@dataclass(slots=True, eq=False)
class _Tree:
    root: tree.Root
    pipes: frozenset[str]
    ended: bool = False
    """Its main process has ended; what it left is being cleared."""


class Orphans:
    """Knows the launches that are on, and so which of this process's children are orphans."""

    def __init__(self, strangers: Strangers) -> None:
        self._usual = strangers
        self._before = frozenset(_identity(stat) for stat in map(tree.read_stat, children()))
        self._trees: dict[int, _Tree] = {}
        self._claims: dict[tuple[int, int], _Tree] = {}
        self._coming: list[frozenset[bytes]] = []
        self._waiting: set[int] = set()

    @property
    def _strangers(self) -> Strangers:
        return Strangers.STARTED if being_started() else self._usual

    @contextmanager
    def coming(self, marks: frozenset[bytes]) -> Generator[None]:
        """Expect a launch's main process, which has ``marks``, while the block lasts.

        It may be there before its number is known. The block ends with ``begin``.
        """
        self._coming.append(marks)
        try:
            yield
        finally:
            self._coming.remove(marks)

    def wait(self, pid: int) -> None:
        """Note a main process that has no launch yet. ``begin`` or ``waits_no_more`` follows."""
        self._waiting.add(pid)

    def waits_no_more(self, pid: int) -> None:
        """Note that a process which waited was reaped."""
        self._waiting.discard(pid)

    def begin(self, root: tree.Root, pipes: frozenset[str]) -> None:
        """Note a launch whose main process has started and writes into ``pipes``."""
        self._trees[root.pid] = _Tree(root, pipes)
        self._waiting.discard(root.pid)

    def end(self, root: tree.Root) -> None:
        """Note that a launch's main process has ended. Comes before its first look with ``of``.

        So of two launches that end together the later one finds what could be of either.
        """
        self._trees[root.pid].ended = True

    def forget(self, root: tree.Root) -> None:
        """Note that nothing of a launch is left; comes with the reaping of its main process."""
        gone = self._trees.pop(root.pid)
        self._claims = {key: tree for key, tree in self._claims.items() if tree is not gone}

    def of(self, root: tree.Root) -> list[tree.Stat]:
        """Find the living orphans that a launch which has ended must clear away."""
        own = self._trees[root.pid]
        return [stat for stat in self._adopted() if self._falls_to(own, stat)]

    def tend(self) -> None:
        """Reap dead orphans, and kill those that no launch is left to clear."""
        for stat in self._adopted():
            owners = [t for t in self._trees.values() if t.root.start <= stat.start]
            if not owners and self._is_no_strangers(stat.pid):
                tree.send(stat, signal.SIGKILL)

    def _is_no_strangers(self, pid: int) -> bool:
        """Tell whether a child can only come from a launch."""
        # In this order: see ``dicode_mcp.children``.
        return self._strangers is Strangers.NONE and not is_own(pid)

    def _adopted(self) -> Iterator[tree.Stat]:
        for pid in children():
            if pid in self._trees or pid in self._waiting or is_own(pid):
                continue
            stat = tree.read_stat(pid)
            if stat is None or stat.ppid != os.getpid() or _identity(stat) in self._before:
                continue
            if self._coming and self._is_coming(pid):
                continue
            if not stat.dead:
                yield stat
            elif self._strangers is not Strangers.STARTED and not is_own(pid) and not _reaped(pid):
                # Its first thread has ended, others have not.
                yield replace(stat, state="S")

    def _is_coming(self, pid: int) -> bool:
        environ = tree.read_environ(pid)
        return any(marks and marks <= environ for marks in self._coming)

    def _falls_to(self, own: _Tree, stat: tree.Stat) -> bool:
        if not self._may_take(own, stat):
            return False
        return self._claims.setdefault((stat.pid, stat.start), own) is own

    def _may_take(self, own: _Tree, stat: tree.Stat) -> bool:
        live = [t for t in self._trees.values() if not t.ended]
        environ = tree.read_environ(stat.pid)
        if any(t.root.marks and t.root.marks <= environ for t in live):
            return False
        held = tree.read_pipes(stat.pid)
        writers = [t for t in self._trees.values() if t.pipes & held]
        if writers:
            return own in writers and all(t.ended for t in writers)
        return self._is_no_strangers(stat.pid) and not any(t.root.start <= stat.start for t in live)


def _identity(stat: tree.Stat | None) -> tuple[int, int]:
    return (0, 0) if stat is None else (stat.pid, stat.start)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def children() -> list[int]:
    """List this process's children: a few file reads, however many processes there are.

    A kernel without that list (CONFIG_PROC_CHILDREN) makes it a walk over all processes.
    """
    if sys.platform != "linux":
        return []
    for _ in range(_TRIES):
        try:
            return [
                int(word)
                for thread in os.listdir(_SELF)
                for word in tree.read_bytes(f"{_SELF}/{thread}/children").split()
            ]
        except OSError:
            continue  # a thread ended meanwhile, and its children went to another
    stats = map(tree.read_stat, tree.all_pids())
    return [stat.pid for stat in stats if stat is not None and stat.ppid == os.getpid()]
