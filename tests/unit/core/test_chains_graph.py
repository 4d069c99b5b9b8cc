"""Chains in the registry: which links are in force, and what is wrong with the others."""

from dicode_mcp.chains import FaultKind
from dicode_mcp.spec.model import Task
from dicode_mcp.testing.rooms import Rooms, make_task


def follows(task_id: str, *sources: str, on: str = "success") -> Task:
    return make_task(task_id, trigger={"chain": {"from": list(sources), "on": on}})


def test_who_follows_a_task_is_given_in_order_of_id() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"), follows("c", "a"), follows("b", "a", on="always"))
    assert rooms.chains.downstream_of("a") == [("b", "always"), ("c", "success")]
    assert rooms.chains.downstream_of("b") == ()


def test_a_reference_means_a_sibling_first() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"), make_task("set/a"), follows("set/b", "a"), follows("b", "a"))
    assert rooms.chains.downstream_of("set/a") == [("set/b", "success")]
    assert rooms.chains.downstream_of("a") == [("b", "success")]


def test_two_references_to_one_task_are_one_link() -> None:
    rooms = Rooms()
    rooms.put(make_task("set/a"), follows("set/b", "a", "set/a"))
    assert rooms.chains.downstream_of("set/a") == [("set/b", "success")]


def test_links_follow_what_is_in_force() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"), follows("b", "a"))
    assert rooms.chains.downstream_of("a") == [("b", "success")]
    rooms.put(make_task("b", "1"))
    assert rooms.chains.downstream_of("a") == ()
    rooms.put(follows("b", "a"), follows("c", "late"))
    assert "c" in rooms.chains.graph().faults
    rooms.put(make_task("late"))
    assert rooms.chains.downstream_of("late") == [("c", "success")]
    assert rooms.chains.graph().faults == {}
    rooms.remove("a")
    assert rooms.chains.graph().faults["b"][0].kind is FaultKind.SOURCE_MISSING


def test_conditions_that_come_and_go_do_not_rebuild_the_graph() -> None:
    rooms = Rooms()
    rooms.put(make_task("a"), follows("b", "a"))
    graph = rooms.chains.graph()
    rooms.pause("a")
    assert rooms.chains.graph() is graph


def test_the_links_of_a_cycle_start_nothing_and_those_beside_it_do() -> None:
    rooms = Rooms()
    rooms.put(make_task("start"), follows("a", "b", "start"), follows("b", "a"), follows("z", "b"))
    graph = rooms.chains.graph()
    assert graph.downstream == {"b": [("z", "success")]}
    assert set(graph.faults) == {"a", "b"}
    (fault,) = graph.faults["a"]
    assert fault.kind is FaultKind.CYCLE
    assert "a → b → a" in fault.message
    assert fault.path == ("trigger", "chain", "from", 0)


def test_a_task_chained_to_itself_is_a_cycle_of_one() -> None:
    rooms = Rooms()
    rooms.put(follows("a", "a"))
    (fault,) = rooms.chains.graph().faults["a"]
    assert fault.kind is FaultKind.CYCLE
    assert "a → a" in fault.message
    assert rooms.chains.downstream_of("a") == ()


def test_a_long_cycle_is_told_in_short() -> None:
    rooms = Rooms()
    rooms.put(*(follows(f"t{n}", f"t{(n - 1) % 500}") for n in range(500)))
    (fault,) = rooms.chains.graph().faults["t0"]
    assert len(fault.message) < 400
    assert "…" in fault.message


def test_failure_chains_that_name_nobody_or_themselves_are_faults() -> None:
    rooms = Rooms()
    rooms.put(
        make_task("a", on_failure_chain="ghost"),
        make_task("b", on_failure_chain="b"),
        make_task("c", on_failure_chain=""),
        make_task("d", on_failure_chain="a"),
    )
    faults = rooms.chains.graph().faults
    assert {i: [f.kind for f in found] for i, found in faults.items()} == {
        "a": [FaultKind.FAILURE_CHAIN_MISSING],
        "b": [FaultKind.FAILURE_CHAIN_ITSELF],
    }
