"""Limits on memory, processes and processors, held by control groups, by a look, or from outside.

The last two are for servers that may not make control groups: as anybody but root, or in a
container, and there without namespaces too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.groups import Groups, find
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.runs.model import RunStatus
from dicode_mcp.spec.model import ResourceSpec
from dicode_mcp.testing.cages import this_machine
from dicode_mcp.testing.runtime_house import Ended, RuntimeHouse
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.python import PythonRuntime

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or this_machine().landlock < 3, reason="no cage here"
)
MIB = 2**20
SLEEPERS = """
import os, time
while True:
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
"""
THREADS = """
import threading
go_on = threading.Event()
while True:
    threading.Thread(target=go_on.wait, daemon=True).start()
"""
FLED = """
import os, time
while True:
    if os.fork() == 0:
        os.setsid()
        try:
            if os.fork() == 0:
                time.sleep(60)
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(-1, 0)[1]:
        raise RuntimeError("no more")
"""
BURN = """
import os, time
begun = time.monotonic()
children = []
for _ in range({processes} - 1):
    child = os.fork()
    if child == 0:
        while time.process_time() < {seconds}:
            pass
        os._exit(0)
    children.append(child)
while time.process_time() < {seconds}:
    pass
for child in children:
    os.waitpid(child, 0)
result = time.monotonic() - begun
"""
BUFFERS = """
export default function main() {
  const kept = [];
  while (true) {
    kept.push(new Uint8Array(16 * 1024 * 1024).fill(1));
  }
}
"""


@pytest.fixture(params=["groups", "inside", "outside"])
def probe(request: pytest.FixtureRequest) -> Iterator[Probe]:
    found: Groups | None = None
    given = this_machine()
    if request.param != "outside" and not given.separates:
        pytest.skip("no namespaces here")
    if request.param == "groups":
        found = find(f"r{os.getpid()}-{id(request)}")
        if found is None or found.kinds < {"memory", "pids", "cpu"}:
            pytest.skip("this user may not make control groups here")
    if request.param == "outside":
        given = replace(given, files="no", files_as_root="no")
    yield replace(given, groups=found)
    if found is not None:
        found.close()


@pytest_asyncio.fixture
async def executor(probe: Probe) -> AsyncIterator[SpawnExecutor]:
    become_subreaper()
    cages = Cages("strict", probe, Ceilings(1024 * MIB, 48, 1.0))
    async with SpawnExecutor(SystemClock(), cages=cages) as made:
        yield made


@pytest.fixture
def house(executor: SpawnExecutor, tmp_path: Path) -> RuntimeHouse:
    return RuntimeHouse(PythonRuntime(), ".py", executor, tmp_path)


def said(ended: Ended) -> str:
    error = ended.outcome.error
    assert error is not None, ended.outcome
    return f"{error.message}; {error.hint}"


@pytest.mark.parametrize("script", [SLEEPERS, THREADS, FLED], ids=["forks", "threads", "fled"])
async def test_too_many_processes_are_not_had_and_the_end_names_the_limit(
    house: RuntimeHouse, script: str
) -> None:
    ended = await house.run(script, resources=ResourceSpec(pids=32))
    assert ended.outcome.status is RunStatus.FAILURE
    assert ended.outcome.reason in ("pids_limit", "script_error")
    assert "limit of 32 processes and threads" in said(ended)
    assert "resources.pids" in said(ended)
    if ended.outcome.reason == "pids_limit":
        assert "execution.max_pids" in said(ended)


async def test_the_server_s_own_limit_of_processes_holds_where_a_task_names_none(
    house: RuntimeHouse,
) -> None:
    ended = await house.run(SLEEPERS, resources=ResourceSpec(pids=4096))
    assert "limit of 48 processes and threads" in said(ended)


@pytest.mark.slow
async def test_memory_of_all_processes_counts_together(house: RuntimeHouse) -> None:
    script = """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                kept = bytearray(os.urandom(1024)) * (32 * 1024)
                time.sleep(60)
                os._exit(0)
        time.sleep(60)
    """
    ended = await house.run(script, resources=ResourceSpec(memory=128 * MIB), limit=8)
    # The kernel's groups of version 1 end one process at a time, until the rest fits.
    assert ended.outcome.reason in ("memory_limit", "timeout")
    assert "memory limit 128 MiB" in said(ended)


async def test_memory_outside_of_the_heap_counts(executor: SpawnExecutor, tmp_path: Path) -> None:
    program = DenoProgram(os.environ)
    if not program.health.ok:
        pytest.skip("no deno here")
    house = RuntimeHouse(DenoRuntime(tmp_path / "cache", program), ".ts", executor, tmp_path)
    ended = await house.run(BUFFERS, resources=ResourceSpec(memory=256 * MIB), limit=60)
    assert ended.outcome.reason == "memory_limit", ended.outcome
    assert "memory limit 256 MiB" in said(ended)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 3])
async def test_a_part_of_a_processor_is_all_a_run_gets(house: RuntimeHouse, processes: int) -> None:
    script = BURN.format(processes=processes, seconds=0.6 / processes)
    ended = await house.run(script, resources=ResourceSpec(cpu=0.2))
    # 0.6 seconds' work takes 3 at a fifth; a machine that is busy makes it longer, never shorter.
    assert ended.value > 1.5


@pytest.mark.slow
async def test_a_run_that_takes_too_long_for_its_part_of_a_processor_says_so(
    house: RuntimeHouse,
) -> None:
    ended = await house.run(
        BURN.format(processes=1, seconds=60), resources=ResourceSpec(cpu=0.05), limit=4
    )
    assert ended.outcome.status is RunStatus.TIMEOUT
    assert "limit of 0.05 processors: raise resources.cpu" in said(ended)


async def test_a_run_within_its_limits_is_told_of_none(house: RuntimeHouse) -> None:
    limits = ResourceSpec(memory=512 * MIB, pids=32, cpu=1)
    ended = await house.run("result = 'well'", resources=limits)
    assert ended.value == "well"
    assert (ended.exit.limit, ended.exit.pressed) == (None, None)
    failed = await house.run("raise ValueError('x')", resources=limits)
    assert "limit" not in said(failed)
