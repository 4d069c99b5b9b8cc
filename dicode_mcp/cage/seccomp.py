"""Seccomp: which system calls a process and its descendants may still make.

A filter is a program of classic BPF that the kernel runs at each call. What is refused gets EPERM,
or ENOSYS where a library then does without; nobody is killed for trying.
"""

from __future__ import annotations

from _struct import pack

from dicode_mcp.cage.syscalls import AUDIT_ARCH, HIGHEST, Buffer, machine, number, prctl, syscall

_LOAD = 0x20
_EQUAL, _GREATER_EQUAL, _ANY_BIT = 0x15, 0x35, 0x45
_AND = 0x54
_RETURN = 0x06

ALLOW = 0x7FFF0000
KILL = 0x80000000
NOTIFY = 0x7FC00000
EPERM, ENOSYS, EAFNOSUPPORT, EACCES = 1, 38, 97, 13
_NR, _ARCH = 0, 4
_X32 = 0x40000000

_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5

_CLONE_NAMESPACES = 0x7E020000
_STREAM, _DGRAM, _SEQPACKET = 1, 2, 5
_TYPE_MASK = 0xF
_TCP = 6
_FAST_OPEN = 0x20000000
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
_NOEXEC_SEAL = 0x8
_PR_SET_MM = 35
_OWNERS_RIGHTS = 0o6000
"""The bits by which a program runs with the rights of who made it."""
_CREATES = 0o100 | 0o20000000
"""``O_CREAT`` and ``O_TMPFILE``: a mode counts with them alone."""
_MODES = (("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1))
_OPENS = (("open", 1, 2), ("openat", 2, 3))

REFUSED = (
    # Other processes.
    "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd kcmp "
    "perf_event_open move_pages migrate_pages "
    # The tree of files, and ways around it.
    "mount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount "
    "fspick mount_setattr open_by_handle_at name_to_handle_at fanotify_init fanotify_mark "
    "lookup_dcookie quotactl quotactl_fd swapon swapoff acct uselib sysfs ustat nfsservctl "
    "mknodat mknod "
    # Other namespaces.
    "unshare setns sethostname setdomainname "
    # Large and seldom needed doors into the kernel.
    "bpf keyctl add_key request_key userfaultfd init_module finit_module delete_module "
    "create_module get_kernel_syms query_module kexec_load kexec_file_load reboot syslog iopl "
    "ioperm modify_ldt vhangup vserver _sysctl memfd_secret "
    # The clock.
    "settimeofday clock_settime clock_adjtime adjtimex"
).split()

NOT_THERE = "clone3 openat2 io_uring_setup io_uring_enter io_uring_register".split()
"""Libraries do without these: glibc starts threads by ``clone``, whose flags can be looked at, and
opens files by ``openat``, whose mode can be."""

META = (
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat "
    "utimensat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr "
    "removexattrat"
).split()
"""What changes a file without opening it. Landlock does not see it; read-only mounts do."""

SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal".split()

OF_OTHERS = (
    ("prlimit64", 0),
    ("sched_setaffinity", 0),
    ("sched_setattr", 0),
    ("sched_setparam", 0),
    ("sched_setscheduler", 0),
    ("setpriority", 1),
    ("ioprio_set", 1),
)
"""What can be done to other processes of the same user, and which argument names them; 0: none."""

EXEC = ("execve", "execveat")


class Filter:
    """A program in the making. Each rule ends in an answer or falls through to the next."""

    def __init__(self, arch: str) -> None:
        self._arch = arch
        self._code: list[tuple[int, int, int, int]] = []

    def start(self) -> None:
        """Kill what speaks another architecture's numbers; refuse what the table does not know."""
        self._add(_LOAD, 0, 0, _ARCH)
        self._add(_EQUAL, 1, 0, AUDIT_ARCH[self._arch])
        self._add(_RETURN, 0, 0, KILL)
        self._add(_LOAD, 0, 0, _NR)
        if self._arch == "x86_64":
            self._add(_GREATER_EQUAL, 0, 1, _X32)
            self._refuse(EPERM)
        self._add(_GREATER_EQUAL, 0, 1, HIGHEST + 1)
        self._refuse(ENOSYS)

    def deny(self, name: str, errno: int = EPERM) -> None:
        """Refuse a call whatever its arguments."""
        found = number(name, self._arch)
        if found >= 0:
            self._add(_EQUAL, 0, 1, found)
            self._refuse(errno)

    def tell(self, name: str) -> None:
        """Let who listens decide about a call; what was refused before stays refused."""
        found = number(name, self._arch)
        if found >= 0:
            self._add(_EQUAL, 0, 1, found)
            self._add(_RETURN, 0, 0, NOTIFY)

    def deny_bits(self, name: str, argument: int, bits: int, errno: int = EPERM) -> None:
        """Refuse a call when any of ``bits`` is set in the low half of an argument."""
        self._on(name, [(_LOAD, 0, 0, _low(argument)), (_ANY_BIT, 0, 1, bits), _refusal(errno)])

    def deny_bits_with(
        self, name: str, given: tuple[int, int], argument: int, bits: int, errno: int = EPERM
    ) -> None:
        """Do so where another argument has some bits too: ``given`` is which, and its bits."""
        with_, needed = given
        rule = [(_LOAD, 0, 0, _low(with_)), (_ANY_BIT, 0, 3, needed)]
        rule += [(_LOAD, 0, 0, _low(argument)), (_ANY_BIT, 0, 1, bits), _refusal(errno)]
        self._on(name, rule)

    def need_bits(self, name: str, argument: int, bits: int, errno: int = EPERM) -> None:
        """Refuse a call when none of ``bits`` is set in an argument."""
        self._on(name, [(_LOAD, 0, 0, _low(argument)), (_ANY_BIT, 1, 0, bits), _refusal(errno)])

    def deny_values(
        self, name: str, argument: int, values: tuple[int, ...], errno: int = EPERM
    ) -> None:
        """Refuse a call when an argument has one of these values (its low half)."""
        checks = [(_EQUAL, 0, 1, value) for value in values]
        rules = [part for check in checks for part in (check, _refusal(errno))]
        self._on(name, [(_LOAD, 0, 0, _low(argument)), *rules])

    def only_values(
        self,
        name: str,
        argument: int,
        values: tuple[int, ...],
        errno: int = EPERM,
        mask: int | None = None,
    ) -> None:
        """Refuse a call unless an argument (through ``mask``) has one of these values."""
        rest = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
        masked = [(_AND, 0, 0, mask)] if mask is not None else []
        self._on(name, [(_LOAD, 0, 0, _low(argument)), *masked, *rest, _refusal(errno)])

    def finish(self) -> bytes:
        """Allow the rest, and give the program."""
        self._add(_RETURN, 0, 0, ALLOW)
        return b"".join(pack("=HBBI", *part) for part in self._code)

    def _on(self, name: str, rule: list[tuple[int, int, int, int]]) -> None:
        found = number(name, self._arch)
        if found < 0:
            return
        self._add(_EQUAL, 0, len(rule) + 1, found)
        self._code += rule
        self._add(_LOAD, 0, 0, _NR)

    def _refuse(self, errno: int) -> None:
        self._code.append(_refusal(errno))

    def _add(self, code: int, true: int, false: int, value: int) -> None:
        self._code.append((code, true, false, value))


def _refusal(errno: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, 0x00050000 | errno)


def _low(argument: int) -> int:
    return 16 + 8 * argument


def program(
    *,
    families: tuple[int, ...],
    exec: bool,
    meta: bool,
    signals: bool,
    unsealed: bool,
    told: bool = False,
    led: bool = False,
    alone: bool = True,
    arch: str | None = None,
) -> bytes:
    """Assemble a filter.

    ``families`` are the address families of ``socket`` that stay; ``exec`` keeps starting
    programs, ``unsealed`` memory files that can be run as programs; ``meta`` keeps changing files
    without opening them, ``signals`` those to other processes. ``told`` makes each ``connect``
    wait for the word of who listens (``install_told``). ``led``, with it: whoever listens makes
    every connection, so nothing may lead past it: no other socket than one of TCP, no connection
    by sending, none from outside. Where a run is not ``alone`` among processes, it may not set the
    limits and priorities of others.
    """
    made = Filter(arch or machine())
    made.start()
    for name in NOT_THERE:
        made.deny(name, ENOSYS)
    for name in (*REFUSED, *(() if meta else META), *(() if signals else SIGNALS)):
        made.deny(name)
    if not exec:
        for name in EXEC:
            made.deny(name)
    # What a run leaves in a granted folder is outside of its cage.
    for name, mode in _MODES if meta else (("creat", 1),):
        made.deny_bits(name, mode, _OWNERS_RIGHTS)
    for name, flags, mode in _OPENS:
        made.deny_bits_with(name, (flags, _CREATES), mode, _OWNERS_RIGHTS)
    made.deny_bits("clone", 0, _CLONE_NAMESPACES)
    made.deny_values("ioctl", 1, (_TIOCSTI, _TIOCLINUX, _TIOCSETD))
    made.deny_values("prctl", 0, (_PR_SET_MM,))
    made.only_values("personality", 0, (0, 0xFFFFFFFF))
    if not unsealed:
        made.need_bits("memfd_create", 1, _NOEXEC_SEAL)
    made.only_values("socket", 0, families, EAFNOSUPPORT if not families else EACCES)
    if told:
        made.tell("connect")
    kinds = (_STREAM,) if led else (_STREAM, _DGRAM, _SEQPACKET)
    made.only_values("socket", 1, kinds, EPERM, mask=_TYPE_MASK)
    if led:
        _lead(made)
    if not alone:
        for name, argument in OF_OTHERS:
            made.only_values(name, argument, (0,))
    return made.finish()


def _lead(made: Filter) -> None:
    # Not MPTCP or SCTP, which Landlock does not know for TCP.
    made.only_values("socket", 2, (0, _TCP), EACCES)
    for name, argument in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        made.deny_bits(name, argument, _FAST_OPEN, EACCES)
    for name in ("bind", "listen"):
        made.deny(name, EACCES)


def install(code: bytes) -> None:
    """Put this process under a filter, for ever, with all it starts. Raises ``OSError``."""
    _install(code, 0)


def install_told(code: bytes) -> int:
    """Do the same with a filter that tells of calls; gives the descriptor to hear of them on."""
    try:
        return _install(code, _NEW_LISTENER | _WAIT_KILLABLE)
    except OSError:
        return _install(code, _NEW_LISTENER)  # a kernel before 5.19


def _install(code: bytes, flags: int) -> int:
    kept = Buffer(code)
    prctl(_NO_NEW_PRIVS, 1)
    program = pack("@HxxxxxxQ", len(code) // 8, kept.address)
    return syscall("seccomp", _SET_MODE_FILTER, flags, program)
