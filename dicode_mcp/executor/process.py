"""One started process tree, from its first moment until nothing of it is left.

The main process stays unreaped until its tree is gone: so its pid, which is also the group's
number, cannot come to mean anyone else.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicode_mcp.clock import Clock
from dicode_mcp.executor import tree
from dicode_mcp.executor.exits import ExitWatch
from dicode_mcp.executor.linux import Lifeline
from dicode_mcp.executor.orphans import Orphans
from dicode_mcp.executor.pump import OutputPump
from dicode_mcp.executor.sandbox.cages import limit_text
from dicode_mcp.executor.sandbox.control import Control, End
from dicode_mcp.executor.sandbox.gate.gate import Gate
from dicode_mcp.executor.sandbox.groups import Group, Limits
from dicode_mcp.protocols import Exit, Launch

_QUICK_S = 1.0
"""Runs shorter than this cannot see the pids go once around."""
_LEFTOVER_GRACE_S = 1.0
"""What children get that outlive a main process which ended by itself."""
_GIVE_UP_S = 10.0
"""After this long under SIGKILL a process is in the kernel's hands and no longer waited for."""


@dataclass(slots=True)
class _Ending:
    timed_out: bool = False
    stopped: bool = False
    strays: int = 0
    limit: str | None = None
    met: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What holds a process: its cage's socket and groups; empty for one that is not confined."""

    control: Control | None = None
    group: Group | None = None
    limits: Limits = field(default_factory=Limits)
    gate: Gate | None = None
    watched: Mapping[str, float] = field(default_factory=dict[str, float])
    """Limits that nothing holds but a look at its processes by the server."""
    begun: bool = False
    """Its process was given the word already."""
    unheld: tuple[str, ...] = ()
    """What the machine cannot hold it to."""
    waited_in: Path | None = None
    """The scratch folder it was made with, if that is not its run's."""


def _bring_home(waited_in: Path, scratch: Path) -> None:
    """Put what a process that waited has left where its run's would have."""
    with suppress(OSError):  # then it is not found there, and cleared away all the same
        scratch.rename(waited_in / ".before")
        waited_in.rename(scratch)


@dataclass(frozen=True, slots=True)
class _Usage:
    """How a process ended, as ``os.wait`` gives it, and what it took."""

    status: int
    max_rss: int | None
    cpu_seconds: float | None
    strays: int = 0

    @classmethod
    def told(cls, end: End) -> _Usage:
        """Take what the cage told of the task."""
        return cls(end.status, end.max_rss, end.cpu_seconds, end.strays)


