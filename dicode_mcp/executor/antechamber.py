"""Making a process that waits for its run, giving it one, and ending one that gets none.

Which tasks are worth one, and when, is ``dicode_mcp.executor.standby``'s affair.
"""

from __future__ import annotations

import asyncio
import json
import logging
import marshal
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from dicode_mcp.clock import Clock
from dicode_mcp.errors import DicodeError
from dicode_mcp.executor import tree
from dicode_mcp.executor.exits import ExitWatch
from dicode_mcp.executor.forkserver.pool import ForkServers
from dicode_mcp.executor.forkserver.server import IPC_FD
from dicode_mcp.executor.handed import marks, memory_file, pipe, with_fd, write_files, written_marks
from dicode_mcp.executor.orphans import Orphans
from dicode_mcp.executor.process import Held, SpawnedProcess
from dicode_mcp.executor.pump import OutputPump
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.control import Control, NotApplied
from dicode_mcp.executor.sandbox.gate.gate import Gate
from dicode_mcp.executor.sandbox.plan import Plan
from dicode_mcp.executor.shapes import moved
from dicode_mcp.executor.standby import Ready, places
from dicode_mcp.protocols import Launch, LineSink, RawLine
from dicode_mcp.runs.redaction import Redactor

log = logging.getLogger("dicode.executor")

Fork = Callable[
    [Launch, Plan, int, int, "int | None", "Gate | None", Sequence[str]],
    Awaitable["tuple[int, Control] | None"],
]


_MOST_ENVIRONMENT = 48 * 1024
"""Characters as they are written; what a pipe takes at once."""


