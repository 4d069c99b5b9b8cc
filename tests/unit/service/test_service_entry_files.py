"""Two files changed as one: whole or not at all, never over somebody else's edit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.entry_files import Changed, Texts, read_texts, write_texts
from dicode_mcp.spec.taskset.lock import LockFile, Pin

TEXT = "kind: TaskSet\nspec:\n  entries: {}\n"
LOCKED = LockFile().with_entry(
    "taskset.yaml", "x", [Pin("https://github.com/a/b", "a" * 40, branch="main")]
)


@pytest.fixture
def texts(tmp_path: Path) -> Texts:
    (tmp_path / "taskset.yaml").write_text(TEXT)
    return read_texts(tmp_path / "taskset.yaml")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_both_are_written_and_nothing_is_left_beside_them(texts: Texts) -> None:
    texts.file.chmod(0o640)
    write_texts(texts, "new: 1\n", LOCKED, lock_first=True)
    assert texts.file.read_text() == "new: 1\n"
    assert texts.lock_path.read_text() == LOCKED.dump()
    assert stat.S_IMODE(texts.file.stat().st_mode) == 0o640
    assert names(texts.file.parent) == ["dicode.lock", "taskset.yaml"]
    write_texts(read_texts(texts.file), TEXT, LockFile(), lock_first=False)
    assert names(texts.file.parent) == ["dicode.lock", "taskset.yaml"]
    assert not read_texts(texts.file).lock().sets


@pytest.mark.parametrize("name", ["taskset.yaml", "dicode.lock"])
def test_an_edit_made_meanwhile_is_not_written_over(texts: Texts, name: str) -> None:
    (texts.file.parent / name).write_text("# theirs\n")
    with pytest.raises(Changed):
        write_texts(texts, "mine", LOCKED, lock_first=True)
    assert (texts.file.parent / name).read_text() == "# theirs\n"
    assert not [path for path in names(texts.file.parent) if path.startswith(".dicode")]


@pytest.mark.parametrize("lock_first", [True, False])
@pytest.mark.parametrize("failing", [1, 2])
def test_when_one_cannot_be_put_in_place_the_other_is_as_it_was(
    texts: Texts, monkeypatch: pytest.MonkeyPatch, lock_first: bool, failing: int
) -> None:
    count = 0
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(DicodeError) as caught:
        write_texts(texts, "new: 1\n", LOCKED, lock_first=lock_first)
    assert caught.value.code is Code.STORAGE_FULL
    assert texts.file.read_text() == TEXT
    assert names(texts.file.parent) == ["taskset.yaml"]


def test_the_lock_is_there_before_the_entry(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace

    def noted(source: Path, target: Path) -> None:
        order.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    write_texts(texts, "new: 1\n", LOCKED, lock_first=True)
    assert order == ["dicode.lock", "taskset.yaml"]


def test_a_link_and_a_read_only_file_are_refused(tmp_path: Path, texts: Texts) -> None:
    texts.file.chmod(0o400)
    with pytest.raises(DicodeError, match="read-only"):
        write_texts(texts, "x", LOCKED, lock_first=True)
    (tmp_path / "link.yaml").symlink_to(texts.file)
    with pytest.raises(DicodeError, match="is a link"):
        read_texts(tmp_path / "link.yaml")
