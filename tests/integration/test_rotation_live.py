"""A new master key on a server that serves: what was stored is read before, meanwhile and after."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from keycalls import owner
from liveserver import MANUAL, Live, Serve

KEEPS = """
from dicode_sdk import kv, params
was = kv.get("n") or 0
kv.set("n", was + 1)
result = [was, params.get("word")]
"""
MANIFEST = f"{MANUAL}params: {{word: ''}}\n"


async def resealed(live: Live) -> dict[str, Any]:
    """Wait until the work is through; gives what was done."""
    while not (found := (await owner(live, "get_audit", action="bodies_resealed"))["entries"]):
        pass
    return found[0]["detail"]


def key_ids(data: Path) -> set[bytes]:
    """Give what sealed bodies begin with: a mark and their key's id."""
    with sqlite3.connect(data / "state.db") as connection:
        rows = connection.execute(
            "SELECT substr(body, 1, 9) FROM run_payloads WHERE length(body) > 0"
            " UNION SELECT substr(value, 1, 9) FROM kv"
        ).fetchall()
    connection.close()
    return {row[0] for row in rows}


async def test_everything_is_read_before_and_after_a_rotation_and_a_restart(serve: Serve) -> None:
    async with serve() as live:
        live.write("keeps", KEEPS, MANIFEST)
        await live.sync()
        first = await live.run("keeps", params={"word": "of the first"})
        assert first["return_value"] == [0, "of the first"]
        (before,) = key_ids(live.data)
        await live.call("secrets_set", name="TOKEN", value="long enough")
        told = await owner(live, "secrets_rotate")
        second = await live.run("keeps", params={"word": "of the second"})
        assert second["return_value"] == [1, "of the second"]
        assert (await resealed(live))["unreadable"] == 0
        (after,) = key_ids(live.data)
        assert after != before
        again = await live.call("replay_run", run_id=first["run_id"], wait_seconds=50)
        assert again["return_value"] == [2, "of the first"]
        assert told["key_id"] not in told["old_key_ids"]
    async with serve() as live:
        again = await live.call("replay_run", run_id=second["run_id"], wait_seconds=50)
        assert again["return_value"] == [3, "of the second"]
        assert key_ids(live.data) == {after}
        assert (await owner(live, "get_audit", verify=True))["intact"]


async def test_a_run_that_waits_for_an_answer_goes_on_after_a_rotation(serve: Serve) -> None:
    asks = """
from dicode_sdk import dicode, params
word = dicode.once("word", lambda: "kept " + params.get("word"))
first = dicode.ask(bool, "First?")
second = dicode.ask(bool, "Second?")
result = [word, first, second]
"""
    async with serve() as live:
        live.write("asks", asks, MANIFEST)
        await live.sync()
        run = await live.run("asks", params={"word": "given"})
        await live.call("answer_run", run_id=run["run_id"], question=1, answer=True)
        while (await live.call("get_run", run_id=run["run_id"])).get("question", {}).get(
            "number"
        ) != 2:
            pass
        await owner(live, "secrets_rotate")
        await resealed(live)
    async with serve() as live:
        await live.call("answer_run", run_id=run["run_id"], question=2, answer=False)
        ended = await live.call("get_run", run_id=run["run_id"], wait_seconds=50)
        assert ended.get("return_value") == ["kept given", True, False], str(ended)
