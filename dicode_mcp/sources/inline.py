"""A set that the server already holds as a source: a folder to be relative to, never fetched.

What the entries say is not its matter. They are read once, when the server starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

from dicode_mcp.conditions import Condition
from dicode_mcp.protocols import Revision


class InlineSource:
    """The entries of ``file``; their refs are relative to its folder."""

    def __init__(self, file: Path, name: str | None = None) -> None:
        self._file = file
        self._name = name or file.name

    @property
    def name(self) -> str:
        """The name given, else the file's."""
        return self._name

    @property
    def kind(self) -> Literal["local", "git"]:
        """Always ``local``."""
        return "local"

    @property
    def location(self) -> str:
        """The file."""
        return str(self._file)

    @property
    def namespace(self) -> str:
        """What ids begin with: the file's name without its ending."""
        return self._file.stem

    async def fetch(self) -> Revision:
        """Give the file's folder."""
        return Revision(self.name, self._file.parent)

    async def changes(self) -> AsyncGenerator[frozenset[Path] | None, None]:
        """Wait: what the entries lead to is watched by whoever follows them."""
        await asyncio.Event().wait()
        yield None

    def conditions(self) -> tuple[Condition, ...]:
        """Nothing can be wrong with it by itself."""
        return ()
