"""Tasks made from each template run as they are."""

from __future__ import annotations

import pytest
from liveserver import Serve


@pytest.mark.slow
@pytest.mark.parametrize("template", ["python", "deno"])
async def test_tasks_made_from_templates_run_as_they_are(serve: Serve, template: str) -> None:
    wanted = {
        "manual": {"greeting": "Hello, world!"},
        "cron": {"greeting": "Hello, world!"},
        "webhook": {"greeting": "Hello, world!", "received": {"n": 1}},
        "chain": {"received": {"n": 1}},
    }
    async with serve() as live:
        for trigger, value in wanted.items():
            more = {"trigger_value": "of/manual"} if trigger == "chain" else {}
            made = await live.call(
                "new_task",
                source="tasks",
                id=f"of/{trigger}",
                template=template,
                trigger=trigger,
                **more,
            )
            assert (made["live"], made["problems"]) == (True, [])
            with_input = {"input": {"n": 1}} if "received" in value else {}
            run = await live.run(f"of/{trigger}", **with_input)
            assert (run["status"], run["return_value"]) == ("success", value), run
        made = await live.call(
            "new_task", source="tasks", id="of/daemon", template=template, trigger="daemon"
        )
        assert made["live"] is True
        while not (runs := (await live.call("get_runs", task="of/daemon"))["runs"]):
            pass
        await live.first_line(runs[0]["run_id"])
        lines = (await live.call("get_logs", run_id=runs[0]["run_id"]))["lines"]
        assert lines[0]["message"] == "beat 0"
        shown = await live.call("get_task", id="of/manual")
        assert [c["type"] for c in shown["conditions"]] == ["Ready"]
