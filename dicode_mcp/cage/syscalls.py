"""System calls that Python has no function for, by number, without the cost of ``ctypes``.

``ctypes`` is a Python layer over ``_ctypes`` that takes longer to import than all of a cage takes.
"""

from __future__ import annotations

import _ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NUMBERS: dict[str, tuple[int, int]] = {
    # name: (x86-64, arm64); -1 where the architecture has no such call.
    "_sysctl": (156, -1),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bind": (49, 200),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chmod": (90, -1),
    "chown": (92, -1),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "connect": (42, 203),
    "creat": (85, -1),
    "create_module": (174, -1),
    "delete_module": (176, 106),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "finit_module": (313, 273),
    "fremovexattr": (199, 16),
    "fsconfig": (431, 431),
    "fsetxattr": (190, 7),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futimesat": (261, -1),
    "get_kernel_syms": (177, -1),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "lchown": (94, -1),
    "listen": (50, 201),
    "lookup_dcookie": (212, 18),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "modify_ldt": (154, -1),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open": (2, -1),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "query_module": (178, -1),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "seccomp": (317, 277),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "settimeofday": (164, 170),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, -1),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, -1),
    "userfaultfd": (323, 282),
    "ustat": (136, -1),
    "utime": (132, -1),
    "utimensat": (280, 88),
    "utimes": (235, -1),
    "vhangup": (153, 58),
    "vserver": (236, -1),
}
HIGHEST = 467
"""The newest call that the table was made with; what is newer is not known to be harmless."""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""How seccomp names the architectures that there are numbers for."""

_COLUMN = {"x86_64": 0, "aarch64": 1}
_HERE = _COLUMN.get(os.uname().machine)
"""Looked up once: to ask the kernel before each call doubles their number."""


def machine() -> str:
    """Name this machine's architecture as the kernel does."""
    return os.uname().machine


def number(name: str, arch: str | None = None) -> int:
    """Give a call's number, -1 where there is none. Raises ``OSError`` for an unknown machine."""
    column = _HERE if arch is None else _COLUMN.get(arch)
    if column is None:
        raise OSError(38, f"no table of system calls for {machine()}")
    return NUMBERS[name][column]


class _Long(_ctypes._SimpleCData):  # type: ignore[misc, type-arg]  # pyright: ignore
    _type_ = "l"


class _Char(_ctypes._SimpleCData):  # type: ignore[misc, type-arg]  # pyright: ignore
    _type_ = "c"


class _Function(_ctypes.CFuncPtr):  # pyright: ignore
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO  # pyright: ignore
    _restype_ = _Long


_raw: Any = _Function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall"))  # pyright: ignore


def syscall(name: str, *args: int | bytes | Buffer | None) -> int:
    """Make a call. ``bytes`` are passed as a pointer to be read, a ``Buffer`` to be written.

    Raises ``OSError`` with the call's name as its text.
    """
    given = [_Long(arg) if isinstance(arg, int) else _pointer(arg) for arg in args]
    found = number(name)
    if found < 0:
        raise OSError(38, "not on this machine", name)
    result: int = _raw(_Long(found), *given)
    if result < 0:
        code: int = _ctypes.get_errno()  # pyright: ignore
        raise OSError(code, os.strerror(code), name)
    return result


def _pointer(value: bytes | Buffer | None) -> Any:
    return value.memory if isinstance(value, Buffer) else value


class Buffer:
    """Memory with an address, filled with ``data``."""

    def __init__(self, data: bytes) -> None:
        kind: Any = type(
            "_Memory",
            (_ctypes.Array,),
            {"_type_": _Char, "_length_": len(data)},  # pyright: ignore
        )
        self._data = bytearray(data)
        self.memory: Any = kind.from_buffer(self._data)

    @property
    def address(self) -> int:
        """Where it is."""
        return _ctypes.addressof(self.memory)  # pyright: ignore

    def __bytes__(self) -> bytes:
        return bytes(self._data)


def prctl_each(option: int, values: range) -> None:
    """Call ``prctl`` for one value after the other, until one is refused."""
    call, what, zero = _Long(number("prctl")), _Long(option), _Long(0)
    for value in values:
        if _raw(call, what, _Long(value), zero, zero, zero) < 0:
            return


def prctl(option: int, *args: int) -> int:
    """Call ``prctl`` with the rest of its five arguments zero."""
    return syscall("prctl", option, *args, *([0] * (4 - len(args))))
