"""Control groups as files, in a folder that stands for the kernel's: version 2 and version 1."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dicode_mcp.executor.sandbox import groups
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.groups import Group, Groups, Limits
from dicode_mcp.executor.sandbox.plan import Ceilings
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.protocols import Launch, SandboxPolicy
from dicode_mcp.spec.model import Permissions

ALL = Limits(memory=256 * 2**20, pids=64, cpu=0.5)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this process's group, as systemd hands one over with ``Delegate=yes``."""
    here = tmp_path / "system.slice" / "dicode.service"
    here.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    (here / "cgroup.controllers").write_text("cpu memory pids\n")
    (here / "cgroup.procs").write_text(f"{os.getpid()}\n")
    told = tmp_path / "told"
    told.write_text("0::/system.slice/dicode.service\n")
    monkeypatch.setattr(groups, "OWN_GROUPS", told)
    return here


def found(root: Path) -> Groups:
    given = groups.find("abcdef0123456789xyz", root)
    assert given is not None
    return given


def text(path: Path) -> str:
    return path.read_text().strip()


def test_a_group_that_was_handed_over_is_divided(two: Path, tmp_path: Path) -> None:
    given = found(tmp_path)
    assert given.two
    assert given.kinds == {"memory", "pids", "cpu"}
    # Version 2 has processes in leaves only: the server moves into one of its own.
    assert text(two / "server" / "cgroup.procs") == str(os.getpid())
    assert set(text(two / "cgroup.subtree_control").split()) == {"+memory", "+pids", "+cpu"}
    runs = two / "dicode-abcdef0123456789"
    assert set(text(runs / "cgroup.subtree_control").split()) == {"+memory", "+pids", "+cpu"}


def test_a_run_s_group_has_its_limits(two: Path, tmp_path: Path) -> None:
    made = found(tmp_path).make("run1", ALL)
    folder = two / "dicode-abcdef0123456789" / "run1"
    assert {name: text(folder / name) for name in os.listdir(folder)} == {
        "memory.max": str(256 * 2**20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "64",
        "cpu.max": "50000 100000",
    }
    assert made.joins == ()
    made.add(4711)
    assert text(folder / "cgroup.procs") == "4711"


def test_the_end_of_a_group_names_what_it_came_to(two: Path, tmp_path: Path) -> None:
    made = found(tmp_path).make("run1", ALL)
    folder = made.folders["memory"]
    assert (made.broken(), made.refused_pids(), made.held_back()) == (None, False, False)
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n")
    (folder / "pids.events").write_text("max 3\n")
    (folder / "cpu.stat").write_text("usage_usec 9\nnr_periods 9\nnr_throttled 4\n")
    assert (made.broken(), made.refused_pids(), made.held_back()) == ("memory", True, True)


def test_a_group_with_others_in_it_is_left_alone(two: Path, tmp_path: Path) -> None:
    (two / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    assert groups.find("abc", tmp_path) is None
    assert not (two / "server").exists()


def test_only_what_was_handed_over_is_used(two: Path, tmp_path: Path) -> None:
    (two / "cgroup.controllers").write_text("pids\n")
    assert found(tmp_path).kinds == {"pids"}
    made = found(tmp_path).make("run1", ALL)
    assert set(made.folders) == {"pids"}


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("memory/own", "pids/own", "cpu,cpuacct/own"):
        (tmp_path / folder).mkdir(parents=True)
    told = tmp_path / "told"
    told.write_text("4:memory:/own\n8:pids:/own\n1:cpu,cpuacct:/own\n9:name=systemd:/own\n")
    monkeypatch.setattr(groups, "OWN_GROUPS", told)
    return tmp_path


def test_version_1_has_a_folder_for_each_kind(one: Path) -> None:
    given = found(one)
    assert not given.two
    made = given.make("run1", ALL)
    pids = one / "pids/own/dicode-abcdef0123456789/run1"
    cpu = one / "cpu,cpuacct/own/dicode-abcdef0123456789/run1"
    assert text(pids / "pids.max") == "64"
    assert text(cpu / "cpu.cfs_quota_us") == "50000"
    assert str(pids / "tasks") in made.joins


def test_a_run_weighs_as_one_among_processes_whatever_it_starts(one: Path) -> None:
    """A group for the processor is made also without a limit on it."""
    made = found(one).make("run1", Limits(pids=512))
    assert set(made.folders) == {"pids", "cpu"}
    cpu = one / "cpu,cpuacct/own/dicode-abcdef0123456789/run1"
    assert os.listdir(cpu) == []
    assert str(cpu / "tasks") in made.joins


def test_what_cannot_be_made_leaves_nothing(one: Path) -> None:
    blocked = one / "pids/own/dicode-abcdef0123456789"
    given = found(one)
    blocked.rmdir()
    blocked.touch()
    with pytest.raises(OSError, match="run1"):
        given.make("run1", ALL)
    assert not (one / "cpu,cpuacct/own/dicode-abcdef0123456789/run1").exists()


def test_without_groups_nothing_was_met() -> None:
    assert (Group().broken(), Group().refused_pids(), Group().held_back()) == (None, False, False)


def test_processes_under_one_name_have_groups_of_their_own(two: Path, tmp_path: Path) -> None:
    """The first one's is taken away when it is reaped, and the next may have begun by then."""
    probe = Probe(machine="x86_64", landlock=7, seccomp="", told="", groups=found(tmp_path))
    cages = Cages("strict", probe, Ceilings(pids=64))
    policy = SandboxPolicy(Permissions(), tmp_path, tmp_path / "scratch")
    launch = Launch((sys.executable,), {}, tmp_path, policy, run_id="prepare-1")
    plan = cages.plan(launch)
    assert plan is not None
    first, second = cages.group(launch, plan), cages.group(launch, plan)
    assert first is not None
    assert second is not None
    assert not set(first.folders.values()) & set(second.folders.values())
