"""Setting secrets at a terminal and in a pipe: the value is read, never an argument or shown."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from cli_fakes import Dicode, FakeServer, ToolError

VALUE = "hunter2-hunter2"


class Terminal(io.StringIO):
    """Standard input that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def kept(server: FakeServer) -> dict[str, Any]:
    """What was set, by a fake server."""
    given: dict[str, Any] = {}

    def put(args: dict[str, Any]) -> dict[str, Any]:
        created = args["name"] not in given
        given[args["name"]] = args
        return {"name": args["name"], "created": created, "used_by": ["a", "b"]}

    server.tools["secrets_set"] = put
    return given


def typed(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    answers = iter(values)
    monkeypatch.setattr(sys, "stdin", Terminal())

    def answer(prompt: str) -> str:
        return next(answers)

    monkeypatch.setattr("getpass.getpass", answer)


@pytest.mark.parametrize("text", [VALUE, VALUE + "\n", VALUE + "\r\n"])
def test_a_pipe_s_line_end_is_no_part_of_the_secret(
    dicode: Dicode, kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    said = dicode("secrets", "set", "API_KEY")
    assert said.code == 0, said
    assert kept["API_KEY"]["value"] == VALUE
    assert "API_KEY is set; used by a, b" in said.out
    assert VALUE not in said.out + said.err


def test_a_terminal_asks_twice_without_showing(
    dicode: Dicode, kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, VALUE, VALUE)
    said = dicode("secrets", "set", "API_KEY")
    assert said.code == 0
    assert kept["API_KEY"]["value"] == VALUE
    assert VALUE not in said.out + said.err


@pytest.mark.parametrize("values", [("",), (VALUE, VALUE + "x")])
def test_nothing_is_set_for_no_value_or_two_different_ones(
    dicode: Dicode, kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch, values: tuple[str, ...]
) -> None:
    typed(monkeypatch, *values)
    said = dicode("secrets", "set", "API_KEY")
    assert said.code == 2
    assert kept == {}
    assert VALUE not in said.out + said.err


def test_places_on_the_server_are_named_and_not_read_here(
    dicode: Dicode, kept: dict[str, Any]
) -> None:
    assert dicode("secrets", "set", "A", "--from-env", "VAR").code == 0
    assert dicode("secrets", "set", "B", "--from-file", "/run/token").code == 0
    assert kept == {
        "A": {"name": "A", "from_env": "VAR"},
        "B": {"name": "B", "from_file": "/run/token"},
    }


def test_a_value_is_no_argument(dicode: Dicode, kept: dict[str, Any]) -> None:
    assert dicode("secrets", "set", "A", VALUE).code == 2
    assert dicode("secrets", "set", "A", "--value", VALUE).code == 2
    assert dicode("secrets", "set", "A", "--from-env", "X", "--from-file", "/x").code == 2
    assert kept == {}


def test_a_refusal_does_not_repeat_the_value(
    dicode: Dicode, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(args: dict[str, Any]) -> dict[str, Any]:
        raise ToolError("too_large", "the secret's value is 70000 bytes", "keep it in a file")

    server.tools["secrets_set"] = refuse
    monkeypatch.setattr(sys, "stdin", io.StringIO(VALUE))
    said = dicode("secrets", "set", "A")
    assert said.code == 1
    assert VALUE not in said.out + said.err


def test_listing_shows_users_what_is_missing_and_what_is_elsewhere(
    dicode: Dicode, server: FakeServer
) -> None:
    users = [f"t{n}" for n in range(5)]
    listing: dict[str, Any] = {
        "secrets": [{"name": "A", "updated_at": "2026-05-01T00:00:00Z", "used_by": users}],
        "elsewhere": [{"name": "B", "provider": "env", "used_by": ["t"]}],
        "missing": [{"name": "C", "used_by": ["t"]}],
    }
    server.tools["secrets_list"] = lambda _: listing
    said = dicode("secrets", "list")
    assert said.out.splitlines()[0].split() == ["SECRET", "SET", "USED", "BY"]
    assert "t0, t1, t2 and 2 more" in said.out
    assert "env" in said.out
    assert "missing: C, used by t" in said.err
    assert json.loads(dicode("secrets", "list", "--json").out) == listing
    server.tools["secrets_list"] = lambda _: {"secrets": []}
    assert "no secrets yet" in dicode("secrets", "list").err


def test_deleting_says_what_breaks(dicode: Dicode, server: FakeServer) -> None:
    server.tools["secrets_delete"] = lambda a: {**a, "deleted": True, "breaks": ["t"]}
    said = dicode("secrets", "delete", "A")
    assert "A is gone" in said.out
    assert "runs will fail without it: t" in said.err


def test_rotating_says_which_keys_came_and_went(dicode: Dicode, server: FakeServer) -> None:
    answer: dict[str, Any] = {"key_id": "new00000", "old_key_ids": ["old00000"], "resealed": 3}
    server.tools["secrets_rotate"] = lambda _: answer
    said = dicode("secrets", "rotate")
    assert "3 values are sealed with the new key new00000" in said.out
    assert "gone: old00000" in said.err
    assert json.loads(dicode("secrets", "rotate", "--json").out) == answer
