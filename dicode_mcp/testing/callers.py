"""Doubles for the question who calls, and the checks for a server inside the test's own process.

There every client that the test starts is below the server, and the strict checks take it for a
task's. ``judge_outsider`` and ``outsiders`` are the same checks of a server that stands above
nobody: who carries a task's mark, and who cannot be seen, is refused as ever.
"""

from __future__ import annotations

from dicode_mcp.executor.lineage import Lineage, Origin, lineage
from dicode_mcp.web.callers import Callers, Judge
from dicode_mcp.web.holders import SocketHolders
from dicode_mcp.web.peers import FindOwner
from dicode_mcp.web.sock_diag import SocketOwner

_NOBODY = -1


def judge_outsider(pid: int) -> Lineage:
    """Stand in for ``tools.peer.judge_process``."""
    return lineage(pid, _NOBODY)


def outsiders() -> Judge:
    """Make what stands in for the judge of callers over TCP."""
    return Callers(SocketHolders(_NOBODY).look).judge


def owned_by(uid: int | None) -> FindOwner:
    """Make a kernel that says of every peer that it is this user's; None: that it has none."""
    return lambda peer, own: SocketOwner(uid, 1, 7) if uid is not None else None


def held_by(origin: Origin) -> Judge:
    """Make a kernel that knows of every socket whose it is."""

    async def judge(inode: int) -> Lineage:
        return Lineage(origin, 42)

    return judge
