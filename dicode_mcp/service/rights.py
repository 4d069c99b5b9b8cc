"""Whether a run may still begin: the right of who asked is looked at again when its turn comes.

A key's holder loses what he asked for with the key. What a manifest, a timer or the server's own
user asks for is nobody's key; and whoever is no key is judged elsewhere.
"""

from __future__ import annotations

from typing import Protocol

from dicode_mcp.errors import Code
from dicode_mcp.runs.model import Reason, Run
from dicode_mcp.service.audit import Audit
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.scopes import READ, RUN


class KeyRights(Protocol):
    """What is known of keys by the actors they stand behind."""

    def may(self, actor: str, verb: str, task_id: str) -> bool:
        """Tell whether an actor may do ``verb`` on a task now; True for whoever is no key."""
        ...

    def holds(self, actor: str) -> bool:
        """Tell whether the key behind an actor is in force; True for whoever is no key."""
        ...


class RunRights:
    """Asks the keys about runs, and notes what was refused."""

    def __init__(self, keys: KeyRights, audit: Audit) -> None:
        self._keys = keys
        self._audit = audit

    def lost_by(self, run: Run) -> str | None:
        """Give who asked for a run and has no right to it any more; None when it may begin.

        Who asked for the run itself has to have the right to its task. Who asked for the run that
        it comes of (a chain's first, a parent) has to have a key still: what comes after is the
        right of the manifests that say so.
        """
        lost = None
        if not self._keys.may(run.actor, RUN, run.task_id):
            lost = run.actor
        elif run.origin is not None and not self._keys.holds(run.origin):
            lost = run.origin
        if lost is not None:
            self._note(lost, run)
        return lost

    def may_reach(self, run: Run, task_id: str, *, reading: bool = False) -> bool:
        """Tell whether a task is within the rights of who asked for what a run comes of.

        For grants that name no task: whoever is let into one task is not let into all by it.
        """
        return self._keys.may(run.origin or run.actor, READ if reading else RUN, task_id)

    def _note(self, actor: str, run: Run) -> None:
        asker = Principal(actor, "server", frozenset())
        self._audit.note(
            asker,
            "start_run",
            run.task_id,
            Code.FORBIDDEN.value,
            run_id=run.id,
            trigger=run.trigger.value,
            reason=Reason.FORBIDDEN.value,
        )
