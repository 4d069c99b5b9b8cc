"""What runs were refused, as what to add to permissions: sorted, grouped. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from dicode_mcp.runs.accesses import (
    EVERY,
    Seen,
    SeenRun,
    covered_net,
    covered_path,
    covered_program,
    is_below,
)
from dicode_mcp.runs.findings import Field, Finding, calls
from dicode_mcp.spec.model import Permissions

MOST_ADDED = 40
_SHALLOW = 2
_GLOBS = ("tasks", "agents")

Forbidden = Callable[[str, str], str | None]
"""Says why a path must not be granted (``r`` or ``rw``), if so."""
Simple = Literal["net", "run", "sys", "env"]


class Wanted:
    """Collects what was refused and is not covered by now."""

    def __init__(
        self, seen: Seen, permissions: Permissions, folder: str, home: str, forbidden: Forbidden
    ) -> None:
        self._seen = seen
        self._permissions = permissions
        self._folder = folder
        self._home = home
        self._forbidden = forbidden
        self.add: list[Finding] = []
        self.refused: list[Finding] = []

    def collect(self) -> None:
        """Sort what was refused into what to add and what to tell."""
        self._files()
        for field in ("net", "run", "sys", "env"):
            self._simple(field)
        self._dicode()
        self.add, self.refused = self.add[:MOST_ADDED], self.refused[:MOST_ADDED]

    def _put(self, field: Field, value: Any, runs: Sequence[SeenRun]) -> None:
        last = runs[-1].id
        if any(not run.ok for run in runs):
            self.add.append(Finding(field, value, len(runs), last))
        else:
            why = "the runs succeeded without it"
            self.refused.append(Finding(field, value, len(runs), last, why=why))

    def _covered(self, field: Simple, what: str) -> bool:
        declared = self._permissions
        if field == "net":
            return covered_net(declared.net, what)
        if field == "run":
            return covered_program(declared.run, what) is not None
        names = declared.sys if field == "sys" else [entry.name for entry in declared.env]
        return what in names

    def _simple(self, field: Simple) -> None:
        for what, runs in self._seen.of(field, allowed=False).items():
            if self._covered(field, what):
                continue
            if what == EVERY or not _loads(field, what):
                why = "it cannot be granted" if what != EVERY else "each one must be listed by name"
                self.refused.append(Finding(field, what, len(runs), runs[-1].id, why=why))
            else:
                self._put(field, what, runs)

    def _dicode(self) -> None:
        for line, runs in self._seen.of("dicode", allowed=False).items():
            for name, targets in calls([line]).items():
                if name in _GLOBS:
                    self._put("dicode", {name: targets}, runs)
                else:
                    self._put("dicode", {name: True}, runs)

    def _files(self) -> None:
        reads = self._paths("read")
        writes = self._paths("write")
        places: dict[str, tuple[str, list[SeenRun]]] = {}
        for how, found in (("rw", writes), ("r", reads)):
            for path, runs in found.items():
                self._place(path, how, runs, places)
        for path, (how, runs) in self._grouped(places).items():
            shown = self._shown(path)
            self._put("fs", {"path": shown, "permission": how}, runs)

    def _paths(self, kind: Literal["read", "write"]) -> dict[str, list[SeenRun]]:
        found = self._seen.of(kind, allowed=False)
        return {
            path: runs
            for path, runs in found.items()
            if path != EVERY and covered_path(self._permissions, path, kind) is None
        }

    def _place(
        self, path: str, how: str, runs: list[SeenRun], places: dict[str, tuple[str, list[SeenRun]]]
    ) -> None:
        if how == "rw" and path == self._folder:
            path = os.path.join(path, "data")
        why = self._forbidden(path, how)
        if why is not None:
            value = {"path": self._shown(path), "permission": how}
            self.refused.append(Finding("fs", value, len(runs), runs[-1].id, why=why))
        elif path in places:
            had, before = places[path]
            places[path] = (had, _together(before, runs))
        else:
            places[path] = (how, runs)

    def _grouped(
        self, places: Mapping[str, tuple[str, list[SeenRun]]]
    ) -> dict[str, tuple[str, list[SeenRun]]]:
        """Grant a folder in place of two or more things in it, where it is no wide one."""
        by_folder: dict[tuple[str, bool], list[str]] = {}
        for path, (_, runs) in places.items():
            # Those that a run failed over apart from those that none missed.
            missed = any(not run.ok for run in runs)
            by_folder.setdefault((os.path.dirname(path), missed), []).append(path)
        out: dict[str, tuple[str, list[SeenRun]]] = {}
        for (folder, _), paths in by_folder.items():
            how = "rw" if any(places[path][0] == "rw" for path in paths) else "r"
            wide = self._is_wide(folder) or self._forbidden(folder, how) is not None
            for path in paths:
                into = path if wide or len(paths) == 1 else folder
                its, runs = places[path]
                had = out.get(into)
                both = its if had is None else ("rw" if "rw" in (had[0], its) else "r")
                out[into] = (both, runs if had is None else _together(had[1], runs))
        inner = [
            p for p in out if any(p != q and is_below(p, q) and out[p][0] <= out[q][0] for q in out)
        ]
        return {path: found for path, found in out.items() if path not in inner}

    def _is_wide(self, folder: str) -> bool:
        if folder == self._home or is_below(self._folder, folder):
            return True
        return folder.count("/") < _SHALLOW

    def _shown(self, path: str) -> str:
        if path != self._folder and is_below(path, self._folder):
            return os.path.relpath(path, self._folder)
        return path


def _together(one: Sequence[SeenRun], other: Sequence[SeenRun]) -> list[SeenRun]:
    return sorted({run.id: run for run in (*one, *other)}.values(), key=lambda run: run.at_ms)


def _loads(field: str, what: str) -> bool:
    try:
        Permissions.model_validate({field: [what]})
    except ValueError:
        return False
    return True
