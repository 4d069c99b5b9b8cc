"""Folders edited while the server watches them: real files, real watching, the real loader."""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.events import EventBus, TasksChanged
from dicode_mcp.reconciler import Reconciler, Timing
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.support import not_in_force
from dicode_mcp.testing.sources import FakeRuntime
from dicode_mcp.testing.waiting import running, until

MANIFEST = "name: x\nruntime: python\ntrigger:\n  manual: true\n"


class House:
    """A server's rooms that keep tasks live, over one folder."""

    def __init__(self, root: Path, patience: float = 0.1) -> None:
        self.root = root
        clock = SystemClock()
        self.bus = EventBus()
        self.registry = Registry(self.bus, clock, ["s"])
        loader = TaskLoader(
            runtimes={"python": ("task.py",)},
            environ={},
            home=root.parent,
            data_dir=root.parent / "data",
            config_dir=root.parent,
        )
        self.reconciler = Reconciler(
            [LocalSource("s", root)],
            loader,
            self.registry,
            {"python": FakeRuntime()},
            clock,
            not_in_force=not_in_force,
            timing=Timing(patience=patience),
        )

    @asynccontextmanager
    async def living(self) -> AsyncGenerator["House", None]:
        async with running(self.reconciler.run()):
            async with asyncio.timeout(20):
                await self.reconciler.first_pass()
            yield self

    def ids(self) -> list[str]:
        return [entry.id for entry in self.registry.entries()]

    def entry(self, task_id: str) -> Entry:
        entry = self.registry.get(task_id)
        assert entry, f"no task {task_id}"
        return entry

    def digest(self, task_id: str) -> str:
        task = self.entry(task_id).task
        assert task, f"{task_id} has no version in force"
        return task.digest

    async def settled(self) -> None:
        """Return when watching has begun: edits from now on are told, not found."""
        with self.bus.subscribe() as told:
            write(self.root / "probe")
            async with asyncio.timeout(20):
                async for event in told:
                    if isinstance(event, TasksChanged) and "probe" in event.task_ids:
                        return


def write(folder: Path, manifest: str = MANIFEST, script: str = "def main(): return 1\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text(script)
    (folder / "task.yaml").write_text(manifest)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "tasks" / "hello")
    return tmp_path / "tasks"


