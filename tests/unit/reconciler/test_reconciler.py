"""The reconciler over sources that obey the test."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import Event, EventBus
from dicode_mcp.protocols import Health
from dicode_mcp.reconciler import Places, Reconciler, Timing
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.sources.discovery import Limits
from dicode_mcp.testing.sources import FakeLoader, FakeRuntime, FakeSource
from dicode_mcp.testing.waiting import running, until

NEVER = 3600.0


class Told(EventBus):
    """Keeps what was published."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self._events = events

    def publish(self, event: Event) -> None:
        self._events.append(event)


class House:
    """A registry and a reconciler over fake sources."""

    def __init__(self, *sources: FakeSource, patience: float = 0.0, resync: float = NEVER) -> None:
        self.events: list[Event] = []
        bus = Told(self.events)
        clock = SystemClock()
        self.loader = FakeLoader()
        self.runtime = FakeRuntime()
        self.limits = Limits(folders=50)
        self.registry = Registry(bus, clock, [source.name for source in sources])
        self.not_in_force: dict[str, Condition] = {}
        self.reconciler = Reconciler(
            sources,
            self.loader,
            self.registry,
            {"python": self.runtime},
            clock,
            not_in_force=lambda task: [c for i, c in self.not_in_force.items() if i == task.id],
            places=Places(limits=self.limits),
            timing=Timing(resync=resync, patience=patience, first_retry=0.01),
        )

    @asynccontextmanager
    async def living(self) -> AsyncGenerator["House", None]:
        async with running(self.reconciler.run()):
            async with asyncio.timeout(20):
                await self.reconciler.first_pass()
            yield self

    def digest(self, task_id: str) -> str | None:
        entry = self.registry.get(task_id)
        return entry.task.digest if entry and entry.task else None

    def ready(self, task_id: str) -> bool:
        entry = self.registry.get(task_id)
        return entry is not None and entry.ready

    def entry(self, task_id: str) -> Entry:
        entry = self.registry.get(task_id)
        assert entry, f"no task {task_id}"
        return entry

    def ids(self) -> list[str]:
        return [entry.id for entry in self.registry.entries()]


def write(folder: Path, text: str = "name: x\n", script: str = "x = 1\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.yaml").write_text(text)
    (folder / "task.py").write_text(script)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tasks"
    for name in ("hello", "group/deep"):
        write(root / name)
    return root


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "dicode.reconciler")
    return lambda: [record.getMessage() for record in caplog.records]


async def test_the_tasks_of_a_source_are_registered_at_start(
    root: Path, log: Callable[[], list[str]]
) -> None:
    async with House(FakeSource("s", root)).living() as house:
        assert house.ids() == ["group/deep", "hello"]
        entry = house.entry("hello")
        assert entry.task
        assert entry.ready
        assert entry.folder == root / "hello"
        assert f"task/hello registered (hash: {entry.task.short_hash})" in log()
        state = house.registry.source_state("s")
        assert state
        assert state.revision
        assert (state.task_count, state.revision.root) == (2, root)


async def test_a_pass_that_finds_nothing_new_says_and_reads_nothing(
    root: Path, log: Callable[[], list[str]]
) -> None:
    async with House(FakeSource("s", root)).living() as house:
        written = os.stat(root / "hello" / "task.yaml").st_ctime_ns
        # Fresh files are read again each time: their stamps cannot tell of a change yet.
        await until(lambda: SystemClock().now_ms() * 1_000_000 - written > 200_000_000)
        await house.reconciler.sync("s")
        house.events.clear()
        house.loader.loaded.clear()
        said = log()
        await house.reconciler.sync("s")
        assert (house.events, house.loader.loaded) == ([], [])
        assert log() == said


