"""A server as a process, as the tests see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RealServer:
    """Where it answers."""

    url: str
    data_dir: Path
