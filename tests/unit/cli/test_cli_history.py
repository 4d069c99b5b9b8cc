"""What ``stats``, ``prune`` and ``pin`` ask for and show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer

from dicode_mcp.cli.commands.history import size

TALLY: dict[str, Any] = {
    "runs": 12,
    "failures": 3,
    "by_status": {},
    "p50_ms": 1500,
    "p95_ms": 61_000,
}
STATS: dict[str, Any] = {
    "since": "2026-05-01",
    "until": "2026-05-07",
    "stats": [
        {"task": "hello", "day": "2026-05-07", **TALLY, "cpu_ms": 900},
        {"task": "skips", "day": "2026-05-07", "runs": 1, "failures": 0, "by_status": {}},
    ],
    "totals": TALLY,
}


def test_stats_are_a_table_with_totals(dicode: Dicode, server: FakeServer) -> None:
    server.tools["get_stats"] = lambda _: STATS
    said = dicode("stats")
    assert said.code == 0
    assert [line.split() for line in said.out.splitlines()] == [
        ["DAY", "TASK", "RUNS", "FAILED", "P50", "P95", "CPU"],
        ["2026-05-07", "hello", "12", "3", "1.5", "s", "1", "min", "1", "s", "900", "ms"],
        ["2026-05-07", "skips", "1", "0", "-", "-", "-"],
        ["total", "12", "3", "1.5", "s", "1", "min", "1", "s", "-"],
    ]


def test_stats_pass_on_what_was_asked_and_json_as_it_is(dicode: Dicode, server: FakeServer) -> None:
    server.tools["get_stats"] = lambda _: {**STATS, "more": "there is more"}
    said = dicode(
        "stats", "hello", "--since", "2026-05-01", "--until", "2026-05-07", "--limit", "9"
    )
    assert "more: there is more" in said.err
    name, given = server.calls[-1]
    assert name == "get_stats"
    assert given == {
        "task": "hello",
        "since": "2026-05-01T00:00:00.000Z",
        "until": "2026-05-07",
        "limit": 9,
    }
    assert json.loads(dicode("stats", "--json").out)["stats"] == STATS["stats"]


def test_no_stats_say_so(dicode: Dicode, server: FakeServer) -> None:
    server.tools["get_stats"] = lambda _: {**STATS, "stats": []}
    said = dicode("stats")
    assert (said.code, said.out) == (0, "")
    assert "no run ended from 2026-05-01 to 2026-05-07" in said.err


def pruned(runs: int, done: bool, **more: Any) -> dict[str, Any]:
    item = {"task": "hello", "runs": runs, "bytes": 1500 * runs}
    return {
        "dry_run": False,
        "runs": runs,
        "bytes": 1500 * runs,
        "tasks": [item],
        "done": done,
        **more,
    }


def test_a_dry_run_asks_once_and_tells_what_would_go(dicode: Dicode, server: FakeServer) -> None:
    server.tools["prune"] = lambda _: pruned(2, False, dry_run=True, next="name a task")
    said = dicode("prune", "--dry-run", "--older-than", "7d")
    assert [call[1] for call in server.calls] == [{"dry_run": True, "older_than": "7d"}]
    assert said.out.splitlines()[-1] == "2 runs would go, 3.0 kB"
    assert "name a task" in said.err


def test_pruning_goes_on_until_all_is_done(dicode: Dicode, server: FakeServer) -> None:
    answers = iter([pruned(5, False), pruned(4, False), pruned(1, True)])
    server.tools["prune"] = lambda _: next(answers)
    said = dicode("prune", "--task", "hello")
    assert [call[1] for call in server.calls] == [{"dry_run": False, "task": "hello"}] * 3
    lines = said.out.splitlines()
    assert lines[1].split()[:2] == ["hello", "10"]
    assert lines[-1] == "10 runs are deleted, 15.0 kB"


def test_nothing_to_prune_is_one_line(dicode: Dicode, server: FakeServer) -> None:
    server.tools["prune"] = lambda _: {**pruned(0, True), "tasks": []}
    assert dicode("prune").out == "0 runs are deleted, 0 B\n"


@pytest.mark.parametrize("off", [False, True])
def test_a_run_is_pinned_and_let_go(off: bool, dicode: Dicode, server: FakeServer) -> None:
    server.tools["pin_run"] = lambda given: {**given, "task": "t", "status": "success"}
    said = dicode("pin", "r1", *(["--off"] if off else []))
    assert server.calls[-1][1] == {"run_id": "r1", "pinned": not off}
    assert "r1" in said.out
    assert ("stays" in said.out) != off


def test_sizes_are_written_with_the_unit_that_fits() -> None:
    assert [size(n) for n in (0, 999, 1000, 2_500_000, 7 * 10**16)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "70000.0 TB",
    ]
