"""Messages that prove themselves: over HTTP, once each, after a restart and after faults too."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from hookhouse import SECRET, HookHouse, problem, serving_hooks, signed

from dicode_mcp.protocols import Store
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.faults import Fault, FaultyStore
from dicode_mcp.testing.store import MemoryStore

BODY = b'{"a": 1}'
JSON = {"content-type": "application/json"}


async def outcomes(house: HookHouse) -> list[str]:
    """Give what the audit log says became of messages."""
    house.audit.close()
    await house.audit.run()
    return [entry.outcome for entry in (await house.rooms.store.list_audit()).items]


async def test_a_signed_message_is_believed_and_its_proof_is_not_passed_on() -> None:
    async with serving_hooks() as house:
        house.hook("t", webhook_secret=SECRET)
        headers = {**JSON, **signed(BODY)}
        assert (await house.client.post("/hooks/t", content=BODY, headers=headers)).is_success
        run = await house.only_run()
        kept = await house.rooms.store.get_payload(run.id)
        assert kept is not None
        assert kept.input == {"a": 1}
        assert kept.request is not None
        assert headers["x-hub-signature-256"] not in json.dumps(dict(kept.request))


async def test_what_is_not_proven_starts_nothing_and_says_why() -> None:
    async with serving_hooks() as house:
        house.hook("t", webhook_secret=SECRET)
        now = house.now_s()

        async def sent(headers: dict[str, str], status: int, code: str, body: bytes = BODY) -> str:
            answer = await house.client.post("/hooks/t", content=body, headers={**JSON, **headers})
            assert SECRET not in answer.text
            return problem(answer, status, code)["detail"]

        assert "not signed" in await sent({}, 401, "unauthenticated")
        assert "not signed" in await sent({"x-hub-signature-256": ""}, 401, "unauthenticated")
        await sent(signed(BODY, "other"), 403, "forbidden")
        await sent(signed(BODY), 403, "forbidden", b'{"a": 2}')
        # The proof comes before the body's form: nobody learns anything without it.
        await sent(signed(BODY), 403, "forbidden", b"{")
        assert "too old" in await sent(signed(BODY, time_s=now - 301), 403, "forbidden")
        assert "too early" in await sent(signed(BODY, time_s=now + 301), 403, "forbidden")
        assert await house.runs() == []
        # Once a minute, however many there are.
        assert await outcomes(house) == ["missing"]


async def test_a_message_without_proof_is_refused_before_its_body_came() -> None:
    async with serving_hooks() as house:
        house.hook("t", webhook_secret=SECRET)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.where.port)
        writer.write(b"POST /hooks/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"401"
        writer.close()


async def test_a_replay_is_refused_and_a_message_signed_anew_is_not() -> None:
    async with serving_hooks() as house:
        house.hook("t", webhook_secret=SECRET)
        house.hook("u", webhook_secret=SECRET)
        now = house.now_s()
        first = {**JSON, **signed(BODY, time_s=now)}
        assert (await house.client.post("/hooks/t", content=BODY, headers=first)).is_success
        answer = await house.client.post("/hooks/t", content=BODY, headers=first)
        assert "taken before" in problem(answer, 409, "conflict")["detail"]
        # Another name for the delivery does not make it another message.
        named = {**first, "idempotency-key": "new"}
        problem(await house.client.post("/hooks/t", content=BODY, headers=named), 409, "conflict")
        again = {**JSON, **signed(BODY, time_s=now + 1)}
        assert (await house.client.post("/hooks/t", content=BODY, headers=again)).is_success
        assert (await house.client.post("/hooks/u", content=BODY, headers=first)).is_success
        assert len(await house.runs("t")) == 2


async def test_of_many_replays_at_once_one_is_taken() -> None:
    async with serving_hooks() as house:
        house.hook("t", webhook_secret=SECRET)
        headers = {**JSON, **signed(BODY, time_s=house.now_s())}
        answers = await asyncio.gather(
            *(house.client.post("/hooks/t", content=BODY, headers=headers) for _ in range(8))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
        assert len(await house.runs()) == 1


async def test_a_replay_is_refused_after_a_restart_too(tmp_path: Path) -> None:
    clock = FakeClock()
    headers = {**JSON, **signed(BODY, time_s=clock.now_ms() // 1000)}
    for expected in (200, 409):
        async with (
            SqliteStore.open(tmp_path, clock, ballast_bytes=0) as store,
            serving_hooks(store=store, clock=clock) as house,
        ):
            house.hook("t", webhook_secret=SECRET)
            answer = await house.client.post("/hooks/t", content=BODY, headers=headers)
            assert answer.status_code == expected


async def test_a_message_that_started_nothing_may_be_sent_again_as_it_is() -> None:
    store = MemoryStore()
    async with serving_hooks(store=store) as house:
        house.hook("t", webhook_secret=SECRET)
        headers = {**JSON, **signed(BODY, time_s=house.now_s())}
        house.rooms.pause("t")
        answer = await house.client.post("/hooks/t", content=BODY, headers=headers)
        assert answer.status_code == 503
        house.rooms.pause("t", False)
        assert (await house.client.post("/hooks/t", content=BODY, headers=headers)).is_success


@pytest.mark.parametrize("name", ["x-github-delivery", "idempotency-key", "x-gitlab-event-uuid"])
async def test_a_delivery_that_comes_again_has_the_run_it_had(name: str) -> None:
    async with serving_hooks(ends={"t": (RunStatus.SUCCESS, "7")}) as house:
        house.hook("t", webhook_secret=SECRET)
        headers = {**JSON, **signed(BODY), name: "d-1"}
        answers = [
            await house.client.post("/hooks/t", content=BODY, headers=headers) for _ in range(3)
        ]
        assert {answer.headers["x-run-id"] for answer in answers} == {(await house.only_run()).id}
        assert [answer.json() for answer in answers] == [7, 7, 7]
        other = {**headers, name: "d-2"}
        assert (await house.client.post("/hooks/t", content=BODY, headers=other)).is_success
        assert len(await house.runs()) == 2


async def test_one_delivery_to_two_tasks_is_two_runs() -> None:
    async with serving_hooks() as house:
        house.hook("t")
        house.hook("u")
        for path in ("/hooks/t", "/hooks/u"):
            assert (await house.client.post(path, headers={"idempotency-key": "k"})).is_success
        assert len(await house.runs()) == 2


@pytest.mark.parametrize("secret", ["${UNSET}", {"secret": "github"}])
async def test_a_webhook_without_its_secret_is_not_served(secret: object) -> None:
    async with serving_hooks() as house:
        house.hook("t", webhook_secret=secret, methods=["GET", "POST"])
        for headers in ({}, signed(b"", "${UNSET}"), signed(b"", "")):
            for method in ("GET", "POST"):
                answer = await house.client.request(method, "/hooks/t", headers=headers)
                body = problem(answer, 503, "task_not_ready")
                assert "UNSET" not in answer.text
                assert "secret" in body["detail"]
        assert await house.runs() == []


async def test_a_secret_that_changes_while_the_body_comes_is_the_one_that_counts() -> None:
    async with serving_hooks() as house:
        house.hook("t", webhook_secret=SECRET)
        head = signed(BODY)["x-hub-signature-256"]
        reader, writer = await asyncio.open_connection("127.0.0.1", house.where.port)
        writer.write(
            b"POST /hooks/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + f"X-Hub-Signature-256: {head}\r\nExpect: 100-continue\r\n".encode()
            + f"Content-Length: {len(BODY)}\r\n\r\n".encode()
        )
        # The server asks for the body once the headers have passed.
        assert b"100" in await reader.readline()
        await reader.readline()
        house.hook("t", "1", webhook_secret="another")
        writer.write(BODY)
        assert (await reader.readline()).split()[1] == b"403"
        writer.close()
        assert await house.runs() == []


CALLS = 4


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("number", range(1, CALLS + 1))
async def test_an_accepted_message_is_a_run_whatever_call_of_the_store_fails(
    fault: Fault, number: int
) -> None:
    """A sender sends until it is taken, signed anew each time, under one delivery id."""
    store = MemoryStore()
    clock = FakeClock()
    faulty: Store = FaultyStore(store, number, fault)  # type: ignore[assignment]
    accepted = None
    async with serving_hooks(store=faulty, clock=clock) as house:
        house.hook("t", webhook_secret=SECRET)
        accepted = await _send(house, patient=fault in _CRASHES)
    for _ in range(5):
        if accepted is not None:
            break
        clock.advance(10)
        async with serving_hooks(store=store, clock=clock) as house:
            house.hook("t", webhook_secret=SECRET)
            await house.rooms.queue.recover()
            accepted = await _send(house)
    assert accepted is not None
    assert sum((await store.count_runs()).values()) == 1
    assert await store.get_run(accepted) is not None


_CRASHES = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)


async def _send(house: HookHouse, patient: bool = False) -> str | None:
    """Send once; give the run's id when the message was taken."""
    headers = {**JSON, **signed(BODY, time_s=house.now_s()), "x-github-delivery": "d-1"}
    try:
        answer = await house.client.post(
            "/hooks/t?wait=false", content=BODY, headers=headers, timeout=0.5 if patient else 20
        )
    except httpx.HTTPError:
        return None
    return answer.json()["runId"] if answer.status_code == 202 else None
