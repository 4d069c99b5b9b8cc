"""The YAML of the documents on sources, sets and sharing, as written, with public URLs served here.

Each block below is the documents' own; the repositories behind its URLs are made by the test.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from dicode_mcp.clock import SystemClock
from dicode_mcp.events import EventBus
from dicode_mcp.protocols import DevMode
from dicode_mcp.reconciler import Outside, Places, Reconciler
from dicode_mcp.registry import Registry, ShownDev
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import TaskSpec
from dicode_mcp.testing.gitserver import GitServer, serving
from dicode_mcp.testing.mapped_git import mapped_git
from dicode_mcp.testing.sources import FakeRuntime
from dicode_mcp.testing.waiting import running, until

TASK = "name: x\nruntime: python\ntrigger: {manual: true}\n"
SCRIPT = "result = 1\n"


class House:
    """A set's file on disk, and the repositories it names."""

    def __init__(self, root: Path, git: GitServer) -> None:
        self.root = root
        self._git = git
        self._urls: dict[str, str] = {}
        self.registry = Registry(EventBus(), SystemClock(), ["s"])

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.root / "mine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if path.name == "task.yaml":
                (path.parent / "task.py").write_text(SCRIPT)

    def repository(self, url: str, files: Mapping[str, str]) -> None:
        """Serve files as the repository of a public URL."""
        name = f"repo{len(self._urls)}.git"
        scripts = {
            str(Path(path).with_name("task.py")): SCRIPT
            for path in files
            if path.endswith("task.yaml")
        }
        self._git.repository(name).commit({**files, **scripts})
        self._urls[url] = self._git.url_of(name)

    @asynccontextmanager
    async def living(self) -> AsyncGenerator[Reconciler]:
        clock = SystemClock()
        data = self.root / "data"
        data.mkdir()
        checkouts = mapped_git(self._urls)(data, environ={}, clock=clock, random=Random())
        loader = TaskLoader(
            runtimes={"python": ("task.py",)},
            environ={},
            home=self.root,
            data_dir=data,
            config_dir=self.root,
        )
        reconciler = Reconciler(
            [LocalSource("s", self.root / "mine")],
            loader,
            self.registry,
            {"python": FakeRuntime()},
            clock,
            places=Places(home=self.root, checkouts=checkouts),
            outside=Outside(loader.read, checkouts),
        )
        async with running(checkouts.run()), running(reconciler.run()):
            await reconciler.first_pass()
            yield reconciler

    def ids(self) -> list[str]:
        return [entry.id for entry in self.registry.entries()]

    def ready(self, *task_ids: str) -> bool:
        entries = [self.registry.get(task_id) for task_id in task_ids]
        return all(entry is not None and entry.ready for entry in entries)

    def spec(self, task_id: str) -> TaskSpec:
        entry = self.registry.get(task_id)
        assert entry, self.ids()
        assert entry.task, entry.problems
        return entry.task.spec

    def param(self, task_id: str, name: str) -> object:
        return next(p.default for p in self.spec(task_id).params if p.name == name)


@pytest.fixture
def house(tmp_path: Path) -> Generator[House]:
    with serving(tmp_path / "served") as git:
        yield House(tmp_path, git)


def a_set(*keys: str) -> dict[str, str]:
    """Write a set of plain tasks."""
    entries = "".join(f"    {key}: {{ref: {{path: ./{key}}}}}\n" for key in keys)
    tasks = {f"{key}/task.yaml": TASK for key in keys}
    return {"taskset.yaml": f"kind: TaskSet\nspec:\n  entries:\n{entries}", **tasks}


async def test_how_sharing_works(house: House) -> None:
    house.write(
        {
            "taskset.yaml": """\
# your taskset.yaml
apiVersion: dicode/v1
kind: TaskSet
spec:
  entries:
    # Your own tasks
    my-digest:
      ref: { path: ./tasks/my-digest }

    # Someone else's task — just a git URL
    slack-alerts:
      ref:
        url: https://github.com/someone/dicode-slack-alerts
        branch: main

    # Override params for your environment
    uptime-monitor:
      ref:
        url: https://github.com/dicode-community/tasks
        path: monitoring/uptime
      overrides:
        params:
          check_url: "https://api.myapp.com/health"
          slack_channel: "#ops"
""",
            "tasks/my-digest/task.yaml": TASK,
        }
    )
    house.repository("https://github.com/someone/dicode-slack-alerts", {"task.yaml": TASK})
    uptime = TASK + "params: {check_url: {required: true}, slack_channel: '#general'}\n"
    house.repository(
        "https://github.com/dicode-community/tasks", {"monitoring/uptime/task.yaml": uptime}
    )
    ids = ("mine/my-digest", "mine/slack-alerts", "mine/uptime-monitor")
    async with house.living():
        await until(lambda: house.ready(*ids))
        assert house.ids() == sorted(ids)
        assert house.param("mine/uptime-monitor", "check_url") == "https://api.myapp.com/health"
        assert house.param("mine/uptime-monitor", "slack_channel") == "#ops"


async def test_what_install_adds(house: House) -> None:
    house.write(
        {
            "taskset.yaml": """\
kind: TaskSet
spec:
  entries:
    monitoring/uptime-ping:
      ref:
        url: https://github.com/dicode-ayo/task-uptime
        branch: main
"""
        }
    )
    house.repository("https://github.com/dicode-ayo/task-uptime", {"task.yaml": TASK})
    async with house.living():
        await until(lambda: house.ready("mine/monitoring/uptime-ping"))


