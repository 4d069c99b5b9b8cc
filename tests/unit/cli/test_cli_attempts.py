"""What a person sees of attempts, replays and trees at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cli_fakes import Dicode, FakeServer, Tool

QUEUED: dict[str, Any] = {"run_id": "r1", "task": "hello", "status": "queued", "logs_tail": []}
FAILED: dict[str, Any] = {
    **QUEUED,
    "status": "failure",
    "reason": "script_error",
    "duration_ms": 20,
    "error": {"code": "script_error", "message": "boom"},
    "next_attempt": {"run_id": "r2", "attempt": 2, "status": "queued"},
}
GOOD: dict[str, Any] = {**QUEUED, "run_id": "r2", "status": "success", "return_value": 7}
TREE: list[dict[str, Any]] = [
    {"run_id": "r1", "task": "top", "status": "success", "trigger": "cron", "duration_ms": 1500},
    {"run_id": "r2", "task": "mid", "status": "failure", "trigger": "chain", "parent_run_id": "r1"}
    | {"reason": "exit_code", "attempt": 1},
    {"run_id": "r3", "task": "low", "status": "queued", "trigger": "chain", "parent_run_id": "r2"},
    {"run_id": "r4", "task": "mid", "status": "running", "trigger": "retry", "parent_run_id": "r1"}
    | {"attempt": 2},
]


def by_id(*runs: dict[str, Any]) -> Tool:
    def find(arguments: dict[str, Any]) -> dict[str, Any]:
        return next(run for run in runs if run["run_id"] == arguments["run_id"])

    return find


def always(answer: dict[str, Any]) -> Tool:
    def give(_: dict[str, Any]) -> dict[str, Any]:
        return answer

    return give


def test_run_goes_on_from_a_failed_attempt_to_the_next(dicode: Dicode, server: FakeServer) -> None:
    server.tools = {"run_task": always(QUEUED), "get_run": by_id(FAILED, GOOD)}
    said = dicode("run", "hello")
    assert (said.code, said.out) == (0, "7\n")
    assert "run r1 of hello: failure" in said.err
    assert "tried again as run r2 (attempt 2)" in said.err


def test_follow_shows_the_log_of_each_attempt(dicode: Dicode, server: FakeServer) -> None:
    def logs(arguments: dict[str, Any]) -> dict[str, Any]:
        line = {"seq": 1, "ts": "2026-01-01T00:00:00Z", "level": "info"}
        new = not arguments.get("after")
        lines = [{**line, "message": f"log of {arguments['run_id']}"}] if new else []
        return {"status": "success", "lines": lines}

    server.tools = {"run_task": always(QUEUED), "get_run": by_id(FAILED, GOOD), "get_logs": logs}
    said = dicode("run", "hello", "-f")
    assert said.out == "7\n"
    assert said.err.index("log of r1") < said.err.index("tried again") < said.err.index("log of r2")


def test_replay_sends_what_is_edited_and_shows_the_end(
    dicode: Dicode, server: FakeServer, tmp_path: Path
) -> None:
    (tmp_path / "in.json").write_text('{"x": 1}')
    server.tools = {"replay_run": always({**QUEUED, "run_id": "r2"}), "get_run": by_id(GOOD)}
    said = dicode("replay", "r1", "who=Ann", "--input", str(tmp_path / "in.json"))
    assert (said.code, said.out) == (0, "7\n")
    name, arguments = server.calls[0]
    assert name == "replay_run"
    assert {k: arguments[k] for k in ("run_id", "params", "input")} == {
        "run_id": "r1",
        "params": {"who": "Ann"},
        "input": {"x": 1},
    }


def test_replay_without_edits_sends_none_and_need_not_wait(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools = {"replay_run": always({**QUEUED, "run_id": "r2"})}
    said = dicode("replay", "r1", "--no-wait")
    assert said.out == "r2\n"
    assert server.calls[0][1] == {"run_id": "r1", "wait_seconds": 0}


def test_the_tree_of_a_run_is_drawn_with_what_each_led_to_below_it(
    dicode: Dicode, server: FakeServer
) -> None:
    server.tools = {"get_run": always({**QUEUED, "tree": TREE, "tree_truncated": True})}
    said = dicode("runs", "--tree", "r3")
    assert said.out.splitlines() == [
        "top success after 1.5 s  r1 by cron",
        "  mid failure (exit_code)  r2 by chain",
        "    low queued  r3 by chain *",
        "  mid running  r4 by retry, attempt 2",
    ]
    assert "the first 4 runs" in said.err
    assert server.calls[0] == ("get_run", {"run_id": "r3", "tree": True})
    found = json.loads(dicode("--json", "runs", "--tree", "r3").out)
    assert (len(found["tree"]), found["tree_truncated"]) == (4, True)


def test_what_a_run_began_with_is_shown_as_it_is_given(server: FakeServer, dicode: Dicode) -> None:
    given = {"params": {"city": "Oslo", "api_key": "[redacted]"}}
    server.tools = {"get_run": always({**QUEUED, "given": given})}
    said = dicode("runs", "--given", "r3")
    assert said.code == 0
    assert json.loads(said.out) == given
    assert server.calls[0] == ("get_run", {"run_id": "r3", "given": True})
