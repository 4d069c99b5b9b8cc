"""What readers of the registry see, and when they are told."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.errors import Code
from dicode_mcp.events import Event, EventBus, SourceChanged, TasksChanged
from dicode_mcp.protocols import Revision
from dicode_mcp.registry import Claimant, Entry, Registry, SourceState, merge, owners
from dicode_mcp.spec.model import Task, TaskSpec
from dicode_mcp.testing.clock import START_MS, FakeClock

READY = Condition(ConditionType.READY, True, "Loaded")
BROKEN = Condition(ConditionType.READY, False, "InvalidSpec", "task.yaml:1: bad")
PAUSED = Condition(ConditionType.PAUSED, True, "ByUser")


class Told(EventBus):
    """Keeps what was published since it was last asked."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[Event] = []

    def publish(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(told: Told, clock: FakeClock) -> Registry:
    registry = Registry(told, clock, ["a", "b"])
    registry.started()
    return registry


def entry(
    task_id: str,
    source: str = "a",
    *,
    digest: str = "0" * 64,
    webhook: str | None = None,
    conditions: tuple[Condition, ...] = (READY,),
) -> Entry:
    folder = Path("/src") / source / task_id
    trigger = {"webhook": webhook} if webhook else {"manual": True}
    spec = TaskSpec.model_validate({"name": task_id, "runtime": "python", "trigger": trigger})
    task = Task(task_id, spec, folder, None, digest, source)
    return Entry(task_id, source, folder, task, conditions)


def conditions_of(registry: Registry, task_id: str) -> list[tuple[str, bool, str]]:
    found = registry.get(task_id)
    assert found
    return [(c.type.value, c.status, c.reason) for c in found.conditions]


def test_entries_are_sorted_and_told_once(registry: Registry, told: Told) -> None:
    registry.apply("a", [entry("z"), entry("b"), entry("a/x")])
    assert [e.id for e in registry.entries()] == ["a/x", "b", "z"]
    assert told.take() == [TasksChanged(("a/x", "b", "z"))]


def test_nothing_is_told_when_nothing_changed(registry: Registry, told: Told) -> None:
    registry.apply("a", [entry("x")])
    registry.set_conditions("x", "pauses", [PAUSED])
    told.take()
    registry.apply("a", [entry("x")])
    registry.apply("a", remove=["unknown"])
    registry.set_conditions("x", "pauses", [PAUSED])
    registry.set_conditions("x", "triggers", [])
    assert told.take() == []


def test_a_new_version_and_a_removal_are_told(registry: Registry, told: Told) -> None:
    registry.apply("a", [entry("x")])
    told.take()
    registry.apply("a", [entry("x", digest="1" * 64)])
    assert told.take() == [TasksChanged(("x",))]
    registry.apply("a", remove=["x"])
    assert told.take() == [TasksChanged(("x",))]
    assert registry.get("x") is None


def test_conditions_of_several_rooms_stand_side_by_side(registry: Registry) -> None:
    registry.set_conditions("x", "pauses", [PAUSED])
    registry.apply("a", [entry("x")])
    assert conditions_of(registry, "x") == [("Ready", True, "Loaded"), ("Paused", True, "ByUser")]
    registry.apply("a", [entry("x", digest="1" * 64)])
    assert ("Paused", True, "ByUser") in conditions_of(registry, "x")
    registry.set_conditions("x", "pauses", [])
    assert conditions_of(registry, "x") == [("Ready", True, "Loaded")]


def test_a_room_may_say_that_a_task_is_not_ready(registry: Registry) -> None:
    registry.apply("a", [entry("x")])
    secret = Condition(ConditionType.READY, False, "SecretMissing", "webhook secret")
    registry.set_conditions("x", "triggers", [secret])
    found = registry.get("x")
    assert found
    assert not found.ready
    assert conditions_of(registry, "x") == [("Ready", False, "SecretMissing")]


def test_since_is_when_a_condition_came_to_hold(registry: Registry, clock: FakeClock) -> None:
    registry.apply("a", [entry("x")])
    clock.advance(10)
    registry.apply("a", [entry("x", digest="1" * 64)])
    registry.set_conditions("x", "pauses", [PAUSED])
    found = registry.get("x")
    assert found
    assert [c.since_ms for c in found.conditions] == [START_MS, START_MS + 10_000]
    clock.advance(10)
    registry.apply("a", [entry("x", conditions=(BROKEN,))])
    found = registry.get("x")
    assert found
    assert found.conditions[0].since_ms == START_MS + 20_000


def test_the_first_owner_keeps_an_id_and_the_other_shows_a_conflict(registry: Registry) -> None:
    registry.apply("b", [entry("x", "b")])
    registry.apply("a", [entry("x", "a")])
    found = registry.get("x")
    assert found
    assert found.source == "b"
    assert not found.contested
    (loser,) = registry.contested()
    assert (loser.source, loser.task, loser.contested) == ("a", None, True)
    assert "belongs to source 'b'" in loser.conditions[0].message


def test_the_second_takes_over_when_the_first_owner_goes(registry: Registry, told: Told) -> None:
    registry.apply("b", [entry("x", "b")])
    registry.apply("a", [entry("x", "a")])
    told.take()
    registry.apply("b", remove=["x"])
    found = registry.get("x")
    assert found
    assert (found.source, found.contested) == ("a", False)
    assert registry.contested() == ()
    assert told.take() == [TasksChanged(("x",))]


def test_a_new_contender_is_told_of(registry: Registry, told: Told) -> None:
    registry.apply("a", [entry("x", "a")])
    told.take()
    registry.apply("b", [entry("x", "b")])
    assert told.take() == [TasksChanged(("x",))]
    registry.apply("b", remove=["x"])
    assert told.take() == [TasksChanged(("x",))]
    assert registry.contested() == ()


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_while_starting_the_configured_order_decides(
    told: Told, clock: FakeClock, order: tuple[str, str]
) -> None:
    registry = Registry(told, clock, ["a", "b"])
    for source in order:
        registry.apply(source, [entry("x", source, webhook="/hooks/x")])
    found = registry.get("x")
    assert found
    assert found.source == "a"


def test_the_first_owner_keeps_a_webhook_path(registry: Registry) -> None:
    registry.apply("a", [entry("z", webhook="/hooks/p")])
    registry.apply("a", [entry("b", webhook="/hooks/p/"), entry("c", webhook="/hooks/c")])
    assert registry.webhooks() == {"/hooks/c": "c", "/hooks/p": "z"}
    loser = registry.get("b")
    assert loser
    assert loser.task
    assert ("Conflict", True, "WebhookTaken") in conditions_of(registry, "b")
    assert conditions_of(registry, "z") == [("Ready", True, "Loaded")]


def test_a_webhook_path_passes_on_when_its_owner_goes_or_moves(
    registry: Registry, told: Told
) -> None:
    registry.apply("a", [entry("one", webhook="/hooks/p")])
    registry.apply("a", [entry("two", webhook="/hooks/p"), entry("three", webhook="/hooks/p")])
    told.take()
    registry.apply("a", [entry("one", webhook="/hooks/q")])
    assert registry.webhooks() == {"/hooks/p": "three", "/hooks/q": "one"}
    assert told.take() == [TasksChanged(("one", "three", "two"))]
    registry.apply("a", remove=["three"])
    assert registry.webhooks() == {"/hooks/p": "two", "/hooks/q": "one"}
    assert conditions_of(registry, "two") == [("Ready", True, "Loaded")]
    registry.apply("a", remove=["one", "two"])
    assert registry.webhooks() == {}


def test_a_reference_means_the_nearest_sibling_first(registry: Registry) -> None:
    registry.apply("a", [entry(i) for i in ("set/inner/t", "set/t", "t", "set/inner/me", "only")])

    def meant(ref: str, near: str | None = None) -> str | None:
        found = registry.resolve(ref, near)
        return found.id if found else None

    assert meant("t", "set/inner/me") == "set/inner/t"
    assert meant("t", "set/other") == "set/t"
    assert meant("t", "only") == "t"
    assert meant("t") == "t"
    assert meant("inner/t", "set/x") == "set/inner/t"
    assert meant("only", "set/inner/me") == "only"
    assert meant("set/t", "set/inner/me") == "set/t"
    assert meant("missing", "set/inner/me") is None


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("slack-digst", "team/slack-digest"), ("Hello", "hello"), ("digest", "team/slack-digest")],
)
def test_near_names_are_suggested(registry: Registry, wrong: str, right: str) -> None:
    registry.apply("a", [entry(i) for i in ("team/slack-digest", "hello", "zebra")])
    assert registry.suggest(wrong)[0] == right


