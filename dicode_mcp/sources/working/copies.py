"""The server's side of git work trees: starts the helper, gives it its time, reads its answer.

It imports no git library.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from dicode_mcp import children
from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import GitRef
from dicode_mcp.sources.git.access import access_to, bounds_of
from dicode_mcp.sources.git.failures import GitError
from dicode_mcp.sources.git.jobs import Access
from dicode_mcp.sources.git.remote import Reach, reach_of
from dicode_mcp.sources.working.model import (
    Answer,
    Clone,
    CloneOrder,
    CommitOrder,
    Committed,
    Order,
)
from dicode_mcp.sources.working.wire import ANSWER, ORDER

WAIT_S = 300.0
_MAX_ANSWER = 64 * 2**20
_PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""What the helper needs of the server's environment; tokens go over its standard input."""


class WorkingCopies:
    """Clones below ``<data>/dev``, and commits in any work tree of this machine."""

    def __init__(
        self,
        data_dir: Path,
        environ: Mapping[str, str],
        *,
        allow_local: bool = False,
        wait_s: float = WAIT_S,
    ) -> None:
        self._root = data_dir / "dev"
        self._allow_local = allow_local
        self._environ = dict(environ)
        self._wait_s = wait_s

    def folder_of(self, source: str, branch: str) -> Path:
        """Give where the clone of a source's branch is, made or not."""
        return self._root / quote(source, safe="") / quote(branch, safe="")

    def remote_of(self, ref: GitRef) -> Access:
        """Give how to reach a source's remote, with its token, read now. Raises ``DicodeError``."""
        try:
            return access_to(ref, self._environ, allow_local=self._allow_local)
        except GitError as error:
            raise error.failure.error() from error

    @property
    def reach(self) -> Reach:
        """How far the ``origin`` of a work tree on this machine may lead."""
        return reach_of(trusted=True, allow_local=self._allow_local)

    async def open_branch(self, source: str, ref: GitRef, branch: str) -> Clone:
        """Give a work tree of ``branch``: made, or brought up to date where nobody edited it.

        A branch that the remote lacks begins at the branch of ``ref``. Raises ``DicodeError``.
        """
        folder = self.folder_of(source, branch)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = CloneOrder(
            folder=str(folder),
            remote=self.remote_of(ref),
            branch=branch,
            base=ref.branch,
            bounds=bounds_of(ref.limits),
        )
        answer = _good(await self._ask(Order(clone=order)))
        assert answer.clone is not None
        return answer.clone

    async def commit(self, order: CommitOrder) -> Committed:
        """Commit, and push when asked. Raises ``DicodeError``; a commit stays when a push fails."""
        answer = _good(await self._ask(Order(commit=order)))
        assert answer.commit is not None
        return answer.commit

    async def _ask(self, order: Order) -> Answer:
        return ANSWER.validate_json(await self._run(ORDER.dump_json(order)))

    async def _run(self, text: bytes) -> bytes:
        process = await children.start(
            sys.executable,
            "-m",
            "dicode_mcp.sources.working.helper",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: self._environ[name] for name in _PASSED if name in self._environ},
            cwd="/",
            # A group of its own, so that an ssh it started ends with it.
            start_new_session=True,
            limit=_MAX_ANSWER,
        )
        try:
            async with asyncio.timeout(self._wait_s):
                out, _ = await process.communicate(text)
        except TimeoutError:
            raise DicodeError(
                Code.UNREACHABLE,
                f"git did not finish within {self._wait_s:g} s",
                hint="try again; list_sources shows whether the source can be fetched",
                retry=Retry.BACKOFF,
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await children.waited(process)
        if process.returncode != 0:
            raise DicodeError(
                Code.INTERNAL, "git work ended early", hint="the server's log has more"
            )
        return out


def _good(answer: Answer) -> Answer:
    error = answer.error
    if error is None:
        return answer
    raise DicodeError(
        Code(error["code"]),
        error["message"],
        hint=error.get("hint"),
        data=error.get("data"),
        retry=Retry(error["retry"]),
    )
