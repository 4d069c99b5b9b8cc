"""Cycles in a graph of names. Pure; it does not know what the names stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Turn(NamedTuple):
    """A cycle as one of its members sees it: ``ring[at]`` is that member."""

    ring: tuple[str, ...]
    """In the order of starting; shared by all who are on it, the first not repeated."""
    at: int

    @property
    def before(self) -> str:
        """Who leads to the member."""
        return self.ring[self.at - 1]

    def steps(self, most: int) -> list[str]:
        """Give the way from the member round to itself, with ``…`` in a long one's middle."""
        size = len(self.ring)
        way = [self.ring[(self.at + step) % size] for step in range(min(size, most) + 1)]
        if size <= most:
            return way
        return [*way[: most - 1], "…", self.before, self.ring[self.at]]


def find_cycles(upstream: Mapping[str, Iterable[str]]) -> dict[str, Turn]:
    """Give, for each name on a cycle, one cycle through it.

    ``upstream`` maps a name to those that lead to it.
    """
    found: dict[str, Turn] = {}
    for component in _components(upstream):
        members = set(component)
        for name in sorted(component):
            if name in found:
                continue
            ring = tuple(_cycle_through(name, upstream, members) or ())
            for index, member in enumerate(ring):
                found.setdefault(member, Turn(ring, index))
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
