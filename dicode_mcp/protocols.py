"""The extension points: what the house asks of an outside system, and the values it hands over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from dicode_mcp.conditions import Condition
from dicode_mcp.runs.budget import DaySpent
from dicode_mcp.runs.joins import Joins
from dicode_mcp.runs.limits import Blocked, Crowd, Group
from dicode_mcp.runs.logs import Level, LogLine, Stream
from dicode_mcp.runs.model import Outcome, Output, Payload, Run, RunError, RunStatus
from dicode_mcp.runs.notices import NoticeChange, NoticeState
from dicode_mcp.runs.questions import Answered, Draft, Question
from dicode_mcp.runs.statistics import Tally, TaskDay
from dicode_mcp.spec.model import Permissions, ResourceSpec, Task

T = TypeVar("T")


# ── Sources ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Commit:
    """A git commit, as shown to people. ``at_ms`` is the committer's time (ms since the epoch)."""

    id: str
    author: str
    subject: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Revision:
    """An immutable view of a source: a folder to read, and the commit it shows (git only).

    From git, ``root`` is the checkout of the whole tree at ``commit``; nothing in it ever changes.
    """

    source: str
    root: Path
    commit: str | None = None
    commit_info: Commit | None = None
    start: str = ""
    """Where in ``root`` the tasks begin: a folder or a TaskSet file, relative; empty: the root."""
    trees: Mapping[str, str] | None = field(default=None, compare=False, repr=False)
    """From git: the tree id of each folder, by its path below ``root`` (``""`` is the root).

    Folders with equal ids hold the same bytes, in this revision and in any other of its source.
    Reading it may read a file, once: not for the event loop.
    """


@dataclass(frozen=True, slots=True)
class GitAuth:
    """How to prove who is asking: names of a variable and of files, never their content.

    ``host_keys`` is what ssh does with the key of a host it does not know: ``strict`` refuses,
    ``accept-new`` notes it the first time. ``known_hosts`` is a file besides the user's own.
    """

    token_env: str | None = None
    ssh_key: str | None = None
    username: str | None = None
    host_keys: Literal["strict", "accept-new"] = "strict"
    known_hosts: str | None = None


@dataclass(frozen=True, slots=True)
class GitLimits:
    """What an honest repository stays within; sizes in bytes."""

    max_files: int = 100_000
    max_file_size: int = 64 * 2**20
    max_total_size: int = 4 * 2**30
    max_depth: int = 32


@dataclass(frozen=True, slots=True)
class GitRef:
    """What to fetch. ``commit`` goes before ``tag``, ``tag`` before ``branch``.

    ``trusted``: the user's own dicode.yaml names the URL, so that it may lead to this machine or a
    private network (with ``server.allow_local_git``) and carry credentials.
    """

    url: str
    branch: str = "main"
    tag: str | None = None
    commit: str | None = None
    auth: GitAuth | None = None
    poll_interval_s: float = 30.0
    depth: int | None = None
    """How many commits of history to keep; None keeps all, which makes every pin possible."""
    trusted: bool = False
    limits: GitLimits = GitLimits()


@dataclass(frozen=True, slots=True)
class DevMode:
    """What a source shows instead of its own revision. Neither field: only dev_refs switch."""

    local_path: str | None = None
    branch: str | None = None


@dataclass(frozen=True, slots=True)
class SourceOverrides:
    """What was decided for a source while the server ran, and survives a restart."""

    dev: DevMode | None = None
    pin: str | None = None
    """A commit (40 hex) to stay at; None follows the branch."""

    def __bool__(self) -> bool:
        """Tell whether anything was decided."""
        return self.dev is not None or self.pin is not None