async def test_a_saved_script_is_live(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dicode.reconciler")
    async with House(root).living() as house:
        await house.settled()
        before = house.digest("hello")
        write(root / "hello", script="def main(): return 2\n")
        await until(lambda: house.digest("hello") != before)
        await until(lambda: "file changed: tasks/hello/task.py" in caplog.messages)
        short = house.digest("hello")[:6]
        await until(
            lambda: any(
                m.startswith(f"task/hello updated (hash: {short})  ← ") for m in caplog.messages
            )
        )


async def test_an_edit_by_rename_is_live(root: Path) -> None:
    async with House(root).living() as house:
        await house.settled()
        before = house.digest("hello")
        (root / "hello" / ".task.py.tmp").write_text("def main(): return 3\n")
        (root / "hello" / ".task.py.tmp").rename(root / "hello" / "task.py")
        await until(lambda: house.digest("hello") != before)


async def test_an_editor_that_moves_the_old_file_away_first_removes_nothing(root: Path) -> None:
    async with House(root, patience=5).living() as house:
        await house.settled()
        before = house.digest("hello")
        with house.bus.subscribe() as told:
            manifest = root / "hello" / "task.yaml"
            manifest.rename(root / "hello" / "task.yaml~")
            manifest.write_text(MANIFEST.replace("name: x", "name: edited"))
            while house.digest("hello") == before:
                await asyncio.wait_for(told.get(), 20)
                assert house.entry("hello").ready


async def test_a_new_nested_folder_is_live(root: Path) -> None:
    async with House(root).living() as house:
        await house.settled()
        write(root / "a" / "b" / "c")
        await until(lambda: "a/b/c" in house.ids())
        before = house.digest("a/b/c")
        write(root / "a" / "b" / "c", script="def main(): return 4\n")
        await until(lambda: house.digest("a/b/c") != before)


async def test_a_renamed_folder_is_another_task(root: Path) -> None:
    async with House(root).living() as house:
        await house.settled()
        (root / "hello").rename(root / "goodbye")
        await until(lambda: house.ids() == ["goodbye", "probe"])
        before = house.digest("goodbye")
        write(root / "goodbye", script="def main(): return 5\n")
        await until(lambda: house.digest("goodbye") != before)


async def test_a_deleted_folder_and_a_deleted_manifest_are_gone(root: Path) -> None:
    write(root / "second")
    async with House(root).living() as house:
        await house.settled()
        (root / "hello" / "task.yaml").unlink()
        shutil.rmtree(root / "second")
        await until(lambda: house.ids() == ["probe"])


async def test_a_burst_of_edits_ends_in_the_last_state(root: Path) -> None:
    async with House(root).living() as house:
        await house.settled()
        for number in range(200):
            write(root / "hello", script=f"def main(): return {number}\n")
            if number % 20 == 0:
                write(root / f"t{number}")
            if number % 40 == 0:
                shutil.rmtree(root / f"t{number}")
            await asyncio.sleep(0)
        expected = ["hello", "probe", "t100", "t140", "t180", "t20", "t60"]
        await until(lambda: house.ids() == expected)
        other = House(root)
        async with other.living():
            await until(lambda: house.digest("hello") == other.digest("hello"))
        assert all(entry.ready for entry in house.registry.entries())


async def test_a_file_written_in_pieces_never_shows_broken(root: Path) -> None:
    async with House(root, patience=5).living() as house:
        await house.settled()
        before = house.digest("hello")
        with house.bus.subscribe() as told:
            with (root / "hello" / "task.yaml").open("w") as file:
                for piece in ("name: y\nrunt", "ime: python\ntrig", "ger:\n  manual: true\n"):
                    file.write(piece)
                    file.flush()
                    await asyncio.sleep(0)
            while house.digest("hello") == before:
                await asyncio.wait_for(told.get(), 20)
                assert house.entry("hello").ready


async def test_broken_keeps_the_old_version_until_mended(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dicode.reconciler")
    async with House(root).living() as house:
        await house.settled()
        before = house.digest("hello")
        write(root / "hello", MANIFEST.replace("runtime", "runtme"))
        await until(lambda: not house.entry("hello").ready)
        assert house.digest("hello") == before
        ready = find(house.entry("hello").conditions, ConditionType.READY)
        assert ready
        assert "runtme" in ready.message
        assert "runtime" in ready.message
        write(root / "hello", MANIFEST.replace("name: x", "name: mended"))
        await until(lambda: house.entry("hello").ready)
        assert house.digest("hello") != before
        await until(lambda: "task/hello mended" in caplog.messages)
        assert len([m for m in caplog.messages if m.startswith("task/hello broken: ")]) == 1


async def test_a_root_deleted_and_made_again_is_live_again(root: Path) -> None:
    async with House(root).living() as house:
        await house.settled()

        def synced() -> bool:
            state = house.registry.source_state("s")
            found = find(state.conditions, ConditionType.SYNCED) if state else None
            return found is not None and found.status

        # Moved in one step: nothing in it is seen to go, so nothing is removed.
        os.rename(root, root.with_name("away"))
        await until(lambda: not synced())
        assert house.ids() == ["hello", "probe"]
        before = house.digest("hello")
        write(root / "hello", script="def main(): return 6\n")
        await until(synced)
        await until(lambda: house.ids() == ["hello"])
        await until(lambda: house.digest("hello") != before)
        again = house.digest("hello")
        write(root / "hello", script="def main(): return 7\n")
        await until(lambda: house.digest("hello") != again)


async def test_a_root_that_comes_later_is_picked_up(tmp_path: Path) -> None:
    house = House(tmp_path / "tasks")
    async with house.living():
        state = house.registry.source_state("s")
        assert state
        assert not all(condition.status for condition in state.conditions)
        write(house.root / "hello")
        await until(lambda: house.ids() == ["hello"])
        await until(lambda: house.entry("hello").ready)


async def test_a_link_out_of_the_root_is_left_alone(tmp_path: Path, root: Path) -> None:
    write(tmp_path / "outside" / "secret")
    (root / "link").symlink_to(tmp_path / "outside")
    async with House(root).living() as house:
        await house.settled()
        assert house.ids() == ["hello", "probe"]
        state = house.registry.source_state("s")
        assert state
        assert "links are not followed" in str(state.problems[0])
