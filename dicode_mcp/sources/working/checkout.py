"""Files of a commit written into a work tree: plain files only, within limits, edits never lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dulwich.index import (
    index_entry_from_stat,
    validate_path_element_hfs,
    validate_path_element_ntfs,
)
from dulwich.objects import S_ISGITLINK, Blob, Commit, ObjectID
from dulwich.repo import Repo

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.git.jobs import Bounds
from dicode_mcp.sources.working.trees import Entries, entries_below


def tree_of(repo: Repo, commit: ObjectID) -> Entries:
    """Give what a commit holds, by path."""
    found = repo.object_store[commit]
    assert isinstance(found, Commit)
    return entries_below(repo.object_store, found.tree)


def check_tree(repo: Repo, entries: Entries, bounds: Bounds) -> None:
    """Refuse a tree whose paths could leave the work tree, or that is too large."""
    if len(entries) > bounds.max_files:
        raise _too_large(f"more than {bounds.max_files} files")
    total = 0
    for path, (mode, sha) in entries.items():
        if not all(_is_plain(part) for part in path.split(b"/")):
            raise DicodeError(
                Code.FORBIDDEN,
                "the branch holds a path that no honest repository has (.git, '..' or the like)",
                hint="look at it with git on another machine; it is not written here",
            )
        if _is_file(mode):
            size = len(repo.object_store.get_raw(sha)[1])
            total += size
            if size > bounds.max_file_size:
                raise _too_large(f"a file over {bounds.max_file_size} bytes")
    if total > bounds.max_total_size:
        raise _too_large(f"more than {bounds.max_total_size} bytes")


def write_files(repo: Repo, top: Path, entries: Entries) -> None:
    """Write files into the work tree and note them in the index. Links are left out."""
    index = repo.open_index()
    for path, (mode, sha) in sorted(entries.items()):
        if not _is_file(mode):
            continue
        blob = repo.object_store[sha]
        assert isinstance(blob, Blob)
        target = os.path.join(os.fsencode(top), path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write(target, blob.data, executable=bool(mode & 0o100))
        index[path] = index_entry_from_stat(os.lstat(target), sha, mode=mode)
    index.write()


def remove_files(repo: Repo, top: Path, paths: list[bytes]) -> None:
    """Remove files, and the folders that are empty then."""
    index = repo.open_index()
    root = os.fsencode(top)
    for path in paths:
        target = os.path.join(root, path)
        if os.path.lexists(target):
            os.unlink(target)
        if path in index:
            del index[path]
        folder = os.path.dirname(target)
        while folder != root and not os.listdir(folder):
            os.rmdir(folder)
            folder = os.path.dirname(folder)
    index.write()


def is_as(repo: Repo, top: Path, path: bytes, entry: tuple[int, ObjectID] | None) -> bool:
    """Tell whether the work tree's file is as a commit has it (None: not there)."""
    target = os.path.join(os.fsencode(top), path)
    try:
        info = os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return entry is None or not _is_file(entry[0])
    if entry is None or not stat.S_ISREG(info.st_mode):
        return False
    blob = repo.object_store[entry[1]]
    if not isinstance(blob, Blob) or info.st_size != len(blob.data):
        return False
    with open(target, "rb") as file:
        return file.read() == blob.data


def _write(target: bytes, data: bytes, *, executable: bool) -> None:
    """Write a file beside its place and put it there whole."""
    beside = target + b".dicode~"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o755 if executable else 0o644)
    with open(descriptor, "wb") as file:
        file.write(data)
    os.replace(beside, target)


def _is_plain(part: bytes) -> bool:
    return (
        bool(part)
        and validate_path_element_hfs(part)
        and validate_path_element_ntfs(part)
        and b"\\" not in part
        and b"\0" not in part
    )


def _is_file(mode: int) -> bool:
    return stat.S_ISREG(mode) and not S_ISGITLINK(mode)


def _too_large(what: str) -> DicodeError:
    return DicodeError(
        Code.TOO_LARGE,
        f"the branch holds {what}",
        hint="raise max_files, max_file_size or max_total_size of the source in dicode.yaml",
    )
