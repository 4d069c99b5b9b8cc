"""From what a task may do and what this machine can enforce to a plan for its cage, or a refusal.

Pure but for looking at files. The plan is plain data: a process started for the run, a fork
server's child and a helper's process carry out the same one (``dicode_mcp.cage``).
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from dicode_mcp.cage import seccomp
from dicode_mcp.cage.apply import VERSION
from dicode_mcp.executor.sandbox import programs
from dicode_mcp.executor.sandbox.fence import Fence
from dicode_mcp.executor.sandbox.gate.names import Rules
from dicode_mcp.executor.sandbox.groups import Kind as Watched
from dicode_mcp.executor.sandbox.groups import Limits
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.executor.sandbox.programs import Programs
from dicode_mcp.executor.sandbox.shown import Entry, Place, Shown, is_below, is_below_any
from dicode_mcp.executor.sandbox.system import (
    DEVICES,
    RESOLVER,
    RESOLVER_FILE,
    System,
    own_entries,
)
from dicode_mcp.protocols import Launch

Mode = Literal["strict", "best_effort", "off"]
Net = Literal["none", "gate", "led", "host"]
"""``gate``: a network of its own that leads to the server; ``led``: the machine's, in which the
server makes every connection in the run's place; ``host``: the machine's."""

TREE = "root"
"""The empty folder in a run's scratch folder on which its tree of files is made."""
HOST_NAME = "task"
"""What a run without ``permissions.sys: [hostname]`` takes the machine's name for."""
_UNIX, _INET, _INET6 = 1, 2, 10
_SHARED_MEMORY = 256 * 2**20
_TEMPORARY = 64 * 2**20
_MOST_FILES = 4096
LED = (
    "permissions.net: by HTTP_PROXY and by TCP alone, since namespaces cannot be used; nothing can "
    "be listened on"
)
"""What a run is without that has no network of its own."""
GUARDS = 2
"""Processes of a cage itself that the kernel counts with the task's."""
_DNS = 53
_MOST_PORTS, _SPARE_PORTS = 64, 32
"""Ports of a gate that are open from the start, and those it may open when they are wanted."""
_COVERED = ("/usr", "/etc", "/dev")
"""Parts of a tree that hold nothing but what is shown to every run: one rule for each."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a run cannot be held to what its task declares, and what to do."""

    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cage does. ``degraded`` are sentences on what it does not hold."""

    namespaces: tuple[str, ...]
    net: Net
    entries: tuple[Entry, ...]
    """The tree of files; empty when files are held by Landlock alone."""
    rules: tuple[tuple[str, str], ...]
    ports: tuple[int, ...] | None
    landlock: bool
    calls: Mapping[str, Any] | None
    rlimits: Mapping[str, int]
    limits: Limits
    watched: tuple[tuple[Watched, float], ...]
    """Limits that no control group holds: for the cage's first process, or else the server."""
    ends: bool
    """Whether too many processes end the run, as nothing keeps it from starting more."""
    gate_ports: tuple[int, ...] = ()
    """Ports the gate listens on from the start."""
    gate_spare: int = 0
    """How many more it may open when they are wanted."""
    degraded: tuple[str, ...] = ()

    @property
    def separate(self) -> bool:
        """Whether the run has namespaces, and so two processes that stand by it."""
        return bool(self.namespaces)

    def data(
        self,
        launch: Launch,
        *,
        keep: Sequence[int],
        env: Mapping[str, str],
        joins: Sequence[str] = (),
        waits: bool = False,
    ) -> bytes:
        """Write the plan for the process that carries it out.

        ``keep`` are the descriptors that stay open, ``env`` is the program's whole environment,
        ``joins`` the files of control groups that the process puts itself into. One that ``waits``
        is told of its run later: a program by its input.
        """
        at = str(launch.policy.scratch / TREE)
        walls = {"rules": [list(rule) for rule in self.rules], "ports": self.ports, "scoped": True}
        plan: dict[str, Any] = {
            "version": VERSION,
            "joins": list(joins),
            "waits": waits and launch.within_python,
            "namespaces": list(self.namespaces),
            "gate": self._gate(),
            "tree": {"at": at, "entries": list(self.entries)} if self.entries else None,
            "rlimits": dict(self.rlimits),
            "watched": self._watched(),
            "hostname": self._hostname(launch),
            "landlock": walls if self.landlock else None,
            "seccomp": _filter(**self.calls) if self.calls is not None else None,
            "told_seccomp": self._told_filter(),
            "told_must": self.net == "led",
            "env": dict(env),
            "cwd": str(launch.cwd),
            "keep": list(keep),
            "entry": _entry(launch, waits),
        }
        return marshal.dumps(plan, 2)

    def _gate(self) -> dict[str, Any] | None:
        if self.net != "gate":
            return None
        return {"ports": self.gate_ports[:_MOST_PORTS], "spare": self.gate_spare}

    def _watched(self) -> dict[str, Any] | None:
        limits = dict(self.watched)
        return {"limits": limits, "ends": self.ends} if limits else None

    def _told_filter(self) -> bytes | None:
        if self.net not in ("gate", "led") or self.calls is None:
            return None
        return _filter(**self.calls, told=True, led=self.net == "led")

    def _hostname(self, launch: Launch) -> str | None:
        if "uts" not in self.namespaces:
            return None
        return None if {"hostname", "*"} & set(launch.policy.permissions.sys) else HOST_NAME


