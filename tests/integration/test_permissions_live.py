"""What a whole server learns of the permissions that tasks use, with real runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from liveserver import MANUAL, Live, Serve

from dicode_mcp.testing.cages import this_machine

pytestmark = pytest.mark.skipif(not this_machine().separates, reason="no namespaces here")


def reads(live: Live, *paths: Path, more: str = "") -> None:
    granted = ", ".join(f"{{path: {path}, permission: rw}}" for path in paths)
    live.write(
        "t",
        """\
def main(params):
    return len(open(params["file"]).read())
""",
        f"{MANUAL}params: {{file: x}}\npermissions: {{fs: [{granted}]{more}}}\n",
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("used", "idle"):
        (tmp_path / "stuff" / name).mkdir(parents=True)
        (tmp_path / "stuff" / name / "a").write_text("abc")
    return tmp_path / "stuff"


async def suggested(live: Live) -> dict[str, Any]:
    return await live.call("suggest_permissions", id="t")


async def test_what_runs_used_is_suggested_and_outlives_a_restart(serve: Serve, data: Path) -> None:
    async with serve() as live:
        reads(live, data / "used", data / "idle", more=", run: [git]")
        await live.sync()
        for _ in range(5):
            run = await live.run("t", params={"file": str(data / "used" / "a")})
            assert run["return_value"] == 3
        found = await suggested(live)
        assert found["permissions"] == (
            f"permissions:\n  fs:\n  - path: {data / 'used'}\n    permission: r\n"
        )
        assert len(found["wider"]) == 3
        verdict = await live.call("validate_task", id="t")
        assert verdict["valid"] is True
        assert "PermissionsUsed" in {each["type"] for each in verdict["conditions"]}
    async with serve() as live:
        await live.sync()
        again = await suggested(live)
        assert (again["permissions"], again["runs"]) == (found["permissions"], 5)


async def test_what_deno_was_refused_is_in_the_log_once_although_the_script_swallows_it(
    serve: Serve,
) -> None:
    folder = "tasks/d"
    async with serve() as live:
        (live.tasks.parent / folder).mkdir(parents=True)
        (live.tasks / "d" / "task.yaml").write_text(
            "name: d\nruntime: deno\ntrigger: {manual: true}\n"
        )
        (live.tasks / "d" / "task.ts").write_text(
            """\
export default function main() {
  try { Deno.readTextFileSync("/srv/one"); } catch { /* as libraries do */ }
  Deno.readTextFileSync("/srv/two");
}
"""
        )
        await live.sync()
        run = await live.run("d")
        if run["reason"] == "runtime_unavailable":
            pytest.skip("no deno here")
        told = [each["message"] for each in run["logs_tail"] if each["level"] == "security"]
        assert sorted(message.partition(" - ")[2] for message in told) == [
            f'add to task.yaml: permissions.fs: [{{path: "/srv/{name}", permission: r}}]'
            for name in ("one", "two")
        ]


async def test_a_refused_file_is_in_the_run_s_error_and_its_log_with_the_line_to_add(
    serve: Serve, data: Path
) -> None:
    line = f'permissions.fs: [{{path: "{data / "idle" / "a"}", permission: r}}]'
    async with serve() as live:
        reads(live, data / "used")
        await live.sync()
        run = await live.run("t", params={"file": str(data / "idle" / "a")})
        assert run["status"] == "failure"
        assert line in run["error"]["hint"]
        told = [each for each in run["logs_tail"] if each["level"] == "security"]
        assert any(line in each["message"] for each in told)
        (add,) = (await suggested(live))["add"]
        assert (add["line"], add["exists"]) == (
            f"permissions.fs: {{path: {data / 'idle' / 'a'}, permission: r}}",
            True,
        )
