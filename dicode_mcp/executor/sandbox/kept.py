"""Plans that were made before: one is used again while all it was made from is as it was.

To make a plan takes longer than to check one. What was looked at while it was made, links above
all, is looked at again for every launch, so a plan from here is the one that would be made now.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from dicode_mcp.executor.sandbox import programs
from dicode_mcp.executor.sandbox.plan import Plan
from dicode_mcp.executor.sandbox.shown import Entry, look
from dicode_mcp.executor.sandbox.system import System
from dicode_mcp.protocols import Launch

MOST = 64
_SCRATCH = "\0"


@dataclass(frozen=True, slots=True)
class _Kept:
    """A plan with the looks at paths, texts and programs that it came from."""

    plan: Plan
    name: str
    """The scratch folder's, which is the one part of a path that differs from run to run."""
    parent: str
    """The real path of the folder above it."""
    looks: Mapping[str, str | None]
    texts: Mapping[str, str]
    loaders: tuple[str, ...]


class KeptPlans:
    """The latest plans by what a launch asks for."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def find(self, launch: Launch) -> Plan | None:
        """Give the plan for a launch, if it was made for one like it and still holds."""
        key = _key(launch)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if not self._holds(kept, launch):
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return _moved(kept, launch.policy.scratch.name)

    def keep(self, launch: Launch, plan: Plan, looks: Mapping[str, str | None]) -> None:
        """Keep a plan that was just made."""
        scratch = launch.policy.scratch
        key = _key(launch)
        if key is None:
            return
        parent = os.path.realpath(scratch.parent)
        own = f"{parent}/{scratch.name}"
        others = {p: t for p, t in looks.items() if p != own and not p.startswith(own + "/")}
        texts = self._system.texts.all()
        self._kept[key] = _Kept(plan, scratch.name, parent, others, texts, _loaders(launch))
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)

    def _holds(self, kept: _Kept, launch: Launch) -> bool:
        return (
            all(look(path) == target for path, target in kept.looks.items())
            and self._system.texts.all() == kept.texts
            and _loaders(launch) == kept.loaders
        )


def _key(launch: Launch) -> Hashable:
    """Give all that a plan depends on but files; None for one that is to be made each time."""
    policy, scratch = launch.policy, str(launch.policy.scratch)
    if any(name != "*" for name in policy.permissions.run):
        return None  # a program of that name may turn up earlier on the path
    socket = _within(str(launch.ipc_path), scratch) if launch.ipc == "path" else ""
    home = _within(launch.env.get("HOME", "/"), scratch)
    if socket is None or home is None:
        return None
    granted = policy.permissions
    return (
        launch.within_python or launch.argv[0],
        (launch.ipc, socket, home, frozenset(launch.files)),
        (granted.fs, granted.net, granted.run, granted.sys),
        (policy.task_folder, policy.scratch.parent, policy.read, policy.write, policy.resources),
    )


def _within(path: str, scratch: str) -> str | None:
    """Write a path so that it is the same for each run; None where that is not certain."""
    if path.startswith(scratch + "/"):
        return _SCRATCH + path[len(scratch) :]
    return None


def _loaders(launch: Launch) -> tuple[str, ...]:
    return () if launch.within_python else programs.loaders(launch.argv[0])


def _moved(kept: _Kept, name: str) -> Plan:
    """Give the plan for another scratch folder beside the one it was made for."""
    if name == kept.name:
        return kept.plan
    old, new = f"{kept.parent}/{kept.name}/", f"{kept.parent}/{name}/"

    def path_of(path: str) -> str:
        return new + path[len(old) :] if path.startswith(old) else path

    def entry_of(entry: Entry) -> Entry:
        kind, path, *rest = entry
        if path == "/etc/passwd":
            rest = [str(text).replace(f"/{kept.name}/", f"/{name}/") for text in rest]
        return [kind, path_of(str(path)), *rest]

    return replace(
        kept.plan,
        entries=tuple(entry_of(entry) for entry in kept.plan.entries),
        rules=tuple((path_of(path), letters) for path, letters in kept.plan.rules),
    )
