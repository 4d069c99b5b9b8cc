"""The server's handle on the git worker: starts it, gives it jobs, waits for their answers.

It decides nothing about git. The worker is started with the first job and again when it has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from dicode_mcp import children
from dicode_mcp.sources.git.failures import Failure, Reason
from dicode_mcp.sources.git.jobs import Answer, Job

_log = logging.getLogger("dicode.git")

_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What the worker is given of the server's environment; tokens come with their jobs."""
_AT_ONCE = 4
_LATE_S = 5.0
"""How much longer than its deadline a job is waited for."""
_START_S = 30.0
_TRIES = 2


class GitWorker:
    """One worker process. ``do`` works while ``run`` runs."""

    def __init__(self, scratch: Path, environ: Mapping[str, str]) -> None:
        self._scratch = scratch
        self._environ = {name: environ[name] for name in _PASSED if name in environ}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._starting = asyncio.Lock()
        self._running = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._count = 0

    async def run(self) -> None:
        """Own the worker until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._running.set()
                await asyncio.get_running_loop().create_future()
        finally:
            self._running.clear()
            self._group = None
            await self._stop()

    async def warm(self) -> None:
        """Start the worker, so that the next job does not wait for it."""
        await self._running.wait()
        with contextlib.suppress(OSError, TimeoutError):
            await self._started()

    async def do(self, job: Job) -> Answer:
        """Have a job done. What goes wrong, with the worker itself too, is in the answer."""
        await self._running.wait()
        async with self._slots:
            for _ in range(_TRIES):
                try:
                    return await self._done(job)
                except OSError as error:
                    # A job ends with itself alone, so what ended the worker was not this one.
                    _log.warning("the git worker cannot be used: %s", error.strerror)
            return _failed("the git worker cannot be used; see the server's log")

    async def _done(self, job: Job) -> Answer:
        self._count += 1
        name = str(self._count)
        answer = self._scratch / f"{name}.json"
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(job.bounds.deadline_s + _LATE_S):
                process = await self._started()
                self._waiting[name] = ended
                order = {"id": name, "job": job.dump(), "answer": str(answer)}
                assert process.stdin is not None
                process.stdin.write(json.dumps(order).encode() + b"\n")
                await process.stdin.drain()
                status = await ended
            return await asyncio.to_thread(_read, answer, status, job)
        except TimeoutError:
            return Answer(failure=_late(job))
        finally:
            self._waiting.pop(name, None)
            answer.unlink(missing_ok=True)

    async def _started(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None:
                assert self._group is not None
                self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
                process = await self._spawn()
                self._process = process
                self._group.create_task(self._listen(process), name="git worker")
            return self._process

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await children.start(
            sys.executable,
            "-I",
            "-m",
            "dicode_mcp.sources.git.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**self._environ, "TMPDIR": str(self._scratch)},
            cwd=self._scratch,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(_START_S):
                if not await process.stdout.readline():
                    raise OSError(0, "it ended at its start")
        except BaseException:
            _kill(process)
            await children.waited(process)
            raise
        return process

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand out the ends of jobs until the worker ends; it is not missed until the next job."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            told = json.loads(line)
            waiting = self._waiting.get(told["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result(int(told["status"]))
        self._process = None
        _log.warning("the git worker ended; another is started with the next job")
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(OSError(0, "the git worker ended"))
        await children.waited(process)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Its jobs end with it: each has asked the kernel for that.
            _kill(process)
            await children.waited(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _read(answer: Path, status: int, job: Job) -> Answer:
    if status == 0:
        try:
            return Answer.load(answer.read_text())
        except (OSError, ValueError, KeyError, TypeError):
            return _failed("the git worker gave no answer that can be read")
    if status == -signal.SIGALRM:
        return Answer(failure=_late(job))
    if status == -signal.SIGXCPU:
        return Answer(
            failure=Failure(
                Reason.TOO_LARGE,
                f"reading the repository takes more than {job.bounds.cpu_s} s of processor time",
                "use a smaller repository, or set depth: 1 on its source",
            )
        )
    if status == -signal.SIGKILL:
        return Answer(
            failure=Failure(
                Reason.TOO_LARGE,
                "reading the repository was ended by this machine, most likely for its memory",
                "use a smaller repository, or a machine with more memory",
            )
        )
    return _failed(f"the git worker's job ended with status {status}")


def _late(job: Job) -> Failure:
    return Failure(
        Reason.UNREACHABLE,
        f"the remote and its repository took more than {job.bounds.deadline_s:g} s",
        "try again later, or set depth: 1 on the source if its history is long",
    )


def _failed(what: str) -> Answer:
    return Answer(failure=Failure(Reason.INTERNAL, what, "see the server's log"))
