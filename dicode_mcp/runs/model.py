"""A run as a frozen value, and the one table and one function by which its status moves."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dicode_mcp.errors import Code, DicodeError

if TYPE_CHECKING:
    from dicode_mcp.spec.model import Task


class RunStatus(StrEnum):
    """Where a run stands (SPEC 3.2)."""

    QUEUED = "queued"
    """Stored, and waiting for a free slot or for its time."""
    RUNNING = "running"
    """Its process is on."""
    WAITING = "waiting"
    """It waits for an answer and has no process; ``question`` says what is asked."""
    SUCCESS = "success"
    """The script ended well; ``return_value`` is there if it returned something."""
    FAILURE = "failure"
    """It failed, or could not be started; ``reason`` and ``error`` say why."""
    TIMEOUT = "timeout"
    """It took longer than ``timeout`` and was ended."""
    CANCELLED = "cancelled"
    """A caller or the stopping server ended it."""
    SKIPPED = "skipped"
    """It was not started, on purpose; ``reason`` says why."""
    LOST = "lost"
    """The server ended while it was on; what it had done by then is unknown."""

    @property
    def ended(self) -> bool:
        """Whether the run will never move again."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.WAITING,
            RunStatus.CANCELLED,
            RunStatus.SKIPPED,
            RunStatus.FAILURE,
        }
    ),
    RunStatus.RUNNING: frozenset(
        {
            RunStatus.SUCCESS,
            RunStatus.FAILURE,
            RunStatus.TIMEOUT,
            RunStatus.CANCELLED,
            RunStatus.LOST,
            RunStatus.WAITING,
        }
    ),
    RunStatus.WAITING: frozenset({RunStatus.QUEUED, RunStatus.CANCELLED, RunStatus.TIMEOUT}),
    RunStatus.SUCCESS: frozenset(),
    RunStatus.FAILURE: frozenset(),
    RunStatus.TIMEOUT: frozenset(),
    RunStatus.CANCELLED: frozenset(),
    RunStatus.SKIPPED: frozenset(),
    RunStatus.LOST: frozenset(),
}


def sources_of(target: RunStatus) -> frozenset[RunStatus]:
    """Give the statuses from which ``target`` may be reached (for a guarded UPDATE)."""
    return frozenset(s for s, targets in TRANSITIONS.items() if target in targets)


class Trigger(StrEnum):
    """What started a run (SPEC 3.1)."""

    CRON = "cron"
    WEBHOOK = "webhook"
    MANUAL = "manual"
    CHAIN = "chain"
    DAEMON = "daemon"
    RETRY = "retry"
    REPLAY = "replay"
    MCP = "mcp"
    CLI = "cli"
    API = "api"
    SDK = "sdk"
    PROVIDER = "provider"
    NOTIFY = "notify"
    """It tells people of another run's end."""
    AGENT = "agent"
    """A task's ``dicode.agent()``."""
    TEST = "test"