async def test_a_change_in_a_task_folder_reads_that_folder_alone(
    root: Path, log: Callable[[], list[str]]
) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        before, fetches = house.digest("hello"), source.fetches
        house.loader.loaded.clear()
        write(root / "hello", script="x = 2\n")
        source.wake(root / "hello" / "task.py")
        await until(lambda: house.digest("hello") != before)
        assert house.loader.loaded == ["hello"]
        assert source.fetches == fetches
        await until(lambda: any("updated" in line for line in log()))
        assert "file changed: tasks/hello/task.py" in log()
        entry = house.entry("hello")
        assert entry.task
        (updated,) = [line for line in log() if "updated" in line]
        assert updated.startswith(f"task/hello updated (hash: {entry.task.short_hash})  ← ")
        assert updated.endswith("ms")


async def test_a_new_folder_is_found_by_a_change_outside_known_tasks(root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        write(root / "new" / "nested")
        source.wake(root / "new")
        await until(lambda: house.ids() == ["group/deep", "hello", "new/nested"])


async def test_a_task_whose_manifest_is_deleted_is_removed(
    root: Path, log: Callable[[], list[str]]
) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        (root / "hello" / "task.yaml").unlink()
        source.wake(root / "hello" / "task.yaml")
        await until(lambda: house.ids() == ["group/deep"])
        await until(lambda: "task/hello removed" in log())


async def test_a_manifest_that_goes_takes_no_task_below_with_it(root: Path) -> None:
    write(root / "hello" / "inner")
    source = FakeSource("s", root)
    async with House(source, patience=0.02).living() as house:
        assert house.ids() == ["group/deep", "hello", "hello/inner"]
        (root / "hello" / "task.yaml").unlink()
        source.wake(root / "hello" / "task.yaml")
        await until(lambda: house.ids() == ["group/deep", "hello/inner"])


async def test_a_task_made_inside_a_task_is_found(root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        write(root / "hello" / "inner")
        source.wake(root / "hello" / "inner" / "task.yaml")
        await until(lambda: "hello/inner" in house.ids())
        write(root / "hello" / "moved" / "here")
        source.wake(root / "hello" / "moved")
        await until(lambda: "hello/moved/here" in house.ids())


async def test_a_change_inside_an_inner_task_updates_both(root: Path) -> None:
    write(root / "hello" / "inner")
    source = FakeSource("s", root)
    async with House(source).living() as house:
        outer, inner = house.digest("hello"), house.digest("hello/inner")
        fetches = source.fetches
        write(root / "hello" / "inner", script="x = 2\n")
        source.wake(root / "hello" / "inner" / "task.py")
        await until(lambda: house.digest("hello/inner") != inner)
        await until(lambda: house.digest("hello") != outer)
        assert source.fetches == fetches, "no search for an edit of a known task"


async def test_tasks_below_a_folder_that_moved_away_are_removed(tmp_path: Path, root: Path) -> None:
    write(root / "hello" / "sub" / "inner")
    source = FakeSource("s", root)
    async with House(source).living() as house:
        (root / "hello" / "sub").rename(tmp_path / "away")
        source.wake(root / "hello" / "sub")
        await until(lambda: house.ids() == ["group/deep", "hello"])


async def test_a_misnamed_manifest_shows_on_the_source_and_goes(root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:

        def problems() -> list[str]:
            state = house.registry.source_state("s")
            assert state
            return [str(problem) for problem in state.problems]

        wrong = root / "hello" / "inner" / "task.yml"
        wrong.parent.mkdir()
        wrong.write_text("name: x\n")
        source.wake(wrong)
        await until(lambda: any("name it task.yaml" in problem for problem in problems()))
        wrong.rename(wrong.with_suffix(".yaml"))
        source.wake(wrong, wrong.with_suffix(".yaml"))
        await until(lambda: "hello/inner" in house.ids() and not problems())


async def test_the_log_names_every_problem_of_a_file_on_one_line(
    root: Path, log: Callable[[], list[str]]
) -> None:
    source = FakeSource("s", root)
    house = House(source)
    lines = "task.ts:1: first fault\ntask.ts:9: second fault"
    house.runtime.says["hello"] = (Condition(ConditionType.READY, False, "ScriptError", lines),)
    async with house.living():
        broken = "task/hello broken: task.ts:1: first fault; task.ts:9: second fault"
        await until(lambda: broken in log())
        assert [(p.file, p.line, p.message) for p in house.entry("hello").problems] == [
            ("task.ts", 1, "first fault"),
            ("task.ts", 9, "second fault"),
        ]
        house.runtime.says["hello"] = (
            Condition(ConditionType.READY, False, "ScriptError", "\n".join(["é" * 90] * 90)),
        )
        write(root / "hello", script="x = 3\n")
        source.wake(root / "hello" / "task.py")
        await until(lambda: any(line.endswith("… (get_task shows all)") for line in log()))
        assert max(len(line) for line in log()) < 2200


async def test_a_task_that_declares_what_cannot_be_served_is_in_force_and_not_ready(
    root: Path, log: Callable[[], list[str]]
) -> None:
    source = FakeSource("s", root)
    house = House(source)
    missing = Condition(ConditionType.READY, False, "WebhookSecretMissing", "SECRET is not set")
    house.not_in_force["hello"] = missing
    async with house.living():
        assert house.digest("hello")
        assert not house.ready("hello")
        assert not house.entry("hello").kept
        told = "task/hello not ready: SECRET is not set"
        await until(lambda: told in log())
        await house.reconciler.sync("s")
        write(root / "hello", script="x = 2\n")
        source.wake(root / "hello" / "task.py")
        await until(lambda: any("task/hello updated" in line for line in log()))
        assert log().count(told) == 1
        del house.not_in_force["hello"]
        write(root / "hello", script="x = 3\n")
        source.wake(root / "hello" / "task.py")
        await until(lambda: "task/hello mended" in log())


async def test_an_older_version_is_kept_only_when_there_is_one(root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        write(root / "hello", "nme: x\n")
        write(root / "never", "nme: x\n")
        await house.reconciler.sync("s")
        assert house.entry("hello").kept
        assert not house.entry("never").kept
        write(root / "hello", "name: y\n")
        await house.reconciler.sync("s")
        assert not house.entry("hello").kept


async def test_broken_then_mended(root: Path, log: Callable[[], list[str]]) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        before = house.digest("hello")
        write(root / "hello", "nme: x\n")
        source.wake(root / "hello" / "task.yaml")
        await until(lambda: not house.ready("hello"))
        entry = house.entry("hello")
        assert house.digest("hello") == before
        assert [p.path for p in entry.problems] == ["name"]
        ready = find(entry.conditions, ConditionType.READY)
        assert ready
        assert ready.reason == "InvalidSpec"
        assert ready.message == "task.yaml:1: name: is required and missing"
        await house.reconciler.sync("s")
        await house.reconciler.sync("s")
        broken = f"task/hello broken: {ready.message}"
        assert log().count(broken) == 1
        write(root / "hello", "name: y\n")
        source.wake(root / "hello" / "task.yaml")
        await until(lambda: house.ready("hello"))
        assert house.digest("hello") != before
        await until(lambda: "task/hello mended" in log())


async def test_a_file_caught_half_written_changes_nothing(root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source, patience=NEVER).living() as house:
        house.events.clear()
        (root / "hello" / "task.yaml").write_text("")
        (root / "group" / "deep" / "task.yaml").unlink()
        source.wake(root / "hello" / "task.yaml", root / "group" / "deep" / "task.yaml")
        # A later change comes through, so the earlier one has been dealt with.
        write(root / "other")
        source.wake(root / "other")
        await until(lambda: "other" in house.ids())
        assert house.ids() == ["group/deep", "hello", "other"]
        assert all(entry.ready for entry in house.registry.entries())
        await house.reconciler.sync("s")
        assert house.ids() == ["hello", "other"], "who asks for a look gets the truth at once"
        assert not house.ready("hello")


async def test_a_script_that_does_not_compile_keeps_the_old_version(root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        before = house.digest("hello")
        syntax = Condition(ConditionType.READY, False, "SyntaxError", "task.py:3: invalid syntax")
        house.runtime.says["hello"] = (syntax,)
        write(root / "hello", script="def (\n")
        source.wake(root / "hello" / "task.py")
        await until(lambda: not house.ready("hello"))
        assert house.digest("hello") == before
        ready = find(house.entry("hello").conditions, ConditionType.READY)
        assert ready
        assert (ready.reason, ready.message) == (syntax.reason, syntax.message)


async def test_what_the_machine_lacks_shows_and_goes_without_an_edit(root: Path) -> None:
    house = House(FakeSource("s", root))
    house.runtime.state = Health(False, "python is missing; install it")
    async with house.living():
        found = find(house.entry("hello").conditions, ConditionType.RUNTIME)
        assert found
        assert (found.status, found.message) == (False, "python is missing; install it")
        house.runtime.state = Health(True)
        await house.reconciler.sync("s")
        assert find(house.entry("hello").conditions, ConditionType.RUNTIME) is None


async def test_a_runtime_this_server_does_not_have_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x", "name: x\nruntime: cobol\n")
    async with House(FakeSource("s", tmp_path)).living() as house:
        found = find(house.entry("x").conditions, ConditionType.RUNTIME)
        assert found
        assert found.message == "this server has no runtime 'cobol'; it has: python"


async def test_declared_fields_without_effect_show(root: Path) -> None:
    house = House(FakeSource("s", root))
    condition = Condition(ConditionType.NOT_IN_FORCE, True, "Budget", "budget has no effect yet")
    house.not_in_force["hello"] = condition
    async with house.living():
        found = find(house.entry("hello").conditions, ConditionType.NOT_IN_FORCE)
        assert found
        assert found.reason == "Budget"
        assert find(house.entry("group/deep").conditions, ConditionType.NOT_IN_FORCE) is None


async def test_nothing_is_removed_while_a_source_cannot_be_fetched(
    root: Path, log: Callable[[], list[str]]
) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        source.error = DicodeError(Code.SOURCE_NOT_FOUND, "it is away", hint="bring it back")
        state = await house.reconciler.sync("s")
        synced = find(state.conditions, ConditionType.SYNCED)
        assert synced
        assert (synced.status, synced.message) == (False, "it is away; bring it back")
        assert house.ids() == ["group/deep", "hello"]
        fetches = source.fetches
        await until(lambda: source.fetches > fetches + 2)
        assert log().count("source/s failed: it is away; bring it back") == 1
        write(root / "late")
        source.error = None
        await until(lambda: "late" in house.ids())
        await until(lambda: "source/s is back" in log())
        back = house.registry.source_state("s")
        assert back
        assert all(c.status for c in back.conditions)


async def test_a_source_that_never_came_is_not_ready_and_holds_up_no_start(
    tmp_path: Path, root: Path
) -> None:
    away = FakeSource("away", tmp_path / "away")
    away.error = DicodeError(Code.SOURCE_NOT_FOUND, "it is away")
    async with House(away, FakeSource("s", root)).living() as house:
        assert house.ids() == ["group/deep", "hello"]
        state = house.registry.source_state("away")
        assert state
        ready = find(state.conditions, ConditionType.READY)
        assert ready
        assert (ready.status, ready.reason) == (False, "NeverFetched")


async def test_a_slow_source_delays_no_other(tmp_path: Path, root: Path) -> None:
    slow, quick = FakeSource("slow", write(tmp_path / "slow")), FakeSource("quick", root)
    slow.gate.clear()
    house = House(slow, quick)
    async with running(house.reconciler.run()):
        await until(lambda: house.ids() == ["group/deep", "hello"])
        write(root / "new")
        quick.wake(root / "new")
        await until(lambda: "new" in house.ids())
        slow.gate.set()
        await until(lambda: "slow" in house.ids())


async def test_a_source_whose_watch_breaks_is_still_looked_at(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Unwatchable(FakeSource):
        async def changes(self) -> AsyncGenerator[frozenset[Path] | None, None]:
            raise RuntimeError("no watch here")
            yield None

    async with House(Unwatchable("s", root), resync=0.05).living() as house:
        write(root / "late")
        await until(lambda: "late" in house.ids())
    assert "watching failed" in caplog.text


async def test_a_bug_in_reading_one_folder_hides_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(FakeSource("s", root))
    load = house.loader.load

    def trip(folder: Path, **rest: str) -> object:
        if folder.name == "hello":
            raise ZeroDivisionError
        return load(folder, **rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(house.loader, "load", trip)
    async with house.living():
        assert house.ready("group/deep")
        assert "ZeroDivisionError" in str(house.entry("hello").problems[0])


async def test_a_conflict_ends_when_the_first_owner_goes(
    tmp_path: Path, log: Callable[[], list[str]]
) -> None:
    first, second = FakeSource("one", tmp_path / "one"), FakeSource("two", tmp_path / "two")
    for source in (first, second):
        write(source.root / "same", f"name: {source.name}\n")
    async with House(first, second).living() as house:
        assert house.entry("same").source == "one"
        assert [e.source for e in house.registry.contested()] == ["two"]
        await until(lambda: any("task/same conflict: source two" in line for line in log()))
        (first.root / "same" / "task.yaml").unlink()
        first.wake(first.root / "same" / "task.yaml")
        await until(lambda: house.entry("same").source == "two")
        assert house.registry.contested() == ()


async def test_named_sources_do_not_collide(tmp_path: Path) -> None:
    sources = [FakeSource(n, tmp_path / n, namespace=n) for n in ("one", "two")]
    for source in sources:
        write(source.root / "same")
    async with House(*sources).living() as house:
        assert house.ids() == ["one/same", "two/same"]


async def test_a_source_too_large_to_search_keeps_its_tasks_and_shows(root: Path) -> None:
    async with House(FakeSource("s", root)).living() as house:
        # More folders than the limit: what was known in the rest is kept.
        for number in range(60):
            (root / f"a{number:02}").mkdir()
        state = await house.reconciler.sync("s")
        assert house.ids() == ["group/deep", "hello"]
        ready = find(state.conditions, ConditionType.READY)
        assert ready
        assert (ready.status, ready.reason) == (False, "PartlyRead")
        assert "more than 50 folders" in str(state.problems[0])


async def test_a_folder_name_that_is_no_id_is_listed_as_broken(root: Path) -> None:
    write(root / "not an id")
    async with House(FakeSource("s", root)).living() as house:
        entry = house.entry("not an id")
        assert entry.task is None
        assert "rename the folder" in str(entry.problems[0])
        assert "not an id" not in house.loader.loaded


async def test_a_manifest_turned_into_a_link_out_is_not_read(tmp_path: Path, root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        before = house.digest("hello")
        (tmp_path / "outside.yaml").write_text("name: stolen\n")
        (root / "hello" / "task.yaml").unlink()
        (root / "hello" / "task.yaml").symlink_to(tmp_path / "outside.yaml")
        source.wake(root / "hello" / "task.yaml")
        await until(lambda: not house.ready("hello"))
        assert house.digest("hello") == before
        assert "leaves the source" in str(house.entry("hello").problems[0])


async def test_syncing_an_unknown_source_names_the_known_ones(root: Path) -> None:
    async with House(FakeSource("s", root)).living() as house:
        with pytest.raises(DicodeError) as caught:
            await house.reconciler.sync("z")
        assert caught.value.code is Code.SOURCE_NOT_FOUND
        assert "s" in (caught.value.hint or "")


async def test_who_waits_for_a_sync_is_told_when_the_server_stops(root: Path) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        source.gate.clear()
        waiting = asyncio.create_task(house.reconciler.sync("s"))
        await until(lambda: source.fetches > 1)
    with pytest.raises(DicodeError) as caught:
        await waiting
    assert caught.value.code is Code.SHUTTING_DOWN
    with pytest.raises(DicodeError, match="is stopping"):
        await house.reconciler.sync("s")


async def test_a_storm_of_changes_is_logged_in_short(
    root: Path, log: Callable[[], list[str]]
) -> None:
    source = FakeSource("s", root)
    async with House(source).living() as house:
        paths = [write(root / f"n{number:02}") / "task.yaml" for number in range(30)]
        source.wake(*paths)
        await until(lambda: len(house.ids()) == 32)
        changed = [line for line in log() if line.startswith("file changed")]
        assert len(changed) == 21
        assert changed[-1] == "file changed: and 10 more"
