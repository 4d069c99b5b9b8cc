"""The rooms of one server, wired: the only module that names concrete adapters.

It decides who is given what. When things start and stop is the daemon's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from dicode_mcp import __version__
from dicode_mcp.accesses import AccessBook
from dicode_mcp.budgets import Budgets
from dicode_mcp.bundled import AGENT_RUNNER, bundled
from dicode_mcp.chains import Chains
from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition
from dicode_mcp.config import Config
from dicode_mcp.dispatch import LocalDispatcher
from dicode_mcp.environment import Environment, ProviderLink
from dicode_mcp.errors import Code
from dicode_mcp.events import EventBus, SecretChanged
from dicode_mcp.executor.helpers import ThreadHelpers
from dicode_mcp.executor.spawn import SpawnExecutor
from dicode_mcp.executor.unheld import unheld
from dicode_mcp.handed_down import HandedDown
from dicode_mcp.ipc.server import SessionServer
from dicode_mcp.limits import limit_of
from dicode_mcp.origins import (
    all_sources,
    git_refs,
    git_sources,
    host_names,
    inline_source,
    own_source,
    push_hooks,
    registry_places,
    switchable,
    vouches,
    work_tree,
)
from dicode_mcp.preparer import Preparer
from dicode_mcp.prerequisites import Prerequisites
from dicode_mcp.protocols import (
    Approval,
    BearerKey,
    Runtime,
    RuntimeHost,
    SourceOverrides,
    Store,
    Warming,
)
from dicode_mcp.providers import ProviderTasks
from dicode_mcp.queue import Queue
from dicode_mcp.reconciler import Outside, Places, ReadinessLog, Reconciler
from dicode_mcp.reconciler.keeping import Keeper
from dicode_mcp.reconciler.locks import Locks
from dicode_mcp.registry import Registry
from dicode_mcp.retention import Retention, Rule, inputs_age
from dicode_mcp.runner import Runner
from dicode_mcp.runs.log_room import LogLimits
from dicode_mcp.runs.model import Run
from dicode_mcp.secrets.bodies import SealedBodies
from dicode_mcp.secrets.chain import EnvLink, Link, LocalLink, SecretChain
from dicode_mcp.secrets.keys import KeyRing
from dicode_mcp.secrets.master import FILE as MASTER_FILE
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service import Services
from dicode_mcp.service.agents import Agents
from dicode_mcp.service.approvals import Approvals, ApprovalsService, approved_view
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.audit_notes import AuditNotes
from dicode_mcp.service.authoring import AuthoringService, Grounds
from dicode_mcp.service.changes import changes, grants
from dicode_mcp.service.desk import Desk
from dicode_mcp.service.dev_mode import DevModeService, Switches
from dicode_mcp.service.entry_homes import FOLDER as INSTALLED
from dicode_mcp.service.entry_homes import Homes, OwnSet, own_name
from dicode_mcp.service.events import EventsService
from dicode_mcp.service.history import HistoryService
from dicode_mcp.service.hook_runs import HookRuns
from dicode_mcp.service.hooks import HooksService
from dicode_mcp.service.inputs import RunInputs
from dicode_mcp.service.inside import Inside
from dicode_mcp.service.invitations import Invitations
from dicode_mcp.service.keys import Keys
from dicode_mcp.service.meter import Meter
from dicode_mcp.service.permissions import PermissionsService, Walls
from dicode_mcp.service.pins import Pins
from dicode_mcp.service.previews import Previews
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.pushes import PushService
from dicode_mcp.service.questions import QuestionsService
from dicode_mcp.service.registries import Registries
from dicode_mcp.service.rekeying import BodyKeys, BodyRows
from dicode_mcp.service.replays import ReplayService
from dicode_mcp.service.rights import RunRights
from dicode_mcp.service.rotation import KeyRotation
from dicode_mcp.service.runs import RunsService
from dicode_mcp.service.secrets import SecretsService
from dicode_mcp.service.sessions import Sessions
from dicode_mcp.service.sharing import SharingService
from dicode_mcp.service.sharing_views import Review
from dicode_mcp.service.sources import SourcesService
from dicode_mcp.service.status import ServerFacts, StatusService
from dicode_mcp.service.task_api import TaskApiService
from dicode_mcp.service.tasks import TasksService
from dicode_mcp.service.trail import AuditTrail
from dicode_mcp.service.updates import UpdateService
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.sources.working.copies import WorkingCopies
from dicode_mcp.spec.digest import DigestCache
from dicode_mcp.spec.hook_secret import webhook_secret_missing
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.model import Task
from dicode_mcp.spec.support import not_in_force
from dicode_mcp.spec.withheld import Withheld
from dicode_mcp.telling import Notices, NotifySettings
from dicode_mcp.tools.hub import Hub
from dicode_mcp.triggers.api_types import ApiTypes
from dicode_mcp.triggers.chain import ChainConditions
from dicode_mcp.triggers.cron import CronTrigger
from dicode_mcp.triggers.daemons import DaemonTrigger
from dicode_mcp.triggers.deadlines import Deadlines
from dicode_mcp.triggers.hook_secrets import HookSecretConditions
from dicode_mcp.triggers.notices import NoticeConditions
from dicode_mcp.triggers.webhook.keys import HookKeys
from dicode_mcp.triggers.zone import server_zone

log = logging.getLogger("dicode.daemon")


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The server's own keys: what ``audit`` needs, kept sealed, and the master keys above all.

    ``given_by`` says what gives the master key when it is not the data dir's file.
    """

    audit: bytes = field(repr=False)
    master: KeyRing
    given_by: str | None = None


