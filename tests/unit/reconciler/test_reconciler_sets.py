"""The reconciler over sets: live folders, the real loader, repositories that obey the test."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.events import EventBus
from dicode_mcp.protocols import DevMode, Revision
from dicode_mcp.reconciler import Outside, Places, Reconciler, Timing
from dicode_mcp.registry import Entry, Registry, ShownDev
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.documents import read_set
from dicode_mcp.spec.taskset.resolution import Trust
from dicode_mcp.spec.withheld import Withheld
from dicode_mcp.testing.checkouts import FakeCheckouts
from dicode_mcp.testing.sources import FakeRuntime, FakeSource
from dicode_mcp.testing.waiting import running, until

URL = "https://git.example.org/team/repo"
TASK = "name: x\nruntime: python\ntrigger: {manual: true}\n"
NEVER = 3600.0


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        if path.name == "task.yaml" and not (path.parent / "task.py").exists():
            (path.parent / "task.py").write_text("result = 1\n")


class Watched(LocalSource):
    """A folder that tells when its watch stands and "look at everything" was heard."""

    def __init__(self, name: str, root: Path, standing: asyncio.Event) -> None:
        super().__init__(name, root)
        self._standing = standing

    async def changes(self) -> AsyncGenerator[frozenset[Path] | None, None]:
        async with aclosing(super().changes()) as batches:
            async for batch in batches:
                yield batch
                self._standing.set()


class House:
    """One source over real files, watched for real."""

    def __init__(self, root: Path, *, source: LocalSource | FakeSource | None = None) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        clock = SystemClock()
        self.bus = EventBus()
        self.withheld = Withheld()
        self.checkouts = FakeCheckouts()
        self.waits: dict[str, Condition] = {}
        self.asked: list[tuple[str, Trust]] = []
        self.registry = Registry(self.bus, clock, ["s"])
        self.loads: list[str] = []
        self.watching = asyncio.Event()
        self.source = source or Watched("s", root, self.watching)
        loader = TaskLoader(
            runtimes={"python": ("task.py",)},
            environ={},
            home=root.parent,
            data_dir=root.parent / "data",
            config_dir=root.parent,
            withheld=self.withheld,
        )
        self.load, loader.load = loader.load, self._counted  # pyright: ignore[reportAttributeAccessIssue]
        self.reconciler = Reconciler(
            [self.source],
            loader,
            self.registry,
            {"python": FakeRuntime()},
            clock,
            places=Places(frozenset({"laptop"}), root.parent, self.checkouts),
            outside=Outside(loader.read, self.checkouts, withhold=self.withheld.put),
            inline_dir=root.parent / "data" / "inline",
            gate=self._gate,
            timing=Timing(resync=NEVER, patience=0.05, first_retry=0.01),
        )

    def _counted(self, folder: Path, **rest: str) -> Task:
        self.loads.append(rest["task_id"])
        return self.load(folder, **rest)  # pyright: ignore[reportArgumentType]

    def _gate(self, task: Task, trust: Trust) -> Condition | None:
        self.asked.append((task.id, trust))
        return self.waits.get(task.id)

    @asynccontextmanager
    async def living(self) -> AsyncGenerator["House"]:
        async with running(self.reconciler.run()):
            async with asyncio.timeout(20):
                await self.reconciler.first_pass()
                if isinstance(self.source, Watched):
                    await self.watching.wait()
                    await self.reconciler.sync("s")
            yield self

    def write(self, files: dict[str, str]) -> None:
        write(self.root, files)

    def repository(self, files: dict[str, str], commit: str, *, fetched: bool = True) -> None:
        folder = self.root.parent / "checkouts" / commit[:4]
        write(folder, files)
        self.checkouts.put(URL, folder, commit, fetched=fetched)

    def ids(self) -> list[str]:
        return [entry.id for entry in self.registry.entries()]

    def entry(self, task_id: str) -> Entry:
        entry = self.registry.get(task_id)
        assert entry, f"no task {task_id} among {self.ids()}"
        return entry

    def timeout(self, task_id: str) -> float | None:
        entry = self.registry.get(task_id)
        return entry.task.spec.timeout if entry and entry.task else None

    def condition(self, kind: ConditionType, task_id: str = "") -> Condition:
        """Give a condition of a task, or of the source."""
        state = self.registry.source_state("s")
        assert state
        found = find(self.entry(task_id).conditions if task_id else state.conditions, kind)
        assert found, kind
        return found


def entries(*lines: str) -> str:
    return "kind: TaskSet\nspec:\n  entries:\n" + "".join(f"    {line}\n" for line in lines)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "infra")
    house.write(
        {
            "taskset.yaml": entries(
                "a: {ref: {path: tasks/a}}", "m: {ref: {path: m}, overrides: {timeout: 5s}}"
            ),
            "m/taskset.yaml": entries("b: {ref: {path: b}}", "c: {ref: {path: ../tasks/a}}"),
            "m/b/task.yaml": TASK,
            "tasks/a/task.yaml": TASK,
        }
    )
    return house


async def test_a_set_is_found_by_looking_and_in_force(house: House) -> None:
    async with house.living():
        assert house.ids() == ["infra/a", "infra/m/b", "infra/m/c"]
        assert (house.timeout("infra/a"), house.timeout("infra/m/b")) == (60, 5)
        assert house.condition(ConditionType.READY).status


async def test_an_override_saved_is_live_and_reads_no_other_task(house: House) -> None:
    async with house.living():
        house.loads.clear()
        text = entries(
            "# a new first line moves every other",
            "a: {ref: {path: tasks/a}, overrides: {timeout: 7s}}",
            "m: {ref: {path: m}, overrides: {timeout: 5s}}",
        )
        house.write({"taskset.yaml": text})
        await until(lambda: house.timeout("infra/a") == 7)
        assert set(house.loads) == {"infra/a"}


async def test_what_this_server_does_not_take_is_shown_with_why(house: House) -> None:
    house.write({"taskset.yaml": entries(
        "a: {ref: {path: tasks/a}, hosts: [elsewhere]}",
        "m: {ref: {path: tasks/a}, enabled: false}",
    )})  # fmt: skip
    async with house.living():
        state = house.registry.source_state("s")
        assert state
        assert state.off == (
            ("infra/a", "its hosts name other servers (taskset.yaml:4)"),
            ("infra/m", "it is switched off (taskset.yaml:5)"),
        )
        error = house.registry.unknown_task("infra/a")
        assert "its hosts name other servers" in error.message


async def test_entries_come_and_go_with_the_set(house: House) -> None:
    async with house.living():
        house.write({"m/taskset.yaml": entries("new: {ref: {path: b}}")})
        await until(lambda: house.ids() == ["infra/a", "infra/m/new"])


async def test_a_task_that_two_entries_share_is_live_in_both(house: House) -> None:
    async with house.living():
        before = {i: house.entry(i).task for i in ("infra/a", "infra/m/c")}
        (house.root / "tasks" / "a" / "task.py").write_text("result = 2\n")
        await until(lambda: all(house.entry(i).task != before[i] for i in before))


async def test_a_broken_nested_set_keeps_its_tasks_and_shows(house: House) -> None:
    async with house.living():
        before = house.entry("infra/m/b").task
        house.write({"m/taskset.yaml": "kind: TaskSet\nspec: {entriez: {}}\n"})
        await until(lambda: not house.entry("infra/m/b").ready)
        assert house.entry("infra/m/b").task is before
        assert house.entry("infra/m/c").task
        assert house.entry("infra/a").ready
        told = house.condition(ConditionType.READY, "infra/m/b")
        assert told.reason == "InvalidSet"
        assert "m/taskset.yaml:2: spec.entriez: unknown key" in told.message
        assert not house.condition(ConditionType.READY).status
        state = house.registry.source_state("s")
        assert state
        assert "m/taskset.yaml:2" in str(state.problems[0])
        house.write({"m/taskset.yaml": entries("b: {ref: {path: b}}")})
        await until(lambda: house.ids() == ["infra/a", "infra/m/b"])
        assert house.entry("infra/m/b").ready
        assert house.condition(ConditionType.READY).status


async def test_a_broken_root_keeps_everything(house: House) -> None:
    async with house.living():
        house.write({"taskset.yaml": "kind: TaskSet\nspec: ["})
        await until(lambda: not house.entry("infra/a").ready)
        assert house.ids() == ["infra/a", "infra/m/b", "infra/m/c"]
        assert all(entry.task and not entry.ready for entry in house.registry.entries())


async def test_a_set_that_was_never_good_is_listed_with_its_error(tmp_path: Path) -> None:
    house = House(tmp_path / "infra")
    house.write({"taskset.yaml": entries("m: {ref: {path: m}}", "x: {ref: {path: x}}")})
    house.write({"m/taskset.yaml": "kind: TaskSet\nspec: {entriez: {}}\n"})
    async with house.living():
        assert house.ids() == ["infra/m", "infra/x"]
        assert house.condition(ConditionType.READY, "infra/m").reason == "InvalidSet"
        assert house.condition(ConditionType.READY, "infra/x").reason == "NotFound"
        write(house.root, {"x/task.yaml": TASK})
        await until(lambda: house.entry("infra/x").ready)


async def test_a_set_caught_half_written_changes_nothing(house: House) -> None:
    async with house.living():
        text = (house.root / "taskset.yaml").read_text()
        with house.bus.subscribe() as told:
            (house.root / "taskset.yaml").write_text(text[:40])
            (house.root / "taskset.yaml").write_text(text + "    z: {ref: {path: m/b}}\n")
            await until(lambda: "infra/z" in house.ids())
            assert house.ids() == ["infra/a", "infra/m/b", "infra/m/c", "infra/z"]
            assert all(entry.ready for entry in house.registry.entries())
            assert told.lost == 0


async def test_a_task_whose_manifest_goes_is_broken_not_removed(house: House) -> None:
    async with house.living():
        (house.root / "m" / "b" / "task.yaml").unlink()
        await until(lambda: not house.entry("infra/m/b").ready)
        assert house.entry("infra/m/b").task
        assert house.condition(ConditionType.READY, "infra/m/b").reason == "NotFound"
        house.write({"m/b/task.yaml": TASK + "timeout: 1s\n"})
        await until(lambda: house.entry("infra/m/b").ready)


async def test_a_folder_outside_the_source_is_watched(house: House, tmp_path: Path) -> None:
    write(tmp_path / "far", {"t/task.yaml": TASK})
    text = (house.root / "taskset.yaml").read_text()
    house.write({"taskset.yaml": text + "    far: {ref: {path: ../far/t}}\n"})
    async with house.living():
        assert house.timeout("infra/far") == 60

        def edited() -> bool:
            # again until the watch, which opens after the first look, has seen one
            write(tmp_path / "far", {"t/task.yaml": TASK + "timeout: 4s\n"})
            return house.timeout("infra/far") == 4

        await until(edited)


async def test_a_sets_file_as_a_source_follows_what_it_names(tmp_path: Path) -> None:
    root = tmp_path / "infra"
    root.mkdir()
    house = House(root, source=LocalSource("s", root / "prod.yaml"))
    house.write({"prod.yaml": entries("a: {ref: {path: tasks/a}}"), "tasks/a/task.yaml": TASK})
    house.write({"unrelated/task.yaml": TASK})
    async with house.living():
        assert house.ids() == ["prod/a"]

        def edited() -> bool:
            house.write({"tasks/a/task.yaml": TASK + "timeout: 4s\n"})
            return house.timeout("prod/a") == 4

        await until(edited)
        house.write({"prod.yaml": entries("b: {ref: {path: tasks/a}}")})
        await until(lambda: house.ids() == ["prod/b"])


async def test_an_inline_task_has_a_folder_named_by_its_content(tmp_path: Path) -> None:
    house = House(tmp_path / "infra")
    text = """
        kind: TaskSet
        spec:
          entries:
            hello:
              inline:
                name: hello
                runtime: python
                trigger: {manual: true}
                version: 1.10
                script: |
                  result = "hi"
              overrides: {timeout: 3s}
        """
    house.write({"taskset.yaml": text})
    async with house.living():
        task = house.entry("infra/hello").task
        assert task
        assert (task.spec.timeout, task.spec.version) == (3, "1.10")
        assert task.code == 'result = "hi"\n'
        assert task.folder.parent == tmp_path / "data" / "inline"
        house.write({"taskset.yaml": text.replace('"hi"', '"bye"')})
        await until(lambda: (house.entry("infra/hello").task or task).code == 'result = "bye"\n')
        changed = house.entry("infra/hello").task
        assert changed
        assert changed.folder != task.folder


# Repositories


def with_repository(house: House, extra: str = "") -> None:
    house.write({"taskset.yaml": entries(f"r: {{ref: {{url: '{URL}'{extra}}}}}")})


async def test_a_repository_is_fetched_and_followed(tmp_path: Path) -> None:
    house = House(tmp_path / "infra")
    house.repository(
        {"taskset.yaml": entries("t: {ref: {path: t}}"), "t/task.yaml": TASK},
        "1" * 40,
        fetched=False,
    )
    with_repository(house)
    async with house.living():
        await until(lambda: house.ids() == ["infra/r/t"])
        task = house.entry("infra/r/t").task
        assert task
        assert task.revision == "1" * 40
        again = {"taskset.yaml": entries("u: {ref: {path: t}}"), "t/task.yaml": TASK}
        house.repository(again, "2" * 40)
        await until(lambda: house.ids() == ["infra/r/u"])


async def test_a_commit_tells_only_of_the_tasks_it_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path / "infra")
    files = {"a/task.yaml": TASK, "b/task.yaml": TASK}
    house.repository(files, "1" * 40)
    with_repository(house)
    async with house.living():
        caplog.set_level("INFO", "dicode.reconciler")
        caplog.clear()
        house.repository({**files, "b/task.yaml": TASK + "timeout: 3s\n"}, "2" * 40)
        await until(lambda: house.timeout("infra/r/b") == 3)
        task = house.entry("infra/r/a").task
    assert task
    assert task.revision == "2" * 40
    assert [r.getMessage().split(" (")[0] for r in caplog.records] == ["task/infra/r/b updated"]


async def test_a_repository_that_goes_away_keeps_its_tasks_and_shows(tmp_path: Path) -> None:
    house = House(tmp_path / "infra")
    house.repository({"task.yaml": TASK}, "1" * 40)
    with_repository(house)
    async with house.living():
        assert house.entry("infra/r").ready
        house.checkouts.fail(URL, "Unreachable", "no answer")
        await until(lambda: not house.condition(ConditionType.SYNCED).status)
        told = house.condition(ConditionType.SYNCED)
        assert (told.reason, told.message) == (
            "Unreachable",
            "git.example.org/team/repo: no answer",
        )
        synced = house.condition(ConditionType.SYNCED, "infra/r")
        assert (synced.status, synced.message) == (False, "no answer")
        assert house.entry("infra/r").ready
        house.checkouts.mend(URL)
        await until(lambda: house.condition(ConditionType.SYNCED).status)


async def test_syncing_asks_every_repository_the_nested_ones_too(tmp_path: Path) -> None:
    house = House(tmp_path / "infra")
    nested = "https://git.example.org/nested"
    write(tmp_path / "nested", {"task.yaml": TASK})
    house.checkouts.put(nested, tmp_path / "nested", "3" * 40, fetched=False)
    files = {"taskset.yaml": entries(f"n: {{ref: {{url: '{nested}'}}}}")}
    house.repository(files, "1" * 40, fetched=False)
    async with house.living():
        with_repository(house)
        await house.reconciler.sync("s")
        assert house.ids() == ["infra/r/n"]
        assert house.entry("infra/r/n").ready
        assert {ref.url for ref in house.checkouts.asked} == {URL, nested}


async def test_the_variable_with_a_token_is_withheld_from_tasks(tmp_path: Path) -> None:
    house = House(tmp_path / "infra")
    house.repository({"task.yaml": TASK}, "1" * 40)
    with_repository(house, ", auth: {token_env: MY_TOKEN}")
    house.write(
        {
            "taskset.yaml": (house.root / "taskset.yaml").read_text()
            + "    own: {ref: {path: own}}\n"
        }
    )
    house.write({"own/task.yaml": TASK + "permissions: {env: [MY_TOKEN]}\n"})
    async with house.living():
        assert "MY_TOKEN" in house.withheld
        await house.reconciler.sync("s")
        house.write({"own/task.py": "result = 2\n"})
        await until(lambda: not house.entry("infra/own").ready)
        assert (
            "the server's own credentials"
            in house.condition(ConditionType.READY, "infra/own").message
        )
        auth = next(r.auth for r in house.checkouts.looked_up if r.url == URL)
        assert auth
        assert auth.token_env == "MY_TOKEN"


async def test_a_strangers_set_cannot_have_credentials_sent(tmp_path: Path) -> None:
    house = House(tmp_path / "infra")
    evil = "https://evil.example.org/x"
    files = {
        "taskset.yaml": entries(f"n: {{ref: {{url: '{evil}', auth: {{token_env: MY_TOKEN}}}}}}")
    }
    house.repository(files, "1" * 40)
    with_repository(house)
    async with house.living():
        await until(lambda: any(r.url == evil for r in house.checkouts.looked_up))
        assert {r.auth for r in house.checkouts.looked_up if r.url == evil} == {None}


class TreeSource(FakeSource):
    """A git source at a commit of the test's."""

    def __init__(self, name: str, root: Path) -> None:
        super().__init__(name, root)
        self.commit = "1" * 40
        self.trees: dict[str, str] = {}

    async def fetch(self) -> Revision:
        return Revision(self.name, self.root, self.commit, trees=self.trees)


