"""Commands on others' tasks: what they send, and the output that the sharing document promises."""

from __future__ import annotations

from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer, ToolError

from dicode_mcp.cli.commands.sharing import distance
from dicode_mcp.clock import SystemClock, iso

HASH = "a" * 64


def in_minutes(minutes: float) -> str:
    return iso(SystemClock().now_ms() + round(minutes * 60_000))


def installed(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "entry": "monitoring/uptime-ping",
        "id": "mine/monitoring/uptime-ping",
        "taskset": "taskset.yaml",
        "file": "/srv/taskset.yaml",
        "url": "github.com/dicode-ayo/task-uptime",
        "ref": "main",
        "commit": "b" * 40,
        "tasks": list(tasks),
        "pending": any(task["state"] == "pending_approval" for task in tasks),
        **more,
    }


def task(state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "mine/monitoring/uptime-ping",
        "state": state,
        "hash": HASH,
        "trigger": "cron: */5 * * * *",
        "next_run": in_minutes(4.9),
        **more,
    }


def test_the_output_of_installing_is_the_documented_one(dicode: Dicode, server: FakeServer) -> None:
    server.tools["install_task"] = lambda _: installed(task("in_force"))
    said = dicode("task", "install", "monitoring/uptime-ping")
    assert said.code == 0
    assert said.out == (
        "Added monitoring/uptime-ping to taskset.yaml\n"
        " github.com/dicode-ayo/task-uptime@main\n"
        "\n"
        "Task registered. Next run: in 5 minutes (cron: */5 * * * *).\n"
    )
    assert server.calls == [("install_task", {"task": "monitoring/uptime-ping"})]


def test_every_option_of_installing_is_sent(dicode: Dicode, server: FakeServer) -> None:
    server.tools["install_task"] = lambda _: installed(task("in_force", trigger="manual"))
    url = "https://github.com/a/b"
    options = ["--as", "x", "--set", "params.a=1=2", "--set", "params.b=", "--source", "s"]
    dicode("task", "install", url, *options, "--path", "p", "--tag", "v1")
    assert server.calls[0][1] == {
        "task": url,
        "as": "x",
        "set": {"params.a": "1=2", "params.b": ""},
        "source": "s",
        "path": "p",
        "tag": "v1",
    }
    assert dicode("task", "install", url, "--tag", "a", "--branch", "b").code == 2
    assert dicode("task", "install", url, "--set", "params.a").code == 2
    assert len(server.calls) == 1


def test_without_a_terminal_it_ends_with_what_waits_and_the_command(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools["install_task"] = lambda _: installed(task("pending_approval"))
    said = dicode("task", "install", "monitoring/uptime-ping")
    assert said.code == 0
    assert "waits for an approval" in said.out
    assert said.out.endswith("dicode task approve mine/monitoring/uptime-ping\n")
    assert "registered" not in said.out


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_approval_is_asked_for_at_once(
    dicode: Dicode, server: FakeServer, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    asked: list[tuple[str, str]] = []

    def approve(session: object, task_id: str, digest: str) -> bool:
        asked.append((task_id, digest))
        return answer

    monkeypatch.setattr("dicode_mcp.cli.commands.sharing.approve_version", approve)
    server.tools["install_task"] = lambda _: installed(task("pending_approval"))
    said = dicode("task", "install", "monitoring/uptime-ping")
    assert asked == [("mine/monitoring/uptime-ping", HASH)]
    assert ("Task registered. Next run: in 5 minutes" in said.out) == answer
    assert ("waits for an approval" in said.out) == (not answer)


def test_a_refused_installation_is_told(dicode: Dicode, server: FakeServer) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise ToolError("conflict", "there is an entry 'x' already", "update_task brings")

    server.tools["install_task"] = refuse
    said = dicode("task", "install", "x")
    assert said.code == 1
    assert "there is an entry 'x' already" in said.err


def test_several_tasks_are_told_each_with_its_state(dicode: Dicode, server: FakeServer) -> None:
    server.tools["install_task"] = lambda _: installed(
        task("in_force", id="a/b", trigger="webhook: /hooks/x", next_run=None),
        task("broken", id="a/c", message="the webhook path /hooks/x belongs to task 'z'"),
        problems=[{"message": "nested: refused"}],
    )
    said = dicode("task", "install", "x")
    assert "a/b: Task registered. Started by webhook: /hooks/x." in said.out
    assert "a/c: the webhook path" in said.out
    assert "nested: refused" in said.err
    assert said.code == 0


def test_an_update_shows_commits_log_and_changes(dicode: Dicode, server: FakeServer) -> None:
    moved = {
        "entry": "uptime",
        "id": "mine/uptime",
        "status": "available",
        "url": "github.com/a/b",
        "from": "1" * 40,
        "to": "2" * 40,
        "log": {"subject": "one more host\x1b[31m", "author": "Ada", "time": "2026-01-01"},
        "tasks": [
            {
                "id": "mine/uptime",
                "change": "changed",
                "changes": {
                    "grants": {"added": {"net": ["evil.example"]}},
                    "files": [{"path": "task.py", "change": "changed", "diff": "-a\n+b\x1b[2J\n"}],
                },
            }
        ],
    }
    server.tools["update_task"] = lambda _: moved
    said = dicode("task", "update", "uptime", "--dry-run")
    assert server.calls == [("update_task", {"id": "uptime", "dry_run": True})]
    assert "111111111111 -> 222222222222" in said.out
    assert "one more host" in said.out
    assert "evil.example" in said.out
    assert "\n  -a\n  +b" in said.out
    assert "\x1b" not in said.out
    assert said.out.endswith("Nothing was changed. To take it: dicode task update mine/uptime\n")


def test_an_update_without_news_says_so(dicode: Dicode, server: FakeServer) -> None:
    server.tools["update_task"] = lambda _: {
        "entry": "uptime",
        "id": "mine/uptime",
        "status": "up_to_date",
        "url": "github.com/a/b",
        "to": "2" * 40,
        "tasks": [],
    }
    said = dicode("task", "update", "uptime")
    assert (said.code, said.out) == (0, "uptime is up to date (github.com/a/b 222222222222)\n")


def test_a_removal_shows_lines_of_the_users_own_and_who_is_left_alone(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools["uninstall_task"] = lambda a: {
        "entry": a["id"],
        "file": "/t/taskset.yaml",
        "installed": False,
        "removed": "    x:\n      ref: {path: x}\n",
        "warning": "these tasks name what is gone: y",
    }
    said = dicode("task", "uninstall", "x")
    assert said.out.startswith("Removed x from /t/taskset.yaml\n")
    assert "      ref: {path: x}" in said.out
    assert "name what is gone: y" in said.err


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "in 0 seconds"),
        (1, "in 1 second"),
        (59, "in 1 minute"),
        (61, "in 1 minute"),
        (299, "in 5 minutes"),
        (3600, "in 1 hour"),
        (7300, "in 2 hours"),
        (86_400 * 3, "in 3 days"),
    ],
)
def test_a_distance_is_told_in_whole_words(seconds: int, told: str) -> None:
    class Clock(SystemClock):
        def now_ms(self) -> int:
            return 1_700_000_000_000

    assert distance(iso(1_700_000_000_000 + seconds * 1000), Clock()) == told
