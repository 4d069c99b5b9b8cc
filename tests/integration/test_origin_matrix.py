"""Every route, method, Host and Origin: a pair that is not ours is 403 and changes nothing.

The caller has a right key for everything, so that nothing but the two headers can be why.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeGuard

import httpx
import pytest
from authority import OTHERS, OURS, Authority, authority
from keycalls import make_key
from liveserver import Serve
from starlette.routing import Route

from dicode_mcp.config import ServerConfig

pytestmark = pytest.mark.slow

NAME = "dicode.example"
PORT = 8765
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OUR_HOSTS = (f"localhost:{PORT}", f"127.0.0.1:{PORT}", f"[::1]:{PORT}", NAME)
FOREIGN_HOSTS = (
    "evil.example",
    f"evil.example:{PORT}",
    "localhost.evil.example",
    f"{NAME}.evil.example",
    f"evil{NAME}",
    "192.168.0.1",
    "0.0.0.0",
    "127.0.0.2",
    "localhost:x",
    "localhost@evil.example",
    "[::2]",
    "",
)
FOREIGN_ORIGINS = (
    "http://evil.example",
    f"http://evil.example:{PORT}",
    f"https://{NAME}.evil.example",
    "http://localhost:1",
    "file://",
    "chrome-extension://abc",
    "garbage",
    "null",
)
ELSEWHERE_SAID = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}


def path_of(house: Authority, route: Route) -> str:
    """Give a route's path with ids that are there."""
    ids = {
        "id:path": OURS,
        "id": house.runs[OURS],
        "run_id": house.runs[OURS],
        "name": "alpha",
        "source": "alpha",
        "path:path": "alpha",
        "token": "x",
    }
    return re.sub(r"\{([^}]+)\}", lambda found: ids.get(found[1], "x"), route.path)


def paths(house: Authority) -> list[str]:
    """Give every route's path."""
    return sorted({path_of(house, route) for route in house.app.routes if _is_route(route)})


def _is_route(route: object) -> TypeGuard[Route]:
    assert isinstance(route, Route)
    return True


async def test_a_foreign_host_or_origin_is_403_on_every_route_and_has_no_effect(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServerConfig(port=0, allowed_hosts=(NAME,))
    async with authority(serve, tmp_path, monkeypatch, server_config=config) as house:
        key = await make_key(
            house.live, "every", "read", "run", "author", "approve", "secrets", "admin"
        )
        right = {"authorization": f"Bearer {key}"}
        transport = httpx.ASGITransport(app=house.app, client=("127.0.0.1", 50_000))
        before = await state(house)
        wrong: list[str] = []
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path in paths(house):
                for method in METHODS:
                    for bad in _bad_pairs(method, path):
                        answer = await client.request(
                            method,
                            path,
                            headers={**right, "content-type": "application/json", **bad},
                            content=b"{}" if method in ("POST", "PUT", "PATCH") else None,
                        )
                        readable = "access-control-allow-origin" in answer.headers
                        if answer.status_code != 403 or (readable and bad.get("origin") != "null"):
                            wrong.append(f"{method} {path} {bad}: {answer.status_code}")
        assert wrong == []
        assert await state(house) == before
        # The same caller under our own names is let in, so the table tests what it says.
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for host in OUR_HOSTS:
                for origin in ({}, {"origin": f"http://{host}"}):
                    answer = await client.get(
                        "/api/tasks", headers={**right, "host": host, **origin}
                    )
                    assert answer.status_code == 200, (host, origin, answer.text)


def _bad_pairs(method: str, path: str) -> list[dict[str, str]]:
    pairs = [{"host": host} for host in FOREIGN_HOSTS]
    pairs += [{"host": host, "origin": f"http://{host}"} for host in FOREIGN_HOSTS[:3]]
    pairs += [{"host": host, "origin": origin} for host in OUR_HOSTS for origin in FOREIGN_ORIGINS]
    if path.startswith("/hooks/") and method == "OPTIONS":
        # A page without an origin may ask whether it may call; what it then calls is judged.
        pairs = [pair for pair in pairs if pair.get("origin") != "null"]
    if path == "/dicode.js" or path.startswith("/hooks/"):
        # Pages of tasks load the script, and parts of pages, from an origin that is nobody's.
        if path == "/dicode.js":
            pairs = [pair for pair in pairs if pair.get("origin") != "null"]
        return pairs
    return [*pairs, {"host": OUR_HOSTS[0], **ELSEWHERE_SAID}]


async def state(house: Authority) -> object:
    """Give what a request could have changed."""
    live = house.live
    runs = [run["run_id"] for run in (await live.call("get_runs", limit=500))["runs"]]
    tasks = [
        {"id": task["id"], "hash": task["hash"], "enabled": task["enabled"]}
        for task in (await live.call("list_tasks"))["tasks"]
    ]
    assert {task["id"] for task in tasks} == {OURS, OTHERS}
    secrets = [secret["name"] for secret in (await live.call("secrets_list"))["secrets"]]
    sources = [(s["name"], s["dev_mode"]) for s in (await live.call("list_sources"))["sources"]]
    return runs, tasks, secrets, sources
