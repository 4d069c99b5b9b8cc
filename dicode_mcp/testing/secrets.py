"""Secrets for tests: a vault that has nothing to open yet, and the rooms around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicode_mcp.clock import Clock
from dicode_mcp.protocols import Store
from dicode_mcp.providers import ProviderTasks
from dicode_mcp.queue import Queue
from dicode_mcp.registry import Registry
from dicode_mcp.secrets.chain import EnvLink, LocalLink, SecretChain
from dicode_mcp.secrets.keys import KeyRing, MasterKey
from dicode_mcp.secrets.vault import Vault
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.invitations import Invitations
from dicode_mcp.service.keys import Keys
from dicode_mcp.service.rotation import KeyRotation
from dicode_mcp.service.secrets import SecretsService
from dicode_mcp.service.sessions import Sessions
from dicode_mcp.service.trail import AuditTrail
from dicode_mcp.testing.rooms import Rooms

TEST_KEY = MasterKey(b"for tests only, 32 bytes long...")


class NoSecrets:
    """A place that has no secret."""

    def value_of(self, name: str) -> str | None:
        """Give none."""
        return None


class NoBodies:
    """Bodies of which there are none."""

    def __init__(self) -> None:
        self.changes = 0

    async def change(self) -> None:
        """Count it."""
        self.changes += 1


class SecretRooms:
    """A vault over ``store`` with what asks it. The store's earlier secrets are not read."""

    def __init__(
        self,
        *,
        store: Store,
        registry: Registry,
        queue: Queue,
        audit: Audit,
        clock: Clock,
        data_dir: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        env = dict(environ or {})
        ring = KeyRing([TEST_KEY])
        self.vault = Vault(store, ring, clock, {})
        self.rotation = KeyRotation(
            self.vault, NoBodies(), ring, data_dir / "master.key", None, audit
        )
        self.chain = SecretChain([LocalLink(self.vault), EnvLink(env)])
        self.providers = ProviderTasks(queue, registry, clock)
        self.secrets = SecretsService(
            values=self.vault,
            chain=self.chain,
            registry=registry,
            audit=audit,
            environ=env,
            withheld=(),
            data_dir=data_dir,
        )
        self.url: str | None = None
        """Where the server's pages are, once a test serves them."""
        self.invitations = Invitations(self.secrets, clock, lambda: self.url)
        self.keys = Keys(store, (), audit, clock)
        self.trail = AuditTrail(store, audit)
        self.sessions = Sessions(self.vault, audit, clock, self.keys.leases.end)

    @property
    def for_inside(self) -> dict[str, Any]:
        """What ``Inside`` takes of it."""
        return {"providers": self.providers, "secrets": self.secrets}

    @property
    def for_services(self) -> dict[str, Any]:
        """What ``Services`` takes of it."""
        return {
            "secrets": self.secrets,
            "invitations": self.invitations,
            "rotation": self.rotation,
            "keys": self.keys,
            "trail": self.trail,
            "sessions": self.sessions,
        }


def secrets_for_inside(rooms: Rooms) -> dict[str, Any]:
    """Give what ``Inside`` takes of secrets, over a test's rooms."""
    made = SecretRooms(
        store=rooms.store,
        registry=rooms.registry,
        queue=rooms.queue,
        audit=Audit(rooms.store, rooms.clock),
        clock=rooms.clock,
        data_dir=Path("/nowhere"),
    )
    return made.for_inside