async def test_overrides_and_customization(house: House) -> None:
    house.write(
        {
            "taskset.yaml": """\
kind: TaskSet
spec:
  defaults:
    timeout: 5m
  entries:
    slack-alerts:
      ref: { url: https://github.com/someone/tasks }
      overrides:
        timeout: 2m  # override the default for this task
        params:
          channel: "#my-team"
"""
        }
    )
    task = TASK + "timeout: 1m\nparams: {channel: '#all'}\n"
    house.repository("https://github.com/someone/tasks", {"task.yaml": task})
    async with house.living():
        await until(lambda: house.ready("mine/slack-alerts"))
        assert house.spec("mine/slack-alerts").timeout == 120
        assert house.param("mine/slack-alerts", "channel") == "#my-team"


async def test_the_structure_of_a_set(house: House) -> None:
    house.write(
        {
            "taskset.yaml": """\
apiVersion: dicode/v1
kind: TaskSet
metadata:
  name: my-taskset
spec:
  defaults:
    timeout: 30s
    env:
      - name: LOG_LEVEL
        value: info
  entries:
    deploy-backend:
      ref:
        path: ./tasks/deploy-backend
    deploy-frontend:
      ref:
        url: https://github.com/myorg/frontend-deploy.git
        path: taskset.yaml
        branch: main
      overrides:
        params:
          environment: staging
    monitoring:
      ref:
        url: https://github.com/myorg/monitoring-tasks.git
        path: taskset.yaml
""",
            "tasks/deploy-backend/task.yaml": TASK,
        }
    )
    house.repository("https://github.com/myorg/frontend-deploy.git", a_set("web", "assets"))
    house.repository("https://github.com/myorg/monitoring-tasks.git", a_set("check-health"))
    ids = (
        "my-taskset/deploy-backend",
        "my-taskset/deploy-frontend/assets",
        "my-taskset/deploy-frontend/web",
        "my-taskset/monitoring/check-health",
    )
    async with house.living():
        await until(lambda: house.ready(*ids))
        # the entries that were still being fetched go a moment later
        await until(lambda: house.ids() == list(ids))
        for task_id in ids:
            assert house.spec(task_id).timeout == 30
            assert [(e.name, e.value) for e in house.spec(task_id).permissions.env] == [
                ("LOG_LEVEL", "info")
            ]
        assert house.param("my-taskset/deploy-frontend/web", "environment") == "staging"


async def test_override_precedence(house: House) -> None:
    house.write(
        {
            "taskset.yaml": """\
kind: TaskSet
spec:
  defaults:                       # Level 2: applied to all entries
    timeout: 60s
    env:
      - name: ENV
        value: staging
  entries:
    my-task:
      ref:
        path: ./tasks/my-task     # Level 1: task.yaml base
      overrides:                   # Level 3: per-entry, wins
        timeout: 120s
        params:
          limit: "50"
""",
            "tasks/my-task/task.yaml": TASK
            + "timeout: 10s\nparams: {limit: 5}\npermissions: {env: [ENV=dev]}\n",
        }
    )
    async with house.living():
        spec = house.spec("mine/my-task")
        assert spec.timeout == 120
        assert house.param("mine/my-task", "limit") == "50"
        assert [(e.name, e.value) for e in spec.permissions.env] == [("ENV", "staging")]


async def test_nested_entry_overrides(house: House) -> None:
    house.write(
        {
            "taskset.yaml": """\
kind: TaskSet
spec:
  entries:
    monitoring:
      ref:
        url: https://github.com/myorg/monitoring.git
        path: taskset.yaml
      overrides:
        entries:
          health-check:             # patch a specific task inside the nested set
            timeout: 120s
            params:
              endpoint: https://api.example.com
"""
        }
    )
    house.repository("https://github.com/myorg/monitoring.git", a_set("health-check", "other"))
    async with house.living():
        await until(lambda: house.ready("mine/monitoring/health-check", "mine/monitoring/other"))
        assert house.spec("mine/monitoring/health-check").timeout == 120
        assert house.spec("mine/monitoring/other").timeout == 60
        endpoint = house.param("mine/monitoring/health-check", "endpoint")
        assert endpoint == "https://api.example.com"


async def test_git_refs_in_entries(house: House) -> None:
    house.write(
        {
            "taskset.yaml": """\
kind: TaskSet
spec:
  entries:
    deploy:
      ref:
        url: https://github.com/myorg/deploy-tasks.git
        path: tasks/deploy           # path within the repo
        branch: main
        poll_interval: 60s
        auth:
          token_env: GITHUB_TOKEN
"""
        }
    )
    house.repository("https://github.com/myorg/deploy-tasks.git", {"tasks/deploy/task.yaml": TASK})
    async with house.living():
        await until(lambda: house.ready("mine/deploy"))


async def test_dev_refs(house: House) -> None:
    local = house.root / "local-tasks"
    text = """\
kind: TaskSet
spec:
  entries:
    my-task:
      ref:
        url: https://github.com/myorg/tasks.git
        path: taskset.yaml
        dev_ref:
          path: /home/user/local-tasks/taskset.yaml
"""
    house.write(
        {
            "taskset.yaml": text.replace("/home/user/local-tasks", str(local)),
            **{f"../local-tasks/{name}": body for name, body in a_set("local").items()},
        }
    )
    house.repository("https://github.com/myorg/tasks.git", a_set("remote"))
    async with house.living() as reconciler:
        await until(lambda: house.ready("mine/my-task/remote"))
        house.registry.set_dev("s", ShownDev(DevMode()))
        reconciler.wake("s")
        await until(lambda: house.ready("mine/my-task/local"))
        house.registry.set_dev("s", None)
        reconciler.wake("s")
        await until(lambda: house.ready("mine/my-task/remote"))