def test_nothing_is_suggested_for_a_name_like_none(registry: Registry) -> None:
    registry.apply("a", [entry("hello")])
    assert registry.suggest("qqqqqq") == []
    assert registry.suggest("") == []


@pytest.mark.parametrize(
    ("wrong", "near"), [("nothere", []), ("a", []), ("other/a-notrig", ["a-notrig"])]
)
def test_strangers_are_not_suggested(registry: Registry, wrong: str, near: list[str]) -> None:
    registry.apply("a", [entry(i) for i in ("a-notrig", "hello", "team/slack-digest")])
    assert registry.suggest(wrong) == near


def test_an_unknown_source_is_told_with_the_nearest(registry: Registry) -> None:
    registry.put_source(SourceState("reports", "local", "/src/reports"))
    error = registry.unknown_source("report")
    assert error.code is Code.SOURCE_NOT_FOUND
    assert "sources here: reports" in error.message
    assert error.hint == "did you mean 'reports'?"


def test_a_source_shows_its_broken_tasks_and_since_when(
    registry: Registry, told: Told, clock: FakeClock
) -> None:
    registry.put_source(SourceState("a", "local", "/src/a"))
    registry.apply("a", [entry("x"), entry("y"), entry("z", conditions=(BROKEN,))])
    clock.advance(5)
    registry.set_conditions("y", "chain", [replace(BROKEN, message="no task 'q'")])
    state = registry.source_state("a")
    assert state
    assert state.broken == (("y", "no task 'q'"), ("z", "task.yaml:1: bad"))
    tasks = find(state.conditions, ConditionType.TASKS)
    assert tasks
    assert (tasks.status, tasks.reason, tasks.since_ms) == (False, "SomeBroken", START_MS)
    assert tasks.message == "2 of 3 tasks are broken: y, z"
    told.take()
    registry.put_source(replace(state, broken=(), conditions=()))
    assert told.take() == [], "broken tasks are the registry's own knowledge"
    registry.set_conditions("y", "chain", [])
    assert told.take() == [TasksChanged(("y",)), SourceChanged("a")]
    registry.apply("a", [entry("z")])
    mended = registry.source_state("a")
    assert mended
    assert (mended.broken, mended.conditions) == ((), ())


