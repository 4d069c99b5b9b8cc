"""The paths a task is granted: made absolute; refused where they open the server itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_OWN_FILES = ("task.yaml", "task.yml", "taskset.yaml", "task.py", "task.ts", "task.js")
_KERNEL = ("/proc", "/sys", "/dev")
_ENGINE_PATHS = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
)
_ENGINE_HOMES = (
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".rd/docker.sock",
)
_ENGINE_SOCKETS = frozenset({"docker.sock", "podman.sock", "containerd.sock", "crio.sock"})
_SERVICES = ("/run", "/var/run")
_SESSIONS = ("/run/user", "/var/run/user")


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a task stands: the folders its relative paths, ``~`` and refusals are measured by."""

    folder: Path
    home: Path
    data_dir: Path
    allowed_in_data_dir: tuple[Path, ...] = ()
    """Folders below the data dir a task may be granted, read-only: its checkout."""
    guarded: tuple[Path, ...] = ()
    """Files of the server that no task may be granted: its configuration."""


def absolute(text: str, ground: Ground) -> str:
    """Make a granted path absolute and plain: ``~`` is home, relative is the task folder."""
    if text == "~" or text.startswith("~/"):
        text = str(ground.home) + text[1:]
    plain = os.path.normpath(os.path.join(ground.folder, text))
    # Two slashes at the start mean something of their own to POSIX, and nothing to Linux.
    return "/" + plain.lstrip("/")


def refusal(path: str, permission: str, ground: Ground) -> tuple[str, str] | None:
    """Give sentence and hint when an absolute path must not be granted, links followed."""
    data_dir = str(ground.data_dir)
    for candidate in dict.fromkeys((path, _real(path))):
        found = _against_machine(candidate, ground)
        if found:
            return found
        for server in dict.fromkeys((data_dir, os.path.realpath(data_dir))):
            found = _against_data_dir(candidate, server, permission, ground)
            if found:
                return found
    if "w" in permission and _opens_itself(path, ground):
        return (
            "would let the task change its own manifest or script",
            "grant a folder inside it (data/), or one elsewhere",
        )
    return None


def _against_machine(path: str, ground: Ground) -> tuple[str, str] | None:
    if path == "/":
        return "would open the whole machine", "grant the folders the task needs"
    for kernel in _KERNEL:
        if _is_below(path, kernel):
            return f"is the kernel's own ({kernel})", "a run has a /proc and /dev of its own"
    if path in _SERVICES or any(_is_below(path, each) for each in _SESSIONS):
        return (
            "holds sockets of the machine's services or of your session",
            "grant the one folder in it that the task needs, such as /run/postgresql",
        )
    engines = (*_ENGINE_PATHS, *(str(ground.home / name) for name in _ENGINE_HOMES))
    holder = next((s for s in engines if _is_below(s, path)), None)
    if holder is not None and os.path.lexists(holder):
        return (
            f"holds {holder}, which opens the container engine, and with it the machine",
            "grant the folders inside it that the task needs",
        )
    if any(_is_below(str(own), path) for own in ground.guarded):
        return (
            "holds the server's own configuration or keys",
            "keep them in another folder, or grant the folders inside it that the task needs",
        )
    if os.path.basename(path) in _ENGINE_SOCKETS:
        return "would open the container engine, and with it the machine", "remove it"
    return None


def astray(path: str, real: str, permission: str, ground: Ground) -> tuple[str, str] | None:
    """Give sentence and hint when a granted path leads elsewhere now than it may.

    ``real`` is where it leads: since the task was loaded, a link on the way may have changed, and
    the task itself may have changed it.
    """
    found = _against_machine(real, ground)
    if found:
        return found
    if "w" in permission and _opens_itself(real, ground):
        return "would let the task change its own manifest or script", "grant a folder elsewhere"
    for server in dict.fromkeys((str(ground.data_dir), os.path.realpath(ground.data_dir))):
        if _is_below(server, real):
            return "holds the server's data dir", "look at the links on the way"
        if _is_below(real, server) and not _stays(path, real, permission, server, ground):
            return "is inside the server's data dir", "look at the links on the way"
    return None


def _stays(path: str, real: str, permission: str, server: str, ground: Ground) -> bool:
    """Tell whether a path in the data dir is where it was when it was allowed: in a checkout."""
    if permission != "r":
        return False
    if _is_below(real, os.path.realpath(ground.folder)):
        return True
    starts = (str(ground.data_dir), os.path.realpath(ground.data_dir))
    return any(_is_below(path, start) and real == server + path[len(start) :] for start in starts)


def _against_data_dir(
    path: str, data_dir: str, permission: str, ground: Ground
) -> tuple[str, str] | None:
    if _is_below(data_dir, path):
        return "holds the server's data dir", "grant the folders inside it that the task needs"
    if not _is_below(path, data_dir) or _in_any(path, ground.allowed_in_data_dir, permission):
        return None
    return "is inside the server's data dir", "keep the task's files elsewhere"


def _opens_itself(path: str, ground: Ground) -> bool:
    """Tell whether a path holds the task's folder, or is a file in it that decides what it is.

    A folder above it could be renamed, with what is held fast in it, and made anew.
    """
    real, folder = _real(path), os.path.realpath(ground.folder)
    if _is_below(folder, real):
        return True
    return os.path.dirname(real) == folder and os.path.basename(real) in _OWN_FILES


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except OSError:
        return path  # a link of the kernel's own that cannot be read


def _in_any(path: str, folders: Sequence[Path], permission: str) -> bool:
    if permission != "r":
        return False
    return any(
        _is_below(path, root)
        for folder in folders
        for root in (str(folder), os.path.realpath(folder))
    )


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