async def test_only_the_folder_that_a_commit_changed_is_read_again(tmp_path: Path) -> None:
    first, second = tmp_path / "tree1", tmp_path / "tree2"
    for tree in (first, second):
        write(tree, {"a/task.yaml": TASK, "b/task.yaml": TASK})
    (second / "b" / "task.py").write_text("result = 2\n")
    source = TreeSource("s", first)
    source.trees = {"": "0", "a": "aa", "b": "b1"}
    house = House(tmp_path / "unused", source=source)
    async with house.living():
        house.loads.clear()
        source.root, source.commit = second, "2" * 40
        source.trees = {"": "1", "a": "aa", "b": "b2"}
        await house.reconciler.sync("s")
        assert house.loads == ["b"]
        tasks = {i: house.entry(i).task for i in ("a", "b")}
        assert {t.revision for t in tasks.values() if t} == {"2" * 40}
        assert tasks["a"]
        assert (tasks["a"].folder, tasks["a"].script) == (second / "a", second / "a" / "task.py")


# Dev mode, approvals, explaining


async def test_dev_mode_switches_dev_refs(house: House, tmp_path: Path) -> None:
    write(tmp_path / "local", {"a/task.yaml": TASK + "timeout: 2s\n"})
    dev = "a: {ref: {path: tasks/a, dev_ref: {path: ../local/a}}}"
    house.write({"taskset.yaml": entries(dev)})
    async with house.living():
        assert house.timeout("infra/a") == 60
        house.registry.set_dev("s", ShownDev(DevMode()))
        house.reconciler.wake("s")
        await until(lambda: house.timeout("infra/a") == 2)
        house.registry.set_dev("s", None)
        house.reconciler.wake("s")
        await until(lambda: house.timeout("infra/a") == 60)


