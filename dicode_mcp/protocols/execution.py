"""How a run becomes a process: launches, executors, runtimes and what prepares them."""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from dicode_mcp.conditions import Condition
from dicode_mcp.runs.accesses import Hint
from dicode_mcp.runs.logs import Stream
from dicode_mcp.runs.model import Payload, Run, RunError
from dicode_mcp.runs.redaction import NOTHING, Redactor
from dicode_mcp.spec.model import Permissions, ResourceSpec, Task


@dataclass(frozen=True, slots=True)
class Health:
    """Whether something works on this machine, and a sentence that says why not."""

    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facility:
    """One thing that a machine holds tasks to or does not, and what would make it."""

    name: str
    ok: bool
    message: str
    remedy: str = ""


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
    write: tuple[Path, ...] = ()
    """Folders a helper of the runtime writes to; never for a task's own process."""
    resources: ResourceSpec | None = None


@dataclass(frozen=True, slots=True)
class Warm:
    """What an interpreter may have imported before it is told of a run.

    ``imports`` are its own library's and those in the folder ``path``; what is not there is left
    out. They are run outside of any sandbox: nothing that a task brings may be among them.
    ``file`` is what each run starts with.
    """

    file: str
    path: str
    imports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start, complete. Pure data: making one has no effect.

    ``ipc`` says how the process reaches the server: ``fd`` (an inherited socket whose number is in
    ``DICODE_IPC_FD``), ``path`` (a unix socket at ``ipc_path``) or ``none``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    policy: SandboxPolicy
    ipc: Literal["fd", "path", "none"] = "fd"
    ipc_path: Path | None = None
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Files to write into the scratch folder first, by relative name."""
    timeout_s: float | None = None
    grace_s: float = 5.0
    run_id: str = ""
    instance_id: str = ""
    within_python: bool = False
    """``argv`` is ``<python> -I -S <file> …``: an interpreter that was started with these flags and
    applied the policy to itself may go on with the file instead of starting another."""
    warm: Warm | None = None
    """With ``within_python``: a fork of an interpreter that holds these may take its place."""
    may_wait: bool = False
    """The program takes ``waits`` as its last word: it then reads ``{"env": {…}}`` to the end of
    its input before it connects, and takes these variables as its own. (A forked interpreter needs
    no such word.)"""
    hide: Redactor = NOTHING
    """What must not be seen of the output: it is taken out before lines are made of it."""


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
    """Output that was read and is not in the log: beyond its limits, or cut from a line."""
    limit: str | None = None
    """The limit that ended it, as people read it: ``memory limit 256 MiB``."""
    limited: Literal["memory", "pids"] = "memory"
    """Which one that is."""
    pressed: str | None = None
    """A limit that it ran into and that did not end it by itself."""
    pressing: Literal["pids", "cpu"] = "pids"
    """Which one that is."""
    unreached: tuple[str, ...] = ()
    """Rules for ``permissions.net`` that it would have needed for what it was refused."""
    unheld: tuple[str, ...] = ()
    """What it was not held to, since the machine cannot: a sentence each."""
    reached: tuple[str, ...] | None = None
    """The places (``host:port``) it connected to; None where nothing watched its network."""
    waited_in: Path | None = None
    """The scratch folder that it knew, if that is not its launch's."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line a process wrote, decoded, at most 64 KiB, with its time (epoch ms)."""

    stream: Stream
    text: str
    ts_ms: int


LineSink = Callable[[Sequence[RawLine]], None]


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
        """Tell what is wrong with a task that its manifest does not show (a script's syntax).

        A program that a runtime starts by itself, here or in ``health``, it starts with
        ``dicode_mcp.children.run``: any other child of the server counts as left by a task.
        """
        ...

    def prepare(self, context: LaunchContext) -> Launch:
        """Describe the process. Pure. Raises ``DicodeError`` when it cannot."""
        ...

    def explain(self, exit: Exit, task: Task) -> RunError | None:
        """Say what an exit means that the process itself did not report, or None."""
        ...


@runtime_checkable
class Programs(Protocol):
    """What a runtime has besides ``Runtime`` when it can start a file as a program of its own."""

    @property
    def endings(self) -> tuple[str, ...]:
        """How the names of such files end, with the dot."""
        ...

    def program(
        self, entry: Path, permissions: Permissions, *, folder: Path, scratch: Path
    ) -> tuple[str, ...]:
        """Give the command that starts ``entry`` with no more than ``permissions``. Pure.

        ``folder`` is what it may read besides, ``scratch`` the run's own folder, in which ``home``
        and ``tmp`` are its to write. Raises ``DicodeError`` when it cannot.
        """
        ...


@runtime_checkable
class Warming(Protocol):
    """What a runtime has besides ``Runtime`` when an interpreter is worth being kept ready."""

    def warm(self) -> tuple[str, Warm] | None:
        """Give the interpreter and what it imports, for tasks without needs of their own."""
        ...


@runtime_checkable
class Observing(Protocol):
    """What a runtime has besides ``Runtime`` when its processes leave word of what they used."""

    def used(self, launch: Launch) -> tuple[Sequence[Hint], bool]:
        """Give what a process that has ended used, refused or not, and whether that is all.

        What it left is the task's own work, and to be read as such. Blocks.
        """
        ...


@dataclass(frozen=True, slots=True)
class Helped:
    """How a helper process ended and what it wrote."""

    exit: Exit
    stdout: str
    stderr: str


RunHelper = Callable[[Launch], Awaitable[Helped]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What preparing came to. ``again``: it failed in a way that may pass by itself."""

    conditions: tuple[Condition, ...] = ()
    again: bool = False


@dataclass(frozen=True, slots=True)
class HelperContext:
    """Where helper processes of one preparation live."""

    scratch: Path
    mark: str
    """Names the preparation where a run's id would be, so that a crashed server's are found."""
    instance_id: str


@dataclass(frozen=True, slots=True)
class RuntimeHost:
    """What a runtime may know of the server that makes it. It may keep files below ``cache``.

    ``help`` runs a helper process in its cage and waits for it, in any thread but the event
    loop's; it raises ``DicodeError``. Without it a runtime starts what it trusts by itself.
    """

    cache: Path
    environ: Mapping[str, str]
    help: Callable[[Callable[[HelperContext], Launch]], Helped] | None = None


@runtime_checkable
class Preparing(Protocol):
    """What a runtime has besides ``Runtime`` when its tasks need work before their first run."""

    def prepared(self, task: Task) -> Prepared | None:
        """Give what preparing this version came to earlier, None when it must be done. Blocks."""
        ...

    def awaiting(self, task: Task) -> tuple[Condition, ...]:
        """Give the conditions to show while a task is being prepared. Blocks."""
        ...

    async def make_ready(self, task: Task, context: HelperContext, run: RunHelper) -> Prepared:
        """Do the work. What is wrong with the task is a condition, not an error."""
        ...


@runtime_checkable
class Tidying(Protocol):
    """What a runtime has besides ``Runtime`` when it keeps things for tasks that may go."""

    def tidy(self, tasks: Sequence[Task], now_ms: int) -> None:
        """Let go of what none of ``tasks``, all that there are of its runtime, needs. Blocks."""
        ...
