"""What a gate tells of: each thing once, and no more than a reader can use."""

from __future__ import annotations

import json
from collections.abc import Callable

from dicode_mcp.runs.logs import MARK, Level

MOST = 20
_MOST_BLOCKED = 5
_MOST_NAMES = 8

Tell = Callable[[str], None]
"""Takes one line as a task's SDK would write it."""


class Refusals:
    """Collects what one run was refused."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told: set[str] = set()
        self._wanted: list[str] = []
        self._names: set[str] = set()
        self._muted = False

    @property
    def wanted(self) -> tuple[str, ...]:
        """The rules that would have let the refused through, the first few."""
        return tuple(self._wanted)

    def mute(self) -> None:
        """Tell nothing from now on: the log is closed."""
        self._muted = True

    def blocked(self, place: str, rule: str | None, why: str = "") -> None:
        """Tell that a connection to ``place`` was refused, and the rule that would allow it."""
        reason = f" ({why})" if why else ""
        remedy = f' - add to task.yaml: permissions.net: ["{rule}"]' if rule else ""
        if self.say(Level.SECURITY, f"blocked: connect {place}{reason}{remedy}") and rule:
            if len(self._wanted) < _MOST_BLOCKED:
                self._wanted.append(rule)

    def no_name(self, name: str) -> None:
        """Tell that a name is not there; only of a few, so that other things are told too."""
        if name in self._names or len(self._names) < _MOST_NAMES:
            self._names.add(name)
            self.blocked(name, name)

    def say(self, level: Level, text: str) -> bool:
        """Write a line unless it was written before; tells whether it is new."""
        if self._muted or text in self._told or len(self._told) > MOST:
            return False
        self._told.add(text)
        if len(self._told) > MOST:
            text = "further refusals and failures of the network are not told"
        self._tell(MARK + json.dumps({"l": level.label, "m": text}))
        return True
