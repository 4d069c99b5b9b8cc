"""The executor that starts each launch as a new process, and owns all of them.

It does not know why a process runs. What the launch's policy comes to is the plan of its cage;
the process confines itself by it before anything of the task is read.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.executor import tree
from dicode_mcp.executor.antechamber import Antechamber
from dicode_mcp.executor.forkserver.pool import Bounds, ForkServers
from dicode_mcp.executor.forkserver.server import IPC_FD, Request, Unusable
from dicode_mcp.executor.handed import marks, memory_file, pipe, with_fd, write_files, written_marks
from dicode_mcp.executor.orphans import Orphans, Strangers
from dicode_mcp.executor.overseer import watch_tree
from dicode_mcp.executor.process import Held, SpawnedProcess
from dicode_mcp.executor.pump import OutputPump
from dicode_mcp.executor.sandbox.cages import Cages, bare_environment, check_size, command
from dicode_mcp.executor.sandbox.control import Control, NotApplied
from dicode_mcp.executor.sandbox.gate.gate import Gate
from dicode_mcp.executor.sandbox.gate.refusals import Tell
from dicode_mcp.executor.sandbox.plan import TREE, Plan
from dicode_mcp.executor.standby import Standby, StandbyBounds
from dicode_mcp.protocols import Facility, Health, Launch, LineSink, RawLine, Warm
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.runs.logs import Stream
from dicode_mcp.runs.redaction import Redactor

TEND_S = 30.0
"""How long a dead orphan may wait to be reaped while no run ends."""

log = logging.getLogger("dicode.executor")

_PROCESSORS = os.cpu_count() or 1
_UNCAGED = "this executor confines nothing"


class SpawnExecutor:
    """Starts processes and stays with each to its end. Use it with ``async with``.

    Leaving the block stops what still runs. ``strangers`` says which children of this process
    come from elsewhere; children that it has when the executor is made are never touched.
    """

    def __init__(
        self,
        clock: Clock,
        limits: LogLimits | None = None,
        strangers: Strangers = Strangers.STARTED,
        cages: Cages | None = None,
        forks: Bounds | None = None,
        standby: StandbyBounds | None = None,
    ) -> None:
        self._clock = clock
        self._cages = cages
        self._limits = limits or LogLimits()
        self._group = asyncio.TaskGroup()
        self._live: set[SpawnedProcess] = set()
        self._orphans = Orphans(strangers)
        self._closing = asyncio.Event()
        self._null = -1
        self.forks = ForkServers(self._group, clock, forks)
        """The fork servers; without a sandbox none is ever started."""
        fork = partial(self._forked, waits=True)
        self._antechamber = Antechamber(
            clock, cages, self.forks, self._orphans, fork=fork, own=self._take
        )
        self.standby = Standby(
            self._group,
            clock,
            standby or StandbyBounds(),
            make=self._antechamber.make,
            fits=self._antechamber.fits,
            discard=self._antechamber.discard,
            busy=lambda: len(self._live) >= _PROCESSORS,
        )
        """Processes that wait for runs."""

    async def __aenter__(self) -> Self:
        """Begin to own processes."""
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        await self._group.__aenter__()
        self._group.create_task(self._tend(), name="orphans")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what still runs and wait for it."""
        try:
            await asyncio.gather(*(p.stop() for p in tuple(self._live)), return_exceptions=True)
            self._closing.set()
            self.standby.close()
            self.forks.close()
            await self._group.__aexit__(kind, error, trace)
        finally:
            os.close(self._null)

    def enforcement(self) -> Health:
        """Tell whether a launch's sandbox policy holds, and if not, what does not."""
        return self._cages.health() if self._cages else Health(False, _UNCAGED)

    def facilities(self) -> tuple[Facility, ...]:
        """Tell of each thing that launches can be held to on this machine."""
        return self._cages.facilities() if self._cages else ()

    def unheld(self, launch: Launch) -> tuple[str, ...]:
        """Say what a launch would not be held to on this machine."""
        return self._cages.unheld(launch) if self._cages else (_UNCAGED,)

    def warm(self, python: str, warm: Warm) -> None:
        """Keep an interpreter ready, where launches are confined."""
        if self._cages is not None and self._cages.mode != "off":
            self.forks.begin(python, warm)

    async def start(
        self, launch: Launch, sink: LineSink, ipc_fd: int | None = None
    ) -> SpawnedProcess:
        """Start ``launch``; ``ipc_fd`` is inherited by it and closed here in any case.

        Raises ``DicodeError``: SANDBOX_UNAVAILABLE when it cannot be held to its policy,
        RUNTIME_UNAVAILABLE when the program cannot be started, INTERNAL when the machine has no
        room for another process, TASK_NOT_READY when the folder is gone.
        """
        scratch: Path | None = None
        try:
            if self._closing.is_set():
                raise DicodeError(Code.INTERNAL, "nothing is started any more: the server ends")
            ready = await self.standby.take(launch)
            if ready is not None:
                scratch = ready.launch.policy.scratch
                pump = self._pump(ready.out, ready.err, launch, sink)
                process = self._antechamber.call(ready, launch, sink, pump, ipc_fd)
            else:
                write_files(launch.policy.scratch, launch.files)
                process = await self._begin(launch, sink, ipc_fd)
        except OSError as error:
            raise explain_start(error, launch) from error
        finally:
            if ipc_fd is not None:
                os.close(ipc_fd)
        self._live.add(process)
        name = f"process-{process.pid}"
        self._group.create_task(self._own(process, launch, scratch), name=name)
        self.standby.began(launch)
        try:
            await process.applied()
        except NotApplied as failed:
            await process.wait()
            raise self._not_applied(failed, launch) from failed
        except asyncio.CancelledError:
            await process.stop()
            raise
        return process

    def _not_applied(self, failed: NotApplied, launch: Launch) -> DicodeError:
        assert self._cages is not None
        if not launch.cwd.is_dir():
            return explain_start(OSError(errno.ENOENT, ""), launch)
        return self._cages.explain(failed)

    async def sweep(self, instance_id: str) -> int:
        """Kill processes a crashed server of this data dir left behind; give their number."""
        waiting = [ready.pid for ready in self.standby.waiting()]
        living = [process.pid for process in self._live]
        spare = frozenset([*living, *waiting, *self.forks.pids()])
        return await asyncio.to_thread(tree.sweep, instance_id, spare=spare)

    async def _begin(self, launch: Launch, sink: LineSink, ipc_fd: int | None) -> SpawnedProcess:
        plan = self._cages.plan(launch) if self._cages else None
        with self._orphans.coming(marks(launch)), ExitStack() as kept, ExitStack() as given:
            out, child_out = pipe(kept, given)
            err, child_err = pipe(kept, given)
            unheld = self._cages.unheld(launch) if self._cages else ()
            held = Held(unheld=unheld)
            if plan is None or self._cages is None:
                pid = self._popen(launch, child_out, child_err, ipc_fd)
            else:
                group = self._cages.group(launch, plan)
                if group is not None:
                    kept.callback(group.remove)
                gate = self._cages.gate(launch, plan, self._teller(sink, launch.hide))
                if gate is not None:
                    kept.callback(gate.abandon)
                    launch = replace(launch, env={**launch.env, **gate.variables})
                joins = group.joins if group else ()
                fds = (child_out, child_err, ipc_fd, gate, joins)
                pid, control = await self._forked(launch, plan, *fds) or self._popen_caged(
                    launch, plan, *fds
                )
                watched = (
                    {} if plan.separate else {str(kind): value for kind, value in plan.watched}
                )
                held = Held(control, group, plan.limits, gate, watched, unheld=unheld)
            given.close()
            pump = self._pump(out, err, launch, sink)
            process = self._take(pid, launch, pump, held)
            kept.pop_all()
            return process

    def _pump(self, out: int, err: int, launch: Launch, sink: LineSink) -> OutputPump:
        pipes: dict[Stream, int] = {"stdout": out, "stderr": err}
        return OutputPump(pipes, sink, self._clock, self._limits, launch.hide)

    def _take(self, pid: int, launch: Launch, pump: OutputPump, held: Held) -> SpawnedProcess:
        """Own a process that is there; when that fails, it ends."""
        try:
            if held.group is not None and not held.begun:
                held.group.add(pid)
            return SpawnedProcess(pid, launch, pump, self._clock, self._orphans, held)
        except BaseException:
            # By its number too: one that was forked a moment ago may not lead its group yet.
            tree.send_group(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if held.control is not None:
                held.control.close()
            raise

    def _popen(self, launch: Launch, out: int, err: int, ipc_fd: int | None) -> int:
        env = with_fd(launch.env, ipc_fd)
        return self._start(launch.argv, env, launch.cwd, out, err, [ipc_fd])

    async def _forked(
        self,
        launch: Launch,
        plan: Plan,
        out: int,
        err: int,
        ipc_fd: int | None,
        gate: Gate | None,
        joins: Sequence[str],
        *,
        waits: bool = False,
    ) -> tuple[int, Control] | None:
        """Have a fork server make the process; None when there is none, or it does not.

        One that ``waits`` is told of its environment and its connection later.
        """
        server = self.forks.ready(launch, plan)
        if server is None:
            return None
        _prepare(launch, plan)
        number = None if ipc_fd is None else IPC_FD
        # A program that waits hears of its run where others have their connection.
        own_env = {} if launch.within_python else dict(launch.env)
        data = plan.data(
            launch,
            keep=[n for n in (number,) if n is not None],
            env=own_env if waits else with_fd(launch.env, number),
            joins=joins,
            waits=waits,
        )
        ours, theirs = socket.socketpair()
        try:
            with theirs, memory_file(data) as file:
                fds = [out, err, theirs.fileno(), file.fileno(), ipc_fd]
                given = [fd for fd in fds if fd is not None]
                request = Request(written_marks(launch), plan.namespaces, given)
                pid = await server.fork(request)
        except Unusable as error:
            ours.close()
            log.info("a run is started as a new process", extra={"why": str(error)})
            return None
        except BaseException:
            ours.close()
            raise
        return pid, Control(ours, gate)

    def _popen_caged(
        self,
        launch: Launch,
        plan: Plan,
        out: int,
        err: int,
        ipc_fd: int | None,
        gate: Gate | None,
        joins: Sequence[str],
    ) -> tuple[int, Control]:
        env = with_fd(launch.env, ipc_fd)
        _prepare(launch, plan)
        keep = [] if ipc_fd is None else [ipc_fd]
        ours, theirs = socket.socketpair()
        data = plan.data(launch, keep=keep, env=env, joins=joins)
        with theirs, memory_file(data) as file:
            argv = command(launch, file.fileno(), theirs.fileno())
            fds = [ipc_fd, file.fileno(), theirs.fileno()]
            try:
                bare = bare_environment(launch.env)
                pid = self._start(argv, bare, Path("/"), out, err, fds)
            except BaseException:
                ours.close()
                raise
        return pid, Control(ours, gate)

    def _start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        out: int,
        err: int,
        fds: Sequence[int | None],
    ) -> int:
        popen = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            # /dev/null: a socket as stdin makes some shells read start-up files.
            stdin=self._null,
            stdout=out,
            stderr=err,
            pass_fds=[fd for fd in fds if fd is not None],
            start_new_session=True,
        )
        # The exit is collected by us, with its resource usage; Popen must not look for it.
        popen.returncode = 0
        return popen.pid

    def _teller(self, sink: LineSink, hide: Redactor) -> Tell:
        return lambda text: sink([RawLine("stderr", hide.text(text), self._clock.now_ms())])

    async def _tend(self) -> None:
        while not await self._clock.wait(self._closing, TEND_S):
            self._orphans.tend()
            self.standby.tend()

    async def _own(self, process: SpawnedProcess, launch: Launch, scratch: Path | None) -> None:
        """Stay with a process to its end. ``scratch`` is the folder it waited with, if it did."""
        try:
            await _with_helpers(process, self._clock)
        finally:
            self._live.discard(process)
            self.standby.ended(launch)
        if scratch is not None:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)


