"""What a caller who may read some tasks is told of the others: nothing, also not in passing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.registry import Entry, Registry, SourceState
from dicode_mcp.runs.model import Payload, Run, RunStatus, Trigger
from dicode_mcp.service.principal import Principal, key_principal, local_principal
from dicode_mcp.service.scopes import read_scopes
from dicode_mcp.service.visible import as_seen, as_told
from dicode_mcp.spec.problems import Problem
from dicode_mcp.testing.rooms import Rooms, make_task
from dicode_mcp.testing.store import MemoryStore


def reader(*globs: str) -> Principal:
    return key_principal("key:r#1", "http", read_scopes(f"read:{glob}" for glob in globs))


def entry(task_id: str, message: str = "", hint: str = "") -> Entry:
    condition = Condition(ConditionType.READY, not message, "Loaded", message)
    problems = (Problem("task.yaml", 1, 1, "trigger", message, hint),) if message else ()
    folder = Path("/srv") / task_id
    return Entry(task_id, task_id.split("/")[0], folder, make_task(task_id), (condition,), problems)


@pytest.fixture
def registry() -> Registry:
    made = Rooms().registry
    for name in ("a", "b"):
        made.put_source(SourceState(name, "local", f"/srv/{name}"))
    made.apply("a", put=[entry("a/one"), entry("a/two")])
    made.apply("b", put=[entry("b/one"), entry("b/de-ploy.v2")])
    return made


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("all is well.", "all is well."),
        ("it belongs to task 'b/one'; rename it", "it belongs to another task; rename it"),
        ('closest: a/two, "b/one", b/de-ploy.v2.', "closest: a/two, another task, another task."),
        ("b/one/more and ab/one are no tasks", "b/one/more and ab/one are no tasks"),
        (
            "source b declares it too, source 'a' not",
            "another source declares it too, source 'a' not",
        ),
        ("no such task: b/gone", "no such task: b/gone"),
    ],
)
def test_a_sentence_names_only_what_its_reader_sees(
    registry: Registry, said: str, shown: str
) -> None:
    given = entry("a/one", said, said)
    told = as_told(registry, reader("a/*"), given)
    assert [c.message for c in told.conditions] == [shown]
    assert [(p.message, p.hint) for p in told.problems] == [(shown, shown)]
    for principal in (local_principal("mcp"), reader("*")):
        assert as_told(registry, principal, given) is given


def run(task_id: str, parent: str | None = None, root: str | None = None) -> Run:
    return Run(
        task_id.replace("/", "-"),
        task_id,
        RunStatus.QUEUED,
        Trigger.CHAIN,
        0,
        parent_run_id=parent,
        root_run_id=root,
    )


async def test_what_led_to_a_run_is_named_to_whoever_reads_that_too() -> None:
    store = MemoryStore()
    root, middle = run("b/root"), run("a/middle", "b-root", "b-root")
    last, lost = run("a/last", "a-middle", "b-root"), run("a/lost", "gone", "gone")
    for one in (root, middle, last, lost):
        await store.add_run(one, Payload())
    runs = (middle, last, lost)
    leads = [(r.parent_run_id, r.root_run_id) for r in await as_seen(store, reader("a/*"), runs)]
    assert leads == [(None, None), ("a-middle", None), (None, None)]
    for principal in (local_principal("mcp"), reader("*")):
        assert await as_seen(store, principal, runs) == list(runs)
    assert await as_seen(store, reader("a/*", "b/*"), (middle, last)) == [middle, last]
