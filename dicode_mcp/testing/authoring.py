"""The services that write, made for a test's rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict
from zoneinfo import ZoneInfo

from dicode_mcp.clock import Clock
from dicode_mcp.protocols import GitRef, Store
from dicode_mcp.registry import Registry
from dicode_mcp.retention import Retention, Rule
from dicode_mcp.service.approvals import Approvals, ApprovalsService
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.authoring import AuthoringService, Grounds
from dicode_mcp.service.changes import changes, grants
from dicode_mcp.service.desk import Desk
from dicode_mcp.service.dev_mode import DevModeService, Switches
from dicode_mcp.service.entry_homes import Homes, OwnSet
from dicode_mcp.service.history import HistoryService
from dicode_mcp.service.previews import Previews
from dicode_mcp.service.pushes import PushService
from dicode_mcp.service.registries import Registries
from dicode_mcp.service.sharing import SharingService
from dicode_mcp.service.sharing_views import Review
from dicode_mcp.service.shelves import ShelfPlace
from dicode_mcp.service.sources import SourcesService, Syncer
from dicode_mcp.service.tasks import NoLayers
from dicode_mcp.service.updates import UpdateService
from dicode_mcp.sources.local import LocalSource
from dicode_mcp.sources.switch import SwitchableSource
from dicode_mcp.sources.working.copies import WorkingCopies
from dicode_mcp.sources.working.shown import WorkTreeSource
from dicode_mcp.spec.loader import TaskLoader
from dicode_mcp.spec.taskset.lock import nobodys
from dicode_mcp.testing.checkouts import FakeCheckouts


class Writers(TypedDict):
    """What ``Services`` calls them."""

    history: HistoryService
    dev_mode: DevModeService
    authoring: AuthoringService
    pushes: PushService
    registries: Registries
    approvals: ApprovalsService
    sharing: SharingService
    updates: UpdateService


class NoPull:
    """Follows no repository."""

    async def push_hint(self, url: str) -> int:
        """Pull nothing."""
        return 0


def make_writers(
    *,
    registry: Registry,
    store: Store,
    audit: Audit,
    clock: Clock,
    syncer: Syncer,
    data_dir: Path,
    home: Path,
    sources: Mapping[str, SwitchableSource] | None = None,
    refs: Mapping[str, GitRef] | None = None,
    environ: Mapping[str, str] | None = None,
    registries: Sequence[ShelfPlace] = (),
    approvals: Approvals | None = None,
) -> Writers:
    """Wire them, on real clones below ``data_dir``; no source listens for pushes."""
    known, remotes = sources or {}, refs or {}
    copies = WorkingCopies(data_dir, environ or {}, allow_local=True)
    listing = SourcesService(registry=registry, syncer=syncer, audit=audit)
    checkouts = FakeCheckouts()
    offers = Registries(
        registries,
        checkouts=checkouts,
        home=home,
        clock=clock,
        tasks=registry,
        declarations=NoLayers(),
    )
    loader = TaskLoader(
        runtimes={"python": ("task.py",)},
        environ={},
        home=home,
        data_dir=data_dir,
        config_dir=home,
    )
    own = OwnSet("installed", data_dir / "installed" / "taskset.yaml", lambda: None)
    desk = Desk(
        homes=Homes(registry, known.get, own),
        previews=Previews(
            checkouts,
            loader,
            clock,
            home=home,
            host=frozenset(),
            inline_dir=data_dir / "inline",
            vouched=nobodys,
        ),
        review=Review(grants, changes),
        registry=registry,
        syncer=syncer,
        audit=audit,
        clock=clock,
        zone=ZoneInfo("UTC"),
        vouched=nobodys,
    )
    approving = ApprovalsService(
        approvals=approvals or Approvals({}),
        registry=registry,
        syncer=syncer,
        store=store,
        audit=audit,
        clock=clock,
    )
    return {
        "history": HistoryService(
            store=store,
            registry=registry,
            retention=Retention(store, registry, clock, Rule(30 * 86400.0, 1000)),
            audit=audit,
            clock=clock,
        ),
        "dev_mode": DevModeService(
            switches=Switches(known, remotes, LocalSource, WorkTreeSource),
            sources=listing,
            clones=copies,
            syncer=syncer,
            registry=registry,
            store=store,
            audit=audit,
            data_dir=data_dir,
            home=home,
        ),
        "authoring": AuthoringService(
            grounds=Grounds(
                refs=remotes.get,
                namespace=lambda name: known[name].namespace if name in known else "",
            ),
            commits=copies,
            sources=listing,
            syncer=syncer,
            registry=registry,
            audit=audit,
            clock=clock,
        ),
        "pushes": PushService({}, NoPull(), audit, clock),
        "registries": offers,
        "approvals": approving,
        "sharing": SharingService(desk, offers, approving),
        "updates": UpdateService(desk),
    }
