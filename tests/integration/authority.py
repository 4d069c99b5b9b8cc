"""A server with two sources, a task and its run in each, a key for each scope, and its app."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from keycalls import Holder, calling, make_key
from liveserver import Live, Serve, write_task
from starlette.applications import Starlette

from dicode_mcp import daemon
from dicode_mcp.config import SourceConfig
from dicode_mcp.service.scopes import ADMIN, ON_TASKS, SECRETS, VERBS

OURS, OTHERS = "alpha/one", "beta/two"
SCRIPT = "def main(params):\n    print('a line')\n    return 'value'\n"
MANIFEST = """\
runtime: python
trigger: {{webhook: /hooks/{place}, auth: true}}
api: {{trigger: true}}
permissions: {{env: [{{name: TOKEN, secret: {place}_token, optional: true}}]}}
"""

PAGE = "<!DOCTYPE html><html><head></head><body>a page</body></html>"

READING = ON_TASKS
"""Verbs whose holders may read the tasks they name."""
SCOPES: dict[str, tuple[str, ...]] = {
    **{verb: (verb,) for verb in VERBS},
    **{f"{verb} of alpha": (f"{verb}:alpha/*",) for verb in VERBS if verb in ON_TASKS},
    "secrets of alpha": (f"{SECRETS}:alpha_*",),
    "everything of alpha": tuple(f"{verb}:alpha/*" for verb in sorted(ON_TASKS)),
}


@dataclass(frozen=True)
class Key:
    """A key and what may be expected of it."""

    name: str
    holder: Holder

    @property
    def narrow(self) -> bool:
        return self.name.endswith("of alpha")

    def has(self, verb: str) -> bool:
        """Tell whether it has a verb on some task (or secret) at all."""
        own = {scope.partition(":")[0] for scope in SCOPES[self.name]}
        return verb in own or (verb == "read" and bool(own & READING))

    def has_on(self, verb: str, task_id: str) -> bool:
        return self.has(verb) and not (self.narrow and task_id == OTHERS)


@dataclass
class Authority:
    """What the matrices work on."""

    live: Live
    app: Starlette
    keys: list[Key] = field(default_factory=list[Key])
    runs: dict[str, str] = field(default_factory=dict[str, str])

    def key(self, name: str) -> Key:
        return next(key for key in self.keys if key.name == name)

    def words_of_others(self) -> tuple[str, ...]:
        """Give what tells of the other source's task to whoever may not know of it."""
        return ("beta", self.runs[OTHERS])


@asynccontextmanager
async def authority(
    serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> AsyncGenerator[Authority]:
    """Start it. Each task has had a run."""
    made: list[Starlette] = []

    def creating(*args: Any, **options: Any) -> Starlette:
        made.append(create_app(*args, **options))
        return made[0]

    create_app = daemon.create_app
    monkeypatch.setattr(daemon, "create_app", creating)
    sources: list[SourceConfig] = []
    for place, name in (("alpha", "one"), ("beta", "two")):
        write_task(root / place, name, SCRIPT, MANIFEST.format(place=place))
        (root / place / name / "index.html").write_text(PAGE)
        sources.append(SourceConfig(type="local", name=place, path=str(root / place)))
    async with serve(http=True, sources=sources, **more) as live, calling(live) as client:
        house = Authority(live, made[0])
        for name, scopes in SCOPES.items():
            key = await make_key(live, name.replace(" ", "-"), *scopes)
            house.keys.append(Key(name, Holder(client, key)))
        for task_id in (OURS, OTHERS):
            run = await live.run(task_id)
            assert run["status"] == "success", run
            house.runs[task_id] = run["run_id"]
        yield house


__all__ = ["ADMIN", "OTHERS", "OURS", "Authority", "Key", "authority"]
