"""The gate of a whole server: its own port, and what an agent is told of a refusal."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

import pytest
from liveserver import MANUAL, Serve

from dicode_mcp.testing.cages import this_machine

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
)
CALL = """\
import urllib.request

def main():
    with urllib.request.urlopen("http://localhost:PORT/readyz", timeout=10) as answer:
        return answer.status
"""


async def test_a_task_does_not_reach_its_own_server_even_where_its_port_is_listed(
    serve: Serve,
) -> None:
    async with serve(http=True) as live:
        port = urlsplit(live.server.url or "").port
        rules = f'"localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}"'
        manifest = MANUAL + f"permissions: {{net: [{rules}]}}\n"
        live.write("caller", CALL.replace("PORT", str(port)), manifest)
        await live.sync()
        run = await live.run("caller")
        assert run["status"] == "failure"
        logs = await live.call("get_logs", run_id=run["run_id"], level="security")
        told = [line["message"] for line in logs["lines"]]
        assert any("this is the server itself; use the SDK" in line for line in told), told


async def test_a_refused_host_is_named_in_the_result_with_the_line_to_add(serve: Serve) -> None:
    script = "import urllib.request\nurllib.request.urlopen('https://other.example/')\n"
    async with serve() as live:
        live.write("caller", script, MANUAL + "permissions: {net: [api.example.com]}\n")
        await live.sync()
        run = await live.run("caller")
        assert run["status"] == "failure"
        assert 'permissions.net: ["other.example"]' in run["error"]["hint"]