class House:
    """The rooms of one server, wired and not yet running."""

    def __init__(
        self,
        config: Config,
        *,
        store: Store,
        executor: SpawnExecutor,
        instance_id: str,
        environ: Mapping[str, str],
        clock: Clock,
        url: Callable[[], str | None],
        log_limits: LogLimits,
        vault: Vault,
        own_keys: OwnKeys,
        bodies: SealedBodies,
        body_rows: BodyRows,
        overrides: Mapping[str, SourceOverrides] | None = None,
        approved: Mapping[str, Sequence[Approval]] | None = None,
        stored_keys: Sequence[BearerKey] = (),
    ) -> None:
        self._store = store
        self._executor = executor
        self._instance_id = instance_id
        self._scratch = config.data_dir / "runs"
        self._confines = config.execution.sandbox != "off"
        home = Path(environ.get("HOME") or "/")
        bus = EventBus()
        self._runtimes = load_runtimes(
            config,
            RuntimeHost(
                cache=config.data_dir / "cache",
                environ=environ,
                help=ThreadHelpers(
                    executor, asyncio.get_running_loop(), self._scratch, instance_id
                ),
            ),
        )
        withheld = Withheld(config.withheld_variables)
        loader = _task_loader(config, self._runtimes, environ, clock, withheld)
        written = inline_source(config)
        order = [source.label for source in config.sources]
        order += [written.name] if written else []
        shipped = bundled(config, order)
        ranks = [*order, own_name(order), *((shipped.source.name,) if shipped else ())]
        self.registry = Registry(bus, clock, ranks)
        self.dispatcher = LocalDispatcher(
            config.execution.max_concurrent_runs, clock, limit_of(self.registry)
        )
        named_zone = config.defaults.timezone
        zone = ZoneInfo(named_zone) if named_zone else server_zone(environ)
        self._budgets = Budgets(self.registry, store, clock, zone)
        self._bus = bus
        chains = Chains(self.registry, _started_by_any(config))
        notices = Notices(self.registry, NotifySettings.of(config))
        self.queue = Queue(
            store,
            self.registry,
            chains,
            self.dispatcher,
            bus,
            clock,
            config.defaults.on_failure_chain,
            notices,
            Random(),
            config.defaults.run_inputs,
            self._budgets,
            lambda run: self._rights.lost_by(run),
        )
        copies = WorkingCopies(config.data_dir, environ, allow_local=config.server.allow_local_git)
        self.checkouts = GitCheckouts(
            config.data_dir,
            environ=environ,
            clock=clock,
            random=Random(),
            allow_local=config.server.allow_local_git,
        )
        from_git = git_sources(config, self.checkouts, environ, overrides or {})
        sources = switchable(config, all_sources(config, from_git), overrides or {}, copies)
        own = OwnSet(
            own_name(order),
            config.data_dir / INSTALLED / "taskset.yaml",
            lambda: self.reconciler.add(own_source(own)),
        )
        vouched = vouches(config)
        approvals = Approvals(approved or {})
        self.reconciler = Reconciler(
            [
                *sources.values(),
                *((written,) if written else ()),
                *((shipped.source,) if shipped else ()),
                *((own_source(own),) if own.file.exists() else ()),
            ],
            loader,
            self.registry,
            self._runtimes,
            clock,
            not_in_force=self._said,
            places=Places(
                host=host_names(config),
                home=home,
                checkouts=self.checkouts,
                find_lock=Locks(clock, vouched, config.data_dir / "pinned.json").find,
            ),
            outside=Outside(loader.read, self.checkouts, withhold=withheld.put),
            inline_dir=config.data_dir / "inline",
            inline={
                **({written.name: config.entries} if written and config.entries else {}),
                **({shipped.source.name: shipped.entries} if shipped else {}),
            },
            review=[s.label for s in config.sources if s.trust == "review"],
            tags={s.label: s.tags for s in config.sources},
            gate=approvals.gate,
            approved=approvals.of,
            beside=self.checkouts.beside,
        )
        registries = Registries(
            registry_places(config),
            checkouts=self.checkouts,
            home=home,
            clock=clock,
            tasks=self.registry,
            declarations=self.reconciler,
        )
        self.audit = Audit(store, clock, own_keys.audit, begun=True)
        self._audit_notes = AuditNotes(config.data_dir, self.audit)
        self._body_keys = BodyKeys(body_rows, vault, bodies, self.audit)
        self.keys = Keys(store, stored_keys, self.audit, clock)
        self._rights = RunRights(self.keys, self.audit)
        chain = secret_chain(config, vault, environ, withheld)
        self._hook_keys = HookKeys(chain)
        vault.on_change(lambda name: bus.publish(SecretChanged(name)))
        providers = ProviderTasks(self.queue, self.registry, clock)
        secrets_service = SecretsService(
            values=vault,
            chain=chain,
            registry=self.registry,
            audit=self.audit,
            environ=environ,
            withheld=withheld,
            data_dir=config.data_dir,
        )
        inside = Inside(
            queue=self.queue,
            registry=self.registry,
            store=store,
            bus=bus,
            clock=clock,
            agents=Agents(
                queue=self.queue,
                registry=self.registry,
                runtimes=self._runtimes,
                runner=AGENT_RUNNER,
            ),
            providers=providers,
            secrets=secrets_service,
            reach=self._rights.may_reach,
        )
        self.preparer = Preparer(
            registry=self.registry,
            runtimes=self._runtimes,
            executor=executor,
            bus=bus,
            clock=clock,
            scratch=self._scratch,
            instance_id=instance_id,
        )
        self._accesses = AccessBook(store, clock)
        handed_down = HandedDown(
            Environment(
                environ,
                environment_links(config, vault, environ, withheld),
                providers,
                Prerequisites(self.queue, self.registry, clock),
                withheld,
            ),
            store,
            self.registry,
        )
        self.runner = Runner(
            queue=self.queue,
            dispatcher=self.dispatcher,
            store=store,
            runtimes=self._runtimes,
            executor=executor,
            sessions=SessionServer(
                inside, on_refused=self._task_refused, on_learned=handed_down.keep
            ),
            environment=handed_down,
            bus=bus,
            clock=clock,
            scratch=self._scratch,
            instance_id=instance_id,
            log_limits=log_limits,
            accesses=self._accesses,
        )
        self._keeper = Keeper(
            self.checkouts, self.registry, self.runner.tasks, bus, clock, approvals.of
        )
        self.cron = CronTrigger(self.queue, self.registry, store, bus, clock, zone)
        self.daemons = DaemonTrigger(self.queue, self.registry, bus, clock)
        self.deadlines = Deadlines(self.queue, store, bus, clock)
        self._chain_conditions = ChainConditions(chains, self.registry, bus)
        self._notice_conditions = NoticeConditions(notices, self.registry, store, bus)
        self._hook_conditions = HookSecretConditions(self._hook_keys, self.registry, bus)
        self._readiness = ReadinessLog(self.registry, bus)
        self._api_types = ApiTypes(self.registry, bus)
        self.meter = Meter(bus)
        self._retention = Retention(store, self.registry, clock, _retention_rule(config))
        self.events = EventsService(bus=bus, store=store, clock=clock, epoch=secrets.token_hex(4))
        self.hub = Hub(bus, find_run=self.events.run_for)
        self.hook_runs = HookRuns(store=store, queue=self.queue, events=self.events)
        refs = git_refs(config)
        sources_service = SourcesService(
            registry=self.registry,
            syncer=self.reconciler,
            audit=self.audit,
            pins=Pins(from_git, sources, store),
        )
        approving = ApprovalsService(
            approvals=approvals,
            registry=self.registry,
            syncer=self.reconciler,
            store=store,
            audit=self.audit,
            clock=clock,
        )
        desk = Desk(
            homes=Homes(self.registry, sources.get, own),
            previews=Previews(
                self.checkouts,
                loader,
                clock,
                home=home,
                host=host_names(config),
                inline_dir=config.data_dir / "inline",
                vouched=vouched,
            ),
            review=Review(grants, changes),
            registry=self.registry,
            syncer=self.reconciler,
            audit=self.audit,
            clock=clock,
            zone=zone,
            vouched=vouched,
        )
        runs_service = RunsService(
            queue=self.queue,
            registry=self.registry,
            store=store,
            bus=bus,
            audit=self.audit,
            inputs=RunInputs(store, handed_down),
        )
        permissions = PermissionsService(
            registry=self.registry,
            book=self._accesses,
            walls=Walls(home, config.data_dir, (config.file,) if config.file else ()),
        )
        self.services = Services(
            permissions=permissions,
            tasks=TasksService(
                registry=self.registry,
                queue=self.queue,
                store=store,
                loader=loader,
                check=self._check,
                audit=self.audit,
                clock=clock,
                next_run=self.cron.next_run_ms,
                layers=self.reconciler,
                approved=self._approved_by(approvals),
                base_url=lambda: config.server.public_url or url(),
                shipped=shipped.source.name if shipped else None,
                advise=permissions.advice,
            ),
            runs=runs_service,
            replays=ReplayService(
                queue=self.queue, registry=self.registry, store=store, audit=self.audit
            ),
            task_api=TaskApiService(
                registry=self.registry,
                store=store,
                runs=runs_service,
                types=self._api_types,
                clock=clock,
            ),
            questions=QuestionsService(
                queue=self.queue, store=store, bus=bus, audit=self.audit, clock=clock
            ),
            history=HistoryService(
                store=store,
                registry=self.registry,
                retention=self._retention,
                audit=self.audit,
                clock=clock,
            ),
            sources=sources_service,
            dev_mode=DevModeService(
                switches=Switches(
                    sources=sources,
                    refs=refs,
                    show_path=LocalSource,
                    show_clone=lambda name, folder: work_tree(config, name, folder),
                ),
                sources=sources_service,
                clones=copies,
                syncer=self.reconciler,
                registry=self.registry,
                store=store,
                audit=self.audit,
                data_dir=config.data_dir,
                home=home,
            ),
            authoring=AuthoringService(
                grounds=Grounds(
                    refs=refs.get,
                    namespace=lambda name: sources[name].namespace if name in sources else "",
                ),
                commits=copies,
                sources=sources_service,
                syncer=self.reconciler,
                registry=self.registry,
                audit=self.audit,
                clock=clock,
            ),
            status=StatusService(
                facts=ServerFacts(
                    version=__version__,
                    pid=os.getpid(),
                    started_at_ms=clock.now_ms(),
                    data_dir=str(config.data_dir),
                    config_file=str(config.file) if config.file else None,
                    url=url,
                    sandbox=executor.enforcement(),
                    facilities=executor.facilities(),
                    notes=tuple(config.not_in_force()),
                ),
                registry=self.registry,
                store=store,
                slots=self.dispatcher,
                runtimes=lambda: {n: r.health() for n, r in self._runtimes.items()},
                bus=bus,
                clock=clock,
                notifier=lambda: notices.delivers,
            ),
            pushes=PushService(push_hooks(config, environ), self.checkouts, self.audit, clock),
            hooks=HooksService(
                queue=self.queue,
                registry=self.registry,
                store=store,
                audit=self.audit,
                clock=clock,
                keys=self._hook_keys,
            ),
            registries=registries,
            approvals=approving,
            sharing=SharingService(desk, registries, approving),
            updates=UpdateService(desk),
            inside=inside,
            secrets=secrets_service,
            invitations=Invitations(
                secrets_service, clock, lambda: config.server.public_url or url()
            ),
            rotation=KeyRotation(
                vault,
                self._body_keys,
                own_keys.master,
                config.data_dir / MASTER_FILE,
                own_keys.given_by,
                self.audit,
            ),
            keys=self.keys,
            trail=AuditTrail(store, self.audit, own_keys.audit, self._audit_notes),
            sessions=Sessions(vault, self.audit, clock, self.keys.leases.end),
        )

    def _approved_by(self, approvals: Approvals) -> Callable[[Task], Mapping[str, Any] | None]:
        def approved(task: Task) -> Mapping[str, Any] | None:
            found = approvals.behind(task)
            return None if found is None else approved_view(found, self.keys.holds)

        return approved

    def _task_refused(self, run: Run, method: str) -> None:
        """Note what a task was refused: its manifest does not say that it does that."""
        task = Principal(f"task:{run.task_id}", "sdk", frozenset())
        self.services.trail.refused(task, method, Code.FORBIDDEN.value)

    def loops(self) -> list[tuple[str, Coroutine[Any, Any, None]]]:
        """Give what runs while the server does."""
        return [
            ("hub", self.hub.run()),
            ("events", self.events.run()),
            ("git", self.checkouts.run()),
            ("reconciler", self.reconciler.run()),
            ("keeper", self._keeper.run()),
            ("preparer", self.preparer.run()),
            ("runner", self.runner.run()),
            ("chains", self._chain_conditions.run()),
            ("notices", self._notice_conditions.run()),
            ("webhook secrets", self._hook_conditions.run()),
            ("limits", self.queue.follow_limits()),
            ("budgets", self._budgets.run(self._bus)),
            ("readiness", self._readiness.run()),
            ("retention", self._retention.run()),
            ("api types", self._api_types.run()),
            ("meter", self.meter.run()),
            ("accesses", self._accesses.run()),
            ("registries", self.services.registries.run()),
            ("body keys", self._body_keys.run()),
        ]

    def warm(self) -> None:
        """Begin what shortens the first runs."""
        for runtime in self._runtimes.values():
            kept = runtime.warm() if isinstance(runtime, Warming) else None
            if kept is not None:
                self._executor.warm(*kept)

    async def clean(self) -> None:
        """Remove what a crashed server left: processes of its tasks, folders of their runs."""
        ended = await self._executor.sweep(self._instance_id)
        if ended:
            log.warning("ended %d processes that a crashed server left", ended)
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self._scratch.mkdir(mode=0o700, exist_ok=True)

    async def recover(self) -> None:
        """Show stored pauses, and deal with the runs a crashed server left."""
        await self._audit_notes.take()
        for pause in (await self._store.pauses()).values():
            self.services.tasks.show_pause(pause)
        requeued, lost = await self.queue.recover()
        if requeued or lost:
            log.warning("after a crash: %d runs go on, %d are lost", requeued, lost)

    def _check(self, task: Task) -> list[Condition]:
        runtime = self._runtimes.get(task.spec.runtime)
        found = list(runtime.check(task)) if runtime else []
        return [*found, *self._said(task), *self._hook_keys.missing(task)]

    def _said(self, task: Task) -> tuple[Condition, ...]:
        """Give what is said of a task's manifest as this build reads it, on this machine."""
        # Where nothing is held at all, the server's own status says so once for all tasks.
        return (*_declared(task), *(unheld(task, self._executor) if self._confines else ()))


