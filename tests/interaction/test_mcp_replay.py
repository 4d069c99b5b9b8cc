"""What an agent sees of attempts, replays and trees of runs, through the SDK's own client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mcp_types as t
import pytest
from mcphouse import House, Opening

from dicode_mcp.queue import Claim
from dicode_mcp.registry import Entry
from dicode_mcp.runs.model import Outcome, RunError, RunStatus

FLAKY = """\
name: flaky
runtime: python
trigger: {manual: true}
retry: {attempts: 3, backoff: %s, max_backoff: 10h}
"""


@pytest.fixture
def opened(open_by: Callable[[str, str], Opening], server: object) -> Opening:
    return open_by("memory", "legacy")


def value(result: t.CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


def error(result: t.CallToolResult) -> dict[str, Any]:
    assert result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content["error"]


def flaky(house: House, good_from: int, backoff: str = "0s") -> None:
    """Give the house a task that fails until an attempt."""

    async def execute(claim: Claim) -> Outcome:
        now = house.clock.now_ms()
        if claim.run.attempt >= good_from:
            return Outcome(RunStatus.SUCCESS, now, return_value=str(claim.run.attempt))
        told = RunError("script_error", "not yet")
        return Outcome(RunStatus.FAILURE, now, reason="script_error", error=told)

    house._flaky = execute  # pyright: ignore[reportAttributeAccessIssue]
    house.write("flaky", FLAKY % backoff)


async def test_run_task_follows_the_attempts_and_answers_with_the_last(
    opened: Opening, house: House
) -> None:
    flaky(house, 3)
    async with opened() as client:
        run = value(await client.call_tool("run_task", {"id": "flaky", "idempotency_key": "k"}))
        assert (run["status"], run["attempt"], run["return_value"]) == ("success", 3, 3)
        assert len(run["attempts"]) == 3
        assert run["attempts"][2] == run["run_id"]
        assert run["retry_of"] == run["attempts"][1]
        first = value(await client.call_tool("get_run", {"run_id": run["attempts"][0]}))
        assert (first["status"], first["attempt"]) == ("failure", 1)
        assert first["next_attempt"]["run_id"] == run["attempts"][1]
        same = value(await client.call_tool("run_task", {"id": "flaky", "idempotency_key": "k"}))
        assert same["run_id"] == run["run_id"]


async def test_run_task_answers_at_once_when_the_next_attempt_is_far_and_cancel_ends_it(
    opened: Opening, house: House
) -> None:
    flaky(house, 9, "10h")
    async with opened() as client:
        run = value(await client.call_tool("run_task", {"id": "flaky", "wait_seconds": 55}))
        assert run["status"] == "failure"
        following = run["next_attempt"]
        assert (following["attempt"], following["status"]) == (2, "queued")
        assert following["not_before"] > run["finished_at"]
        assert following["run_id"] in run["next"]
        ended = value(await client.call_tool("cancel_run", {"run_id": run["run_id"]}))
        assert (ended["run_id"], ended["status"]) == (following["run_id"], "cancelled")
        first = value(await client.call_tool("get_run", {"run_id": run["run_id"]}))
        assert first["next_attempt"]["status"] == "cancelled"
        assert len(first["attempts"]) == 2


async def test_a_replay_has_the_params_and_input_of_then_or_edited_ones(
    opened: Opening, house: House
) -> None:
    async with opened() as client:
        given = {"id": "hello", "params": {"who": "Ann", "times": 2}, "input": {"x": [1]}}
        run = value(await client.call_tool("run_task", given))
        again = value(await client.call_tool("replay_run", {"run_id": run["run_id"]}))
        assert again["return_value"] == run["return_value"]
        assert (again["trigger"], again["replay_of"]) == ("replay", run["run_id"])
        assert again["replay"] == {"of": run["run_id"], "task_changed": False}
        edited = {"run_id": run["run_id"], "params": {"times": "5"}, "input": None}
        other = value(await client.call_tool("replay_run", edited))
        assert other["return_value"] == {"params": {"who": "Ann", "times": 5}, "input": None}
        assert other["replay"]["edited"] == ["times", "input"]


async def test_a_replay_says_that_the_task_changed_and_keeps_to_what_it_declares_now(
    opened: Opening, house: House
) -> None:
    async with opened() as client:
        given = {"id": "hello", "params": {"who": "Ann", "times": 2}}
        run = value(await client.call_tool("run_task", given))
        times = "  times: {type: number, default: 1}\n"
        house.write("hello", house.manifest("hello").replace(times, ""))
        again = value(await client.call_tool("replay_run", {"run_id": run["run_id"]}))
        assert again["return_value"]["params"] == {"who": "Ann"}
        told = again["replay"]
        assert (told["task_changed"], told["params_left_out"]) == (True, ["times"])
        assert told["hash_then"] == run["hash"] != told["hash_now"]
        wrong = {"run_id": run["run_id"], "params": {"times": 3}}
        assert error(await client.call_tool("replay_run", wrong))["code"] == "invalid_params"


async def test_a_version_that_waits_for_approval_is_never_started_by_a_replay(
    opened: Opening, house: House
) -> None:
    async with opened() as client:
        run = value(await client.call_tool("run_task", {"id": "hello"}))
        entry = house.registry.get("hello")
        assert entry is not None
        assert entry.task is not None
        pending = Entry("hello", "demo", entry.folder, None, entry.conditions, waiting=entry.task)
        house.registry.apply("demo", [pending])
        found = error(await client.call_tool("replay_run", {"run_id": run["run_id"]}))
        assert found["code"] == "task_not_ready"
        assert "waits for a human" in found["message"]
        listed = value(await client.call_tool("get_runs", {"task": "hello"}))["runs"]
        assert [item["run_id"] for item in listed] == [run["run_id"]]


async def test_a_run_whose_input_was_not_kept_cannot_be_replayed_and_says_why(
    opened: Opening, house: House
) -> None:
    house.write("hello", house.manifest("hello") + "run_inputs: {enabled: false}\n")
    async with opened() as client:
        run = value(await client.call_tool("run_task", {"id": "hello", "input": "private-thing"}))
        result = await client.call_tool("replay_run", {"run_id": run["run_id"]})
        found = error(result)
        assert found["code"] == "conflict"
        assert "not kept" in found["message"]
        assert "run_task" in found["hint"]
        assert "private-thing" not in result.model_dump_json()


async def test_a_replay_with_a_key_is_one_run_and_an_unknown_run_is_told(opened: Opening) -> None:
    async with opened() as client:
        run = value(await client.call_tool("run_task", {"id": "hello"}))
        ask = {"run_id": run["run_id"], "idempotency_key": "one"}
        first = value(await client.call_tool("replay_run", ask))
        assert value(await client.call_tool("replay_run", ask))["run_id"] == first["run_id"]
        gone = error(await client.call_tool("replay_run", {"run_id": "01nothing"}))
        assert gone["code"] == "run_not_found"


async def test_a_tree_shows_the_root_first_and_what_followed(opened: Opening, house: House) -> None:
    flaky(house, 2)
    async with opened() as client:
        run = value(await client.call_tool("run_task", {"id": "flaky"}))
        shown = value(await client.call_tool("get_run", {"run_id": run["run_id"], "tree": True}))
        tree = shown["tree"]
        assert [item["run_id"] for item in tree] == run["attempts"]
        assert [item["status"] for item in tree] == ["failure", "success"]
        assert [item["attempt"] for item in tree] == [1, 2]
        assert tree[1]["retry_of"] == tree[0]["run_id"]
        assert "tree_truncated" not in shown
