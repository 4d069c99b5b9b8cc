"""A work tree as a source: its files as they are edited, from where its tasks begin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dicode_mcp.errors import DicodeError
from dicode_mcp.protocols import Revision
from dicode_mcp.sources.local import LocalSource


class WorkTreeSource(LocalSource):
    """The work tree at ``top``, watched whole; ``start`` is a folder or a set's file in it."""

    def __init__(self, name: str, top: Path, start: str = "") -> None:
        super().__init__(name, top)
        self._top = top
        self._start = start

    @property
    def location(self) -> str:
        """Where its tasks begin."""
        return str(self._top / self._start)

    async def fetch(self) -> Revision:
        """Give the work tree; raises ``DicodeError`` when it is not there any more."""
        try:
            return replace(await super().fetch(), start=self._start)
        except DicodeError as error:
            hint = "switch dev mode on with that branch again, which makes the clone anew"
            raise DicodeError(error.code, error.message, hint=hint, retry=error.retry) from error
