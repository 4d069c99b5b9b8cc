"""The page on real services, over a store in memory and a clock that stands still."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
from mcp.server import Server
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from dicode_mcp.accesses import AccessBook
from dicode_mcp.conditions import Condition
from dicode_mcp.executor.lineage import Origin
from dicode_mcp.protocols import Health
from dicode_mcp.registry import Entry, SourceState
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger, new_run_id
from dicode_mcp.service import Services
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.hooks import HooksService
from dicode_mcp.service.inside import Inside
from dicode_mcp.service.permissions import PermissionsService, Walls
from dicode_mcp.service.questions import QuestionsService
from dicode_mcp.service.replays import ReplayService
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.sources import SourcesService
from dicode_mcp.service.status import ServerFacts, StatusService
from dicode_mcp.service.task_api import TaskApiService
from dicode_mcp.service.tasks import TasksService
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.manifest import render_manifest
from dicode_mcp.testing.authoring import make_writers
from dicode_mcp.testing.callers import held_by, owned_by
from dicode_mcp.testing.inputs import plain_inputs
from dicode_mcp.testing.rooms import SOURCE, Rooms, make_task
from dicode_mcp.testing.secrets import NoSecrets, SecretRooms
from dicode_mcp.testing.waiting import DEADLINE_S
from dicode_mcp.triggers.api_types import ApiTypes
from dicode_mcp.triggers.webhook.keys import HookKeys
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.pages import Pages

ME = os.geteuid()
VOID = frozenset({"meta", "link", "input"})


class Seen(HTMLParser):
    """What a browser makes of a page: its elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "elements were left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    @property
    def links(self) -> list[str]:
        return [a["href"] or "" for name, a in self.elements if name == "a"]

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]


class PageHouse:
    """Rooms with a page, and the levers a test pulls."""

    def __init__(self) -> None:
        self.rooms = Rooms()
        self.readiness = Readiness.READY
        self.next_runs: dict[str, int] = {}
        self.extra_routes: list[BaseRoute] = []
        self.services = self._services()
        self.pages = Pages(
            self.services, self.rooms.clock, readiness=lambda: self.readiness, zone=UTC
        )
        self.rooms.registry.put_source(SourceState(SOURCE, "local", "/srv/tasks"))

    def app(self, **settings: Any) -> Starlette:
        """Make the whole app, with its guards."""
        options: dict[str, Any] = {
            "own_uid": ME,
            "find_owner": owned_by(ME),
            "judge": held_by(Origin.CLIENT),
            **settings,
        }
        return create_app(
            Server("test"),
            WebSettings(**options),
            readiness=lambda: self.readiness,
            routes=[*self.pages.routes(), *self.extra_routes],
        )

    @asynccontextmanager
    async def browser(self, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
        """Give a client that asks as browsers do."""
        transport = httpx.ASGITransport(app=self.app(**settings), client=("127.0.0.1", 50_000))
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://localhost:8080",
            headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
            timeout=DEADLINE_S,
        ) as client:
            yield client

    def put(self, task_id: str, *conditions: Condition, **spec: Any) -> None:
        """Put a task in force, with what its manifest says and other conditions on it."""
        task = make_task(task_id, **spec)
        task = replace(task, manifest=render_manifest(task.spec))
        entry = Entry(task_id, SOURCE, task.folder, task, conditions)
        self.rooms.registry.apply(SOURCE, put=[entry])

    def put_entry(self, entry: Entry) -> None:
        """Declare a task as a source does."""
        self.rooms.registry.apply(entry.source, put=[entry])

    async def ran(self, task_id: str, status: RunStatus, **fields: Any) -> str:
        """Store a run; gives its id."""
        self.rooms.clock.advance(0.001)
        now = self.rooms.clock.now_ms()
        run = Run(new_run_id(now), task_id, status, Trigger.CLI, now, **fields)
        await self.rooms.store.add_run(run, Payload())
        return run.id

    async def wrote(self, run_id: str, lines: Sequence[str], level: Level = Level.INFO) -> None:
        """Add lines to a run's log, counted from 1."""
        now = self.rooms.clock.now_ms()
        made = [LogLine(seq, now, level, text) for seq, text in enumerate(lines, 1)]
        await self.rooms.store.append_logs(run_id, made)

    async def sync(self, source: str) -> None:
        """Stand in for the reconciler."""

    def _services(self) -> Services:
        rooms = self.rooms
        parts: dict[str, Any] = {"queue": rooms.queue, "registry": rooms.registry}
        parts["store"] = rooms.store
        audit = self.audit = Audit(rooms.store, rooms.clock)
        here = Path("/nowhere")
        loader = TaskLoader(
            runtimes={"python": ("task.py",)}, environ={}, home=here, data_dir=here, config_dir=here
        )
        runs = RunsService(**parts, bus=rooms.bus, audit=audit, inputs=plain_inputs(rooms.store))
        secret_rooms = SecretRooms(**parts, audit=audit, clock=rooms.clock, data_dir=here)
        return Services(
            permissions=PermissionsService(
                registry=rooms.registry,
                book=AccessBook(rooms.store, rooms.clock),
                walls=Walls(here, here),
            ),
            tasks=TasksService(
                **parts,
                loader=loader,
                check=lambda task: [],
                audit=audit,
                clock=rooms.clock,
                next_run=self.next_runs.get,
            ),
            runs=runs,
            replays=ReplayService(**parts, audit=audit),
            task_api=TaskApiService(
                registry=rooms.registry,
                store=rooms.store,
                runs=runs,
                types=ApiTypes(rooms.registry, rooms.bus),
                clock=rooms.clock,
            ),
            questions=QuestionsService(
                queue=rooms.queue, store=rooms.store, bus=rooms.bus, audit=audit, clock=rooms.clock
            ),
            hooks=HooksService(**parts, audit=audit, clock=rooms.clock, keys=HookKeys(NoSecrets())),
            sources=SourcesService(registry=rooms.registry, syncer=self, audit=audit),
            status=StatusService(
                facts=ServerFacts(
                    version="9.9.9",
                    pid=1,
                    started_at_ms=rooms.clock.now_ms(),
                    data_dir="/data",
                    config_file=None,
                    url=lambda: None,
                    sandbox=Health(False, "permissions are not enforced here"),
                ),
                registry=rooms.registry,
                store=rooms.store,
                slots=rooms.dispatcher,
                runtimes=lambda: {"python": Health(True)},
                bus=rooms.bus,
                clock=rooms.clock,
            ),
            inside=Inside(**parts, bus=rooms.bus, clock=rooms.clock, **secret_rooms.for_inside),
            **secret_rooms.for_services,
            **make_writers(
                registry=rooms.registry,
                store=rooms.store,
                audit=audit,
                clock=rooms.clock,
                syncer=self,
                data_dir=here,
                home=here,
            ),
        )
