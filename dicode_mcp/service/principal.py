"""Who asks, and what they may do. A principal can be narrowed, never widened."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.scopes import ADMIN, READ, SECRETS, VERBS, Scope

LOCAL_VERBS = frozenset(VERBS) - {"approve"}
"""What the server's own user may do through an agent; approving needs a human (SPEC 2.4)."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller.

    ``task_globs``, ``toolsets`` and ``scopes`` are None when not narrowed. ``scopes`` are a key's:
    they say on which tasks each of ``verbs`` holds. ``surface`` is ``mcp`` ``cli`` ``http`` or
    ``sdk``. ``credential`` names what proved who it is (``key:ID``, for one), never the proof
    itself; it is None where only the kernel's word about a local process did.
    """

    actor: str
    surface: str
    verbs: frozenset[str]
    read_only: bool = False
    toolsets: frozenset[str] | None = None
    task_globs: tuple[str, ...] | None = None
    scopes: frozenset[Scope] | None = None
    credential: str | None = None

    @property
    def administers(self) -> bool:
        """Whether it may use what is kept from agents: keys, and the like.

        Only the CLI's own connection, and a proof with the scope ``admin``: an agent that calls
        tools is not offered the means to give itself more.
        """
        by_proof = self.credential is not None and self.scopes is not None
        return self.allows(ADMIN) and (by_proof or self.surface == "cli")

    def allows(self, verb: str, task_id: str | None = None) -> bool:
        """Tell whether the caller may do ``verb``, on ``task_id`` when one is given."""
        if verb not in self.verbs or (self.read_only and verb != READ):
            return False
        if task_id is None:
            return True
        return self._in_globs(task_id) and self._in_scopes(verb, task_id)

    def sees(self, task_id: str) -> bool:
        """Tell whether the task is within the caller's globs and scopes."""
        return self._in_globs(task_id) and self._in_scopes(READ, task_id)

    def has_all(self, verb: str) -> bool:
        """Tell whether the caller may do ``verb`` on every task, those to come too."""
        if self.task_globs is not None or not self.allows(verb):
            return False
        return self.scopes is None or any(
            scope.glob == "*" and (scope.verb == verb or (verb == READ and scope.reads))
            for scope in self.scopes
        )

    def allows_secret(self, name: str) -> bool:
        """Tell whether the caller may set and delete the secret ``name``."""
        if not self.allows(SECRETS):
            return False
        # Globs are of tasks; who is narrowed to some of them is not trusted with what others use.
        if self.task_globs is not None:
            return False
        scopes = self.scopes
        return scopes is None or any(s.verb == SECRETS and s.covers(name) for s in scopes)

    def _in_globs(self, task_id: str) -> bool:
        if self.task_globs is None:
            return True
        return any(fnmatch.fnmatchcase(task_id, glob) for glob in self.task_globs)

    def _in_scopes(self, verb: str, task_id: str) -> bool:
        """Whoever may act on a task may read it; nothing else is implied."""
        if self.scopes is None:
            return True
        return any(
            (scope.verb == verb or (verb == READ and scope.reads)) and scope.covers(task_id)
            for scope in self.scopes
        )

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

    def require_administration(self) -> None:
        """Raise FORBIDDEN unless ``administers``."""
        self.require(ADMIN)
        if not self.administers:
            raise DicodeError(
                Code.FORBIDDEN,
                "not allowed: keys are for the server's owner to give",
                hint="ask the user to type it in a terminal: dicode keys --help",
            )

    def lacks_owner(self) -> DicodeError | None:
        """Say that it is a key's or a token's, which is never the owner; None when it is not."""
        if self.scopes is None:
            return None
        return DicodeError(
            Code.FORBIDDEN,
            "not allowed: only the owner may do this, and no key or token is the owner",
            hint="ask the owner to type it on the server's machine: dicode passphrase set",
        )

    def require_owner(self) -> None:
        """Raise FORBIDDEN unless it administers by the kernel's word alone: no key, no token."""
        self.require_administration()
        if error := self.lacks_owner():
            raise error

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


def key_principal(
    actor: str, surface: str, scopes: frozenset[Scope], credential: str | None = None
) -> Principal:
    """Give the principal of a key (or another proof) with ``scopes``."""
    verbs = {scope.verb for scope in scopes}
    if any(scope.reads for scope in scopes):
        verbs.add(READ)
    return Principal(
        actor=actor,
        surface=surface,
        verbs=frozenset(verbs),
        scopes=scopes,
        credential=credential or actor,
    )
