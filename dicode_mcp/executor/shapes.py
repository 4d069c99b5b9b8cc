"""What launches of one task have in common, and what of them is the run's own.

Launches of the same shape differ in their run, its scratch folder and the task's variables alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from dataclasses import replace

from dicode_mcp.protocols import Launch
from dicode_mcp.runs.redaction import NOTHING

_RUNS = frozenset({"DICODE_RUN_ID"})
_AT_START = re.compile(
    r"LANG|LANGUAGE|LC_.*|TZ|TERM|COLORTERM|NO_COLOR|FORCE_COLOR|CLICOLOR.*|.*_PROXY|SSL_.*|"
    r"(DENO|NODE|NPM|V8|RUST|LD|MALLOC|UV|OPENSSL|RES|ICU)_.*",
    re.IGNORECASE,
)
"""Variables that a program takes up as it starts: told later they would do nothing."""
_UNMISTAKABLE = 16
"""A scratch folder with a name this long has it from nowhere else."""


def shape(launch: Launch) -> Hashable:
    """Give what launches have in common that one process can wait for; None for none."""
    policy, name = launch.policy, launch.policy.scratch.name
    if len(name) < _UNMISTAKABLE or not _has_way(launch):
        return None
    granted = policy.permissions
    env = {n: _renamed(v, name, "") for n, v in own_environment(launch).items() if n not in _RUNS}
    return (
        tuple(_renamed(word, name, "") for word in launch.argv),
        tuple(sorted(env.items())),
        (launch.cwd, launch.instance_id, frozenset(launch.files), launch.warm),
        (granted.fs, granted.net, granted.run, granted.sys),
        (policy.task_folder, policy.scratch.parent, policy.read, policy.write, policy.resources),
    )


def _has_way(launch: Launch) -> bool:
    """Tell whether a process that waits can be given a connection later."""
    if launch.within_python:
        return launch.warm is not None and launch.ipc == "fd"
    if any(_AT_START.fullmatch(entry.name) for entry in launch.policy.permissions.env):
        return False
    path = launch.ipc_path
    return launch.may_wait and path is not None and path.parent.parent == launch.policy.scratch


def own_environment(launch: Launch) -> dict[str, str]:
    """Give the variables that are not the task's, and so no secret."""
    declared = {entry.name for entry in launch.policy.permissions.env}
    return {name: value for name, value in launch.env.items() if name not in declared}


def without_run(launch: Launch) -> Launch:
    """Give a launch like this one that belongs to no run, in a scratch folder of its own."""
    old, new = launch.policy.scratch.name, f"next{os.urandom(11).hex()}"
    scratch = launch.policy.scratch.parent / new
    env = {n: _renamed(v, old, new) for n, v in own_environment(launch).items()}
    path = launch.ipc_path
    return replace(
        launch,
        argv=tuple(_renamed(word, old, new) for word in launch.argv),
        run_id=new,
        policy=replace(launch.policy, scratch=scratch),
        env={**env, "DICODE_RUN_ID": new},
        ipc_path=None if path is None else scratch / path.parent.name / path.name,
        hide=NOTHING,
    )


def moved(launch: Launch, ready: Launch) -> dict[str, str]:
    """Give a launch's environment as it is for the process that waited in its place."""
    old, new = launch.policy.scratch.name, ready.policy.scratch.name
    return {name: _renamed(value, old, new) for name, value in launch.env.items()}


def _renamed(text: str, old: str, new: str) -> str:
    return text.replace(f"/{old}/", f"/{new}/")


def task_of(launch: Launch) -> str:
    return launch.env.get("DICODE_TASK_ID", "")
