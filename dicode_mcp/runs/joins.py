"""Joins: tasks that start once when several others have ended, all under one root run.

Decided here and carried out inside the store's finishing transaction, so that sources which end at
once start the task once. It knows what a store must be able to do for that, and no store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dicode_mcp.runs.follow_ups import chain_input, chain_matches, origin_of, passed_on
from dicode_mcp.runs.model import Payload, Reason, Run, RunError, RunRequest, RunStatus, Trigger


@dataclass(frozen=True, slots=True)
class Join:
    """A task that waits for the ends of others. ``sources`` are ids, in the order written."""

    task_id: str
    sources: tuple[str, ...]
    on: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """The newest end of a source under a root; ``fits`` tells whether ``on`` asks for it."""

    source: str
    run_id: str
    fits: bool


Rows = Sequence[tuple[Run, Payload]]


@dataclass(frozen=True, slots=True)
class Joins:
    """What the end of a run means for the joins under its root.

    ``fire`` gives the rows of a complete set: the runs by source, and the one that completed it.
    ``unmet`` gives those that tell of a set that never will be: the waiting task, what arrived,
    and the runs of it. Both are called inside the transaction, in the store's thread, and must be
    pure and never fail.
    """

    root_run_id: str
    feeds: tuple[tuple[Join, Arrival], ...]
    fire: Callable[[Join, Mapping[str, Run], Run], Rows]
    unmet: Callable[[str, Sequence[Arrival], Sequence[Run]], Rows]


class Shelf(Protocol):
    """What a store keeps of joins, for one transaction. ``root`` is a root run's id."""

    def put(self, root: str, task_id: str, arrival: Arrival) -> None:
        """Keep an arrival; it takes the place of an earlier one of the same source."""
        ...

    def arrivals(self, root: str) -> Mapping[str, Sequence[Arrival]]:
        """Give what has arrived and was not used, by the waiting task, in order of source."""
        ...

    def clear(self, root: str, task_id: str) -> None:
        """Forget what has arrived for a task."""
        ...

    def run(self, run_id: str) -> Run | None:
        """Read a run with its values."""
        ...

    def alive(self, root: str) -> bool:
        """Tell whether any run under the root, itself included, has not ended."""
        ...

    def add(self, run: Run, payload: Payload) -> None:
        """Add a run as ``add_run`` does."""
        ...


def settle(shelf: Shelf, joins: Joins) -> None:
    """Take the arrivals in, start what is complete, and tell of what can no longer be.

    Call it after the end and the other follow-ups have been written. A source's newest end counts;
    a set that was complete is used up, and the next one needs an end of every source again.
    """
    root = joins.root_run_id
    for join, arrival in joins.feeds:
        shelf.put(root, join.task_id, arrival)
        runs = _complete(shelf, root, join)
        if runs is not None:
            shelf.clear(root, join.task_id)
            _add(shelf, joins.fire(join, runs, runs[arrival.source]))
    waiting = shelf.arrivals(root)
    if not waiting or shelf.alive(root):
        return
    for task_id, arrived in waiting.items():
        shelf.clear(root, task_id)
        found = [run for a in arrived if (run := shelf.run(a.run_id)) is not None]
        _add(shelf, joins.unmet(task_id, arrived, found))


def _complete(shelf: Shelf, root: str, join: Join) -> dict[str, Run] | None:
    """Give the runs of a complete set by source, in the order written; None while it is not."""
    here = {a.source: a for a in shelf.arrivals(root).get(join.task_id, ()) if a.fits}
    runs: dict[str, Run] = {}
    for source in join.sources:
        run = shelf.run(here[source].run_id) if source in here else None
        if run is None:
            return None
        runs[source] = run
    return runs


def _add(shelf: Shelf, rows: Rows) -> None:
    for run, payload in rows:
        shelf.add(run, payload)


def arrival_of(run: Run, join: Join) -> Arrival:
    """Give the end of a run as a join sees it."""
    return Arrival(run.task_id, run.id, chain_matches(join.on, run.status))


def join_request(join: Join, runs: Mapping[str, Run], last: Run) -> RunRequest:
    """Give the request of a complete set; ``last`` is the run whose end completed it.

    Its ``input`` is what a chain would get from each source, by the source's id.
    """
    return RunRequest(
        task_id=join.task_id,
        trigger=Trigger.CHAIN,
        input={source: chain_input(run, join.on) for source, run in runs.items()},
        actor=passed_on(last, f"chain:{last.task_id}"),
        strict_params=False,
        idempotency_key=f"join:{last.id}",
        parent_run_id=last.id,
        root_run_id=last.root_run_id or last.id,
        chain_depth=max(run.chain_depth for run in runs.values()) + 1,
        origin=origin_of(last),
    )


def unmet_request(task_id: str, last: Run) -> RunRequest:
    """Give the request of a run that only tells that its set never came together."""
    return RunRequest(
        task_id=task_id,
        trigger=Trigger.CHAIN,
        actor=f"chain:{last.task_id}",
        strict_params=False,
        idempotency_key=f"join-unmet:{last.id}",
        parent_run_id=last.id,
        root_run_id=last.root_run_id or last.id,
        chain_depth=last.chain_depth + 1,
        origin=origin_of(last),
    )


def unmet_error(join: Join, arrived: Sequence[Arrival], runs: Sequence[Run]) -> RunError:
    """Say which sources are missing, and how those ended that ended otherwise."""
    by_id = {run.id: run for run in runs}
    ends = {a.source: a for a in arrived}
    told: list[str] = []
    for source in join.sources:
        end = ends.get(source)
        if end is None:
            told.append(f"{source} did not run to an end")
        elif not end.fits:
            run = by_id.get(end.run_id)
            status = run.status.value if run else RunStatus.FAILURE.value
            told.append(f"{source} ended as {status} (run {end.run_id})")
    return RunError(
        Reason.JOIN_INCOMPLETE,
        f"not started: it waits for {', '.join(join.sources)} to end with on: {join.on} under one"
        f" root run, and {'; '.join(told) or 'that cannot come about'}",
        "get_run with tree true shows every run under this root; mend the source and start the"
        " root again, or set trigger.chain.on to always",
    )
