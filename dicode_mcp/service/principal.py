"""Who asks, and what they may do. A principal can be narrowed, never widened."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dicode_mcp.errors import Code, DicodeError

VERBS = frozenset({"read", "run", "author", "approve", "secrets", "admin"})
LOCAL_VERBS = VERBS - {"approve"}
"""What the server's own user may do through an agent; approving needs a human (SPEC 2.4)."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    ``task_globs`` and ``toolsets`` are None when not narrowed. ``surface`` is ``mcp`` ``cli``
    ``http`` or ``sdk``.
    """

    actor: str
    surface: str
    verbs: frozenset[str]
    read_only: bool = False
    toolsets: frozenset[str] | None = None
    task_globs: tuple[str, ...] | None = None

    def allows(self, verb: str, task_id: str | None = None) -> bool:
        """Tell whether the caller may do ``verb``, on ``task_id`` when one is given."""
        if verb not in self.verbs or (self.read_only and verb != "read"):
            return False
        return task_id is None or self.sees(task_id)

    def sees(self, task_id: str) -> bool:
        """Tell whether the task is within the caller's globs."""
        if self.task_globs is None:
            return True
        return any(fnmatch.fnmatchcase(task_id, glob) for glob in self.task_globs)

    def require(self, verb: str, task_id: str | None = None) -> None:
        """Raise FORBIDDEN unless ``allows``."""
        if self.allows(verb, task_id):
            return
        if verb in self.verbs and self.read_only and verb != "read":
            why, hint = "this connection is read-only", "connect again without --read-only"
        elif verb not in self.verbs:
            why, hint = f"the caller lacks the scope '{verb}'", f"use a key with the scope {verb}"
        else:
            why, hint = f"task {task_id} is outside what the caller may use", "call list_tasks"
        raise DicodeError(Code.FORBIDDEN, f"not allowed: {why}", hint=hint)

    def narrowed(
        self,
        *,
        surface: str | None = None,
        read_only: bool = False,
        toolsets: Iterable[str] | None = None,
        tasks: str | None = None,
    ) -> Principal:
        """Give this principal with less: flags add up, toolsets intersect, one more glob holds.

        Globs do not intersect in general, so narrowing by tasks twice is refused.
        """
        wanted = None if toolsets is None else frozenset(toolsets)
        if wanted is not None and self.toolsets is not None:
            wanted &= self.toolsets
        globs = self.task_globs
        if tasks is not None:
            if globs is not None:
                raise DicodeError(
                    Code.INVALID_ARGUMENT,
                    "the caller's tasks are already narrowed",
                    hint="leave --tasks out",
                )
            globs = tuple(g.strip() for g in tasks.split(",") if g.strip())
        return replace(
            self,
            surface=surface or self.surface,
            read_only=self.read_only or read_only,
            toolsets=self.toolsets if wanted is None else wanted,
            task_globs=globs,
        )


def local_principal(surface: str, actor: str = "local") -> Principal:
    """Give the principal of the server's own user on this machine."""
    return Principal(actor=actor, surface=surface, verbs=LOCAL_VERBS)