async def test_a_version_that_must_wait_leaves_the_old_one_in_force(house: House) -> None:
    async with house.living():
        before = house.entry("infra/a").task
        house.waits["infra/a"] = Condition(ConditionType.READY, False, "PendingApproval", "wait")
        (house.root / "tasks" / "a" / "task.py").write_text("result = 2\n")
        await until(lambda: not house.entry("infra/a").ready)
        assert house.entry("infra/a").task is before
        assert house.condition(ConditionType.READY, "infra/a").reason == "PendingApproval"
        house.waits.clear()
        house.reconciler.wake("s")
        await until(lambda: house.entry("infra/a").ready)
        assert house.entry("infra/a").task is not before
        assert set(house.asked) == {(i, "trusted") for i in house.ids()}


async def test_explaining_shows_where_the_lines_are_now(house: House) -> None:
    async with house.living():
        text = (house.root / "m" / "taskset.yaml").read_text()
        house.write({"taskset.yaml": "# moved\n" + (house.root / "taskset.yaml").read_text()})

        async def line() -> int:
            found = await house.reconciler.explain(house.entry("infra/m/b"))
            return next(e.source.line for e in found if e.path == "timeout")

        async with asyncio.timeout(20):
            while await line() != 6:
                pass
        house.write({"m/taskset.yaml": text + "  oops: ]"})
        await until(lambda: not house.entry("infra/m/b").ready)
        assert await line() == 6


async def test_entries_of_the_configuration_are_a_source(tmp_path: Path) -> None:
    from dicode_mcp.sources.inline import InlineSource

    write(tmp_path, {"tasks/a/task.yaml": TASK})
    source = InlineSource(tmp_path / "dicode.yaml")
    clock = SystemClock()
    registry = Registry(EventBus(), clock, [])
    loader = TaskLoader(
        runtimes={},
        environ={},
        home=tmp_path,
        data_dir=tmp_path / "data",
        config_dir=tmp_path,
    )
    document = read_set(entries("a: {ref: {path: tasks/a}}"), "dicode.yaml")
    reconciler = Reconciler(
        [source],
        loader,
        registry,
        {"python": FakeRuntime()},
        clock,
        inline={source.name: document},
    )

    def timeout() -> float | None:
        entry = registry.get("dicode/a")
        return entry.task.spec.timeout if entry and entry.task else None

    def edited() -> bool:
        write(tmp_path, {"tasks/a/task.yaml": TASK + "timeout: 4s\n"})
        return timeout() == 4

    async with running(reconciler.run()):
        await until(lambda: timeout() == 60)
        await until(edited)
