"""What a caller of a webhook sends and what it gets."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hookhouse import HookHouse, problem, serving_hooks
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from dicode_mcp.executor.lineage import Origin
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import RunStatus, Trigger
from dicode_mcp.testing.waiting import DEADLINE_S, until
from dicode_mcp.triggers.webhook.table import Match

JSON = {"content-type": "application/json"}


async def payload(house: HookHouse) -> Any:
    return await house.rooms.store.get_payload((await house.only_run()).id)


async def test_a_json_body_starts_a_run_and_its_value_is_the_answer() -> None:
    async with serving_hooks(ends={"t": (RunStatus.SUCCESS, '{"n": 1}')}) as house:
        house.hook("t", params={"who": {"default": "nobody"}, "n": {"type": "number"}})
        answer = await house.client.post(
            "/hooks/t/below?who=query&extra=1", json={"n": "3", "who": "body", "more": [1]}
        )
        assert (answer.status_code, answer.json()) == (200, {"n": 1})
        run = await house.only_run()
        assert answer.headers["x-run-id"] == run.id
        assert (run.trigger, run.actor) == (Trigger.WEBHOOK, "webhook")
        kept = await payload(house)
        assert kept.params == {"who": "body", "n": 3}
        assert kept.input == {"n": "3", "who": "body", "more": [1]}
        assert kept.request["path"] == "/hooks/t/below"
        assert kept.request["query"] == {"who": "query", "extra": "1"}
        assert kept.request["client"] == "127.0.0.1"


async def test_a_query_fills_parameters_that_the_body_does_not() -> None:
    async with serving_hooks() as house:
        house.hook("t", methods=["GET"], params={"who": "nobody"})
        assert (await house.client.get("/hooks/t?who=me&other=1")).status_code == 200
        kept = await payload(house)
        assert (kept.params, kept.input) == ({"who": "me"}, None)


async def test_a_form_is_a_map_a_text_a_string_and_the_rest_bytes() -> None:
    async with serving_hooks() as house:
        house.hook("t", params={"who": "nobody"})
        messages: list[dict[str, Any]] = [
            {"data": {"who": "form", "x": "1"}},
            {"content": b"plain", "headers": {"content-type": "text/plain"}},
            {"content": b"\xff", "headers": {"content-type": "image/png"}},
            {"data": {"who": "parts"}, "files": {"f": ("a.txt", b"hi", "text/plain")}},
        ]
        for sent in messages:
            assert (await house.client.post("/hooks/t", **sent)).status_code == 200
            house.rooms.clock.advance(1)
        kept = [await house.rooms.store.get_payload(run.id) for run in await house.runs()]
        inputs = [one.input for one in kept if one is not None]
        file = {"filename": "a.txt", "content_type": "text/plain", "base64": "aGk="}
        assert inputs == [
            {"who": "form", "x": "1"},
            "plain",
            {"content_type": "image/png", "base64": "/w=="},
            {"who": "parts", "f": file},
        ]
        assert [one.params["who"] for one in kept if one] == ["form", "nobody", "nobody", "parts"]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b'{"a":', JSON, 400, "invalid_argument"),
        (b"a=%ff", {"content-type": "application/x-www-form-urlencoded"}, 400, "invalid_argument"),
        (b"x", {"content-type": "nonsense"}, 415, "not_supported"),
        (b"x", {**JSON, "content-encoding": "gzip"}, 415, "not_supported"),
        (b'{"n": "many"}', JSON, 422, "invalid_params"),
        (b"{}", {**JSON, "idempotency-key": "x" * 257}, 400, "invalid_argument"),
        (b"x" * 65_537, {}, 413, "too_large"),
    ],
)
async def test_what_cannot_be_read_starts_nothing(
    content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving_hooks() as house:
        house.hook("t", params={"n": {"type": "number", "default": 1}})
        problem(await house.client.post("/hooks/t", content=content, headers=headers), status, code)
        problem(await house.client.post("/hooks/t?a=%ff"), 400, "invalid_argument")
        assert await house.runs() == []


async def test_a_type_that_comes_twice_is_refused() -> None:
    async with serving_hooks() as house:
        house.hook("t")
        twice = [("content-type", "application/json"), ("content-type", "text/plain")]
        answer = await house.client.post("/hooks/t", content=b"{}", headers=twice)
        problem(answer, 415, "not_supported")


async def test_a_method_that_a_webhook_does_not_take_is_told_which_it_takes() -> None:
    async with serving_hooks() as house:
        house.hook("t", methods=["POST", "PUT"])
        for method in ("GET", "HEAD", "DELETE", "PATCH", "TRACE", "PROPFIND"):
            answer = await house.client.request(method, "/hooks/t")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST, PUT, OPTIONS")
        answer = await house.client.options("/hooks/t")
        assert (answer.status_code, answer.headers["allow"]) == (204, "POST, PUT, OPTIONS")
        assert await house.runs() == []
        assert (await house.client.put("/hooks/t")).status_code == 200


async def test_to_ask_for_the_head_of_an_answer_starts_nothing() -> None:
    async with serving_hooks() as house:
        house.hook("t", methods=["GET"])
        answer = await house.client.head("/hooks/t")
        assert (answer.status_code, answer.content) == (200, b"")
        assert await house.runs() == []
        allow = (await house.client.options("/hooks/t")).headers["allow"]
        assert allow == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    "path",
    [
        "/hooks/none",
        "/hooks/",
        "/hooks/tt",
        "/hooks/t/../t",
        "/hooks/t/%2e%2e/t",
        "/hooks/t/%2E/x",
        "/hooks/t%2fx",
        "/hooks/t%2Fx",
        "/hooks%2ft",
        "/hooks/t/%5c..%5cx",
        "/hooks/t/\\x",
        "/hooks/t/%252e%252e",
        "/hooks/t/%00",
        "/hooks/t/%0a",
        "/hooks/t/%ff",
        "/hooks//t",
        "//hooks/t",
        "/hooks/t//x",
        "/hooks/T",
        "/hooks/./t",
    ],
)
async def test_a_path_that_could_be_read_in_two_ways_is_nobodys(path: str) -> None:
    async with serving_hooks() as house:
        house.hook("t")
        reader, writer = await asyncio.open_connection("127.0.0.1", house.where.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(DEADLINE_S):
            status = (await reader.readline()).split()[1]
        writer.close()
        # `//hooks/t` is no path of webhooks at all, so its caller needs no less than any other.
        assert status in (b"404", b"400")
        assert await house.runs() == []


async def test_pushes_to_git_sources_keep_their_own_path() -> None:
    async with serving_hooks() as house:
        assert (await house.client.post("/hooks/git/x")).status_code == 202
        answer = await house.client.get("/hooks/git/x")
        problem(answer, 405, "not_supported")
        assert answer.headers["allow"] == "POST"
        problem(await house.client.post("/hooks/git/x/y"), 404, "not_found")


# ── What it answers ──


@pytest.mark.parametrize("how", ["query", "mode"])
async def test_who_does_not_wait_gets_the_runs_id(how: str) -> None:
    async with serving_hooks() as house:
        house.hook("t", mode="async" if how == "mode" else "sync")
        house.runner.held.add("t")
        answer = await house.client.post("/hooks/t" + ("?wait=false" if how == "query" else ""))
        run = await house.only_run()
        assert (answer.status_code, answer.json()) == (202, {"runId": run.id})
        assert answer.headers["x-run-id"] == run.id


@pytest.mark.parametrize(
    ("status", "http", "shown"),
    [
        (RunStatus.FAILURE, 500, "script_error"),
        (RunStatus.TIMEOUT, 504, "script_error"),
        (RunStatus.CANCELLED, 503, "script_error"),
        (RunStatus.LOST, 500, "script_error"),
    ],
)
async def test_a_run_that_did_not_succeed_says_so(status: RunStatus, http: int, shown: str) -> None:
    async with serving_hooks(ends={"t": status}, origin=Origin.TASK) as house:
        house.hook("t")
        answer = await house.client.post("/hooks/t")
        run = await house.only_run()
        assert answer.status_code == http
        assert answer.json() == {
            "runId": run.id,
            "status": status.value,
            "error": {"code": shown, "message": f"ended as {status.value}"},
        }
        assert answer.headers["x-run-id"] == run.id


async def test_only_a_known_caller_sees_the_log_of_a_failure() -> None:
    for origin, shown in ((Origin.CLIENT, True), (Origin.TASK, False), (Origin.UNKNOWN, False)):
        async with serving_hooks(ends={"t": RunStatus.FAILURE}, origin=origin) as house:
            house.hook("t")
            house.runner.held.add("t")
            calling = asyncio.create_task(house.client.post("/hooks/t"))
            await until(lambda house=house: house.runner.holding == 1)
            line = LogLine(1, 1, Level.ERROR, "the disk is full")
            await house.rooms.store.append_logs(house.runner.on["t"], [line])
            house.runner.release("t", RunStatus.FAILURE)
            body = (await calling).json()
            assert ("logs" in body) is shown
            if shown:
                assert [entry["message"] for entry in body["logs"]] == ["the disk is full"]


async def test_through_a_proxy_even_the_owner_sees_no_log() -> None:
    async with serving_hooks(ends={"t": RunStatus.FAILURE}) as house:
        house.hook("t")
        answer = await house.client.post("/hooks/t", headers={"x-forwarded-for": "192.0.2.1"})
        assert "logs" not in answer.json()


async def test_a_run_that_takes_too_long_is_answered_with_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dicode_mcp.service.hooks.MAX_WAIT_S", 0.05)
    async with serving_hooks() as house:
        house.hook("t")
        house.runner.held.add("t")
        answer = await house.client.post("/hooks/t")
        run = await house.only_run()
        assert (answer.status_code, answer.json()) == (202, {"runId": run.id})
        assert not run.status.ended


async def test_who_leaves_while_waiting_does_not_end_the_run() -> None:
    async with serving_hooks() as house:
        house.hook("t")
        house.runner.held.add("t")
        with pytest.raises(httpx.ReadTimeout):
            await house.client.post("/hooks/t", timeout=0.3)
        await until(lambda: house.runner.holding == 1)
        house.runner.release("t")
        run = await house.only_run()
        ended = await house.rooms.queue.wait(run.id, DEADLINE_S)
        assert ended.status is RunStatus.SUCCESS


async def test_a_server_that_has_just_started_asks_to_come_again() -> None:
    starting = True
    async with serving_hooks(starting=lambda: starting) as house:
        house.hook("t")
        answer = await house.client.post("/hooks/t")
        problem(answer, 503, "shutting_down")
        assert int(answer.headers["retry-after"]) > 0
        starting = False
        assert (await house.client.post("/hooks/t")).status_code == 200


async def test_a_paused_task_is_not_served_and_nobody_is_told_why() -> None:
    async with serving_hooks() as house:
        house.hook("t")
        house.rooms.pause("t")
        answer = await house.client.post("/hooks/t")
        body = problem(answer, 503, "task_not_ready")
        assert "paused" in body["detail"]
        assert "retry-after" in answer.headers
        house.rooms.pause("t", False)
        assert (await house.client.post("/hooks/t")).status_code == 200


async def test_a_rate_limit_is_told_with_when_to_come_again() -> None:
    async with serving_hooks() as house:
        house.hook("t", rate_limit="2/m")
        codes = [(await house.client.post("/hooks/t")).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        answer = await house.client.post("/hooks/t")
        problem(answer, 429, "rate_limited")
        assert answer.headers["retry-after"] == "30"
        assert len(await house.runs()) == 2
        house.rooms.clock.advance(30)
        assert (await house.client.post("/hooks/t")).status_code == 200


async def test_senders_behind_a_trusted_proxy_are_counted_apart() -> None:
    async with serving_hooks(trusted_proxies=("127.0.0.1",)) as house:
        house.hook("t", rate_limit={"limit": 1, "per": "1m", "by": "client"})
        codes = [
            (await house.client.post("/hooks/t", headers={"x-forwarded-for": who})).status_code
            for who in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "198.51.100.1, 192.0.2.2")
        ]
        assert codes == [200, 200, 429, 429]


async def test_auth_lets_nobody_in_while_there_are_no_keys() -> None:
    async with serving_hooks() as house:
        house.hook("t", auth=True, methods=["GET", "POST"])
        for headers in ({}, {"authorization": "Bearer dck_x"}, {"cookie": "session=1"}):
            for method in ("GET", "POST", "HEAD"):
                answer = await house.client.request(method, "/hooks/t", headers=headers)
                assert answer.status_code == 401
        assert await house.runs() == []


async def test_a_foreign_page_or_name_is_refused_before_anything_else() -> None:
    async with serving_hooks() as house:
        house.hook("t")
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"host": "evil.example"},
        ):
            problem(await house.client.post("/hooks/t", headers=headers), 403, "forbidden")
        assert await house.runs() == []


async def test_the_public_name_may_be_called_by() -> None:
    async with serving_hooks(public_url="https://hooks.example.org") as house:
        house.hook("t")
        headers = {"host": "hooks.example.org", "x-forwarded-for": "192.0.2.1"}
        assert (await house.client.post("/hooks/t", headers=headers)).status_code == 200
        problem(await house.client.post("/mcp", headers=headers), 401, "unauthenticated")


class OnePage:
    """A task whose page is a word."""

    async def answer(self, request: Request, match: Match) -> Response | None:
        return PlainTextResponse("the page") if match.rest == "" else None


async def test_a_page_goes_before_the_task_and_only_where_it_is() -> None:
    async with serving_hooks(pages=OnePage()) as house:
        house.hook("t", methods=["GET"])
        house.hook("p", methods=["POST"])
        assert (await house.client.get("/hooks/t")).text == "the page"
        assert (await house.client.get("/hooks/t/x")).text == "null"
        assert (await house.client.get("/hooks/p")).text == "the page"
        problem(await house.client.get("/hooks/p/x"), 405, "not_supported")
        assert len(await house.runs()) == 1


async def test_an_older_good_version_goes_on_serving() -> None:
    async with serving_hooks() as house:
        house.hook("t")
        house.rooms.put_broken("other")
        assert (await house.client.post("/hooks/t")).json() is None
        problem(await house.client.post("/hooks/other"), 404, "not_found")
