"""A folder watched for as long as someone listens: through its deletion, its return and limits.

Gives changed paths and knows not what they mean. ``Tree`` does the watching on Linux, watchfiles
elsewhere; where neither can, a timer says "look at everything".
"""

from __future__ import annotations

import asyncio
import errno
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from watchfiles._rust_notify import RustNotify  # documented, though its module's name is private

from dicode_mcp.sources.discovery import is_ignored
from dicode_mcp.sources.inotify import Tree, TreeLost, identity

MISSING_S = 0.2
"""How often a missing root is looked for."""
POLL_S = 2.0
"""How often everything is looked at when nothing can be watched."""
REOPEN_S = 60.0
"""How often watching is tried again after a limit."""
_IDLE_S = 1.0
_FOLDERS = 50_000

Batch = frozenset[Path] | None
"""Changed paths, or None: anything may have changed."""


class Engine(Protocol):
    """Watches one tree from one thread; see ``inotify.Tree``."""

    def wait(self, timeout: float) -> frozenset[Path] | None:
        """Give the next batch, empty after ``timeout`` seconds, None once stopped."""
        ...

    def stop(self) -> None:
        """Make ``wait`` return None soon, from any thread."""
        ...

    def close(self) -> None:
        """Let go of what the system holds."""
        ...


class Watch:
    """Watches ``root``. ``limit`` is a sentence while it can only look on a timer, else empty."""

    def __init__(self, root: Path, open_engine: Callable[[Path], Engine] | None = None) -> None:
        self._root = root
        self._open = open_engine or open_tree
        self.limit = ""

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Give what changed, beginning with None once watching has begun."""
        while True:
            try:
                engine = await asyncio.to_thread(self._open, self._root)
            except (FileNotFoundError, NotADirectoryError):
                await asyncio.sleep(MISSING_S)
            except (OSError, RuntimeError) as error:
                self.limit = _limit(error)
                for _ in range(round(REOPEN_S / POLL_S)):
                    yield None
                    await asyncio.sleep(POLL_S)
            else:
                self.limit = ""
                async with _pumped(engine) as queue:
                    # What happened before the watch stood is not known, so first: anything.
                    yield None
                    while (batch := await queue.get()) is not None:
                        yield batch
                yield None


@asynccontextmanager
async def _pumped(
    engine: Engine,
) -> AsyncGenerator[asyncio.Queue[frozenset[Path] | None], None]:
    """Run the engine in its thread while the block lasts; None in the queue: the tree is lost."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[frozenset[Path] | None] = asyncio.Queue()

    def pump() -> None:
        try:
            while (batch := engine.wait(_IDLE_S)) is not None:
                if batch:
                    loop.call_soon_threadsafe(queue.put_nowait, batch)
        except (TreeLost, OSError, RuntimeError):
            # RuntimeError also when the loop has closed: then nobody listens either.
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, None)

    thread = threading.Thread(target=pump, name="dicode-watch", daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        engine.stop()
        # Its wait ends within a millisecond; only a dead network disk can hold it longer, and
        # then its descriptors must stay open, since the thread may yet use them.
        thread.join(1.0)
        if not thread.is_alive():
            engine.close()


def _limit(error: OSError | RuntimeError) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (
        f"the folder cannot be watched ({said}); it is looked at every {POLL_S:g} s instead. "
        + (
            "Raise the kernel's fs.inotify.max_user_watches and fs.inotify.max_user_instances."
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EMFILE)
            else "Mend what is named; watching is tried again every minute."
        )
    )


def open_tree(root: Path) -> Engine:
    """Begin to watch ``root`` with the best means of this system; raises ``OSError``."""
    if sys.platform == "linux":
        return Tree(root, lambda name, folder: is_ignored(name, folder=folder), folders=_FOLDERS)
    return WatchfilesTree(root)


def open_folder(root: Path) -> Engine:
    """Begin to watch what lies in ``root`` itself, not what lies deeper; raises ``OSError``."""
    if sys.platform == "linux":
        return Tree(root, lambda name, folder: folder or is_ignored(name), folders=_FOLDERS)
    return WatchfilesTree(root, deep=False)


class WatchfilesTree:
    """The same by watchfiles: FSEvents on macOS."""

    def __init__(self, root: Path, *, deep: bool = True) -> None:
        if not root.is_dir():
            raise FileNotFoundError(root)
        self._root = root
        self._identity = identity(root)
        self._stopped = threading.Event()
        # Events carry resolved paths on macOS, where /tmp is a link.
        self._real = root.resolve()
        self._notify = RustNotify([str(root)], False, False, 300, deep, True)

    def wait(self, timeout: float) -> frozenset[Path] | None:
        """Give the next batch; raises ``TreeLost`` when the root is another folder than before."""
        found = self._notify.watch(50, 5, round(timeout * 1000), self._stopped)
        if identity(self._root) != self._identity:
            raise TreeLost
        if found in ("stop", "signal"):
            return None
        if isinstance(found, str):
            return frozenset()
        return frozenset(path for _, text in found if self._matters(path := self._own(Path(text))))

    def stop(self) -> None:
        """Make ``wait`` return None at its next step."""
        self._stopped.set()

    def close(self) -> None:
        """End the backend's thread."""
        self._notify.close()

    def _own(self, path: Path) -> Path:
        if path.is_relative_to(self._root) or not path.is_relative_to(self._real):
            return path
        return self._root / path.relative_to(self._real)

    def _matters(self, path: Path) -> bool:
        if path == self._root or not path.is_relative_to(self._root):
            return True
        parts = path.relative_to(self._root).parts
        return not (is_ignored(parts[-1]) or any(is_ignored(p, folder=True) for p in parts))