def _started_by_any(config: Config) -> list[str]:
    """Name the tasks that the end of a run of any task may start."""
    failure = config.defaults.on_failure_chain
    named = [failure.task if failure else None, config.notifications.task]
    return [task_id for task_id in named if task_id]


def _declared(task: Task) -> tuple[Condition, ...]:
    """Give what is said of a task's manifest as this build reads it."""
    return (*not_in_force(task), *webhook_secret_missing(task))


def _retention_rule(config: Config) -> Rule:
    kept = config.defaults.retention
    return Rule(kept.age, kept.runs, inputs_age(config.defaults.run_inputs))


def load_runtimes(config: Config, host: RuntimeHost) -> dict[str, Runtime]:
    """Make the runtimes that are installed (entry points ``dicode_mcp.runtimes``) and enabled.

    A class with ``for_server`` is made by it, and so knows of the server; others take nothing.
    """
    found: dict[str, Runtime] = {}
    for point in entry_points(group="dicode_mcp.runtimes"):
        chosen = config.runtimes.get(point.name)
        if chosen is None or chosen.enabled:
            kind = point.load()
            found[point.name] = kind.for_server(host) if hasattr(kind, "for_server") else kind()
    return found


def secret_chain(
    config: Config, vault: Vault, environ: Mapping[str, str], withheld: Withheld
) -> SecretChain:
    """Give the places that can be asked at once, in the order of the configuration."""
    links = environment_links(config, vault, environ, withheld)
    later = [link.task_id for link in links if isinstance(link, ProviderLink)]
    return SecretChain((link for link in links if not isinstance(link, ProviderLink)), later)


def environment_links(
    config: Config, vault: Vault, environ: Mapping[str, str], withheld: Withheld
) -> list[Link | ProviderLink]:
    """Give the places that a run's secrets come from, provider tasks among them, in order."""
    links: list[Link | ProviderLink] = []
    for provider in config.secrets.providers:
        if provider.type == "local":
            links.append(LocalLink(vault))
        elif provider.type == "env":
            links.append(EnvLink(environ, provider.prefix, withheld))
        elif provider.task is not None:
            links.append(ProviderLink(provider.task))
    return links


def _task_loader(
    config: Config,
    runtimes: Mapping[str, Runtime],
    environ: Mapping[str, str],
    clock: Clock,
    withheld: Withheld,
) -> TaskLoader:
    return TaskLoader(
        runtimes={name: runtime.scripts for name, runtime in runtimes.items()},
        environ=environ,
        home=Path(environ.get("HOME") or "/"),
        data_dir=config.data_dir,
        config_dir=config.file.parent if config.file else Path.cwd(),
        withheld=withheld,
        cache=DigestCache(clock),
        guarded=(config.file,) if config.file else (),
    )
