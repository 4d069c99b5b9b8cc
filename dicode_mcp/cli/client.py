"""The socket client: the preamble, then one JSON-RPC ``tools/call`` per line.

Knows the framing of ``<data>/dicode.sock`` and nothing of what the tools mean. It speaks the
protocol era without a handshake, so a command costs one round trip after the preamble.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, cast

from dicode_mcp import __version__
from dicode_mcp.cli.failures import ToolFailed, unreachable
from dicode_mcp.errors import Code, DicodeError

PROTOCOL_VERSION = "2026-07-28"
ANSWER_SECONDS = 30.0
"""How long an answer may take beyond what the call itself asked to wait."""

_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
_META = {
    "io.modelcontextprotocol/protocolVersion": PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "dicode-cli", "version": __version__},
    _CAPABILITIES: {},
}
_MOST_ROUNDS = 5
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
_UPDATED = "notifications/resources/updated"

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Puts a form (``message``, ``requestedSchema``) to whoever sits there; gives the answer's fields
(``action``, ``content``)."""


class Hello(NamedTuple):
    """What the server says of itself in answer to the preamble."""

    version: str
    pid: int


def preamble(client: str, **narrowing: Any) -> bytes:
    """Give the first line of a connection; ``narrowing`` can only take rights away."""
    facts = {"version": __version__, "client": client, "hello": True, **narrowing}
    return json.dumps({"dicode": facts}).encode() + b"\n"


def dial(path: str, timeout: float | None = 5.0) -> socket.socket:
    """Connect to the socket at ``path``.

    Raises ``OSError`` when nobody listens there, and ``DicodeError(FORBIDDEN)`` when somebody
    else's process does.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
        _check_peer(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def peer_credentials(connection: socket.socket) -> tuple[int, int] | None:
    """Give the listener's ``(pid, uid)`` as the kernel knows them; None where it does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", raw)
    return pid, uid


def _check_peer(connection: socket.socket, path: str) -> None:
    peer = peer_credentials(connection)
    if peer is None or os.geteuid() == 0 or peer[1] in (0, os.geteuid()):
        return
    raise DicodeError(
        Code.FORBIDDEN,
        f"the server at {path} belongs to another user (uid {peer[1]})",
        hint="use your own data dir with --data-dir",
    )


def read_hello(line: bytes) -> Hello:
    """Read the server's answer to the preamble.

    Raises the server's own refusal when it does not accept, and ``DicodeError(UNREACHABLE)``
    when there is no answer that can be read.
    """
    if not line:
        raise unreachable(
            "the server closed the connection without an answer", "run `dicode status`"
        )
    try:
        document: Any = json.loads(line)
        facts: dict[str, Any] = document["dicode"]
        accepted = bool(facts["ok"])
    except (ValueError, KeyError, TypeError):
        raise unreachable(
            "something answers on the socket, but it is not a dicode server this command knows",
            "run `dicode restart`",
        ) from None
    if not accepted:
        raise _refusal(facts.get("error"))
    return Hello(str(facts.get("version", "")), int(facts.get("pid") or 0))


def _refusal(error: Any) -> DicodeError:
    details = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    try:
        code = Code(details.get("code"))
    except ValueError:
        code = Code.FORBIDDEN
    message = details.get("message") or "the server refused the connection"
    hint = details.get("hint")
    return DicodeError(code, str(message), hint=str(hint) if hint else None)


def version_note(server: str) -> str | None:
    """Say that the running server is of another version than this command, if it is."""
    if server == __version__:
        return None
    return (
        f"dicode: the running server is version {server or 'unknown'}, this command is"
        f" {__version__}; `dicode restart` brings the server up to date"
    )


def not_running(data_dir: str) -> DicodeError:
    """Make the error of a data dir without a server."""
    return unreachable(
        f"no server is running for {data_dir}",
        "start one with `dicode serve` (or `dicode serve --detach`)",
    )


