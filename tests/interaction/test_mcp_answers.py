"""A run that asks the user: within the call where the client can, else by ``answer_run``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import mcp_types as t
import pytest
from mcphouse import House, Opening

from dicode_mcp.testing.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

NAME = t.ElicitResult(action="accept", content={"answer": "Ann"})
RIGHT = t.ElicitResult(action="accept", content={"answer": True})
AWAY = t.ElicitResult(action="cancel")


class User:
    """Answers what is asked, in turn; then puts every form away."""

    def __init__(self, *replies: t.ElicitResult) -> None:
        self.replies = list(replies)
        self.asked: list[t.ElicitRequestFormParams] = []

    async def __call__(self, context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        assert isinstance(params, t.ElicitRequestFormParams)
        self.asked.append(params)
        return self.replies.pop(0) if self.replies else AWAY


@pytest.fixture(autouse=True)
def _a_task_that_asks(house: House) -> None:  # pyright: ignore[reportUnusedFunction]
    house.write("asks")


async def test_what_a_run_asks_is_asked_of_the_user_within_the_call(
    connect: Opening, house: House
) -> None:
    user = User(NAME, RIGHT)
    async with connect(elicitation_callback=user) as client:
        result = await client.call_tool("run_task", {"id": "asks"})
    run = result.structured_content
    assert run["status"] == "success", run
    assert run["return_value"] == [{"answer": "Ann"}, {"answer": True}]
    assert [(a["number"], a["via"]) for a in run["answers"]] == [
        (1, "elicitation"),
        (2, "elicitation"),
    ]
    assert [form.message for form in user.asked] == ["Task asks asks: Q1?", "Task asks asks: Q2?"]
    assert user.asked[1].requested_schema == {
        "type": "object",
        "properties": {"answer": {"type": "boolean", "title": "Right?", "description": "Is it?"}},
        "required": ["answer"],
    }
    assert sum((await house.store.count_runs()).values()) == 1


async def test_waiting_for_a_run_that_asks_asks_the_user_too(
    connect: Opening, house: House
) -> None:
    user = User(NAME, RIGHT)
    async with connect(elicitation_callback=user) as client:
        started = await client.call_tool("run_task", {"id": "asks", "wait_seconds": 0})
        assert user.asked == []
        run_id = started.structured_content["run_id"]
        result = await client.call_tool("get_run", {"run_id": run_id, "wait_seconds": 30})
    assert result.structured_content["status"] == "success"
    assert len(user.asked) == 2


async def test_a_form_that_is_put_away_leaves_the_run_waiting(connect: Opening) -> None:
    user = User(NAME)
    async with connect(elicitation_callback=user) as client:
        result = await client.call_tool("run_task", {"id": "asks"})
        run = result.structured_content
        assert (run["status"], run["question"]["number"]) == ("waiting", 2)
        assert "answer_run" in run["next"]
        assert len(user.asked) == 2
        looked = await client.call_tool("get_run", {"run_id": run["run_id"]})
        assert looked.structured_content["question"] == run["question"]
        assert len(user.asked) == 2


async def test_a_client_that_asks_nobody_is_told_the_question_and_answers_it(
    connect: Opening,
) -> None:
    async with connect() as client:
        result = await client.call_tool("run_task", {"id": "asks"})
        run = result.structured_content
        assert (run["status"], run["question"]["message"]) == ("waiting", "Q1?")
        answer = {"run_id": run["run_id"], "answer": "Ann"}
        run = (await client.call_tool("answer_run", answer)).structured_content
        assert (run["status"], run["question"]["number"]) == ("waiting", 2)
        answer = {"run_id": run["run_id"], "question": 2, "answer": {"answer": True}}
        run = (await client.call_tool("answer_run", answer)).structured_content
        assert run["status"] == "success"
        late = await client.call_tool("answer_run", answer)
    assert late.is_error
    assert "answered already, by local via mcp" in late.structured_content["error"]["message"]


async def test_answering_without_an_answer_asks_the_user(connect: Opening) -> None:
    user = User(NAME, RIGHT)
    async with connect() as client:
        started = await client.call_tool("run_task", {"id": "asks"})
    run_id = started.structured_content["run_id"]
    async with connect(elicitation_callback=user) as client:
        result = await client.call_tool("answer_run", {"run_id": run_id})
    assert result.structured_content["status"] == "success", result
    assert len(user.asked) == 2


@pytest.mark.parametrize("how", ["argument", "form"])
async def test_a_user_may_decline(connect: Opening, how: str) -> None:
    user = User(t.ElicitResult(action="decline"), RIGHT)
    arguments: dict[str, Any] = {"decline": True} if how == "argument" else {}
    async with connect() as client:
        started = await client.call_tool("run_task", {"id": "asks"})
    run_id = started.structured_content["run_id"]
    async with connect(elicitation_callback=user) as client:
        result = await client.call_tool("answer_run", {"run_id": run_id, **arguments})
        run = result.structured_content
    if run["status"] == "waiting":
        # It asked its second question, and nobody was there for it any more.
        async with connect() as client:
            more = {"run_id": run_id, "question": 2, "answer": True}
            run = (await client.call_tool("answer_run", more)).structured_content
    assert (run["status"], run["reason"]) == ("cancelled", "declined"), run
    assert run["answers"][0]["declined"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ({"answer": 5}, "invalid_params", "answer must be a text"),
        ({"answer": {"other": "x"}}, "invalid_params", "'other' is not asked for"),
        ({"answer": "x", "decline": True}, "invalid_argument", "not both"),
        ({"answer": "x", "question": 7}, "conflict", "does not ask question 7"),
        ({}, "invalid_argument", "cannot ask its user"),
        ({"run_id": "nothing", "answer": "x"}, "run_not_found", "not found"),
    ],
)
@pytest.mark.parametrize("transport", ["socket"])
async def test_an_answer_that_cannot_be_taken_says_why(
    connect: Opening, arguments: dict[str, Any], code: str, named: str
) -> None:
    async with connect() as client:
        started = await client.call_tool("run_task", {"id": "asks"})
        run_id = started.structured_content["run_id"]
        result = await client.call_tool("answer_run", {"run_id": run_id, **arguments})
        error = result.structured_content["error"]
        assert (error["code"], named in error["message"]) == (code, True), error
        assert (await client.call_tool("get_run", {"run_id": run_id})).structured_content[
            "status"
        ] == "waiting"


@pytest.mark.parametrize("transport", ["socket", "http"])
@pytest.mark.parametrize("mode", ["legacy"])
async def test_a_form_is_taken_back_when_somebody_else_answers(
    connect: Opening, open_by: Callable[[str, str], Opening], house: House
) -> None:
    put, never = asyncio.Event(), asyncio.Event()

    async def user(context: Any, params: t.ElicitRequestParams) -> t.ElicitResult:
        put.set()
        await never.wait()
        return AWAY

    async def somebody_else() -> None:
        await put.wait()
        (run_id,) = [q.run_id for q in await house.store.open_questions()]
        async with open_by("memory", "legacy")() as other:
            for number in (1, 2):
                await other.call_tool(
                    "answer_run",
                    {"run_id": run_id, "question": number, "answer": ["Ann", True][number - 1]},
                )

    async with connect(elicitation_callback=user) as client, asyncio.TaskGroup() as group:
        group.create_task(somebody_else())
        result = await client.call_tool("run_task", {"id": "asks"})
        never.set()
    assert result.structured_content["status"] == "success"
    assert {a["via"] for a in result.structured_content["answers"]} == {"mcp"}


async def test_a_reader_is_not_asked_what_it_may_not_answer(
    open_by: Callable[[str, str], Opening], house: House
) -> None:
    del open_by
    from dicode_mcp.errors import DicodeError
    from dicode_mcp.service.principal import local_principal

    run = await house.services.runs.start(local_principal("mcp"), "asks")
    await until(lambda: house.dispatcher.running == 0)
    await house.services.runs.wait(local_principal("mcp"), run["run_id"], 20, seen_questions=0)
    reader = local_principal("mcp").narrowed(read_only=True)
    elsewhere = local_principal("mcp").narrowed(tasks="other/*")
    task = local_principal("sdk")
    for principal, code in (
        (reader, "forbidden"),
        (elsewhere, "run_not_found"),
        (task, "forbidden"),
    ):
        with pytest.raises(DicodeError) as caught:
            await house.services.questions.answer(principal, run["run_id"], "Ann")
        assert caught.value.code.value == code
