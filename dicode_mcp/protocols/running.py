"""What a run says to the house and asks of it while it is on."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicode_mcp.runs.accesses import Access, Hint
from dicode_mcp.runs.limits import Blocked, Crowd, Group
from dicode_mcp.runs.model import Output, Payload, Run, RunError
from dicode_mcp.runs.questions import Draft
from dicode_mcp.runs.redaction import NOTHING, Redactor
from dicode_mcp.spec.model import Task


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
    used: tuple[Hint, ...] = ()
    """What the process says that it used, refused or not: hints, from the task itself."""
    watched: bool = False
    """Whether ``used`` is all that the process could see of itself."""
    calls: frozenset[Access] = frozenset()
    """What it asked of the server, by the line of ``permissions.dicode`` that it takes."""


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
        self,
        run: Run,
        task: Task,
        payload: Payload,
        *,
        at: Path | None = None,
        hide: Redactor = NOTHING,
    ) -> AbstractAsyncContextManager[Session]:
        """Serve the task's calls, checked against its ``permissions.dicode``, while open.

        Over a socket pair whose other end the process inherits; with ``at``, over the first
        connection of the server's own user to a unix socket made there. What the calls show is
        shown without what ``hide`` finds. Raises ``DicodeError`` (INTERNAL) when the socket cannot
        be made.
        """
        ...
