"""Which tasks start when another ends: the graph of chains, built anew when the registry changes.

Knows references and ids, nothing of runs in progress. What is wrong with a link (a cycle, a task
that is not there) is told as a fault, and a link with a fault starts nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from dicode_mcp.cycles import Turn, find_cycles
from dicode_mcp.registry import Registry
from dicode_mcp.runs.follow_ups import failure_request
from dicode_mcp.runs.model import Run, RunRequest
from dicode_mcp.spec.model import ChainTrigger, FailureChain
from dicode_mcp.spec.problems import KeyPath

log = logging.getLogger("dicode.chains")

_SHOWN_STEPS = 20


class FaultKind(StrEnum):
    """What can be wrong with a link; stable, the reason of a condition."""

    CYCLE = "ChainCycle"
    SOURCE_MISSING = "ChainSourceMissing"
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
    """The links in force: by upstream id, who follows and on what; and the faults by task."""

    downstream: Mapping[str, Sequence[tuple[str, str]]] = field(
        default_factory=dict[str, list[tuple[str, str]]]
    )
    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict[str, tuple[Fault, ...]])


class Chains:
    """Looks up what follows the end of a task's run."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._generation = -1
        self._graph = Graph()

    def graph(self) -> Graph:
        """Give the graph of the tasks in force now."""
        if self._generation != self._registry.generation:
            self._generation = self._registry.generation
            self._graph = build_graph(self._registry)
        return self._graph

    def downstream_of(self, task_id: str) -> Sequence[tuple[str, str]]:
        """Give the tasks chained to ``task_id`` as (id, ``on``), in order of id."""
        return self.graph().downstream.get(task_id, ())

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


def build_graph(registry: Registry) -> Graph:
    """Resolve every link of the tasks in force, and find what is wrong with them."""
    faults: dict[str, list[Fault]] = {}
    links: dict[str, dict[str, int]] = {}
    on: dict[str, str] = {}
    for entry in registry.entries():
        chain = entry.task.spec.trigger.chain if entry.task else None
        if chain is not None:
            links[entry.id] = _sources(registry, entry.id, chain, faults)
            on[entry.id] = chain.on
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
        for source_id in sources if task_id not in cycles else ():
            downstream.setdefault(source_id, []).append((task_id, on[task_id]))
    return Graph(downstream, {i: tuple(found) for i, found in faults.items()})


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
