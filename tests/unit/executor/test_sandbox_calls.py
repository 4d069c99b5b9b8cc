"""The table of system calls and the filters made of it, for both architectures.

The table is held against the kernel's own headers and against libseccomp, where this machine has
them; the filters are run by a small interpreter of the kernel's language.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from pathlib import Path
from struct import iter_unpack, pack, unpack_from
from typing import Any

import pytest

from dicode_mcp.cage import seccomp
from dicode_mcp.cage.syscalls import AUDIT_ARCH, HIGHEST, NUMBERS, number

MACHINES = ("x86_64", "aarch64")
INCLUDE = Path("/usr/include")
HEADERS = {
    "x86_64": ("x86_64-linux-gnu/asm/unistd_64.h", "asm/unistd_64.h"),
    # arm64 uses the numbers that all newer architectures share.
    "aarch64": ("asm-generic/unistd.h",),
}
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
EPERM, ENOSYS, EACCES = 1, 38, 13


def header(machine: str) -> dict[str, int]:
    for name in HEADERS[machine]:
        if (INCLUDE / name).is_file():
            found = re.findall(
                r"#\s*define __NR(?:3264)?_(\w+)\s+(\d+)", (INCLUDE / name).read_text()
            )
            return {name: int(value) for name, value in found}
    pytest.skip("the kernel's headers are not installed")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_table_has_the_numbers_of_the_kernel_s_headers(machine: str) -> None:
    known = header(machine)
    newest = max(value for name, value in known.items() if name != "syscalls")
    wrong: dict[str, tuple[int, int]] = {}
    for name in NUMBERS:
        ours = number(name, machine)
        theirs = known.get(name, ours if ours > newest else -1)
        if ours != theirs:
            wrong[name] = (ours, theirs)
    assert wrong == {}
    assert sum(name in known for name in NUMBERS) > 80


def libseccomp() -> Any:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("libseccomp is not installed")
    found = ctypes.CDLL(name)
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_the_table_has_the_numbers_of_libseccomp(machine: str) -> None:
    library = libseccomp()
    wrong: dict[str, tuple[int, int]] = {}
    for name in NUMBERS:
        ours = number(name, machine)
        theirs = library.seccomp_syscall_resolve_name_arch(AUDIT_ARCH[machine], name.encode())
        # Below -1: there on other architectures only. -1: newer than the library.
        if ours != theirs and not (theirs == -1 and ours >= 424) and not (ours < 0 and theirs < 0):
            wrong[name] = (ours, theirs)
    assert wrong == {}


def test_a_number_is_that_of_one_call_and_not_above_the_highest() -> None:
    for machine in MACHINES:
        there = [found for name in NUMBERS if (found := number(name, machine)) >= 0]
        assert len(there) == len(set(there))
        assert max(there) == HIGHEST
    for name, (first, second) in NUMBERS.items():
        # Since 424 all architectures count alike.
        assert first == second or max(first, second) < 424, name


def test_an_unknown_machine_has_no_numbers() -> None:
    with pytest.raises(OSError, match="no table of system calls"):
        number("mount", "riscv64")


# ── The filters ──


def run(code: bytes, machine: str, called: int, *args: int, arch: int | None = None) -> str:
    """Let a filter judge a call as the kernel would; gives its answer in words."""
    spoken = AUDIT_ARCH[machine] if arch is None else arch
    given = [*args, *[0] * (6 - len(args))]
    data = pack("=IIQ6Q", called & 0xFFFFFFFF, spoken, 0, *given)
    lines = list(iter_unpack("=HBBI", code))
    at = value = 0
    while True:
        word, true, false, operand = lines[at]
        at += 1
        if word == 0x20:
            (value,) = unpack_from("=I", data, operand)
        elif word == 0x54:
            value &= operand
        elif word == 0x06:
            return said(operand)
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
            at += true if holds[word] else false


def said(answer: int) -> str:
    known = {seccomp.ALLOW: "allowed", seccomp.KILL: "killed", seccomp.NOTIFY: "told"}
    return known.get(answer) or f"refused {answer & 0xFFFF}"


class Judge:
    """A filter for a machine, asked by names."""

    def __init__(self, machine: str, **options: Any) -> None:
        usual: dict[str, Any] = {
            "families": (INET, INET6), "exec": False, "meta": False, "signals": True,
            "unsealed": False,
        }  # fmt: skip
        self.machine = machine
        self.code = seccomp.program(arch=machine, **(usual | options))

    def __call__(self, name: str, *args: int) -> str:
        return run(self.code, self.machine, number(name, self.machine), *args)

    def number(self, called: int, arch: int | None = None) -> str:
        return run(self.code, self.machine, called, arch=arch)


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_call_of_the_lists_is_refused_where_it_exists(machine: str) -> None:
    judge = Judge(machine)
    for name in (*seccomp.REFUSED, *seccomp.META, *seccomp.EXEC):
        if number(name, machine) >= 0:
            assert judge(name) == f"refused {EPERM}", name
    for name in seccomp.NOT_THERE:
        assert judge(name) == f"refused {ENOSYS}", name


def test_what_speaks_another_architecture_is_killed(machine: str) -> None:
    judge = Judge(machine)
    others = {"i386": 0x40000003, "arm": 0x40000028, "riscv64": 0xC00000F3}
    others |= {name: arch for name, arch in AUDIT_ARCH.items() if name != machine}
    for name, arch in others.items():
        assert judge.number(0, arch) == "killed", name


def test_x32_numbers_are_refused_whatever_they_are() -> None:
    judge = Judge("x86_64")
    for called in (0, 59, 101, 512, 520, 547):
        assert judge.number(0x40000000 | called) == f"refused {EPERM}"
    # Above every table, and so that the comparison is one without a sign.
    assert judge.number(0xFFFFFFFF) == f"refused {EPERM}"


def test_a_call_newer_than_the_table_is_not_there(machine: str) -> None:
    judge = Judge(machine)
    assert judge.number(HIGHEST + 1) == f"refused {ENOSYS}"
    assert judge.number(0x3FFFFFFF) == f"refused {ENOSYS}"


def test_ordinary_calls_pass(machine: str) -> None:
    judge = Judge(machine)
    for name, args in {
        "close_range": (), "openat": (0, 0, 0o100, 0o755), "prlimit64": (), "capset": (),
        "kill": (1, 9), "seccomp": (), "landlock_restrict_self": (), "connect": (), "bind": (),
        "listen": (),
    }.items():  # fmt: skip
        assert judge(name, *args) == "allowed", name


def test_what_a_call_is_given_decides(machine: str) -> None:
    judge = Judge(machine)
    assert judge("clone", 0x003D0F00) == "allowed"
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 1 << 30):
        assert judge("clone", flag | 17) == f"refused {EPERM}", hex(flag)
    assert judge("ioctl", 0, 0x5413) == "allowed"
    for typing in (0x5412, 0x541C, 0x5423):
        assert judge("ioctl", 0, typing) == f"refused {EPERM}"
        # The kernel looks at the low half alone, and so does the filter.
        assert judge("ioctl", 0, typing | 1 << 32) == f"refused {EPERM}"
    assert judge("memfd_create", 0, 8) == "allowed"
    assert judge("memfd_create", 0, 1) == f"refused {EPERM}"
    assert judge("personality", 0xFFFFFFFF) == "allowed"
    assert judge("personality", 0x0040000) == f"refused {EPERM}"
    assert judge("prctl", 38, 1) == "allowed"
    assert judge("prctl", 35) == f"refused {EPERM}"


def test_no_program_with_the_rights_of_its_owner_can_be_left(machine: str) -> None:
    judge = Judge(machine, meta=True)
    places = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2, "creat": 1}
    for name, at in places.items():
        if number(name, machine) < 0:
            continue
        assert judge(name, *[0] * at, 0o1777) == "allowed", name
        for bits in (0o4755, 0o2755, 0o6000):
            assert judge(name, *[0] * at, bits) == f"refused {EPERM}", name
    for name, before in {"open": [0], "openat": [0, 0]}.items():
        if number(name, machine) < 0:
            continue
        for flags in (0o100 | 1, 0o20200000 | 2):
            assert judge(name, *before, flags, 0o755) == "allowed", name
            assert judge(name, *before, flags, 0o4755) == f"refused {EPERM}", name
        # Without them there is no mode, and what stands in its place is nothing's.
        assert judge(name, *before, 0, 0o4755) == "allowed", name


def test_only_the_internet_s_sockets_can_be_made(machine: str) -> None:
    judge = Judge(machine)
    for family in (INET, INET6):
        for kind in (1, 2, 1 | 0o4000, 2 | 0o2000000):
            assert judge("socket", family, kind, 0) == "allowed"
        assert judge("socket", family, 3, 1) == f"refused {EPERM}"
    for family in (UNIX, NETLINK, 17, 38, 40):
        assert judge("socket", family, 1, 0) == f"refused {EACCES}"
    assert Judge(machine, families=())("socket", INET, 1, 0) == "refused 97"
    assert Judge(machine, families=(INET, UNIX))("socket", UNIX, 1, 0) == "allowed"


def test_where_the_server_makes_all_connections_nothing_leads_past_it(machine: str) -> None:
    judge = Judge(machine, told=True, led=True)
    assert judge("connect") == "told"
    assert judge("socket", INET, 1, 0) == "allowed"
    assert judge("socket", INET6, 1 | 0o2004000, 6) == "allowed"
    for protocol in (132, 262, 33):
        assert judge("socket", INET, 1, protocol) == f"refused {EACCES}"
    for kind in (2, 3, 5, 10):
        assert judge("socket", INET, kind, 0) == f"refused {EPERM}"
    for name, at in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        assert judge(name, *[0] * at, 0x4000) == "allowed"
        assert judge(name, *[0] * at, 0x20000000 | 0x4000) == f"refused {EACCES}"
    for name in ("bind", "listen"):
        assert judge(name) == f"refused {EACCES}"
    assert judge("ptrace") == f"refused {EPERM}"


def test_programs_and_signals_are_refused_as_asked(machine: str) -> None:
    free = Judge(machine, exec=True, meta=True, unsealed=True)
    assert free("execve") == "allowed"
    assert free("fchmodat") == "allowed"
    assert free("memfd_create", 0, 0) == "allowed"
    held = Judge(machine, signals=False)
    for name in seccomp.SIGNALS:
        assert held(name) == f"refused {EPERM}"


def test_a_run_among_other_processes_sets_no_limits_and_priorities_of_theirs(
    machine: str,
) -> None:
    judge = Judge(machine, alone=False)
    for name, argument in seccomp.OF_OTHERS:
        before = [0] * argument
        assert judge(name, *before, 0) == "allowed", name
        assert judge(name, *before, 4711) == f"refused {EPERM}", name
        assert Judge(machine)(name, *before, 4711) == "allowed", name
