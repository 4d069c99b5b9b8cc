"""Looking at folders, without a loop around it."""

import os
from pathlib import Path

from dicode_mcp.clock import SystemClock
from dicode_mcp.protocols import Revision
from dicode_mcp.reconciler.declare import Identity
from dicode_mcp.reconciler.look import Eyes, Looker
from dicode_mcp.reconciler.plan import Kind, plan
from dicode_mcp.reconciler.world import Places
from dicode_mcp.registry import Entry
from dicode_mcp.sources import discovery
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.sources import FakeLoader, FakeRuntime


class Rooms:
    """A looker over a folder, some of whose folders can be locked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locked: set[str] = set()
        self.loader = FakeLoader()
        self.clock = FakeClock(SystemClock().now_ms() + 3_600_000)
        eyes = Eyes(
            self.loader,
            {"python": FakeRuntime()},
            lambda task: (),
            self.clock,
            Places(scan=self._scan),
        )
        self.looker = Looker(Identity("s"), eyes)

    def _scan(self, folder: Path) -> list[os.DirEntry[str]]:
        if folder.name in self.locked:
            raise PermissionError(13, "Permission denied", str(folder))
        return discovery.scan(folder)


def write(folder: Path, text: str = "name: x\n") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.yaml").write_text(text)


def test_a_folder_that_may_not_be_read_keeps_its_tasks(tmp_path: Path) -> None:
    for name in ("a", "team/b", "team/c"):
        write(tmp_path / name)
    rooms = Rooms(tmp_path)
    revision = Revision("s", tmp_path)
    first = rooms.looker.search(revision)
    there = {
        s.id: Entry(s.id, "s", s.folder, s.task, s.conditions) for s in first.desired.seen.values()
    }
    assert sorted(there) == ["a", "team/b", "team/c"]
    rooms.locked.add("team")
    (tmp_path / "a" / "task.yaml").unlink()
    second = rooms.looker.search(revision)
    assert [(a.kind, a.entry.id) for a in plan(second.desired, there)] == [(Kind.REMOVE, "a")]
    assert [str(problem) for problem in second.problems] == [
        f"{tmp_path / 'team'}: cannot be read: Permission denied; "
        "give the server's user read access"
    ]
    assert tmp_path / "team" / "b" in rooms.looker.folders()


def test_unchanged_folders_are_not_read_again(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "broken", "nothing: here\n")
    rooms = Rooms(tmp_path)
    first = rooms.looker.search(Revision("s", tmp_path))
    second = rooms.looker.search(Revision("s", tmp_path))
    assert rooms.loader.loaded == ["a", "broken"]
    assert first.desired == second.desired
    (tmp_path / "a" / "task.yaml").write_text("name: longer\n")
    rooms.looker.search(Revision("s", tmp_path))
    assert rooms.loader.loaded == ["a", "broken", "a"]


def test_another_commit_is_read_anew(tmp_path: Path) -> None:
    write(tmp_path / "a")
    rooms = Rooms(tmp_path)
    rooms.looker.search(Revision("s", tmp_path, "1" * 40))
    look = rooms.looker.search(Revision("s", tmp_path, "2" * 40))
    task = look.desired.seen["a"].task
    assert task
    assert task.revision == "2" * 40


def test_a_folder_that_went_is_looked_for_and_not_seen(tmp_path: Path) -> None:
    write(tmp_path / "a")
    rooms = Rooms(tmp_path)
    revision = Revision("s", tmp_path)
    rooms.looker.search(revision)
    (tmp_path / "a" / "task.yaml").unlink()
    look = rooms.looker.look(["a"])
    assert look.desired.seen == {}
    assert look.desired.looked == {"a"}
    assert rooms.looker.folders() == {}
