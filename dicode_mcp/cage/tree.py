"""The files a caged process sees: a tree in memory with what was granted at its own path.

It is made by the first process of the new namespaces, which has the rights to, from a list the
server wrote: folders, links and small files of its own, and places bound from the old tree.
"""

from __future__ import annotations

import os
import stat
from _struct import pack

from dicode_mcp.cage.syscalls import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REC, _PRIVATE = 1, 2, 4, 8, 16384, 1 << 18
_ATTR = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "nosymfollow": 0x200000}
_AT_EMPTY_PATH, _AT_RECURSIVE, _AT_FDCWD = 0x1000, 0x8000, -100
_OPEN_TREE_CLONE = 1
_MOVE_EMPTY_PATH = 0x4
_DETACH = 2
_NO_LINKS = 0x04 | 0x02
"""RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS."""


def build(entries: list[list[Any]], at: str, size: int) -> None:
    """Make the tree at ``at``, an empty folder, and move into it: it is all there is afterwards.

    ``size`` bounds, in bytes, what the tree's own folders and files take. Raises ``OSError`` with
    the place concerned as its second file name.
    """
    syscall("mount", b"none", b"/", None, _REC | _PRIVATE, None)
    _mount("tmpfs", at, _NOSUID | _NODEV, f"mode=755,size={size}")
    making = _Making(at)
    for entry in entries:
        try:
            _MAKERS[entry[0]](making, *entry[1:])
        except OSError as error:
            raise OSError(error.errno, error.strerror, entry[0], None, entry[1]) from None
    _set(at, 0, _ATTR["ro"] | _ATTR["nosuid"] | _ATTR["nodev"])
    os.chdir(at)
    # The new root over the old one, which then lies on top of it and is taken away.
    syscall("pivot_root", b".", b".")
    syscall("umount2", b".", _DETACH)
    os.chdir("/")


class _Making:
    """The tree at ``at``, and which of its folders are there: to ask costs more than to know."""

    def __init__(self, at: str) -> None:
        self.at = at
        self._folders = {"", "/"}

    def folder(self, path: str) -> str:
        """Make a folder and those above it; gives its place outside of the tree."""
        if path not in self._folders:
            self.folder(os.path.dirname(path))
            try:
                os.mkdir(self.at + path, 0o755)
            except OSError:
                if not os.path.isdir(self.at + path):
                    raise
            self._folders.add(path)
        return self.at + path

    def below(self, path: str) -> str:
        """Make the folder that a path is in; gives the path's place outside of the tree."""
        self.folder(os.path.dirname(path))
        return self.at + path

    def cover(self, path: str) -> None:
        """Note that something is shown over a folder: what was made below it is not seen."""
        self._folders = {each for each in self._folders if not each.startswith(path + "/")}


def _link(making: _Making, path: str, target: str) -> None:
    os.symlink(target, making.below(path))


def _file(making: _Making, path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(making.below(path), flags, 0o644)
    try:
        if text:
            os.write(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)


def _bind(making: _Making, path: str, attributes: str, must: bool) -> None:
    """Show a place of the old tree; its path has no links left, or somebody has changed it."""
    try:
        fd = _open_plainly(path)
    except FileNotFoundError:
        if must:
            raise
        return
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            making.folder(path)
        elif not os.path.exists(making.at + path):
            _file(making, path, "")
        tree = syscall("open_tree", fd, b"", _AT_EMPTY_PATH | _OPEN_TREE_CLONE | _AT_RECURSIVE)
    finally:
        os.close(fd)
    try:
        wanted = 0
        for name in attributes.split():
            wanted |= _ATTR[name]
        _set_tree(tree, wanted)
        target = (making.at + path).encode() + b"\0"
        syscall("move_mount", tree, b"", _AT_FDCWD, target, _MOVE_EMPTY_PATH)
        making.cover(path)
    finally:
        os.close(tree)


def _open_plainly(path: str) -> int:
    how = pack("=QQQ", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, 0, _NO_LINKS)
    return syscall("openat2", _AT_FDCWD, os.fsencode(path) + b"\0", how, len(how))


def _memory(making: _Making, path: str, size: int) -> None:
    flags = _NOSUID | _NODEV | _NOEXEC
    _mount("tmpfs", making.folder(path), flags, f"mode=1777,size={size}")
    making.cover(path)


def _processes(making: _Making, path: str, whole: bool) -> None:
    """Show the run's own processes, and only with ``whole`` the machine's memory and processors."""
    at = making.folder(path)
    flags = _NOSUID | _NODEV | _NOEXEC
    try:
        _mount("proc", at, flags, _OWN if whole else f"{_OWN},subset=pid")
    except OSError:
        # A kernel before 5.8.
        _mount("proc", at, flags, "")
    # uid 0 may write kernel settings by the files' owner alone.
    _set(at, 0, _ATTR["ro"])


_OWN = "hidepid=ptraceable"
"""Who may not look into a process does not see it: so not those that stand by the run."""

_MAKERS: dict[str, Any] = {
    "link": _link,
    "file": _file,
    "bind": _bind,
    "memory": _memory,
    "processes": _processes,
}


def _mount(kind: str, at: str, flags: int, options: str) -> None:
    syscall("mount", kind.encode(), os.fsencode(at), kind.encode(), flags, options.encode())


def _set(path: str, flags: int, attributes: int) -> None:
    attr = pack("=QQQQ", attributes, 0, 0, 0)
    syscall("mount_setattr", _AT_FDCWD, os.fsencode(path), flags, attr, len(attr))


def _set_tree(tree: int, attributes: int) -> None:
    attr = pack("=QQQQ", attributes, 0, 0, 0)
    syscall("mount_setattr", tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attr, len(attr))
