"""Whom a wrong passphrase is counted for: an address, and on this machine the user at it.

All local users come from one address. Were they counted together, any of them could keep the owner
from his own login by typing nonsense.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from dicode_mcp.web.bearers import group_of
from dicode_mcp.web.hosts import is_loopback
from dicode_mcp.web.peers import FindOwner, find_owner
from dicode_mcp.web.proxies import CLIENT


class Typists:
    """Names them. ``is_task`` tells, by a socket's inode, that a task's bytes come out of it."""

    def __init__(
        self,
        is_task: Callable[[int], bool] = lambda inode: False,
        find: FindOwner = find_owner,
    ) -> None:
        self._is_task = is_task
        self._find = find

    def of(self, scope: Scope) -> str:
        """Give the name of who sends a request."""
        client: str | None = scope.get("state", {}).get(CLIENT)
        peer: Any = scope.get("client")
        own: Any = scope.get("server")
        # Behind a proxy it is somebody else who types.
        if not peer or not own or client != peer[0] or not is_loopback(peer[0]):
            return group_of(client)
        owner = self._find((peer[0], peer[1]), (own[0], own[1]))
        if owner is None:
            return f"{group_of(client)}, not known"
        if self._is_task(owner.inode):
            return f"{group_of(client)}, a task"
        return f"{group_of(client)}, user {owner.uid}"