class SpawnedProcess:
    """A running launch. ``supervise`` is its life; the executor owns the task that runs it."""

    def __init__(
        self,
        pid: int,
        launch: Launch,
        pump: OutputPump,
        clock: Clock,
        orphans: Orphans,
        held: Held | None = None,
    ) -> None:
        self._held = held or Held()
        self._pid = pid
        self._launch = launch
        self._pump = pump
        self._clock = clock
        self._orphans = orphans
        self._started = clock.monotonic()
        stat = tree.read_stat(pid)
        self._root = tree.Root(pid, stat.start if stat else 0, launch.run_id, launch.instance_id)
        self._lifeline = Lifeline(pid)
        self._exited = asyncio.Event()
        self._over = asyncio.Event()
        """It has exited, or told that its cage is empty: then only that is left of it."""
        self._turn = asyncio.Event()
        self._ending = _Ending()
        self._done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._watch = ExitWatch(pid, self._on_exit)
        orphans.begin(self._root, pump.names)
        if self._held.control is not None:
            self._held.control.on_end(self._on_over)
            if not self._held.begun:
                self._held.control.go()

    @property
    def pid(self) -> int:
        """The main process."""
        return self._pid

    @property
    def gate(self) -> Gate | None:
        """What serves its network, when that goes through a gate."""
        return self._held.gate

    async def applied(self) -> None:
        """Return once the process is confined. Raises ``NotApplied``."""
        if self._held.control is not None:
            await self._held.control.applied()

    @property
    def watched(self) -> Mapping[str, float]:
        """Limits to be held by looking at its processes."""
        return self._held.watched

    async def processes(self) -> list[tree.Stat]:
        """List what is alive of the tree, the main process among it."""
        main = tree.read_stat(self._pid)
        # Not by recent numbers: those of threads are among them.
        listed = await asyncio.to_thread(lambda: tree.members(self._root, tree.all_pids()))
        found = {stat.pid: stat for stat in (*listed, *self._orphans.of(self._root))}
        if main is not None:
            found[main.pid] = main
        return [stat for stat in found.values() if not stat.dead]

    def note_limit(self, broken: str, met: str) -> None:
        """Note a limit that the run was ended by, or came to."""
        self._ending.limit = broken or None
        self._ending.met = met or None

    async def wait(self) -> Exit:
        """Wait until the tree is gone and its output read to the end. May be called again."""
        return await asyncio.shield(self._done)

    async def stop(self) -> None:
        """End the tree: TERM, the launch's grace, KILL. Returns when it is gone."""
        if not self._over.is_set():
            self._ending.stopped = True
            self._turn.set()
        await asyncio.shield(self._done)

    async def supervise(self) -> None:
        """Stay with the process to its end; ``wait`` answers when nothing of the task is left."""
        self._pump.start()
        try:
            await self._until_over()
            end, broken, pressed = self._let_go()
            if end is not None:
                # Its first process, which still exits, takes as long as a short run.
                self._done.set_result(self._exit(_Usage.told(end), broken, pressed))
                await self._until_exited()
        except Exception as error:
            self._abandon()
            if not self._done.done():
                self._done.set_exception(error)
                self._done.exception()  # it may be that nobody waits
        except asyncio.CancelledError:
            self._abandon()
            self._done.cancel()
            raise
        else:
            usage = self._reap()
            if not self._done.done():
                self._done.set_result(self._exit(usage, broken, pressed))

    async def _until_over(self) -> None:
        """Wait for the end, or bring it about; then nothing of the task is left."""
        await self._until_turn()
        asked = self._clock.monotonic()
        if not self._over.is_set():
            await self._end_main()
            grace = self._launch.grace_s - (self._clock.monotonic() - asked)
        else:
            grace = min(self._launch.grace_s, _LEFTOVER_GRACE_S)
        self._orphans.end(self._root)
        if self._held.control is None or self._held.control.end is None:
            await self._clear_tree(grace)
        await self._pump.finish()

    def _on_exit(self) -> None:
        self._exited.set()
        self._on_over()

    def _on_over(self) -> None:
        self._over.set()
        self._turn.set()

    async def _until_turn(self) -> None:
        """Wait for the end, the time limit or a call of ``stop``, whichever is first."""
        try:
            async with asyncio.timeout(self._launch.timeout_s):
                await self._turn.wait()
        except TimeoutError:
            self._ending.timed_out = not self._over.is_set()

    async def _end_main(self) -> None:
        tree.send_group(self._pid, signal.SIGTERM)
        # A group stopped by SIGSTOP would hold its TERM back until the KILL.
        tree.send_group(self._pid, signal.SIGCONT)
        try:
            async with asyncio.timeout(self._launch.grace_s):
                await self._over.wait()
        except TimeoutError:
            tree.send_group(self._pid, signal.SIGKILL)
            await self._over.wait()

    async def _until_exited(self) -> None:
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._exited.wait()
        except TimeoutError:
            tree.send_group(self._pid, signal.SIGKILL)
            await self._exited.wait()

    async def _clear_tree(self, grace_s: float) -> None:
        """End whatever the main process left: TERM, ``grace_s``, KILL until none is found."""
        known: set[tuple[int, int]] = set()
        begun = self._clock.monotonic()
        kill_at = begun + max(0.0, grace_s)
        pause = 0.002
        while True:
            found = await self._leftovers(known)
            tree.reap(found)
            alive = [s for s in found if not s.dead]
            now = self._clock.monotonic()
            if not alive or now > kill_at + _GIVE_UP_S:
                break
            if now >= kill_at:
                tree.send_group(self._pid, signal.SIGKILL)
                _each(alive, signal.SIGKILL)
            else:
                _each([s for s in alive if (s.pid, s.start) not in known], signal.SIGTERM)
            known.update((s.pid, s.start) for s in alive)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)
        self._ending.strays = len(known)

    async def _leftovers(self, known: set[tuple[int, int]]) -> list[tree.Stat]:
        pids = None
        if self._clock.monotonic() - self._started < _QUICK_S:
            pids = tree.recent_pids(self._pid)
        if pids is not None:
            found = tree.members(self._root, pids, known)
        else:
            found = await asyncio.to_thread(
                lambda: tree.members(self._root, tree.all_pids(), known)
            )
        # Without an await between this look and the signals: children are not reaped meanwhile.
        orphans = {stat.pid: stat for stat in self._orphans.of(self._root)}
        return [*orphans.values(), *(s for s in found if s.pid not in orphans)]

    def _reap(self) -> _Usage:
        """Reap the main process, which frees its pid: nothing may be signalled after this."""
        self._lifeline.cut()
        self._orphans.forget(self._root)
        try:
            _, status, usage = os.wait4(self._pid, 0)
        except ChildProcessError:
            return _Usage(signal.SIGKILL, None, None)
        finally:
            if self._held.group is not None:
                self._held.group.remove()
        return _Usage(status, _own_rss(usage), usage.ru_utime + usage.ru_stime)

    def _exit(self, usage: _Usage, broken: str | None, pressed: str | None) -> Exit:
        if self._held.waited_in is not None:
            _bring_home(self._held.waited_in, self._launch.policy.scratch)
        code = os.waitstatus_to_exitcode(usage.status)
        return Exit(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            timed_out=self._ending.timed_out,
            stopped=self._ending.stopped,
            max_rss=usage.max_rss,
            cpu_seconds=usage.cpu_seconds,
            strays=self._ending.strays + usage.strays,
            dropped_bytes=self._pump.dropped_bytes,
            limit=broken,
            limited="pids" if self._ending.limit == "pids" else "memory",
            pressed=pressed,
            pressing="cpu" if self._ending.met == "cpu" else "pids",
            unreached=self._held.gate.wanted if self._held.gate else (),
            unheld=self._held.unheld,
            waited_in=self._held.waited_in,
            reached=self._held.gate.reached if self._held.gate else None,
        )

    def _let_go(self) -> tuple[End | None, str | None, str | None]:
        """Hear what the cage told last: the task's own end, the limit it broke, one it met."""
        held, end = self._held, None
        if held.control is not None:
            held.control.close()
            end = held.control.end
        kind = self._ending.limit or (end.limit if end else None)
        met = self._ending.met or (end.met if end else None)
        if held.group is not None:
            kind = held.group.broken() or kind
            met = ("cpu" if held.group.held_back() else None) or met
            met = "pids" if held.group.refused_pids() else met
        self._ending.limit, self._ending.met = kind, met
        broken, pressed = (limit_text(k, held.limits) if k else None for k in (kind, met))
        return end, broken, pressed

    def _abandon(self) -> None:
        """Let go at once, without waiting: the group is killed, descriptors are closed."""
        tree.send_group(self._pid, signal.SIGKILL)
        self._watch.close()
        self._lifeline.cut()
        self._pump.close()
        self._orphans.forget(self._root)
        os.waitpid(self._pid, 0)
        if self._held.control is not None:
            self._held.control.close()
        if self._held.group is not None:
            self._held.group.remove()


def _each(stats: Iterable[tree.Stat], signum: int) -> None:
    for stat in stats:
        tree.send(stat, signum)


def _own_rss(usage: resource.struct_rusage) -> int | None:
    """Give the peak memory in bytes, or None when the figure is not the process's own.

    Between its start and its exec a child shares our memory, and the kernel counts that too.
    """
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        return None
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
