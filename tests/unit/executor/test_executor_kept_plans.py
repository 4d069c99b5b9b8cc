"""A plan that was made before is used again only while it is the one that would be made now."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dicode_mcp.errors import DicodeError
from dicode_mcp.executor.sandbox.cages import Cages
from dicode_mcp.executor.sandbox.fence import Fence
from dicode_mcp.executor.sandbox.plan import Plan
from dicode_mcp.protocols import Launch, SandboxPolicy
from dicode_mcp.spec.model import Permissions
from dicode_mcp.testing.cages import this_machine

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not this_machine().separates, reason="no namespaces here"
)


class Desk:
    """Asks for plans as runs of one task do, each with a scratch folder of its own."""

    def __init__(self, folder: Path, **granted: object) -> None:
        self.cages = Cages("strict", this_machine())
        self.permissions = Permissions.model_validate(granted)
        self._folder = folder
        self._runs = 0
        (folder / "task").mkdir()

    def launch(self) -> Launch:
        self._runs += 1
        scratch = self._folder / "runs" / f"run-number-{self._runs:012}"
        for name in ("home", "tmp"):
            (scratch / name).mkdir(parents=True)
        task = self._folder / "task"
        return Launch(
            argv=(sys.executable, "-I", "-S", "main.py"),
            env={"PATH": os.defpath, "HOME": str(scratch / "home")},
            cwd=task,
            policy=SandboxPolicy(self.permissions, task, scratch),
            files={"home/": b"", "tmp/": b""},
            within_python=True,
        )

    def both(self, launch: Launch | None = None) -> tuple[Plan | None, Plan | None]:
        """Give a plan as the server gives it, and as it is when nothing was kept."""
        launch = launch or self.launch()
        return self.cages.plan(launch), Cages("strict", this_machine()).plan(launch)


def test_a_kept_plan_shows_nothing_that_may_not_be_shown_since(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    desk = Desk(tmp_path, fs=[{"path": str(home), "permission": "r"}])
    desk.cages = Cages("strict", this_machine(), fence=Fence(tmp_path / "data", home))
    assert desk.cages.plan(desk.launch()) is not None
    engine = home / ".docker" / "run" / "docker.sock"
    engine.parent.mkdir()
    engine.touch()
    with pytest.raises(DicodeError, match="container engine"):
        desk.cages.plan(desk.launch())


def test_the_next_run_gets_the_plan_of_its_own_folder(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first, _ = desk.both()
    kept, made = desk.both()
    assert kept == made
    assert kept != first
    assert "run-number-000000000001" not in str(kept)


def test_a_link_that_leads_elsewhere_is_followed_anew(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to("old")
    desk = Desk(tmp_path, fs=[{"path": str(link), "permission": "r"}])
    before, _ = desk.both()
    link.unlink()
    link.symlink_to("new")
    kept, made = desk.both()
    assert kept == made
    assert str(tmp_path / "old") in str(before)
    assert str(tmp_path / "old") not in str(kept)


def test_a_folder_that_appears_is_shown(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fs=[{"path": str(tmp_path / "later"), "permission": "r"}])
    desk.both()
    (tmp_path / "later").mkdir()
    kept, made = desk.both()
    assert kept == made
    assert str(tmp_path / "later") in str(kept)


def test_a_folder_that_became_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    desk = Desk(tmp_path, fs=[{"path": str(tmp_path / "data"), "permission": "r"}])
    desk.both()
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").symlink_to("moved")
    kept, made = desk.both()
    assert kept == made
    assert ["link", str(tmp_path / "data"), "moved"] in list(kept.entries if kept else ())


def test_other_permissions_and_other_folders_are_other_plans(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    launch = desk.launch()
    plain, _ = desk.both(launch)
    wider = Permissions(net=("example.com",))
    kept, made = desk.both(replace(launch, policy=replace(launch.policy, permissions=wider)))
    assert kept == made
    assert kept != plain


def test_programs_by_name_are_looked_up_for_each_run(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    desk = Desk(tmp_path, run=["thing"])

    def launch() -> Launch:
        made = desk.launch()
        return replace(made, env={**made.env, "PATH": str(programs)})

    before, _ = desk.both(launch())
    (programs / "thing").write_text("#!/bin/sh\n")
    (programs / "thing").chmod(0o755)
    kept, made = desk.both(launch())
    assert kept == made
    assert str(programs / "thing") not in str(before)
    assert str(programs / "thing") in str(kept)
