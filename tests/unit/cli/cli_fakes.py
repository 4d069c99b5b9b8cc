"""A server that speaks the protocol of ``<data>/dicode.sock`` with answers made by the test."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from dicode_mcp import __version__


class Said(NamedTuple):
    """What one command gave."""

    code: int
    out: str
    err: str


Dicode = Callable[..., Said]
Tool = Callable[[dict[str, Any]], dict[str, Any]]
Refusal = dict[str, Any]


class ToolError(Exception):
    """Makes the tool answer with ``isError``."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, **({"hint": hint} if hint else {})}


class FakeServer:
    """Listens in a thread; records preambles and calls."""

    def __init__(
        self,
        folder: Path,
        tools: dict[str, Tool] | None = None,
        *,
        version: str = __version__,
        refusal: Refusal | None = None,
    ) -> None:
        self.folder = folder
        self.tools = tools or {}
        self.version = version
        self.refusal = refusal
        self.resources: dict[str, Any] = {}
        self.preambles: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.metas: list[dict[str, Any]] = []
        self.tells = True
        """Whether it takes subscriptions; then it tells of a change after each answer."""
        self.watched: list[str] = []
        self.noise: list[dict[str, Any]] = []
        """Messages sent before each answer."""
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(folder / "dicode.sock"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and stop listening."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with suppress(FileNotFoundError):
            (self.folder / "dicode.sock").unlink()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection, connection.makefile("rwb") as wire:
            self.preambles.append(json.loads(wire.readline())["dicode"])
            _send(wire, {"dicode": self._hello()})
            if self.refusal is None:
                self.converse(wire)

    def _hello(self) -> dict[str, Any]:
        facts = {"version": self.version, "pid": os.getpid(), "ok": self.refusal is None}
        return facts | ({"error": self.refusal} if self.refusal else {})

    def converse(self, wire: Any) -> None:
        """Answer each request line."""
        while line := wire.readline():
            request = json.loads(line)
            for message in self.noise:
                _send(wire, message)
            if request["method"] == "subscriptions/listen" and self.tells:
                self.watched += request["params"]["notifications"]["resourceSubscriptions"]
                _send(wire, _note("notifications/subscriptions/acknowledged"))
                continue
            answer = self._answer(request)
            if answer is None:
                return
            _send(wire, {"jsonrpc": "2.0", "id": request["id"], **answer})
            for uri in self.watched:
                _send(wire, _note("notifications/resources/updated", uri=uri))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        params = cast("dict[str, Any]", request["params"])
        self.metas.append(params["_meta"])
        if request["method"] == "subscriptions/listen":
            return {"error": {"code": -32601, "message": "Method not found"}}
        if request["method"] == "resources/read":
            text = json.dumps(self.resources[params["uri"]])
            return {"result": {"contents": [{"uri": params["uri"], "text": text}]}}
        name, arguments = params["name"], params["arguments"]
        self.calls.append((name, arguments))
        tool = self.tools.get(name)
        if tool is None:
            return {"error": {"code": -32602, "message": f"Unknown tool: {name}"}}
        try:
            return {"result": {"structuredContent": tool(arguments), "content": []}}
        except ToolError as error:
            structured = {"error": error.error}
            return {"result": {"isError": True, "structuredContent": structured, "content": []}}
        except ConnectionAbortedError:
            return None


def _send(wire: Any, message: dict[str, Any]) -> None:
    wire.write(json.dumps(message).encode() + b"\n")
    wire.flush()


def _note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}
