"""Which tasks of each source are broken, and since when a source has such tasks.

Knows ids and sentences; which task is broken, and by what, its callers say.
"""

from __future__ import annotations

from dicode_mcp.conditions import Condition, ConditionType

_NAMED = 5
"""How many broken tasks a source's condition names."""


class Faults:
    """The broken tasks by source."""

    def __init__(self) -> None:
        self._faults: dict[str, dict[str, str]] = {}
        self._since: dict[str, int] = {}

    def sources(self) -> set[str]:
        """Give the sources with broken tasks."""
        return set(self._faults)

    def note(self, source: str, task_id: str, fault: str | None, now_ms: int) -> bool:
        """Take what is wrong with a task, None when nothing is; tell whether that is new."""
        known = self._faults.setdefault(source, {})
        new = known.get(task_id) != fault
        if fault is None:
            known.pop(task_id, None)
        else:
            known[task_id] = fault
            self._since.setdefault(source, now_ms)
        if not known:
            del self._faults[source]
            self._since.pop(source, None)
        return new

    def of(self, source: str) -> tuple[tuple[str, str], ...]:
        """Give id and fault of each broken task of a source, by id."""
        return tuple(sorted(self._faults.get(source, {}).items()))

    def condition(self, source: str, tasks: int) -> tuple[Condition, ...]:
        """Say how many of a source's tasks are broken, when there are any."""
        broken = sorted(self._faults.get(source, ()))
        if not broken:
            return ()
        more = f" and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        told = (
            f"{len(broken)} of {tasks} tasks {'is' if len(broken) == 1 else 'are'} broken: "
            f"{', '.join(broken[:_NAMED])}{more}"
        )
        since = self._since[source]
        return (Condition(ConditionType.TASKS, False, "SomeBroken", told, since),)