@lru_cache(maxsize=64)
def _filter(**calls: Any) -> bytes:
    return seccomp.program(**calls)


def _entry(launch: Launch, waits: bool) -> dict[str, Any]:
    if launch.within_python:
        return {"kind": "python", "argv": list(launch.argv[launch.argv.index("-S") + 1 :])}
    return {"kind": "exec", "argv": list(launch.argv), "hears": waits}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most a run gets, whatever its task asks for: bytes, processes and threads, processors."""

    memory: int | None = None
    pids: int | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a launch asks for, in the terms of a plan."""

    launch: Launch
    programs: Programs
    any_program: bool
    limits: Limits
    net: tuple[str, ...]

    @property
    def in_python(self) -> bool:
        return self.launch.within_python

    @property
    def starts(self) -> bool:
        """Whether the process, or what it becomes, starts programs."""
        return self.any_program or bool(self.programs.files)

    @property
    def needs_exec(self) -> bool:
        return self.starts or not self.in_python


def compile_plan(
    launch: Launch,
    probe: Probe,
    system: System,
    mode: Mode,
    ceilings: Ceilings,
    *,
    shown: Shown | None = None,
    fence: Fence | None = None,
) -> Plan | Refusal:
    """Give the plan for a launch; in ``strict`` mode a refusal for what would not hold.

    In ``best_effort`` the plan holds what can be held and says what is not. ``shown``, an empty
    one, then has what was looked at.
    """
    wanted = _wanted(launch, ceilings)
    missing = _not_held(probe, wanted)
    if missing and mode == "strict":
        return _refusal(probe, missing[0])
    separate = probe.separates
    shown = _shown(wanted, system, shown or Shown())
    astray = fence.strayed(launch, shown) if fence is not None else None
    if astray is not None:
        return Refusal(*astray)
    rlimits = _rlimits(wanted, probe)
    return Plan(
        namespaces=_namespaces(probe, wanted),
        net=_net(wanted, probe),
        gate_ports=_gate_ports(wanted),
        gate_spare=_gate_spare(wanted),
        entries=_entries(wanted, system, shown) if separate else (),
        rules=_rules(wanted, shown, separate),
        ports=_ports(wanted, probe) if probe.landlock >= 4 and not separate else None,
        landlock=probe.landlock > 0,
        calls=_calls(wanted, probe) if not probe.seccomp else None,
        rlimits=rlimits,
        limits=wanted.limits,
        watched=_watched(probe, wanted),
        # Root's processes are not counted by the kernel.
        ends=probe.uid == 0 or "nproc" not in rlimits,
        degraded=tuple([*missing, *_degraded(probe, wanted)]),
    )