class Checkouts(Protocol):
    """What is on disk of git repositories: one for a server, shared by all sources."""

    async def latest(self, ref: GitRef, *, now: bool = False) -> Revision:
        """Give the newest good revision; with ``now``, ask the remote first.

        When the remote cannot be asked, or what it has is refused, the last good one is given and
        ``trouble`` says why it is old. Raises ``DicodeError`` when there is none at all.
        """
        ...

    def current(self, ref: GitRef) -> Revision | None:
        """Give what is on disk already; asks nobody. May be called from any thread."""
        ...

    def trouble(self, ref: GitRef) -> Condition | None:
        """Say why ``ref`` is old or missing: ``Synced=False`` and a reason; None when it is not.

        May be called from any thread.
        """
        ...

    def watch(self, ref: GitRef) -> AsyncIterator[None]:
        """Wake when ``ref`` has another revision or trouble, by poll or by push.

        While anyone iterates, its (url, branch) is polled, once for all, at the smallest interval.
        """
        ...

    async def push_hint(self, url: str) -> int:
        """Pull every watched ref of ``url`` now; gives how many there are. Bursts are one pull."""
        ...

    def keep(self, revisions: Iterable[str]) -> None:
        """Say which commits or trees are in use; other checkouts may go, except the newest."""
        ...


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

    @property
    def namespace(self) -> str:
        """What the ids of plain folders begin with; empty unless the user named the source."""
        ...

    async def fetch(self) -> Revision:
        """Bring the newest good revision; raises ``DicodeError`` when it cannot."""
        ...

    def changes(self) -> AsyncIterator[frozenset[Path] | None]:
        """Wake the reconciler: each item names the changed paths (None: anything) once.

        Ends never by itself; cancelling the iteration releases what it holds.
        """
        ...

    def conditions(self) -> Sequence[Condition]:
        """Give what is true of the source besides ``Ready`` and ``Synced``; empty when well."""
        ...


