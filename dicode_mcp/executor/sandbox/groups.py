"""Control groups: limits on what a run's processes use together, where the server may set them.

Version 2 where its group was delegated to the server, version 1 as root. Without them a run is
held by limits of each process and by a look at its memory from time to time.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

_ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
"""Which groups this process is in."""
_PERIOD_US = 100_000
Kind = Literal["memory", "pids", "cpu"]
KINDS: tuple[Kind, ...] = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use: bytes, processes (threads count), processor cores."""

    memory: int | None = None
    pids: int | None = None
    cpu: float | None = None


@dataclass(slots=True)
class Group:
    """The groups of one run, one for each controller (version 1) or one for all."""

    folders: dict[Kind, Path] = field(default_factory=dict[Kind, Path])
    two: bool = False

    @property
    def joins(self) -> tuple[str, ...]:
        """The files by which a process with one thread puts itself in: version 1 alone.

        To put another one in stops all forks of the machine for milliseconds, and this does not.
        """
        if self.two:
            return ()
        return tuple(str(folder / "tasks") for folder in dict.fromkeys(self.folders.values()))

    def add(self, pid: int) -> None:
        """Put a process in that cannot by itself; what it starts later is in as well.

        Raises ``OSError``.
        """
        if not self.joins:
            for folder in dict.fromkeys(self.folders.values()):
                (folder / "cgroup.procs").write_text(str(pid))

    def broken(self) -> Kind | None:
        """Tell which limit ended the run, or kept it from going on."""
        if self._count("memory", "oom_kill") > 0:
            return "memory"
        return None

    def refused_pids(self) -> bool:
        """Tell whether a process or thread could not be started for the limit."""
        return self._count("pids", "max") > 0

    def held_back(self) -> bool:
        """Tell whether the run had to wait because it had used its part of the processors."""
        return self._count("cpu", "nr_throttled") > 0

    def _count(self, kind: Kind, key: str) -> int:
        folder = self.folders.get(kind)
        if folder is None:
            return 0
        name = "cpu.stat" if kind == "cpu" else f"{kind}.events"
        if kind == "memory" and not self.two:
            name = "memory.oom_control"
        try:
            for line in (folder / name).read_text().splitlines():
                word, _, value = line.partition(" ")
                if word == key:
                    return int(value)
        except (OSError, ValueError):
            pass
        return 0

    def remove(self) -> None:
        """Take the groups away; they are empty by then."""
        for folder in dict.fromkeys(self.folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()


@dataclass(frozen=True, slots=True)
class Groups:
    """Where groups for runs are made. ``kinds`` is what they can limit."""

    folders: dict[Kind, Path]
    two: bool

    @property
    def kinds(self) -> frozenset[Kind]:
        """What can be limited."""
        return frozenset(self.folders)

    def make(self, name: str, limits: Limits) -> Group:
        """Make the groups of a run. Raises ``OSError``; then nothing is left of them."""
        made = Group({}, self.two)
        try:
            for kind, parent in self.folders.items():
                value = getattr(limits, kind)
                # One of its own for the processor in any case: all that a run starts, be it
                # hundreds, then weighs as much as the server and no more.
                if value is None and kind != "cpu":
                    continue
                folder = parent / name
                folder.mkdir(exist_ok=True)
                made.folders[kind] = folder
                for file, text in _settings(kind, value, self.two):
                    _write(folder / file, text)
        except OSError:
            made.remove()
            raise
        return made

    def close(self) -> None:
        """Take away what is empty."""
        for folder in dict.fromkeys(self.folders.values()):
            with contextlib.suppress(OSError):
                for child in folder.iterdir():
                    if child.is_dir():
                        with contextlib.suppress(OSError):
                            child.rmdir()
                folder.rmdir()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except FileNotFoundError:
        if not any(word in path.name for word in ("swap", "memsw", "oom.group")):
            raise  # a kernel that does not count swap, or ends one at a time, has no file for it


def _settings(kind: Kind, value: float | None, two: bool) -> list[tuple[str, str]]:
    if value is None:
        return []
    if kind == "memory":
        size = str(int(value))
        if two:
            # All of a run, not the largest of its processes alone.
            return [("memory.max", size), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
        return [("memory.limit_in_bytes", size), ("memory.memsw.limit_in_bytes", size)]
    if kind == "pids":
        return [("pids.max", str(int(value)))]
    quota = max(1000, int(value * _PERIOD_US))
    if two:
        return [("cpu.max", f"{quota} {_PERIOD_US}")]
    return [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]


def find(instance_id: str, root: Path = _ROOT) -> Groups | None:
    """Find where this process may make groups, and make the folder that holds them."""
    if sys.platform != "linux":
        return None
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return None
    name = f"dicode-{instance_id[:16]}"
    return _find_two(lines, root, name) or _find_one(lines, root, name)


def _find_one(lines: list[str], root: Path, name: str) -> Groups | None:
    found: dict[Kind, Path] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for kind in KINDS:
            if kind not in controllers.split(","):
                continue
            folder = root / controllers / path.lstrip("/") / name
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
                found[kind] = folder
    return Groups(found, False) if found else None


def _find_two(lines: list[str], root: Path, name: str) -> Groups | None:
    """Use version 2 only where this group is ours: delegated, and with nobody else in it."""
    ours = next((line[3:] for line in lines if line.startswith("0::")), None)
    if ours is None or not (root / "cgroup.controllers").exists():
        return None
    here = root / ours.lstrip("/")
    try:
        available = (here / "cgroup.controllers").read_text().split()
        kinds: list[Kind] = [kind for kind in KINDS if kind in available]
        if not kinds or (here / "cgroup.procs").read_text().split() != [str(os.getpid())]:
            return None
        # A group with processes of its own cannot hand controllers on to groups below it.
        server = here / "server"
        server.mkdir(exist_ok=True)
        (server / "cgroup.procs").write_text(str(os.getpid()))
        enable = " ".join(f"+{kind}" for kind in kinds)
        (here / "cgroup.subtree_control").write_text(enable)
        folder = here / name
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(enable)
    except OSError:
        return None
    return Groups(dict.fromkeys(kinds, folder), True)
