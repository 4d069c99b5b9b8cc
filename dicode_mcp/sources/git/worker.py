"""The git worker: a process of its own that does all git for the server, a fork for each job.

It has the libraries loaded and does nothing itself, so a job starts within milliseconds and what
a hostile repository does to it ends with it. Jobs come as lines of JSON on stdin
(``{"id", "job", "answer"}``); how each ended is in the file it names, and a line on stdout says
that it has ended. When stdin closes, the worker and its jobs end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import resource
import selectors
import shutil
import signal
import sys
from pathlib import Path

from dicode_mcp.sources.git import mirror, remote, wire
from dicode_mcp.sources.git.failures import Failure, GitError, Reason
from dicode_mcp.sources.git.jobs import Answer, Bounds, Job

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_LINE = 2**20
_FILES = 256


def main() -> None:
    """Serve jobs until stdin closes."""
    os.umask(0o022)
    _die_with_parent()
    logging.disable(logging.CRITICAL)
    wire.warm_up()
    _Worker().serve()


class _Worker:
    def __init__(self) -> None:
        self._jobs: dict[int, str] = {}
        self._open = True
        self._rest = b""
        self._bell_read, self._bell_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, _wake)
        signal.set_wakeup_fd(self._bell_write, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self._bell_read, selectors.EVENT_READ)
            _say({"ready": True})
            while self._open:
                for key, _ in selector.select():
                    if key.fd == 0:
                        self._take()
                    else:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._bell_read, 4096)
                        self._reap()
        for pid in self._jobs:
            _end(pid)

    def _take(self) -> None:
        data = os.read(0, _LINE)
        self._open = bool(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            pid = os.fork()
            if pid == 0:
                self._become_job(order)
            self._jobs[pid] = order["id"]

    def _become_job(self, order: dict[str, str]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        code = 1
        try:
            os.setsid()
            _die_with_parent()
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            perform(Job.load(order["job"]), Path(order["answer"]))
            code = 0
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._jobs:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            # What the job started (ssh) is of its session. Its number is its own until the wait.
            _end(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            name = self._jobs.pop(ended.si_pid, None)
            if name is not None:
                _say({"id": name, "status": os.waitstatus_to_exitcode(status)})


def perform(job: Job, answer: Path) -> None:
    """Do a job under its limits and write how it ended."""
    _limit(job.bounds)
    new = answer.with_suffix(".new")
    new.write_text(_answered(job).dump())
    os.replace(new, answer)


def _answered(job: Job) -> Answer:
    try:
        return _done(job)
    except GitError as error:
        return Answer(failure=error.failure)
    except (MemoryError, RecursionError):
        return Answer(failure=out_of_memory(job.bounds))
    except OSError as error:
        what = f"the data dir cannot be used: {error.strerror}"
        return Answer(failure=Failure(Reason.DISK, what, "free space or mend its rights"))
    except Exception as error:
        # What went wrong is told by its type alone: its text may be the remote's.
        return Answer(failure=Failure(Reason.INTERNAL, f"git failed: {type(error).__name__}"))


def _done(job: Job) -> Answer:
    if job.op == "settle":
        _settle(job.checkouts)
        if os.path.isdir(job.mirror):
            mirror.join_packs(Path(job.mirror))
        return Answer()
    at = remote.parse(job.access.url)
    bounds = job.bounds
    tip = job.want.name
    if job.op != "restore":
        remote.require(at, job.access.reach)
    if job.op == "ask":
        tip, at_once = mirror.ask(at, job.access, job.want, bounds, at_once=job.at_once)
        return Answer(tip=tip, at_once=at_once)
    Path(job.checkouts).mkdir(parents=True, exist_ok=True)
    where = Path(job.mirror)
    if job.op == "restore":
        return _checked_out(job, where, tip)
    if not where.exists():
        return _fetched(job, at, where)
    try:
        return _fetched(job, at, where)
    except GitError as error:
        if error.failure.reason not in (Reason.DAMAGED, Reason.HOSTILE):
            raise
        # It may be our copy that is bad, after a crash: a new one tells.
        return _fetched_anew(job, at, where)


def _fetched(job: Job, at: remote.Remote, where: Path) -> Answer:
    tip = mirror.fetch(at, job.access, job.want, job.bounds, where, job.depth)
    try:
        return _checked_out(job, where, tip)
    except GitError as error:
        if error.failure.reason is Reason.DAMAGED:
            raise
        return Answer(tip=tip, failure=error.failure)


def _checked_out(job: Job, where: Path, tip: str) -> Answer:
    checkouts = Path(job.checkouts)
    base = checkouts / job.base if job.base else None
    return Answer(tip=tip, good=mirror.checkout(where, tip, checkouts, job.bounds, base))


def _fetched_anew(job: Job, at: remote.Remote, where: Path) -> Answer:
    fresh = where.with_name(f"{where.name}.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        answer = _fetched(job, at, fresh)
        shutil.rmtree(where, ignore_errors=True)
        os.rename(fresh, where)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return answer


def _settle(folder: str) -> None:
    """Return when what was written to the folder's file system is on its disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not sys.platform.startswith("linux"):
            os.sync()
        elif ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def out_of_memory(bounds: Bounds) -> Failure:
    """Say that a job needed more memory than it may have."""
    return Failure(
        Reason.TOO_LARGE,
        f"reading the repository takes more than {bounds.memory // 2**20} MiB of memory",
        "remove huge files from its history, or raise max_file_size of the source",
    )


def _limit(bounds: Bounds) -> None:
    # RLIMIT_DATA, not AS: packs are mapped for reading, and may well be larger than memory.
    _at_most(resource.RLIMIT_DATA, bounds.memory)
    _at_most(resource.RLIMIT_CPU, bounds.cpu_s)
    _at_most(resource.RLIMIT_FSIZE, max(2 * bounds.max_total_size, 2**24))
    _at_most(resource.RLIMIT_CORE, 0)
    _at_most(resource.RLIMIT_NOFILE, _FILES)
    # Not left to Python: a signal's default action ends the process even inside a C library.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, bounds.deadline_s)


def _at_most(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (allowed, allowed))


def _wake(number: int, frame: object) -> None:
    """Do nothing: only a signal with a handler writes to the wakeup descriptor."""


def _die_with_parent() -> None:
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A job holds a token in its memory: nobody of this user may look into it.
    libc.prctl(_PR_SET_DUMPABLE, 0)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _say(what: dict[str, object]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
