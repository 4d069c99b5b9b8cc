"""Registries on folders and on repositories that a test makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent

from dicode_mcp.events import EventBus
from dicode_mcp.protocols import GitRef
from dicode_mcp.registry import Entry, Registry
from dicode_mcp.service.registries import Registries
from dicode_mcp.service.shelves import ShelfPlace
from dicode_mcp.spec.taskset.resolution import Declared
from dicode_mcp.testing.checkouts import FakeCheckouts
from dicode_mcp.testing.clock import FakeClock

COMMUNITY = """\
    apiVersion: dicode/v1
    kind: TaskSet
    metadata: {name: community}
    spec:
      entries:
        monitoring/uptime-ping:
          ref: {url: https://github.com/dicode-ayo/task-uptime, branch: main}
          overrides:
            description: HTTP health checks with Slack alerting
            tags: [http, slack]
        monitoring/ssl-expiry:
          ref: {url: https://github.com/user/task-ssl-check}
          overrides: {description: SSL certificate expiration checker, tags: [tls]}
        backup/photos:
          ref: {url: git@git.example.org:me/photos.git, path: tasks/photos, tag: v1}
          overrides: {name: Photo backup, description: Keeps monitoring off the disk}
    """


class RegistryHouse:
    """Registries of one server, and the tasks it has in force."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self.checkouts = FakeCheckouts()
        self.tasks = Registry(EventBus(), self.clock, ["s"])
        self.declarations: dict[str, Declared] = {}

    def declared(self, entry: Entry) -> Declared | None:
        return self.declarations.get(entry.id)

    def folder(self, files: Mapping[str, str], name: str = "registry") -> ShelfPlace:
        """Make a registry of a folder."""
        write_files(self.root / name, files)
        return ShelfPlace(name, str(self.root / name))

    def repository(
        self, url: str, files: Mapping[str, str], commit: str = "1" * 40, path: str = ""
    ) -> ShelfPlace:
        """Let a URL hold files; gives the registry there."""
        name = url.rpartition("/")[2]
        folder = self.root / "checkouts" / commit[:2] / name
        write_files(folder, files)
        self.checkouts.put(url, folder, commit, fetched=False)
        return ShelfPlace(name, path, GitRef(url, trusted=True))

    def open(self, *places: ShelfPlace) -> Registries:
        return self.made(places)

    def made(self, places: Sequence[ShelfPlace]) -> Registries:
        return Registries(
            places,
            checkouts=self.checkouts,
            home=self.root,
            clock=self.clock,
            tasks=self.tasks,
            declarations=self,
        )


def write_files(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        if path.name == "task.yaml":
            (path.parent / "task.py").write_text("result = 1\n")