def test_a_broken_task_that_goes_is_no_fault_any_more(registry: Registry) -> None:
    registry.put_source(SourceState("a", "local", "/src/a"))
    registry.apply("a", [entry("z", conditions=(BROKEN,))])
    registry.apply("a", remove=["z"])
    state = registry.source_state("a")
    assert state
    assert state.broken == ()


def test_a_task_that_lost_its_id_shows_on_its_own_source(registry: Registry) -> None:
    for name in ("a", "b"):
        registry.put_source(SourceState(name, "local", f"/src/{name}"))
        registry.apply(name, [entry("x", name)])
    first, second = registry.source_states()
    assert first.broken == ()
    assert [task_id for task_id, _ in second.broken] == ["x"]
    assert "belongs to source 'a'" in second.broken[0][1]


def test_many_broken_tasks_are_told_in_short(registry: Registry) -> None:
    registry.put_source(SourceState("a", "local", "/src/a"))
    registry.apply("a", [entry(f"t{n:02}", conditions=(BROKEN,)) for n in range(40)])
    state = registry.source_state("a")
    assert state
    tasks = find(state.conditions, ConditionType.TASKS)
    assert tasks
    assert tasks.message == "40 of 40 tasks are broken: t00, t01, t02, t03, t04 and 35 more"


def test_sources_show_their_count_and_tell_only_of_changes(
    registry: Registry, told: Told, clock: FakeClock
) -> None:
    synced = Condition(ConditionType.SYNCED, True, "Fetched")
    state = SourceState("a", "local", "/src/a", Revision("a", Path("/src/a")), (synced,))
    registry.put_source(SourceState("b", "local", "/src/b"))
    registry.put_source(state)
    assert told.take() == [SourceChanged("b"), SourceChanged("a")]
    clock.advance(5)
    registry.put_source(state)
    assert told.take() == []
    registry.apply("a", [entry("x"), entry("y")])
    assert SourceChanged("a") in told.take()
    found = registry.source_state("a")
    assert found
    assert found.task_count == 2
    assert found.conditions[0].since_ms == START_MS
    assert [s.name for s in registry.source_states()] == ["a", "b"]
    assert registry.source_state("c") is None


def test_owners_are_those_who_hold_else_the_first_in_order() -> None:
    first, second, third = Claimant(0, "a", "x"), Claimant(0, "a", "y"), Claimant(1, "b", "a")
    claims = {"p": [third, second, first], "q": [third, second], "r": list[Claimant]()}
    assert owners(claims, {"q": third, "p": Claimant(2, "gone", "g")}) == {"p": first, "q": third}


def test_merged_conditions_hold_one_ready_and_nothing_twice() -> None:
    assert merge([READY, PAUSED], [PAUSED], [BROKEN]) == (BROKEN, PAUSED)
    assert merge([PAUSED]) == (PAUSED,)
