"""Pages of webhook tasks over HTTP: what is served, what never is, and who may read a run."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from liveserver import Live, Serve

from dicode_mcp.testing.waiting import DEADLINE_S

SHOWN = "name: Shown\nruntime: python\ntrigger: {webhook: /hooks/shown}\n"
OTHER = "name: Other\nruntime: python\ntrigger: {webhook: /hooks/shown/other}\n"
SEALED = (
    "name: Sealed\nruntime: python\n"
    'trigger: {webhook: /hooks/sealed, webhook_secret: "${W2_SECRET}"}\n'
)
CLOSED = "name: Closed\nruntime: python\ntrigger: {webhook: /hooks/closed, auth: true}\n"
BARE = "name: Bare\nruntime: python\ntrigger: {webhook: /hooks/bare}\n"
SCRIPT = """
print("for the page")
log.warn("for the owner")
if (input or {}).get("fail"):
    raise ValueError("as asked")
result = {"n": 1, "input": input}
"""
CANARY = b"CANARY-7f3a"
PAGE = {
    "index.html": "<!DOCTYPE html><html><head><title>x</title></head><body>hi",
    "about.html": "<p>about",
    "css/main.css": "p { color: red }",
    "app.js": "1",
    "data.json": "{}",
    "doc.pdf": "%PDF",
    "big.mp4": "0123456789" * 100_000,
}


class House:
    """A server with pages, and a client of its HTTP."""

    def __init__(self, live: Live, client: httpx.AsyncClient) -> None:
        self.live = live
        self.client = client
        self.url = str(client.base_url)

    def put(self, task: str, files: dict[str, str]) -> Path:
        """Write files beside a task's script; gives its folder."""
        folder = self.live.tasks / task
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    async def key(self, path: str) -> str:
        """Give the key that the page of a webhook is given."""
        text = (await self.client.get(path)).text
        return text.partition('name="dicode-page" content="')[2].partition('"')[0]

    async def raw(self, target: bytes, host: str = "localhost") -> bytes:
        """Ask for a target exactly as written; gives the whole answer."""
        where = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            head = b"GET " + target + b" HTTP/1.1\r\nHost: " + host.encode()
            writer.write(head + b"\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(DEADLINE_S):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def house(serve: Serve) -> AsyncGenerator[House]:
    async with _open(serve) as made:
        yield made


@asynccontextmanager
async def _open(serve: Serve) -> AsyncGenerator[House]:
    environ = {**os.environ, "W2_SECRET": "s3cr3t-of-hooks"}
    async with serve(http=True, environ=environ) as live:
        for name, manifest in (
            ("shown", SHOWN),
            ("other", OTHER),
            ("sealed", SEALED),
            ("closed", CLOSED),
            ("bare", BARE),
        ):
            folder = live.tasks / name
            folder.mkdir()
            (folder / "task.yaml").write_text(manifest)
            (folder / "task.py").write_text(SCRIPT)
        await live.sync()
        url = live.server.url or ""
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            house = House(live, client)
            house.put("shown", PAGE)
            house.put("sealed", {"index.html": "sealed"})
            house.put("closed", {"index.html": "closed"})
            yield house


async def test_a_page_says_whose_it_is_and_is_caged(house: House) -> None:
    for path in ("/hooks/shown", "/hooks/shown/"):
        answer = await house.client.get(path)
        assert answer.status_code == 200
        assert answer.text.startswith(
            '<!DOCTYPE html><html><head><base href="/hooks/shown/">'
            '<meta name="dicode-task" content="shown"><meta name="dicode-hook"'
            ' content="/hooks/shown"><meta name="dicode-page" content="'
        )
        assert '<script src="/dicode.js"></script><title>x</title>' in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        policy = _policy(answer)
        below = f"{house.url}/hooks/shown/"
        assert policy["default-src"] == ["'none'"]
        assert policy["connect-src"] == [f"{house.url}/hooks/shown", below]
        assert policy["form-action"] == policy["connect-src"]
        assert policy["base-uri"] == [below]
        assert policy["frame-ancestors"] == ["'self'"]
        assert "allow-scripts" in policy["sandbox"]
        assert {"allow-same-origin", "allow-top-navigation"}.isdisjoint(policy["sandbox"])
        assert "'unsafe-eval'" not in policy["script-src"]
    assert "<base" in (await house.client.get("/hooks/shown/about.html")).text


async def test_what_a_task_answers_is_caged_like_its_page(house: House) -> None:
    page = await house.client.get("/hooks/shown")
    answer = await house.client.post("/hooks/shown", json={})
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_files_have_types_tags_ranges_and_heads(house: House) -> None:
    get = house.client.get
    css = await get("/hooks/shown/css/main.css")
    assert (css.text, css.headers["content-type"]) == (
        PAGE["css/main.css"],
        "text/css; charset=utf-8",
    )
    again = await get("/hooks/shown/css/main.css", headers={"if-none-match": css.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    page = await get("/hooks/shown")
    again = await get("/hooks/shown", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    house.put("shown", {"css/main.css": "p { color: blue }"})
    new = await get("/hooks/shown/css/main.css", headers={"if-none-match": css.headers["etag"]})
    assert (new.status_code, new.text) == (200, "p { color: blue }")
    head = await house.client.head("/hooks/shown/big.mp4")
    assert (head.status_code, head.headers["content-length"]) == (200, "1000000")
    for asked, status, expected in (
        ("bytes=0-3", 206, b"0123"),
        ("bytes=999998-", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-5", 206, b"5"),
        ("bytes=1000000-", 416, b""),
        ("bytes=7-3", 200, PAGE["big.mp4"].encode()),
        ("lines=1-2", 200, PAGE["big.mp4"].encode()),
        ("bytes=0-1,4-5", 200, PAGE["big.mp4"].encode()),
    ):
        part = await get("/hooks/shown/big.mp4", headers={"range": asked})
        assert (part.status_code, part.content) == (status, expected), asked
    whole = await get("/hooks/shown/big.mp4", headers={"range": "bytes=0-3", "if-range": '"old"'})
    assert whole.status_code == 200
    script = await get("/dicode.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert len(script.content) < 8_000
    again = await get("/dicode.js", headers={"if-none-match": script.headers["etag"]})
    assert again.status_code == 304


def _targets() -> list[bytes]:
    """Give ways to ask for what lies outside the page, or is the task's own."""
    ups = (
        b"../", b"..%2f", b"..%2F", b"%2e%2e/", b"%2E%2E%2F", b"%252e%252e/", b"%252e%252e%252f",
        b"..%5c", b"..\\", b"%2e%2e%5c", b"..%c0%af", b"%c0%ae%c0%ae/", b"%e0%80%ae%e0%80%ae/",
        b"..;/", b"..%00/", b"%00../", b".%2e/", b"%2e./", b"..%ef%bc%8f", b"%ef%bc%8e%ef%bc%8e/",
        b"..%u2215", b"%uff0e%uff0e/", b"....//", b".../", b"..%09/", b"..%20/", b"..%0d%0a/",
        b"/../", b"//../", b"./../", b"css/../../", b"css/%2e%2e/%2e%2e/", b"css/..%2f..%2f",
    )  # fmt: skip
    made = [up * depth + b"canary.txt" for up in ups for depth in (1, 3)]
    own = (
        b"task.yaml", b"task.py", b"TASK.PY", b"task.txt", b"task.html", b"task%2epy", b"task.py/",
        b"task.yaml%00.html", b"task.py%20", b"task.py.", b"task.py::$DATA", b"./task.py",
        b"shown_test.html", b"test_shown.html", b"shown.test.js", b"taskset.yaml", b".env",
        b".hidden.html", b".git/config.json", b".git/index.html", b"__pycache__/x.json",
        b"linked.txt", b"linked/canary.txt", b"secret.pem", b"noextension", b"package.json",
        b"deno.json", b"requirements.txt", b"~/canary.txt", b"css/", b"css", b"fifo.txt",
        b"index.html/canary.txt", b"canary.txt", b"%63anary.txt%00", b"../shown/task.py",
        b"..%2fsealed%2findex.html",
    )  # fmt: skip
    made += own
    hooks = [b"/hooks/shown/" + target for target in made]
    return [
        *hooks,
        b"/hooks/../canary.txt",
        b"/hooks/shown/../../canary.txt",
        b"/dicode.js/../../canary.txt",
        b"/dicode.js%2f..%2fdicode.d.ts",
        b"http://localhost/hooks/shown/../canary.txt",
    ]


async def test_nothing_outside_the_page_is_served_however_it_is_asked_for(house: House) -> None:
    folder = house.live.tasks / "shown"
    for name in (
        ".env", ".hidden.html", ".git/config.json", ".git/index.html", "__pycache__/x.json",
        "secret.pem", "noextension", "package.json", "deno.json", "requirements.txt", "task.txt",
        "task.html", "shown_test.html", "test_shown.html", "shown.test.js", "taskset.yaml",
        "../canary.txt", "../../canary.txt", "../../../canary.txt",
    ):  # fmt: skip
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(CANARY)
    (folder / "linked.txt").symlink_to(folder.parent / "canary.txt")
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "fifo.txt")
    (folder / "task.py").write_text(SCRIPT + f"# {CANARY.decode()}\n")
    targets = _targets()
    assert len(targets) >= 60
    for target in targets:
        answer = await house.raw(target)
        assert CANARY not in answer, target
        status = answer.split(b" ", 2)[1]
        assert status in (b"400", b"403", b"404", b"405"), (target, answer[:80])
    assert (await house.live.call("get_runs", task="shown"))["runs"] == []


async def test_public_hides_what_lies_beside_it(house: House) -> None:
    folder = house.put(
        "bare", {"public/index.html": "public page", "public/a.css": "a", "b.css": "b"}
    )
    assert "public page" in (await house.client.get("/hooks/bare")).text
    assert (await house.client.get("/hooks/bare/a.css")).text == "a"
    assert (await house.client.get("/hooks/bare/b.css")).status_code == 405
    (folder / "public").rename(folder / "gone")
    assert (await house.client.get("/hooks/bare")).status_code == 405


async def test_a_page_behind_auth_is_shown_to_nobody_yet(house: House) -> None:
    for path in ("/hooks/closed", "/hooks/closed/index.html", "/hooks/closed/.dicode/runs/x"):
        assert (await house.client.get(path)).status_code == 401
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    answer = await house.client.get("/hooks/closed/index.html", headers=foreign)
    assert answer.status_code == 403


async def test_a_page_calls_only_its_own_webhook(house: House) -> None:
    key = await house.key("/hooks/shown")
    sealed = await house.key("/hooks/sealed")
    assert key
    assert sealed not in ("", key)

    async def call(path: str, key: str | None, method: str = "POST") -> httpx.Response:
        headers = [(b"origin", b"null")]
        headers += [(b"x-dicode-page", key.encode("latin-1"))] if key else []
        return await house.client.request(method, path, headers=headers, json={})

    own = await call("/hooks/shown", key)
    assert own.status_code == 200
    assert own.headers["access-control-allow-origin"] == "null"
    assert "access-control-allow-credentials" not in own.headers
    assert "x-run-id" in own.headers["access-control-expose-headers"]
    for path, given in (
        ("/hooks/shown", None),
        ("/hooks/shown", sealed),
        ("/hooks/shown", key[:-1]),
        ("/hooks/shown", "ü"),
        ("/hooks/bare", key),
        ("/hooks/shown/other", key),
        ("/hooks/nothing", key),
        ("/hooks/git/tasks", key),
        ("/mcp", key),
        ("/api/sources", key),
        ("/dicode.js", key),
        ("/", key),
    ):
        for method in ("POST", "GET"):
            answer = await call(path, given, method)
            assert answer.status_code == 403, (path, given, method)
    assert len((await house.live.call("get_runs", limit=50))["runs"]) == 1


async def test_a_preflight_names_what_a_page_may_send(house: House) -> None:
    asks = {
        "origin": "null",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-dicode-page",
    }
    answer = await house.client.options("/hooks/shown", headers=asks)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "null"
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST"
    assert "x-dicode-page" in answer.headers["access-control-allow-headers"]
    for path in ("/mcp", "/api/sources", "/hooks/nothing", "/"):
        answer = await house.client.options(path, headers=asks)
        assert answer.status_code == 403
    for origin in ("http://evil.example", "http://localhost:1"):
        answer = await house.client.options("/hooks/shown", headers={**asks, "origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


async def test_scripts_and_fonts_may_be_loaded_without_a_key_and_data_may_not(house: House) -> None:
    answer = await house.client.get("/hooks/shown/app.js", headers={"origin": "null"})
    assert (answer.text, answer.headers["access-control-allow-origin"]) == ("1", "null")
    for name in ("data.json", "index.html", "", "doc.pdf", "none.js"):
        answer = await house.client.get(f"/hooks/shown/{name}", headers={"origin": "null"})
        assert answer.status_code == 403, name
        assert "{}" not in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_parts_of_a_foreign_page_are_files_of_pages_and_nothing_else(
    house: House, site: str
) -> None:
    part = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    for path, status in (
        ("/hooks/shown/doc.pdf", 200),
        ("/dicode.js", 200),
        ("/hooks/shown/none.png", 403),
        ("/hooks/bare", 403),
        ("/api/sources", 403),
        ("/api/events", 403),
        ("/icon.svg", 403),
        ("/", 403),
        ("/mcp", 403),
    ):
        assert (await house.client.get(path, headers=part)).status_code == status, path
    frame = {**part, "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    assert (await house.client.get("/", headers=frame)).status_code == 403
    visit = {**part, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert (await house.client.get("/", headers=visit)).status_code == 200


async def test_a_run_is_shown_to_who_has_its_id_at_the_webhook_that_started_it(
    house: House,
) -> None:
    get = house.client.get
    made = await house.client.post("/hooks/shown?wait=false", json={"fail": False, "own": "x"})
    run_id = made.json()["runId"]
    shown = (await get(f"/hooks/shown/.dicode/runs/{run_id}?wait=20")).json()
    value = {"n": 1, "input": {"fail": False, "own": "x"}}
    assert shown == {
        "runId": run_id,
        "status": "success",
        "done": True,
        "returnValue": value,
        "contentType": "application/json",
        "body": shown["body"],
    }
    assert json.loads(shown["body"]) == value
    failed = (await house.client.post("/hooks/shown?wait=false", json={"fail": True})).json()
    shown = (await get(f"/hooks/shown/.dicode/runs/{failed['runId']}?wait=20")).json()
    assert set(shown) == {"runId", "status", "done", "error"}
    assert set(shown["error"]) == {"code", "message"}
    for path in (
        f"/hooks/bare/.dicode/runs/{run_id}",
        f"/hooks/shown/other/.dicode/runs/{run_id}",
        "/hooks/shown/.dicode/runs/01hzzzzzzzzzzzzzzzzzzzzzzz",
        "/hooks/shown/.dicode/runs/",
        f"/hooks/shown/.dicode/runs/{run_id}%00",
    ):
        assert (await get(path)).status_code == 404, path
    by_hand = (await house.live.run("shown"))["run_id"]
    for what in ("", "/events"):
        answer = await get(f"/hooks/shown/.dicode/runs/{by_hand}{what}")
        assert answer.status_code == 404


async def test_runs_of_a_sealed_webhook_are_not_shown_to_strangers(house: House) -> None:
    body = b"{}"
    sign = hmac.new(b"s3cr3t-of-hooks", body, hashlib.sha256).hexdigest()
    headers = {"x-hub-signature-256": f"sha256={sign}", "content-type": "application/json"}
    answer = await house.client.post("/hooks/sealed?wait=false", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    path = f"/hooks/sealed/.dicode/runs/{answer.json()['runId']}"
    page = {"origin": "null", "x-dicode-page": await house.key("/hooks/sealed")}
    for what in ("", "/events"):
        assert (await house.client.get(path + what, headers=page)).status_code == 404
    # Its own user, who needs no proof here.
    assert (await house.client.get(path)).status_code == 200


async def test_events_of_a_run_are_what_it_prints_and_how_it_ends(house: House) -> None:
    made = await house.client.post("/hooks/shown?wait=false", json={"fail": True})
    told = await _events(house, f"/hooks/shown/.dicode/runs/{made.json()['runId']}/events")
    assert [data["message"] for name, data in told if name == "log"] == ["for the page"]
    assert told[-1][0] == "finish"
    assert told[-1][1]["status"] == "failure"
    assert "for the owner" not in json.dumps(told)
    made = await house.client.post("/hooks/bare?wait=false", json={})
    told = await _events(house, f"/hooks/bare/.dicode/runs/{made.json()['runId']}/events")
    assert [name for name, _ in told if name == "log"] == []
    assert told[-1][1]["returnValue"]["n"] == 1


async def _events(house: House, path: str) -> list[tuple[str, dict[str, Any]]]:
    answer = await house.client.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told: list[tuple[str, dict[str, Any]]] = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            told.append((fields["event"], json.loads(fields["data"])))
    return told


def _policy(answer: httpx.Response) -> dict[str, list[str]]:
    parts = answer.headers["content-security-policy"].split("; ")
    return {name: words for name, *words in (part.split(" ") for part in parts)}
