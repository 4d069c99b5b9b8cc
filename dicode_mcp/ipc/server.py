"""Opens the connection for each run; the way tasks reach the server and nothing else does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from dicode_mcp import __version__
from dicode_mcp.ipc.calls import TaskCalls
from dicode_mcp.ipc.frames import PROTOCOL
from dicode_mcp.ipc.session import TaskSession
from dicode_mcp.runs.model import Payload, Run
from dicode_mcp.spec.model import Task


class SessionServer:
    """Serves each running task over a socket pair whose other end its process inherits."""

    def __init__(self, calls: TaskCalls, *, max_in_flight: int = 64) -> None:
        self._calls = calls
        self._max_in_flight = max_in_flight

    @asynccontextmanager
    async def open(self, run: Run, task: Task, payload: Payload) -> AsyncGenerator[TaskSession]:
        """Serve the task's calls, checked against its ``permissions.dicode``, while open."""
        ours, theirs = socket.socketpair()
        session = TaskSession(self._calls, run, task, theirs, self._max_in_flight)
        try:
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: session, sock=ours)
            session.open(
                {
                    "protocol": PROTOCOL,
                    "server": __version__,
                    "run_id": run.id,
                    "task_id": task.id,
                    "attempt": run.attempt,
                    "params": dict(payload.params),
                    "input": payload.input,
                    "request": payload.request,
                    "code": task.code,
                }
            )
            yield session
        finally:
            await session.close()
