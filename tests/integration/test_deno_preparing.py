"""Packages fetched and types checked beside the registry, with a package registry of our own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.events import EventBus
from dicode_mcp.executor import SpawnExecutor, become_subreaper
from dicode_mcp.preparer import Preparer
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.cages import strict_cages
from dicode_mcp.testing.npm import FakeRegistry, npm_registry
from dicode_mcp.testing.runtime_house import INSTANCE, RuntimeHouse
from dicode_mcp.testing.waiting import running, until
from dicode_runtimes.deno import DenoRuntime
from dicode_runtimes.deno.program import DenoProgram

DENO = DenoProgram(os.environ)
pytestmark = pytest.mark.skipif(not DENO.health.ok, reason=DENO.health.message or "-")

READY = Condition(ConditionType.READY, True, "Loaded")


class Workshop:
    """A registry and the preparer that follows it, with one task of a Deno house."""

    def __init__(self, house: RuntimeHouse, npm: FakeRegistry, root: Path) -> None:
        self.house = house
        self.npm = npm
        self.bus = EventBus()
        self.clock = SystemClock()
        self.registry = Registry(self.bus, self.clock, ["local"])
        self.root = root

    def preparer(self) -> Preparer:
        return Preparer(
            registry=self.registry,
            runtimes={"deno": self.house.runtime},
            executor=self.house.executor,
            bus=self.bus,
            clock=self.clock,
            scratch=self.root / "scratch",
            instance_id=INSTANCE,
        )

    def register(self, script: str) -> Task:
        assert self.house.check(script) == []
        task = self.house.task()
        self.registry.apply("local", put=[Entry(task.id, "local", task.folder, task, (READY,))])
        return task

    def condition(self, kind: ConditionType) -> Condition | None:
        entry = self.registry.get("test")
        assert entry is not None
        return find(entry.conditions, kind)

    def prepared(self, task: Task) -> bool:
        runtime = self.house.runtime
        assert isinstance(runtime, DenoRuntime)
        return runtime.prepared(task) is not None


@pytest.fixture
def npm() -> Iterator[FakeRegistry]:
    with npm_registry() as registry:
        yield registry


@pytest_asyncio.fixture
async def workshop(npm: FakeRegistry, tmp_path: Path) -> AsyncIterator[Workshop]:
    become_subreaper()
    program = DenoProgram({**os.environ, "NPM_CONFIG_REGISTRY": npm.url})
    async with SpawnExecutor(SystemClock(), cages=strict_cages()) as executor:
        house = RuntimeHouse(DenoRuntime(tmp_path / "cache", program), ".ts", executor, tmp_path)
        yield Workshop(house, npm, tmp_path)


PAD = 'import { pad } from "npm:zz-pad@1";\nexport default () => pad("x");\n'


@pytest.mark.slow
async def test_a_package_is_fetched_at_registration_and_the_run_needs_no_network(
    workshop: Workshop,
) -> None:
    workshop.npm.add("zz-pad", "export const pad = (text) => `--${text}`;")
    task = workshop.register(PAD)
    async with running(workshop.preparer().run()):
        await until(lambda: workshop.prepared(task), 60)
        await until(lambda: workshop.condition(ConditionType.DEPENDENCIES) is None)
    asked = len(workshop.npm.asked)
    assert asked > 0
    assert (await workshop.house.run(PAD)).value == "--x"
    assert len(workshop.npm.asked) == asked
    assert list((workshop.root / "scratch").iterdir()) == []


async def test_a_package_that_does_not_exist_is_told_with_line_and_remedy(
    workshop: Workshop,
) -> None:
    workshop.register(f"// a comment\n{PAD}")

    def told() -> str:
        found = workshop.condition(ConditionType.DEPENDENCIES)
        return found.message if found and found.reason == "PreparationFailed" else ""

    async with running(workshop.preparer().run()):
        await until(told, 60)
    assert told().startswith("task.ts:2: npm package 'zz-pad' does not exist")
    assert "correct the package's name" in told()


async def test_while_packages_are_fetched_the_task_says_so(workshop: Workshop) -> None:
    task = workshop.register(PAD)
    runtime = workshop.house.runtime
    assert isinstance(runtime, DenoRuntime)
    (shown,) = runtime.awaiting(task)
    assert (shown.type, shown.status, shown.reason) == (
        ConditionType.DEPENDENCIES,
        False,
        "Preparing",
    )
    assert "npm:zz-pad@1" in shown.message


@pytest.mark.slow
async def test_types_are_checked_once_and_a_mended_script_loses_the_condition(
    workshop: Workshop,
) -> None:
    wrong = (
        "export default async function main({ params }: DicodeSdk) {\n"
        "  const n: number = 'text';\n  return params.gett(n);\n}\n"
    )
    workshop.register(wrong)
    async with running(workshop.preparer().run()):
        await until(lambda: workshop.condition(ConditionType.TYPES), 60)
        told = workshop.condition(ConditionType.TYPES)
        assert told is not None
        assert told.message.splitlines()[0].startswith("task.ts:2: TS2322 ")
        assert "task.ts:3: TS2551 Property 'gett' does not exist on type 'DicodeParams'" in (
            told.message
        )
        entry = workshop.registry.get("test")
        assert entry is not None
        assert entry.ready
        # It runs all the same.
        ended = await workshop.house.run(wrong)
        assert "gett is not a function" in str(ended.outcome.error)
        task = workshop.register("export default ({ params }: DicodeSdk) => params.all();\n")
        await until(lambda: workshop.prepared(task), 60)
        await until(lambda: workshop.condition(ConditionType.TYPES) is None)


@pytest.mark.slow
async def test_what_was_checked_is_known_after_a_restart(workshop: Workshop) -> None:
    workshop.register("const n: number = 'text';\nresult = n;\n")
    async with running(workshop.preparer().run()):
        await until(lambda: workshop.condition(ConditionType.TYPES), 60)
    workshop.registry.set_conditions("test", "preparer", ())
    runtime = workshop.house.runtime
    assert isinstance(runtime, DenoRuntime)

    async def refuse(*_: object) -> None:
        raise AssertionError("nothing is to be done")

    runtime.make_ready = refuse  # type: ignore[method-assign]  # pyright: ignore
    async with running(workshop.preparer().run()):
        await until(lambda: workshop.condition(ConditionType.TYPES))


async def test_a_plain_script_may_use_the_names_without_type_errors(workshop: Workshop) -> None:
    task = workshop.register(
        "const name: string = await params.get('name', 'x');\n"
        "await kv.set('a', [1]);\nawait output.html('<b>', { data: 1 });\n"
        "log.info(name, input, request?.headers, env.get('A'));\n"
        "await output({ a: 1 });\nresult = await dicode.run_task('x', { y: 1 });\n"
    )
    async with running(workshop.preparer().run()):
        await until(lambda: workshop.prepared(task), 60)
        await asyncio.sleep(0)
    assert workshop.condition(ConditionType.TYPES) is None