class Lines:
    """The lines of a connection. A read that runs out of time loses nothing of what has come."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._came = bytearray()
        self._seen = 0

    def readline(self) -> bytes:
        """Give the next line with its end; what is left at the end of the connection, or nothing.

        Raises ``TimeoutError`` as the connection's own timeout says.
        """
        while (end := self._came.find(b"\n", self._seen)) < 0:
            self._seen = len(self._came)
            piece = self._connection.recv(65536)
            if not piece:
                end = len(self._came) - 1
                break
            self._came += piece
        line = bytes(self._came[: end + 1])
        del self._came[: end + 1]
        self._seen = 0
        return line


class Client:
    """One connection to the server; use it as a context manager."""

    def __init__(self, connection: socket.socket, hello: Hello, lines: Lines) -> None:
        self.hello = hello
        self._connection = connection
        self._lines = lines
        self._last_id = 0
        self._watching = False
        self._changed = False

    @classmethod
    def connect(cls, path: str, *, client: str = "cli", timeout: float = 5.0) -> Client:
        """Open a connection and exchange the preamble.

        Raises ``DicodeError(UNREACHABLE)`` when no server answers within ``timeout`` seconds.
        """
        try:
            connection = dial(path, timeout)
        except OSError as error:
            raise _translate(error, path) from None
        lines = Lines(connection)
        try:
            with suppress(BrokenPipeError):  # a refusal may have come before the preamble went
                connection.sendall(preamble(client))
            return cls(connection, read_hello(lines.readline()), lines)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise _translate(error, path) from None
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was started through it goes on."""
        self._connection.close()

    def call(
        self,
        tool: str,
        arguments: dict[str, Any] | None = None,
        *,
        waits: float = 0.0,
        ask: Ask | None = None,
    ) -> dict[str, Any]:
        """Call a tool and give its structured result.

        ``waits`` is how many seconds the call itself may rightly take. With ``ask`` the server may
        ask back. Raises ``ToolFailed`` for an answer with ``isError`` and ``DicodeError`` when the
        server goes away.
        """
        params: dict[str, Any] = {"name": tool, "arguments": arguments or {}}
        result = self._request("tools/call", params, waits, asks=ask is not None)
        for _ in range(_MOST_ROUNDS):
            questions = _questions(result)
            if ask is None or not questions:
                break
            params["inputResponses"] = {name: ask(form) for name, form in questions.items()}
            params["requestState"] = result.get("requestState")
            result = self._request("tools/call", params, waits, asks=True)
        return _structured(result)

    def read(self, uri: str) -> dict[str, Any]:
        """Read a JSON resource whole; raises like ``call``."""
        result = self._request("resources/read", {"uri": uri}, 0.0)
        try:
            document: Any = json.loads(result["contents"][0]["text"])
        except (KeyError, IndexError, TypeError, ValueError):
            document = None
        return cast("dict[str, Any]", document) if isinstance(document, dict) else {}

    def watch(self, *uris: str) -> None:
        """Ask to be told of changes of resources from now on; ``changed`` waits for them.

        A server that does not tell leaves ``changed`` to wait its whole time.
        """
        wanted = {"notifications": {"resourceSubscriptions": list(uris)}}
        request = self._made("subscriptions/listen", wanted)
        answer = self._exchange(request, ANSWER_SECONDS, until=_ACKNOWLEDGED)
        self._watching = "error" not in answer

    @property
    def watching(self) -> bool:
        """Tell whether the server tells of changes."""
        return self._watching

    def changed(self, seconds: float) -> bool:
        """Wait until a watched resource has changed since this was last asked; tell whether so.

        Raises ``DicodeError`` when the server goes away.
        """
        deadline = time.monotonic() + seconds
        while not self._changed and (left := deadline - time.monotonic()) > 0:
            self._connection.settimeout(left)
            try:
                if self._read() is None:
                    raise _gone()
            except TimeoutError:
                break
            except OSError:
                raise _gone() from None
        changed, self._changed = self._changed, False
        return changed

    def _request(
        self, method: str, params: dict[str, Any], waits: float, *, asks: bool = False
    ) -> Any:
        request = self._made(method, params, asks=asks)
        answer = self._exchange(request, ANSWER_SECONDS + waits)
        if "error" in answer:
            raise _protocol_error(answer["error"])
        return answer.get("result")

    def _made(self, method: str, params: dict[str, Any], *, asks: bool = False) -> dict[str, Any]:
        self._last_id += 1
        meta: dict[str, Any] = {**_META}
        if asks:
            meta[_CAPABILITIES] = {"elicitation": {"form": {}}}
        return {
            "jsonrpc": "2.0",
            "id": self._last_id,
            "method": method,
            "params": {**params, "_meta": meta},
        }

    def _read(self) -> dict[str, Any] | None:
        """Take one message, noting what it tells of; None at the end of the connection."""
        line = self._lines.readline()
        if not line:
            return None
        message: Any = json.loads(line)
        found = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
        self._changed |= found.get("method") == _UPDATED
        return found

    def _exchange(
        self, request: dict[str, Any], timeout: float, *, until: str | None = None
    ) -> dict[str, Any]:
        """Send a request and give its answer, or the notification ``until`` if that comes first."""
        self._connection.settimeout(timeout)
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            while (message := self._read()) is not None:
                if message.get("id") == request["id"]:
                    return message
                if until is not None and message.get("method") == until:
                    return message
        except TimeoutError:
            raise unreachable(
                f"the server did not answer within {timeout:g} s", "run `dicode doctor`"
            ) from None
        except OSError:
            pass
        except ValueError:
            raise unreachable(
                "the server sent a line that is not JSON", "run `dicode restart`"
            ) from None
        raise _gone()


def _gone() -> DicodeError:
    return unreachable(
        "the server went away before it answered",
        "run `dicode status`; a run that was started goes on or is marked lost",
    )


def _protocol_error(error: Any) -> ToolFailed:
    details = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    message = str(details.get("message", "the server refused the request"))
    return ToolFailed(
        {
            "error": {
                "code": "protocol_error",
                "message": message,
                "hint": "the server may be of another version: see `dicode status`",
            }
        }
    )


def _questions(result: Any) -> dict[str, dict[str, Any]]:
    """Give the forms of a result that asks back, by name."""
    if not isinstance(result, dict) or cast("dict[str, Any]", result).get("resultType") != (
        "input_required"
    ):
        return {}
    asked: dict[str, dict[str, Any]] = cast("dict[str, Any]", result).get("inputRequests") or {}
    return {name: cast("dict[str, Any]", q.get("params") or {}) for name, q in asked.items()}


def _structured(result: Any) -> dict[str, Any]:
    answer = cast("dict[str, Any]", result) if isinstance(result, dict) else {}
    content: Any = answer.get("structuredContent")
    structured = cast("dict[str, Any]", content) if isinstance(content, dict) else None
    if answer.get("isError"):
        raise ToolFailed(structured or _error_of_text(answer))
    return structured if structured is not None else {}


def _error_of_text(answer: dict[str, Any]) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = answer.get("content") or []
    text = "\n".join(str(block.get("text", "")) for block in blocks).strip()
    return {"error": {"code": Code.INTERNAL.value, "message": text or "the call failed"}}


def _translate(error: OSError, path: str) -> DicodeError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return DicodeError(
            Code.FORBIDDEN,
            f"no permission to use the socket {path}",
            hint="run as the user who started the server, or use your own --data-dir",
        )
    if isinstance(error, TimeoutError):
        return unreachable(
            f"the server at {path} is there but does not answer", "run `dicode doctor`"
        )
    return not_running(os.path.dirname(path))
