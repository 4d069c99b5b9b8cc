"""What this machine can hold tasks to, thing by thing, as people read it. Pure."""

from __future__ import annotations

from dicode_mcp.executor.sandbox.plan import Mode, remedy
from dicode_mcp.executor.sandbox.probe import Probe
from dicode_mcp.protocols import Facility

_LIMITS = ("memory", "pids", "cpu")


def facilities(probe: Probe, mode: Mode) -> tuple[Facility, ...]:
    """Tell of each of them, in the order of the manifest."""
    if mode == "off":
        why = "execution.sandbox is off"
        return (Facility("sandbox", False, why, "remove execution.sandbox from dicode.yaml"),)
    if probe.error:
        return (Facility("sandbox", False, probe.error, remedy(probe)),)
    return (
        _files(probe),
        _network(probe),
        _programs(probe),
        _calls(probe),
        *(_limit(probe, kind) for kind in _LIMITS),
    )


def _files(probe: Probe) -> Facility:
    if probe.separates:
        wall = f" and Landlock {probe.landlock}" if probe.landlock else ", without Landlock"
        return Facility("permissions.fs", True, f"a tree of its own for each run{wall}")
    if probe.landlock >= 3:
        text = f"Landlock {probe.landlock}; no namespaces ({probe.files})"
        return Facility("permissions.fs", True, text)
    text = f"neither namespaces ({probe.files}) nor Landlock (version {probe.landlock})"
    return Facility("permissions.fs", False, text, remedy(probe))


def _network(probe: Probe) -> Facility:
    if probe.separates:
        return Facility("permissions.net", True, "a network of its own and a gate for each run")
    if not probe.told and not probe.seccomp:
        text = f"the server makes each connection in the run's place; no namespaces ({probe.files})"
        return Facility("permissions.net", True, text)
    text = f"no network of a run's own ({probe.net or probe.files})"
    return Facility("permissions.net", False, text, remedy(probe))


def _programs(probe: Probe) -> Facility:
    if probe.landlock and not probe.seccomp:
        return Facility("permissions.run", True, "listed programs alone can be started")
    text = "Landlock is needed for a list of programs, and there is none"
    if probe.seccomp:
        text = f"system calls cannot be filtered ({probe.seccomp})"
    return Facility("permissions.run", False, text, remedy(probe))


def _calls(probe: Probe) -> Facility:
    if not probe.seccomp:
        return Facility("system calls", True, "filtered by seccomp")
    return Facility("system calls", False, probe.seccomp, remedy(probe))


def _limit(probe: Probe, kind: str) -> Facility:
    if probe.groups is not None and kind in probe.groups.kinds:
        return Facility(f"resources.{kind}", True, "by control groups")
    text = "by a look at all processes of a run, ten times a second; a control group is exact"
    return Facility(f"resources.{kind}", True, text)