def shortfalls(launch: Launch, probe: Probe, ceilings: Ceilings) -> tuple[str, ...]:
    """Say what this machine does not hold, or holds in part, of what a launch is to be held to."""
    wanted = _wanted(launch, ceilings)
    return (*_not_held(probe, wanted), *_degraded(probe, wanted))


def _wanted(launch: Launch, ceilings: Ceilings) -> _Wanted:
    policy = launch.policy
    run = [name for name in policy.permissions.run if name != "*"]
    path = launch.env.get("PATH", os.defpath)
    asked = policy.resources
    limits = Limits(
        _least(asked.memory if asked else None, ceilings.memory),
        _least(asked.pids if asked else None, ceilings.pids),
        _least(asked.cpu if asked else None, ceilings.cpu),
    )
    return _Wanted(
        launch,
        programs.find(run, path, str(policy.task_folder)),
        "*" in policy.permissions.run,
        limits,
        policy.permissions.net,
    )


_Number = TypeVar("_Number", int, float)


def _least(*values: _Number | None) -> _Number | None:
    return min((value for value in values if value is not None), default=None)


# ── What the machine cannot do ──


def _not_held(probe: Probe, wanted: _Wanted) -> list[str]:
    """Give a sentence for each declared permission that would not hold."""
    found: list[str] = []
    if probe.error:
        return [f"permissions: {probe.error}"]
    if not probe.separates and probe.landlock < 3:
        found.append(
            f"permissions.fs: neither namespaces ({probe.files}) nor Landlock "
            f"(version {probe.landlock}, 3 is needed) can be used"
        )
    if probe.seccomp:
        found.append(f"permissions.run: system calls cannot be filtered ({probe.seccomp})")
    elif wanted.needs_exec and not probe.landlock and not wanted.any_program:
        found.append("permissions.run: a list of programs needs Landlock")
    if wanted.net and _net(wanted, probe) == "host":
        found.append(
            "permissions.net: hosts are held by a network of the run's own, or by making its "
            f"connections for it; neither namespaces ({probe.files}) nor notices of system calls "
            f"({probe.told or probe.seccomp}) can be used"
        )
    return found


def _degraded(probe: Probe, wanted: _Wanted) -> list[str]:
    """Give what the plan holds in part."""
    found: list[str] = []
    net = _net(wanted, probe)
    if net == "host":
        held = _ports(wanted, probe) is not None and probe.landlock >= 4
        rule = "ports are held" if held else "no host or port is held"
        found.append(f"permissions.net: without namespaces {rule}")
    if net == "led" and wanted.net:
        found.append(LED)
    return found


def _watched(probe: Probe, wanted: _Wanted) -> tuple[tuple[Watched, float], ...]:
    held = wanted.limits
    every: dict[Watched, float | None] = {
        "memory": held.memory, "pids": held.pids, "cpu": held.cpu,
    }  # fmt: skip
    return tuple((k, v) for k, v in every.items() if v is not None and not _has(probe, k))


def _has(probe: Probe, kind: Literal["memory", "pids", "cpu"]) -> bool:
    return probe.groups is not None and kind in probe.groups.kinds


def _refusal(probe: Probe, why: str) -> Refusal:
    return Refusal(
        f"this machine cannot hold the task to its permissions, so nothing was run: {why}",
        remedy(probe),
    )


