"""What starts runs by itself, through the whole server."""

from __future__ import annotations

import asyncio
from typing import Any

from liveserver import MANUAL, Live, Serve

from dicode_mcp.testing.waiting import DEADLINE_S


async def runs_of(live: Live, task: str, count: int) -> list[dict[str, Any]]:
    """Give a task's runs, newest first, once there are ``count`` that have ended."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            page = await live.call("get_runs", task=task)
            ended = [r for r in page.get("runs", []) if r["status"] not in ("queued", "running")]
            if len(ended) >= count:
                return ended
            await asyncio.sleep(0.01)


async def conditions_of(live: Live, task: str) -> dict[str, dict[str, Any]]:
    """Give the conditions that are not as they should be, by type."""
    seen = await live.call("get_task", id=task)
    return {c["type"]: c for c in seen["conditions"]}


async def test_a_chain_hands_each_return_value_on(serve: Serve) -> None:
    async with serve() as live:
        live.write("fetch", "result = {'city': 'Bern', 'n': 3}\n")
        live.write(
            "report",
            "def main(params, input):\n    return [params.get('city'), input['n']]\n",
            "runtime: python\ntrigger: {chain: {from: fetch}}\nparams: {city: {default: none}}\n",
        )
        await live.sync()
        first = await live.run("fetch")
        (second,) = await runs_of(live, "report", 1)
        assert (second["status"], second["trigger"]) == ("success", "chain")
        assert second["parent_run_id"] == first["run_id"]
        detail = await live.call("get_run", run_id=second["run_id"])
        assert detail["return_value"] == ["Bern", 3]


async def test_a_failing_task_starts_its_failure_chain_once_and_no_success_chain(
    serve: Serve,
) -> None:
    async with serve() as live:
        live.write(
            "broken",
            "raise ValueError('no luck')\n",
            MANUAL + "on_failure_chain: {task: alert, params: {channel: ops}}\n",
        )
        live.write(
            "alert",
            "def main(params, input):\n"
            "    return [params.get('channel'), input['taskID'], input['error']['message']]\n",
            MANUAL + "params: {channel: {default: none}}\n",
        )
        live.write("after", "result = 1\n", "runtime: python\ntrigger: {chain: {from: broken}}\n")
        await live.sync()
        await live.run("broken")
        (alert,) = await runs_of(live, "alert", 1)
        detail = await live.call("get_run", run_id=alert["run_id"])
        assert detail["return_value"] == ["ops", "broken", "ValueError: no luck"]
        assert (await live.call("get_runs", task="after"))["runs"] == []


async def test_a_cycle_of_chains_is_refused_with_its_path(serve: Serve) -> None:
    async with serve() as live:
        for name, upstream in (("a", "c"), ("b", "a"), ("c", "b")):
            trigger = f"runtime: python\ntrigger: {{chain: {{from: {upstream}}}}}\n"
            live.write(name, "result = 1\n", trigger)
        await live.sync()
        # The links are looked at once the tasks are in force, which the sync waits for.
        async with asyncio.timeout(20):
            while (ready := (await conditions_of(live, "a"))["Ready"])["status"] != "False":
                pass
        assert "→" in ready["message"]
        assert all(name in ready["message"] for name in "abc")


async def test_a_daemon_runs_once_and_starts_anew_with_its_new_version(serve: Serve) -> None:
    daemon = "runtime: python\ntrigger: {daemon: true}\n"
    script = "import time\nprint('version {}', flush=True)\ntime.sleep(600)\n"
    async with serve(slots=1) as live:
        live.write("service", script.format(1), daemon)
        await live.sync()
        first = await self_started(live, "service")
        await live.first_line(first["run_id"])
        live.write("quick", "result = 1\n")
        live.write("service", script.format(2), daemon)
        await live.sync()
        second = await self_started(live, "service", other_than=first["run_id"])
        await live.first_line(second["run_id"])
        lines = (await live.call("get_logs", run_id=second["run_id"]))["lines"]
        assert lines[0]["message"] == "version 2"
        ended = await live.call("get_run", run_id=first["run_id"])
        assert ended["status"] == "cancelled"
        # A daemon takes no slot from the others.
        assert (await live.run("quick"))["status"] == "success"


async def test_a_daemon_that_ends_at_once_is_shown_as_crash_looping(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "flaky",
            "raise RuntimeError('no port')\n",
            "runtime: python\ntrigger: {daemon: true}\n",
        )
        await live.sync()
        async with asyncio.timeout(DEADLINE_S):
            while "CrashLooping" not in (seen := await conditions_of(live, "flaky")):
                pass
        assert "no port" in seen["CrashLooping"]["message"]


async def test_a_cron_task_shows_its_next_run(serve: Serve) -> None:
    async with serve() as live:
        live.write(
            "nightly",
            "result = 1\n",
            "runtime: python\ntrigger: {cron: '0 3 * * *', timezone: Europe/Zurich}\n",
        )
        await live.sync()
        async with asyncio.timeout(DEADLINE_S):
            while "next_run" not in (seen := await live.call("get_task", id="nightly")):
                pass
        assert seen["next_run"][11:19] in ("01:00:00", "02:00:00")


async def self_started(live: Live, task: str, other_than: str = "") -> dict[str, Any]:
    """Give the running run of a task that starts by itself."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for run in (await live.call("get_runs", task=task)).get("runs", []):
                if run["status"] == "running" and run["run_id"] != other_than:
                    return run
            await asyncio.sleep(0.01)
