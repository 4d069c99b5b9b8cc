"""The owner's own browser on a foreign page, over TCP: what needs no key must not be reached so.

Beside it: methods that no route has, and requests that are not quite HTTP as browsers write it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from authority import Authority, authority
from keycalls import make_key
from liveserver import Serve
from starlette.routing import Route
from test_origin_matrix import METHODS, path_of, paths, state

pytestmark = pytest.mark.slow

FOREIGN = (
    {"host": "evil.example:{port}"},
    {"host": "evil.example:{port}", "origin": "http://evil.example:{port}"},
    {"host": "localhost:{port}", "origin": "http://evil.example"},
    {"host": "127.0.0.1:{port}", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
)
"""A rebound name, as it is and with its own origin; another site's page, and a part of one."""
JSON = {"content-type": "application/json"}


async def test_a_foreign_page_in_the_owners_browser_is_403_on_every_route_and_changes_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with authority(serve, tmp_path, monkeypatch) as house:
        client = house.keys[0].holder.client
        port = client.base_url.port
        # The same caller without such headers needs no key.
        assert (await client.get("/api/tasks")).status_code == 200
        before = await state(house)
        wrong: list[str] = []
        for path in paths(house):
            for method in METHODS:
                for pair in FOREIGN:
                    headers = {name: value.format(port=port) for name, value in pair.items()}
                    if "sec-fetch-site" in headers and path.startswith(("/hooks/", "/dicode.js")):
                        continue  # Parts of tasks' pages: the matrix in test_origin_matrix.
                    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
                    answer = await client.request(
                        method, path, headers={**JSON, **headers}, content=body
                    )
                    if answer.status_code != 403 or "access-control-allow-origin" in answer.headers:
                        wrong.append(f"{method} {path} {headers}: {answer.status_code}")
        assert wrong == []
        assert await state(house) == before


async def test_a_method_that_no_route_has_is_405_and_changes_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with authority(serve, tmp_path, monkeypatch) as house:
        key = await make_key(
            house.live, "every", "read", "run", "author", "approve", "secrets", "admin"
        )
        right = {"authorization": f"Bearer {key}", **JSON}
        client = house.keys[0].holder.client
        before = await state(house)
        wrong: list[str] = []
        for path, declared in _by_path(house).items():
            for method in sorted(set(METHODS) - declared):
                answer = await client.request(method, path, headers=right)
                # A path below /api/tasks/ that is no route of its own may be a task's id.
                expected = {404, 405} if method in ("GET", "HEAD") else {405}
                if answer.status_code not in expected:
                    wrong.append(f"{method} {path}: {answer.status_code}")
                elif answer.status_code == 405 and not answer.headers.get("allow"):
                    wrong.append(f"{method} {path}: 405 without Allow")
                if "access-control-allow-origin" in answer.headers:
                    wrong.append(f"{method} {path} may be read by other pages")
        assert wrong == []
        assert await state(house) == before


def _by_path(house: Authority) -> dict[str, set[str]]:
    """Give the methods of each route's path, filled in; those that take any are left out."""
    found: dict[str, set[str]] = {}
    for route in house.app.routes:
        assert isinstance(route, Route)
        if route.methods is None:
            continue
        path = path_of(house, route)
        found.setdefault(path, set()).update(route.methods)
    return found


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("GET /api/tasks HTTP/1.1\r\nHost: localhost", {200}),
        ("GET /api/tasks HTTP/1.1", {400, 403}),
        ("GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nHost: localhost", {400, 403}),
        ("GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", {400, 403}),
        ("GET /api/tasks HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost", {403}),
        ("GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: evil.example", {401}),
        ("GET http://evil.example/api/tasks HTTP/1.1\r\nHost: evil.example", {400, 403}),
        ("GET http://evil.example/api/tasks HTTP/1.1\r\nHost: localhost", {400, 403, 404}),
        ("GET //evil.example/api/tasks HTTP/1.1\r\nHost: localhost", {400, 403, 404}),
        ("GET /api/tasks HTTP/1.0\r\nHost: localhost", {401}),
        ("GET /api/tasks HTTP/1.0", {403}),
        (
            "GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:{port}"
            "\r\nOrigin: http://evil.example",
            {403},
        ),
        ("GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nOrigin:", {403}),
        ("GET /api/tasks HTTP/1.1\r\nHost: localhost\r\nOrigin: null", {403}),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443", {400, 403}),
        ("TRACE /api/tasks HTTP/1.1\r\nHost: localhost", {405}),
        ("PROPFIND /api/tasks HTTP/1.1\r\nHost: localhost", {405}),
        (
            "GET /api/secrets/x HTTP/1.1\r\nHost: localhost\r\nX-HTTP-Method-Override: DELETE",
            {405},
        ),
    ],
)
async def test_what_is_not_written_as_browsers_write_it_gets_no_further(
    serve: Serve, head: str, expected: set[int]
) -> None:
    async with serve(http=True) as live:
        assert live.server.url is not None
        port = int(live.server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head.replace('{port}', str(port))}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(30):
            answer = (await reader.read()).decode(errors="replace")
        writer.close()
        status = int(answer.split(" ", 2)[1])
        assert status in expected, answer
        if status != 200:
            assert '"tasks"' not in answer
