"""What ``keys create|list|revoke`` ask for and show."""

from __future__ import annotations

import json
from typing import Any

from cli_fakes import Dicode, FakeServer

MADE: dict[str, Any] = {
    "key": "dck_abcdefghij_" + "A" * 43,
    "id": "abcdefghij",
    "name": "ci",
    "scopes": ["read", "run:infra/*"],
    "state": "active",
    "created_at": "2026-05-01T00:00:00.000Z",
    "created_by": "local",
}


def test_a_new_key_alone_is_on_standard_output(dicode: Dicode, server: FakeServer) -> None:
    server.tools["keys_create"] = lambda _: {**MADE, "expires_at": "2026-08-01T00:00:00.000Z"}
    said = dicode(
        "keys", "create", "--name", "ci", "--scopes", "read", "run:infra/*", "--expires", "90d"
    )
    assert said.code == 0
    assert said.out == MADE["key"] + "\n"
    assert "not shown again" in said.err
    assert "until 2026-08-01" in said.err
    assert server.calls[-1] == (
        "keys_create",
        {"name": "ci", "scopes": ["read", "run:infra/*"], "expires": "90d"},
    )


def test_a_new_key_as_json_is_whole(dicode: Dicode, server: FakeServer) -> None:
    server.tools["keys_create"] = lambda _: MADE
    said = dicode("keys", "create", "--name", "ci", "--scopes", "read", "--json")
    assert json.loads(said.out) == MADE
    assert "expires" not in server.calls[-1][1]


def test_a_key_without_name_or_scope_is_a_usage_error(dicode: Dicode, server: FakeServer) -> None:
    for args in (["--name", "ci"], ["--scopes", "read"], ["--name", "ci", "--scopes"]):
        assert dicode("keys", "create", *args).code == 2
    assert server.calls == []


def test_keys_are_a_table(dicode: Dicode, server: FakeServer) -> None:
    shown = {name: value for name, value in MADE.items() if name != "key"}
    server.tools["keys_list"] = lambda _: {"keys": [shown]}
    said = dicode("keys", "list")
    assert [line.split() for line in said.out.splitlines()] == [
        ["KEY", "NAME", "STATE", "LAST", "USED", "EXPIRES", "SCOPES"],
        ["abcdefghij", "ci", "active", "-", "-", "read,", "run:infra/*"],
    ]
    server.tools["keys_list"] = lambda _: {"keys": []}
    assert "no keys yet" in dicode("keys", "list").err


def test_a_key_is_revoked_by_id_or_name(dicode: Dicode, server: FakeServer) -> None:
    server.tools["keys_revoke"] = lambda _: {**MADE, "key": "", "state": "revoked"}
    said = dicode("keys", "revoke", "ci")
    assert (said.code, said.out) == (0, "ci (abcdefghij) is revoked\n")
    assert server.calls[-1] == ("keys_revoke", {"key": "ci"})
