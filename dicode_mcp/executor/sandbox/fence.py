"""What no task is shown, wherever its granted paths lead when a run begins.

A path is judged when its task is loaded; a link on the way may change later, and a task that may
write there can change it itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicode_mcp.executor.sandbox.shown import Shown
from dicode_mcp.protocols import Launch
from dicode_mcp.spec.grants import Ground, astray


@dataclass(frozen=True, slots=True)
class Fence:
    """The server's own places, its user's home, and the files it guards."""

    data_dir: Path
    home: Path
    guarded: tuple[Path, ...] = ()

    def strayed(self, launch: Launch, shown: Shown) -> tuple[str, str] | None:
        """Give message and hint for a grant that leads to a place it must not, None when none."""
        policy = launch.policy
        ground = Ground(policy.task_folder, self.home, self.data_dir, guarded=self.guarded)
        for grant in policy.permissions.fs:
            real = shown.follow(grant.path)
            found = None if real is None else astray(grant.path, real, grant.permission, ground)
            if found is not None:
                why = f"permissions.fs: {grant.path} leads to {real} now, which {found[0]}"
                return f"{why}; nothing was run", found[1]
        return None
