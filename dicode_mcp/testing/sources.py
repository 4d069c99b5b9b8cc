"""Doubles for what the reconciler talks to: a source that obeys, a small loader, a runtime."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from dicode_mcp.conditions import Condition
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import Exit, Health, Launch, LaunchContext, Revision
from dicode_mcp.runs.model import RunError
from dicode_mcp.spec.loader import Change
from dicode_mcp.spec.model import Task, TaskSpec
from dicode_mcp.spec.problems import Problem, SpecError


class FakeSource:
    """A source whose fetch and changes the test decides."""

    def __init__(self, name: str, root: Path, *, namespace: str = "") -> None:
        self.root = root
        self.namespace = namespace
        self.error: DicodeError | None = None
        self.gate = asyncio.Event()
        """Fetching waits while it is clear."""
        self.gate.set()
        self.said: tuple[Condition, ...] = ()
        self.fetches = 0
        self._name = name
        self._changes: asyncio.Queue[frozenset[Path] | None] = asyncio.Queue()

    @property
    def name(self) -> str:
        """The source's name."""
        return self._name

    @property
    def kind(self) -> Literal["local", "git"]:
        """Always ``local``."""
        return "local"

    @property
    def location(self) -> str:
        """The folder."""
        return str(self.root)

    async def fetch(self) -> Revision:
        """Give the folder, or raise what the test set."""
        self.fetches += 1
        await self.gate.wait()
        if self.error:
            raise self.error
        return Revision(self._name, self.root)

    def wake(self, *paths: Path) -> None:
        """Tell of a change; without paths of any."""
        self._changes.put_nowait(frozenset(paths) if paths else None)

    async def changes(self) -> AsyncGenerator[frozenset[Path] | None, None]:
        """Give what ``wake`` was called with."""
        while True:
            yield await self._changes.get()

    def conditions(self) -> Sequence[Condition]:
        """Give ``said``."""
        return self.said


class FakeLoader:
    """Reads a manifest with PyYAML and wants ``name`` in it; the digest covers the plain files."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(
        self,
        folder: Path,
        *,
        task_id: str,
        source: str,
        source_root: Path,
        revision: str | None = None,
        task_set_dir: Path | None = None,
        change: Change | None = None,
    ) -> Task:
        """Give the task; raises ``SpecError`` when the manifest is no map with a name."""
        self.loaded.append(task_id)
        try:
            document: object = yaml.safe_load((folder / "task.yaml").read_text())
        except FileNotFoundError:
            raise DicodeError(Code.INVALID_SPEC, "there is no task.yaml") from None
        except yaml.YAMLError:
            raise SpecError([Problem("task.yaml", 1, 1, "", "is no YAML")]) from None
        if not isinstance(document, dict) or "name" not in document:
            raise SpecError([Problem("task.yaml", 1, 1, "name", "is required and missing")])
        digest = hashlib.sha256()
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
        manifest = {
            "runtime": "python",
            "trigger": {"manual": True},
            **cast("dict[str, Any]", document),
        }
        return Task(
            id=task_id,
            spec=TaskSpec.model_validate(manifest),
            folder=folder,
            script=folder / "task.py",
            digest=digest.hexdigest(),
            source=source,
            revision=revision,
        )


class FakeRuntime:
    """A runtime that starts nothing; the test sets what it says of the machine and of tasks."""

    def __init__(self, name: str = "python") -> None:
        self._name = name
        self.state = Health(True)
        self.says: dict[str, tuple[Condition, ...]] = {}
        """Conditions by task id."""

    @property
    def name(self) -> str:
        """The name used in ``runtime:``."""
        return self._name

    @property
    def scripts(self) -> tuple[str, ...]:
        """Like python's."""
        return ("task.py",)

    def health(self) -> Health:
        """Give ``state``."""
        return self.state

    def check(self, task: Task) -> Sequence[Condition]:
        """Give what ``says`` holds for the task."""
        return self.says.get(task.id, ())

    def prepare(self, context: LaunchContext) -> Launch:
        """Refuse: nothing can be started."""
        raise DicodeError(Code.NOT_SUPPORTED, "this runtime starts nothing")

    def explain(self, exit: Exit, task: Task) -> RunError | None:
        """Explain nothing."""
        return None
