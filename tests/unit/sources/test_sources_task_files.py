"""Files of a task's folder: what is read and written, and that nothing else is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.task_files import (
    MAX_LISTED,
    MAX_READ_BYTES,
    MAX_WRITE_BYTES,
    content_hash,
    list_files,
    make_folder,
    read_file,
    write_file,
)

OUTSIDE = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "../outside.txt",
    "../../outside.txt",
    "lib/../../outside.txt",
    "lib/../task.py",
    "./task.py",
    "lib/./x.py",
    "lib//x.py",
    "lib/",
    "task.py/",
    "task.py/..",
    "..\\outside.txt",
    "lib\\..\\..\\outside.txt",
    "C:\\outside.txt",
    "C:outside.txt",
    "file:///etc/passwd",
    "task.py:stream",
    ".env",
    ".git/config",
    ".GIT/config",
    ".git/hooks/pre-commit",
    "lib/.git/config",
    ".gitignore",
    "git~1/config",
    "GIT~1/hooks/pre-commit",
    ".g\u200cit/config",
    "\u200c.git/config",
    "…/outside.txt\u2028",
    "task\x00.py",
    "task.py\n",
    "\ttask.py",
    "a\x7fb",
    "\u202etxt.exe",
    "~/outside.txt",
    "~root/outside.txt",
    "lib/ x.py",
    "task.py ",
    "task.py.",
    "...",
    ".. ",
    ".../x",
    "__pycache__/task.pyc",
    "lib/__pycache__/x.pyc",
    "task.py~",
    "task.py.tmp",
    ".task.py.swp",
    "/".join(["a"] * 17),
    "x" * 300,
    "é" * 200,
    "a/" * 300 + "x",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "outside.txt").write_text("private")
    made = tmp_path / "task"
    (made / "lib").mkdir(parents=True)
    (made / "task.py").write_text("x = 1\n")
    return made


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_is_no_task_file_is_neither_read_nor_written(folder: Path, path: str) -> None:
    before = everything(folder.parent)
    with pytest.raises(DicodeError) as reading:
        read_file(folder, path)
    with pytest.raises(DicodeError) as writing:
        write_file(folder, path, b"mine")
    assert reading.value.code is writing.value.code is Code.INVALID_ARGUMENT
    assert reading.value.hint
    assert everything(folder.parent) == before


def test_the_table_of_paths_is_long_enough() -> None:
    assert len(set(OUTSIDE)) >= 40


@pytest.mark.parametrize("path", ["link.txt", "away/outside.txt", "chain/outside.txt", "dangling"])
def test_links_are_neither_read_nor_written_through(folder: Path, path: str) -> None:
    (folder / "link.txt").symlink_to("../outside.txt")
    (folder / "away").symlink_to("..")
    (folder / "chain").symlink_to("away")
    (folder / "dangling").symlink_to("../made-by-a-link.txt")
    before = everything(folder.parent)
    for act in (lambda: read_file(folder, path), lambda: write_file(folder, path, b"mine")):
        with pytest.raises(DicodeError) as caught:
            act()
        assert caught.value.code is Code.FORBIDDEN
    assert everything(folder.parent) == before


def test_what_is_no_plain_file_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        # A short relative name: addresses of sockets are limited.
        here = os.getcwd()
        os.chdir(folder)
        try:
            made.bind("sock")
        finally:
            os.chdir(here)
        for path in ("pipe", "sock", "lib"):
            with pytest.raises(DicodeError) as caught:
                read_file(folder, path)
            assert caught.value.code is Code.FORBIDDEN
            with pytest.raises(DicodeError):
                write_file(folder, path, b"mine")


def test_a_file_is_written_whole_and_read_back(folder: Path) -> None:
    assert write_file(folder, "lib/deep/helpers.py", b"y = 2\n") is None
    found = read_file(folder, "lib/deep/helpers.py")
    assert (found.data, found.hash) == (b"y = 2\n", content_hash(b"y = 2\n"))
    before = write_file(folder, "lib/deep/helpers.py", b"y = 3\n", expected=found.hash)
    assert before == found
    assert sorted(everything(folder)) == ["lib/deep/helpers.py", "task.py"]


def test_a_write_keeps_the_file_mode_and_the_other_names_of_a_file(folder: Path) -> None:
    script = folder / "task.py"
    script.chmod(0o755)
    os.link(script, folder.parent / "other-name.py")
    write_file(folder, "task.py", b"x = 2\n")
    assert script.stat().st_mode & 0o777 == 0o755
    assert (folder.parent / "other-name.py").read_text() == "x = 1\n"


def test_an_edit_made_meanwhile_is_not_lost(folder: Path) -> None:
    seen = read_file(folder, "task.py")
    (folder / "task.py").write_text("x = 'edited by a person'\n")
    with pytest.raises(DicodeError) as caught:
        write_file(folder, "task.py", b"x = 2\n", expected=seen.hash)
    assert caught.value.code is Code.CONFLICT
    assert caught.value.data == {"hash": read_file(folder, "task.py").hash}
    assert (folder / "task.py").read_text() == "x = 'edited by a person'\n"


def test_a_file_that_must_be_new_is_not_written_over(folder: Path) -> None:
    with pytest.raises(DicodeError, match="is there already"):
        write_file(folder, "task.py", b"", expected="absent")
    write_file(folder, "new.py", b"", expected="absent")
    (folder / "new.py").unlink()
    with pytest.raises(DicodeError, match="is not there any more"):
        write_file(folder, "new.py", b"", expected=content_hash(b""))
    assert not (folder / "new.py").exists()


def test_too_much_is_refused(folder: Path) -> None:
    with pytest.raises(DicodeError) as caught:
        write_file(folder, "big.txt", b"x" * (MAX_WRITE_BYTES + 1))
    assert caught.value.code is Code.TOO_LARGE
    with (folder / "data.bin").open("wb") as file:
        file.truncate(MAX_READ_BYTES + 1)
    with pytest.raises(DicodeError) as caught:
        read_file(folder, "data.bin")
    assert caught.value.code is Code.TOO_LARGE


def test_a_file_that_is_not_there_is_said_to_be_missing(folder: Path) -> None:
    for path in ("nothing.py", "nowhere/x.py"):
        with pytest.raises(DicodeError) as caught:
            read_file(folder, path)
        assert caught.value.code is Code.NOT_FOUND
    assert not (folder / "nowhere").exists()


def test_the_files_of_a_task_are_listed_without_what_is_no_part_of_it(folder: Path) -> None:
    for name in (".env", "task.py~", "lib/helpers.py", "lib/__pycache__/x.pyc", "lib/.hidden/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("12")
    (folder / "link").symlink_to("task.py")
    assert list_files(folder) == ([("lib/helpers.py", 2), ("task.py", 6)], False)
    assert list_files(folder / "gone") == ([], False)
    for number in range(MAX_LISTED + 5):
        (folder / f"f{number:04}").write_text("")
    found, more = list_files(folder)
    assert (len(found), more) == (MAX_LISTED, True)


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    made = make_folder(tmp_path, ("a", "b"), {"task.yaml": "x", "task.py": "y"})
    assert made == tmp_path / "a" / "b"
    assert everything(tmp_path) == {"a/b/task.yaml": b"x", "a/b/task.py": b"y"}
    with pytest.raises(DicodeError) as caught:
        make_folder(tmp_path, ("a", "b"), {"task.yaml": "z"})
    assert caught.value.code is Code.CONFLICT
    (tmp_path / "file").write_text("")
    with pytest.raises(DicodeError):
        make_folder(tmp_path, ("file",), {"task.yaml": "z"})
    (tmp_path / "away").symlink_to(tmp_path.parent)
    with pytest.raises(DicodeError) as caught:
        make_folder(tmp_path, ("away", "c"), {"task.yaml": "z"})
    assert caught.value.code is Code.FORBIDDEN
    assert not (tmp_path.parent / "c").exists()
    assert [p.name for p in tmp_path.rglob(".dicode-*")] == []
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