class Reason(StrEnum):
    """Why a run ended as it did; stable, part of the public interface."""

    SCRIPT_ERROR = "script_error"
    """The script raised; ``error`` names file and line."""
    EXIT_CODE = "exit_code"
    """The process ended with a code other than 0."""
    SIGNAL = "signal"
    """A signal the server did not send ended the process."""
    MEMORY_LIMIT = "memory_limit"
    """The run used more memory than its limit; ``error`` names the limit."""
    PIDS_LIMIT = "pids_limit"
    """The run had more processes and threads than its limit; ``error`` names the limit."""
    EXITED_EARLY = "exited_early"
    """The process ended with code 0 before the script had finished."""
    RETURN_TOO_LARGE = "return_too_large"
    """The return value is over 1 MiB as JSON."""
    RETURN_NOT_JSON = "return_not_json"
    """The return value has no JSON form; the message says where in it."""
    OUTPUT_TOO_LARGE = "output_too_large"
    """What ``output.*`` was given is too large."""
    TIMEOUT = "timeout"
    """The run took longer than the task's ``timeout``."""
    ANSWER_TIMEOUT = "answer_timeout"
    """Nobody answered the run's question in time."""
    ASK_MISMATCH = "ask_mismatch"
    """Started again after an answer, the script asked something else than was answered."""
    DECLINED = "declined"
    """The human who was asked would not answer, and the script did not go on without."""
    CANCELLED = "cancelled"
    """A caller ended the run."""
    SHUTDOWN = "shutdown"
    """The server stopped while the run was on; not the task's fault."""
    SERVER_CRASHED = "server_crashed"
    """The server ended without a word while the run was on."""
    SECRET_MISSING = "secret_missing"
    """A secret that ``permissions.env`` names is not there; nothing was started."""
    ENV_MISSING = "env_missing"
    """A host variable that ``permissions.env`` names is not set; nothing was started."""
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"
    """This machine cannot enforce the permissions; nothing was started."""
    RUNTIME_UNAVAILABLE = "runtime_unavailable"
    """This machine lacks what the runtime needs; nothing was started."""
    START_FAILED = "start_failed"
    """The process could not be started."""
    TASK_GONE = "task_gone"
    """The task was removed, or never loaded, between the request and the start."""
    INVALID_PARAMS = "invalid_params"
    """A chained run's input does not fit the task's declared parameters."""
    OUTPUT_SCHEMA = "output_schema"
    """The return value does not fit the task's ``output_schema``."""
    OVERLAP = "overlap"
    """As many runs of the task as ``concurrency`` allows were on; a cron slot takes one."""
    BUDGET = "budget"
    """The task's ``budget`` of the day was spent."""
    DEADLOCK = "deadlock"
    """The run before it waited for this one, and holds the place that this one needs."""
    CHAIN_DEPTH = "chain_depth"
    """The chain that led here is too long, most likely because it leads back to itself."""
    REPLACED = "replaced"
    """A newer run took its place (``concurrency.overlap: replace``); or it was a daemon's, and its
    task was changed, paused or removed."""
    DEPENDENCIES = "dependencies"
    """The script's dependencies could not be installed."""
    FORBIDDEN = "forbidden"
    """The key that asked for the run, or for what it comes of, was revoked or ended before it could
    start."""
    NO_RETRY = "no_retry"
    """The script said that trying again is of no use."""
    RETRY_DEADLINE = "retry_deadline"
    """The next attempt's turn came after ``retry.deadline``."""
    JOIN_INCOMPLETE = "join_incomplete"
    """A task that follows several others: not all of them ended as it asks for."""
    PROTOCOL_ERROR = "protocol_error"
    """The process sent the server something that is not of the task protocol."""
    INTERNAL = "internal"
    """A fault inside the server."""