class Antechamber:
    """Where processes wait. ``fork`` makes one that does, ``own`` takes it up for a run."""

    def __init__(
        self,
        clock: Clock,
        cages: Cages | None,
        forks: ForkServers,
        orphans: Orphans,
        *,
        fork: Fork,
        own: Callable[[int, Launch, OutputPump, Held], SpawnedProcess],
    ) -> None:
        self._own = own
        self._clock = clock
        self._cages = cages
        self._forks = forks
        self._orphans = orphans
        self._fork = fork

    async def make(self, launch: Launch) -> Ready | None:
        """Make a process that waits, confined; None where that cannot be."""
        scratch = launch.policy.scratch
        ready: Ready | None = None
        try:
            scratch.mkdir(mode=0o700)
            write_files(scratch, launch.files)
            if launch.ipc_path is not None:
                launch.ipc_path.parent.mkdir(mode=0o700)
            ready = await self._made(launch)
            if ready is not None and ready.held.control is not None:
                await ready.held.control.applied()
                return ready
        except (DicodeError, NotApplied, OSError) as error:
            # A run that is made as usual tells what is wrong.
            log.debug("no process can wait for a run", extra={"why": str(error)})
        except asyncio.CancelledError:
            await self._cleared(ready, launch)
            raise
        await self._cleared(ready, launch)
        return None

    async def _made(self, launch: Launch) -> Ready | None:
        plan = self._cages.plan(launch) if self._cages else None
        server = self._forks.ready(launch, plan) if plan is not None else None
        if self._cages is None or plan is None or server is None or not plan.separate:
            return None
        sinks: list[LineSink] = []
        hears = None
        tells = -1
        with self._orphans.coming(marks(launch)), ExitStack() as kept, ExitStack() as given:
            if not launch.within_python:
                launch = replace(launch, argv=(*launch.argv, "waits"))
                hears, tells = os.pipe()
                kept.callback(os.close, tells)
                given.callback(os.close, hears)
            out, child_out = pipe(kept, given)
            err, child_err = pipe(kept, given)
            group = self._cages.group(launch, plan)
            if group is not None:
                kept.callback(group.remove)
            gate = self._cages.gate(launch, plan, self._teller(sinks))
            if gate is not None:
                kept.callback(gate.abandon)
            joins = group.joins if group else ()
            forked = await self._fork(launch, plan, child_out, child_err, hears, gate, joins)
            if forked is None:
                return None
            pid, control = forked
            kept.callback(_kill_unknown, pid, control)
            if group is not None:
                group.add(pid)
            unheld = self._cages.unheld(launch)
            held = Held(control, group, plan.limits, gate, begun=True, unheld=unheld)
            gone = asyncio.Event()
            ExitWatch(pid, gone.set)
            control.go()
            self._orphans.wait(pid)
            kept.pop_all()
        shown = places(plan)
        return Ready(pid, launch, plan, held, server, out, err, tells, shown, sinks, gone)

    def fits(self, ready: Ready, launch: Launch) -> bool:
        """Tell whether a process that waits is what would be made for a launch now."""
        assert self._cages is not None
        return (
            (self._forks.ready(launch, ready.plan) is ready.server or ready.tells >= 0)
            and self._cages.plan(ready.launch) == ready.plan
            and places(ready.plan) == ready.places
            and len(json.dumps(dict(launch.env))) < _MOST_ENVIRONMENT
        )

    def call(
        self, ready: Ready, launch: Launch, sink: LineSink, pump: OutputPump, ipc_fd: int | None
    ) -> SpawnedProcess:
        """Give a process that waits its run."""
        ready.sinks.append(_without(launch.hide, sink))
        env = moved(launch, ready.launch)
        if ready.held.gate is not None:
            env |= ready.held.gate.variables
        held = replace(ready.held, waited_in=ready.launch.policy.scratch)
        process = self._own(ready.pid, launch, pump, held)
        with suppress(OSError):  # one that ended a moment ago is seen to have
            if ready.tells < 0:
                _tell_fork(ready, launch, env, ipc_fd)
            else:
                _tell_program(ready, launch, env)
        return process

    async def discard(self, ready: Ready) -> None:
        """End a process that waits and clear up after it."""
        os.close(ready.out)
        os.close(ready.err)
        if ready.tells >= 0:
            os.close(ready.tells)
        await self._cleared(ready, ready.launch)

    async def _cleared(self, ready: Ready | None, launch: Launch) -> None:
        if ready is not None:
            await asyncio.shield(self._ended(ready))
        await asyncio.to_thread(shutil.rmtree, launch.policy.scratch, ignore_errors=True)

    async def _ended(self, ready: Ready) -> None:
        tree.send_group(ready.pid, signal.SIGKILL)
        await ready.gone.wait()
        _reap(ready.pid)
        self._orphans.waits_no_more(ready.pid)
        held = ready.held
        if held.control is not None:
            held.control.close()
        if held.gate is not None:
            held.gate.abandon()
        if held.group is not None:
            held.group.remove()

    def _teller(self, sinks: Sequence[LineSink]) -> Callable[[str], None]:
        def tell(text: str) -> None:
            for sink in sinks:
                sink([RawLine("stderr", text, self._clock.now_ms())])

        return tell


def _tell_fork(ready: Ready, launch: Launch, env: dict[str, str], ipc_fd: int | None) -> None:
    assert ready.held.control is not None
    assert ipc_fd is not None
    given = {"env": with_fd(env, IPC_FD), "marks": written_marks(launch)}
    with memory_file(marshal.dumps(given, 2)) as file:
        ready.held.control.hand_over(file.fileno(), ipc_fd)


def _tell_program(ready: Ready, launch: Launch, env: dict[str, str]) -> None:
    assert launch.ipc_path is not None
    assert ready.launch.ipc_path is not None
    known = ready.launch.env
    fresh = {name: value for name, value in env.items() if known.get(name) != value}
    # Whoever listens there goes on: a socket is known by its file, whatever that is called.
    try:
        os.rename(launch.ipc_path, ready.launch.ipc_path)
        os.write(ready.tells, json.dumps({"env": fresh}).encode())
    finally:
        os.close(ready.tells)


def _without(hide: Redactor, sink: LineSink) -> LineSink:
    """Give a sink that sees no secrets of the run: what the gate tells names what it was asked."""
    return lambda lines: sink([replace(line, text=hide.text(line.text)) for line in lines])


def _kill_unknown(pid: int, control: Control) -> None:
    control.close()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)
