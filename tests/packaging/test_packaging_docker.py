"""The Dockerfile, as far as it can be checked where no engine runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dicode_mcp.cli.parser import build_parser

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Give the Dockerfile's instructions, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    parts = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in parts]


def the_only(word: str) -> str:
    (rest,) = [rest for name, rest in instructions() if name == word]
    return rest


def copied() -> list[str]:
    """Give what is copied from the context."""
    rests = [rest for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [source for rest in rests for source in rest.split()[:-1]]


def test_everything_that_is_copied_exists_and_is_in_the_context() -> None:
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f"{source} is not in the context"
    assert ignored[0] == "*"


def test_the_context_has_everything_the_build_needs() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    packages = re.search(
        r"\[tool\.hatch\.build\.targets\.wheel\]\npackages = \[(.*?)\]", text, re.S
    )
    assert packages is not None
    needed = [name.split("/")[0] for name in re.findall(r'"([^"]+)"', packages[1])]
    assert {*needed, "pyproject.toml", "README.md", "LICENSE"} <= set(copied())


def test_the_image_runs_as_a_user_of_its_own() -> None:
    names = [word for word, _ in instructions()]
    assert the_only("USER") == "dicode"
    made = names.index("USER")
    assert made < names.index("ENTRYPOINT")
    assert "VOLUME" in names[made:]
    users = [rest for word, rest in instructions() if word == "RUN" and "useradd" in rest]
    assert "--uid 10001" in users[0]


def test_the_base_is_named_and_nothing_else_is_pulled() -> None:
    froms = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert set(froms) == {"${BASE}"}
    assert the_only("ARG") == "BASE=python:3.12-slim"


def test_what_the_container_starts_is_a_command_of_ours() -> None:
    entry, command = json.loads(the_only("ENTRYPOINT")), json.loads(the_only("CMD"))
    assert entry == ["dicode"]
    args = build_parser().parse_args(command)
    assert args.handler == "server:serve"
    (volumes,) = [json.loads(rest) for word, rest in instructions() if word == "VOLUME"]
    assert args.source[0] in volumes
    assert f"DICODE_DATA_DIR={volumes[0]}" in the_only("ENV")
    # Without keys the server takes no address that others reach, and must not be told one.
    assert args.host is None


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Health) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def _healthy(port: int) -> bool:
    command = json.loads(the_only("HEALTHCHECK").partition(" CMD ")[2])
    assert command[0] == "python"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env={**os.environ, "DICODE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode == 0


def test_the_health_check_follows_the_server(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _healthy(server.server_port)
    monkeypatch.setattr(_Health, "status", 503)
    assert not _healthy(server.server_port)
    server.server_close()
    assert not _healthy(server.server_port)


def test_the_how_to_names_what_the_image_has() -> None:
    text = (ROOT / "docs" / "how-to" / "docker.md").read_text()
    assert "claude mcp add dicode -- docker exec -i dicode dicode mcp" in text
    for command in re.findall(r"docker exec -i dicode (dicode .*)$", text, re.M):
        build_parser().parse_args(shlex.split(command)[1:])
    for _, place in re.findall(r"-v (\S+?):(/\S+?)[:\s]", text):
        assert any(fnmatch(place, kept) for kept in ("/data", "/tasks", "/etc/dicode/*")), place
