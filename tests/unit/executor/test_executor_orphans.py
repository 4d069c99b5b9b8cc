"""What a run leaves behind with nothing on it that says whose it was."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux")

SERVER = Path(__file__).with_name("lonely_server.py")


async def play(tmp_path: Path, *words: str) -> dict[str, Any]:
    """Play a scenario of ``lonely_server.py`` in a process of its own."""
    scenario, *rest = words
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SERVER),
        scenario,
        str(tmp_path),
        *rest,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.mark.parametrize(
    ("how", "code", "timed_out"),
    [
        ("success", [0, None], False),
        ("failure", [3, None], False),
        ("cancel", [None, signal.SIGTERM], False),
        ("timeout", [None, signal.SIGTERM], True),
    ],
)
async def test_a_detached_child_with_a_wiped_environment_ends_with_its_run(
    tmp_path: Path, how: str, code: list[int | None], timed_out: bool
) -> None:
    seen = await play(tmp_path, "ends", how)
    assert (seen["code"], seen["timed_out"]) == (code, timed_out)
    assert not seen["alive"]
    assert seen["strays"] == 1
    assert seen["children"] == []


async def test_a_process_whose_first_thread_has_ended_is_not_taken_for_dead(
    tmp_path: Path,
) -> None:
    seen = await play(tmp_path, "threaded")
    assert seen == {"strays": 1, "alive": False, "children": []}


async def test_an_orphan_older_than_the_other_runs_ends_with_its_own(tmp_path: Path) -> None:
    seen = await play(tmp_path, "older")
    assert seen == {"alive": False, "other": True, "others": True, "children": []}


async def test_an_orphan_that_could_be_another_run_s_is_left_until_that_one_ends(
    tmp_path: Path,
) -> None:
    seen = await play(tmp_path, "younger")
    assert seen == {"alive": True, "other": True, "later": False, "children": []}


async def test_an_orphan_that_holds_its_run_s_output_is_known_by_that(tmp_path: Path) -> None:
    seen = await play(tmp_path, "younger", "loud")
    assert seen == {"alive": False, "other": True, "later": False, "children": []}


async def test_of_runs_that_end_together_each_orphan_is_cleared_once(tmp_path: Path) -> None:
    seen = await play(tmp_path, "together")
    assert seen == {"alive": [], "strays": 6, "children": []}


async def test_with_no_run_on_the_dead_are_reaped_and_the_living_are_ended(
    tmp_path: Path,
) -> None:
    seen = await play(tmp_path, "tending")
    assert seen == {"before": True, "alive": False, "zombie": False}


async def test_children_from_before_and_their_orphans_are_left_alone(tmp_path: Path) -> None:
    seen = await play(tmp_path, "with_stranger")
    assert seen == {"strangers": "ADOPTED", "alive": False, "orphan": True, "sleeper": True}


async def test_the_servers_own_programs_are_left_alone(tmp_path: Path) -> None:
    assert await play(tmp_path, "helpers") == {
        "said": "whole\n",
        "code": 0,
        "other": True,
        "code_of_other": -signal.SIGKILL,
        "alive": False,
        "children": [],
    }
