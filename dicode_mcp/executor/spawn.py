"""The executor that starts each launch as a new process, and owns all of them.

It does not know why a process runs. The launch's sandbox policy travels with it; this executor
does not enforce it and says so in ``enforcement``.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from dicode_mcp.clock import Clock
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.executor import tree
from dicode_mcp.executor.orphans import Orphans, Strangers
from dicode_mcp.executor.process import SpawnedProcess
from dicode_mcp.executor.pump import OutputPump
from dicode_mcp.protocols import Health, Launch, LineSink
from dicode_mcp.runs.log_room import LogLimits

TEND_S = 30.0
"""How long a dead orphan may wait to be reaped while no run ends."""

NOT_ENFORCED = (
    "permissions.fs, permissions.net, permissions.run and resources are not yet enforced by this "
    "build: a task can use files, network and programs as the server's own user. Of Deno tasks "
    "they hold as far as Deno's own checks go; each task's NotInForce condition says how far"
)


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
    ) -> None:
        self._clock = clock
        self._limits = limits or LogLimits()
        self._group = asyncio.TaskGroup()
        self._live: set[SpawnedProcess] = set()
        self._orphans = Orphans(strangers)
        self._closing = asyncio.Event()
        self._null = -1

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
            await self._group.__aexit__(kind, error, trace)
        finally:
            os.close(self._null)

    def enforcement(self) -> Health:
        """Tell whether a launch's sandbox policy holds, and if not, what does not."""
        return Health(False, NOT_ENFORCED)

    async def start(
        self, launch: Launch, sink: LineSink, ipc_fd: int | None = None
    ) -> SpawnedProcess:
        """Start ``launch``; ``ipc_fd`` is inherited by it and closed here in any case.

        Raises ``DicodeError``: RUNTIME_UNAVAILABLE when the program cannot be started, INTERNAL
        when the machine has no room for another process, TASK_NOT_READY when the folder is gone.
        """
        try:
            write_files(launch.policy.scratch, launch.files)
            process = self._spawn(launch, sink, ipc_fd)
        except OSError as error:
            raise explain_start(error, launch) from error
        finally:
            if ipc_fd is not None:
                os.close(ipc_fd)
        self._live.add(process)
        self._group.create_task(self._own(process), name=f"process-{process.pid}")
        return process

    async def sweep(self, instance_id: str) -> int:
        """Kill processes a crashed server of this data dir left behind; give their number."""
        spare = frozenset(process.pid for process in self._live)
        return await asyncio.to_thread(tree.sweep, instance_id, spare=spare)

    def _spawn(self, launch: Launch, sink: LineSink, ipc_fd: int | None) -> SpawnedProcess:
        with ExitStack() as kept, ExitStack() as given:
            out, child_out = _pipe(kept, given)
            err, child_err = _pipe(kept, given)
            pid = self._popen(launch, child_out, child_err, ipc_fd)
            given.close()
            try:
                pump = OutputPump({"stdout": out, "stderr": err}, sink, self._clock, self._limits)
                process = SpawnedProcess(pid, launch, pump, self._clock, self._orphans)
            except BaseException:
                tree.send_group(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            kept.pop_all()
            return process

    def _popen(self, launch: Launch, out: int, err: int, ipc_fd: int | None) -> int:
        env = dict(launch.env)
        if ipc_fd is not None:
            env["DICODE_IPC_FD"] = str(ipc_fd)
        popen = subprocess.Popen(
            launch.argv,
            env=env,
            cwd=launch.cwd,
            # /dev/null: a socket as stdin makes some shells read start-up files.
            stdin=self._null,
            stdout=out,
            stderr=err,
            pass_fds=() if ipc_fd is None else (ipc_fd,),
            start_new_session=True,
        )
        # The exit is collected by us, with its resource usage; Popen must not look for it.
        popen.returncode = 0
        return popen.pid

    async def _tend(self) -> None:
        while not await self._clock.wait(self._closing, TEND_S):
            self._orphans.tend()

    async def _own(self, process: SpawnedProcess) -> None:
        try:
            await process.supervise()
        finally:
            self._live.discard(process)


def _pipe(kept: ExitStack, given: ExitStack) -> tuple[int, int]:
    """Make a pipe: our reading end and the child's writing end, each with who closes it."""
    ours, theirs = os.pipe()
    kept.callback(os.close, ours)
    given.callback(os.close, theirs)
    return ours, theirs


def write_files(scratch: Path, files: Mapping[str, bytes]) -> None:
    """Write a launch's files below ``scratch``, 0600; a name that ends in ``/`` is a folder, 0700.

    Raises ``DicodeError(INTERNAL)`` for a name that leaves the folder.
    """
    for name, content in files.items():
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            raise DicodeError(Code.INTERNAL, f"a launch may not write outside its folder: {name}")
        path = scratch.joinpath(*parts)
        folder = path if name.endswith("/") else path.parent
        if folder != scratch:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not name.endswith("/"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                file.write(content)


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
