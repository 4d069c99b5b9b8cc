"""What is decided from what was seen and what is there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.reconciler.plan import Action, Desired, Kind, Seen, plan, settle
from dicode_mcp.registry import Entry
from dicode_mcp.spec.model import Task, TaskSpec
from dicode_mcp.spec.problems import Problem

ROOT = Path("/src")
READY = Condition(ConditionType.READY, True, "Loaded")
BROKEN = Condition(ConditionType.READY, False, "InvalidSpec", "bad")
NO_RUNTIME = Condition(ConditionType.RUNTIME, False, "Unhealthy", "no python")
PROBLEM = Problem("task.yaml", 1, 1, "name", "is required")
SPEC = TaskSpec.model_validate({"name": "x", "runtime": "python", "trigger": {"manual": True}})


def good(task_id: str, digest: str = "1", *conditions: Condition) -> Seen:
    folder = ROOT / task_id
    task = Task(task_id, SPEC, folder, None, digest * 64, "s")
    return Seen(task_id, folder, task, (READY, *conditions))


def bad(task_id: str) -> Seen:
    return Seen(task_id, ROOT / task_id, None, (BROKEN,), (PROBLEM,))


def whole(*seen: Seen, unread: tuple[Path, ...] = ()) -> Desired:
    return Desired("s", {s.id: s for s in seen}, whole=True, unread=unread)


def looked(*seen: Seen, gone: tuple[str, ...] = ()) -> Desired:
    ids = frozenset(s.id for s in seen) | frozenset(gone)
    return Desired("s", {s.id: s for s in seen}, looked=ids)


def after(*desired: Desired) -> dict[str, Entry]:
    """Apply plans one after the other to an empty registry."""
    there: dict[str, Entry] = {}
    for step in desired:
        for action in plan(step, there):
            if action.kind is Kind.REMOVE:
                del there[action.entry.id]
            else:
                there[action.entry.id] = action.entry
    return there


def kinds(actions: tuple[Action, ...]) -> list[tuple[Kind, str]]:
    return [(a.kind, a.entry.id) for a in actions]


def test_new_tasks_are_registered_and_the_same_look_again_changes_nothing() -> None:
    desired = whole(good("b"), good("a"), bad("c"))
    actions = plan(desired, {})
    assert kinds(actions) == [(Kind.REGISTER, "a"), (Kind.REGISTER, "b"), (Kind.BREAK, "c")]
    assert plan(desired, after(desired)) == ()


def test_another_digest_is_an_update_another_condition_is_not() -> None:
    there = after(whole(good("a")))
    assert kinds(plan(looked(good("a", "2")), there)) == [(Kind.UPDATE, "a")]
    assert kinds(plan(looked(good("a", "1", NO_RUNTIME)), there)) == [(Kind.REFRESH, "a")]


def test_a_broken_file_keeps_the_last_good_version_and_its_conditions() -> None:
    there = after(whole(good("a", "1", NO_RUNTIME)), looked(bad("a")))
    entry = there["a"]
    assert entry.task
    assert entry.task.digest == "1" * 64
    assert entry.conditions == (BROKEN, NO_RUNTIME)
    assert entry.problems == (PROBLEM,)


def test_mending_is_told_whether_the_version_is_new_or_not() -> None:
    there = after(whole(good("a")), looked(bad("a")))
    (same,) = plan(looked(good("a")), there)
    (new,) = plan(looked(good("a", "2")), there)
    assert (same.kind, same.mended) == (Kind.REFRESH, True)
    assert (new.kind, new.mended) == (Kind.UPDATE, True)
    assert new.entry.problems == ()


def test_a_task_that_never_loaded_is_listed_and_registered_once_good() -> None:
    there = after(whole(bad("a")))
    assert there["a"].task is None
    assert kinds(plan(looked(good("a")), there)) == [(Kind.REGISTER, "a")]


def test_only_a_search_of_the_whole_source_removes_what_it_does_not_name() -> None:
    there = after(whole(good("a"), good("b")))
    assert plan(looked(good("a")), there) == ()
    assert kinds(plan(looked(gone=("b",)), there)) == [(Kind.REMOVE, "b")]
    assert kinds(plan(whole(good("a")), there)) == [(Kind.REMOVE, "b")]


def test_what_lies_below_an_unread_folder_is_kept() -> None:
    there = after(whole(good("locked/a"), good("b")))
    assert kinds(plan(whole(unread=(ROOT / "locked",)), there)) == [(Kind.REMOVE, "b")]


def waits(task_id: str, digest: str, **more: Any) -> Seen:
    waiting = good(task_id, digest).task
    wait = Condition(ConditionType.READY, False, "PendingApproval", "look")
    return Seen(task_id, ROOT / task_id, None, (wait,), waiting=waiting, **more)


def test_a_version_that_waits_stands_beside_the_one_in_force() -> None:
    entry = after(whole(good("a")), whole(waits("a", "2")))["a"]
    assert entry.task
    assert entry.waiting
    assert (entry.task.digest[0], entry.waiting.digest[0], entry.kept) == ("1", "2", True)
    entry = after(whole(good("a")), whole(waits("a", "2")), whole(good("a", "2")))["a"]
    assert entry.task
    assert (entry.task.digest[0], entry.waiting, entry.kept) == ("2", None, False)


def test_after_a_restart_the_version_that_was_approved_comes_in_force() -> None:
    entry = after(whole(waits("a", "2", approved=good("a", "1").task)))["a"]
    assert entry.task
    assert (entry.task.digest[0], entry.kept) == ("1", True)
    assert after(whole(waits("a", "2")))["a"].task is None


def test_a_version_whose_files_were_written_over_goes_out_of_force() -> None:
    entry = after(whole(good("a")), whole(waits("a", "2", spoilt=True)))["a"]
    assert entry.task is None
    assert entry.waiting
    assert after(whole(good("a")), whole(replace(bad("a"), spoilt=True)))["a"].task is None


def test_doubtful_actions_wait_for_their_time_and_others_do_not() -> None:
    there = after(whole(good("a"), good("b")))
    desired = whole(bad("a"), good("c"))
    actions = plan(desired, there)
    first = settle(actions, desired, {}, now=10.0, patience=1.0)
    assert kinds(first.actions) == [(Kind.REGISTER, "c")]
    assert first.doubts == {"a": 10.0, "b": 10.0}
    soon = settle(actions, desired, first.doubts, now=10.5, patience=1.0)
    assert soon.doubts == first.doubts
    late = settle(actions, desired, soon.doubts, now=11.0, patience=1.0)
    assert kinds(late.actions) == kinds(actions)
    assert late.doubts == {}


def test_without_patience_nothing_waits() -> None:
    desired = whole(bad("a"))
    settled = settle(plan(desired, {}), desired, {}, now=1.0, patience=0.0)
    assert kinds(settled.actions) == [(Kind.BREAK, "a")]


def test_a_doubt_ends_when_the_folder_is_well_and_stays_while_it_was_not_looked_at() -> None:
    desired = looked(good("a"))
    settled = settle((), desired, {"a": 1.0, "other": 2.0}, now=3.0, patience=9.0)
    assert settled.doubts == {"other": 2.0}
    assert settle((), whole(), {"other": 2.0}, now=3.0, patience=9.0).doubts == {}
