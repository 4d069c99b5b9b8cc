"""Webhooks through the whole server, with real tasks."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import resource
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from liveserver import Live, Serve
from rudeclients import Running, running_server

from dicode_mcp.config import ServerConfig, SourceConfig
from dicode_mcp.testing.waiting import DEADLINE_S

ECHO = "def main(params, input, request):\n    return [params.all(), input, request['headers']]\n"
MIB = 2**20


def hook(path: str, more: str = "", rest: str = "") -> str:
    return f"runtime: python\ntrigger: {{webhook: {path}{more}}}\n{rest}"


@asynccontextmanager
async def calling(live: Live) -> AsyncGenerator[httpx.AsyncClient]:
    url = live.url if isinstance(live, Running) else live.server.url
    assert url is not None
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def signed(body: bytes, secret: str) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": f"sha256={digest}"}


async def test_a_message_runs_the_task_and_its_result_is_the_answer(serve: Serve) -> None:
    async with serve(http=True) as live, calling(live) as client:
        live.write("echo", ECHO, hook("/hooks/echo", "", "params: {who: nobody}\n"))
        await live.sync()
        answer = await client.post("/hooks/echo?who=me", json={"a": "é😀"})
        params, given, headers = answer.json()
        assert (params, given) == ({"who": "me"}, {"a": "é😀"})
        assert "authorization" not in headers
        run = await live.call("get_run", run_id=answer.headers["x-run-id"])
        assert (run["status"], run["trigger"]) == ("success", "webhook")
        task = await live.call("get_task", id="echo")
        assert task["webhook_url"] == f"{live.server.url}/hooks/echo"
        assert not any(c["type"] == "NotInForce" for c in task["conditions"])


async def test_what_a_task_shows_is_answered_with_its_type_and_may_do_nothing_here(
    serve: Serve,
) -> None:
    async with serve(http=True) as live, calling(live) as client:
        live.write("page", "def main(output):\n    output.html('<b>hi</b>')\n", hook("/hooks/page"))
        live.write("bad", "raise ValueError('no luck')\n", hook("/hooks/bad"))
        await live.sync()
        answer = await client.post("/hooks/page")
        assert (answer.status_code, answer.text) == (200, "<b>hi</b>")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert "sandbox" in policy
        assert "allow-same-origin" not in policy
        answer = await client.post("/hooks/bad", headers={"via": "1.1 proxy"})
        assert answer.status_code == 500
        body = answer.json()
        assert body["error"] == {"code": "script_error", "message": "ValueError: no luck"}
        assert "logs" not in body


async def test_an_unset_secret_is_a_condition_and_no_service_until_it_is_set(serve: Serve) -> None:
    manifest = hook("/hooks/s", ', webhook_secret: "${HOOK_KEY}"')
    environ = {name: text for name, text in os.environ.items() if name != "HOOK_KEY"}
    body = b'"x"'
    headers = {"content-type": "application/json", **signed(body, "${HOOK_KEY}")}
    async with serve(http=True, environ=environ) as live, calling(live) as client:
        live.write("s", ECHO, manifest)
        await live.sync()
        answer = await client.post("/hooks/s", content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "task_not_ready")
        assert "HOOK_KEY" not in answer.text
        seen = await live.call("get_task", id="s")
        (ready,) = [c for c in seen["conditions"] if c["type"] == "Ready"]
        assert (ready["status"], ready["reason"]) == ("False", "WebhookSecretMissing")
        assert "HOOK_KEY" in ready["message"]
    async with serve(http=True, environ={**environ, "HOOK_KEY": "k"}) as live:
        async with calling(live) as client:
            assert (await client.post("/hooks/s", content=body, headers=headers)).status_code == 403
            headers |= signed(body, "k")
            assert (await client.post("/hooks/s", content=body, headers=headers)).is_success


async def test_a_broken_save_leaves_the_last_good_version_at_its_path(serve: Serve) -> None:
    async with serve(http=True) as live, calling(live) as client:
        live.write("t", "result = 1\n", hook("/hooks/t"))
        await live.sync()
        live.write("t", "result = 2\n", "runtime: python\ntrigger: {webhook: nonsense}\n")
        await live.sync()
        assert (await client.post("/hooks/t")).json() == 1
        live.write("t", "result = 3\n", hook("/hooks/t"))
        await live.sync()
        assert (await client.post("/hooks/t")).json() == 3


async def test_a_version_nobody_approved_is_never_started(serve: Serve, tmp_path: Path) -> None:
    reviewed = tmp_path / "reviewed"
    (reviewed / "t").mkdir(parents=True)
    (reviewed / "t" / "task.yaml").write_text("name: t\n" + hook("/hooks/t"))
    (reviewed / "t" / "task.py").write_text("result = 1\n")
    source = SourceConfig(type="local", path=str(reviewed), trust="review")
    async with serve(http=True, sources=[source]) as live, calling(live) as client:
        assert (await client.post("/hooks/t")).status_code == 404
        pending = await live.call("get_task", id="t")
        assert pending["pending"]["hash"]
        assert (await live.call("get_runs"))["runs"] == []
        await live.answer(
            "approve_task",
            {"action": "accept", "content": {"approve": True}},
            id="t",
            hash=pending["pending"]["hash"],
        )
        assert (await client.post("/hooks/t")).json() == 1
        (reviewed / "t" / "task.py").write_text("result = 2\n")
        await live.call("sync_source", source="reviewed")
        assert (await client.post("/hooks/t")).json() == 1


async def test_the_public_address_is_shown_and_may_be_called_by(serve: Serve) -> None:
    server = ServerConfig(port=0, public_url="https://hooks.example.org")
    async with serve(http=True, server_config=server) as live, calling(live) as client:
        live.write("t", "result = 1\n", hook("/hooks/t"))
        await live.sync()
        task = await live.call("get_task", id="t")
        assert task["webhook_url"] == "https://hooks.example.org/hooks/t"
        listed = (await live.call("list_tasks", query="t"))["tasks"]
        assert "https://hooks.example.org/hooks/t" in [t.get("webhook_url") for t in listed]
        host = {"host": "hooks.example.org"}
        assert (await client.post("/hooks/t", headers=host)).json() == 1
        assert (await client.get("/", headers=host)).status_code == 401


# ── What a stranger may cost ──


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    """A server as a process of its own, so that its memory can be seen."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 4096:
        # A thousand connections, on both ends of them.
        wanted = 4096 if hard < 0 else min(hard, 4096)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with running_server(tmp_path_factory.mktemp("hooks")) as server:
        (server.tasks / "t").mkdir()
        yield server


