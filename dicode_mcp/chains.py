"""Which tasks start when another ends: the graph of chains, built anew when the registry changes.

Knows references and ids, nothing of runs in progress. What is wrong with a link (a cycle, a task
that is not there) is told as a fault, and a link with a fault starts nothing.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dicode_mcp.cycles import Turn, find_cycles
from dicode_mcp.registry import Registry
from dicode_mcp.runs.follow_ups import failure_request
from dicode_mcp.runs.joins import Join
from dicode_mcp.runs.model import Run, RunRequest
from dicode_mcp.runs.upstream import Link, Starters, never_completes
from dicode_mcp.spec.model import ChainTrigger, FailureChain
from dicode_mcp.spec.problems import KeyPath

log = logging.getLogger("dicode.chains")

_SHOWN_STEPS = 20


class FaultKind(StrEnum):
    """What can be wrong with a link; stable, the reason of a condition."""

    CYCLE = "ChainCycle"
    SOURCE_MISSING = "ChainSourceMissing"
    JOIN_SOURCES = "JoinSources"
    JOIN_IMPOSSIBLE = "JoinNeverCompletes"
    FAILURE_CHAIN_MISSING = "FailureChainMissing"
    FAILURE_CHAIN_ITSELF = "FailureChainItself"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a task's links.

    ``path`` is the key in ``task.yaml`` it belongs to, ``ref`` what names a task that is not there.
    """

    kind: FaultKind
    path: KeyPath
    message: str
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """The links in force: by upstream id, who follows and on what; and the faults by task.

    ``joins`` holds the tasks that wait for several others, by their own id, and ``joined`` the
    same by each id that they wait for.
    """

    downstream: Mapping[str, Sequence[tuple[str, str]]] = field(
        default_factory=dict[str, list[tuple[str, str]]]
    )
    joins: Mapping[str, Join] = field(default_factory=dict[str, Join])
    joined: Mapping[str, Sequence[Join]] = field(default_factory=dict[str, list[Join]])
    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict[str, tuple[Fault, ...]])


class Chains:
    """Looks up what follows the end of a task's run.

    ``started_by_any`` names the tasks that the end of any other may start: the default failure
    chain, and what sends notifications.
    """

    def __init__(self, registry: Registry, started_by_any: Sequence[str] = ()) -> None:
        self._registry = registry
        self._started_by_any = tuple(started_by_any)
        self._generation = -1
        self._graph = Graph()

    def graph(self) -> Graph:
        """Give the graph of the tasks in force now."""
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._graph = build_graph(self._registry, self._started_by_any)
        return self._graph

    def downstream_of(self, task_id: str) -> Sequence[tuple[str, str]]:
        """Give the tasks chained to ``task_id`` as (id, ``on``), in order of id."""
        return self.graph().downstream.get(task_id, ())

    def joined_to(self, task_id: str) -> Sequence[Join]:
        """Give the joins that wait for ``task_id``, in order of id."""
        return self.graph().joined.get(task_id, ())

    def failure_request(self, ended: Run, default: FailureChain | None) -> RunRequest | None:
        """Give the failure chain's request after a run: the task's own chain, else ``default``."""
        entry = self._registry.get(ended.task_id)
        own = entry.task.spec.on_failure_chain if entry and entry.task else None
        chain = own if own is not None else default
        if chain is None or not chain.task:
            return None
        target = self._registry.resolve(chain.task, near=ended.task_id if own else None)
        if target is None:
            log.warning(
                "the failure chain names a task that is not there",
                extra={"task_id": ended.task_id, "target": chain.task},
            )
            return None
        return failure_request(ended, target.id, chain.params)


def build_graph(registry: Registry, started_by_any: Sequence[str] = ()) -> Graph:
    """Resolve every link of the tasks in force, and find what is wrong with them."""
    faults: dict[str, list[Fault]] = {}
    links: dict[str, dict[str, int]] = {}
    on: dict[str, str] = {}
    joins: dict[str, Join] = {}
    for entry in registry.entries():
        chain = entry.task.spec.trigger.chain if entry.task else None
        if chain is not None:
            links[entry.id] = _sources(registry, entry.id, chain, faults)
            on[entry.id] = chain.on
            if chain.join == "all":
                joins[entry.id] = Join(entry.id, tuple(links[entry.id]), chain.on)
        failure = entry.task.spec.on_failure_chain if entry.task else None
        fault = _failure_fault(registry, entry.id, failure.task) if failure else None
        if fault is not None:
            faults.setdefault(entry.id, []).append(fault)
    cycles = find_cycles(links)
    for task_id, turn in cycles.items():
        path = ("trigger", "chain", "from", links[task_id][turn.before])
        faults.setdefault(task_id, []).append(Fault(FaultKind.CYCLE, path, _cycle_message(turn)))
    downstream: dict[str, list[tuple[str, str]]] = {}
    for task_id, sources in links.items():
        for source_id in sources if task_id not in cycles and task_id not in joins else ():
            downstream.setdefault(source_id, []).append((task_id, on[task_id]))
    _check_joins(registry, joins, faults, started_by_any)
    # A join with a fault waits for something else than it says: it starts nothing.
    sound = {task_id: join for task_id, join in joins.items() if not _broken(faults, task_id)}
    joined: dict[str, list[Join]] = {}
    for join in sound.values():
        for source_id in join.sources:
            joined.setdefault(source_id, []).append(join)
    return Graph(downstream, sound, joined, {i: tuple(found) for i, found in faults.items()})


