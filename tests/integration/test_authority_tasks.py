"""A running task as a caller: each method of its own channel, granted and not; and that it ends.

What is expected comes from the table of methods: a new one fails here until it has a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from liveserver import Live, Serve

from dicode_mcp.ipc.calls import METHODS, NOT_OFFERED

pytestmark = pytest.mark.slow

SCRIPT = """\
import json

from dicode_sdk import DicodeError, dicode


def main(params):
    told = {}
    for method, args in json.loads(params["calls"]).items():
        try:
            dicode._channel.call(method, args)
            told[method] = ["", ""]
        except DicodeError as error:
            told[method] = [error.code, error.hint]
    return told
"""
MANIFEST = "runtime: python\ntrigger: {manual: true}\nparams: {calls: {required: true}}\n"
GRANTED = (
    "permissions: {dicode: {tasks: [target], agents: [robot], list_tasks: true, get_runs: true,"
    " runs_replay: true, secrets_write: true}}\n"
)

NEEDS: Mapping[str, str | None] = {
    "run_task": 'tasks: ["target"]',
    "trigger": 'tasks: ["target"]',
    "list_tasks": "list_tasks: true",
    "get_runs": "get_runs: true",
    "kv.get": None,
    "kv.set": None,
    "kv.delete": None,
    "kv.list": None,
    "once.get": None,
    "once.put": None,
    "runs.replay": "runs_replay: true",
    "usage": None,
    "agent": 'agents: ["robot"]',
    "secrets_set": "secrets_write: true",
    "secrets_delete": "secrets_write: true",
    "progress": None,
}
"""The line of ``permissions.dicode`` each takes; None: it is about the task itself alone."""


def arguments(run_id: str) -> dict[str, dict[str, Any]]:
    return {
        "run_task": {"id": "target", "params": {}},
        "trigger": {"id": "target", "input": 1},
        "list_tasks": {},
        "get_runs": {"id": "target", "limit": 1},
        "kv.get": {"key": "k"},
        "kv.set": {"key": "k", "value": 1},
        "kv.delete": {"key": "k"},
        "kv.list": {"prefix": ""},
        "once.get": {"key": "k"},
        "once.put": {"key": "k", "value": 1},
        "runs.replay": {"run_id": run_id},
        "usage": {"tokens": 1},
        "agent": {"name": "robot", "payload": 1},
        "secrets_set": {"name": "by_task", "value": "long enough"},
        "secrets_delete": {"name": "by_task"},
        "progress": {"done": 1, "message": "on"},
    }


async def _asked(live: Live, manifest: str) -> dict[str, list[str]]:
    live.write("target", "result = 1\n")
    live.write("caller", SCRIPT, manifest)
    robot = live.tasks / "caller" / "agents" / "robot" / "agent.py"
    robot.parent.mkdir(parents=True, exist_ok=True)
    robot.write_text("print('1')\n")
    await live.sync()
    earlier = await live.run("target")
    calls = json.dumps(arguments(earlier["run_id"]))
    run = await live.run("caller", params={"calls": calls})
    assert run["status"] == "success", run
    return run["return_value"]


def test_every_method_of_a_task_is_in_the_table() -> None:
    assert set(NEEDS) == set(METHODS)
    assert set(arguments("")) == set(METHODS)
    lacking = {name for name, method in METHODS.items() if method.permission is None}
    assert lacking == {name for name, line in NEEDS.items() if line is None}
    assert NOT_OFFERED.isdisjoint(METHODS)


async def test_a_task_without_grants_reaches_nothing_but_what_is_its_own(serve: Serve) -> None:
    async with serve() as live:
        told = await _asked(live, MANIFEST)
        for method, line in NEEDS.items():
            code, hint = told[method]
            if line is None:
                assert code == "", (method, code)
            else:
                assert code == "forbidden", (method, code)
                assert f"permissions.dicode.{line}" in hint, (method, hint)
        assert len((await live.call("get_runs", task="target"))["runs"]) == 1
        assert (await live.call("secrets_list"))["secrets"] == []


async def test_a_task_reaches_what_its_manifest_grants(serve: Serve) -> None:
    async with serve() as live:
        told = await _asked(live, MANIFEST + GRANTED)
        assert {method: answer for method, answer in told.items() if answer != ["", ""]} == {}
        trail = (await live.call("get_audit", actor="task:caller"))["entries"]
        done = {(entry["action"], entry["surface"]) for entry in trail}
        assert {("secrets_set", "sdk"), ("secrets_delete", "sdk")} <= done
