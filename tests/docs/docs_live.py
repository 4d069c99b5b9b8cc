"""A whole server for the commands of the documents: its sources and registries are repositories
of the test's, behind the documents' own URLs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from dicode_mcp.testing.gitserver import GitServer

TASK = "name: x\nruntime: python\ntrigger: {manual: true}\n"
SCRIPT = "result = 1\n"
_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Said(NamedTuple):
    """What a command gave."""

    code: int | None
    out: str
    err: str


def with_scripts(files: Mapping[str, str]) -> dict[str, str]:
    """Give files with a script beside each manifest."""
    scripts = {
        str(Path(path).with_name("task.py")): SCRIPT for path in files if "task.yaml" in path
    }
    return {**scripts, **files}


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files below a folder."""
    for name, text in with_scripts(files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Live:
    """A reader of the documents with a server: home folder, repositories, commands."""

    def __init__(self, home: Path, git: GitServer) -> None:
        self.home = home
        self.data = home / ".dicode"
        self._git = git
        self._urls: dict[str, str] = {}
        self._url: str | None = None

    def repository(self, url: str, files: Mapping[str, str]) -> None:
        """Serve files as the repository of a public URL."""
        name = f"repo{len(self._urls)}.git"
        self._git.repository(name).commit(with_scripts(files))
        self._urls[url] = self._git.url_of(name)

    @asynccontextmanager
    async def serving(self, config: str) -> AsyncGenerator[None]:
        """Run a server with a configuration, on a free port, in a process beside this one."""
        (self.home / "dicode.yaml").write_text(config)
        urls = self.home / "urls.json"
        urls.write_text(json.dumps(self._urls))
        with (self.home / "server.log").open("wb") as log:
            server = await asyncio.create_subprocess_exec(
                sys.executable,
                str(Path(__file__).with_name("docs_server.py")),
                str(urls),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._env, "DICODE_PORT": "0"},
                cwd=self.home,
            )
        try:
            self._url = await self._ready(server)
            yield
        finally:
            if server.returncode is None:
                server.terminate()
            async with asyncio.timeout(60):
                await server.wait()

    async def _ready(self, server: asyncio.subprocess.Process) -> str:
        async with asyncio.timeout(40):
            while True:
                assert server.returncode is None, "\n".join(self.log[-20:])
                with suppress(OSError, ValueError, AssertionError):
                    status = await self.call("get_status")
                    return status["url"]
                await asyncio.sleep(0.02)

    @property
    def log(self) -> list[str]:
        """What the server has written."""
        return (self.home / "server.log").read_text().splitlines()

    @property
    def _env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DICODE_")}
        return {**kept, "HOME": str(self.home), "DICODE_DATA_DIR": str(self.data)}

    def _script(self, command: str) -> tuple[str, str, str]:
        """Give a command as it is run: ``dicode`` is this one's, 8080 the server's port."""
        shim = f'dicode() {{ "{sys.executable}" -m dicode_mcp.cli.main "$@"; }}\n'
        assert self._url
        return "bash", "-c", shim + command.replace("http://localhost:8080", self._url)

    async def shell(self, command: str) -> Said:
        """Run a command as the documents write it."""
        process = await asyncio.create_subprocess_exec(
            *self._script(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
            cwd=self.home,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return Said(process.returncode, out.decode(), err.decode())

    async def on_a_terminal(self, command: str, answer: str) -> Said:
        """Run a command on a terminal, and answer what it asks; gives all that was shown."""
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *self._script(command),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**self._env, "TERM": "dumb", "COLUMNS": "120"},
            cwd=self.home,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            async with asyncio.timeout(60):
                shown = await asyncio.to_thread(_talk, ours, f"{answer}\n".encode())
                await process.wait()
        finally:
            os.close(ours)
        return Said(process.returncode, shown.replace("\r\n", "\n"), "")

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool as an agent does."""
        params = {"name": tool, "arguments": arguments, "_meta": _META}
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        path = str(self.data / "dicode.sock")
        reader, writer = await asyncio.open_unix_connection(path, limit=2**24)
        try:
            writer.write(line.encode() + b"\n")
            async with asyncio.timeout(60):
                answer = json.loads(await reader.readline())
        finally:
            writer.close()
        assert "result" in answer, answer
        return answer["result"]["structuredContent"]

    async def ids(self, *wanted: str) -> list[str]:
        """Give the ids of all tasks, once those wanted are ready."""
        async with asyncio.timeout(20):
            while True:
                tasks = (await self.call("list_tasks", limit=500))["tasks"]
                ready = {
                    task["id"]
                    for task in tasks
                    for condition in task["conditions"]
                    if (condition["type"], condition["status"]) == ("Ready", "True")
                }
                if set(wanted) <= ready:
                    return [task["id"] for task in tasks]


def _talk(terminal: int, answer: bytes) -> str:
    """Answer each question; read until the last program has left, which Linux tells as an error."""
    seen = b""
    with suppress(OSError):
        while part := os.read(terminal, 65536):
            seen += part
            if seen.endswith(b"[y/N] "):
                os.write(terminal, answer)
    return seen.decode()
