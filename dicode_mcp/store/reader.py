"""Threads that read from one SQLite database, each with a connection of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection

from dicode_mcp.store.answers import Answer, Answers
from dicode_mcp.store.faults import store_closed, translate
from dicode_mcp.store.prepared import driver_of

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Question:
    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]


class ReaderPool:
    """Runs plain functions of a connection, each on one snapshot of the database."""

    def __init__(
        self, name: str, connections: Sequence[Connection], answers: Answers, *, where: str
    ) -> None:
        self._answers = answers
        self._where = where
        self._queue: SimpleQueue[_Question | None] = SimpleQueue()
        self._closed = False
        loop = asyncio.get_running_loop()
        self._ended = [loop.create_future() for _ in connections]
        self._threads = [
            threading.Thread(
                target=self._main, args=(connection, ended), name=f"{name}-{n}", daemon=True
            )
            for n, (connection, ended) in enumerate(zip(connections, self._ended, strict=True))
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Give what ``work`` reads; raises ``DicodeError`` when the database cannot be read."""
        if self._closed:
            raise store_closed()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Question(work, future))
        return await future

    async def close(self) -> None:
        """Answer what is queued, then end the threads and close the connections."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        await asyncio.wait(self._ended)
        for thread in self._threads:
            thread.join()

    # ── In the threads ──

    def _main(self, connection: Connection, ended: asyncio.Future[None]) -> None:
        try:
            while (question := self._queue.get()) is not None:
                if not question.future.cancelled():
                    self._answers.give([self._read(connection, question)])
        finally:
            with suppress(Exception):
                connection.close()
            self._answers.give([Answer(ended, None, None)])

    def _read(self, connection: Connection, question: _Question) -> Answer:
        try:
            driver = driver_of(connection)
            driver.execute("BEGIN")
            try:
                value = question.work(connection)
            finally:
                driver.execute("ROLLBACK")
        except Exception as error:
            return Answer(question.future, None, translate(error, self._where))
        return Answer(question.future, value, None)
