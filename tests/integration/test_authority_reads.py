"""What a key reads by other ways than tools and routes, and of what led to what it may read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from authority import OTHERS, OURS, Authority, authority
from keycalls import owner
from liveserver import Serve, write_task

from dicode_mcp.tools.addresses import VERB as RESOURCE_VERB
from dicode_mcp.tools.addresses import Address, Kind
from dicode_mcp.tools.guidance import PROMPTS

pytestmark = pytest.mark.slow


@pytest.fixture
async def house(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    async with authority(serve, tmp_path, monkeypatch) as made:
        yield made


def _address(house: Authority, kind: Kind, task_id: str) -> Address:
    name = house.runs[task_id] if kind in ("run", "logs") else task_id
    return Address(kind, name, "task.py" if kind == "file" else "")


async def test_every_key_on_every_kind_of_resource(house: Authority) -> None:
    wrong: list[str] = []
    for key in house.keys:
        for kind, verb in RESOURCE_VERB.items():
            for task_id in (OURS, OTHERS):
                if kind == "sources":
                    continue
                uri = _address(house, kind, task_id).uri
                got = await key.holder.answer("resources/read", uri=uri)
                # A task of which nothing waits for approval says so, to whoever may read it.
                told = "result" in got or "waits for an approval" in got["error"]["message"]
                if told is not key.has_on(verb, task_id):
                    wrong.append(f"{key.name}: {uri}: {json.dumps(got)[:200]}")
    assert wrong == []


async def test_every_key_on_every_prompt(house: Authority) -> None:
    wrong: list[str] = []
    for key in house.keys:
        listed = {prompt["name"] for prompt in (await key.holder.mcp("prompts/list"))["prompts"]}
        assert listed == {prompt.name for prompt in PROMPTS if key.has(prompt.verb)}, key.name
        for prompt in PROMPTS:
            for task_id in (OURS, OTHERS):
                values = {"run_id": house.runs[task_id], "task_id": task_id, "goal": "a task"}
                given = {one.name: values[one.name] for one in prompt.arguments}
                got = await key.holder.answer("prompts/get", name=prompt.name, arguments=given)
                about = "goal" not in given
                may = key.has_on(prompt.verb, task_id) if about else key.has(prompt.verb)
                told = "result" in got
                if about and told is not may:
                    wrong.append(f"{key.name}: {prompt.name}: {json.dumps(got)[:200]}")
                if not about and ("result" in got) is not may:
                    wrong.append(f"{key.name}: {prompt.name}: {json.dumps(got)[:200]}")
                if key.narrow and task_id == OTHERS and "a line" in json.dumps(got):
                    wrong.append(f"{key.name}: {prompt.name} tells of {OTHERS}")
    assert wrong == []


async def test_a_run_as_a_job_is_its_readers_alone(house: Authority) -> None:
    wrong: list[str] = []
    for key in house.keys:
        for task_id in (OURS, OTHERS):
            got = await key.holder.answer("tasks/get", taskId=house.runs[task_id])
            if ("result" in got) is not key.has_on("read", task_id):
                wrong.append(f"{key.name}: {task_id}: {json.dumps(got)[:200]}")
            if not key.has_on("run", task_id):
                ended = await key.holder.answer("tasks/cancel", taskId=house.runs[task_id])
                known = "result" in ended
                if known and not key.has_on("read", task_id):
                    wrong.append(f"{key.name}: cancel {task_id}: {json.dumps(ended)[:200]}")
    assert wrong == []


async def test_what_led_to_a_run_is_told_to_whoever_may_read_that_too(house: Authority) -> None:
    """A task follows another source's; whoever reads the one does not learn of the other's runs."""
    live, root = house.live, house.live.tasks.parent
    chained = "runtime: python\ntrigger: {chain: {from: FROM}}\n"
    write_task(root / "alpha", "after", "result = 1\n", chained.replace("FROM", OTHERS))
    write_task(root / "alpha", "later", "result = 2\n", chained.replace("FROM", "alpha/after"))
    await live.call("sync_source", source="alpha")
    first = (await live.run(OTHERS))["run_id"]
    async with asyncio.timeout(60):
        while not (found := (await live.call("get_runs", task="alpha/later"))["runs"]):
            pass
    await live.call("get_run", run_id=found[0]["run_id"], wait_seconds=30)
    later = await live.call("get_run", run_id=found[0]["run_id"], tree=True)
    assert (later["status"], later["root_run_id"]) == ("success", first)
    after = later["parent_run_id"]
    assert [run["run_id"] for run in later["tree"]] == [first, after, later["run_id"]]

    holder = house.key("read of alpha").holder
    mine = await holder.call("get_run", run_id=later["run_id"], tree=True)
    assert mine["parent_run_id"] == after
    assert [run["run_id"] for run in mine["tree"]] == [after, later["run_id"]]
    told = [
        mine,
        await holder.call("get_run", run_id=after, tree=True),
        await holder.call("get_run", run_id=after, wait_seconds=1),
        await holder.call("get_runs"),
        await holder.call("get_runs", task="alpha/after"),
        await holder.call("list_tasks"),
        await holder.call("get_task", id="alpha/after"),
        await holder.call("get_logs", run_id=after),
        await holder.mcp("resources/read", uri=f"dicode://runs/{after}"),
        await holder.mcp("tasks/get", taskId=after),
    ]
    for path in (
        f"/api/runs/{after}",
        "/api/tasks/runs",
        "/api/tasks",
        "/api/tasks/alpha%2Fafter",
        f"/api/events?run={after}",
        f"/runs/{after}",
        "/runs",
    ):
        accept = "text/html" if path.startswith("/runs") else "*/*"
        answer = await holder.request("GET", path, headers={"accept": accept})
        assert answer.status_code == 200, path
        told.append({"path": path, "text": answer.text})
    assert [one for one in told if first in json.dumps(one)] == []
    shown = await owner(live, "get_run", run_id=after)
    assert shown["parent_run_id"] == first


async def test_what_is_wrong_with_a_task_names_no_task_that_its_reader_may_not_know(
    house: Authority,
) -> None:
    root = house.live.tasks.parent
    hook = "runtime: python\ntrigger: {webhook: /hooks/beta}\n"
    write_task(root / "alpha", "clash", "result = 1\n", hook)
    lost = "runtime: python\ntrigger: {chain: {from: twoo}}\n"
    write_task(root / "alpha", "lost", "result = 1\n", lost)
    await house.live.call("sync_source", source="alpha")

    async def told(call: Any) -> dict[str, str]:
        return {
            name: " ".join(
                one["message"]
                for one in (await call("get_task", id=f"alpha/{name}"))["conditions"]
                if "message" in one
            )
            for name in ("clash", "lost")
        }

    mine, all_ = house.key("read of alpha").holder, house.key("read").holder
    async with asyncio.timeout(60):
        for name in ("clash", "lost"):
            while OTHERS not in (await told(all_.call))[name]:
                pass
    seen = await told(mine.call)
    assert [name for name, text in seen.items() if OTHERS in text] == []
    assert "belongs to another task" in seen["clash"]
    assert "closest: another task" in seen["lost"]
    assert OTHERS not in (await mine.request("GET", "/tasks/alpha%2Fclash")).text
    listed = await mine.call("list_tasks", query="clash")
    assert OTHERS not in json.dumps(listed)
