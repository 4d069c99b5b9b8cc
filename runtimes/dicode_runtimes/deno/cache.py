"""The server's own folder for Deno: its module cache, and what was learned of scripts, on disk.

Tasks never write here. Everything in it can be made again; losing it costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.protocols import Prepared
from dicode_mcp.spec.model import Task
from dicode_runtimes.deno.graph import External, Graph

_MOST_GRAPHS = 50_000


class DenoCache:
    """Notes below ``folder``, by a task's digest. ``identity`` names program and registry."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity
        self._graphs: dict[str, Graph] = {}

    @property
    def modules(self) -> Path:
        """``DENO_DIR``: packages, remote modules, compiled code."""
        return self._folder / "modules"

    def graph(self, task: Task) -> Graph | None:
        """Give what is known of a script."""
        key = self._key(task)
        known = self._graphs.get(key)
        if known is None and (raw := self._read("graphs", key)) is not None:
            with contextlib.suppress(KeyError, TypeError):
                known = _graph_of(raw)
                self._graphs[key] = known
        return known

    def keep_graph(self, task: Task, graph: Graph) -> None:
        """Note a script's graph; on disk only when the task's digest covers all of it."""
        key = self._key(task)
        if len(self._graphs) >= _MOST_GRAPHS:
            self._graphs.pop(next(iter(self._graphs)))
        self._graphs[key] = graph
        if graph.inside:
            self._write("graphs", key, asdict(graph))

    def prepared(self, task: Task) -> Prepared | None:
        """Give what preparing the task came to."""
        raw = self._read("prepared", self._key(task))
        if raw is None:
            return None
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return Prepared(tuple(_condition_of(each) for each in raw["conditions"]))
        return None

    def keep_prepared(self, task: Task, prepared: Prepared) -> None:
        """Note a preparation that is done."""
        conditions = [
            {"type": c.type.value, "status": c.status, "reason": c.reason, "message": c.message}
            for c in prepared.conditions
        ]
        self._write("prepared", self._key(task), {"conditions": conditions})

    def _key(self, task: Task) -> str:
        text = f"{self._identity}\0{task.digest}\0{task.folder}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def _read(self, kind: str, key: str) -> dict[str, Any] | None:
        try:
            raw: Any = json.loads(self._path(kind, key).read_bytes())
        except (OSError, ValueError):
            return None
        return cast("dict[str, Any]", raw) if isinstance(raw, dict) else None

    def _write(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        path = self._path(kind, key)
        new = path.with_suffix(f".{os.getpid()}")
        # A note that cannot be kept is found out again after a restart.
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_text(json.dumps(value))
            new.replace(path)

    def _path(self, kind: str, key: str) -> Path:
        return self._folder / kind / key[:2] / f"{key}.json"


def _graph_of(raw: Mapping[str, Any]) -> Graph:
    external = tuple(External(e["specifier"], e["file"], e["line"]) for e in raw["external"])
    return Graph(tuple(raw["problems"]), external, bool(raw["inside"]))


def _condition_of(raw: Mapping[str, Any]) -> Condition:
    return Condition(
        ConditionType(raw["type"]), bool(raw["status"]), str(raw["reason"]), str(raw["message"])
    )
