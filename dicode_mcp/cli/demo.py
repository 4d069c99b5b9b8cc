"""``dicode demo``: the whole story on a temporary data dir, driven as an agent would.

It is an MCP client like any other: the SDK's own, over ``dicode mcp`` on stdio. Nothing is left
running and nothing is left on disk.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from mcp import Client, StdioServerParameters

from dicode_mcp.cli.commands.setup import launch_command

LIVE_WAIT_S = 20.0

_CONFIG = """\
data_dir: {data}
sources:
  - {{type: local, path: {tasks}}}
server: {{port: 0}}
"""


class DemoError(Exception):
    """The demo did not go as it should; the text says where."""


class Story:
    """Prints the steps with their timings."""

    def __init__(self) -> None:
        self._number = 0

    def step(self, title: str, took_s: float | None = None) -> None:
        """Begin a step."""
        self._number += 1
        timing = f"  ({took_s * 1000:.0f} ms)" if took_s is not None else ""
        print(f"\n{self._number}. {title}{timing}", flush=True)

    def say(self, text: str) -> None:
        """Tell a detail of the step."""
        for line in text.splitlines():
            print(f"   {line}", flush=True)


class Agent:
    """What an agent does with the server: call tools, read results."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; gives its structured result, errors included."""
        result = await self._client.call_tool(tool, arguments)
        content: object = result.structured_content
        if not isinstance(content, dict):
            raise DemoError(f"{tool} gave no structured result")
        return cast("dict[str, Any]", content)

    async def run(self, task: str, **params: Any) -> tuple[dict[str, Any], float]:
        """Run a task to its end; gives the run and the seconds from call to answer."""
        began = time.perf_counter()
        run = await self.call("run_task", id=task, params=params, wait_seconds=30)
        took = time.perf_counter() - began
        if "status" not in run:
            raise DemoError(f"run_task {task}: {json.dumps(run)}")
        return run, took

    async def until(
        self, task: str, good: Callable[[dict[str, Any]], bool]
    ) -> tuple[dict[str, Any], float]:
        """Look at a task until it is as wished; gives it and the seconds that took."""
        began = time.perf_counter()
        while time.perf_counter() - began < LIVE_WAIT_S:
            seen = await self.call("get_task", id=task)
            if good(seen):
                return seen, time.perf_counter() - began
            await asyncio.sleep(0.002)
        raise DemoError(f"task {task} did not become live in {LIVE_WAIT_S:g} s")


async def tell(agent: Agent, tasks: Path, story: Story) -> None:
    """Drive the server through the story."""
    await _list(agent, story)
    run = await _first_run(agent, story)
    await _edit(agent, tasks / "hello" / "task.py", story)
    await _log(agent, run["run_id"], story)
    await _break_and_mend(agent, tasks / "hello" / "task.yaml", story)
    await _keep(agent, story)
    await _fail(agent, story)


async def _list(agent: Agent, story: Story) -> None:
    began = time.perf_counter()
    listed = await agent.call("list_tasks")
    story.step("list_tasks: what is there", time.perf_counter() - began)
    for task in listed["tasks"]:
        story.say(f"{task['id']:22} {task['runtime']:8} {task.get('description', '')}")
    if not listed["tasks"]:
        raise DemoError("no task was listed")


async def _first_run(agent: Agent, story: Story) -> dict[str, Any]:
    run, took = await agent.run("hello", name="agent")
    story.step('run_task hello {name: "agent"}', took)
    story.say(f"{run['status']} {json.dumps(run.get('return_value'))}  (run {run['run_id']})")
    _expect(run["status"] == "success", f"hello ended as {run['status']}")
    return run


async def _edit(agent: Agent, script: Path, story: Story) -> None:
    before = (await agent.call("get_task", id="hello"))["hash"]
    _replace(script, "Hello", "Good evening")
    _, took = await agent.until("hello", lambda task: task["hash"] != before)
    story.step("edit task.py: the new version is live as soon as it is saved", took)
    run, took = await agent.run("hello", name="agent")
    story.say(f"run again ({took * 1000:.0f} ms): {json.dumps(run.get('return_value'))}")
    _expect("Good evening" in json.dumps(run.get("return_value")), "the old version ran")


async def _log(agent: Agent, run_id: str, story: Story) -> None:
    began = time.perf_counter()
    log = await agent.call("get_logs", run_id=run_id)
    story.step("get_logs of the first run", time.perf_counter() - began)
    for line in log["lines"]:
        story.say(f"{line['ts'][11:23]} {line['level']:5} {line['message']}")
    _expect(bool(log["lines"]), "the run left no log")


