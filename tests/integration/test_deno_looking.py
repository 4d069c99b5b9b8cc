"""A Deno script is looked at before its first run inside a cage, as hostile as it may be."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.helpers import ThreadHelpers
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.protocols import RuntimeHost
from dicode_mcp.spec.model import Permissions
from dicode_mcp.testing.cages import strict_cages, this_machine
from dicode_mcp.testing.runtime_house import INSTANCE, RuntimeHouse
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
    ),
    pytest.mark.skipif(not DenoProgram(os.environ).health.ok, reason="no deno here"),
]


def host_of(executor: SpawnExecutor, folder: Path) -> RuntimeHost:
    helpers = ThreadHelpers(executor, asyncio.get_running_loop(), folder / "scratch", INSTANCE)
    return RuntimeHost(folder / "cache", os.environ, helpers)


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[RuntimeHouse]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        runtime = DenoRuntime.for_server(host_of(executor, tmp_path))
        yield RuntimeHouse(runtime, ".ts", executor, tmp_path)


async def problems(house: RuntimeHouse, script: str, **permissions: object) -> list[str]:
    may = Permissions.model_validate(permissions)
    found = await asyncio.to_thread(house.check, script, may)
    return [condition.message for condition in found]


async def test_a_good_script_has_no_problem_and_one_with_a_mistake_says_where(
    house: RuntimeHouse, tmp_path: Path
) -> None:
    house.write("export const two = 2;\n", "lib/two.ts")
    assert await problems(house, 'import { two } from "./lib/two.ts";\nexport default two;') == []
    (told,) = await problems(house, "const x = ;")
    assert told.startswith("task.ts:1: ")
    (told,) = await problems(house, 'import "./gone.ts";')
    assert "there is no such file" in told
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_only_what_the_task_may_read_is_read(house: RuntimeHouse, tmp_path: Path) -> None:
    (tmp_path / "beside.ts").write_text("export const = broken;")
    script = f'import "{(tmp_path / "beside.ts").as_uri()}";'
    (told,) = await problems(house, script)
    assert "lies outside of the task's folder" in told
    granted = [{"path": str(tmp_path / "beside.ts"), "permission": "r"}]
    (told,) = await problems(house, script, fs=granted)
    assert "beside.ts" in told
    assert "outside" not in told


async def test_an_endless_file_does_not_fill_the_machine(house: RuntimeHouse) -> None:
    """The device of the machine would be read until the memory is full."""
    (told,) = await problems(house, 'import "file:///dev/zero";')
    assert told


async def test_where_nothing_can_be_held_the_script_is_not_looked_at(tmp_path: Path) -> None:
    bare = Cages("strict", Probe(error="nothing here"))
    async with SpawnExecutor(SystemClock(), cages=bare) as executor:
        runtime = DenoRuntime.for_server(host_of(executor, tmp_path))
        house = RuntimeHouse(runtime, ".ts", executor, tmp_path)
        assert await problems(house, "const x = ;") == []


async def test_a_server_that_ends_meanwhile_ends_the_look(tmp_path: Path) -> None:
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        host = host_of(executor, tmp_path)
    runtime = DenoRuntime.for_server(host)
    house = RuntimeHouse(runtime, ".ts", executor, tmp_path)
    (told,) = await problems(house, "export default 1;")
    assert "the server ends" in told
