"""Runs that a process has waited for: as fresh and as confined as any, and thrown away in time."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.executor.standby import Ready, StandbyBounds
from dicode_mcp.protocols import Runtime
from dicode_mcp.runs.model import Payload, RunStatus
from dicode_mcp.spec.model import Permissions, ResourceSpec
from dicode_mcp.testing.cages import strict_cages
from dicode_mcp.testing.forking import QUICK
from dicode_mcp.testing.runtime_house import Ended, RuntimeHouse
from dicode_mcp.testing.waiting import until
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram
from dicode_runtimes.python import PythonRuntime

pytestmark = pytest.mark.skipif(
    not strict_cages().probe.separates, reason="this machine has no namespaces for runs"
)
WAIT_S = 30
PYTHON = {
    "hello": "def main(): return 'hello'\n",
    "leave": """
import builtins, os, sys
seen = [getattr(builtins, "left", None), os.path.exists(os.environ["HOME"] + "/left")]
builtins.left = "by an earlier run"
open(os.environ["HOME"] + "/left", "w").close()
result = seen
""",
    "env": "import os\nresult = [os.environ.get('TOKEN'), os.environ['DICODE_RUN_ID']]\n",
    "read": """
try:
    result = open(params["path"]).read()
except OSError as error:
    result = type(error).__name__
""",
}
DENO = {
    "hello": "export default () => 'hello';\n",
    "leave": """
const file = Deno.env.get("HOME") + "/left";
let there = true;
try { Deno.statSync(file); } catch { there = false; }
const seen = [(globalThis as any).left ?? null, there];
(globalThis as any).left = "by an earlier run";
Deno.writeTextFileSync(file, "");
export default () => seen;
""",
    "env": "export default () => [Deno.env.get('TOKEN') ?? null, Deno.env.get('DICODE_RUN_ID')];\n",
    "read": """
