"""Carrying a plan out: the steps in the order that lets none of them be undone by a later one.

``apply`` splits the process in up to three and returns in the one that is to become the task. It
is the same for a process that was started for one run and for one that a fork server made. What it
tells the server goes, line by line as JSON, to the control socket: ``error`` or ``ready``, later
``end``.
"""

from __future__ import annotations

import os
from _json import encode_basestring_ascii as _quoted

from dicode_mcp.cage import guard, landlock, limits, namespaces, seccomp, tree
from dicode_mcp.cage.syscalls import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

VERSION = 2
REFUSED_EXIT = 125
_HIGHEST_FD = 0xFFFFFFFF


class Failed(Exception):
    """A step could not be done."""

    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step)
        self.step = step
        self.error = error


def apply(plan: dict[str, Any], control: int, *, born: tuple[int, int] | None = None) -> None:
    """Put this process into its cage. Ends it, after telling why, when that cannot be done.

    ``control`` is a socket to the server; it is closed here, as is every descriptor that the plan
    does not keep, but for a process that is to wait for its run. There must be no second thread.
    ``born``, its user and group: this process was born in the plan's namespaces, as their first.
    """
    try:
        if plan["version"] != VERSION:
            raise Failed("version", OSError(22, f"plan {plan['version']}, cage {VERSION}"))
        _require_one_thread()
        for path in plan["joins"]:
            _step("groups", limits.join, path)
        if plan["namespaces"]:
            _separate(plan, control, born)
        _confine(plan, control)
    except Failed as failed:
        refuse(control, failed.step, failed.error)
    except OSError as error:
        refuse(control, "start", error)
    tell(control, '{"ready": true}')
    if not plan["waits"]:
        os.close(control)


def refuse(control: int, step: str, error: OSError) -> NoReturn:
    """Tell the server what failed and end the process."""
    where = error.filename2 or error.filename
    place = f", {_quoted(str(where))}" if where else ', ""'
    text = _quoted(error.strerror or str(error))
    tell(control, f'{{"error": [{_quoted(step)}, {error.errno or 0}, {text}{place}]}}')
    os._exit(REFUSED_EXIT)


def tell(control: int, line: str) -> None:
    """Write a line to the server, which may have gone."""
    try:
        os.write(control, line.encode() + b"\n")
    except OSError:
        pass


def _require_one_thread() -> None:
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        return
    if threads != 1:
        # One that is there already would stay outside of every wall.
        raise Failed("threads", OSError(16, f"{threads} threads where there must be one"))


def _separate(plan: dict[str, Any], control: int, born: tuple[int, int] | None) -> None:
    """Enter new namespaces; only the process that is to become the task returns."""
    _step("namespaces", namespaces.enter, plan["namespaces"], born)
    if plan["hostname"] is not None:
        _step("hostname", namespaces.name_host, plan["hostname"])
    if "net" in plan["namespaces"]:
        _step("loopback", namespaces.raise_loopback)
    if plan["gate"]:
        _step("gate", _offer, plan["gate"], control)
    if born is None:
        first = os.fork()
        if first:
            _close_all([])
            guard.keep(first)
    namespaces.hide_memory()
    if born is None:
        _step("parent", namespaces.die_with_parent)
    if plan["tree"]:
        _step("files", tree.build, plan["tree"]["entries"], plan["tree"]["at"], 1 << 20)
    hears, tells = os.pipe() if plan["waits"] else (-1, -1)
    task = os.fork()
    if task:
        _close_all([control, *([hears] if plan["waits"] else [])])
        if born is not None:
            guard.stay()
        if plan["waits"]:
            guard.rest(hears)
        guard.own(task, control, plan["watched"])
    plan["begun"] = tells


def _confine(plan: dict[str, Any], control: int) -> None:
    """Take from this process what the plan does not grant, the right to take part last."""
    if plan["told_must"]:
        from dicode_mcp.cage import network

        assert network  # to be found once files cannot be
    begun = [plan["begun"]] if plan["waits"] else []
    _close_all([0, 1, 2, control, *begun, *plan["keep"]])
    _step("folder", os.chdir, plan["cwd"])
    _step("limits", limits.apply, plan["rlimits"])
    _step("rights", namespaces.drop_rights)
    _step("memory", namespaces.show_memory)
    walls = plan["landlock"]
    if walls:
        rules = [(path, letters) for path, letters in walls["rules"]]
        _step(
            "landlock",
            lambda: landlock.restrict(rules, ports=walls["ports"], scoped=walls["scoped"]),
        )
    if plan["told_must"]:
        _step("calls", _must_be_told, plan["told_seccomp"], control)
        return
    if plan["told_seccomp"] and _install_told(plan["told_seccomp"], control):
        return
    if plan["seccomp"]:
        _step("seccomp", seccomp.install, plan["seccomp"])


def _offer(gate: dict[str, Any], control: int) -> None:
    from dicode_mcp.cage import network

    network.offer(gate["ports"], gate["spare"], control)


def _install_told(code: bytes, control: int) -> bool:
    """Install a filter that tells the server of each connection before it is made.

    That is impossible where somebody listens in this way already (some containers).
    """
    try:
        _must_be_told(code, control)
    except OSError:
        return False
    return True


def _must_be_told(code: bytes, control: int) -> None:
    from dicode_mcp.cage import network

    heard = seccomp.install_told(code)
    network.send(control, '{"calls": true}', [heard])
    os.close(heard)


def _step(name: str, act: Any, *args: Any) -> None:
    try:
        act(*args)
    except OSError as error:
        raise Failed(name, error) from None


def _close_all(kept: list[int]) -> None:
    low = 0
    for fd in [*sorted(set(kept)), _HIGHEST_FD]:
        if fd > low:
            _close_between(low, fd - 1 if fd != _HIGHEST_FD else fd)
        low = fd + 1


def _close_between(low: int, high: int) -> None:
    try:
        syscall("close_range", low, high, 0)
    except OSError:
        os.closerange(low, min(high + 1, os.sysconf("SC_OPEN_MAX")))
