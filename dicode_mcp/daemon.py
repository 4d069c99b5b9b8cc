"""The server as one process: the order in which things start and stop, and what the user is told.

What is wired to what is the house's.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from dicode_mcp import __version__
from dicode_mcp.clock import Clock, SystemClock
from dicode_mcp.config import Config, SourceConfig, load_config
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.executor.linux import become_subreaper
from dicode_mcp.executor.orphans import Strangers, take_process
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.fence import Fence
from dicode_mcp.executor.sandbox.gate.outside import Outside
from dicode_mcp.executor.sandbox.groups import find as find_groups
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import look
from dicode_mcp.executor.spawn import SpawnExecutor
from dicode_mcp.executor.standby import StandbyBounds
from dicode_mcp.house import House, OwnKeys
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.runs.model import Reason
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.master import VARIABLE as MASTER_KEY_VARIABLE
from dicode_mcp.secrets.master import find_keys, given_by
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service.audit import begin_chain
from dicode_mcp.service.rekeying import open_bodies
from dicode_mcp.store.lock import DataDirLock, LockInfo
from dicode_mcp.store.sqlite import SqliteStore
from dicode_mcp.tools.server import McpServer, create_mcp_server
from dicode_mcp.tools.socket import McpSocket
from dicode_mcp.web.answer_pages import AnswerPages
from dicode_mcp.web.api import Api
from dicode_mcp.web.api_runs import RunsApi
from dicode_mcp.web.api_secrets import SecretsApi
from dicode_mcp.web.api_tasks import TasksApi
from dicode_mcp.web.app import Readiness, WebSettings, create_app
from dicode_mcp.web.bearers import Bearers
from dicode_mcp.web.events import EventRoutes
from dicode_mcp.web.githooks import GitHooks
from dicode_mcp.web.hook_frame import PageKeys
from dicode_mcp.web.hook_pages import TaskPages
from dicode_mcp.web.hooks import Hooks
from dicode_mcp.web.identity import Identity, provider_of
from dicode_mcp.web.login_pages import LoginPages
from dicode_mcp.web.metrics import Metrics
from dicode_mcp.web.page_calls import PageGate
from dicode_mcp.web.pages import Pages
from dicode_mcp.web.script import script_routes
from dicode_mcp.web.secret_pages import SecretPages
from dicode_mcp.web.server import HttpServer, require_keys
from dicode_mcp.web.typists import Typists

log = logging.getLogger("dicode.daemon")

SOCKET_NAME = "dicode.sock"
STOP_WAIT_S = 10.0
"""How long runs get to end once the drain is over and they were told to stop."""
AUDIT_WAIT_S = 5.0
FIRST_PASS_WAIT_S = 20.0
"""How long the start waits for slow sources before clients are answered."""


class Server:
    """One server. ``serve`` runs it until ``stop`` is asked for.

    ``own_process`` says that nothing else starts processes from this one: then all that its runs
    leave behind is recognized, whatever it did to its environment.
    """

    def __init__(
        self,
        config: Config,
        *,
        environ: MutableMapping[str, str],
        clock: Clock,
        http: bool = True,
        own_process: bool = False,
    ) -> None:
        self._config = config
        self._own_process = own_process
        self._environ = environ
        self._clock = clock
        self._http = http
        self._started_at_ms = clock.now_ms()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._state = Readiness.STARTING
        self._url: str | None = None
        self._ports: tuple[int, ...] = ()
        self._outside = Outside(own_ports=lambda: self._ports)
        self.ready = asyncio.Event()
        """Set once clients are answered, with every source looked at."""

    @property
    def url(self) -> str | None:
        """Where HTTP is served, once it is."""
        return self._url

    def stop(self) -> None:
        """Ask for the end; a second time: end the runs that are on, do not wait for them."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def serve(self) -> None:
        """Run until stopped. Raises ``DicodeError`` when the server cannot start."""
        async with AsyncExitStack() as stack:
            lock = stack.enter_context(DataDirLock(self._config.data_dir))
            lock.publish(self._lock_info())
            store = await stack.enter_async_context(
                SqliteStore.open(self._config.data_dir, self._clock)
            )
            execution = self._config.execution
            limits = LogLimits(execution.max_log_bytes, execution.max_log_lines)
            become_subreaper()
            strangers = take_process() if self._own_process else Strangers.STARTED
            instance_id = await store.instance_id()
            groups = find_groups(instance_id)
            if groups is not None:
                stack.callback(groups.close)
            cages = Cages(
                execution.sandbox,
                await asyncio.to_thread(look, groups),
                Ceilings(execution.max_memory, execution.max_pids, execution.max_cpu),
                self._outside,
                self._fence(),
            )
            stack.callback(self._outside.close)
            health = cages.health()
            if not health.ok or cages.lacking():
                log.warning(health.message)
            executor = await stack.enter_async_context(
                SpawnExecutor(
                    self._clock,
                    limits,
                    strangers,
                    cages,
                    standby=StandbyBounds(most=execution.standby),
                )
            )
            given = given_by(self._environ)
            keys, vault = await self._open_vault(store)
            bodies = open_bodies(vault)
            store = store.sealing(bodies)
            house = House(
                self._config,
                store=store,
                executor=executor,
                instance_id=instance_id,
                vault=vault,
                own_keys=OwnKeys(vault.own("audit"), keys, given),
                bodies=bodies,
                body_rows=store,
                stored_keys=await store.keys(),
                environ=self._environ,
                clock=self._clock,
                url=lambda: self._url,
                log_limits=limits,
                overrides=await store.source_overrides(),
                approved=await store.approvals(),
            )
            house.warm()
            await house.clean()
            async with asyncio.TaskGroup() as group:
                audit = group.create_task(house.audit.run(), name="audit")
                loops = [group.create_task(loop, name=name) for name, loop in house.loops()]
                async with AsyncExitStack() as surfaces:
                    await self._open(surfaces, house, lock)
                    # Not before the recovery: they look at what was running and what is paused.
                    cron = group.create_task(house.cron.run(), name="cron")
                    daemons = group.create_task(house.daemons.run(), name="daemons")
                    deadlines = group.create_task(house.deadlines.run(), name="deadlines")
                    await self._stopping.wait()
                    cron.cancel()
                    house.daemons.close()
                    await self._drain(house)
                for loop in (*loops, daemons, deadlines):
                    loop.cancel()
                house.audit.close()
                # A store that cannot write must not keep the server from ending.
                await asyncio.wait({audit}, timeout=AUDIT_WAIT_S)
                audit.cancel()

    def _fence(self) -> Fence:
        file = self._config.file
        home = Path(self._environ.get("HOME") or "/")
        return Fence(self._config.data_dir, home, (file,) if file else ())

    async def _open_vault(self, store: SqliteStore) -> tuple[KeyRing, Vault]:
        """Open every secret once, or stop: with a wrong key nothing may be changed."""
        sealed = await store.secrets()
        keys = await asyncio.to_thread(
            find_keys, self._config.data_dir, self._environ, anything_sealed=bool(sealed)
        )

        async def begin(made: Mapping[str, bytes]) -> None:
            await begin_chain(store, made["audit"])

        return keys, await Vault.open(store, keys, self._clock, sealed, begin)

    async def _open(self, surfaces: AsyncExitStack, house: House, lock: DataDirLock) -> None:
        """Open for clients: the port first, so that a taken one is told at once."""
        mcp = create_mcp_server(house.services, house.hub, version=__version__)
        if self._http:
            await self._serve_http(surfaces, house, mcp, lock)
        await self._look_once(house)
        await house.recover()
        path = self._config.data_dir / SOCKET_NAME
        refused = house.services.trail.refused
        socket = McpSocket(mcp, version=__version__, on_refused=refused)
        await surfaces.enter_async_context(socket.listening(path))
        self._begin(house)

    async def _serve_http(
        self, surfaces: AsyncExitStack, house: House, mcp: McpServer, lock: DataDirLock
    ) -> None:
        server = self._config.server
        provider = provider_of(server)
        require_keys(
            server.host,
            usable=house.keys.usable or provider is not None,
            named=bool(server.allowed_hosts or server.public_url),
        )
        identity = (
            Identity(provider, self._clock, public_url=server.public_url) if provider else None
        )
        keys = PageKeys()
        shown = TaskPages(house.hook_runs, keys)
        app = create_app(
            mcp,
            WebSettings(
                own_uid=os.geteuid(),
                allowed_hosts=server.allowed_hosts,
                allowed_origins=server.allowed_origins,
                max_body=server.max_body,
                trusted_proxies=server.trusted_proxies,
                public_url=server.public_url,
                pages=PageGate(house.services.hooks.find, keys, shown.file),
                is_task=self._outside.is_ours,
                bearers=Bearers(house.keys, house.audit, self._clock, identity),
                proof_only=server.auth,
                sessions=house.services.sessions,
                on_refused=house.services.trail.refused,
                identity=identity,
            ),
            readiness=lambda: self._state,
            routes=[
                *Pages(house.services, self._clock, readiness=lambda: self._state).routes(),
                *AnswerPages(house.services, self._clock).routes(),
                *Api(house.services).routes(),
                *TasksApi(house.services).routes(),
                *RunsApi(house.services).routes(),
                *SecretsApi(house.services.secrets).routes(),
                *LoginPages(house.services.sessions, Typists(self._outside.is_ours)).routes(),
                *SecretPages(house.services.invitations).routes(),
                *Metrics(house.services, house.meter, house.registry).routes(),
                *EventRoutes(house.events).routes(),
                *script_routes(),
                *GitHooks(house.services.pushes).routes(),
                *Hooks(
                    house.services.hooks,
                    house.services.runs,
                    shown,
                    max_body=server.max_body,
                    starting=lambda: self._state is Readiness.STARTING,
                ).routes(),
            ],
        )
        http = HttpServer(app, host=server.host, port=server.port, on_stop=house.hub.close)
        listening = await surfaces.enter_async_context(http.listening())
        self._url = listening.url
        self._ports = (listening.port,)
        lock.publish(self._lock_info(listening.host, listening.port))

    async def _look_once(self, house: House) -> None:
        """Wait for the first look at every source, but not for ever for a slow one."""
        try:
            async with asyncio.timeout(FIRST_PASS_WAIT_S):
                await house.reconciler.first_pass()
        except TimeoutError:
            log.warning("a source is slow; clients are answered without it for now")

    def _begin(self, house: House) -> None:
        house.dispatcher.open()
        self._state = Readiness.READY
        self.ready.set()
        where = f" at {self._url}" if self._url else ""
        log.info(
            "dicode %s serves %d tasks%s (pid %d, data dir %s)",
            __version__,
            len(house.registry.entries()),
            where,
            os.getpid(),
            self._config.data_dir,
        )

    async def _drain(self, house: House) -> None:
        """Take no more work, let runs end, then end them."""
        self._state = Readiness.DRAINING
        house.events.close()
        house.dispatcher.close()
        house.queue.refuse(
            DicodeError(
                Code.SHUTTING_DOWN,
                "the server is stopping and takes no more runs",
                hint="call again once it is back",
                retry=Retry.BACKOFF,
            )
        )
        drain = self._config.execution.drain
        log.info("stopping: %d runs are on, waiting up to %gs", house.runner.active, drain)
        if not await self._quiet(house, drain):
            house.queue.stop_all(Reason.SHUTDOWN)
            self._hurry.clear()
            if not await self._quiet(house, STOP_WAIT_S):
                log.error("%d runs did not end in time", house.runner.active)

    async def _quiet(self, house: House, seconds: float) -> bool:
        """Wait until no run is on, at most ``seconds`` or until told to hurry."""
        drained = asyncio.ensure_future(house.runner.drained())
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait(
                {drained, hurried}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            return drained.done()
        finally:
            drained.cancel()
            hurried.cancel()

    def _lock_info(self, host: str | None = None, port: int | None = None) -> LockInfo:
        return LockInfo(
            pid=os.getpid(),
            version=__version__,
            started_at_ms=self._started_at_ms,
            host=host,
            port=port,
            socket=str(self._config.data_dir / SOCKET_NAME),
        )


# ── The process ──────────────────────────────────────────────────────────────────────────────


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server in the foreground. Exit codes: 0 stopped in order, 2 it could not start."""
    options = _parser().parse_args(argv)
    environ = dict(os.environ)
    # Only the copy has it from here on, and the vault takes it out of that.
    os.environ.pop(MASTER_KEY_VARIABLE, None)
    try:
        config = _configured(options, environ)
    except DicodeError as error:
        return _complain(error)
    _log_to_stderr(config.log_level)
    failures: list[DicodeError] = []
    try:
        asyncio.run(_run(config, environ, http=not options.no_http))
    except* DicodeError as group:
        failures.append(_first_of(group))
    return _complain(failures[0]) if failures else 0


async def _run(config: Config, environ: MutableMapping[str, str], *, http: bool) -> None:
    server = Server(config, environ=environ, clock=SystemClock(), http=http, own_process=True)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.serve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dicode serve", description="Run the dicode server.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="dicode.yaml to read")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where state is kept")
    parser.add_argument("--source", action="append", metavar="PATH", help="a folder of tasks")
    parser.add_argument("--host", help="address to listen on (loopback)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 picks a free one")
    parser.add_argument("--no-http", action="store_true", help="serve the local socket only")
    parser.add_argument("--log-level", choices=("debug", "info", "warn", "error"))
    return parser


def _configured(options: argparse.Namespace, environ: dict[str, str]) -> Config:
    """Read the configuration; what the command line says stands above it."""
    if options.data_dir is not None:
        environ["DICODE_DATA_DIR"] = str(options.data_dir.expanduser().absolute())
    config = load_config(options.config, environ=environ, cwd=Path.cwd(), home=Path.home())
    changes: dict[str, Any] = {}
    if options.data_dir is not None:
        changes["data_dir"] = Path(environ["DICODE_DATA_DIR"])
    if options.source:
        paths = [str(Path(path).expanduser().absolute()) for path in options.source]
        given = tuple(SourceConfig(type="local", path=path) for path in paths)
        changes["sources"] = (*(config.sources if config.file else ()), *given)
    server = {
        name: value
        for name, value in (("host", options.host), ("port", options.port))
        if value is not None
    }
    if server:
        changes["server"] = config.server.model_copy(update=server)
    if options.log_level:
        changes["log_level"] = options.log_level
    return config.model_copy(update=changes)


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    names = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR"}
    logging.getLogger("dicode").setLevel(names[level])


class LineFormatter(logging.Formatter):
    """One line a record, with the facts a record carries beside its sentence: ``(run_id=…)``."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Give the sentence and its facts."""
        facts = {k: v for k, v in vars(record).items() if k not in _RECORD_FIELDS}
        told = f" ({', '.join(f'{key}={value}' for key, value in facts.items())})" if facts else ""
        return super().formatMessage(record) + told


_RECORD_FIELDS = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", None, None)), "message", "asctime", "taskName"}
)


def _first_of(group: BaseExceptionGroup[DicodeError]) -> DicodeError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _complain(error: DicodeError) -> int:
    hint = f" ({error.hint})" if error.hint else ""
    print(f"dicode: {error.message}{hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
