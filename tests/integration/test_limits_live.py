"""Limits and budgets as an agent sees them, through the whole server with real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from liveserver import MANUAL, Live, Serve

WAITS = """\
import time
from pathlib import Path

def main(params):
    flag = Path(params["flag"])
    print("on it", flush=True)
    while not flag.exists():
        time.sleep(0.01)
    return "let go"
"""


def flags(live: Live) -> Path:
    """Give a folder that tasks may look into."""
    folder = live.tasks.parent / "flags"
    folder.mkdir(exist_ok=True)
    return folder


def waiting(live: Live, concurrency: str) -> None:
    flag = flags(live) / "go"
    live.write(
        "t",
        WAITS,
        f"{MANUAL}params: {{flag: {flag}}}\nconcurrency: {concurrency}\n"
        f"permissions: {{fs: [{{path: {flags(live)}, permission: r}}]}}\n",
    )


async def start(live: Live, **more: Any) -> dict[str, Any]:
    return await live.call("run_task", id="t", wait_seconds=0, **more)


async def test_a_second_run_is_skipped_and_says_for_which(serve: Serve) -> None:
    async with serve() as live:
        waiting(live, "{overlap: skip}")
        await live.sync()
        first = await start(live)
        second = await start(live)
        assert (second["status"], second["reason"]) == ("skipped", "overlap")
        assert first["run_id"] in second["error"]["message"]
        (flags(live) / "go").touch()
        done = await live.call("get_run", run_id=first["run_id"], wait_seconds=30)
        assert done["status"] == "success"


async def test_a_run_replaces_the_process_of_the_one_before(serve: Serve) -> None:
    async with serve() as live:
        waiting(live, "{overlap: replace}")
        await live.sync()
        first = await start(live)
        await live.first_line(first["run_id"])
        second = await start(live)
        ended = await live.call("get_run", run_id=first["run_id"], wait_seconds=30)
        assert (ended["status"], ended["reason"]) == ("cancelled", "replaced")
        assert "concurrency.overlap" in ended["error"]["message"]
        (flags(live) / "go").touch()
        done = await live.call("get_run", run_id=second["run_id"], wait_seconds=30)
        assert done["status"] == "success"


async def test_a_limit_that_is_raised_in_the_file_lets_a_queued_run_start(serve: Serve) -> None:
    async with serve() as live:
        waiting(live, "{limit: 1, overlap: queue}")
        await live.sync()
        first, second = await start(live), await start(live)
        await live.first_line(first["run_id"])
        assert (await live.call("get_run", run_id=second["run_id"]))["status"] == "queued"
        waiting(live, "{limit: 2, overlap: queue}")
        await live.sync()
        await live.first_line(second["run_id"])
        (flags(live) / "go").touch()
        for run in (first, second):
            done = await live.call("get_run", run_id=run["run_id"], wait_seconds=30)
            assert done["status"] == "success"


async def test_a_task_that_runs_itself_is_told_and_goes_on(serve: Serve) -> None:
    script = """\
from dicode_sdk import dicode

def main():
    try:
        dicode.run_task("t")
    except Exception as error:
        return str(error)
"""
    manifest = f"{MANUAL}concurrency: {{limit: 1}}\npermissions: {{dicode: {{tasks: [t]}}}}\n"
    async with serve() as live:
        live.write("t", script, manifest)
        await live.sync()
        async with asyncio.timeout(30):
            run = await live.run("t")
        assert run["status"] == "success"
        assert "task t takes 1 run at a time" in run["return_value"]


async def test_a_spent_budget_is_shown_wherever_the_task_is(serve: Serve) -> None:
    script = """\
from dicode_sdk import dicode

def main():
    first = dicode.usage(tokens=70)
    second = dicode.usage(tokens=50)
    return [first, second]
"""
    async with serve() as live:
        live.write("t", script, MANUAL + "budget: {tokens: 100, runs: 10}\n")
        await live.sync()
        run = await live.run("t")
        assert run["return_value"] == [{"tokens": 70, "left": 30}, {"tokens": 120, "left": 0}]
        shown = await live.call("get_run", run_id=run["run_id"])
        assert shown["tokens"] == 120
        assert shown["cpu_ms"] > 0
        assert shown["delay_ms"] >= 0
        refused = await live.call("run_task", id="t")
        assert (refused["status"], refused["reason"]) == ("skipped", "budget")
        assert "tokens 120 of 100" in refused["error"]["message"]
        task = await live.call("get_task", id="t")
        assert task["budget"]["tokens"] == {"spent": 120, "limit": 100}
        assert task["budget"]["runs"] == {"spent": 1, "limit": 10}
        assert "resets_at" in task["budget"]
        (listed,) = (await live.call("list_tasks"))["tasks"]
        assert "BudgetReached" in [c["type"] for c in listed["conditions"]]
        enabled = await live.call("set_task_enabled", id="t", enabled=True)
        assert "budget.tokens" in enabled["note"]
        live.write("t", script, MANUAL + "budget: {tokens: 1000}\n")
        await live.sync()
        assert (await live.run("t"))["status"] == "success"


async def test_a_spent_budget_outlives_a_restart(serve: Serve) -> None:
    async with serve() as live:
        live.write("t", "result = 1\n", MANUAL + "budget: {runs: 1}\n")
        await live.sync()
        assert (await live.run("t"))["status"] == "success"
    async with serve() as live:
        assert (await live.call("run_task", id="t"))["reason"] == "budget"


async def test_a_priority_out_of_bounds_and_a_bad_report_are_refused(serve: Serve) -> None:
    script = """\
from dicode_sdk import dicode

def main():
    found = []
    for tokens in (-1, 1.5, "many", True, 10**13):
        try:
            dicode.usage(tokens=tokens)
        except Exception as error:
            found.append(str(error))
    return found
"""
    async with serve() as live:
        live.write("t", script, MANUAL + "priority: 5\n")
        await live.sync()
        refused = await live.call("run_task", id="t", priority=101)
        assert refused["error"]["code"] == "invalid_argument"
        run = await live.run("t", priority=-100)
        assert len(run["return_value"]) == 5
        assert all("whole number from 0" in text for text in run["return_value"])
        assert (await live.call("get_run", run_id=run["run_id"]))["priority"] == -100
