"""What a program gets from ``/api/runs``: one run, its log, its end, and its pin."""

from __future__ import annotations

import pytest
from apihouse import ApiHouse, refused

from dicode_mcp.runs.logs import Level
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.testing.waiting import until


@pytest.fixture
def house() -> ApiHouse:
    made = ApiHouse()
    made.put("hello", params={"who": "world"})
    return made


async def test_a_log_is_read_from_the_start_from_a_line_or_from_its_end(house: ApiHouse) -> None:
    run_id = await house.ran("hello", RunStatus.SUCCESS)
    await house.wrote(run_id, ["one", "two", "three"])
    await house.wrote(run_id, ["bad"], Level.ERROR)
    async with house.client() as client:

        async def read(query: str) -> list[str]:
            answer = (await client.get(f"/api/runs/{run_id}/logs?{query}")).json()
            assert answer["run_id"] == run_id
            return [line["message"] for line in answer["lines"]]

        assert (await read(""))[:3] == ["one", "two", "three"]
        assert await read("after=1&limit=1") == ["two"]
        assert await read("tail=1") == ["bad"]
        assert await read("level=error") == ["bad"]
        for query in ("after=1&tail=2", "level=loud", "tail=0", "lines=3"):
            refused(await client.get(f"/api/runs/{run_id}/logs?{query}"), 400, "invalid_argument")


async def test_a_run_is_killed_and_that_is_shown(house: ApiHouse) -> None:
    house.runner.held.add("hello")
    async with house.client() as client:
        run_id = (await client.post("/api/tasks/hello/run")).json()["run_id"]
        await until(lambda: "hello" in house.runner.on)
        killed = await client.post(f"/api/runs/{run_id}/kill")
        assert (killed.status_code, killed.json()["status"]) == (200, "cancelled")
        again = await client.post(f"/api/runs/{run_id}/kill", json={})
        assert again.json()["status"] == "cancelled"


async def test_a_run_is_pinned_and_let_go(house: ApiHouse) -> None:
    run_id = await house.ran("hello", RunStatus.SUCCESS)
    async with house.client() as client:
        pinned = await client.post(f"/api/runs/{run_id}/pin")
        assert pinned.json()["pinned"] is True
        assert (await client.get(f"/api/runs/{run_id}")).json()["pinned"] is True
        off = await client.post(f"/api/runs/{run_id}/pin", json={"pinned": False})
        assert off.json()["pinned"] is False
        assert "pinned" not in (await client.get(f"/api/runs/{run_id}")).json()
        refused(
            await client.post(f"/api/runs/{run_id}/pin", json={"pinned": 1}),
            400,
            "invalid_argument",
        )


async def test_a_run_is_replayed_with_what_it_began_with(house: ApiHouse) -> None:
    async with house.client() as client:
        first = (
            await client.post("/api/tasks/hello/run?wait=20", json={"params": {"who": "Ada"}})
        ).json()
        again = await client.post(f"/api/runs/{first['run_id']}/replay")
        assert again.status_code == 202
        made = again.json()
        assert made["replay_of"] == first["run_id"]
        assert again.headers["location"] == f"/api/runs/{made['run_id']}"
        payload = await house.rooms.store.get_payload(made["run_id"])
        assert payload
        assert payload.params == {"who": "Ada"}
        edited = await client.post(
            f"/api/runs/{first['run_id']}/replay", json={"params": {"who": "Bo"}}
        )
        payload = await house.rooms.store.get_payload(edited.json()["run_id"])
        assert payload
        assert payload.params == {"who": "Bo"}


async def test_a_run_whose_input_was_let_go_is_not_replayed_as_something_else(
    house: ApiHouse,
) -> None:
    async with house.client() as client:
        sent = {"params": {"who": "Ada"}}
        first = (await client.post("/api/tasks/hello/run?wait=20", json=sent)).json()
        assert await house.rooms.store.drop_inputs([first["run_id"]]) == 1
        answer = await client.post(f"/api/runs/{first['run_id']}/replay")
        assert answer.status_code in (404, 409, 422), answer.text


@pytest.mark.parametrize("what", ["", "/logs"])
async def test_an_unknown_run_is_told(house: ApiHouse, what: str) -> None:
    async with house.client() as client:
        refused(await client.get(f"/api/runs/nothing{what}"), 404, "run_not_found")


@pytest.mark.parametrize("what", ["kill", "pin", "replay"])
async def test_nothing_is_done_to_an_unknown_run(house: ApiHouse, what: str) -> None:
    async with house.client() as client:
        refused(await client.post(f"/api/runs/nothing/{what}"), 404, "run_not_found")
