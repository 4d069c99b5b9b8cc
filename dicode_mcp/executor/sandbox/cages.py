"""The cages of one server: its mode, what the machine can do, and each launch's plan."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import count

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.executor.sandbox import system
from dicode_mcp.executor.sandbox.control import NotApplied
from dicode_mcp.executor.sandbox.facilities import facilities
from dicode_mcp.executor.sandbox.fence import Fence
from dicode_mcp.executor.sandbox.gate.doors import Hall
from dicode_mcp.executor.sandbox.gate.gate import Gate
from dicode_mcp.executor.sandbox.gate.names import Rules
from dicode_mcp.executor.sandbox.gate.outside import Outside
from dicode_mcp.executor.sandbox.gate.refusals import Tell
from dicode_mcp.executor.sandbox.groups import Group, Limits
from dicode_mcp.executor.sandbox.kept import KeptPlans
from dicode_mcp.executor.sandbox.plan import (
    GUARDS,
    LED,
    Ceilings,
    Mode,
    Plan,
    Refusal,
    compile_plan,
    remedy,
    shortfalls,
)
from dicode_mcp.executor.sandbox.probe import CAGE, Probe
from dicode_mcp.executor.sandbox.shown import Shown
from dicode_mcp.protocols import Facility, Health, Launch

_MARKS = ("DICODE_RUN_ID", "DICODE_INSTANCE")
_PLAIN = re.compile(r"[A-Za-z0-9_.@-]*")
_LONGEST_WORD = 128 * 1024 - 1
_LONGEST_ALL = 1536 * 1024


class Cages:
    """Plans cages. ``mode`` is the server's; a launch cannot change it."""

    def __init__(
        self,
        mode: Mode,
        probe: Probe,
        ceilings: Ceilings | None = None,
        outside: Outside | None = None,
        fence: Fence | None = None,
    ) -> None:
        self.mode: Mode = mode
        self.probe = probe
        self._ceilings = ceilings or Ceilings()
        self._system = system.look()
        self._kept = KeptPlans(self._system)
        self._outside = outside or Outside()
        self._fence = fence
        self._numbers = count(1)

    def plan(self, launch: Launch) -> Plan | None:
        """Give a launch's plan, None when none is wanted. Raises SANDBOX_UNAVAILABLE."""
        if self.mode == "off":
            return None
        plan = self._kept.find(launch)
        if plan is None or self._strays(launch):
            plan = self._compile(launch)
        if not plan.landlock and not plan.namespaces and plan.calls is None:
            return None
        return plan

    def _strays(self, launch: Launch) -> bool:
        """Tell whether a grant leads to what may have come to be there since the plan was made."""
        return self._fence is not None and self._fence.strayed(launch, Shown()) is not None

    def _compile(self, launch: Launch) -> Plan:
        shown = Shown()
        plan = compile_plan(
            launch,
            self.probe,
            self._system,
            self.mode,
            self._ceilings,
            shown=shown,
            fence=self._fence,
        )
        if isinstance(plan, Refusal):
            raise DicodeError(Code.SANDBOX_UNAVAILABLE, plan.message, hint=plan.hint)
        self._kept.keep(launch, plan, shown.looks)
        return plan

    def gate(self, launch: Launch, plan: Plan, tell: Tell) -> Gate | None:
        """Make the gate of a launch whose network goes through one."""
        rules = Rules.read(launch.policy.permissions.net)
        if plan.net == "gate":
            return Gate(rules, self._outside, tell)
        if plan.net != "led":
            return None
        path = str(launch.ipc_path) if launch.ipc == "path" and launch.ipc_path else None
        return Gate(rules, self._outside, tell, hall=Hall(), path=path)

    def group(self, launch: Launch, plan: Plan) -> Group | None:
        """Make the control groups of a launch, where the server has them.

        Raises SANDBOX_UNAVAILABLE when they cannot be made, as what they hold would not be held.
        """
        groups = self.probe.groups
        if groups is None or plan.limits == Limits():
            return None
        try:
            limits = plan.limits
            if limits.pids is not None and plan.separate:
                limits = replace(limits, pids=limits.pids + GUARDS)
            # A number too: what had the name before may be about to take its group away.
            return groups.make(f"{launch.run_id or 'helper'}.{next(self._numbers)}", limits)
        except OSError as error:
            raise DicodeError(
                Code.SANDBOX_UNAVAILABLE,
                f"the run's limits cannot be set: {error.strerror} ({error.filename})",
                hint="look at the control group that the server was started in",
            ) from error

    def explain(self, failed: NotApplied) -> DicodeError:
        """Say which step of a cage failed and what to do."""
        if not failed.step:
            why = "the process ended before it was confined"
        else:
            place = f" at {failed.place}" if failed.place else ""
            why = f"the step '{failed.step}' failed{place}: {failed.text}"
        return DicodeError(
            Code.SANDBOX_UNAVAILABLE,
            f"the task's sandbox could not be made, so nothing was run: {why}",
            hint=_remedy(failed, self.probe),
        )

    def unheld(self, launch: Launch) -> tuple[str, ...]:
        """Say what a launch is not held to here, be it started or refused."""
        if self.mode == "off":
            return ("execution.sandbox is off: no permission is held",)
        whole = self.probe.separates and self.probe.landlock and not self.probe.seccomp
        if whole and launch.policy.resources is None:
            return ()
        return shortfalls(launch, self.probe, self._ceilings)

    def facilities(self) -> tuple[Facility, ...]:
        """Tell of each thing the machine can hold tasks to."""
        return facilities(self.probe, self.mode)

    def lacking(self) -> list[str]:
        """Say what this machine cannot hold, whatever the mode."""
        return _lacking(self.probe)

    def health(self) -> Health:
        """Tell whether permissions hold here, and what does not."""
        if self.mode == "off":
            return Health(
                False,
                "execution.sandbox is off: a task can use files, network and programs as the "
                "server's own user, whatever it declares",
            )
        return Health(*_assess(self.probe, self.mode))


