"""Searching registries as a client does, over every transport and in both eras."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcphouse import House, Opening

SET = """\
kind: TaskSet
spec:
  entries:
    monitoring/uptime-ping:
      ref: {url: https://github.com/dicode-ayo/task-uptime, branch: main}
      overrides: {description: HTTP health checks, tags: [http]}
    monitoring/ssl-expiry:
      ref: {url: https://github.com/user/task-ssl-check}
    bad: {rev: x}
"""


@pytest.fixture
def registry(house: House, tmp_path: Path) -> Path:
    """Write what the house's registry offers."""
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "taskset.yaml").write_text(SET)
    return folder


async def test_a_search_finds_what_registries_offer(connect: Opening, registry: Path) -> None:
    async with connect() as client:
        result = await client.call_tool("search_tasks", {"query": "monitoring", "limit": 1})
    assert not result.is_error
    found = result.structured_content
    assert found["tasks"] == [
        {
            "path": "monitoring/uptime-ping",
            "name": "uptime-ping",
            "description": "HTTP health checks",
            "repo": "github.com/dicode-ayo/task-uptime",
            "url": "https://github.com/dicode-ayo/task-uptime",
            "tags": ["http"],
            "registry": "community",
            "installed": False,
        }
    ]
    assert (found["count"], found["install"]) == (2, "dicode task install <name>")
    assert {problem["line"] for problem in found["problems"]} == {9}


async def test_a_registry_that_is_away_or_unknown_is_said(connect: Opening) -> None:
    async with connect() as client:
        away = await client.call_tool("search_tasks", {"query": "x"})
        unknown = await client.call_tool("search_tasks", {"query": "x", "registry": "other"})
        empty = await client.call_tool("search_tasks", {"query": "  "})
    assert away.structured_content["tasks"] == []
    assert "does not exist" in away.structured_content["problems"][0]["message"]
    assert unknown.structured_content["error"]["code"] == "not_found"
    assert "community" in unknown.structured_content["error"]["message"]
    assert empty.structured_content["error"]["code"] == "invalid_argument"
