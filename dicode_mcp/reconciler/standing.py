"""How a source stands, as conditions: what was read, and whether it is the newest there is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.reconciler.look import Look
from dicode_mcp.reconciler.world import shown_troubles

_NO_FAULT_OF_THE_SOURCE = frozenset({"InvalidSpec", "NotFetched"})
"""Reasons of entries that give no task although everything around them is well."""


def looked(look: Look) -> tuple[Condition, ...]:
    """Say how the source stands after its sets were resolved."""
    return _ready(look), _synced(look)


def failed(said: str, *, ever: bool) -> tuple[Condition, ...]:
    """Say that the source could not be fetched; ``ever``: an older revision is in force."""
    ready = (
        Condition(ConditionType.READY, True, "OlderRevision")
        if ever
        else Condition(ConditionType.READY, False, "NeverFetched", said)
    )
    return ready, Condition(ConditionType.SYNCED, False, "FetchFailed", said)


def together(conditions: Iterable[Condition], own: Sequence[Condition]) -> tuple[Condition, ...]:
    """Add what the source says of itself, in the place of what was found of the same kind."""
    return (*(c for c in conditions if not find(own, c.type)), *own)


def _ready(look: Look) -> Condition:
    broken = look.declaration.resolution.broken if look.declaration else ()
    said = "\n".join(str(problem) for problem in look.problems)
    if look.desired.unread:
        return Condition(ConditionType.READY, False, "PartlyRead", said)
    of_sets = [b for b in broken if b.reason not in _NO_FAULT_OF_THE_SOURCE]
    if of_sets:
        return Condition(ConditionType.READY, False, of_sets[0].reason, said)
    return Condition(ConditionType.READY, True, "Searched")


def _synced(look: Look) -> Condition:
    if look.declaration is None or not look.declaration.troubles:
        return Condition(ConditionType.SYNCED, True, "Fetched")
    troubles = look.declaration.troubles
    reasons = sorted({trouble.reason for trouble in troubles.values()})
    return Condition(ConditionType.SYNCED, False, reasons[0], shown_troubles(troubles))