# ── Store ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing and the cursor of the next, if there is more."""

    items: tuple[T, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, newest first: by ``created_at_ms``, then ``id``, both falling.

    ``since_ms`` bounds ``created_at_ms`` from below. ``root_run_id`` and ``parent_run_id`` match
    the run's own fields, so the root itself is not among its descendants. ``limit`` is at least 1;
    more than 1,000 gives 1,000. ``offset`` leaves out so many of the newest (at most 10,000; it
    reads an index entry for each, and a cursor does not).
    """

    task_id: str | None = None
    statuses: frozenset[RunStatus] | None = None
    since_ms: int | None = None
    root_run_id: str | None = None
    parent_run_id: str | None = None
    limit: int = 50
    cursor: str | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines of a run's log: after the ``seq`` last seen, or the last ``tail`` of them.

    ``level`` keeps that level and above. With ``tail``, ``limit`` does not apply. At most 10,000
    lines are given at once.
    """

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
class DayQuery:
    """Which sums of runs by task and UTC day to give, newest day first, then by task.

    Days are counted from 1970-01-01 and both bounds count. ``task_ids`` None is all. Of more than
    ``measured`` days the durations are not added up.
    """

    task_ids: tuple[str, ...] | None = None
    since_day: int | None = None
    until_day: int | None = None
    limit: int = 50
    measured: int = 5_000


@dataclass(frozen=True, slots=True)
class DayPage:
    """The first days of a query; ``totals`` adds up all that it found, not only these."""

    days: tuple[TaskDay, ...]
    totals: Tally
    more: bool = False


@dataclass(frozen=True, slots=True)
class PruneQuery:
    """Which runs of a task are not to be kept, oldest first.

    Those that ended before ``ended_before_ms``, and those beyond the ``keep`` newest of the task
    (pinned ones and unfinished ones count among them); None sets no such bound.
    """

    task_id: str
    ended_before_ms: int | None = None
    keep: int | None = None
    limit: int = 200
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RunsSize:
    """What runs take: bytes of parameters, inputs, values, outputs and logs as stored."""

    runs: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None


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


@dataclass(frozen=True, slots=True)
class Approval:
    """A human's yes to one version of a task: its content hash, and the commit it was read at."""

    task_id: str
    digest: str
    at_ms: int
    actor: str
    revision: str | None = None


class Store(Protocol):
    """What is kept. Every write is durable when its call returns, except log lines (0.5 s).

    A write that raises has stored nothing. A full disk raises ``DicodeError(STORAGE_FULL)`` and
    leaves what is stored readable: new runs and kv values are refused first, while a reserve lasts
    for ending runs, pauses, slots, audit and deletes. A database that another process locks for
    over 5 s, or that cannot be used, raises STORAGE_UNAVAILABLE; a closed store SHUTTING_DOWN.
    A write that was begun is finished even when the caller stops waiting for it.

    Lists of runs (``list_runs``, ``last_runs``, ``unfinished_runs``) give them without
    ``return_value`` and ``output``, and with errors that have no traceback and texts of at most
    1,000 characters. ``get_run`` gives all.
    """

    async def instance_id(self) -> str:
        """Give the id of this data dir, made once."""
        ...

    async def add_run(self, run: Run, payload: Payload) -> Run:
        """Commit a run in its given status with its payload.

        With an idempotency key already used for the task in the last 24 h, or a cron slot already
        taken, nothing is written and the run that has it is returned (its id differs). Follow-ups
        of ``finish_run`` are added by the same rules. A run with ``slot_ms`` also moves the task's
        schedule slot forward. Raises CONFLICT when the id is taken, INVALID_ARGUMENT when the
        payload is not JSON.
        """
        ...

    async def start_run(
        self,
        run_id: str,
        *,
        now_ms: int,
        task_hash: str,
        revision: str | None,
        spent: DaySpent | None = None,
    ) -> Run:
        """Claim a queued run: running, fence + 1. Raises CONFLICT when it is not queued.

        ``spent`` is added to what the task spent that day, here and in ``finish_run``, in the same
        transaction. Raises RUN_NOT_FOUND for an unknown run.
        """
        ...

    async def finish_run(
        self,
        run: Run,
        outcome: Outcome,
        follow_ups: Sequence[tuple[Run, Payload | None]] = (),
        *,
        notice: NoticeChange | None = None,
        joins: Joins | None = None,
        keep_input: bool = True,
        spent: DaySpent | None = None,
    ) -> Run:
        """End a run and add what follows from it, in one transaction.

        A follow-up without a payload is started with what ``run`` was started with.
        ``notice`` moves what is known of a task's notices, and may add one more run. After all
        of these ``runs.joins.settle`` is carried out for ``joins``. Without ``keep_input`` the
        run's own payload is let go, as ``drop_inputs`` does.
        Raises CONFLICT when the run's stored status or fence no longer fits ``run``, and
        RUN_NOT_FOUND for an unknown run. Nothing is written then.
        """
        ...

    async def get_run(self, run_id: str) -> Run | None:
        """Read a run, with its values."""
        ...

    async def attempts(self, run_id: str) -> Sequence[Run]:
        """Give every attempt of the wish a run belongs to (``retry_of``), itself too, in order.

        In their listed form; empty for an unknown run.
        """
        ...

    async def tree(self, root_run_id: str, limit: int) -> Sequence[Run]:
        """Give the first ``limit`` runs under a root: itself, then the others, oldest first.

        In their listed form.
        """
        ...

    # ── Questions ──

    async def suspend_run(
        self, run: Run, question: Question, *, cpu_ms: int | None = None, tokens: int | None = None
    ) -> Run:
        """Let a running run wait for an answer: its status and the question, in one transaction.

        Raises CONFLICT when the run's stored status or fence no longer fits ``run``, RUN_NOT_FOUND
        for an unknown run. Nothing is written then.
        """
        ...

    async def answer_question(self, run_id: str, n: int, answered: Answered) -> Run:
        """Keep the answer to question ``n`` and queue its run again, in one transaction.

        The one write that can succeed for a question. Raises RUN_NOT_FOUND, and CONFLICT when it
        was answered already (the message says by whom and when) or its run does not wait for it.
        """
        ...

    async def questions(self, run_id: str) -> Sequence[Question]:
        """Give all questions of a run in the order they were asked."""
        ...

    async def open_questions(self, run_ids: Sequence[str] | None = None) -> Sequence[Question]:
        """Give the questions that runs wait for, by deadline; of all runs, or of these."""
        ...

    async def once_get(self, run_id: str, key: str) -> str | None:
        """Read what ``once_put`` kept for a run (JSON text)."""
        ...

    async def once_put(self, run_id: str, key: str, value: str) -> str:
        """Keep a value (JSON text) for as long as the run is kept; gives the one that is kept.

        The first one stays. Raises RUN_NOT_FOUND for an unknown run, and TOO_LARGE when the run
        keeps 1,000 values.
        """
        ...

    async def get_payload(self, run_id: str) -> Payload | None:
        """Read what a run was started with; None when there is no such run."""
        ...

    async def list_runs(self, query: RunQuery) -> Page[Run]:
        """List runs, newest first. A malformed cursor raises INVALID_ARGUMENT."""
        ...

    async def last_runs(self, task_ids: Sequence[str]) -> Mapping[str, Run]:
        """Give the newest run of each task that has one."""
        ...

    async def count_runs(self, *, since_ms: int | None = None) -> Mapping[RunStatus, int]:
        """Count runs by status, those created since ``since_ms``; statuses with none are absent.

        Reads an index entry for each run counted: some 40 ms for a million.
        """
        ...

    async def unfinished_runs(self) -> Sequence[Run]:
        """Give every run that has not ended, oldest first."""
        ...

    async def delete_runs(self, run_ids: Sequence[str]) -> int:
        """Delete runs that have ended, with payload, values, idempotency keys and log.

        Unknown, unfinished and pinned ones are left alone. Gives how many were deleted.
        """
        ...

    async def matching_runs(self, query: RunQuery, *, at_most: int) -> int:
        """Count the runs that a query (without its paging) finds, but stop at ``at_most``."""
        ...

    async def return_values(
        self, run_ids: Sequence[str], *, at_most: int
    ) -> Mapping[str, str | None]:
        """Give the return values (JSON text) of the runs that have one.

        None stands for one of more than ``at_most`` bytes.
        """
        ...

    async def pin_run(self, run_id: str, pinned: bool) -> Run:
        """Keep a run whatever the retention says, or no longer. Raises RUN_NOT_FOUND."""
        ...

    # ── History ──

    async def run_days(self, query: DayQuery) -> DayPage:
        """Give what is kept of the runs that ended, by task and day; pruning takes none of it."""
        ...

    async def tasks_with_runs(self, *, after: str = "", limit: int = 100) -> Sequence[str]:
        """Give the ids of tasks that have runs, sorted, those greater than ``after``."""
        ...

    async def prunable_runs(self, query: PruneQuery) -> Page[str]:
        """Give ids of runs that may go by ``query``, oldest first.

        Never a run that is pinned or has not ended, nor one that an unfinished run refers to or
        shares its root with. A page may be short, or empty, and still have a cursor.
        """
        ...

    async def size_of_runs(self, run_ids: Sequence[str]) -> RunsSize:
        """Measure what runs take; unknown ones take nothing."""
        ...

    async def runs_with_input(
        self, task_id: str, *, ended_before_ms: int, limit: int = 200, cursor: str | None = None
    ) -> Page[str]:
        """Give ids of a task's ended runs, oldest first, that still have what they began with.

        Pinned ones are left out. A page may be short, or empty, and still have a cursor.
        """
        ...

    async def drop_inputs(self, run_ids: Sequence[str]) -> int:
        """Forget what ended runs began with; ``get_payload`` says ``dropped`` from then on.

        Unfinished and pinned ones are left alone. Gives how many had something to forget.
        """
        ...

    async def drop_expired_keys(self, *, now_ms: int, limit: int = 500) -> int:
        """Forget idempotency keys that stand for nothing any more; gives how many, up to limit."""
        ...

    async def append_logs(self, run_id: str, lines: Sequence[LogLine]) -> None:
        """Take lines, ``seq`` rising; they are readable at once and on disk within half a second.

        Never fails for want of a disk: lines it will not take are dropped, and one line in their
        place says how many. Waits when lines come much faster than the disk takes them.
        """
        ...

    async def flush_logs(self, run_id: str) -> None:
        """Return when the lines of a run are on disk (or dropped); call it when the run ends."""
        ...

    async def trim_logs(self, run_id: str, *, after: int, before: int) -> None:
        """Drop lines of a run with a seq between the two, which both stay, to make room.

        One line in their place, with the seq of the last of them, says how many they were. Some at
        either end may stay. ``after`` is the same for all calls of a run; ``before`` rises.
        """
        ...

    async def read_logs(self, run_id: str, query: LogQuery) -> LogPage:
        """Read a run's log; empty for an unknown run."""
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

    async def undelivered_notices(self) -> Mapping[str, NoticeState]:
        """Give what is known of the tasks whose last notice did not get through."""
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

    async def set_source_overrides(self, source: str, overrides: SourceOverrides) -> None:
        """Keep what was decided for a source; overrides without content are forgotten."""
        ...

    async def source_overrides(self) -> Mapping[str, SourceOverrides]:
        """Give what was decided, by source, for those where something was."""
        ...

    async def add_approval(self, approval: Approval) -> None:
        """Keep an approval; one of the same task and hash is replaced."""
        ...

    async def clear_approvals(self, task_id: str) -> int:
        """Forget the approvals of a task; gives how many there were."""
        ...

    async def approvals(self) -> Mapping[str, Sequence[Approval]]:
        """Give all approvals by task, oldest first."""
        ...

    async def claim_signatures(self, keys: Sequence[str], *, now_ms: int, expires_ms: int) -> bool:
        """Take signatures of a webhook as used until ``expires_ms``, all or none.

        False when one of them is used already. Those past their time are forgotten.
        """
        ...

    async def release_signatures(self, keys: Sequence[str]) -> None:
        """Forget signatures whose message started nothing."""
        ...

    async def note_tokens(self, run_id: str, total: int, spent: DaySpent | None) -> None:
        """Keep the tokens a running run used so far, and add to what its task spent that day."""
        ...

    async def spending(self, *, since_day: str) -> Sequence[DaySpent]:
        """Give what tasks spent on a day and later ones."""
        ...

    async def forget_spending(self, *, before_day: str) -> int:
        """Forget what was spent before a day; gives how many rows."""
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

    async def list_audit(
        self, *, limit: int = 100, before_id: int | None = None
    ) -> Page[AuditEntry]:
        """List audit entries, newest first; ``next_cursor`` is the next ``before_id``."""
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
    pressed: str | None = None
    """A limit that it ran into and that did not end it by itself."""
    unreached: tuple[str, ...] = ()
    """Rules for ``permissions.net`` that it would have needed for what it was refused."""


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


# ── What a task needs before its first run ───────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RuntimeHost:
    """What a runtime may know of the server that makes it. It may keep files below ``cache``."""

    cache: Path
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Helped:
    """How a helper process ended and what it wrote."""

    exit: Exit
    stdout: str
    stderr: str


RunHelper = Callable[[Launch], Awaitable[Helped]]
"""Runs a helper process to its end. Raises ``DicodeError`` when it cannot be started."""


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


# ── The queue's dispatcher ───────────────────────────────────────────────────────────────────


class Dispatcher(Protocol):
    """Decides which committed run starts next, and where (DESIGN 4)."""

    def submit(
        self,
        run_id: str,
        *,
        priority: int,
        created_at_ms: int,
        not_before_ms: int | None,
        slotless: bool = False,
        group: Group | None = None,
    ) -> None:
        """Take a committed run; one that is ``slotless`` neither waits for a slot nor takes one.

        It is not handed out while its ``group`` is full, which a slotless one never is.
        """
        ...

    def discard(self, run_id: str) -> bool:
        """Forget a run that has not been handed out; tells whether it was there."""
        ...

    def crowd(self, group: Group) -> Crowd:
        """Give the unfinished runs of a group."""
        ...

    def blocked(self, run_id: str) -> Blocked | None:
        """Say why a waiting run does not start, when that is because its group is full."""
        ...

    def limits_changed(self) -> None:
        """Look again at the runs that met their group full: a limit may be another now."""
        ...

    async def next(self) -> str:
        """Wait for a run that may start, take its slot, and give its id."""
        ...

    def release(self, run_id: str) -> None:
        """Give a run's slot back."""
        ...

    def lend(self, run_id: str) -> None:
        """Give the slot of a run that waits for its child to others."""
        ...

    def reclaim(self, run_id: str) -> None:
        """Take a lent slot back, above the limit if none is free: the process already exists."""
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
    question: Draft | None = None
    """What the task asked; its process ended to wait for the answer, however it ended."""


class Session(Protocol):
    """The server's side of the talk with one running task."""

    @property
    def child_fd(self) -> int | None:
        """The descriptor the process inherits, None when it is to connect to a path.

        Asking for it gives it away, once; the executor closes it here.
        """
        ...

    async def report(self) -> Report:
        """Wait until the process has closed its side; give what it told."""
        ...

    async def asked(self) -> None:
        """Wait until the task has asked something that nobody has answered: it is to end now."""
        ...


class Sessions(Protocol):
    """Opens a session for each run."""

    def open(
        self, run: Run, task: Task, payload: Payload, *, at: Path | None = None
    ) -> AbstractAsyncContextManager[Session]:
        """Serve the task's calls, checked against its ``permissions.dicode``, while open.

        Over a socket pair whose other end the process inherits; with ``at``, over the first
        connection of the server's own user to a unix socket made there. Raises ``DicodeError``
        (INTERNAL) when the socket cannot be made.
        """
        ...
