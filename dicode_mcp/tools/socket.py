r"""The unix socket `<data>/dicode.sock`: who may connect, and one MCP conversation per connection.

It knows nothing of tools. The socket file has mode 0600. A peer is served when the kernel says
(SO_PEERCRED) that its uid is the server's own, and when neither the server is above it nor
``DICODE_RUN_ID`` in its environment or that of a process above it: a task has no identity here.

The protocol, exactly (for the byte pipe ``dicode mcp`` and for the CLI)
========================================================================

*Framing.* UTF-8 JSON, one message per line, each ended by ``\n``; no line is longer than 16 MiB.
This is MCP's stdio framing, so after the optional first line a client may pipe bytes unchanged.
Empty lines are ignored.

*First line (optional).* If the first line of a connection is a JSON object with the only key
``dicode``, it is the preamble. All its keys are optional::

    {"dicode": {"version": "0.1.0",      // the client's version; only for the server's log
                "client": "mcp",         // "mcp" (default) or "cli": the surface shown in the audit
                "read_only": true,       // only tools that change nothing
                "toolsets": ["tasks"],   // only these toolsets: tasks, runs, sources, status
                "tasks": "reports/*",    // only tasks that match one of these comma-separated globs
                "hello": true}}          // ask for an answer

A preamble can only narrow what the connection may do. A preamble with ``"hello": true`` is answered
by exactly one line before anything else::

    {"dicode": {"version": "0.1.0", "pid": 4711, "ok": true}}

Without ``hello`` (or with ``false``) a good preamble has no answer. A bad one (an unknown key, a
wrong type, an unknown toolset) is always answered, whatever ``hello`` says, and the connection
closes::

    {"dicode": {"version": "0.1.0", "pid": 4711, "ok": false,
                "error": {"code": "invalid_argument", "message": "...", "hint": "..."}}}

The same line, with code ``forbidden``, is what a refused peer gets (before it has sent anything),
and with ``rate_limited`` what the 257th connection gets. The server never compares versions: a
client that finds another ``version`` than its own decides what to do. To learn version and pid and
nothing else, send ``{"dicode": {"hello": true}}`` and close.

*After it.* Both MCP eras; the first request decides. Requests may be sent together with the
preamble in one write. Keep the writing side open until the answers have been read: end of file from
the client ends the connection and what is still being answered on it (never a run).

*One call without handshake (modern era).* One line each way; ``id`` is the client's choice::

    {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_status","arguments":{},
     "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",
              "io.modelcontextprotocol/clientInfo":{"name":"dicode-cli","version":"0.1.0"},
              "io.modelcontextprotocol/clientCapabilities":{}}}}

(as ONE line). The answer is the line whose ``id`` is the request's. It has either ``result``, with
the tool's answer in ``result.structuredContent``, which is ``{"error": {code, message, hint?}}``
when ``result.isError`` is true, or ``error`` (JSON-RPC: unknown tool -32602, bad envelope -32602,
unknown version -32022). To get progress while a call waits, add ``"progressToken": 1`` to
``_meta``; lines without ``id`` and with ``"method": "notifications/progress"`` then come first.
``tools/list`` and ``server/discover`` work the same way.

*Errors.* A line that is not JSON gets ``{"jsonrpc":"2.0","id":null,"error":{"code":-32700,...}}``,
JSON that is no JSON-RPC message -32600, and the connection goes on. A line over 16 MiB gets -32700
and the connection closes. End of file within a line discards that line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.runner import serve_dual_era_loop

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.service.principal import Principal, local_principal
from dicode_mcp.service.refused_tasks import RefusedTasks
from dicode_mcp.tools.lines import MAX_LINE_BYTES, LineChannel, MessageReader, MessageWriter
from dicode_mcp.tools.peer import (
    JudgeProcess,
    ReadPeer,
    judge_process,
    read_peer,
    require_client,
)
from dicode_mcp.tools.preamble import Preamble, answer, parse_preamble
from dicode_mcp.tools.registry import TOOLSETS

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
_CLOSE_S = 1.0


class McpSocket:
    """Serves ``server`` to each peer that may connect, as the principal of its connection."""

    def __init__(
        self,
        server: Server[Any],
        *,
        version: str,
        principal: Callable[[], Principal] = lambda: local_principal("mcp"),
        peer: ReadPeer = read_peer,
        judge: JudgeProcess = judge_process,
        max_connections: int = MAX_CONNECTIONS,
        on_refused: Callable[[Principal, str, str], None] | None = None,
    ) -> None:
        self._server = server
        self._on_refused = on_refused
        self._version = version
        self._principal = principal
        self._peer = peer
        self._judge = judge
        self._refused_tasks = RefusedTasks("the socket")
        self._max_connections = max_connections
        self._live: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncGenerator[None]:
        """Serve on ``path`` while the block lasts; then end every connection.

        A socket file that is already there is replaced: call this only with the lock on the data
        dir. Raises ``DicodeError(DATA_DIR)`` when the socket cannot be made.
        """
        listener, inode = bind(path)
        server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE_BYTES)
        try:
            yield
        finally:
            server.close()
            _remove(path, inode)
            # Not a TaskGroup: that would wrap what the block raises in an ExceptionGroup.
            live = list(self._live)
            for task in live:
                task.cancel()
            await asyncio.gather(*live, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer), name="mcp socket")
        self._live.add(task)
        task.add_done_callback(self._live.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = LineChannel(reader, writer)
        try:
            await self._answered(channel, writer.get_extra_info("socket"))
            await channel.linger(_CLOSE_S)
        finally:
            channel.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await writer.wait_closed()

    async def _answered(self, channel: LineChannel, connection: socket.socket) -> None:
        try:
            await self._converse(channel, connection)
        except DicodeError as error:
            log.info("socket connection refused", extra={"code": error.code.value})
            if self._on_refused is not None:
                nobody = Principal("peer:socket", "mcp", frozenset())
                self._on_refused(nobody, "connect", error.code.value)
            with suppress(anyio.BrokenResourceError):
                await self._say(channel, error)
        except (OSError, anyio.BrokenResourceError):
            log.debug("socket connection lost")
        except Exception:
            log.exception("socket connection failed")

    async def _converse(self, channel: LineChannel, connection: socket.socket) -> None:
        self._admit(connection)
        first = await channel.read()
        if first is None:
            return
        principal = self._principal()
        preamble = parse_preamble(first, TOOLSETS)
        if preamble is not None:
            principal = await self._greet(channel, preamble, principal)
        await serve_dual_era_loop(
            self._server,
            MessageReader(channel, None if preamble is not None else first),
            MessageWriter(channel),
            lifespan_state=principal,
        )

    def _admit(self, connection: socket.socket) -> None:
        require_client(
            self._peer(connection),
            own_uid=os.geteuid(),
            judge=self._judge,
            refused_tasks=self._refused_tasks,
        )
        if len(self._live) > self._max_connections:
            raise DicodeError(
                Code.RATE_LIMITED,
                f"the socket already serves {self._max_connections} connections",
                hint="close idle clients (each `dicode mcp` is one)",
                retry=Retry.BACKOFF,
            )

    async def _greet(
        self, channel: LineChannel, preamble: Preamble, principal: Principal
    ) -> Principal:
        narrowed = preamble.narrow(principal)
        log.debug(
            "client connected", extra={"client": preamble.client, "version": preamble.version}
        )
        if preamble.hello:
            await self._say(channel, None)
        return narrowed

    async def _say(self, channel: LineChannel, error: DicodeError | None) -> None:
        await channel.write(json.dumps(answer(self._version, os.getpid(), error)).encode())


def bind(path: Path) -> tuple[socket.socket, int]:
    """Make the socket file (mode 0600, a stale one replaced), not yet listening; and its inode."""
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(str(path))
        # Nobody can connect between bind and listen, so the mode is never seen wider.
        path.chmod(0o600)
        inode = path.lstat().st_ino
    except OSError as error:
        listener.close()
        raise DicodeError(
            Code.DATA_DIR,
            f"cannot make the socket {path}: {error.strerror or error}",
            hint="choose a data dir that is writable and whose path is shorter than 90 characters",
        ) from error
    return listener, inode


def _remove(path: Path, inode: int) -> None:
    with suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()
