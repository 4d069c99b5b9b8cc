"""The extension points: what the house asks of an outside system, and the values it hands over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from dicode_mcp.conditions import Condition
from dicode_mcp.runs.logs import Level, LogLine, Stream
from dicode_mcp.runs.model import Outcome, Output, Payload, Run, RunError, RunStatus
from dicode_mcp.spec.model import Permissions, ResourceSpec, Task

T = TypeVar("T")


# ── Sources ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Revision:
    """An immutable view of a source: a folder to read, and the commit it shows (git only)."""

    source: str
    root: Path
    commit: str | None = None


class Source(Protocol):
    """Where tasks come from. An adapter fetches and watches; it never reads a manifest."""

    @property
    def name(self) -> str:
        """The source's name, unique in the server."""
        ...

    @property
    def kind(self) -> Literal["local", "git"]:
        """What the source is."""
        ...

    @property
    def location(self) -> str:
        """The path or URL, for display; never with credentials."""
        ...

    async def fetch(self) -> Revision:
        """Bring the newest good revision; raises ``DicodeError`` when it cannot."""
        ...

    def changes(self) -> AsyncIterator[frozenset[Path] | None]:
        """Wake the reconciler: each item names the changed paths (None: anything) once.

        Ends never by itself; cancelling the iteration releases what it holds.
        """
        ...


