"""Keys by the command line, against a server of its own: made, used, listed, revoked, wanted."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from test_cli_e2e import DEADLINE, Done, House, house

__all__ = ["house"]
pytestmark = pytest.mark.slow


def serve(house: House, *words: str) -> Done:
    return house.dicode("serve", "--detach", "--port", "0", "--source", str(house.tasks), *words)


@pytest.fixture
def server(house: House) -> House:
    started = serve(house)
    assert started.code == 0, started.err
    return house


@pytest.fixture
def client(server: House) -> Iterator[httpx.Client]:
    url = server.json("status")["url"]
    with httpx.Client(base_url=url, timeout=DEADLINE, trust_env=False) as made:
        yield made


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def make(server: House, name: str, *scopes: str, expires: str = "90d") -> str:
    done = server.dicode(
        "keys", "create", "--name", name, "--scopes", *scopes, "--expires", expires
    )
    assert done.code == 0, done.err
    return done.out.strip()


def test_a_key_is_shown_once_works_is_listed_with_its_use_and_ends(
    server: House, client: httpx.Client
) -> None:
    assert "no keys yet" in server.dicode("keys", "list").err
    done = server.dicode("keys", "create", "--name", "ci", "--scopes", "run:hel*")
    assert re.fullmatch(r"dck_[a-z0-9]{10}_[\w-]{43}\n", done.out)
    assert done.out.strip() not in done.err
    key = done.out.strip()
    (shown,) = server.json("keys", "list")["keys"]
    assert (shown["name"], shown["scopes"], shown["state"]) == ("ci", ["run:hel*"], "active")
    assert "last_used_at" not in shown
    listed = client.get("/api/tasks", headers=bearer(key))
    assert [task["name"] for task in listed.json()["tasks"]] == ["Hello"]
    (shown,) = server.json("keys", "list")["keys"]
    assert "last_used_at" in shown
    text = server.dicode("keys", "list")
    assert key not in text.out + text.err + json.dumps(shown)
    for file in (server.data).rglob("*"):
        if file.is_file():
            assert key.encode() not in file.read_bytes(), file
    assert server.dicode("keys", "revoke", "ci").code == 0
    assert client.get("/api/tasks", headers=bearer(key)).status_code == 401
    assert server.dicode("keys", "revoke", "ci").code == 1
    (shown,) = server.json("keys", "list")["keys"]
    assert shown["state"] == "revoked"
    actions = server.json("audit", "--actor", "local")["entries"]
    assert [e["action"] for e in actions if e["action"].startswith("keys_")] == [
        "keys_revoke",
        "keys_revoke",
        "keys_create",
    ]


@pytest.mark.parametrize("path", ["/api/events", "/sse"])
def test_what_is_open_under_a_key_ends_when_it_is_revoked(
    server: House, client: httpx.Client, path: str
) -> None:
    key, other = make(server, "gone", "read"), make(server, "stays", "read")
    ended, opened = threading.Event(), threading.Event()

    def read(stream: httpx.Response) -> None:
        for _ in stream.iter_bytes():
            opened.set()
        ended.set()

    with (
        client.stream("GET", path, headers=bearer(key)) as mine,
        client.stream("GET", path, headers=bearer(other)) as others,
    ):
        assert (mine.status_code, others.status_code) == (200, 200)
        reading = threading.Thread(target=read, args=(mine,))
        reading.start()
        assert opened.wait(DEADLINE)
        assert not ended.is_set()
        assert server.dicode("keys", "revoke", "gone").code == 0
        assert ended.wait(DEADLINE)
        reading.join(DEADLINE)
        # The other's stream is as it was, and its key too.
        assert next(others.iter_bytes())
        assert client.get("/api/tasks", headers=bearer(other)).status_code == 200


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", "x", "--scopes", "everything"), "verbs: read, run"),
        (("--name", "x", "--scopes", "admin:infra/*"), "write admin alone"),
        (("--name", "x/y", "--scopes", "read"), "A-Z"),
        (("--name", "x", "--scopes", "read", "--expires", "soon"), "for example 90d"),
        (("--name", "x", "--scopes", "read", "--expires", "1s"), "for example 90d"),
    ],
)
def test_a_wrong_order_makes_no_key_and_says_what_is_right(
    server: House, words: tuple[str, ...], says: str
) -> None:
    done = server.dicode("keys", "create", *words)
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert server.json("keys", "list")["keys"] == []


def test_another_address_is_refused_until_there_is_a_key_and_a_name(
    house: House, tmp_path: Path
) -> None:
    config = tmp_path / "dicode.yaml"
    config.write_text("server: {host: 0.0.0.0}\n")
    refused = serve(house)
    assert refused.code == 2
    assert "dicode keys create --name NAME --scopes read" in refused.err
    assert house.serve().code == 0
    key = make(house, "ci", "read")
    assert house.dicode("stop").code == 0
    refused = serve(house)
    assert refused.code == 2
    assert "allowed_hosts" in refused.err
    config.write_text("server: {host: 0.0.0.0, allowed_hosts: [dicode.example]}\n")
    started = serve(house)
    assert started.code == 0, started.err
    port = house.json("status")["url"].rpartition(":")[2]
    url = f"http://127.0.0.1:{port}/api/tasks"
    with httpx.Client(timeout=DEADLINE, trust_env=False) as client:
        named = {"host": "dicode.example"}
        assert client.get(url, headers=named).status_code == 401
        assert client.get(url, headers={**named, **bearer(key)}).status_code == 200
        wrong = client.get(url, headers={"host": "evil.example", **bearer(key)})
        assert wrong.status_code == 403
