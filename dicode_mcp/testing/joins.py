"""What joins need of a store, and families of runs, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dicode_mcp.runs.joins import Arrival
from dicode_mcp.runs.model import Payload, Run
from dicode_mcp.store import codec

Arrivals = dict[tuple[str, str, str], Arrival]
"""By root, waiting task and source."""


class MemoryShelf:
    """``Shelf`` over the dicts of one transaction."""

    def __init__(
        self,
        runs: Mapping[str, Run],
        arrivals: Arrivals,
        add: Callable[[Run, Payload], object],
    ) -> None:
        self._runs = runs
        self._arrivals = arrivals
        self._add = add

    def put(self, root: str, task_id: str, arrival: Arrival) -> None:
        """Keep an arrival in the place of an earlier one."""
        self._arrivals[root, task_id, arrival.source] = arrival

    def arrivals(self, root: str) -> Mapping[str, Sequence[Arrival]]:
        """Give what has arrived, by the waiting task."""
        found: dict[str, list[Arrival]] = {}
        for place, arrival in sorted(self._arrivals.items()):
            if place[0] == root:
                found.setdefault(place[1], []).append(arrival)
        return found

    def clear(self, root: str, task_id: str) -> None:
        """Forget what has arrived for a task."""
        for place in [p for p in self._arrivals if p[:2] == (root, task_id)]:
            del self._arrivals[place]

    def run(self, run_id: str) -> Run | None:
        """Read a run with its values."""
        return self._runs.get(run_id)

    def alive(self, root: str) -> bool:
        """Tell whether any run under the root has not ended."""
        family = [run for run in self._runs.values() if root in (run.id, run.root_run_id)]
        return any(not run.status.ended for run in family)

    def add(self, run: Run, payload: Payload) -> None:
        """Add a run."""
        self._add(run, payload)


def attempts(runs: Mapping[str, Run], run_id: str) -> list[Run]:
    """Give every attempt of the wish a run belongs to, in order."""
    first = runs.get(run_id)
    while first is not None and (before := runs.get(first.retry_of or "")) is not None:
        first = before
    by_former = {run.retry_of: run for run in runs.values() if run.retry_of}
    found: list[Run] = []
    while first is not None:
        found.append(codec.listed(first))
        first = by_former.get(first.id)
    return found


def tree(runs: Mapping[str, Run], root: str, most: int) -> list[Run]:
    """Give the first runs under a root, itself included, oldest first."""
    family = [run for run in runs.values() if root in (run.id, run.root_run_id)]
    family.sort(key=lambda run: (run.id != root, run.created_at_ms, run.id))
    return [codec.listed(run) for run in family[:most]]
