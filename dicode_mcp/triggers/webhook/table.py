"""Which task a request's path belongs to: the exact path, else the longest one above it.

Made from the registry, anew when another version of some task is in force. A path that two tasks
declare is the first owner's; the registry decides that and tells it as a condition.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicode_mcp.registry import Registry
from dicode_mcp.spec.model import Task
from dicode_mcp.triggers.webhook.keys import HookKeys

PREFIX = "/hooks/"
MAX_PATH = 2048


@dataclass(frozen=True, slots=True)
class Match:
    """A webhook that a path belongs to.

    ``path`` is as its task declares it; ``rest`` is what follows it in the request: empty, ``/``,
    or ``/`` and segments, none of which is empty, ``.`` or ``..``; a last ``/`` may end it.
    """

    task: Task
    path: str
    rest: str = ""
    served: bool = True
    """Whether it may start its task. False when the secret it declares is not there."""


class HookTable:
    """Webhooks by path."""

    def __init__(self, registry: Registry, keys: HookKeys) -> None:
        self._registry = registry
        self._keys = keys
        self._generation: int | None = None
        self._hooks: dict[str, Match] = {}

    def find(self, path: str) -> Match | None:
        """Give the webhook of a decoded path; None when there is none, or the path is odd."""
        if not is_plain(path):
            return None
        hooks = self._current()
        end = len(path)
        while end >= len(PREFIX):
            found = hooks.get(path[:end])
            if found is not None:
                served = self._keys.served(found.task)
                return Match(found.task, found.path, path[end:], served)
            end = path.rfind("/", 0, end)
        return None

    def _current(self) -> dict[str, Match]:
        generation = self._registry.generation
        if generation != self._generation:
            self._hooks = dict(self._read())
            self._generation = generation
        return self._hooks

    def _read(self) -> list[tuple[str, Match]]:
        found: list[tuple[str, Match]] = []
        for path, task_id in self._registry.webhooks().items():
            entry = self._registry.get(task_id)
            # The version in force, which after a broken save or an unapproved one is an older one.
            if entry is not None and entry.task is not None:
                found.append((path, Match(entry.task, path)))
        return found


def is_plain(path: str) -> bool:
    """Tell whether a decoded path is one that every reader of it reads alike."""
    if not path.startswith(PREFIX) or len(path) > MAX_PATH:
        return False
    # A "%" is left only when something was encoded twice.
    if any(odd in path for odd in ("\\", "%", "\ufffd")) or not path.isprintable():
        return False
    parts = path[1:].split("/")
    if any(part in (".", "..") for part in parts):
        return False
    return "" not in parts[:-1]
