"""What a key may do: verbs, each on the tasks that a glob names. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dicode_mcp.errors import Code, DicodeError

READ, RUN, AUTHOR, APPROVE, SECRETS, ADMIN = "read", "run", "author", "approve", "secrets", "admin"
VERBS = (READ, RUN, AUTHOR, APPROVE, SECRETS, ADMIN)
"""None of them implies another, except that whoever may act on a task may read it."""
ON_TASKS = frozenset({READ, RUN, AUTHOR, APPROVE})
"""The verbs whose glob names tasks; that of ``secrets`` names secrets, ``admin`` takes none."""
MAX_SCOPES = 64
_GLOB = re.compile(r"[A-Za-z0-9._*?\[\]!/-]{1,200}")


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """One verb and the ids it is for (``fnmatch``: ``*`` also stands for ``/``)."""

    verb: str
    glob: str = "*"

    def __str__(self) -> str:
        """Write it as it is read."""
        return self.verb if self.glob == "*" else f"{self.verb}:{self.glob}"

    def covers(self, name: str) -> bool:
        """Tell whether the glob names ``name``."""
        return self.glob == "*" or fnmatch.fnmatchcase(name, self.glob)

    @property
    def reads(self) -> bool:
        """Whether it lets its holder see the tasks it names."""
        return self.verb in ON_TASKS


def read_scope(text: str) -> Scope:
    """Read ``verb`` or ``verb:glob``; raises INVALID_ARGUMENT naming what is allowed."""
    verb, colon, glob = text.strip().partition(":")
    if verb not in VERBS:
        several = "; give several one by one: read run:infra/*" if "," in text else ""
        hint = f"verbs: {', '.join(VERBS)}{several}"
        raise _invalid(f"'{_shown(verb)}' is not a scope", hint)
    if not colon:
        return Scope(verb)
    if verb == ADMIN:
        raise _invalid("'admin' takes no glob", "write admin alone")
    if not _GLOB.fullmatch(glob):
        raise _invalid(
            f"the glob of '{verb}' is empty or has characters that no id has",
            f"for example {verb}:infra/*",
        )
    return Scope(verb, glob)


def read_scopes(texts: Iterable[str]) -> frozenset[Scope]:
    """Read several, at least one; raises INVALID_ARGUMENT."""
    found = frozenset(read_scope(text) for text in texts)
    if not found:
        raise _invalid("a key needs at least one scope", "for example read, or run:infra/*")
    if len(found) > MAX_SCOPES:
        raise _invalid(f"a key has at most {MAX_SCOPES} scopes", "use globs")
    return found


def _shown(text: str) -> str:
    return "".join(c for c in text[:32] if c.isprintable())


def _invalid(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)
