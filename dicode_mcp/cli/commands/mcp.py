"""``dicode mcp``: find or start the server, then be a byte pipe to it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from contextlib import suppress
from typing import Any

from dicode_mcp.cli import failures
from dicode_mcp.cli.client import Hello, dial, preamble, read_hello, version_note
from dicode_mcp.cli.failures import unreachable
from dicode_mcp.cli.pipe import CHUNK, End, Pipe
from dicode_mcp.cli.places import Places
from dicode_mcp.cli.session import Session

HELLO_SECONDS = 10.0


def mcp(session: Session, args: argparse.Namespace) -> int:
    """Connect standard input and output to the server; only JSON-RPC goes to standard output."""
    connection, hello, rest = _connected(session.places, _narrowing(args))
    if note := version_note(hello.version):
        session.terminal.note(note)
        session.terminal.err.flush()
    with connection:
        end = Pipe(sys.stdin.fileno(), sys.stdout.fileno(), connection, rest).run()
    if end is End.SERVER_GONE:
        session.terminal.note(
            "dicode: the server went away; `dicode status` shows whether it is back"
        )
        return failures.UNREACHABLE
    return failures.OK


def _narrowing(args: argparse.Namespace) -> dict[str, Any]:
    narrowing: dict[str, Any] = {}
    if args.read_only:
        narrowing["read_only"] = True
    if args.toolsets is not None:
        narrowing["toolsets"] = [name.strip() for name in args.toolsets.split(",") if name.strip()]
    if args.tasks is not None:
        narrowing["tasks"] = args.tasks
    return narrowing


def _connected(places: Places, narrowing: dict[str, Any]) -> tuple[socket.socket, Hello, bytes]:
    try:
        return _greet(places, narrowing)
    except OSError:
        # Imported here: a client that finds the server running should not pay for it.
        from dicode_mcp.cli import process

        process.start_detached(places, process.Start((), os.getcwd()))
    try:
        return _greet(places, narrowing)
    except OSError as error:
        raise unreachable(
            f"the server was started but its socket failed: {error.strerror}",
            f"look at {places.log}",
        ) from None


def _greet(places: Places, narrowing: dict[str, Any]) -> tuple[socket.socket, Hello, bytes]:
    """Exchange the preamble; gives what came after the server's line too."""
    connection = dial(places.socket)
    try:
        connection.settimeout(HELLO_SECONDS)
        with suppress(BrokenPipeError):
            connection.sendall(preamble("mcp", **narrowing))
        received = bytearray()
        while b"\n" not in received:
            chunk = connection.recv(CHUNK)
            if not chunk:
                break
            received += chunk
        line, _, rest = bytes(received).partition(b"\n")
        return connection, read_hello(line), rest
    except TimeoutError:
        connection.close()
        raise unreachable(
            f"the server is there but has not answered within {HELLO_SECONDS:g} s",
            "run `dicode doctor`, or `dicode restart`",
        ) from None
    except BaseException:
        connection.close()
        raise
