"""A folder or a set's file on this machine as a source: read in place, watched meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import Revision
from dicode_mcp.sources.watch import Batch, Watch, open_folder


class LocalSource:
    """The tasks below ``path``, or of the set that it names. It may come and go meanwhile.

    A path that ends in ``.yaml`` is a set's file: of its folder, only what lies in it directly is
    watched, since the set says what else counts.
    ``namespace`` stands before its ids: the name, when the user gave one, else nothing.
    """

    def __init__(
        self, name: str, path: Path, *, namespace: str = "", watch: Watch | None = None
    ) -> None:
        self._name = name
        self._namespace = namespace
        self._path = path.absolute()
        self._is_file = path.suffix in (".yaml", ".yml")
        self._folder = self._path.parent if self._is_file else self._path
        self._watch = watch or Watch(self._folder, open_folder if self._is_file else None)

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
        """The folder, or the set's file."""
        return str(self._path)

    @property
    def namespace(self) -> str:
        """What ids begin with."""
        return self._namespace

    async def fetch(self) -> Revision:
        """Give the folder itself; raises ``DicodeError`` when it cannot be listed now."""
        try:
            await asyncio.to_thread(_touch, self._path, self._is_file)
        except FileNotFoundError:
            raise self._error(
                "does not exist",
                f"create the {self._noun} or correct the source's path;"
                " it is picked up when it appears",
            ) from None
        except NotADirectoryError:
            hint = "point the source at a folder, or at a set's file"
            raise self._error(f"is not a {self._noun}", hint) from None
        except OSError as error:
            raise self._error(
                f"cannot be read: {error.strerror}", "give the server's user read access"
            ) from error
        return Revision(self._name, self._folder, start=self._path.name if self._is_file else "")

    def changes(self) -> AsyncGenerator[Batch, None]:
        """Give the changed paths; None first, and whenever anything may have changed."""
        return self._watch.batches()

    def conditions(self) -> tuple[Condition, ...]:
        """Say when the folder is looked at on a timer because it cannot be watched."""
        if not self._watch.limit:
            return ()
        return (Condition(ConditionType.WATCHED, False, "Polling", self._watch.limit),)

    @property
    def _noun(self) -> str:
        return "file" if self._is_file else "folder"

    def _error(self, what: str, hint: str) -> DicodeError:
        return DicodeError(
            Code.SOURCE_NOT_FOUND,
            f"source {self._name!r}: the {self._noun} {self._path} {what}",
            hint=hint,
            retry=Retry.BACKOFF,
        )


def _touch(path: Path, is_file: bool) -> None:
    if is_file:
        with path.open("rb", buffering=0) as file:
            file.read(1)
        return
    with os.scandir(path) as entries:
        next(entries, None)
