"""What a server says of what its machine can hold tasks to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dicode_mcp.conditions import ConditionType
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.facilities import facilities
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.executor.unheld import unheld
from dicode_mcp.testing.rooms import make_task

WHOLE = Probe(machine="x86_64", uid=1000, landlock=7, seccomp="", user="", net="", files="")
BARE = replace(WHOLE, files="EPERM", files_as_root="EPERM", landlock=2, net="EPERM")


def test_each_thing_is_told_with_what_would_make_it() -> None:
    found = {each.name: each for each in facilities(BARE, "strict")}
    assert [name for name, each in found.items() if not each.ok] == [
        "permissions.fs",
        "permissions.net",
    ]
    assert "EPERM" in found["permissions.fs"].message
    assert "unshare" in found["permissions.net"].remedy
    assert "ten times a second" in found["resources.cpu"].message


def test_a_whole_machine_lacks_nothing() -> None:
    assert [each.name for each in facilities(WHOLE, "strict") if not each.ok] == []


def test_without_namespaces_the_network_is_held_by_notices_of_calls() -> None:
    (net,) = (e for e in facilities(replace(BARE, told=""), "strict") if e.name.endswith("net"))
    assert (net.ok, "EPERM" in net.message) == (True, True)


def test_a_sandbox_that_is_off_or_cannot_be_is_one_line() -> None:
    (off,) = facilities(WHOLE, "off")
    (none,) = facilities(Probe(error="darwin has none"), "best_effort")
    assert (off.ok, none.ok, none.message) == (False, False, "darwin has none")


def test_a_task_that_is_not_held_has_a_condition_with_what_and_why(tmp_path: Path) -> None:
    cages = Cages("best_effort", BARE)
    asks = make_task("t", folder=tmp_path, permissions={"net": ["api.example.com"]})
    (told,) = unheld(asks, cages)
    assert (told.type, told.status) == (ConditionType.ENFORCED, False)
    assert "permissions.fs" in told.message
    assert "permissions.net" in told.message
    assert unheld(asks, Cages("best_effort", WHOLE)) == ()


def test_limits_hold_with_and_without_control_groups(tmp_path: Path) -> None:
    limited = make_task("t", folder=tmp_path, resources={"cpu": 1, "memory": "64MiB", "pids": 5})
    for probe in (WHOLE, replace(WHOLE, uid=0, files_as_root="")):
        assert unheld(limited, Cages("strict", probe)) == ()