# ── Store ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing and the cursor of the next, if there is more."""

    items: tuple[T, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, newest first. ``since_ms`` bounds ``created_at_ms`` from below."""

    task_id: str | None = None
    statuses: frozenset[RunStatus] | None = None
    since_ms: int | None = None
    root_run_id: str | None = None
    parent_run_id: str | None = None
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines of a run's log. ``after`` is the last seen ``seq``; ``tail`` counts from the end."""

    after: int = 0
    tail: int | None = None
    level: Level | None = None
    limit: int = 500


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in order; ``next_after`` is set when there are more."""

    lines: tuple[LogLine, ...]
    next_after: int | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One control action."""

    at_ms: int
    actor: str
    surface: str
    action: str
    target: str
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    id: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """A stored pause of a task."""

    task_id: str
    at_ms: int
    actor: str
    reason: str = ""


class Store(Protocol):
    """What is kept. Every write is durable when its call returns, except log lines (0.5 s).

    A full disk raises ``DicodeError(STORAGE_FULL)`` and leaves what is stored readable.
    """

    async def instance_id(self) -> str:
        """Give the id of this data dir, made once."""
        ...

    async def add_run(self, run: Run, payload: Payload) -> Run:
        """Commit a run in its given status with its payload.

        With an idempotency key already used for the task in the last 24 h, or a cron slot already
        taken, nothing is written and the run that has it is returned (its id differs).
        """
        ...

    async def start_run(self, run_id: str, *, now_ms: int, task_hash: str, revision: str | None) -> Run:
        """Claim a queued run: running, fence + 1. Raises CONFLICT when it is not queued."""
        ...

    async def finish_run(
        self, run: Run, outcome: Outcome, follow_ups: Sequence[tuple[Run, Payload]] = ()
    ) -> Run:
        """End a run and add what follows from it, in one transaction.

        Raises CONFLICT when the run's stored status or fence no longer fits ``run``.
        """
        ...

    async def get_run(self, run_id: str) -> Run | None:
        """Read a run."""
        ...

    async def get_payload(self, run_id: str) -> Payload | None:
        """Read what a run was started with."""
        ...

    async def list_runs(self, query: RunQuery) -> Page[Run]:
        """List runs, newest first. A malformed cursor raises INVALID_ARGUMENT."""
        ...

    async def last_runs(self, task_ids: Sequence[str]) -> Mapping[str, Run]:
        """Give the newest run of each task that has one."""
        ...

    async def count_runs(self, *, since_ms: int | None = None) -> Mapping[RunStatus, int]:
        """Count runs by status."""
        ...

    async def unfinished_runs(self) -> Sequence[Run]:
        """Give every run that has not ended, oldest first."""
        ...

    async def append_logs(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Take lines; they are readable at once and on disk within half a second."""
        ...

    async def flush_logs(self, run_id: str) -> None:
        """Put the lines of a run on disk now."""
        ...

    async def read_logs(self, run_id: str, query: LogQuery) -> LogPage:
        """Read a run's log."""
        ...

    async def kv_get(self, task_id: str, key: str) -> str | None:
        """Read a value (JSON text)."""
        ...

    async def kv_set(self, task_id: str, key: str, value: str, *, now_ms: int) -> None:
        """Write a value (JSON text)."""
        ...

    async def kv_delete(self, task_id: str, key: str) -> bool:
        """Remove a value; tells whether there was one."""
        ...

    async def kv_list(self, task_id: str, prefix: str = "") -> Sequence[str]:
        """List keys with a prefix, sorted."""
        ...

    async def set_pause(self, pause: Pause) -> None:
        """Pause a task."""
        ...

    async def clear_pause(self, task_id: str) -> bool:
        """End a pause; tells whether there was one."""
        ...

    async def pauses(self) -> Mapping[str, Pause]:
        """Give all pauses by task."""
        ...

    async def schedule_slots(self) -> Mapping[str, int]:
        """Give the last fired cron slot of each task (epoch ms)."""
        ...

    async def set_schedule_slot(self, task_id: str, slot_ms: int) -> None:
        """Note a slot as dealt with, without a run."""
        ...

    async def add_audit(self, entry: AuditEntry) -> None:
        """Write an audit entry."""
        ...

    async def list_audit(self, *, limit: int = 100, before_id: int | None = None) -> Page[AuditEntry]:
        """List audit entries, newest first."""
        ...


# ── Runtimes and the executor ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Health:
    """Whether something works on this machine, and a sentence that says why not."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What a runtime may know when it prepares a run. ``scratch`` is the run's private folder."""

    run: Run
    task: Task
    payload: Payload
    env: Mapping[str, str]
    """The task's declared environment, resolved; runtimes add PATH, HOME and the like."""
    scratch: Path
    instance_id: str


@dataclass(frozen=True, slots=True)
class SandboxPolicy:
    """What the process may do; ``executor/`` compiles it to what the machine can enforce."""

    permissions: Permissions
    task_folder: Path
    scratch: Path
    read: tuple[Path, ...] = ()
    """Folders the runtime itself needs (interpreter, SDK, caches)."""
    resources: ResourceSpec | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start, complete. Pure data: making one has no effect.

    ``ipc`` says how the process reaches the server: ``fd`` (an inherited socket whose number is in
    ``DICODE_IPC_FD``), ``path`` (a unix socket in the scratch folder) or ``none``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    policy: SandboxPolicy
    ipc: Literal["fd", "path", "none"] = "fd"
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Files to write into the scratch folder first, by relative name."""
    timeout_s: float | None = None
    grace_s: float = 5.0
    run_id: str = ""
    instance_id: str = ""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. Exactly one of ``exit_code`` and ``signal`` is set."""

    exit_code: int | None
    signal: int | None
    timed_out: bool = False
    stopped: bool = False
    """The server asked for the end (cancel or shutdown)."""
    max_rss: int | None = None
    """Bytes."""
    cpu_seconds: float | None = None
    strays: int = 0
    """Processes that outlived the main one and were killed."""
    dropped_bytes: int = 0
    """Output beyond the log cap, not kept."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line a process wrote, decoded, at most 64 KiB, with its time (epoch ms)."""

    stream: Stream
    text: str
    ts_ms: int


LineSink = Callable[[Sequence[RawLine]], None]
"""Takes lines as they come, in order; never blocks."""


class Process(Protocol):
    """A started process tree."""

    @property
    def pid(self) -> int:
        """The main process."""
        ...

    async def wait(self) -> Exit:
        """Wait until the tree is gone and its output read to the end. May be called again."""
        ...

    async def stop(self) -> None:
        """End the tree: TERM, the launch's grace, KILL. Returns when it is gone."""
        ...


class Executor(Protocol):
    """Starts processes and owns them to the end."""

    async def start(self, launch: Launch, sink: LineSink, ipc_fd: int | None = None) -> Process:
        """Start ``launch``; ``ipc_fd`` is inherited by it and closed here.

        Raises ``DicodeError`` (SANDBOX_UNAVAILABLE, RUNTIME_UNAVAILABLE, INTERNAL) when it cannot.
        """
        ...

    async def sweep(self, instance_id: str) -> int:
        """Kill processes a crashed server of this data dir left behind; gives their number."""
        ...


class Runtime(Protocol):
    """Turns a run of a task into a process."""

    @property
    def name(self) -> str:
        """The name used in ``runtime:``."""
        ...

    @property
    def scripts(self) -> tuple[str, ...]:
        """The script file names it looks for, best first; empty when it needs none."""
        ...

    def health(self) -> Health:
        """Tell whether this machine has what it needs. Cheap; cached by the runtime."""
        ...

    def check(self, task: Task) -> Sequence[Condition]:
        """Tell what is wrong with a task that its manifest does not show (a script's syntax)."""
        ...

    def prepare(self, context: LaunchContext) -> Launch:
        """Describe the process. Pure. Raises ``DicodeError`` when it cannot."""
        ...

    def explain(self, exit: Exit, task: Task) -> RunError | None:
        """Say what an exit means that the process itself did not report, or None."""
        ...


# ── The talk with a running task ─────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Report:
    """What a task's process told the server about its own end."""

    finished: bool = False
    return_value: str | None = None
    """JSON text."""
    output: Output | None = None
    error: RunError | None = None
    reason: str | None = None


class Session(Protocol):
    """The server's side of the talk with one running task."""

    @property
    def child_fd(self) -> int:
        """The descriptor the process inherits; the executor closes it here."""
        ...

    async def report(self) -> Report:
        """Wait until the process has closed its side; give what it told."""
        ...


class Sessions(Protocol):
    """Opens a session for each run."""

    def open(self, run: Run, task: Task, payload: Payload) -> AbstractAsyncContextManager[Session]:
        """Serve the task's calls, checked against its ``permissions.dicode``, while open."""
        ...
