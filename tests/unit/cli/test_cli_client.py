from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_fakes import FakeServer, ToolError

from dicode_mcp import __version__
from dicode_mcp.cli.client import Client
from dicode_mcp.cli.failures import ToolFailed
from dicode_mcp.errors import Code, DicodeError


def connect(folder: Path) -> Client:
    return Client.connect(str(folder / "dicode.sock"))


def test_a_call_needs_no_handshake_and_gives_the_structured_result(server: FakeServer) -> None:
    server.tools["get_status"] = lambda arguments: {"echo": arguments}
    with connect(server.folder) as client:
        assert client.call("get_status", {"a": 1}) == {"echo": {"a": 1}}
        assert client.hello.version == __version__
    assert server.preambles == [{"version": __version__, "client": "cli", "hello": True}]
    meta = server.metas[0]
    assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert meta["io.modelcontextprotocol/clientCapabilities"] == {}


def test_notifications_before_an_answer_are_passed_over(server: FakeServer) -> None:
    server.tools["x"] = lambda _: {"n": 1}
    server.noise = [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}},
        {"jsonrpc": "2.0", "id": 99, "result": {"structuredContent": {"n": 2}}},
    ]
    with connect(server.folder) as client:
        assert client.call("x") == {"n": 1}
        assert client.call("x") == {"n": 1}


def test_a_tools_error_keeps_its_code_and_hint(server: FakeServer) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise ToolError("a_code_of_tomorrow", "no such thing", "try another")

    server.tools["x"] = refuse
    with connect(server.folder) as client, pytest.raises(ToolFailed) as caught:
        client.call("x")
    assert (caught.value.code, caught.value.message, caught.value.hint) == (
        "a_code_of_tomorrow",
        "no such thing",
        "try another",
    )


def test_an_unknown_tool_is_said_to_be_a_matter_of_versions(server: FakeServer) -> None:
    with connect(server.folder) as client, pytest.raises(ToolFailed) as caught:
        client.call("nope")
    assert caught.value.code == "protocol_error"
    assert "Unknown tool: nope" in caught.value.message


def test_a_server_that_goes_away_during_a_call_is_not_reachable(server: FakeServer) -> None:
    def vanish(_: dict[str, Any]) -> dict[str, Any]:
        raise ConnectionAbortedError

    server.tools["x"] = vanish
    with connect(server.folder) as client, pytest.raises(DicodeError) as caught:
        client.call("x")
    assert caught.value.code is Code.UNREACHABLE


def test_a_server_that_does_not_answer_in_time_is_not_reachable(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr("dicode_mcp.cli.client.ANSWER_SECONDS", 0.1)
    released = threading.Event()

    def hang(_: dict[str, Any]) -> dict[str, Any]:
        released.wait(10)
        return {}

    server.tools["x"] = hang
    with connect(server.folder) as client, pytest.raises(DicodeError) as caught:
        client.call("x")
    released.set()
    assert caught.value.code is Code.UNREACHABLE
    assert "0.1 s" in caught.value.message


def test_a_refused_connection_says_what_the_server_said(data_dir: Path) -> None:
    refusal = {"code": "forbidden", "message": "a task has no identity here", "hint": "use the SDK"}
    with FakeServer(data_dir, refusal=refusal), pytest.raises(DicodeError) as caught:
        connect(data_dir)
    assert caught.value.code is Code.FORBIDDEN
    assert caught.value.message == "a task has no identity here"
    assert caught.value.hint == "use the SDK"


def test_no_server_at_all_says_how_to_start_one(data_dir: Path) -> None:
    with pytest.raises(DicodeError) as caught:
        connect(data_dir)
    assert caught.value.code is Code.UNREACHABLE
    assert "dicode serve" in (caught.value.hint or "")


def test_a_socket_left_by_a_killed_server_counts_as_no_server(data_dir: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(data_dir / "dicode.sock"))
    with pytest.raises(DicodeError) as caught:
        connect(data_dir)
    assert caught.value.code is Code.UNREACHABLE
