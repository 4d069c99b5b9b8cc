"""The REST how-to and the orchestrator's document, their curl and jq lines against a server."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from docs_live import Live
from docs_pages import ROOT, blocks_of

from dicode_mcp.testing.gitserver import serving
from dicode_mcp.testing.lacking import lacking

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "how-to" / "drive-tasks-over-rest.md"
CONFIG = "data_dir: .dicode\nsources: [{type: local, path: dicode-tasks}]\n"
SEED_LINE = r"""
curl -fsS -H "Authorization: Bearer $API_KEY" \
  "http://127.0.0.1:3312/api/tasks/runs?limit=20&type=my-task" | jq '.runs'
"""
"""As the document on custom tasks has it."""


@pytest.fixture
def live(tmp_path: Path) -> Generator[Live]:
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            lacking(f"the document uses {program}")
    with serving(tmp_path / "served") as git:
        home = tmp_path / "home"
        for block in blocks_of(PAGE):
            if block.file:
                path = home / block.file.removeprefix("~/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
        yield Live(home, git)


def here(command: str) -> str:
    """Give a command with the document's port mapped to the server's."""
    return "set -o pipefail\n" + re.sub(
        r"http://127\.0\.0\.1:\d+", "http://localhost:8080", command
    )


async def test_the_commands_of_the_rest_page_do_what_it_says(live: Live) -> None:
    start, trigger, read = [b.text for b in blocks_of(PAGE) if b.language == "sh"]
    async with live.serving(CONFIG):
        await live.ids("my-task")
        said = await live.shell(here(start))
        assert said.code == 0, said
        assert json.loads(said.out) == {"itemsProcessed": 5, "success": True}
        again = await live.shell(here(start))
        assert json.loads(again.out) == {"itemsProcessed": 5, "success": True}
        said = await live.shell(here(trigger))
        assert said.code == 0, said
        run = await live.call("get_run", run_id=json.loads(said.out), wait_seconds=30)
        assert run["return_value"] == {"itemsProcessed": 7, "success": True}
        said = await live.shell(here(read))
        records = json.loads(said.out)
        assert [record["result"]["itemsProcessed"] for record in records] == [7, 5]
        shown = next(b for b in blocks_of(PAGE) if b.language == "json")
        example = json.loads(shown.text)["runs"][0]
        assert set(example) <= set(records[0])


async def test_the_orchestrators_line_works_with_a_key_as_it_stands(live: Live) -> None:
    making = 'export API_KEY="$(dicode keys create --name orchestrator --scopes SCOPE)"\n'
    async with live.serving(CONFIG):
        await live.ids("my-task")
        await live.call("run_task", id="my-task", wait_seconds=30)
        without = await live.shell(here(SEED_LINE))
        assert without.code == 22
        assert "401" in without.err
        said = await live.shell(making.replace("SCOPE", "read:my-task") + here(SEED_LINE))
        assert said.code == 0, said
        (record,) = json.loads(said.out)
        wanted = {"type", "status", "timestamp", "durationMs", "result", "error"}
        assert wanted <= set(record)
        assert (record["type"], record["status"]) == ("my-task", "completed")
        assert record["result"] == {"itemsProcessed": 3, "success": True}
        assert record["error"] is None
        assert isinstance(record["durationMs"], int)
        await live.shell("dicode keys revoke orchestrator")
        other = await live.shell(making.replace("SCOPE", "read:other-*") + here(SEED_LINE))
        assert other.code == 22
        assert "404" in other.err


async def test_the_same_commands_work_for_somebody_with_a_key(live: Live) -> None:
    start, trigger, read = [b.text for b in blocks_of(PAGE) if b.language == "sh"]
    key = 'KEY="$(dicode keys create --name ci --scopes run:my-task)"\n'
    # With server.auth nothing else lets the commands in.
    async with live.serving(f"{CONFIG}server: {{auth: true}}\n"):
        await live.ids("my-task")
        assert (await live.shell(here(start))).code == 22
        assert (await live.call("get_runs"))["runs"] == []
        keyed = [
            here(line).replace("curl ", 'curl -H "Authorization: Bearer $KEY" ')
            for line in (start, trigger, read)
        ]
        said = await live.shell(f"{key}{keyed[0]}\n{keyed[1]}")
        assert said.code == 0, said
        run_id = json.loads(said.out.splitlines()[-1])
        run = await live.call("get_run", run_id=run_id, wait_seconds=30)
        assert run["return_value"] == {"itemsProcessed": 7, "success": True}
