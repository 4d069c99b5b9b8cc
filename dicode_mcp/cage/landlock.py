"""Landlock: which files a process and its descendants may still open, run, make and connect to."""

from __future__ import annotations

import os
import stat
from _struct import pack

from dicode_mcp.cage.syscalls import prctl, syscall

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
_REMOVE = (1 << 4) | (1 << 5)
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
_MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
REFER = 1 << 13
TRUNCATE = 1 << 14
IOCTL_DEV = 1 << 15

_READ = READ_FILE | READ_DIR
_MAKE = _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO | _MAKE_SYM
_WRITE = WRITE_FILE | _REMOVE | _MAKE | REFER | TRUNCATE
_LETTERS = {"r": _READ, "w": _WRITE, "x": EXECUTE, "d": IOCTL_DEV}
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

BIND_TCP, CONNECT_TCP = 1, 2
_SCOPE = 3
"""No abstract unix socket and no signal reaches beyond the domain."""
_NO_NEW_PRIVS = 38
_AT_FDCWD = -100
_PLAINLY = pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0x04 | 0x02)
"""No links on the way: the server has followed them, and a new one leads elsewhere."""
_VERSION = 1


def abi() -> int:
    """Give the kernel's version of Landlock, 0 where there is none or it is switched off."""
    try:
        return syscall("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def handled(version: int) -> int:
    """Give every right on files that this version knows."""
    known = REFER - 1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if version >= since:
            known |= right
    return known


def rights(letters: str) -> int:
    """Turn letters into rights: r(ead), w(rite), (e)x(ecute), d(evice commands)."""
    found = 0
    for letter in letters:
        found |= _LETTERS[letter]
    return found


def restrict(
    rules: list[tuple[str, str]], *, ports: list[int] | None = None, scoped: bool = True
) -> None:
    """Hold this process to ``rules``, each a path and letters; a path that is gone is left out.

    With ``ports``, TCP connects to these alone and binds to none. For ever, for all it starts.
    Raises ``OSError``. Threads that are there already would stay free: there must be none.
    """
    version = abi()
    if version == 0:
        raise OSError(38, os.strerror(38), "landlock")
    files = handled(version)
    net = (BIND_TCP | CONNECT_TCP) if ports is not None and version >= 4 else 0
    if ports is not None and not net:
        raise OSError(38, os.strerror(38), "landlock ports")
    size = 8 if version < 4 else 16 if version < 6 else 24
    attr = pack("=QQQ", files, net, _SCOPE if scoped and version >= 6 else 0)[:size]
    ruleset = syscall("landlock_create_ruleset", attr, size, 0)
    try:
        for path, letters in rules:
            _allow(ruleset, path, rights(letters) & files)
        for port in ports or ():
            syscall("landlock_add_rule", ruleset, 2, pack("=QQ", CONNECT_TCP, port), 0)
        prctl(_NO_NEW_PRIVS, 1)
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        fd = syscall("openat2", _AT_FDCWD, os.fsencode(path) + b"\0", _PLAINLY, len(_PLAINLY))
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            access &= _ON_FILES
        if access:
            syscall("landlock_add_rule", ruleset, 1, pack("=Qi", access, fd), 0)
    finally:
        os.close(fd)
