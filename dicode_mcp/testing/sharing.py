"""A house for tests of sharing: real sets, git and reconciler; approving is the test's say."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.events import EventBus
from dicode_mcp.protocols import Approval, Source
from dicode_mcp.reconciler import Outside, Places, Reconciler
from dicode_mcp.reconciler.locks import Locks
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.service.approvals import PENDING
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.changes import changes, grants
from dicode_mcp.service.desk import Desk
from dicode_mcp.service.entry_homes import Homes, OwnSet
from dicode_mcp.service.offers import Offer
from dicode_mcp.service.previews import Previews
from dicode_mcp.service.principal import local_principal
from dicode_mcp.service.sharing import SharingService
from dicode_mcp.service.sharing_views import Review
from dicode_mcp.service.updates import UpdateService
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.sources.switch import SwitchableSource
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.resolution import Trust
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.gitserver import GitServer, Repository
from dicode_mcp.testing.mapped import MappedCheckouts
from dicode_mcp.testing.sources import FakeRuntime
from dicode_mcp.testing.waiting import running

TASK = "name: x\nruntime: python\ntrigger: {manual: true}\n"
SCRIPT = "result = 1\n"


class SharingHouse:
    """A TaskSet in ``mine/``, repositories behind public URLs, and the services."""

    def __init__(self, root: Path, git: GitServer) -> None:
        self.root = root
        self.mine = root / "mine"
        self.data = root / "data"
        self.approved: dict[str, str] = {}
        """The digest that is approved, by task."""
        self.withdrawn: list[str] = []
        self.offers: dict[str, Offer] = {}
        self.me = local_principal("mcp")
        self.clock = SystemClock()
        self.registry = Registry(EventBus(), self.clock, ["mine", "installed"])
        self.allow_local = False
        self.sources: dict[str, Source] = {}
        self.urls: dict[str, str] = {}
        """Where public URLs lead in the test."""
        self._git = git
        self._count = 0
        self.data.mkdir()

    def write(self, files: Mapping[str, str]) -> None:
        """Write files below ``mine/``; a ``task.yaml`` gets a script beside it."""
        for name, text in files.items():
            path = self.mine / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if path.name == "task.yaml":
                (path.parent / "task.py").write_text(SCRIPT)

    def repository(self, url: str, files: Mapping[str, str]) -> Repository:
        """Serve files as the repository of a public URL."""
        self._count += 1
        name = f"repo{self._count}.git"
        repository = self._git.repository(name)
        self.urls[url] = self._git.url_of(name)
        self.commit(repository, files)
        return repository

    def commit(self, repository: Repository, files: Mapping[str, str], **more: Any) -> str:
        """Commit files, with a script beside each ``task.yaml``."""
        scripts = {
            str(Path(path).with_name("task.py")): SCRIPT
            for path in files
            if path.endswith("task.yaml")
        }
        return repository.commit({**scripts, **files}, **more)

    @asynccontextmanager
    async def living(self) -> AsyncGenerator[SharingHouse]:
        """Run it, from a store on disk."""
        async with SqliteStore.open(self.data, self.clock, ballast_bytes=0) as store:
            inner = GitCheckouts(
                self.data,
                environ={},
                clock=self.clock,
                random=Random(1),
                # what is mapped leads to the test's own server
                allow_local=True,
            )
            self.checkouts = MappedCheckouts(inner)
            self.checkouts.urls = self.urls
            audit = Audit(store, self.clock)
            self.reconciler, loader = self._reconciler()
            reconciler = self.reconciler
            own = OwnSet(
                "installed",
                self.data / "installed" / "taskset.yaml",
                lambda: reconciler.add(self._own()),
            )
            self.previews = Previews(
                self.checkouts,
                loader,
                self.clock,
                home=self.root,
                host=frozenset(),
                inline_dir=self.data / "inline",
                vouched=self.vouched,
            )
            desk = Desk(
                homes=Homes(self.registry, self._source, own),
                previews=self.previews,
                review=Review(grants, changes),
                registry=self.registry,
                syncer=reconciler,
                audit=audit,
                clock=self.clock,
                zone=ZoneInfo("UTC"),
                vouched=self.vouched,
            )
            self.sharing = SharingService(desk, self, self)
            self.updates = UpdateService(desk)
            async with running(inner.run()), running(reconciler.run()):
                await reconciler.first_pass()
                yield self

    def vouched(self, url: str) -> bool:
        """Allow what the test allows."""
        return self.allow_local

    def _source(self, name: str) -> Source | None:
        return self.sources.get(name)

    def _own(self) -> Source:
        path = self.data / "installed" / "taskset.yaml"
        self.sources["installed"] = LocalSource("installed", path, namespace="installed")
        return self.sources["installed"]

    def _reconciler(self) -> tuple[Reconciler, TaskLoader]:
        loader = TaskLoader(
            runtimes={"python": ("task.py",)},
            environ={},
            home=self.root,
            data_dir=self.data,
            config_dir=self.root,
        )
        self.sources.setdefault("mine", SwitchableSource(LocalSource("mine", self.mine)))
        if (self.data / "installed" / "taskset.yaml").exists():
            self._own()
        reconciler = Reconciler(
            list(self.sources.values()),
            loader,
            self.registry,
            {"python": FakeRuntime()},
            self.clock,
            places=Places(
                home=self.root,
                checkouts=self.checkouts,
                find_lock=Locks(self.clock, self.vouched).find,
            ),
            outside=Outside(loader.read, self.checkouts),
            inline_dir=self.data / "inline",
            gate=self.gate,
            approved=lambda task_id: [
                Approval(task_id, digest, 0, "test")
                for known, digest in self.approved.items()
                if known == task_id
            ],
        )
        return reconciler, loader

    def gate(self, task: Task, trust: Trust) -> Condition | None:
        """Let in what is trusted, and what the test has approved."""
        if trust == "trusted" or self.approved.get(task.id) == task.digest:
            return None
        return Condition(ConditionType.READY, False, PENDING, f"approve {task.digest}")

    async def approve(self, task_id: str, digest: str) -> None:
        """Approve a version, and let it in."""
        self.approved[task_id] = digest
        entry = self.entry(task_id)
        await self.reconciler.sync(entry.source)

    async def withdraw(self, ids: Iterable[str]) -> None:
        """Forget approvals."""
        for task_id in ids:
            self.withdrawn.append(task_id)
            self.approved.pop(task_id, None)

    async def get(self, name: str) -> Offer:
        """Give what the test's registry offers."""
        if name not in self.offers:
            raise DicodeError(Code.NOT_FOUND, f"no registry offers {name!r}")
        return self.offers[name]

    def entry(self, task_id: str) -> Entry:
        """Give a task's entry."""
        entry = self.registry.get(task_id)
        assert entry is not None, [e.id for e in self.registry.entries()]
        return entry

    def task(self, task_id: str) -> Task:
        """Give the version in force."""
        task = self.entry(task_id).task
        assert task is not None, self.entry(task_id).conditions
        return task

    def reason(self, task_id: str) -> str:
        """Give why a task is, or is not, ready."""
        ready = [c for c in self.entry(task_id).conditions if c.type is ConditionType.READY]
        return ready[0].reason

    def set_text(self) -> str:
        """Give the TaskSet as it is on disk, every byte."""
        return (self.mine / "taskset.yaml").read_bytes().decode()

    def lock_text(self) -> str:
        """Give the lock; empty when there is none."""
        path = self.mine / "dicode.lock"
        return path.read_text() if path.exists() else ""
