"""Cycles in a graph of names. Pure; it does not know what the names stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


def find_cycles(upstream: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Give, for each task on a cycle, one cycle through it in the order of starting.

    ``upstream`` maps a task to those it follows. A cycle begins with the task itself, which is
    not repeated at its end: ``(a, b)`` is ``a → b → a``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for component in _components(upstream):
        members = set(component)
        for task_id in sorted(component):
            if task_id in found:
                continue
            cycle = _cycle_through(task_id, upstream, members) or []
            for index, member in enumerate(cycle):
                found.setdefault(member, (*cycle[index:], *cycle[:index]))
    return found


def _components(upstream: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Give the strongly connected components (Tarjan, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    for root in sorted(upstream):
        if root in index:
            continue
        work: list[tuple[str, Iterator[str]]] = []

        def enter(node: str, work: list[tuple[str, Iterator[str]]] = work) -> None:
            index[node] = low[node] = len(index)
            stack.append(node)
            on_stack.add(node)
            work.append((node, iter(upstream.get(node, ()))))

        enter(root)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is not None:
                if following not in index:
                    enter(following)
                elif following in on_stack:
                    low[node] = min(low[node], index[following])
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[node])
            if low[node] == index[node]:
                component: list[str] = []
                while not component or component[-1] != node:
                    component.append(stack.pop())
                    on_stack.discard(component[-1])
                yield component


def _cycle_through(
    start: str, upstream: Mapping[str, Iterable[str]], members: set[str]
) -> list[str] | None:
    """Give a shortest cycle through a task, searching up its links."""
    leads_to: dict[str, str] = {}
    edge = [start]
    while edge:
        further: list[str] = []
        for node in edge:
            for source in upstream.get(node, ()):
                if source == start:
                    return [start, *_way(node, leads_to, start)]
                if source in members and source not in leads_to:
                    leads_to[source] = node
                    further.append(source)
        edge = further
    return None


def _way(node: str, leads_to: Mapping[str, str], end: str) -> Iterator[str]:
    while node != end:
        yield node
        node = leads_to[node]
