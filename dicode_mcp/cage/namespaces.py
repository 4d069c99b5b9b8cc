"""Namespaces: what a process and its descendants can see of users, processes and the network."""

from __future__ import annotations

import os
from _struct import pack

from dicode_mcp.cage.syscalls import Buffer, prctl, prctl_each, syscall

FLAGS = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 24, 28, 47
_SECURE_NO_ROOT = 0x2F
"""No rights by being uid 0, none kept over a change of uid, both locked; no ambient ones."""
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
_AF_INET, _SOCK_DGRAM_CLOEXEC = 2, 2 | 0o2000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40


def flags(names: list[str]) -> int:
    """Give the kernel's flags for new namespaces."""
    found = 0
    for name in names:
        found |= FLAGS[name]
    return found


def enter(names: list[str], born: tuple[int, int] | None = None) -> None:
    """Leave this process's namespaces for new ones; that of processes holds for children.

    Users and groups keep their numbers. ``born`` are those of a process that was born in the new
    ones, and so cannot see its own. Raises ``OSError``.
    """
    uid, gid = born or (os.geteuid(), os.getegid())
    if born is None:
        if uid == 0:
            drop_groups()
        syscall("unshare", flags(names))
    if "user" in names:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")


def drop_groups() -> None:
    """Leave the groups besides the first; as root, before a namespace of users."""
    try:
        os.setgroups([])
    except PermissionError:
        pass  # a root without the right to; what the groups open is not in its files either


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def raise_loopback() -> None:
    """Switch on ``lo`` in a new network namespace."""
    fd = syscall("socket", _AF_INET, _SOCK_DGRAM_CLOEXEC, 0)
    try:
        syscall("ioctl", fd, _SIOCSIFFLAGS, pack("16sH14x", b"lo", _IFF_UP_RUNNING))
    finally:
        os.close(fd)


def name_host(name: str) -> None:
    """Name the machine anew for who is in this namespace."""
    syscall("sethostname", name.encode(), len(name.encode()))


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends."""
    prctl(_PR_SET_PDEATHSIG, 9)


def hide_memory() -> None:
    """Keep processes of the same user from looking into this one."""
    prctl(_PR_SET_DUMPABLE, 0)


def show_memory() -> None:
    """Let this process open its own files in ``/proc`` again, once others cannot see it."""
    prctl(_PR_SET_DUMPABLE, 1)


def drop_rights() -> None:
    """Give up every capability for ever, also those that uid 0 would get by a new program."""
    # Ends at EINVAL: the last one was before; or EPERM: it has no rights to lose.
    prctl_each(_PR_CAPBSET_DROP, range(_LAST_CAPABILITY + 1))
    try:
        prctl(_PR_SET_SECUREBITS, _SECURE_NO_ROOT)
    except PermissionError:
        pass  # as above
    prctl(_PR_CAP_AMBIENT, 4)
    header = Buffer(pack("=Ii", _CAPABILITY_VERSION_3, 0))
    syscall("capset", header, bytes(24))
