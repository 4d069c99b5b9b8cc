"""A house for MCP tests: real services and store; runs end as their task's name says.

``hello`` returns its params at once, ``slow`` runs until the test opens ``gate``, ``fails`` raises,
``big`` returns more than an answer carries, ``chatty`` logs long lines.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import mcp_types as t
from mcp import Client
from mcp.shared.message import SessionMessage

from dicode_mcp.accesses import AccessBook
from dicode_mcp.chains import Chains
from dicode_mcp.clock import SystemClock
from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.events import EventBus, RunProgress
from dicode_mcp.protocols import Health
from dicode_mcp.queue import Claim, Queue
from dicode_mcp.registry import Entry, Registry, SourceState
from dicode_mcp.runs.logs import Level, LogLine
from dicode_mcp.runs.model import Outcome, RunError, RunStatus
from dicode_mcp.runs.questions import Draft, read_draft
from dicode_mcp.service import Services
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.hooks import HooksService
from dicode_mcp.service.inside import Inside
from dicode_mcp.service.permissions import PermissionsService, Walls
from dicode_mcp.service.questions import QuestionsService
from dicode_mcp.service.replays import ReplayService
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.shelves import ShelfPlace
from dicode_mcp.service.sources import SourcesService
from dicode_mcp.service.status import ServerFacts, StatusService
from dicode_mcp.service.task_api import TaskApiService
from dicode_mcp.service.tasks import TasksService
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.sources.switch import SwitchableSource
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.testing.authoring import make_writers
from dicode_mcp.testing.inputs import plain_inputs
from dicode_mcp.testing.secrets import NoSecrets, SecretRooms
from dicode_mcp.testing.waiting import running, until
from dicode_mcp.triggers.api_types import ApiTypes
from dicode_mcp.triggers.webhook.keys import HookKeys

VERSION = "9.9.9"
BIG = 40_000
YES_NO = {"type": "boolean", "title": "Right?"}

_MANIFEST = """\
name: {name}
description: The {name} task
runtime: python
tags: [demo]
trigger: {{manual: true}}
params:
  who: {{type: string, default: world}}
  times: {{type: number, default: 1}}