async def _with_helpers(process: SpawnedProcess, clock: Clock) -> None:
    """Stay with a process, with its gate and who watches its limits, where it has them."""
    gate, watched = process.gate, process.watched
    if gate is None and not watched:
        await process.supervise()
        return
    async with asyncio.TaskGroup() as group:
        if gate is not None:
            group.create_task(gate.run(), name=f"gate-{process.pid}")
        watch = group.create_task(watch_tree(process, clock)) if watched else None
        try:
            await process.supervise()
        finally:
            if gate is not None:
                gate.close()
            if watch is not None:
                watch.cancel()


def _prepare(launch: Launch, plan: Plan) -> None:
    if not launch.within_python:
        check_size(launch.argv, with_fd(launch.env, IPC_FD))
        if not os.access(launch.argv[0], os.X_OK):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not launch.cwd.is_dir():
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    if plan.entries:
        (launch.policy.scratch / TREE).mkdir(mode=0o700, exist_ok=True)


def explain_start(error: OSError, launch: Launch) -> DicodeError:
    """Say why a process could not be started, and what to do."""
    program = launch.argv[0]
    if not launch.cwd.is_dir():
        return DicodeError(
            Code.TASK_NOT_READY,
            "the task's folder is not there any more",
            hint="sync its source (sync_source), then run it again",
        )
    if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
        return DicodeError(
            Code.RUNTIME_UNAVAILABLE,
            f"cannot start {program}: {os.strerror(error.errno)}",
            hint="check that the runtime's program is installed and may be executed",
        )
    if error.errno == errno.E2BIG:
        return DicodeError(
            Code.TOO_LARGE,
            "the task's environment and arguments are larger than the system allows",
            hint="pass large values as input or in a file",
        )
    return DicodeError(
        Code.INTERNAL,
        f"cannot start {program}: {os.strerror(error.errno or 0)}",
        hint="the machine may be out of processes, memory or descriptors; try again later",
        retry=Retry.BACKOFF,
    )
