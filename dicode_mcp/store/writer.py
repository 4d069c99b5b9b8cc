"""One thread that writes to one SQLite database, and commits what is queued together.

A caller's piece of work is a plain function of a connection. It must be repeatable: when a batch
cannot be committed as a whole, each piece runs again in a transaction of its own. An answer is
given only after its COMMIT.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

from sqlalchemy import Connection

from dicode_mcp.clock import Clock
from dicode_mcp.store.answers import Answer, Answers
from dicode_mcp.store.faults import (
    STORAGE_FAULTS,
    Fault,
    fault_of,
    storage_busy,
    storage_full,
    store_closed,
    translate,
)
from dicode_mcp.store.reserve import Reserve

T = TypeVar("T")
Work = Callable[[Connection], T]

BATCH = 500


@dataclass(slots=True, eq=False)
class _Op:
    work: Work[Any]
    future: asyncio.Future[Any]
    essential: bool
    queued_at: float


class _Undone(Exception):
    """The database undid the whole transaction while one piece of work ran."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class GroupWriter:
    """Runs work on ``connection`` (autocommit, a short busy timeout) in a thread of its own.

    ``reserve`` is for the one writer that may use the ballast.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        answers: Answers,
        clock: Clock,
        reserve: Reserve | None,
        *,
        where: str,
        lock_timeout_s: float = 5.0,
    ) -> None:
        self._connection = connection
        self._driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        self._answers = answers
        self._clock = clock
        self._reserve = reserve
        self._where = where
        self._lock_timeout_s = lock_timeout_s
        self._queue: SimpleQueue[_Op | None] = SimpleQueue()
        self._closed = False
        self._ended = asyncio.get_running_loop().create_future()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def run(self, work: Work[T], *, essential: bool = False) -> T:
        """Do ``work`` in a transaction and give its value once it is durable.

        ``essential`` work ends what is under way or makes room, and may use the ballast. Work is
        done even when the caller stops waiting. Raises ``DicodeError`` (STORAGE_FULL,
        STORAGE_UNAVAILABLE, or what the work raised); then nothing of it is stored.
        """
        return await self.submit(work, essential=essential)

    def submit(self, work: Work[T], *, essential: bool = False) -> asyncio.Future[T]:
        """Queue ``work`` and give the future of its value; see ``run``."""
        if self._closed:
            raise store_closed()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Op(work, future, essential, self._clock.monotonic()))
        return future

    async def close(self) -> None:
        """Do what is queued, then end the thread and close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.wait([self._ended])
        self._thread.join()

    # ── In the thread ──

    def _main(self) -> None:
        try:
            going = True
            while going:
                first = self._queue.get()
                if first is None:
                    break
                batch = [first]
                going = self._drain(batch)
                self._serve(batch)
        finally:
            with suppress(Exception):
                self._connection.close()
            self._answers.give([Answer(self._ended, None, None)])

    def _drain(self, batch: list[_Op]) -> bool:
        """Add what else is queued to ``batch``; tells whether more may come."""
        while len(batch) < BATCH:
            try:
                op = self._queue.get_nowait()
            except Empty:
                return True
            if op is None:
                return False
            batch.append(op)
        return True

    def _serve(self, batch: list[_Op]) -> None:
        try:
            answers = self._commit(self._admit(batch))
        except Exception as error:
            answers = [Answer(op.future, None, translate(error, self._where)) for op in batch]
        self._answers.give(answers)

    def _admit(self, batch: Sequence[_Op]) -> list[_Op]:
        """Refuse what a full disk has no room for; gives the rest."""
        if not self._is_full():
            return list(batch)
        error = storage_full(self._where)
        self._answers.give([Answer(op.future, None, error) for op in batch if not op.essential])
        return [op for op in batch if op.essential]

    def _commit(self, batch: list[_Op]) -> list[Answer]:
        if not batch:
            return []
        try:
            return self._together(batch)
        except _Undone as undone:
            fault = fault_of(undone.cause)
        except Exception as error:
            fault = fault_of(error)
        if fault is Fault.FULL and self._reserve is not None:
            self._reserve.release()
        return [self._alone(op) for op in batch]

    def _together(self, batch: list[_Op]) -> list[Answer]:
        """Do a batch in one transaction; one that fails by itself does not harm the others."""
        with self._transaction(batch):
            return [self._savepoint(op) for op in batch]

    def _savepoint(self, op: _Op) -> Answer:
        raw = self._driver
        raw.execute("SAVEPOINT work")
        try:
            value = op.work(self._connection)
        except Exception as error:
            if not raw.in_transaction:
                raise _Undone(error) from error
            if fault_of(error) in STORAGE_FAULTS:
                raise
            raw.execute("ROLLBACK TO work")
            raw.execute("RELEASE work")
            return Answer(op.future, None, translate(error, self._where))
        raw.execute("RELEASE work")
        return Answer(op.future, value, None)

    def _alone(self, op: _Op) -> Answer:
        """Do one piece of work in its own transaction."""
        if self._is_full() and not op.essential:
            return Answer(op.future, None, storage_full(self._where))
        waiting = [op]
        try:
            with self._transaction(waiting):
                value = op.work(self._connection) if waiting else None
        except Exception as error:
            return Answer(op.future, None, translate(error, self._where))
        return Answer(op.future, value, None)

    def _is_full(self) -> bool:
        return self._reserve is not None and self._reserve.is_full()

    @contextmanager
    def _transaction(self, batch: list[_Op]) -> Generator[None]:
        """Hold the write lock around the block; ``batch`` loses what waited too long for it."""
        raw = self._driver
        if not self._begin(batch):
            yield
            return
        try:
            yield
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise

    def _begin(self, batch: list[_Op]) -> bool:
        """Take the write lock; gives False when the whole batch ran out of patience first.

        IMMEDIATE, because a transaction that reads before it writes fails at once when another
        process wrote in between, whatever the busy timeout says.
        """
        while batch:
            try:
                self._driver.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if fault_of(error) is not Fault.BUSY:
                    raise
            else:
                return True
            self._give_up_old(batch)
        return False

    def _give_up_old(self, batch: list[_Op]) -> None:
        oldest = self._clock.monotonic() - self._lock_timeout_s
        late = [op for op in batch if op.queued_at <= oldest]
        batch[:] = [op for op in batch if op.queued_at > oldest]
        error = storage_busy(self._where, self._lock_timeout_s)
        self._answers.give([Answer(op.future, None, error) for op in late])