def _assess(probe: Probe, mode: Mode) -> tuple[bool, str]:
    lacking = _lacking(probe)
    if not lacking:
        return True, _strength(probe)
    text = "; ".join(lacking)
    if mode == "strict":
        return True, f"tasks are not started, since permissions cannot be enforced here: {text}"
    return False, f"execution.sandbox is best_effort, and this machine cannot hold: {text}"


def _lacking(probe: Probe) -> list[str]:
    if probe.error:
        return [probe.error]
    found: list[str] = []
    if not probe.separates and probe.landlock < 3:
        found.append(f"files (namespaces: {probe.files}; Landlock: version {probe.landlock})")
    if probe.seccomp:
        found.append(f"system calls ({probe.seccomp})")
    return found


def _strength(probe: Probe) -> str:
    parts = [f"Landlock {probe.landlock}" if probe.landlock else "no Landlock", "seccomp"]
    if probe.separates:
        parts.append("own files, processes and network for each run")
    else:
        parts.append(f"no namespaces ({probe.files})")
        if not probe.told:
            parts.append(f"network degraded ({LED.partition(': ')[2]})")
    kinds = sorted(probe.groups.kinds) if probe.groups else []
    parts.append(f"control groups for {', '.join(kinds)}" if kinds else "limits by process")
    return "permissions are enforced: " + ", ".join(parts)


def _remedy(failed: NotApplied, probe: Probe) -> str:
    if failed.step in ("files", "landlock") and failed.errno in (errno.ELOOP, errno.ENOENT):
        return "a granted path was replaced by a link, or is gone; check permissions.fs"
    return remedy(probe)


def command(launch: Launch, plan_fd: int, control_fd: int) -> list[str]:
    """Give what is started for a launch: an interpreter that confines itself first."""
    python = launch.argv[0] if launch.within_python else sys.executable
    return [python, "-I", "-S", CAGE, str(plan_fd), str(control_fd)]


def bare_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Give what the process has before it is confined: nothing that could steer a program.

    What the task declares (``LD_PRELOAD``, say) comes into force inside only.
    """
    out = {name: env[name] for name in _MARKS if name in env}
    out["PATH"] = os.defpath
    for name, value in env.items():
        if (name == "LANG" or name.startswith("LC_")) and _PLAIN.fullmatch(value):
            out[name] = value
    return out


def check_size(argv: tuple[str, ...], env: Mapping[str, str]) -> None:
    """Raise ``OSError(E2BIG)`` for what the kernel would not take."""
    words = [*argv, *(f"{name}={value}" for name, value in env.items())]
    sizes = [len(os.fsencode(word)) + 9 for word in words]
    if max(sizes, default=0) > _LONGEST_WORD or sum(sizes) > _LONGEST_ALL:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))


def _size(size: int) -> str:
    for name, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= unit and (size % unit == 0 or unit == 2**20):
            return f"{size / unit:.4g} {name}" if size < 100 * unit else f"{size // unit} {name}"
    return f"{size} bytes"


def limit_text(kind: str, limits: Limits) -> str:
    """Name a limit as people read it."""
    if kind == "memory" and limits.memory:
        return f"memory limit {_size(limits.memory)}"
    if kind == "pids" and limits.pids:
        return f"limit of {limits.pids} processes and threads"
    if kind == "cpu" and limits.cpu:
        return f"limit of {limits.cpu:g} processors"
    return f"{kind} limit"
