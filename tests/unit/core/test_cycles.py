import random
from itertools import pairwise

import pytest

from dicode_mcp.cycles import find_cycles


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ({}, {}),
        ({"b": ["a"], "c": ["b"]}, {}),
        ({"a": ["a"]}, {"a": ("a",)}),
        ({"b": ["a"], "a": ["b"]}, {"a": ("a", "b"), "b": ("b", "a")}),
        (
            {"b": ["a"], "c": ["b"], "a": ["c"]},
            {"a": ("a", "b", "c"), "b": ("b", "c", "a"), "c": ("c", "a", "b")},
        ),
        # What merely hangs on a cycle, or leads into one, is not on it.
        (
            {"b": ["a"], "a": ["b", "x"], "after": ["b"], "x": ["y"]},
            {"a": ("a", "b"), "b": ("b", "a")},
        ),
        # A diamond is no cycle.
        ({"b": ["a"], "c": ["a"], "d": ["b", "c"]}, {}),
        # Two cycles that share a task: each is told one it is on.
        (
            {"hub": ["left", "right"], "left": ["hub"], "right": ["hub"]},
            {"hub": ("hub", "left"), "left": ("left", "hub"), "right": ("right", "hub")},
        ),
    ],
)
def test_each_task_on_a_cycle_is_told_its_way_round(
    upstream: dict[str, list[str]], expected: dict[str, tuple[str, ...]]
) -> None:
    found = {name: tuple(turn.steps(9)[:-1]) for name, turn in find_cycles(upstream).items()}
    assert found == expected


def test_a_ring_of_ten_thousand_is_found_without_recursion() -> None:
    ring = {f"t{n}": [f"t{(n - 1) % 10_000}"] for n in range(10_000)}
    found = find_cycles(ring)
    assert len(found) == 10_000
    assert found["t5"].steps(5) == ["t5", "t6", "t7", "t8", "…", "t4", "t5"]
    assert found["t5"].before == "t4"


def reaches(graph: dict[str, list[str]], start: str, goal: str) -> bool:
    seen, edge = set[str](), list(graph.get(start, []))
    while edge:
        node = edge.pop()
        if node == goal:
            return True
        if node not in seen:
            seen.add(node)
            edge += graph.get(node, [])
    return False


def test_on_any_graph_exactly_the_tasks_that_lead_back_to_themselves_are_found() -> None:
    chance = random.Random(3)
    for _ in range(300):
        names = [f"t{n}" for n in range(chance.randrange(1, 9))]
        graph = {
            name: chance.sample(names, chance.randrange(0, min(3, len(names)) + 1))
            for name in names
        }
        found = find_cycles(graph)
        assert set(found) == {name for name in names if reaches(graph, name, name)}
        for name, turn in found.items():
            way = turn.steps(9)
            assert way[0] == way[-1] == name
            assert turn.before == way[-2]
            assert all(before in graph[after] for before, after in pairwise(way))