@dataclass(frozen=True, slots=True)
class RunError:
    """What went wrong, for a reader who wants to mend it. ``file`` is relative to the task."""

    code: str
    message: str
    hint: str | None = None
    file: str | None = None
    line: int | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What a task showed with ``output.*``. ``body`` is text, or base64 when ``base64`` is set."""

    kind: str
    """``text`` ``html`` ``image`` ``file`` or ``value``."""
    content_type: str
    body: str
    base64: bool = False
    name: str | None = None
    data: Any = None


@dataclass(frozen=True, slots=True)
class Payload:
    """What a run was started with; kept apart from its row. All JSON-able."""

    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input: Any = None
    request: Mapping[str, Any] | None = None
    dropped: bool = False
    """There was something, and ``run_inputs`` has let it go: the run cannot be replayed as it was.
    """


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A wish to run a task: the only thing a trigger or surface may hand to the queue.

    ``params`` are the caller's, not yet coerced. ``strict_params`` refuses undeclared names (a
    caller who names them); otherwise undeclared names are left in ``input`` alone.
    ``not_before_ms`` delays the start (epoch ms). ``slot_ms`` is the cron slot, at most one run
    per task and slot. ``actor`` is who asked, for the audit.
    """

    task_id: str
    trigger: Trigger
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input: Any = None
    request: Mapping[str, Any] | None = None
    actor: str = "local"
    strict_params: bool = True
    idempotency_key: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = None
    replay_of: str | None = None
    retry_of: str | None = None
    retry_until_ms: int | None = None
    attempt: int = 1
    chain_depth: int = 0
    priority: int | None = None
    """-100 to 100, higher starts first; None is what the task says."""
    not_before_ms: int | None = None
    slot_ms: int | None = None
    catchup: bool = False
    origin: str | None = None
    """As of ``Run``."""
    given: Task | None = None
    """The very task to run, where that is none of those in force: its id is ``task_id``."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a task. Times are epoch ms; ``fence`` grows with each claim."""

    id: str
    task_id: str
    status: RunStatus
    trigger: Trigger
    created_at_ms: int
    task_hash: str = ""
    revision: str | None = None
    actor: str = "local"
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    reason: str | None = None
    error: RunError | None = None
    return_value: str | None = None
    """The return value as JSON text; None when there is none."""
    output: Output | None = None
    attempt: int = 1
    fence: int = 0
    priority: int = 0
    parent_run_id: str | None = None
    root_run_id: str | None = None
    replay_of: str | None = None
    chain_depth: int = 0
    idempotency_key: str | None = None
    not_before_ms: int | None = None
    slot_ms: int | None = None
    catchup: bool = False
    exit_code: int | None = None
    signal: int | None = None
    pid: int | None = None
    retry_of: str | None = None
    """The run before it, of which this is the next attempt."""
    retry_until_ms: int | None = None
    """No attempt starts after this time."""
    pinned: bool = False
    """Kept whatever the retention says."""
    cpu_ms: int | None = None
    """Processor time of the whole process tree, once it ended."""
    tokens: int | None = None
    """Model tokens that the task reported."""
    limit_key: str | None = None
    """What ``concurrency.key`` came to with this run's parameters; None without a key."""
    waited_ms: int = 0
    """Time between a question and the start that followed its answer; in no duration."""
    paused_at_ms: int | None = None
    """Since when the run has had no process because of a question."""
    origin: str | None = None
    """The actor of the run that this one comes of, over any number of steps; None for one that
    comes of no other."""
    unenforced: str | None = None
    """What its process was not held to, as the machine cannot; None when it was to all."""

    @property
    def duration_ms(self) -> int | None:
        """How long its processes ran, in ms; None while it has not both started and ended.

        Time spent waiting for an answer, and for a slot after it, does not count.
        """
        if self.started_at_ms is None or self.finished_at_ms is None:
            return None
        return max(0, self.finished_at_ms - self.started_at_ms - self.waited_ms)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: the values that the finishing transaction writes."""

    status: RunStatus
    finished_at_ms: int
    reason: str | None = None
    error: RunError | None = None
    return_value: str | None = None
    output: Output | None = None
    exit_code: int | None = None
    signal: int | None = None
    cpu_ms: int | None = None
    tokens: int | None = None
    unenforced: str | None = None


def move(run: Run, to: RunStatus, **changes: Any) -> Run:
    """Give ``run`` in status ``to`` with ``changes``: the only way a status changes.

    Raises ``DicodeError(CONFLICT)`` when the table has no such step.
    """
    if to not in TRANSITIONS[run.status]:
        raise DicodeError(
            Code.CONFLICT,
            f"run {run.id} is {run.status.value} and cannot become {to.value}",
            data={"run_id": run.id, "status": run.status.value},
        )
    return replace(run, status=to, **changes)


def finished(run: Run, outcome: Outcome) -> Run:
    """Give ``run`` as ``outcome`` ends it; what its starts used adds up."""
    return move(
        run,
        outcome.status,
        finished_at_ms=outcome.finished_at_ms,
        **_not_paused(run, outcome.finished_at_ms),
        reason=outcome.reason,
        error=outcome.error,
        return_value=outcome.return_value,
        output=outcome.output,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        cpu_ms=_sum(run.cpu_ms, outcome.cpu_ms),
        tokens=_sum(run.tokens, outcome.tokens),
        unenforced=outcome.unenforced or run.unenforced,
    )


def started(run: Run, now_ms: int, task_hash: str, revision: str | None) -> Run:
    """Give ``run`` as it is claimed: running, fence + 1; ``started_at_ms`` is its first start."""
    return move(
        run,
        RunStatus.RUNNING,
        fence=run.fence + 1,
        started_at_ms=now_ms if run.started_at_ms is None else run.started_at_ms,
        task_hash=task_hash,
        revision=revision,
        **_not_paused(run, now_ms),
    )


def suspended(
    run: Run, now_ms: int, *, cpu_ms: int | None = None, tokens: int | None = None
) -> Run:
    """Give ``run`` as it waits for an answer; ``cpu_ms`` and ``tokens`` are of this start."""
    return move(
        run,
        RunStatus.WAITING,
        paused_at_ms=now_ms,
        cpu_ms=_sum(run.cpu_ms, cpu_ms),
        tokens=_sum(run.tokens, tokens),
    )


def _not_paused(run: Run, now_ms: int) -> dict[str, int | None]:
    if run.paused_at_ms is None:
        return {}
    waited = run.waited_ms + max(0, now_ms - run.paused_at_ms)
    return {"waited_ms": waited, "paused_at_ms": None}


def _sum(before: int | None, now: int | None) -> int | None:
    return now if before is None else before + (now or 0)


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_run_id(now_ms: int | None = None) -> str:
    """Make a run id: a ULID in lower case (26 characters), so ids sort by time of making."""
    moment = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    number = (moment << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -5, -5))
