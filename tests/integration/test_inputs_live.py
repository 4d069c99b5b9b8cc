"""What a run began with, over a whole server: shown without secrets, repeated with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keycalls import Holder, calling, code_of, make_key
from liveserver import MANUAL, Serve

from dicode_mcp.runs.sensitive import HIDDEN

VALUES = ("hunter2-of-the-body", "k3y-of-the-header", "t0ken-of-the-query", "p4ram-of-the-call")
TELLS = """
import hashlib, json
from dicode_sdk import input, params, request
given = json.dumps([input, params.all(), request and request["headers"].get("x-api-key")])
result = hashlib.sha256(given.encode()).hexdigest()
"""
PARAMS = "params: {city: '', api_key: ''}\n"


def read(value: Any) -> str:
    text = json.dumps(value)
    assert not any(secret in text for secret in VALUES)
    return text


def nothing_stored(data: Path) -> None:
    for file in data.rglob("*"):
        if file.is_file() and not file.is_symlink():
            body = file.read_bytes()
            assert not any(value.encode() in body for value in VALUES), file


async def test_what_came_over_a_webhook_is_shown_without_what_its_fields_say_is_secret(
    serve: Serve,
) -> None:
    async with serve(http=True) as live, calling(live) as client:
        hook = "runtime: python\ntrigger: {webhook: /hooks/tells}\n"
        live.write("tells", TELLS, hook + PARAMS)
        await live.sync()
        answer = await client.post(
            f"/hooks/tells?access_token={VALUES[2]}",
            json={"city": "Oslo", "login": {"password": VALUES[0]}},
            headers={"X-Api-Key": VALUES[1]},
        )
        assert answer.status_code == 200
        run_id = answer.headers["x-run-id"]
        run = await live.call("get_run", run_id=run_id, given=True)
        read(run)
        given = run["given"]
        assert given["input"] == {"city": "Oslo", "login": {"password": HIDDEN}}
        assert given["params"]["city"] == "Oslo"
        assert given["request"]["headers"]["x-api-key"] == HIDDEN
        assert given["request"]["query"]["access_token"] == HIDDEN
        # Not shown unless asked for, and the same everywhere.
        assert "given" not in await live.call("get_run", run_id=run_id)
        over_rest = (await client.get(f"/api/runs/{run_id}?given=true")).json()
        assert over_rest["given"] == given
        assert "given" not in (await client.get(f"/api/runs/{run_id}")).json()
        # Repeated with what was given, to the letter.
        again = await live.call("replay_run", run_id=run_id, wait_seconds=50)
        assert again["return_value"] == run["return_value"]
        read(again)
        read(await live.call("get_run", run_id=again["run_id"], given=True))
        read(await live.call("get_audit", limit=100))
        for path in (f"/runs/{run_id}", "/runs", "/api/tasks/runs", f"/api/runs/{run_id}/logs"):
            read((await client.get(path)).text)
    nothing_stored(live.data)


async def test_params_of_a_call_are_for_those_who_may_make_it(serve: Serve) -> None:
    async with serve(http=True) as live, calling(live) as client:
        live.write("tells", TELLS, MANUAL + PARAMS)
        await live.sync()
        params = {"city": "Oslo", "api_key": VALUES[3]}
        run = await live.run("tells", params=params)
        run_id = run["run_id"]
        reader = Holder(client, await make_key(live, "reader", "read"))
        runner = Holder(client, await make_key(live, "runner", "run:tells"))
        assert code_of(await reader.call("get_run", run_id=run_id)) == ""
        refused = await reader.request("GET", f"/api/runs/{run_id}?given=true")
        assert refused.status_code == 403
        shown = await runner.call("get_run", run_id=run_id, given=True)
        assert shown["given"] == {"params": {"city": "Oslo", "api_key": HIDDEN}}
        again = await runner.call("replay_run", run_id=run_id, wait_seconds=50)
        assert again["return_value"] == run["return_value"]
        edited = await runner.call(
            "replay_run", run_id=run_id, params={"city": "Rome"}, wait_seconds=50
        )
        shown = await runner.call("get_run", run_id=edited["run_id"], given=True)
        assert shown["given"] == {"params": {"city": "Rome", "api_key": HIDDEN}}
        # A mistake in it is told without it.
        wrong = await runner.call("run_task", id="tells", params={**params, "unknown": VALUES[3]})
        assert code_of(wrong) == "invalid_params"
        read(wrong)
        read(await live.call("get_audit", limit=100))
    nothing_stored(live.data)


async def test_an_answer_is_shown_without_what_its_fields_say_is_secret(serve: Serve) -> None:
    asks = """
from dicode_sdk import dicode
found = dicode.ask({"type": "object", "properties": {
    "user": {"type": "string"}, "webhook_url": {"type": "string"}}}, "Who are you?")
result = [found["user"], len(found["webhook_url"])]
"""
    async with serve() as live:
        live.write("asks", asks)
        await live.sync()
        run_id = (await live.run("asks"))["run_id"]
        answer = {"user": "anna", "webhook_url": VALUES[0]}
        read(await live.call("answer_run", run_id=run_id, answer=answer))
        ended = await live.call("get_run", run_id=run_id, wait_seconds=50)
        assert ended.get("return_value") == ["anna", len(VALUES[0])], str(ended)
        [told] = ended["answers"]
        assert told["answer"] == {"user": "anna", "webhook_url": HIDDEN}
        read(ended)
    nothing_stored(live.data)
