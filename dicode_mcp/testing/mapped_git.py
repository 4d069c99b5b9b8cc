"""The server's own checkouts behind a map from public URLs to a test's: no test goes outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from dicode_mcp.clock import Clock
from dicode_mcp.protocols import GitRef
from dicode_mcp.sources.git.checkouts import GitCheckouts
from dicode_mcp.sources.git.mirrors import Mirror
from dicode_mcp.sources.git.target import Target


def mapped_git(urls: Mapping[str, str]) -> type[GitCheckouts]:
    """Give the class to put in the place of ``GitCheckouts``; an unknown URL is an error."""

    class Mapped(GitCheckouts):
        def __init__(
            self,
            data_dir: Path,
            *,
            environ: Mapping[str, str],
            clock: Clock,
            random: Random,
            allow_local: bool = False,
        ) -> None:
            super().__init__(
                data_dir, environ=environ, clock=clock, random=random, allow_local=True
            )

        def _target(self, ref: GitRef) -> tuple[Mirror, Target]:
            # the credentials of an example are not the fixture's
            here = replace(ref, url=urls[ref.url], auth=None, trusted=True)
            return super()._target(here)

        async def push_hint(self, url: str) -> int:
            """Pull a URL."""
            return await super().push_hint(urls[url])

    return Mapped
