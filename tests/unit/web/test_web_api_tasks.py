"""What a program gets from ``/api/tasks``: listings, starts, and the orchestrator's records."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from apihouse import ApiHouse, refused

from dicode_mcp.protocols import RunQuery
from dicode_mcp.runs.model import RunStatus, Trigger

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def house() -> ApiHouse:
    made = ApiHouse()
    made.put("hello", params={"who": "world"})
    made.put(
        "team/report",
        api={"trigger": True, "type": "report"},
        params={"n": {"type": "number", "default": 1}},
    )
    return made


async def run_of(house: ApiHouse, run_id: str) -> Any:
    run = await house.rooms.store.get_run(run_id)
    assert run
    return run


# ── Tasks ──


async def test_tasks_are_listed_and_shown_by_id_however_it_is_written(house: ApiHouse) -> None:
    async with house.client() as client:
        listed = (await client.get("/api/tasks")).json()
        assert [task["id"] for task in listed["tasks"]] == ["hello", "team/report"]
        for path in (
            "/api/tasks/team/report",
            "/api/tasks/team%2Freport",
            "/api/tasks?id=team/report",
        ):
            shown = await client.get(path)
            assert shown.json()["id"] == "team/report", path
            assert shown.headers["cache-control"] == "no-store"
        page = (await client.get("/api/tasks?limit=1&query=e")).json()
        rest = await client.get("/api/tasks", params={"cursor": page["next_cursor"], "limit": 1})
        assert rest.json()["tasks"][0]["id"] == "team/report"
        head = await client.head("/api/tasks")
        assert (head.status_code, head.content) == (200, b"")


async def test_a_task_that_is_not_there_is_told_with_the_nearest(house: ApiHouse) -> None:
    async with house.client() as client:
        body = refused(await client.get("/api/tasks/helo"), 404, "task_not_found")
        assert "hello" in body["detail"]
        refused(await client.post("/api/tasks/helo/run"), 404, "task_not_found")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("sort=up", "'sort' is not known"),
        ("limit=0", "1 to 500"),
        ("limit=many", "limit must be a whole number"),
        ("limit=1&limit=2", "given twice"),
        ("status=done", "ready, broken"),
        ("query=", "1 to 512"),
        ("id=hello&limit=3", "alone"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_with_what_is_allowed(
    house: ApiHouse, query: str, told: str
) -> None:
    async with house.client() as client:
        body = refused(await client.get(f"/api/tasks?{query}"), 400, "invalid_argument")
        assert told in body["detail"] + body["hint"]


async def test_all_faults_of_a_query_are_told_at_once(house: ApiHouse) -> None:
    async with house.client() as client:
        body = refused(
            await client.get("/api/tasks/runs?limit=0&page=2&status=x"), 400, "invalid_argument"
        )
        for part in ("limit must be", "'page' is not known", "status must be one of: pending"):
            assert part in body["detail"]
        assert body["hint"] == "query parameters here: limit, type, status, offset, cursor"


# ── Starting ──


async def test_a_started_run_is_answered_at_once_or_when_it_has_ended(house: ApiHouse) -> None:
    house.ends["hello"] = (RunStatus.SUCCESS, '{"said": 1}')
    async with house.client() as client:
        begun = await client.post("/api/tasks/hello/run", json={"params": {"who": "Ada"}})
        assert begun.status_code == 202
        run_id = begun.json()["run_id"]
        assert begun.headers["location"] == f"/api/runs/{run_id}"
        done = await client.get(begun.headers["location"], params={"wait": 20})
        assert done.json()["status"] == "success"
        waited = await client.post("/api/tasks/hello/run?wait=20")
        assert waited.status_code == 200
        assert waited.json()["return_value"] == {"said": 1}
        run = await run_of(house, run_id)
        assert run.trigger is Trigger.API
        payload = await house.rooms.store.get_payload(run_id)
        assert payload
        assert payload.params == {"who": "Ada"}


async def test_an_idempotency_key_gives_the_same_run(house: ApiHouse) -> None:
    async with house.client() as client:
        headers = {"Idempotency-Key": "nightly-1"}
        one = await client.post("/api/tasks/hello/run", headers=headers)
        two = await client.post("/api/tasks/hello/run", headers=headers)
        assert one.json()["run_id"] == two.json()["run_id"]
        for bad in ("", "x" * 257):
            answer = await client.post("/api/tasks/hello/run", headers={"Idempotency-Key": bad})
            refused(answer, 400, "invalid_argument")


async def test_a_priority_is_a_word_and_reaches_the_run(house: ApiHouse) -> None:
    async with house.client() as client:
        high = (await client.post("/api/tasks/hello/run", json={"priority": "high"})).json()
        low = (await client.post("/api/tasks/hello/run", json={"priority": "low"})).json()
        found = [(await run_of(house, made["run_id"])).priority for made in (high, low)]
        assert found[0] > 0 > found[1]
        body = refused(
            await client.post("/api/tasks/hello/run", json={"priority": "urgent"}),
            400,
            "invalid_argument",
        )
        assert body["hint"] == "one of: low, normal, high"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"json": {"parms": {}}}, "'parms' is not known"),
        ({"json": {"params": [1]}}, "params must be an object"),
        ({"json": [1]}, "not a JSON object"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "not JSON"),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, "not declared as JSON"),
    ],
)
async def test_a_body_that_is_wrong_starts_nothing(
    house: ApiHouse, sent: dict[str, Any], told: str
) -> None:
    async with house.client() as client:
        body = refused(await client.post("/api/tasks/hello/run", **sent), 400, "invalid_argument")
        assert told in body["detail"]
        assert (await client.get("/api/tasks/runs")).json()["total"] == 0


async def test_unknown_params_are_refused_by_name(house: ApiHouse) -> None:
    async with house.client() as client:
        answer = await client.post("/api/tasks/hello/run", json={"params": {"whom": 1}})
        assert "whom" in refused(answer, 422, "invalid_params")["detail"]


# ── Records ──


async def test_records_have_the_documented_shape_and_our_fields(house: ApiHouse) -> None:
    house.ends["team/report"] = (RunStatus.SUCCESS, '{"itemsProcessed": 3}')
    house.ends["hello"] = RunStatus.FAILURE
    async with house.client() as client:
        await client.post("/api/tasks/hello/run?wait=20")
        house.rooms.clock.advance(1)
        await client.post("/api/tasks/team/report/run?wait=20")
        found = (await client.get("/api/tasks/runs?limit=20")).json()
    assert ISO.fullmatch(found["generatedAt"])
    assert found["query"] == {"limit": 20, "offset": 0}
    assert found["total"] == 2
    assert found["page"] == {"limit": 20, "offset": 0, "returned": 2}
    good, bad = found["runs"]
    assert ISO.fullmatch(good["timestamp"])
    assert {k: good[k] for k in ("type", "status", "result", "error", "run_status", "task")} == {
        "type": "report",
        "status": "completed",
        "result": {"itemsProcessed": 3},
        "error": None,
        "run_status": "success",
        "task": "team/report",
    }
    assert isinstance(good["durationMs"], int)
    assert {k: bad[k] for k in ("type", "status", "result", "error", "run_status")} == {
        "type": "hello",
        "status": "error",
        "result": None,
        "error": "ended as failure",
        "run_status": "failure",
    }


WORDS = {
    "queued": "pending",
    "running": "pending",
    "waiting": "pending",
    "success": "completed",
    "failure": "error",
    "timeout": "error",
    "cancelled": "error",
    "skipped": "error",
    "lost": "error",
}


async def test_every_status_has_its_word_and_can_be_asked_for_by_both(house: ApiHouse) -> None:
    assert set(WORDS) == {status.value for status in RunStatus}
    for name in WORDS:
        await house.ran("hello", RunStatus(name))
    async with house.client() as client:
        every = (await client.get("/api/tasks/runs")).json()["runs"]
        assert {run["run_status"]: run["status"] for run in every} == WORDS
        for run in every:
            assert (run["error"] is not None) == (run["status"] == "error")
        for word in ("pending", "completed", "error"):
            asked = (await client.get(f"/api/tasks/runs?status={word}")).json()
            wanted = {name for name, of in WORDS.items() if of == word}
            assert {run["run_status"] for run in asked["runs"]} == wanted
            assert asked["total"] == len(wanted)
        exact = (await client.get("/api/tasks/runs?status=timeout")).json()["runs"]
        assert [run["run_status"] for run in exact] == ["timeout"]


async def test_records_are_paged_by_offset_and_by_cursor(house: ApiHouse) -> None:
    ids = [await house.ran("hello", RunStatus.SUCCESS) for _ in range(7)]
    newest = ids[::-1]

    async def page(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
        return (await client.get("/api/tasks/runs", params=query)).json()

    async with house.client() as client:
        second = await page(client, limit=3, offset=3)
        assert [run["run_id"] for run in second["runs"]] == newest[3:6]
        assert (second["total"], second["page"]["offset"]) == (7, 3)
        last = await page(client, limit=3, cursor=second["page"]["next_cursor"])
        assert [run["run_id"] for run in last["runs"]] == newest[6:]
        assert "next_cursor" not in last["page"]
        assert (await page(client, offset=50))["runs"] == []
        refused(await client.get("/api/tasks/runs?offset=10001"), 400, "invalid_argument")


async def test_a_total_beyond_what_is_counted_says_so(
    house: ApiHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicode_mcp.service.task_api.COUNTED", 3)
    for _ in range(5):
        await house.ran("hello", RunStatus.SUCCESS)
    async with house.client() as client:
        found = (await client.get("/api/tasks/runs")).json()
        assert (found["total"], found["total_is_estimate"]) == (3, True)


async def test_runs_are_found_by_type_and_by_id_and_after_the_task_is_gone(house: ApiHouse) -> None:
    await house.ran("team/report", RunStatus.SUCCESS)
    await house.ran("hello", RunStatus.SUCCESS)
    async with house.client() as client:
        for name in ("report", "team/report"):
            found = (await client.get("/api/tasks/runs", params={"type": name})).json()
            assert [run["type"] for run in found["runs"]] == ["report"]
        refused(await client.get("/api/tasks/runs?type=nothing"), 404, "task_not_found")
        house.rooms.remove("team/report")
        found = (await client.get("/api/tasks/runs?type=team/report")).json()
        assert [run["type"] for run in found["runs"]] == ["team/report"]


async def test_a_long_result_is_left_out_of_a_record_and_there_in_the_run(house: ApiHouse) -> None:
    house.ends["hello"] = (RunStatus.SUCCESS, '"' + "x" * 9_000 + '"')
    async with house.client() as client:
        await client.post("/api/tasks/hello/run?wait=20")
        (record,) = (await client.get("/api/tasks/runs")).json()["runs"]
        assert (record["result"], record["result_truncated"]) == (None, True)
        whole = (await client.get(f"/api/runs/{record['run_id']}")).json()
        assert len(whole["return_value"]) == 9_000


# ── Triggering ──


async def test_a_task_that_lets_programs_start_it_is_started(house: ApiHouse) -> None:
    async with house.client() as client:
        sent = {"type": "report", "config": {"n": 5}, "priority": "low"}
        answer = await client.post("/api/tasks/trigger", json=sent)
        assert answer.status_code == 202
        body = answer.json()
        assert {k: body[k] for k in ("type", "status")} == {"type": "report", "status": "pending"}
        assert ISO.fullmatch(body["timestamp"])
        assert answer.headers["location"] == f"/api/runs/{body['runId']}"
        payload = await house.rooms.store.get_payload(body["runId"])
        assert payload
        assert payload.params == {"n": 5}


async def test_a_task_that_does_not_say_so_is_refused_with_the_line_to_add(house: ApiHouse) -> None:
    async with house.client() as client:
        body = refused(
            await client.post("/api/tasks/trigger", json={"type": "hello"}), 403, "forbidden"
        )
        assert "api: {trigger: true}" in body["hint"]
        assert (await house.rooms.store.list_runs(RunQuery())).items == ()


async def test_a_type_that_is_not_there_names_those_that_are(house: ApiHouse) -> None:
    async with house.client() as client:
        answer = await client.post("/api/tasks/trigger", json={"type": "reprt"})
        assert "report" in refused(answer, 404, "task_not_found")["hint"]


async def test_params_and_config_are_one_thing(house: ApiHouse) -> None:
    async with house.client() as client:
        sent: dict[str, Any] = {"type": "report", "config": {}, "params": {}}
        refused(await client.post("/api/tasks/trigger", json=sent), 400, "invalid_argument")
        body = refused(await client.post("/api/tasks/trigger", json={}), 400, "invalid_argument")
        assert "type is missing" in body["detail"] + body["hint"]


# ── Who calls ──


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/tasks"),
        ("GET", "/api/tasks/runs"),
        ("POST", "/api/tasks/trigger"),
        ("POST", "/api/tasks/hello/run"),
        ("GET", "/api/runs/x"),
        ("GET", "/metrics"),
    ],
)
async def test_a_key_is_refused_while_there_are_none_and_a_foreign_page_always(
    house: ApiHouse, method: str, path: str
) -> None:
    async with house.client() as client:
        keyed = await client.request(method, path, headers={"Authorization": "Bearer dck_x"})
        refused(keyed, 401, "unauthenticated")
        assert keyed.headers["www-authenticate"].startswith("Bearer")
        foreign = await client.request(method, path, headers={"Origin": "http://evil.example"})
        refused(foreign, 403, "forbidden")
        named = await client.request(method, path, headers={"Host": "evil.example"})
        refused(named, 403, "forbidden")
        assert (await house.rooms.store.list_runs(RunQuery())).items == ()


async def test_a_wrong_method_is_told(house: ApiHouse) -> None:
    async with house.client() as client:
        answer = await client.delete("/api/tasks/hello")
        assert answer.status_code == 405
        answer = await client.put("/api/tasks/trigger")
        assert answer.status_code == 405
