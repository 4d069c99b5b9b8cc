"""Log lines as values, and the reading of what a task wrote to its standard streams.

The SDK inside a task marks its own lines with an ASCII record separator so that ``print`` and
``log.*`` keep their order on one pipe; all else is ``info`` on stdout and ``warn`` on stderr.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, cast

MARK = "\x1e"
MAX_LINE_BYTES = 64 * 1024
TRUNCATED = " … [line cut at 64 KiB]"

Stream = Literal["stdout", "stderr"]


class Level(IntEnum):
    """Severity; a filter on a level shows that level and above."""

    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    SECURITY = 50

    @property
    def label(self) -> str:
        """The level as surfaces write it: ``debug info warn error security``."""
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> Level:
        """Read a label; raises ``ValueError`` for an unknown one."""
        try:
            return cls[label.upper()]
        except KeyError:
            raise ValueError(f"unknown log level {label!r}") from None


_LABELS = frozenset(level.label for level in Level)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run's log. ``seq`` counts from 1 within the run; ``ts_ms`` is epoch ms."""

    seq: int
    ts_ms: int
    level: Level
    message: str


def read_line(stream: Stream, text: str) -> tuple[Level, str]:
    """Tell the level and message of one line a task wrote (without its line end)."""
    if text.startswith(MARK):
        try:
            parsed: Any = json.loads(text[1:])
        except ValueError:
            parsed = None
        if isinstance(parsed, dict):
            record = cast("dict[str, Any]", parsed)
            label, message = record.get("l"), record.get("m")
            if label in _LABELS and isinstance(message, str):
                return Level.parse(label), message
    return (Level.INFO if stream == "stdout" else Level.WARN), text
