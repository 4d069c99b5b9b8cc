"""A folder on this machine as a source: read in place, watched while the server runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import Revision
from dicode_mcp.sources.watch import Batch, Watch


class LocalSource:
    """The tasks below ``path``. The folder may come and go while the server runs.

    ``namespace`` stands before its ids: the name, when the user gave one, else nothing.
    """

    def __init__(
        self, name: str, path: Path, *, namespace: str = "", watch: Watch | None = None
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._path = path.absolute()
        self._watch = watch or Watch(self._path)

    @property
    def name(self) -> str:
        """The source's name."""
        return self._name

    @property
    def kind(self) -> Literal["local", "git"]:
        """Always ``local``."""
        return "local"

    @property
    def location(self) -> str:
        """The folder."""
        return str(self._path)

    @property
    def namespace(self) -> str:
        """What ids begin with."""
        return self._namespace

    async def fetch(self) -> Revision:
        """Give the folder itself; raises ``DicodeError`` when it cannot be listed now."""
        try:
            await asyncio.to_thread(_touch, self._path)
        except FileNotFoundError:
            raise self._error(
                "does not exist",
                "create the folder or correct the source's path; it is picked up when it appears",
            ) from None
        except NotADirectoryError:
            raise self._error("is not a folder", "point the source at a folder") from None
        except OSError as error:
            raise self._error(
                f"cannot be read: {error.strerror}", "give the server's user read access"
            ) from error
        return Revision(self._name, self._path)

    def changes(self) -> AsyncGenerator[Batch, None]:
        """Give the changed paths; None first, and whenever anything may have changed."""
        return self._watch.batches()

    def conditions(self) -> tuple[Condition, ...]:
        """Say when the folder is looked at on a timer because it cannot be watched."""
        if not self._watch.limit:
            return ()
        return (Condition(ConditionType.WATCHED, False, "Polling", self._watch.limit),)

    def _error(self, what: str, hint: str) -> DicodeError:
        return DicodeError(
            Code.SOURCE_NOT_FOUND,
            f"source {self._name!r}: the folder {self._path} {what}",
            hint=hint,
            retry=Retry.BACKOFF,
        )


def _touch(folder: Path) -> None:
    with os.scandir(folder) as entries:
        next(entries, None)