export default async ({ params }: any) => {
  try {
    return Deno.readTextFileSync(await params.get("path"));
  } catch (error) {
    return (error as Error).name;
  }
};
""",
}


class Waiting:
    """A house whose tasks get a process that waits for the next run."""

    def __init__(self, executor: SpawnExecutor, runtime: Runtime, folder: Path) -> None:
        self.executor = executor
        self.runtime = runtime
        self.scripts = PYTHON if isinstance(runtime, PythonRuntime) else DENO
        suffix = ".py" if isinstance(runtime, PythonRuntime) else ".ts"
        self.house = RuntimeHouse(runtime, suffix, executor, folder)

    async def run(self, name: str, **more: object) -> Ended:
        return await self.house.run(self.scripts[name], **more)  # type: ignore[arg-type]

    async def hot(self, name: str, **more: object) -> Ready:
        """Run a task until a process waits for its next run."""
        async with asyncio.timeout(WAIT_S):
            while True:
                await self.run(name, **more)
                try:
                    return await asyncio.wait_for(self._one(), 2)
                except TimeoutError:
                    continue

    async def _one(self) -> Ready:
        await until(lambda: bool(self.executor.standby.waiting()))
        return self.executor.standby.waiting()[0]

    @property
    def taken(self) -> int:
        return self.executor.standby.counted.taken

    @property
    def thrown_away(self) -> list[str]:
        return list(self.executor.standby.counted.thrown_away)


def _python(folder: Path) -> Runtime:
    return PythonRuntime(warm=QUICK)


def _deno(folder: Path) -> Runtime:
    return DenoRuntime(folder / "cache", DenoProgram(os.environ))


@pytest.fixture
def short() -> Iterator[Path]:
    """Give a folder with a short path, as a unix socket needs it."""
    with TemporaryDirectory(prefix="dicode-") as folder:
        yield Path(folder)


@pytest_asyncio.fixture(params=[_python, _deno], ids=["python", "deno"])
async def waiting(short: Path, request: pytest.FixtureRequest) -> AsyncIterator[Waiting]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        kept = PythonRuntime(warm=QUICK).warm()
        assert kept is not None
        await executor.forks.until_ready(*kept)
        yield Waiting(executor, request.param(short), short)


async def test_a_hot_tasks_next_process_waits_and_becomes_its_run(waiting: Waiting) -> None:
    ready = await waiting.hot("hello")
    before = waiting.taken
    ended = await waiting.run("hello")
    assert (ended.value, ended.exit.exit_code, waiting.taken) == ("hello", 0, before + 1)
    with pytest.raises(ProcessLookupError):
        await until(lambda: os.kill(ready.pid, 0))


async def test_a_task_that_ran_once_has_no_process_waiting(waiting: Waiting) -> None:
    await waiting.run("hello")
    assert waiting.executor.standby.waiting() == []
    assert waiting.taken == 0


async def test_nothing_of_a_run_is_left_for_the_next_one(waiting: Waiting) -> None:
    first = await waiting.hot("leave")
    assert (await waiting.run("leave")).value == [None, False]
    second = await waiting.hot("leave")
    assert second.pid != first.pid
    assert (await waiting.run("leave")).value == [None, False]
    assert waiting.thrown_away == []


async def test_a_process_that_waits_holds_no_secret_and_its_run_gets_it(waiting: Waiting) -> None:
    granted = Permissions.model_validate({"env": [{"name": "TOKEN", "secret": "token"}]})
    ready = await waiting.hot("env", permissions=granted, env={"TOKEN": "CANARY-1"})
    for pid in (ready.pid, *_children(ready.pid)):
        assert "CANARY" not in _environment(pid)
        assert "CANARY" not in _memory(pid)
    ended = await waiting.run("env", permissions=granted, env={"TOKEN": "CANARY-2"})
    assert ended.value == ["CANARY-2", ended.scratch.name]
    assert waiting.thrown_away == []


async def test_a_variable_that_counts_as_a_program_starts_is_there_by_then(
    waiting: Waiting,
) -> None:
    granted = Permissions.model_validate({"env": [{"name": "NO_COLOR"}]})
    script = {
        ".py": "import os\nresult = [bool(os.environ['NO_COLOR'])]\n",
        ".ts": "export default () => [Deno.noColor];\n",
    }[waiting.house.script.suffix]
    for _ in range(4):
        ended = await waiting.house.run(script, permissions=granted, env={"NO_COLOR": "1"})
        assert ended.value == [True]


async def test_what_was_mounted_meanwhile_throws_away_what_waits(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waiting.hot("hello")
    # As the kernel's list tells it; to mount something real takes rights the tests may not have.
    monkeypatch.setattr("dicode_mcp.executor.standby.mounts", lambda: 0)
    assert (await waiting.run("hello")).value == "hello"
    assert waiting.thrown_away == ["its sandbox would be another one now"]


async def test_the_script_is_read_when_the_run_begins(waiting: Waiting) -> None:
    await waiting.hot("hello")
    before = waiting.taken
    changed = waiting.scripts["hello"].replace("'hello'", "'changed'")
    assert (await waiting.house.run(changed)).value == "changed"
    assert waiting.taken == before + 1


async def test_other_permissions_throw_away_what_waits(waiting: Waiting, tmp_path: Path) -> None:
    secret = tmp_path / "granted" / "file"
    secret.parent.mkdir()
    secret.write_text("seen")
    payload = Payload(params={"path": str(secret)})
    ready = await waiting.hot("read", payload=payload)
    assert (await waiting.run("read", payload=payload)).value != "seen"
    await waiting.hot("read", payload=payload)
    granted = Permissions.model_validate({"fs": [{"path": str(secret.parent), "permission": "r"}]})
    assert (await waiting.run("read", payload=payload, permissions=granted)).value == "seen"
    assert waiting.thrown_away == ["its task was changed"]
    with pytest.raises(ProcessLookupError):
        await until(lambda: os.kill(ready.pid, 0))


async def test_a_folder_that_was_replaced_throws_away_what_waits(
    waiting: Waiting, tmp_path: Path
) -> None:
    folder = tmp_path / "granted"
    folder.mkdir()
    (folder / "file").write_text("old")
    payload = Payload(params={"path": str(folder / "file")})
    granted = Permissions.model_validate({"fs": [{"path": str(folder), "permission": "r"}]})
    await waiting.hot("read", payload=payload, permissions=granted)
    folder.rename(tmp_path / "away")
    folder.mkdir()
    (folder / "file").write_text("new")
    assert (await waiting.run("read", payload=payload, permissions=granted)).value == "new"
    assert waiting.thrown_away == ["its sandbox would be another one now"]


async def test_what_a_run_used_and_left_is_found_like_any_others(
    waiting: Waiting, tmp_path: Path
) -> None:
    file = tmp_path / "granted" / "file"
    file.parent.mkdir()
    file.write_text("seen")
    payload = Payload(params={"path": str(file)})
    granted = Permissions.model_validate({"fs": [{"path": str(file.parent), "permission": "r"}]})
    await waiting.hot("read", payload=payload, permissions=granted)
    before = waiting.taken
    ended = await waiting.run("read", payload=payload, permissions=granted)
    assert (ended.value, waiting.taken) == ("seen", before + 1)
    assert ended.seen.whole
    assert [access.what for access in ended.seen.accesses] == [str(file.parent)]
    assert (ended.scratch / "home").is_dir()


async def test_a_run_goes_without_when_what_waited_was_killed(waiting: Waiting) -> None:
    ready = await waiting.hot("hello")
    os.kill(ready.pid, signal.SIGKILL)
    await until(lambda: not ready.alive)
    assert (await waiting.run("hello")).value == "hello"
    assert waiting.thrown_away == ["it had ended"]


async def test_what_waits_is_told_apart_from_orphans_and_is_tidied_up(waiting: Waiting) -> None:
    ready = await waiting.hot("hello")
    waiting.executor.standby.tend()
    await waiting.executor.sweep("nobody's")
    assert ready.alive
    folder = ready.launch.policy.scratch
    waiting.executor.standby.close()
    await until(lambda: not folder.exists())
    with pytest.raises(ProcessLookupError):
        await until(lambda: os.kill(ready.pid, 0))


async def test_a_cancelled_run_of_a_process_that_waited_ends_like_any(tmp_path: Path) -> None:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        kept = PythonRuntime(warm=QUICK).warm()
        assert kept is not None
        await executor.forks.until_ready(*kept)
        waiting = Waiting(executor, _python(tmp_path), tmp_path)
        await waiting.hot("hello")
        ended = await waiting.house.run("import time\ntime.sleep(60)\n", limit=0.2, grace=0.2)
        assert waiting.taken >= 1
        assert ended.exit.timed_out
        assert ended.outcome.status is RunStatus.TIMEOUT


@pytest.mark.parametrize(
    ("bounds", "memory"),
    [(StandbyBounds(most=0), None), (StandbyBounds(memory=2**20), 64 * 2**20)],
    ids=["switched off", "a large task"],
)
async def test_nothing_waits_for_a_task_that_is_to_have_none(
    tmp_path: Path, bounds: StandbyBounds, memory: int | None
) -> None:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages(), standby=bounds) as executor:
        kept = PythonRuntime(warm=QUICK).warm()
        assert kept is not None
        await executor.forks.until_ready(*kept)
        waiting = Waiting(executor, _python(tmp_path), tmp_path)
        for _ in range(4):
            ended = await waiting.run("hello", resources=ResourceSpec(memory=memory))
            assert ended.value == "hello"
        assert (waiting.taken, executor.standby.waiting()) == (0, [])


async def test_what_nobody_uses_is_thrown_away(tmp_path: Path) -> None:
    become_subreaper()
    bounds = replace(StandbyBounds(), idle_s=0.0)
    async with SpawnExecutor(SystemClock(), cages=strict_cages(), standby=bounds) as executor:
        kept = PythonRuntime(warm=QUICK).warm()
        assert kept is not None
        await executor.forks.until_ready(*kept)
        waiting = Waiting(executor, _python(tmp_path), tmp_path)
        ready = await waiting.hot("hello")
        executor.standby.tend()
        await until(lambda: not ready.launch.policy.scratch.exists())
        assert waiting.thrown_away == ["nobody has used it"]


def _children(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words]


def _environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text(errors="replace")


def _memory(pid: int) -> str:
    """Give what a process's writable memory holds, as far as it may be seen."""
    found = b""
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
            for line in maps:
                span, rights = line.split()[:2]
                start, end = (int(word, 16) for word in span.split("-"))
                if rights.startswith("rw") and end - start < 2**26:
                    mem.seek(start)
                    found += mem.read(end - start)
    except OSError:
        pass
    return found.decode("latin-1")