"""


class _NoChains(Chains):
    """No task of this house follows another."""

    def downstream_of(self, task_id: str) -> list[tuple[str, str]]:
        """Give nothing."""
        return []


class House:
    """Everything below the surfaces, and the levers a test pulls."""

    def __init__(self, folder: Path, store: SqliteStore) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.bus = EventBus()
        self.registry = Registry(self.bus, self.clock, ["demo"])
        self.store = store
        self.dispatcher = LocalDispatcher(4, self.clock)
        self.queue = Queue(
            store, self.registry, _NoChains(self.registry), self.dispatcher, self.bus, self.clock
        )
        self.gate = asyncio.Event()
        self.started = asyncio.Event()
        self.syncs = 0
        self.slow_run = ""
        self.loader = TaskLoader(
            runtimes={"python": ("task.py",), "deno": ("task.ts", "task.js")},
            environ={},
            home=folder,
            data_dir=folder,
            config_dir=folder,
        )
        audit = self.audit = Audit(store, self.clock)
        self.secret_rooms = SecretRooms(
            store=store,
            registry=self.registry,
            queue=self.queue,
            audit=audit,
            clock=self.clock,
            data_dir=folder.parent / "data",
        )
        runs = RunsService(
            queue=self.queue,
            registry=self.registry,
            store=store,
            bus=self.bus,
            audit=audit,
            inputs=plain_inputs(store),
        )
        self.accesses = AccessBook(store, self.clock)
        permissions = PermissionsService(
            registry=self.registry,
            book=self.accesses,
            walls=Walls(folder.parent, folder.parent / "data"),
        )
        self.services = Services(
            permissions=permissions,
            tasks=TasksService(
                registry=self.registry,
                queue=self.queue,
                store=store,
                loader=self.loader,
                check=lambda task: [],
                audit=audit,
                clock=self.clock,
                next_run=lambda task_id: None,
                advise=permissions.advice,
            ),
            runs=runs,
            replays=ReplayService(
                queue=self.queue, registry=self.registry, store=store, audit=audit
            ),
            task_api=TaskApiService(
                registry=self.registry,
                store=store,
                runs=runs,
                types=ApiTypes(self.registry, self.bus),
                clock=self.clock,
            ),
            questions=QuestionsService(
                queue=self.queue, store=store, bus=self.bus, audit=audit, clock=self.clock
            ),
            hooks=HooksService(
                queue=self.queue,
                registry=self.registry,
                store=store,
                audit=audit,
                clock=self.clock,
                keys=HookKeys(NoSecrets()),
            ),
            sources=SourcesService(registry=self.registry, syncer=self, audit=audit),
            status=StatusService(
                facts=ServerFacts(
                    version=VERSION,
                    pid=1,
                    started_at_ms=self.clock.now_ms(),
                    data_dir=str(folder),
                    config_file=None,
                    url=lambda: None,
                    sandbox=Health(False, "not enforced in this build"),
                ),
                registry=self.registry,
                store=store,
                slots=self.dispatcher,
                runtimes=lambda: {"python": Health(True)},
                bus=self.bus,
                clock=self.clock,
            ),
            inside=Inside(
                queue=self.queue,
                registry=self.registry,
                store=store,
                bus=self.bus,
                clock=self.clock,
                **self.secret_rooms.for_inside,
            ),
            **self.secret_rooms.for_services,
            **make_writers(
                registry=self.registry,
                store=store,
                audit=audit,
                clock=self.clock,
                syncer=self,
                data_dir=folder.parent / "data",
                home=folder.parent,
                sources={"demo": SwitchableSource(LocalSource("demo", folder))},
                registries=[ShelfPlace("community", str(folder.parent / "registry"))],
            ),
        )

    def write(self, name: str, manifest: str | None = None) -> None:
        """Write a task's folder and put what is written in force, as the reconciler would."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "task.yaml").write_text(manifest or _MANIFEST.format(name=name))
        (folder / "task.py").write_text("def main(): pass\n")
        self.registry.apply("demo", [self._entry(name, folder)])

    def manifest(self, name: str) -> str:
        """Give a task's manifest as written."""
        return (self.folder / name / "task.yaml").read_text()

    def remove(self, name: str) -> None:
        """Take a task away."""
        self.registry.apply("demo", [], [name])

    async def progress_until(self, heard: asyncio.Event) -> None:
        """Tell growing progress as the slow run until somebody hears: the wait may begin late."""
        await until(lambda: self.started.is_set())
        done = 0
        while not heard.is_set():
            done += 1
            self.bus.publish(RunProgress(self.slow_run, done, 1_000_000, "some part"))
            await asyncio.sleep(0.02)

    async def sync(self, source: str) -> None:
        """Stand in for the reconciler: read every folder again."""
        self.syncs += 1
        if source == "demo":
            folders = sorted(p.parent for p in self.folder.glob("*/task.yaml"))
            self.registry.apply("demo", [self._entry(folder.name, folder) for folder in folders])

    async def run(self) -> None:
        """Run what is submitted, until cancelled."""
        self.dispatcher.open()
        async with asyncio.TaskGroup() as group:
            while True:
                claim = await self.queue.claim(await self.dispatcher.next())
                if claim is not None:
                    group.create_task(self._execute(claim))

    def _entry(self, name: str, folder: Path) -> Entry:
        try:
            task = self.loader.load(folder, task_id=name, source="demo", source_root=self.folder)
        except SpecError as error:
            broken = Condition(ConditionType.READY, False, "InvalidSpec", error.message)
            return Entry(name, "demo", folder, None, (broken,), tuple(error.problems))
        ready = Condition(ConditionType.READY, True, "Loaded")
        return Entry(name, "demo", folder, task, (ready,))

    async def _execute(self, claim: Claim) -> None:
        run = claim.run
        await self._log(
            run.id, f"{run.task_id} begins", "x" * 5_000 if run.task_id == "chatty" else ""
        )
        outcome = await getattr(self, f"_{run.task_id}")(claim)
        if isinstance(outcome, Draft):
            await self.queue.suspend(run, outcome)
        else:
            await self.queue.finish(run, outcome)

    async def _hello(self, claim: Claim) -> Outcome:
        return self._success({"params": dict(claim.payload.params), "input": claim.payload.input})

    async def _asks(self, claim: Claim) -> Outcome | Draft:
        """Ask for a name, then whether it is right; give both."""
        schemas: list[Any] = ["string", {**YES_NO, "description": "Is it?"}]
        asked = await self.store.questions(claim.run.id)
        if len(asked) < len(schemas):
            return read_draft({"schema": schemas[len(asked)], "message": f"Q{len(asked) + 1}?"})
        given = [q.answered.value if q.answered else None for q in asked]
        if None in given:
            return Outcome(RunStatus.CANCELLED, self.clock.now_ms(), reason="declined")
        return self._success(given)

    async def _big(self, claim: Claim) -> Outcome:
        return self._success("é" * BIG)

    async def _chatty(self, claim: Claim) -> Outcome:
        return self._success(None)

    async def _fails(self, claim: Claim) -> Outcome:
        error = RunError(code="script_error", message="KeyError: 'city'", file="task.py", line=7)
        return Outcome(RunStatus.FAILURE, self.clock.now_ms(), reason="script_error", error=error)

    async def _slow(self, claim: Claim) -> Outcome:
        cancelled = asyncio.Event()
        self.queue.on_stop(claim.run.id, lambda reason: cancelled.set())
        self.slow_run = claim.run.id
        self.started.set()
        gate, stop = asyncio.create_task(self.gate.wait()), asyncio.create_task(cancelled.wait())
        done, waiting = await asyncio.wait({gate, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        self.queue.on_stop(claim.run.id, None)
        if stop in done:
            return Outcome(RunStatus.CANCELLED, self.clock.now_ms(), reason="cancelled")
        return self._success("done")

    async def _log(self, run_id: str, *messages: str) -> None:
        now = self.clock.now_ms()
        texts = [text for text in messages if text]
        lines = [LogLine(i, now, Level.INFO, text) for i, text in enumerate(texts, 1)]
        await self.store.append_logs(run_id, lines)

    def _success(self, value: Any) -> Outcome:
        return Outcome(RunStatus.SUCCESS, self.clock.now_ms(), return_value=json.dumps(value))


@asynccontextmanager
async def open_house(folder: Path) -> AsyncGenerator[House]:
    """Open a house with its five tasks."""
    (folder / "tasks").mkdir()
    async with SqliteStore.open(folder, SystemClock(), ballast_bytes=0) as store:
        house = House(folder / "tasks", store)
        house.registry.put_source(SourceState("demo", "local", str(house.folder)))
        for name in ("hello", "slow", "fails", "big", "chatty"):
            house.write(name)
        house.registry.started()
        async with running(house.run()):
            yield house
            house.gate.set()


Opening = Callable[..., AbstractAsyncContextManager[Client]]
"""Opens a client; keyword arguments go to the SDK's ``Client``."""


class SocketTransport:
    """A client's side of the unix socket, as the SDK wants transports to be."""

    def __init__(self, path: Path, preamble: bytes | None = None) -> None:
        self._path = path
        self._preamble = preamble

    async def __aenter__(self) -> tuple[Any, Any]:
        reader, self._writer = await asyncio.open_unix_connection(self._path, limit=2**24)
        if self._preamble:
            self._writer.write(self._preamble)
        send, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](100)
        outgoing, take = anyio.create_memory_object_stream[SessionMessage](100)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read, reader, send)
        self._group.start_soon(self._write, take)
        return incoming, outgoing

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        self._writer.close()

    async def _read(self, reader: asyncio.StreamReader, send: Any) -> None:
        async with send:
            while line := await reader.readline():
                message = t.jsonrpc_message_adapter.validate_json(line, by_name=False)
                try:
                    await send.send(SessionMessage(message))
                except anyio.BrokenResourceError:
                    # A notification that came while the client was leaving.
                    return

    async def _write(self, take: Any) -> None:
        async with take:
            async for item in take:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                self._writer.write(text.encode() + b"\n")
                await self._writer.drain()
