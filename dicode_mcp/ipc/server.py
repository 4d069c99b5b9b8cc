"""Opens the connection for each run; the way tasks reach the server and nothing else does."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dicode_mcp import __version__
from dicode_mcp.ipc.calls import TaskCalls
from dicode_mcp.ipc.door import Door
from dicode_mcp.ipc.frames import PROTOCOL
from dicode_mcp.ipc.session import OnLearned, OnRefused, TaskSession
from dicode_mcp.runs.model import Payload, Run
from dicode_mcp.runs.redaction import NOTHING, Redactor
from dicode_mcp.spec.model import Task


class SessionServer:
    """Serves each running task over a connection that only its own process has."""

    def __init__(
        self,
        calls: TaskCalls,
        *,
        max_in_flight: int = 64,
        on_refused: OnRefused | None = None,
        on_learned: OnLearned | None = None,
    ) -> None:
        self._calls = calls
        self._on_learned = on_learned
        self._on_refused = on_refused
        self._max_in_flight = max_in_flight

    @asynccontextmanager
    async def open(
        self,
        run: Run,
        task: Task,
        payload: Payload,
        *,
        at: Path | None = None,
        hide: Redactor = NOTHING,
    ) -> AsyncGenerator[TaskSession]:
        """Serve the task's calls, checked against its ``permissions.dicode``, while open.

        Over a socket pair, or with ``at`` over the first connection to a unix socket made there.
        Raises ``DicodeError(INTERNAL)`` when it cannot be made.
        """
        opened = (
            self._pair(run, task, payload, hide)
            if at is None
            else self._door(run, task, payload, hide, at)
        )
        async with opened as session:
            try:
                yield session
            finally:
                await session.close()

    @asynccontextmanager
    async def _pair(
        self, run: Run, task: Task, payload: Payload, hide: Redactor
    ) -> AsyncGenerator[TaskSession]:
        ours, theirs = socket.socketpair()
        start = _start(run, task, payload)
        session = TaskSession(
            self._calls,
            run,
            task,
            start,
            self._max_in_flight,
            child=theirs,
            hide=hide,
            on_refused=self._on_refused,
            on_learned=self._on_learned,
        )
        ours.setblocking(False)
        await _connect(session, ours)
        yield session

    @asynccontextmanager
    async def _door(
        self, run: Run, task: Task, payload: Payload, hide: Redactor, path: Path
    ) -> AsyncGenerator[TaskSession]:
        with Door(path, os.geteuid()) as door:
            start = _start(run, task, payload)
            session = TaskSession(
                self._calls,
                run,
                task,
                start,
                self._max_in_flight,
                last_call=door.shut,
                hide=hide,
                on_refused=self._on_refused,
                on_learned=self._on_learned,
            )
            # Not a TaskGroup: it would wrap what the run's own start raises.
            porter = asyncio.create_task(_let_in(door, session))
            try:
                yield session
            finally:
                porter.cancel()
                await asyncio.wait([porter])


async def _let_in(door: Door, session: TaskSession) -> None:
    connection = await door.admit()
    if connection is None:
        session.nobody_came()
        return
    try:
        await _connect(session, connection)
    except OSError:
        connection.close()
        session.nobody_came()


async def _connect(session: TaskSession, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: session, sock=connection)


def _start(run: Run, task: Task, payload: Payload) -> Mapping[str, Any]:
    return {
        "protocol": PROTOCOL,
        "server": __version__,
        "run_id": run.id,
        "task_id": task.id,
        "attempt": run.attempt,
        "params": dict(payload.params),
        "input": payload.input,
        "request": payload.request,
        "code": task.code,
        "permissions": {
            "fs": [[grant.path, grant.permission] for grant in task.spec.permissions.fs],
            "net": list(task.spec.permissions.net),
            "run": list(task.spec.permissions.run),
            "env": [entry.name for entry in task.spec.permissions.env],
        },
    }
