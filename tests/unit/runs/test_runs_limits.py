"""Policies, keys, and what becomes of a run too many."""

from typing import Any

import pytest

from dicode_mcp.runs.limits import (
    Blocked,
    Crowd,
    Group,
    Overlap,
    Policy,
    expand_key,
    limit_of,
    overlapping,
    policy_of,
    replaced,
    stuck,
)
from dicode_mcp.runs.model import Trigger
from dicode_mcp.spec.model import ConcurrencySpec


def spec(**fields: Any) -> ConcurrencySpec:
    return ConcurrencySpec.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "trigger", "policy"),
    [
        (None, Trigger.MCP, Policy(None, "allow")),
        (None, Trigger.CRON, Policy(1, "skip")),
        (None, Trigger.RETRY, Policy(None, "queue")),
        ({"limit": 2}, Trigger.WEBHOOK, Policy(2, "allow")),
        ({"limit": 2}, Trigger.CRON, Policy(2, "skip")),
        ({"overlap": "allow"}, Trigger.CRON, Policy(None, "allow")),
        ({"overlap": "allow"}, Trigger.MCP, Policy(None, "allow")),
        ({"limit": 3, "overlap": "allow"}, Trigger.MCP, Policy(3, "allow")),
        ({"key": "x"}, Trigger.MCP, Policy(1, "allow")),
        ({"overlap": "queue"}, Trigger.CRON, Policy(1, "queue")),
        ({"overlap": "skip"}, Trigger.MCP, Policy(1, "skip")),
        ({"overlap": "replace", "limit": 2}, Trigger.CHAIN, Policy(2, "replace")),
        ({"overlap": "skip"}, Trigger.RETRY, Policy(1, "queue")),
        ({"overlap": "skip"}, Trigger.DAEMON, Policy(None, "allow")),
        ({"overlap": "skip"}, Trigger.TEST, Policy(None, "allow")),
    ],
)
def test_what_holds_for_a_run_comes_from_its_task_and_what_started_it(
    fields: dict[str, Any] | None, trigger: Trigger, policy: Policy
) -> None:
    concurrency = None if fields is None else spec(**fields)
    assert policy_of(concurrency, trigger) == policy
    if trigger is Trigger.MCP:
        assert limit_of(concurrency) == policy.limit


def test_a_key_is_told_apart_by_the_values_of_its_params() -> None:
    concurrency = spec(key="${params.repo}@${params.deep}/${params.n}")
    given = {"repo": "a/b", "deep": True, "n": 1.5}
    key = expand_key(concurrency, given)
    assert key is not None
    assert key == expand_key(concurrency, dict(given))
    others = [{**given, "repo": "a/c"}, {**given, "deep": 1}, {**given, "n": 1}, {"repo": None}]
    assert len({key, *(expand_key(concurrency, other) for other in others)}) == 5
    assert expand_key(spec(limit=1), {"repo": "a"}) is None
    assert expand_key(None, {}) is None


def test_a_key_is_kept_as_its_digest_since_a_param_may_hold_anything() -> None:
    for text in ("s3cret", "x" * 1_000_000, "\ud800"):
        key = expand_key(spec(key="of ${params.text}"), {"text": text})
        assert key is not None
        assert len(key) == 64
        assert text not in key


@pytest.mark.parametrize(
    ("limit", "overlap", "crowd", "before"),
    [
        (1, "skip", Crowd(), None),
        (1, "skip", Crowd(on=("a",)), "a"),
        (1, "skip", Crowd(due=("b",)), "b"),
        (1, "skip", Crowd(everyone=("later",)), None),
        (2, "skip", Crowd(on=("a",)), None),
        (2, "skip", Crowd(on=("a",), due=("b",)), "a"),
        (1, "queue", Crowd(on=("a",)), None),
        (1, "replace", Crowd(on=("a",)), None),
        (1, "allow", Crowd(on=("a",)), None),
        (None, "skip", Crowd(on=("a",)), None),
    ],
)
def test_a_run_is_skipped_for_those_that_are_on_or_wait_for_a_place(
    limit: int | None, overlap: Overlap, crowd: Crowd, before: str | None
) -> None:
    assert overlapping(Policy(limit, overlap), crowd) == before


def test_the_newest_replace_the_others() -> None:
    everyone = ("a", "b", "c", "d")
    assert replaced(Policy(1, "replace"), everyone) == ("a", "b", "c")
    assert replaced(Policy(3, "replace"), everyone) == ("a",)
    assert replaced(Policy(9, "replace"), everyone) == ()
    assert replaced(Policy(1, "replace"), everyone, {"b"}) == ("a", "c")
    assert replaced(Policy(1, "queue"), everyone) == ()


WAITS = dict[str, list[str]]
BLOCKED = dict[str, tuple[int, tuple[str, ...]]]


@pytest.mark.parametrize(
    ("start", "waits", "blocked", "verdict"),
    [
        ("a2", {"a1": ["a2"]}, {"a2": (1, ("a1",))}, True),
        ("a2", {}, {"a2": (1, ("a1",))}, False),
        ("a3", {"a1": ["a3"]}, {"a3": (2, ("a1", "a2"))}, False),
        ("a3", {"a1": ["a3"], "a2": ["a3"]}, {"a3": (2, ("a1", "a2"))}, True),
        # a calls b and b calls a, each of them one at a time
        ("a2", {"a1": ["b2"], "b1": ["a2"]}, {"a2": (1, ("a1",)), "b2": (1, ("b1",))}, True),
        # the same, but b's other run ends by itself
        ("b2", {"a1": ["b2"]}, {"b2": (1, ("b1",))}, False),
        # through a task without limits
        ("a2", {"a1": ["c"], "c": ["a2"]}, {"a2": (1, ("a1",))}, True),
        # a limit that was lowered to less than are on
        ("a4", {"a1": ["a4"], "a2": ["a4"]}, {"a4": (1, ("a1", "a2", "a3"))}, True),
        ("a4", {"a1": ["a4"], "a2": ["a4"]}, {"a4": (3, ("a1", "a2", "a3"))}, False),
        ("free", {}, {}, False),
    ],
)
def test_a_run_is_stuck_when_its_place_is_held_by_who_waits_for_it(
    start: str, waits: WAITS, blocked: BLOCKED, verdict: bool
) -> None:
    def block(run_id: str) -> Blocked | None:
        if run_id not in blocked:
            return None
        return Blocked(Group(run_id[0]), *blocked[run_id])

    assert stuck(start, lambda run_id: waits.get(run_id, []), block) is verdict
