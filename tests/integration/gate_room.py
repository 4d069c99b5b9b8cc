"""A room with servers around a run whose network goes through the gate, and what came of it.

    python tests/integration/gate_room.py <folder> <python|deno> <certificate> <key> [led|bare]

Runs as whoever starts it and prints one JSON object. Only the resolver is not the machine's own.
With ``led`` the run is made as on a machine without namespaces; with ``bare`` this process first
goes where there are none.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicode_mcp.cage import namespaces
from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.gate.outside import Outside
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import Probe, look
from dicode_mcp.protocols import Runtime
from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import Payload, RunStatus
from dicode_mcp.spec.model import FsGrant, Permissions
from dicode_mcp.testing.runtime_house import RuntimeHouse
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.python import PythonRuntime

DATA = Path(__file__).parent / "data"
HOSTS = {
    "allowed.test": ["127.0.0.1"],
    "deep.wild.example": ["127.0.0.1"],
    "rebound.example": ["127.0.0.2"],
    "metadata.example": ["169.254.169.254"],
    "mapped.example": ["::ffff:127.0.0.2"],
    "other.test": ["127.0.0.1"],
}


def resolve(name: str) -> list[str]:
    """Look a name up in the map; no name server is asked."""
    if name not in HOSTS:
        raise OSError("no such name")
    return HOSTS[name]


class Servers:
    """Servers on the loopback, each of which remembers who came."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.visits: list[str] = []

    async def start(self, name: str, host: str = "127.0.0.1", **options: Any) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.visits.append(name)
            try:
                head = await reader.readuntil(b"\n")
                if head.startswith(b"GET"):
                    while (await reader.readline()).strip():
                        pass
                    body = f"hello from {name}".encode()
                    size = f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                    writer.write(b"HTTP/1.1 200 OK\r\n" + size + body)
                else:
                    writer.write(name.encode() + b" heard " + head)
                await writer.drain()
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, host, 0, **options)
        await self._stack.enter_async_context(server)
        return int(server.sockets[0].getsockname()[1])


def runtime_of(kind: str, folder: Path) -> tuple[Runtime, str, str]:
    """Give the runtime, the suffix of scripts, and the script that tries everything."""
    if kind == "python":
        script = (DATA / "through_the_gate.py").read_text()
        return PythonRuntime(interpreter=sys.executable), ".py", script
    deno = DenoRuntime(folder / "cache", DenoProgram(os.environ))
    return deno, ".ts", (DATA / "through_the_gate.ts").read_text()


def leave_namespaces() -> None:
    """Go where the kernel grants no namespaces, as in a container, and give up all rights."""
    namespaces.enter(["user"])
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    namespaces.drop_rights()


def probed(how: str) -> Probe:
    """Give what there is here, or what there would be without namespaces."""
    return replace(look(), files="no", files_as_root="no") if how == "led" else look()


async def visit(
    folder: Path, kind: str, certificate: str, key: str, how: str = ""
) -> dict[str, Any]:
    """Run the script; give what it saw, who came to the servers, and what the log says."""
    become_subreaper()
    runtime, suffix, script = runtime_of(kind, folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        ports = {
            "web": await servers.start("web"),
            "tls": await servers.start("tls", ssl=context),
            "raw": await servers.start("raw"),
            "shut": await servers.start("shut"),
            "own": await servers.start("own"),
            "six": await servers.start("six", "::1"),
        }
        outside = Outside(resolve, own_ports=lambda: (ports["own"],))
        stack.callback(outside.close)
        net = [
            f"allowed.test:{ports['web']}",
            f"allowed.test:{ports['tls']}",
            f"allowed.test:{ports['raw']}",
            "*.wild.example",
            "rebound.example",
            "metadata.example",
            "mapped.example",
            *(f"127.0.0.1:{ports[name]}" for name in ("web", "tls", "raw", "own")),
            f"localhost:{ports['six']}",
        ]
        permissions = Permissions(net=tuple(net), fs=(FsGrant(path=certificate, permission="r"),))
        cages = Cages("strict", probed(how), Ceilings(2**31, 256), outside)
        executor = await stack.enter_async_context(SpawnExecutor(SystemClock(), cages=cages))
        house = RuntimeHouse(runtime, suffix, executor, folder)
        params = {**ports, "certificate": certificate}
        ended = await house.run(script, Payload(params=params), permissions=permissions, limit=60)
    return {
        "uid": os.geteuid(),
        "sandbox": cages.health().message,
        "status": ended.outcome.status.value,
        "error": str(ended.outcome.error),
        "log": ended.messages[-30:],
        "security": [message for level, message in ended.log if level is Level.SECURITY],
        "tries": ended.value if ended.outcome.status is RunStatus.SUCCESS else {},
        "visits": servers.visits,
        "ports": ports,
    }


def main() -> None:
    folder, kind, certificate, key, *how = sys.argv[1:]
    if how == ["bare"]:
        leave_namespaces()
    json.dump(asyncio.run(visit(Path(folder), kind, certificate, key, *how)), sys.stdout)


if __name__ == "__main__":
    main()
