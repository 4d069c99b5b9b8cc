"""What runs used: bounds, judgement by the manifest, and how long it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from dicode_mcp.runs.accesses import (
    MOST,
    MOST_OF_TASK,
    MOST_RUNS,
    Access,
    Ground,
    Hint,
    Seen,
    SeenRun,
    covers_net,
    covers_task,
    decode,
    encode,
    judged,
    lines_for,
    mark_of,
    read_hints,
)
from dicode_mcp.spec.model import Permissions

GROUND = Ground("/tasks/t", read=("/sdk",), write=("/runs/1",), env=frozenset({"PATH"}))


def may(**permissions: Any) -> Permissions:
    return Permissions.model_validate(permissions)


def seen_run(number: int, *accesses: Access, ok: bool = True, whole: bool = True) -> SeenRun:
    return SeenRun(f"r{number}", number, ok, whole, frozenset(accesses), "m")


def test_hints_of_a_process_are_bounded_and_anything_else_is_left_out() -> None:
    assert read_hints("x") == []
    assert read_hints([["read", "/a"], ["read", "/a"], ["x", "y"], [1, 2], "z", ["net", None]]) == [
        ("read", "/a")
    ]
    assert len(read_hints([["read", f"/{n}"] for n in range(10_000)])) == MOST


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (("read", "/data/a/b"), Access("read", "/data", True)),
        (("read", "/data/../etc/x"), Access("read", "/etc/x", False)),
        (("read", "/database"), Access("read", "/database", False)),
        (("write", "/data/a"), Access("write", "/data/a", False)),
        (("write", "/data/out/a"), Access("write", "/data/out", True)),
        (("read", "/data/out/a"), Access("read", "/data/out", True)),
        (("read", "notes/a"), None),
        (("write", "notes/a"), Access("write", "/tasks/t/notes/a", False)),
        (("read", "/sdk/x"), None),
        (("write", "/runs/1/tmp/x"), None),
        (("write", "/runs/12/x"), Access("write", "/runs/12/x", False)),
        (("env", "PATH"), None),
        (("env", "ONE"), Access("env", "ONE", True)),
        (("env", "TWO"), Access("env", "TWO", False)),
        (("net", "api.example.com:443"), Access("net", "api.example.com:443", True)),
        (("net", "other.example.com:443"), Access("net", "other.example.com:443", False)),
        (("run", "/usr/bin/git"), Access("run", "/usr/bin/git", True)),
        (("run", "curl"), Access("run", "curl", False)),
        (("sys", "hostname"), Access("sys", "hostname", False)),
        (("read", "/a\nb"), None),
        (("read", ""), None),
        (("read", "/" + "x" * 400), None),
        (("dicode", "list_tasks: true"), None),
    ],
)
def test_a_hint_is_judged_by_what_is_declared(hint: Hint, expected: Access | None) -> None:
    declared = may(
        fs=[{"path": "/data", "permission": "r"}, {"path": "/data/out", "permission": "rw"}],
        env=["ONE"],
        net=["api.example.com"],
        run=["git"],
    )
    assert judged([hint], declared, GROUND) == (frozenset() if expected is None else {expected})


def test_what_a_gate_let_through_is_left_to_the_gate() -> None:
    gated = Ground("/tasks/t", gated=True)
    hints: list[Hint] = [("net", "a.example.com:1"), ("net", "b.example.com:1")]
    assert judged(hints, may(net=["a.example.com"]), gated) == {
        Access("net", "b.example.com:1", False)
    }


@pytest.mark.parametrize(
    ("rule", "place", "covers"),
    [
        ("*", "api.example.com:443", True),
        ("*", "10.0.0.1:80", False),
        ("*", "localhost:80", False),
        ("*.example.com", "api.example.com:443", True),
        ("*.example.com", "example.com:443", False),
        ("api.example.com:443", "API.example.com.:443", True),
        ("api.example.com:443", "api.example.com:80", False),
        ("api.example.com:443", "api.example.com", True),
        ("[::1]:80", "[::1]:80", True),
        ("10.0.0.1", "10.0.0.1:80", True),
        ("localhost:80", "127.0.0.1:80", True),
        ("localhost:80", "127.0.0.1:81", False),
        ("localhost", "10.0.0.1:80", False),
    ],
)
def test_a_rule_names_the_places_that_the_gate_lets_it_reach(
    rule: str, place: str, covers: bool
) -> None:
    assert covers_net(rule, place) is covers


@pytest.mark.parametrize(
    ("glob", "target", "covers"),
    [
        ("set/*", "set/a", True),
        ("a", "set/a", True),
        ("set/a", "a", True),
        ("set/b", "a", False),
        ("other", "set/a", False),
    ],
)
def test_a_task_s_glob_counts_as_used_when_it_may_have_been(
    glob: str, target: str, covers: bool
) -> None:
    assert covers_task(glob, target) is covers


def test_the_last_twenty_runs_are_kept() -> None:
    seen = Seen()
    for number in range(30):
        seen = seen.plus(seen_run(number, Access("env", f"N{number}", True)))
    assert [run.id for run in seen.runs] == [f"r{n}" for n in range(30 - MOST_RUNS, 30)]


def test_a_run_that_was_started_again_is_one_run() -> None:
    first = seen_run(1, Access("env", "A", True))
    again = seen_run(1, Access("env", "B", True), whole=False)
    (run,) = Seen().plus(first).plus(again).runs
    assert ({a.what for a in run.accesses}, run.whole) == ({"A", "B"}, False)


def test_a_task_s_record_stays_small_however_different_its_runs_are() -> None:
    seen = Seen()
    for number in range(MOST_RUNS):
        many = [Access("read", f"/{number}/{n}", False) for n in range(MOST)]
        seen = seen.plus(seen_run(number, *many))
    every = {access for run in seen.runs for access in run.accesses}
    assert len(every) <= MOST_OF_TASK
    assert len(encode(seen)) < 200_000


def test_what_was_seen_is_read_as_it_was_written() -> None:
    seen = Seen().plus(seen_run(1, Access("net", "a:1", True), ok=False))
    seen = seen.plus(seen_run(2, Access("net", "a:1", True), Access("read", "/é", False)))
    assert decode(encode(seen)) == seen


def test_the_mark_changes_with_what_is_declared_and_not_with_values() -> None:
    def env(value: str) -> Permissions:
        return may(env=[{"name": "A", "source": "literal", "value": value}])

    assert mark_of(env("1")) == mark_of(env("2"))
    assert len({mark_of(p) for p in (may(), may(net=["a.example"]), env("1"))}) == 3


def test_lines_to_add_cannot_be_forged_by_a_name() -> None:
    accesses = [Access("run", 'a"]\nnet: ["*', False), Access("dicode", 'tasks: ["x"]', False)]
    assert lines_for(accesses) == [
        'permissions.run: ["a\\"]\\nnet: [\\"*"]',
        'permissions.dicode.tasks: ["x"]',
    ]