def resident(live: Running) -> int:
    """Give the server's memory in bytes."""
    pid = json.loads((live.data / "server.lock").read_text())["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def endless(url: str, path: str, chunked: bool) -> tuple[bytes, int]:
    """Send a body without end until the server hangs up; give its answer, and how much went out."""
    where = urlsplit(url)
    sent = 0
    answer = b""
    with socket.create_connection((where.hostname, where.port), timeout=DEADLINE_S) as link:
        size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {10 * 2**30}"
        link.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{size}\r\n\r\n".encode())
        data = b"x" * 65536
        piece = b"10000\r\n" + data + b"\r\n" if chunked else data

        def listen() -> None:
            nonlocal answer
            try:
                while got := link.recv(65536):
                    answer += got
            except OSError:
                pass

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            while sent < 256 * MIB:
                link.sendall(piece)
                sent += len(data)
        except OSError:
            pass
        listener.join(DEADLINE_S)
    return answer, sent


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("chunked", [True, False])
async def test_an_endless_body_is_413_in_bounded_memory_and_starts_nothing(
    process: Running, chunked: bool
) -> None:
    process.write("t", "result = 1\n", hook("/hooks/t"))
    await process.sync()
    async with calling(process) as client:
        assert (await client.post("/hooks/t")).json() == 1
    before = (resident(process), len((await process.call("get_runs", task="t"))["runs"]))
    for _ in range(3):
        answer, sent = await asyncio.to_thread(endless, process.url, "/hooks/t", chunked)
        assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
        assert b"too_large" in answer
        assert sent < 64 * MIB
    after = (resident(process), len((await process.call("get_runs", task="t"))["runs"]))
    assert after[1] == before[1]
    assert after[0] - before[0] < 24 * MIB


@pytest.mark.slow
async def test_a_thousand_slow_senders_are_let_go_while_others_are_served(
    process: Running,
) -> None:
    process.write("t", "result = 1\n", hook("/hooks/t"))
    await process.sync()
    where = urlsplit(process.url)
    began = time.monotonic()
    half = b"POST /hooks/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc"
    links = [await asyncio.open_connection(where.hostname, where.port) for _ in range(1000)]
    for _, writer in links:
        writer.write(half)
    slowest = 0.0
    done = asyncio.gather(*(_closed(reader) for reader, _ in links))
    async with calling(process) as client:
        while not done.done():
            asked = time.monotonic()
            assert (await client.post("/hooks/t?wait=false")).status_code == 202
            slowest = max(slowest, time.monotonic() - asked)
            await asyncio.wait([done], timeout=0.25)
    took = time.monotonic() - began
    for _, writer in links:
        writer.close()
    assert took < 15 + 5, f"the last was let go after {took:.1f} s"
    assert slowest < 5, f"a good sender waited {slowest:.1f} s"


async def _closed(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(4096):
            pass
    except OSError:
        pass
