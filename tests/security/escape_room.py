"""A room to escape from: targets around a run, and what became of them.

    python tests/security/escape_room.py <folder> <python|deno|bare-deno>[-waiting|-container]

Runs as whoever starts it and prints one JSON object. ``bare-deno`` gives Deno all of its own
permissions, so that only the cage around it is left. With ``-waiting`` the run is one that a
process has waited for, with ``-container`` it is confined as on a machine without namespaces.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import look
from dicode_mcp.executor.sandbox.system import HOSTS
from dicode_mcp.protocols import Launch, LaunchContext, Runtime
from dicode_mcp.runs.model import Payload, RunStatus
from dicode_mcp.testing.runtime_house import RuntimeHouse
from dicode_mcp.testing.waiting import until
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.python import PythonRuntime

DATA = Path(__file__).parent / "data"
SECRET = "CANARY-7d1f"
ENV_SECRET = "CANARY-ENV-55e0"


@dataclass
class Target:
    """Listens in several ways and remembers whether anybody came."""

    stack: ExitStack
    visits: list[str] = field(default_factory=list[str])
    sockets: list[tuple[str, socket.socket]] = field(
        default_factory=list[tuple[str, socket.socket]]
    )

    def listen(self, name: str, family: int, kind: int, address: Any) -> Any:
        made = self.stack.enter_context(socket.socket(family, kind))
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen()
        made.setblocking(False)
        self.sockets.append((name, made))
        return made.getsockname()

    def look(self) -> list[str]:
        for name, made in self.sockets:
            try:
                made.accept() if made.type == socket.SOCK_STREAM else made.recv(100)
                self.visits.append(name)
            except (BlockingIOError, InterruptedError):
                pass
        return self.visits


class BareDeno(DenoRuntime):
    """Deno with all of its own permissions."""

    def prepare(self, context: LaunchContext) -> Launch:
        launch = super().prepare(context)
        kept = [a for a in launch.argv if not a.startswith(("--allow", "--deny"))]
        at = kept.index("run") + 1
        return replace(launch, argv=(*kept[:at], "--allow-all", *kept[at:]))


def runtime_of(kind: str, folder: Path) -> tuple[Runtime, str, str]:
    """Give the runtime, the suffix of scripts, and the script that tries to escape."""
    if kind == "python":
        return PythonRuntime(interpreter=sys.executable), ".py", (DATA / "escapes.py").read_text()
    made = DenoRuntime if kind == "deno" else BareDeno
    script = (DATA / "escapes.ts").read_text()
    return made(folder / "cache", DenoProgram(os.environ)), ".ts", script


async def escape(folder: Path, kind: str) -> dict[str, Any]:
    """Run the script that tries; give what came of it inside and outside."""
    become_subreaper()
    os.environ["ESCAPE_ENV"] = ENV_SECRET
    plain = kind.removesuffix("-waiting").removesuffix("-container")
    runtime, suffix, script = runtime_of(plain, folder)
    canary = folder / "canary" / "secret.txt"
    canary.parent.mkdir()
    canary.write_text(SECRET)
    shm = Path("/dev/shm") / f"escape-{os.getpid()}"
    shm.write_text(SECRET)
    probe = look()
    if kind.endswith("-container"):
        probe = replace(probe, files="not granted", files_as_root="not granted")
    cages = Cages("strict", probe, Ceilings(2**31, 256))
    with ExitStack() as stack:
        stack.callback(shm.unlink)
        target = Target(stack)
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        abstract = f"escape-{os.getpid()}"
        target.listen("unix", socket.AF_UNIX, stream, str(folder / "server.sock"))
        target.listen("abstract", socket.AF_UNIX, stream, "\0" + abstract)
        params: dict[str, Any] = {
            "secret": SECRET,
            "env_secret": ENV_SECRET,
            "canary": str(canary),
            "server": os.getpid(),
            "plain_hosts": HOSTS,
            "shm": shm.name,
            "unix": str(folder / "server.sock"),
            "abstract": abstract,
            "host": socket.gethostname(),
            "tcp": target.listen("tcp", socket.AF_INET, stream, ("127.0.0.1", 0))[1],
            "tcp6": target.listen("tcp6", socket.AF_INET6, stream, ("::1", 0))[1],
            "udp": target.listen("udp", socket.AF_INET, datagram, ("127.0.0.1", 0))[1],
        }
        async with SpawnExecutor(SystemClock(), cages=cages) as executor:
            house = RuntimeHouse(runtime, suffix, executor, folder)
            other = house.scratch / "other"
            (other / "tmp").mkdir(parents=True)
            (other / "tmp" / "secret").write_text(SECRET)
            params["other_scratch"] = str(other)
            (house.folder / "link").symlink_to(canary)
            (house.folder / "folder_link").symlink_to(canary.parent)
            if kind.endswith("-waiting"):
                await _until_one_waits(house, executor)
            house.write(script)
            before = _state(house.folder)
            ended = await house.run(script, Payload(params=params), limit=60)
            after = _state(house.folder)
        told: dict[str, Any] = {
            "uid": os.geteuid(),
            "status": ended.outcome.status.value,
            "error": str(ended.outcome.error),
            "log": ended.messages[-20:],
            "tries": ended.value if ended.outcome.status is RunStatus.SUCCESS else {},
            "visits": target.look(),
            "canary": canary.read_text() == SECRET,
            "waited_for": executor.standby.counted.taken,
            "folder": [name for name in before if before[name] != after.get(name)]
            + [name for name in after if name not in before],
            "left": _named(f"escapee-{os.getpid()}"[:15]),
            "host": socket.gethostname(),
        }
    return told


async def _until_one_waits(house: RuntimeHouse, executor: SpawnExecutor) -> None:
    kept = PythonRuntime().warm()
    assert kept is not None
    await executor.forks.until_ready(*kept)
    harmless = "pass" if house.script.suffix == ".py" else "export default () => null;"
    for _ in range(2):
        await house.run(harmless)
    await until(lambda: bool(executor.standby.waiting()))
    executor.standby.counted.taken = 0


def _state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in (folder, *sorted(folder.iterdir())):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[path.name] = (stat.st_mode, stat.st_uid, stat.st_nlink, content)
        if path.suffix:
            found[path.name] += (stat.st_ino,)
    return found


def _named(name: str) -> list[int]:
    found: list[int] = []
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            if file.read_text().strip() == name:
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def main() -> None:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    json.dump(asyncio.run(escape(folder, kind)), sys.stdout)


if __name__ == "__main__":
    main()
