"""Tasks that load and are not ready, through the whole server."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from liveserver import MANUAL, Live, Serve

from dicode_mcp.testing.waiting import until

HOOK = "runtime: python\ntrigger: {webhook: /hooks/x, webhook_secret: '%s'}\n"


async def ready_of(live: Live, task: str) -> dict[str, Any]:
    """Give a task's ``Ready``."""
    seen = await live.call("get_task", id=task)
    return next(c for c in seen["conditions"] if c["type"] == "Ready")


async def test_a_webhook_without_its_secret_is_listed_and_not_ready(serve: Serve) -> None:
    async with serve(environ={"HAVE": "s3cret", "PATH": "/usr/bin:/bin"}) as live:
        live.write("lacks", "result = 7\n", HOOK % "${LACKING}")
        live.write("has", "result = 7\n", HOOK % "${HAVE}")
        await live.sync()
        ready = await ready_of(live, "lacks")
        assert (ready["status"], ready["reason"]) == ("False", "WebhookSecretMissing")
        assert "LACKING is not set" in ready["message"]
        assert (await ready_of(live, "has"))["status"] == "True"
        assert (await live.run("lacks"))["return_value"] == 7, "it loaded: only its hook is off"
        verdict = await live.call("validate_task", id="lacks")
        assert verdict["valid"] is False
        assert verdict["problems"][0]["file"] == "task.yaml"
        source = (await live.call("list_sources"))["sources"][0]
        assert [task["id"] for task in source["broken"]] == ["lacks"]


async def test_a_chain_that_leads_nowhere_is_in_the_log_and_so_is_its_mending(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dicode.reconciler")
    async with serve() as live:
        chain = "runtime: python\ntrigger: {chain: {from: first}}\n"
        live.write("second", "pass\n", chain)
        await live.sync()
        told = "task/second not ready: task.yaml:3: trigger.chain.from"
        await until(lambda: any(line.startswith(told) for line in caplog.messages))
        assert (await ready_of(live, "second"))["status"] == "False"
        live.write("first", "pass\n")
        await live.sync()
        await until(lambda: "task/second mended" in caplog.messages)


async def test_a_script_error_has_file_and_line_wherever_it_is_told(serve: Serve) -> None:
    async with serve() as live:
        live.write("outer", "pass\n")
        live.write("outer/inner", "x = 1\ndef (\n")
        await live.sync()
        seen = await live.call("get_task", id="outer/inner")
        verdict = await live.call("validate_task", id="outer/inner")
        for told in (seen, verdict):
            (problem,) = told["problems"]
            assert (problem["file"], problem["line"]) == ("task.py", 2)
        live.write("outer/inner", "x = 1\n", MANUAL)
        await live.sync()
        assert (await ready_of(live, "outer/inner"))["status"] == "True"