def _check_joins(
    registry: Registry,
    joins: Mapping[str, Join],
    faults: dict[str, list[Fault]],
    started_by_any: Sequence[str],
) -> None:
    """Find the joins that can never come together, among those with no other fault."""
    checked = {task_id: join for task_id, join in joins.items() if not _broken(faults, task_id)}
    if not checked:
        return
    starters = _starters(registry, started_by_any)
    path = ("trigger", "chain", "from")
    for task_id, join in checked.items():
        if len(join.sources) < 2:
            one = " ".join(join.sources)
            message = f"all of its names mean {one}: name a second task, or join: any"
            faults.setdefault(task_id, []).append(Fault(FaultKind.JOIN_SOURCES, path, message))
        elif (why := never_completes(join, starters)) is not None:
            faults.setdefault(task_id, []).append(Fault(FaultKind.JOIN_IMPOSSIBLE, path, why))


def _broken(faults: Mapping[str, Sequence[Fault]], task_id: str) -> bool:
    return any(fault.path[:1] == ("trigger",) for fault in faults.get(task_id, ()))


def _starters(registry: Registry, started_by_any: Sequence[str]) -> Starters:
    """Find every way in which the run of one task may lead to a run of another."""
    links: dict[str, list[Link]] = {}
    anything: set[str] = set()
    entries = registry.entries()
    for entry in entries:
        spec = entry.task.spec if entry.task else None
        if spec is None:
            # What it would say is not known: it may lead to anything.
            anything.add(entry.id)
            continue
        for ref in spec.trigger.chain.sources if spec.trigger.chain else ():
            source = registry.resolve(ref, near=entry.id)
            if source is not None and spec.trigger.chain is not None:
                links.setdefault(entry.id, []).append(Link(source.id, spec.trigger.chain.on))
        failure = spec.on_failure_chain
        target = registry.resolve(failure.task, near=entry.id) if failure else None
        if target is not None:
            links.setdefault(target.id, []).append(Link(entry.id, "failure"))
        grants = spec.permissions.dicode
        if grants.runs_replay or "*" in grants.tasks:
            anything.add(entry.id)
            continue
        for pattern in grants.tasks:
            named = registry.resolve(pattern, near=entry.id)
            meant = {named.id} if named else set[str]()
            meant |= {e.id for e in entries if fnmatch.fnmatchcase(e.id, pattern)}
            for task_id in meant:
                links.setdefault(task_id, []).append(Link(entry.id))
    named_by_any = [registry.resolve(ref) for ref in started_by_any]
    by_any = frozenset(entry.id for entry in named_by_any if entry is not None)
    return Starters(links, frozenset(anything), by_any)


def _sources(
    registry: Registry, task_id: str, chain: ChainTrigger, faults: dict[str, list[Fault]]
) -> dict[str, int]:
    """Give the tasks a chain follows, each with the index of its reference."""
    found: dict[str, int] = {}
    for index, ref in enumerate(chain.sources):
        source = registry.resolve(ref, near=task_id)
        if source is not None:
            found.setdefault(source.id, index)
            continue
        path = ("trigger", "chain", "from", index)
        missing = Fault(FaultKind.SOURCE_MISSING, path, f"there is no task '{ref}'", ref)
        faults.setdefault(task_id, []).append(missing)
    return found


def _cycle_message(turn: Turn) -> str:
    return (
        f"the chain leads back to itself: {' → '.join(turn.steps(_SHOWN_STEPS))}; "
        "take one of these links out of trigger.chain.from"
    )


def _failure_fault(registry: Registry, task_id: str, ref: str) -> Fault | None:
    if not ref:
        return None
    path = ("on_failure_chain",)
    target = registry.resolve(ref, near=task_id)
    if target is None:
        return Fault(FaultKind.FAILURE_CHAIN_MISSING, path, f"there is no task '{ref}'", ref)
    if target.id == task_id:
        message = "a task is never its own failure chain: name another task"
        return Fault(FaultKind.FAILURE_CHAIN_ITSELF, path, message)
    return None
