"""Scripts that name their dependencies: real uv, real runs, and a package index of our own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.preparer import Preparer
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.cages import strict_cages
from dicode_mcp.testing.forking import QUICK
from dicode_mcp.testing.runtime_house import INSTANCE, RuntimeHouse
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.testing.wheels import FakeIndex, wheel_index
from dicode_runtimes.python import PythonRuntime
from dicode_runtimes.shared import DEFAULT_PATH
from dicode_runtimes.uv import Environments, ScriptEnvironments, UvProgram
from dicode_runtimes.uv.environments import KEPT_UNUSED_MS

pytestmark = pytest.mark.skipif(not UvProgram({}).health.ok, reason="uv is not installed")

READY = Condition(ConditionType.READY, True, "Loaded")
SCRIPT = """\
# /// script
# requires-python = ">=3.11"
# dependencies = ["zz-branch"]
# ///
import zz_branch
result = zz_branch.VALUE
"""


class Workshop:
    """A registry and the preparer that follows it, with one Python task and an index."""

    def __init__(self, index: FakeIndex, executor: SpawnExecutor, root: Path) -> None:
        self.index = index
        self.root = root
        self.environments = Environments(root / "cache" / "uv")
        # As pip's own setting, which people have; whatever else the machine has set is left out.
        uv = UvProgram({"PIP_INDEX_URL": index.url, "UV_HTTP_RETRIES": "0", "UV_NO_CONFIG": "1"})
        self.scripts = ScriptEnvironments(self.environments, uv, DEFAULT_PATH)
        self.runtime = PythonRuntime(warm=QUICK, environments=self.scripts)
        self.house = RuntimeHouse(self.runtime, ".py", executor, root)
        self.bus = EventBus()
        self.registry = Registry(self.bus, SystemClock(), ["local"])

    def preparer(self) -> Preparer:
        return Preparer(
            registry=self.registry,
            runtimes={"python": self.runtime},
            executor=self.house.executor,
            bus=self.bus,
            clock=SystemClock(),
            scratch=self.root / "scratch",
            instance_id=INSTANCE,
        )

    def register(self, script: str) -> Task:
        assert self.house.check(script) == []
        task = self.house.task()
        self.registry.apply("local", put=[Entry(task.id, "local", task.folder, task, (READY,))])
        return task

    async def prepare(self, script: str) -> Task:
        """Register a script and have its environment made."""
        task = self.register(script)
        async with running(self.preparer().run()):
            await until(lambda: self.prepared(task) or self.failed(), 20)
            assert self.failed() is None
            await until(lambda: self.condition(ConditionType.DEPENDENCIES) is None)
        return task

    async def failure(self, script: str) -> Condition:
        """Register a script whose environment cannot be made; give what is told."""
        self.register(script)

        async with running(self.preparer().run()):
            await until(self.failed, 20)
        found = self.failed()
        assert found is not None
        return found

    def failed(self) -> Condition | None:
        found = self.condition(ConditionType.READY)
        return found if found and found.reason == "DependencyError" else None

    def prepared(self, task: Task) -> bool:
        return self.runtime.prepared(task) is not None

    def python(self, task: Task) -> str:
        block = self.scripts.block(task)
        found = self.environments.ready(block) if block else None
        assert found is not None
        return found.python

    def condition(self, kind: ConditionType) -> Condition | None:
        entry = self.registry.get("test")
        assert entry is not None
        return find(entry.conditions, kind)


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with wheel_index() as index:
        yield index


@pytest_asyncio.fixture
async def workshop(index: FakeIndex, tmp_path: Path) -> AsyncIterator[Workshop]:
    become_subreaper()
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        yield Workshop(index, executor, tmp_path)


def offer(index: FakeIndex) -> None:
    index.add("zz_leaf", "VALUE = 'from the leaf'\n")
    index.add("zz_branch", "from zz_leaf import VALUE\n", requires=["zz-leaf>=1"])


async def test_packages_are_installed_at_registration_and_runs_need_no_index(
    workshop: Workshop,
) -> None:
    offer(workshop.index)
    task = await workshop.prepare(SCRIPT)
    asked = len(workshop.index.asked)
    assert asked > 0
    workshop.index.down = True
    assert (await workshop.house.run(SCRIPT)).value == "from the leaf"
    # That run began a fork server of its environment; the next one is a fork of it.
    python = workshop.python(task)
    server = await workshop.house.executor.forks.until_ready(python, QUICK)
    assert (await workshop.house.run(SCRIPT)).value == "from the leaf"
    assert server.forks == 1
    assert len(workshop.index.asked) == asked
    assert list((workshop.root / "scratch").iterdir()) == []


async def test_another_script_with_the_same_block_has_its_environment_at_once(
    workshop: Workshop,
) -> None:
    offer(workshop.index)
    await workshop.prepare(SCRIPT)
    workshop.index.down = True
    other = SCRIPT + "result = result.upper()\n"
    assert workshop.house.check(other) == []
    assert workshop.prepared(workshop.house.task())
    assert (await workshop.house.run(other)).value == "FROM THE LEAF"


async def test_the_environment_holds_what_the_block_names_and_nothing_of_the_servers(
    workshop: Workshop,
) -> None:
    offer(workshop.index)
    script = SCRIPT + (
        "import importlib.util, sys\n"
        "result = [name for name in ('mcp', 'pydantic', 'dicode_mcp', 'dicode_sdk')\n"
        "          if importlib.util.find_spec(name)]\n"
    )
    await workshop.prepare(script)
    assert (await workshop.house.run(script)).value == ["dicode_sdk"]


async def test_a_package_that_is_not_there_is_told_with_line_and_uvs_words(
    workshop: Workshop,
) -> None:
    told = await workshop.failure(f"# a comment\n{SCRIPT}")
    assert told.message.startswith("task.py:2: No solution found")
    assert "zz-branch was not found" in told.message
    assert "correct the `# /// script` block" in told.message
    with pytest.raises(DicodeError) as caught:
        await workshop.house.run(f"# a comment\n{SCRIPT}")
    assert caught.value.code is Code.TASK_NOT_READY


async def test_a_package_without_a_wheel_is_refused_and_its_setup_is_not_run(
    workshop: Workshop, tmp_path: Path
) -> None:
    proof = tmp_path / "cache" / "uv" / "it-ran"
    workshop.index.add_source("zz_branch", f"open({str(proof)!r}, 'w')\n")
    told = await workshop.failure(SCRIPT)
    assert "only wheels are installed" in told.message
    assert not proof.exists()


async def test_an_interpreter_that_is_not_there_is_told(workshop: Workshop) -> None:
    offer(workshop.index)
    told = await workshop.failure(SCRIPT.replace(">=3.11", ">=3.99"))
    assert "3.99" in told.message
    assert "requires-python" in told.message


async def test_an_index_that_is_down_is_asked_again_later(workshop: Workshop) -> None:
    workshop.index.down = True
    told = await workshop.failure(SCRIPT)
    assert "it is tried again by itself" in told.message


async def test_while_packages_are_installed_the_task_says_so(workshop: Workshop) -> None:
    task = workshop.register(SCRIPT)
    (shown,) = workshop.runtime.awaiting(task)
    assert (shown.type, shown.status, shown.reason) == (
        ConditionType.DEPENDENCIES,
        False,
        "Preparing",
    )
    assert shown.message.startswith("task.py:1: installing zz-branch")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("x = 1\n# /// script\n# dependencies = [oops]\n# ///\n", "task.py:2: the `# /// script`"),
        ("# /// script\n# dependencies = 'httpx'\n# ///\n", "task.py:1: dependencies is a list"),
        ("# /// script\n# dependencies = []\nx = 1\n", "task.py:1: the `# /// script` block does"),
        ("# /// script\n# dependancies = []\n# ///\n", "task.py:1: the `# /// script` block has"),
        ("# /// script\n# ///\n\n# /// script\n# ///\n", "task.py:4: a second"),
    ],
)
async def test_a_block_that_cannot_be_read_is_told_with_its_line(
    workshop: Workshop, script: str, says: str
) -> None:
    (told,) = workshop.house.check(script)
    assert (told.reason, told.status) == ("ScriptError", False)
    assert told.message.startswith(says)


async def test_an_environment_goes_a_day_after_its_last_task(workshop: Workshop) -> None:
    offer(workshop.index)
    task = await workshop.prepare(SCRIPT)
    now = SystemClock().now_ms()
    workshop.runtime.tidy([task], now)
    workshop.runtime.tidy([], now + KEPT_UNUSED_MS - 60_000)
    assert workshop.prepared(task)
    workshop.runtime.tidy([], now + KEPT_UNUSED_MS + 60_000)
    assert not workshop.prepared(task)
    assert list((workshop.environments.root / "blocks").iterdir()) == []
    kept = workshop.environments.root / "cache" / "environments-v2"
    assert [each for each in kept.iterdir() if each.is_dir()] == []


async def test_an_environment_whose_files_are_gone_is_made_again(workshop: Workshop) -> None:
    offer(workshop.index)
    task = await workshop.prepare(SCRIPT)
    shutil.rmtree(workshop.environments.root / "cache")
    assert not workshop.prepared(task)
    await workshop.prepare(SCRIPT)
    assert (await workshop.house.run(SCRIPT)).value == "from the leaf"


def test_the_sites_settings_reach_uv_and_nothing_else_does(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".config" / "uv").mkdir(parents=True)
    uv = UvProgram(
        {
            "HOME": str(home),
            "PIP_INDEX_URL": "https://user:word@pypi.example:8443/simple",
            "UV_INDEX": "inner=http://10.0.0.7/simple",
            "UV_INDEX_INNER_PASSWORD": "word",
            "https_proxy": "http://proxy.example:3128",
            "API_TOKEN": "secret",
            "UV_PUBLISH_TOKEN": "secret",
        }
    )
    env = uv.environment(tmp_path / "uv", "/usr/bin")
    assert env["UV_DEFAULT_INDEX"] == "https://user:word@pypi.example:8443/simple"
    assert env["UV_INDEX_INNER_PASSWORD"] == "word"
    assert env["UV_SYSTEM_CERTS"] == "1"
    assert env["XDG_CONFIG_HOME"] == str(home / ".config")
    assert "secret" not in env.values()
    assert uv.hosts() == ("pypi.example:8443", "10.0.0.7:80", "proxy.example:3128")
    assert uv.folders() == (home / ".config" / "uv",)
