"""The examples of the orchestrator's guide, run as they lie in the package."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fakeservices import Answer, HttpService
from liveserver import Live, Serve

import dicode_agents

EXAMPLES = Path(dicode_agents.__file__).parent / "examples"


async def put(live: Live, *names: str) -> None:
    for name in names:
        shutil.copytree(EXAMPLES / name, live.tasks / name)
    await live.sync()


async def test_the_template_counts_its_items_and_may_ask_its_agent(serve: Serve) -> None:
    async with serve() as live:
        await put(live, "my-task")
        run = await live.run("my-task")
        assert run["return_value"] == {"itemsProcessed": 3, "success": True}, run
        run = await live.run("my-task", params={"items": "a, long one", "with_agent": True})
        assert run["return_value"] == {
            "itemsProcessed": 2,
            "success": True,
            "agentResult": {"longest": "long one"},
        }
        run = await live.run("my-task", params={"items": " , "})
        assert "items is empty" in run["error"]["message"]


async def test_slack_is_told_of_the_last_errors(serve: Serve) -> None:
    async with HttpService([Answer(), Answer(404)]).listening() as slack:
        url = f"{slack.url}/services/secretpart"
        environ = {"PATH": os.environ["PATH"], "SLACK_WEBHOOK": url}
        async with serve(environ=environ) as live:
            await put(live, "slack-errors", "hello")
            manifest = live.tasks / "slack-errors" / "task.yaml"
            manifest.write_text(manifest.read_text().replace("hooks.slack.com", "127.0.0.1"))
            await live.sync()
            await live.run("hello")
            run = await live.run("slack-errors")
            assert run["return_value"] == {"notificationsSent": 0, "reason": "no errors"}
            live.write("bad", "raise ValueError('<b>no luck</b>')\n")
            await live.sync()
            await live.run("bad")
            await live.run("bad")
            run = await live.run("slack-errors")
            assert run["return_value"] == {"notificationsSent": 1, "errorCount": 2}, run
            line = "• bad: ValueError: &lt;b&gt;no luck&lt;/b&gt;"
            assert slack.got[0].json == {"text": f"🚨 dicode Errors (2)\n{line}\n{line}"}
            run = await live.run("slack-errors")
            assert run["error"]["message"].endswith("Slack API error: 404")
            assert "secretpart" not in str(run)


async def test_without_a_webhook_the_errors_are_in_the_log(serve: Serve) -> None:
    async with serve(environ={"PATH": os.environ["PATH"]}) as live:
        await put(live, "slack-errors", "failing")
        await live.run("failing")
        run = await live.run("slack-errors")
        assert run["return_value"] == {"notificationsSent": 0, "errorCount": 1}
        assert "🚨 dicode Errors (1)" in run["logs_tail"][0]["message"]


async def test_what_is_older_than_thirty_days_is_forgotten(serve: Serve) -> None:
    def record(days: float) -> dict[str, str]:
        return {"timestamp": (datetime.now(UTC) - timedelta(days=days)).isoformat()}

    async with serve() as live:
        await put(live, "cleanup-30-days")
        first = {"tasks": [record(1), record(31)], "rss": [record(29.5)]}
        run = await live.run("cleanup-30-days", input=first)
        assert run["return_value"] == {"tasksRetained": 1, "redditRetained": 0, "rssRetained": 1}
        run = await live.run("cleanup-30-days", input={"reddit": [record(0), record(400)]})
        assert run["return_value"] == {"tasksRetained": 1, "redditRetained": 1, "rssRetained": 1}
        run = await live.run("cleanup-30-days", params={"days": 0.5})
        assert run["return_value"] == {"tasksRetained": 0, "redditRetained": 1, "rssRetained": 0}