def remedy(probe: Probe) -> str:
    """Say what would make this machine able to."""
    if probe.error:
        return (
            "run the server on Linux (x86-64 or arm64), or accept what holds there: "
            "execution.sandbox: best_effort in dicode.yaml"
        )
    return (
        "in a container allow unshare and mount (docker: --security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined; podman works as it is); on the machine itself use a "
        "kernel of 5.19 or later with landlock among its security modules; or accept what holds: "
        "execution.sandbox: best_effort in dicode.yaml"
    )


# ── What the run is shown ──


def _namespaces(probe: Probe, wanted: _Wanted) -> tuple[str, ...]:
    if not probe.separates:
        return ()
    names = ["mount", "pid", "ipc", "uts"]
    if not probe.files:
        names.insert(0, "user")
    names.append("net")
    return tuple(names)


def _net(wanted: _Wanted, probe: Probe) -> Net:
    by_path = wanted.launch.ipc == "path"
    if probe.separates:
        return "gate" if wanted.net else "none"
    if wanted.net or by_path:
        # Also for the one unix socket, which Landlock does not tell from others.
        led = not probe.told and not probe.seccomp
        return "led" if led else "host" if wanted.net else "none"
    return "none"


def _gate_spare(wanted: _Wanted) -> int:
    any_port = not Rules.read(wanted.net).only_ports
    return _SPARE_PORTS if any_port or len(_gate_ports(wanted)) > _MOST_PORTS else 0


def _gate_ports(wanted: _Wanted) -> tuple[int, ...]:
    # Names are asked over TCP too, after an answer that was cut.
    return tuple(dict.fromkeys([_DNS, *Rules.read(wanted.net).ports]))


def _shown(wanted: _Wanted, system: System, shown: Shown) -> Shown:
    """Collect the real paths; what comes later goes over what came before."""
    policy = wanted.launch.policy
    execute = wanted.any_program
    if not wanted.needs_exec:
        # Nothing can be started, so programs may be seen: one place instead of many.
        shown.add(Place("/usr"))
    for path in [*system.places, *(system.programs if execute else ())]:
        shown.add(Place(path))
    if not execute:
        for path in system.programs:
            if os.path.islink(path):
                shown.follow(path)
    for path in policy.read:
        # An interpreter of the system names /usr; the parts of it that are libraries are there,
        # and its programs must not be, or the loader would run them.
        if not any(is_below(folder, str(path)) for folder in system.programs):
            shown.add(Place(str(path)))
    for path in [*wanted.programs.shown, *_own_program(wanted)]:
        shown.add(Place(path))
    for name in DEVICES:
        shown.add(Place(f"/dev/{name}", write=True, device=True))
    _grants(shown, wanted, execute)
    for path in policy.write:
        shown.add(Place(str(path), write=True, execute=execute, must=True))
    for path in _private(wanted.launch):
        shown.add(Place(path, write=True, execute=execute, must=True))
    return shown


def _grants(shown: Shown, wanted: _Wanted, execute: bool) -> None:
    """Add what the manifest grants; the task's own folder stays as it is, whatever is above it."""
    folder = str(wanted.launch.policy.task_folder)
    shown.add(Place(folder, must=True))
    real = os.path.realpath(folder)
    for grant in wanted.launch.policy.permissions.fs:
        write = "w" in grant.permission
        found = shown.follow(grant.path)
        if found is None and write:
            found = _made(grant.path, shown)
        if found is not None and not (write and found == real):
            shown.places[found] = Place(found, write, execute or not write)


def _made(path: str, shown: Shown) -> str | None:
    """Make what a task may write and is not there: a folder, a file when its name has a suffix."""
    try:
        if Path(path).suffix:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        else:
            os.mkdir(path)
    except OSError:
        return None
    return shown.follow(path)


def _private(launch: Launch) -> list[str]:
    scratch = launch.policy.scratch
    found = [str(scratch / name) for name in ("home", "tmp") if (scratch / name).is_dir()]
    if launch.ipc == "path" and launch.ipc_path is not None:
        # Its folder: the socket itself may come when the process is already there.
        found.append(str(launch.ipc_path.parent))
    return found


