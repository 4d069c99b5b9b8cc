"""A folder of sets and tasks, resolved and loaded as the server does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

from dicode_mcp.clock import SystemClock
from dicode_mcp.reconciler.effective import change_of, composed
from dicode_mcp.reconciler.inline import materialise
from dicode_mcp.reconciler.world import DiskWorld, Places, SetFiles
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.taskset.explain import Explained, explain
from dicode_mcp.spec.taskset.resolution import Broken, Declared, Resolution, Root
from dicode_mcp.spec.taskset.resolve import resolve
from dicode_mcp.spec.taskset.world import Lock, Remote, Tree
from dicode_mcp.testing.checkouts import FakeCheckouts

TASK = "name: x\nruntime: python\ntrigger: {manual: true}\n"


class SetHouse:
    """Files below ``root``, and what they resolve to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root.parent / "home"
        self.checkouts = FakeCheckouts()
        self.host = frozenset({"laptop"})
        self.dev = False
        self.find_lock: Callable[[Path], Lock | None] = lambda file: None
        self.loader = TaskLoader(
            runtimes={},
            environ={"HOST_VARIABLE": "value of the host"},
            home=self.home,
            data_dir=root.parent / "data",
            config_dir=root.parent,
        )

    def write(self, files: Mapping[str, str]) -> SetHouse:
        """Write files below the root; a ``task.yaml`` gets a script beside it."""
        write_files(self.root, files)
        return self

    def repository(self, url: str, files: Mapping[str, str], commit: str = "1" * 40) -> Path:
        """Let a URL hold files, at a commit."""
        folder = self.root.parent / "checkouts" / commit[:2] / url.rpartition("/")[2]
        write_files(folder, files)
        self.checkouts.put(url, folder, commit)
        return folder

    def resolve(self, start: str = "", *, tree: Tree | None = None, name: str = "") -> Resolution:
        """Resolve the root, or what ``start`` names below it."""
        places = Places(self.host, self.home, self.checkouts, self.find_lock)
        now_ns = SystemClock().now_ms() * 1_000_000
        world = DiskWorld(places, SetFiles(), dev=self.dev, now_ns=now_ns)
        tree = tree or Tree(self.root)
        return resolve(Root(self.root / start, tree, name, self.root.name), world)

    def declared(self, task_id: str) -> Declared:
        """Give the declaration of an id."""
        found = {d.id: d for d in self.resolve().tasks}
        assert task_id in found, f"{task_id} is not among {sorted(found)}"
        return found[task_id]

    def task(self, task_id: str) -> Task:
        """Load a task with all that is laid over it; raises ``SpecError``."""
        declared = self.declared(task_id)
        return self.loader.load(
            declared.folder,
            task_id=task_id,
            source="s",
            source_root=declared.tree.root,
            revision=declared.revision,
            task_set_dir=declared.set_dir,
            change=change_of(declared),
        )

    def inline_task(self, task_id: str, below: Path) -> Task:
        """Load an inline task, made into a folder below ``below``."""
        declared = self.declared(task_id)
        assert declared.inline
        return self.loader.load(
            materialise(declared.inline, below),
            task_id=task_id,
            source="s",
            source_root=declared.tree.root,
            task_set_dir=declared.set_dir,
            change=change_of(declared),
        )

    def origins(self, task_id: str) -> dict[str, Explained]:
        """Explain a task, by path."""
        declared = self.declared(task_id)
        merged = composed(declared, self.loader.read(declared.folder))
        manifest = self.task(task_id).manifest
        return {found.path: found for found in explain(merged, manifest or {})}

    def confined(self, commit: str = "c" * 40, url: str | None = None) -> Tree:
        """Give the root as a git checkout."""
        tree = Tree(self.root, commit, confined=True)
        return tree if url is None else replace(tree, remote=Remote(url, trusted=True))


def write_files(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
        if path.name == "task.yaml":
            (path.parent / "task.py").write_text("result = 1\n")


def ids(resolution: Resolution) -> list[str]:
    return [declared.id for declared in resolution.tasks]


def broken(resolution: Resolution) -> dict[str, Broken]:
    return {found.id: found for found in resolution.broken}


def told(found: Iterable[Broken]) -> str:
    return "\n".join(str(problem) for each in found for problem in each.problems)
