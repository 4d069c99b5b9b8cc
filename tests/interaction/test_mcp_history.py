"""Statistics, pins and pruning, as an agent meets them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import mcp_types as t
import pytest
from mcp import Client
from mcphouse import House, Opening

from dicode_mcp.runs.model import Outcome, Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.service.principal import local_principal

DAY_MS = 86_400_000


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result: t.CallToolResult = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is not None
    return result.structured_content["error"]


async def ended(house: House, task: str, days_ago: float, lasted_ms: int = 100) -> str:
    """Store a run that ended days ago."""
    at = house.clock.now_ms() - round(days_ago * DAY_MS)
    run = Run(new_run_id(at), task, RunStatus.QUEUED, Trigger.CRON, at)
    await house.store.add_run(run, Payload(input="x" * 1000))
    on = await house.store.start_run(run.id, now_ms=at, task_hash="h", revision=None)
    await house.store.finish_run(on, Outcome(RunStatus.SUCCESS, at + lasted_ms))
    return run.id


async def test_what_ran_is_summed_up_by_day(connect: Opening, house: House) -> None:
    async with connect() as client:
        await call(client, "run_task", id="hello")
        await call(client, "run_task", id="fails")
        await ended(house, "hello", 1, 2_000)
        found = await call(client, "get_stats")
        today = datetime.now(UTC).date().isoformat()
        assert found["until"] == today
        (hello,) = [s for s in found["stats"] if (s["task"], s["day"]) == ("hello", today)]
        assert (hello["runs"], hello["failures"], hello["by_status"]) == (1, 0, {"success": 1})
        assert hello["p50_ms"] <= hello["p95_ms"]
        totals = found["totals"]
        assert (totals["runs"], totals["failures"]) == (3, 1)
        only = await call(client, "get_stats", task="hello", since=today)
        assert [row["task"] for row in only["stats"]] == ["hello"]
        assert only["totals"]["runs"] == 1
        limited = await call(client, "get_stats", limit=1)
        assert len(limited["stats"]) == 1
        assert "more" in limited
        assert limited["totals"]["runs"] == 3


async def test_wrong_questions_are_answered_with_what_to_do(connect: Opening) -> None:
    async with connect() as client:
        error = await refusal(client, "get_stats", since="yesterday")
        assert (error["code"], error["hint"]) == ("invalid_argument", "for example 2026-05-01")
        error = await refusal(client, "get_stats", since="2026-05-02", until="2026-05-01")
        assert "later" in error["message"]
        assert "hello" in (await refusal(client, "get_stats", task="helo"))["message"]
        assert "hello" in (await refusal(client, "prune", dry_run=True, task="helo"))["message"]
        error = await refusal(client, "prune", dry_run=True, older_than="a week")
        assert "older_than" in error["message"]
        assert (await refusal(client, "pin_run", run_id="nope"))["code"] == "run_not_found"
        assert (await refusal(client, "prune"))["code"] == "invalid_argument"


async def test_a_preview_tells_what_pruning_then_does(connect: Opening, house: House) -> None:
    old = [await ended(house, "hello", 40 + n) for n in range(3)]
    gone = await ended(house, "was-here", 50)
    young = await ended(house, "hello", 2)
    async with connect() as client:
        await call(client, "pin_run", run_id=old[0])
        would = await call(client, "prune", dry_run=True)
        assert (would["dry_run"], would["runs"], would["done"]) == (True, 3, True)
        assert {row["task"]: row["runs"] for row in would["tasks"]} == {"hello": 2, "was-here": 1}
        assert would["bytes"] > 3_000
        did = await call(client, "prune", dry_run=False, task="hello")
        assert (did["runs"], did["tasks"][0]["runs"]) == (2, 2)
        assert did["bytes"] > 2_000
        assert (await call(client, "prune", dry_run=False))["runs"] == 1
        left = {run["run_id"] for run in (await call(client, "get_runs"))["runs"]}
        assert left == {old[0], young}
        assert gone not in left
        shown = await call(client, "get_run", run_id=old[0])
        assert shown["pinned"] is True
        sums = await call(client, "get_stats", since="2020-01-01")
        assert sums["totals"]["runs"] == 5
        await call(client, "pin_run", run_id=old[0], pinned=False)
        assert (await call(client, "prune", dry_run=False, older_than="3d"))["runs"] == 1


async def test_pruning_and_pins_are_in_the_audit(house: House) -> None:
    run_id = await ended(house, "hello", 40)
    me = local_principal("cli")
    await house.services.history.pin(me, run_id, True)
    await house.services.history.prune(me, older_than="1d")

    async def entries() -> list[Any]:
        return list((await house.store.list_audit()).items)

    house.audit.close()
    await house.audit.run()
    found = {entry.action: entry for entry in await entries()}
    assert (found["pin_run"].target, found["pin_run"].detail) == (run_id, {"pinned": True})
    assert found["prune"].outcome == "ok"
    assert found["prune"].detail == {"dry_run": False, "older_than": "1d"}


async def test_a_narrowed_caller_sees_and_prunes_only_its_tasks(house: House) -> None:
    await ended(house, "hello", 40)
    await ended(house, "fails", 40)
    mine = local_principal("mcp").narrowed(tasks="hello")
    found = await house.services.history.stats(mine, since_ms=0)
    assert {row["task"] for row in found["stats"]} == {"hello"}
    pruned = await house.services.history.prune(mine, older_than="1d")
    assert [row["task"] for row in pruned["tasks"]] == ["hello"]
    reader = local_principal("mcp").narrowed(read_only=True)
    for dry_run in (False, True):
        with pytest.raises(Exception, match="read-only"):
            await house.services.history.prune(reader, dry_run=dry_run, older_than="1d")


async def test_a_call_that_would_take_long_answers_and_goes_on_when_called_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await ended(house, f"task-{number}", 40)
    monkeypatch.setattr("dicode_mcp.service.history.PRUNE_S", -1.0)
    me, found = local_principal("cli"), 0
    for _ in range(20):
        answer = await house.services.history.prune(me)
        found += answer["runs"]
        if answer["done"]:
            break
        assert "again" in answer["next"]
    assert found == 5