def _own_program(wanted: _Wanted) -> tuple[str, ...]:
    return () if wanted.in_python else programs.loaders(wanted.launch.argv[0])


def _entries(wanted: _Wanted, system: System, shown: Shown) -> tuple[Entry, ...]:
    launch = wanted.launch
    made = own_entries(system, os.geteuid(), os.getegid(), launch.env.get("HOME", "/"))
    if wanted.net:
        made = [entry for entry in made if entry[1] != RESOLVER_FILE]
        made.append(["file", RESOLVER_FILE, RESOLVER])
    given = shown.entries()
    paths = [str(entry[1]) for entry in given]
    made = [entry for entry in made if str(entry[1]) not in paths]
    spaces: list[Entry] = [
        ["processes", "/proc", bool(launch.policy.permissions.sys)],
        ["memory", "/dev/shm", _SHARED_MEMORY],
    ]
    if not any(is_below(path, "/tmp") for path in paths):
        spaces.append(["memory", "/tmp", _TEMPORARY])
    return (*made, *spaces, *given)


# ── What it may do ──


def _rules(wanted: _Wanted, found: Shown, separate: bool) -> tuple[tuple[str, str], ...]:
    """Give Landlock's rules: a second wall around a tree, the only one without."""
    execute = "x" if wanted.any_program else ""
    rules: dict[str, str] = {}
    for place in found.places.values():
        own = place.write and not place.device
        if not separate or own or not is_below_any(place.path, _COVERED):
            rules[place.path] = ("rw" if place.write else "r") + execute
    for grant in wanted.launch.policy.permissions.fs:
        real = found.follow(grant.path)
        if grant.permission == "w" and real in found.places and found.places[real].write:
            rules[real] = "w" + execute
    for path in [*wanted.programs.files, *_own_program(wanted)]:
        rules[path] = rules.get(path, "r") + "x"
    rules["/proc"] = "r"
    rules["/dev"] = "rwd"
    if separate:
        rules |= {"/usr": "r" + execute, "/etc": "r"}
        if not any(is_below(path, "/tmp") for path in found.places):
            rules["/tmp"] = "rw" + execute
    else:
        rules |= {f"/dev/{name}": "rwd" for name in DEVICES}
        rules.pop("/dev")
    return tuple(rules.items())


def _ports(wanted: _Wanted, probe: Probe) -> tuple[int, ...] | None:
    """Give the TCP ports, when every rule names one; None: any, or no network at all."""
    net = _net(wanted, probe)
    if net == "led":
        return ()  # what is made for the run is connected already
    if net == "none":
        return None
    ports = [rule.rpartition(":")[2] for rule in wanted.net if _has_port(rule)]
    if len(ports) < len(wanted.net):
        return None
    return tuple(dict.fromkeys([*(int(port) for port in ports), _DNS]))


def _has_port(rule: str) -> bool:
    if rule.startswith("["):
        return not rule.endswith("]")
    return rule.count(":") == 1


def _calls(wanted: _Wanted, probe: Probe) -> dict[str, Any]:
    own_network = probe.separates or bool(wanted.net)
    families = [_INET, _INET6] if own_network else []
    if wanted.launch.ipc == "path" or wanted.launch.ipc == "none":
        families.append(_UNIX)
    return {
        "families": tuple(families),
        "exec": wanted.needs_exec,
        "meta": probe.separates,
        "signals": probe.separates or probe.landlock >= 6,
        "unsealed": wanted.any_program,
        "alone": probe.separates,
    }


def _rlimits(wanted: _Wanted, probe: Probe) -> dict[str, int]:
    limits = {"core": 0, "nofile": _MOST_FILES}
    pids = wanted.limits.pids
    if pids is not None and "user" in _namespaces(probe, wanted):
        limits["nproc"] = pids + GUARDS
    return limits
