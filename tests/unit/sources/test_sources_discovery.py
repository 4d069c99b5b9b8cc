"""What a search of a folder finds."""

import os
from pathlib import Path

import pytest

from dicode_mcp.sources import discovery
from dicode_mcp.sources.discovery import Limits, discover, inspect, is_ignored
from dicode_mcp.sources.fingerprint import fingerprint

FAR_FUTURE_NS = 2**62


def task(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.yaml").write_text("name: x\n")
    return folder


def ids(root: Path, prefix: str = "") -> list[str]:
    return [found.id for found in discover(root, prefix=prefix).found]


def test_every_folder_with_a_manifest_at_any_depth_is_a_task(tmp_path: Path) -> None:
    task(tmp_path / "hello")
    task(tmp_path / "group" / "deep" / "er")
    (tmp_path / "empty").mkdir()
    assert ids(tmp_path) == ["group/deep/er", "hello"]


def test_ids_of_a_named_source_begin_with_its_name(tmp_path: Path) -> None:
    task(tmp_path / "group" / "a")
    assert ids(tmp_path, "team") == ["team/group/a"]


def test_a_task_inside_a_task_is_a_task_too(tmp_path: Path) -> None:
    task(task(tmp_path / "outer") / "inner")
    task(tmp_path / "outer" / "lib" / "deep")
    assert ids(tmp_path) == ["outer", "outer/inner", "outer/lib/deep"]


def test_links_inside_a_task_are_its_own_business(tmp_path: Path) -> None:
    (task(tmp_path / "a") / "link").symlink_to(task(tmp_path / "b"))
    found = discover(tmp_path)
    assert [f.id for f in found.found] == ["a", "b"]
    assert not found.troubles


@pytest.mark.parametrize("name", ["task.yml", "Task.yaml", "TASK.YML"])
def test_a_manifest_by_another_name_is_told(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / name).write_text("name: x\n")
    found = discover(tmp_path)
    assert not found.found
    (trouble,) = found.troubles
    assert trouble.path == folder / name
    assert trouble.hint == "name it task.yaml"


def test_a_second_manifest_beside_the_first_is_told(tmp_path: Path) -> None:
    (task(tmp_path / "a") / "task.yml").write_text("name: y\n")
    found = discover(tmp_path)
    assert [f.id for f in found.found] == ["a"]
    (trouble,) = found.troubles
    assert "the task.yaml beside it is" in trouble.message


def test_task_sets_that_a_search_does_not_take_are_told(tmp_path: Path) -> None:
    (tmp_path / "taskset.yaml").write_text("spec: {}\n")
    (tmp_path / "prod.yaml").write_text("apiVersion: dicode/v1\nkind: TaskSet\n")
    (tmp_path / "notes.yaml").write_text("kinds: [TaskSet]\n")
    (task(tmp_path / "a") / "data.yaml").write_text("kind: TaskSet\n")
    os.mkfifo(tmp_path / "pipe.yaml")
    found = discover(tmp_path)
    assert [f.id for f in found.found] == ["a"]
    assert sorted(trouble.path.name for trouble in found.troubles) == ["prod.yaml", "taskset.yaml"]
    assert all("a TaskSet, and not read" in trouble.message for trouble in found.troubles)


def test_a_source_that_is_itself_a_task_is_named_after_its_folder(tmp_path: Path) -> None:
    root = task(tmp_path / "solo")
    assert ids(root) == ["solo"]
    assert ids(root, "team") == ["team/solo"]


def test_hidden_folders_and_caches_are_not_searched(tmp_path: Path) -> None:
    for name in (".git", "__pycache__", "node_modules", ".venv"):
        task(tmp_path / name / "x")
    assert ids(tmp_path) == []


@pytest.mark.parametrize("name", ["with space", "ümlaut", "-dash", "a:b"])
def test_a_folder_whose_name_is_no_id_is_found_with_what_to_do(tmp_path: Path, name: str) -> None:
    task(tmp_path / name)
    (found,) = discover(tmp_path).found
    assert found.id == name
    assert found.trouble
    assert "is not a task id" in found.trouble.message
    assert "rename the folder" in found.trouble.hint


def test_a_name_that_is_no_utf8_is_found_and_can_be_shown(tmp_path: Path) -> None:
    try:
        task(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")))
    except OSError:
        pytest.skip("this file system takes no such name")
    (found,) = discover(tmp_path).found
    assert found.trouble
    assert found.id.encode("utf-8")


def test_links_are_not_followed_and_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    task(root / "a")
    task(tmp_path / "outside" / "secret")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    found = discover(root)
    assert [f.id for f in found.found] == ["a"]
    assert sorted(t.path.name for t in found.troubles) == ["link", "loop"]
    assert not found.unread


def test_a_manifest_that_links_out_of_the_source_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "outside.yaml").write_text("name: stolen\n")
    (root / "a" / "task.yaml").symlink_to(tmp_path / "outside.yaml")
    (found,) = discover(root).found
    assert found.trouble
    assert "leaves the source" in found.trouble.message
    again = inspect(root / "a", root)
    assert again == found


def test_a_manifest_that_links_within_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "task.yaml").write_text("name: x\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "task.yaml").symlink_to("../.data/task.yaml")
    (found,) = discover(tmp_path).found
    assert found.trouble is None


def test_a_folder_that_became_a_link_is_no_task_any_more(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    target = task(tmp_path / "outside")
    (root / "a").symlink_to(target)
    assert inspect(root / "a", root) is None


def test_a_manifest_that_is_a_pipe_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "task.yaml")
    (found,) = discover(tmp_path).found
    assert found.trouble
    assert "is not a file" in found.trouble.message


def test_a_folder_that_cannot_be_read_is_named_and_hides_no_other(tmp_path: Path) -> None:
    task(tmp_path / "a")
    task(tmp_path / "locked" / "b")

    def scan(folder: Path) -> list[os.DirEntry[str]]:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return discovery.scan(folder)

    found = discover(tmp_path, scan=scan)
    assert [f.id for f in found.found] == ["a"]
    assert found.unread == (tmp_path / "locked",)
    assert found.troubles[0].message == "cannot be read: Permission denied"


def test_a_root_that_vanished_meanwhile_tells_nothing_of_its_tasks(tmp_path: Path) -> None:
    found = discover(tmp_path / "gone")
    assert found.unread == (tmp_path / "gone",)


def test_a_tree_that_is_too_large_is_searched_in_part_and_says_so(tmp_path: Path) -> None:
    for number in range(6):
        task(tmp_path / f"t{number}")
    found = discover(tmp_path, limits=Limits(folders=4))
    assert [f.id for f in found.found] == ["t0", "t1", "t2"]
    assert {path.name for path in found.unread} == {"t3", "t4", "t5"}
    assert "more than 4 folders" in found.troubles[0].message


def test_a_tree_that_is_too_deep_is_searched_in_part_and_says_so(tmp_path: Path) -> None:
    task(tmp_path / "a" / "b")
    task(tmp_path / "a" / "b2" / "c")
    found = discover(tmp_path, limits=Limits(depth=2))
    assert [f.id for f in found.found] == ["a/b"]
    assert found.unread == (tmp_path / "a" / "b2" / "c",)


@pytest.mark.parametrize(
    "name", [".x", "task.py~", "#task.py#", ".task.py.swp", "4913", "a.pyc", "x.tmp"]
)
def test_what_editors_leave_behind_is_ignored(name: str) -> None:
    assert is_ignored(name)


@pytest.mark.parametrize("name", ["task.yaml", "task.py", "index.html", "data.json"])
def test_what_a_person_writes_is_not_ignored(name: str) -> None:
    assert not is_ignored(name)


def test_a_fingerprint_stays_until_a_file_changes(tmp_path: Path) -> None:
    folder = task(tmp_path / "a")
    (folder / "lib").mkdir()
    (folder / "lib" / "x.py").write_text("1")
    first = fingerprint(folder, FAR_FUTURE_NS)
    assert first is not None
    (folder / ".hidden").write_text("noise")
    assert fingerprint(folder, FAR_FUTURE_NS) == first
    (folder / "lib" / "x.py").write_text("22")
    assert fingerprint(folder, FAR_FUTURE_NS) != first


def test_files_written_just_now_have_no_fingerprint(tmp_path: Path) -> None:
    folder = task(tmp_path / "a")
    written = (folder / "task.yaml").stat().st_ctime_ns
    assert fingerprint(folder, written + 1_000_000) is None
    assert fingerprint(folder, written + 1_000_000_000) is not None
    assert fingerprint(tmp_path / "missing", FAR_FUTURE_NS) is None
