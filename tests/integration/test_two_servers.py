"""Two servers of one user: a task of one that reaches the other is nobody there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from liveserver import MANUAL, Serve
from rudeclients import running_server

from dicode_mcp.executor.carriers import carries, hold_mark
from dicode_mcp.testing.cages import this_machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="others are known on Linux only")
CALL = """\
import http.client, json

def call(port):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }}})
    link.request("POST", "/mcp", body, {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list",
    })
    answer = link.getresponse()
    told = [answer.status, answer.read().decode()]
    link.close()
    return told
"""


def by_a_program(port: int) -> str:
    """Call as a program of the user does; gives the status and the answer."""
    words = [sys.executable, "-I", "-c", f"{CALL}\nprint(*call({port}))"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(
    not this_machine().separates and bool(this_machine().told), reason="no gate here"
)
async def test_a_task_of_another_server_has_no_identity_here(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with running_server(tmp_path / "other") as other:
        port = urlsplit(other.url).port or 0
        assert by_a_program(port).startswith("200 ")
        async with serve() as live:
            rules = f'permissions: {{net: ["127.0.0.1:{port}"]}}\n'
            live.write("caller", f"{CALL}\nresult = call({port})\n", MANUAL + rules)
            await live.sync()
            run = await live.run("caller")
            assert run["status"] == "success", run
            status, text = run["return_value"]
            assert status == 401, text
            assert "permissions.dicode" in text
            # The server's user is served on.
            assert by_a_program(port).startswith("200 ")


def test_a_process_is_a_carrier_while_it_holds_its_mark() -> None:
    words = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
    with hold_mark(), subprocess.Popen(words, stdin=subprocess.PIPE) as another:
        assert carries(os.getpid())
        assert not carries(another.pid)
        another.communicate()


def test_a_process_whose_files_cannot_be_seen_counts_as_one(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "0: 00000002 00000000 00000000 0002 01 4711 @dicode.carrier.1.aa\n"
    (tmp_path / "net" / "unix").write_text(
        "Num RefCount Protocol Flags Type St Inode Path\n" + line
    )
    assert carries(1, str(tmp_path))
    (tmp_path / "1" / "fd").mkdir(parents=True)
    assert not carries(1, str(tmp_path))
    (tmp_path / "1" / "fd" / "7").symlink_to("socket:[4711]")
    assert carries(1, str(tmp_path))
