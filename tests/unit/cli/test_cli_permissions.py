"""What ``permissions suggest`` asks for and shows."""

from __future__ import annotations

import json
from typing import Any

from cli_fakes import Dicode, FakeServer

FOUND: dict[str, Any] = {
    "task": "reports/daily",
    "runs": 7,
    "judged": 6,
    "permissions": "permissions:\n  net:\n  - api.example.com:443\n",
    "diff": "--- declared\n+++ suggested\n-  - old.example.com\n+  - api.example.com:443\n",
    "add": [{"line": "permissions.net: api.example.com:443", "runs": 1, "last_run": "r1"}],
    "wider": [{"line": "permissions.net: old.example.com"}],
    "refused": [
        {"line": "permissions.fs: {path: /x, permission: r}", "why": "not needed", "exists": False}
    ],
    "unseen": {"sys": "Python does not tell of it"},
    "note": "a note",
}


def test_the_block_alone_is_on_standard_output(dicode: Dicode, server: FakeServer) -> None:
    server.tools["suggest_permissions"] = lambda _: FOUND
    said = dicode("permissions", "suggest", "reports/daily")
    assert (said.code, said.out) == (0, FOUND["permissions"])
    assert server.calls[-1] == ("suggest_permissions", {"id": "reports/daily"})
    for told in (
        "from 7 runs",
        "add (refused, and a run failed): permissions.net: api.example.com:443",
        "not used: permissions.net: old.example.com",
        "permission: r}, not there (not needed)",
        "not judged: permissions.sys",
        "a note",
    ):
        assert told in said.err


def test_the_change_can_be_shown_instead(dicode: Dicode, server: FakeServer) -> None:
    server.tools["suggest_permissions"] = lambda _: FOUND
    assert dicode("permissions", "suggest", "reports/daily", "--diff").out == FOUND["diff"]


def test_as_json_it_is_whole(dicode: Dicode, server: FakeServer) -> None:
    server.tools["suggest_permissions"] = lambda _: FOUND
    assert json.loads(dicode("permissions", "suggest", "reports/daily", "--json").out) == FOUND
