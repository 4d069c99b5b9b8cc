"""What a call tells and asks its client while it works: log lines, and params that are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import mcp_types as t
import pytest
from mcp import Client
from mcphouse import House, Opening

from dicode_mcp.events import LogAppended
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.testing.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

CITY = "  city: {type: string, required: true, enum: [Oslo, Rome]}\n"


def answering(reply: t.ElicitResult, asked: list[t.ElicitRequestParams]) -> Callable[..., Any]:
    """Make a user who always answers the same."""

    async def answer(context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        asked.append(params)
        return reply

    return answer


async def test_a_missing_param_is_asked_of_the_user_where_the_client_can(
    connect: Opening, house: House
) -> None:
    house.write("hello", house.manifest("hello") + CITY)
    asked: list[t.ElicitRequestParams] = []
    reply = t.ElicitResult(action="accept", content={"city": "Oslo"})
    async with connect(elicitation_callback=answering(reply, asked)) as client:
        result = await client.call_tool("run_task", {"id": "hello", "params": {"who": "Ann"}})
    run = result.structured_content
    assert run["status"] == "success"
    assert run["return_value"]["params"] == {"who": "Ann", "times": 1, "city": "Oslo"}
    assert len(asked) == 1
    assert isinstance(asked[0], t.ElicitRequestFormParams)
    assert asked[0].requested_schema["properties"] == {
        "city": {"type": "string", "enum": ["Oslo", "Rome"]}
    }


async def test_a_user_who_does_not_answer_leaves_the_call_with_its_error(
    connect: Opening, house: House
) -> None:
    house.write("hello", house.manifest("hello") + CITY)
    asked: list[t.ElicitRequestParams] = []
    declined = t.ElicitResult(action="decline")
    async with connect(elicitation_callback=answering(declined, asked)) as client:
        result = await client.call_tool("run_task", {"id": "hello"})
    assert result.is_error
    assert result.structured_content["error"]["code"] == "invalid_params"
    assert len(asked) == 1
    assert not await house.store.count_runs()


NO_FORM: list[tuple[str, dict[str, Any]]] = [
    (CITY, {"unknown": 1}),
    ("  api_token: {type: string, required: true}\n", {}),
    ("  password: {type: string, required: true}\n", {}),
]


async def test_nobody_is_asked_where_a_form_is_not_the_answer(
    connect: Opening, house: House
) -> None:
    asked: list[t.ElicitRequestParams] = []
    manifest = house.manifest("hello")
    accepted = t.ElicitResult(action="accept", content={})
    async with connect(elicitation_callback=answering(accepted, asked)) as client:
        for more, params in NO_FORM:
            house.write("hello", manifest + more)
            result = await client.call_tool("run_task", {"id": "hello", "params": params})
            assert result.structured_content["error"]["code"] == "invalid_params"
    assert asked == []


async def test_a_client_that_passes_no_questions_on_gets_the_error(
    connect: Opening, house: House
) -> None:
    house.write("hello", house.manifest("hello") + CITY)
    async with connect() as client:
        result = await client.call_tool("run_task", {"id": "hello"})
    error = result.structured_content["error"]
    assert error["code"] == "invalid_params"
    assert "'city' is required" in error["message"]


async def _with_log(
    connect: Opening, mode: str, house: House, level: t.LoggingLevel | None
) -> list[tuple[str, Any]]:
    """Run the slow task while it logs; gives the messages that came."""
    heard: list[tuple[str, Any]] = []
    logged = asyncio.Event()

    async def on_log(params: t.LoggingMessageNotificationParams) -> None:
        heard.append((params.level, params.data))

    async def log(client: Client) -> None:
        await until(lambda: house.started.is_set())
        lines = (LogLine(1, 0, Level.DEBUG, "tiny"), LogLine(2, 0, Level.WARN, "careful"))
        for _ in range(50):
            house.bus.publish(LogAppended(house.slow_run, lines))
            house.bus.publish(LogAppended("another run", lines))
            await asyncio.sleep(0.005)
            if heard:
                break
        logged.set()
        house.gate.set()

    options: dict[str, Any] = {"logging_callback": on_log}
    if mode != "legacy":
        options["log_level"] = level
    async with connect(**options) as client, asyncio.TaskGroup() as group:
        if mode == "legacy" and level:
            await client.set_logging_level(level)  # pyright: ignore[reportDeprecated]
        group.create_task(log(client))
        await client.call_tool("run_task", {"id": "slow"})
    return heard


async def test_a_client_that_asks_for_log_messages_gets_the_runs_lines(
    connect: Opening, mode: str, house: House
) -> None:
    heard = await _with_log(connect, mode, house, "info")
    assert {level for level, _ in heard} == {"warning"}
    assert heard[0][1] == {"run_id": house.slow_run, "seq": 2, "message": "careful"}


@pytest.mark.parametrize("transport", ["socket", "http"])
async def test_a_client_that_does_not_ask_gets_none(
    connect: Opening, mode: str, house: House
) -> None:
    assert await _with_log(connect, mode, house, None) == []