async def _break_and_mend(agent: Agent, manifest: Path, story: Story) -> None:
    _replace(manifest, "runtime: python", "runtime: pyton")
    broken, took = await agent.until("hello", lambda task: not _ready(task))
    story.step("break task.yaml: the error is shown, the last good version stays in force", took)
    for problem in broken.get("problems", []):
        where = f"{problem['file']}:{problem['line']}"
        hint = f"; {problem['hint']}" if problem.get("hint") else ""
        story.say(f"{where} {problem.get('path', '')}: {problem['message']}{hint}")
    run, _ = await agent.run("hello", name="still here")
    story.say(f"run_task meanwhile: {run['status']} {json.dumps(run.get('return_value'))}")
    _expect(run["status"] == "success", "the last good version did not run")
    _replace(manifest, "runtime: pyton", "runtime: python")
    _, took = await agent.until("hello", _ready)
    story.say(f"mended and live again after {took * 1000:.0f} ms")


async def _keep(agent: Agent, story: Story) -> None:
    first, _ = await agent.run("kv-counter")
    second, took = await agent.run("kv-counter")
    story.step("kv-counter, twice: what a task keeps survives its runs", took)
    story.say(f"{json.dumps(first.get('return_value'))}, {json.dumps(second.get('return_value'))}")
    _expect(first.get("return_value") != second.get("return_value"), "the counter stood still")


async def _fail(agent: Agent, story: Story) -> None:
    run, took = await agent.run("failing")
    story.step("run a task that fails: what went wrong, where, and what to do next", took)
    error = run.get("error", {})
    story.say(
        f"{run['status']}: {error.get('message')}  at {error.get('file')}:{error.get('line')}"
    )
    story.say(f"next: {run.get('next')}")
    _expect(bool(error.get("file")), "the failure names no file")


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    _expect(old in text, f"{file.name} of the example has no {old!r} to edit")
    file.write_text(text.replace(old, new))


def _ready(task: dict[str, Any]) -> bool:
    return all(c["status"] == "True" for c in task["conditions"] if c["type"] == "Ready")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoError(otherwise)


def examples() -> Path:
    """Give the folder of the bundled examples."""
    found = importlib.util.find_spec("dicode_agents")
    if found is None or found.origin is None:
        raise DemoError("the package dicode_agents is not installed")
    return Path(found.origin).parent / "examples"


async def _play(root: Path, story: Story) -> None:
    config = root / "dicode.yaml"
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "dicode_mcp.cli.main", "mcp", "--config", str(config)]
    )
    began = time.perf_counter()
    async with Client(server) as client:
        agent = Agent(client)
        status = await agent.call("get_status")
        story.step(
            "`dicode mcp` on stdio: starts the server when none runs, connects to it",
            time.perf_counter() - began,
        )
        story.say(f"dicode {status['version']}, pid {status['pid']}, {status.get('url', '')}")
        if not status["sandbox"]["enforced"]:
            story.say(f"note: {status['sandbox']['message']}")
        await tell(agent, root / "tasks", story)


def _prepared(root: Path) -> None:
    shutil.copytree(examples(), root / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    text = _CONFIG.format(
        data=json.dumps(str(root / "data")), tasks=json.dumps(str(root / "tasks"))
    )
    (root / "dicode.yaml").write_text(text)


def _stop(root: Path) -> None:
    command = [sys.executable, "-m", "dicode_mcp.cli.main", "stop", "--config"]
    subprocess.run(
        [*command, str(root / "dicode.yaml")], check=False, capture_output=True, timeout=60
    )


def main() -> int:
    """Play the demo; gives 0 when every step went as it should, else 1."""
    story = Story()
    failures: list[str] = []
    root = Path(tempfile.mkdtemp(prefix="dicode-demo-"))
    began = time.perf_counter()
    print("dicode-mcp: tasks are folders, the server keeps them live, an agent drives it over MCP.")
    try:
        _prepared(root)
        asyncio.run(_play(root, story))
    except* DemoError as group:
        failures += [str(error) for error in _leaves(group)]
    finally:
        _stop(root)
        if failures:
            print(f"\nthe demo failed: {'; '.join(failures)}", file=sys.stderr)
            print(f"what the server said: {_server_log(root)}", file=sys.stderr)
        shutil.rmtree(root, ignore_errors=True)
    if failures:
        return 1
    print(f"\nDone in {time.perf_counter() - began:.1f} s; the server is stopped, nothing is left.")
    dicode = " ".join(shlex.quote(word) for word in launch_command(os.environ))
    print(f"To let Claude drive it:   claude mcp add dicode -- {dicode} mcp")
    print(f"Other clients:            {dicode} mcp-config cursor   (or vscode)")
    return 0


def _leaves(group: BaseExceptionGroup[DemoError]) -> list[DemoError]:
    found: list[DemoError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _server_log(root: Path) -> str:
    try:
        return (root / "data" / "server.log").read_text()[-2000:]
    except OSError:
        return "(no log)"
