"""The world a source's sets are resolved in: this machine's disk and the checkouts on it.

Blocks; belongs to one thread. It reads set files and names, never a task's manifest.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicode_mcp.conditions import Condition
from dicode_mcp.protocols import Checkouts, GitAuth, GitRef
from dicode_mcp.sources.discovery import (
    MANIFEST,
    SET_FILES,
    Discovery,
    Limits,
    Scan,
    discover,
    scan,
)
from dicode_mcp.spec.files import read_text
from dicode_mcp.spec.giturl import short_url
from dicode_mcp.spec.problems import Problem, SpecError
from dicode_mcp.spec.taskset.documents import MAX_BYTES, RefAuth, TaskSetDoc, read_set
from dicode_mcp.spec.taskset.world import (
    Below,
    Hit,
    Lock,
    Remote,
    Spot,
    Tree,
    Trouble,
    What,
)

_RACY_NS = 100_000_000
_SAYS_SET = re.compile(rb"^(?:\xef\xbb\xbf)?kind:[ \t]*['\"]?TaskSet\b", re.MULTILINE)
_PEEK = 64 * 1024

FindLock = Callable[[Path], Lock | None]
"""Gives what the lock beside a set's file says of it, None when there is none; ``SpecError``."""


def no_locks(file: Path) -> Lock | None:
    """Find no lock anywhere."""
    return None


@dataclass(frozen=True, slots=True)
class Places:
    """What does not change while the server runs: who it is, where ``~`` is, what is on disk."""

    host: frozenset[str] = frozenset()
    home: Path = Path("/")
    checkouts: Checkouts | None = None
    find_lock: FindLock = no_locks
    limits: Limits = field(default_factory=Limits)
    scan: Scan = scan


@dataclass(frozen=True, slots=True)
class _Read:
    """A set file as it was read; ``stamp`` None: it may have changed within one clock tick."""

    stamp: tuple[int, ...] | None
    document: TaskSetDoc | SpecError


class SetFiles:
    """Remembers set files that did not change since they were read."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str], _Read] = {}

    def read(self, file: Path, shown: str, now_ns: int) -> TaskSetDoc:
        """Read a set's file; raises ``SpecError``."""
        stamp = stamp_of(file, now_ns)
        known = self._known.get((file, shown))
        if known is None or stamp is None or known.stamp != stamp:
            known = _Read(stamp, _read(file, shown))
            self._known[(file, shown)] = known
        if isinstance(known.document, SpecError):
            raise known.document
        return known.document

    def keep(self, files: frozenset[Path]) -> None:
        """Forget every other file."""
        self._known = {key: read for key, read in self._known.items() if key[0] in files}


def _read(file: Path, shown: str) -> TaskSetDoc | SpecError:
    try:
        return read_set(read_text(file, shown, max_bytes=MAX_BYTES), shown)
    except SpecError as error:
        return error


def stamp_of(file: Path, now_ns: int) -> tuple[int, ...] | None:
    """Give what changes when a file does; None when it may yet change within one clock tick."""
    try:
        info = file.lstat()
    except OSError:
        return None
    if info.st_ctime_ns > now_ns - _RACY_NS:
        return None
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode


class DiskWorld:
    """Answers what resolving asks, for one source and one moment."""

    def __init__(self, places: Places, files: SetFiles, *, dev: bool, now_ns: int) -> None:
        self._places = places
        self._files = files
        self._dev = dev
        self._now_ns = now_ns
        self.troubles: dict[Remote, Condition] = {}
        """Why repositories that were asked for are old or missing."""

    @property
    def dev(self) -> bool:
        """Whether the source is in dev mode."""
        return self._dev

    @property
    def host(self) -> frozenset[str]:
        """The names and labels of this server."""
        return self._places.host

    @property
    def home(self) -> Path:
        """What ``~`` means."""
        return self._places.home

    def look(self, path: Path, tree: Tree) -> Spot:
        """Say what is at a path; what leaves a confined tree by a link is nothing."""
        try:
            if tree.confined and not path.resolve().is_relative_to(tree.root.resolve()):
                return Spot(What.NOTHING, path, "a link leads out of the checkout")
            mode = path.stat().st_mode
        except FileNotFoundError:
            return Spot(What.NOTHING, path, "it does not exist")
        except (OSError, RuntimeError) as error:
            told = error.strerror if isinstance(error, OSError) else "links lead in a circle"
            return Spot(What.NOTHING, path, f"it cannot be read: {told}")
        return _folder_spot(path) if stat.S_ISDIR(mode) else _file_spot(path)

    def search(self, folder: Path, tree: Tree) -> Below:
        """Find every task and set folder below a folder."""
        found = discover(folder, limits=self._places.limits, scan=self._places.scan)
        return Below(_hits(found), found.unread, _problems(found))

    def read_set(self, file: Path, shown: str) -> TaskSetDoc:
        """Read a set's file; raises ``SpecError``."""
        return self._files.read(file, shown, self._now_ns)

    def checkout(self, remote: Remote) -> Tree | Trouble:
        """Give what is on disk of a repository."""
        checkouts = self._places.checkouts
        if checkouts is None:
            return Trouble("NotBuilt", "cannot be fetched: this server has no git", "use a path")
        ref = git_ref(remote, self._places.home)
        trouble = checkouts.trouble(ref)
        if trouble is not None:
            self.troubles[remote] = trouble
        revision = checkouts.current(ref)
        if revision is None:
            if trouble is None:
                return Trouble("NotFetched", "is not fetched yet; it is on its way")
            return Trouble(trouble.reason, f"could not be fetched: {trouble.message}")
        return Tree(
            revision.root,
            revision.commit,
            confined=True,
            own=False,
            remote=remote,
            shown=short_url(remote.url),
            trees=revision.trees,
        )

    def lock(self, file: Path) -> Lock | None:
        """Give what the lock beside a set's file says of it; raises ``SpecError``."""
        return self._places.find_lock(file)


def git_ref(remote: Remote, home: Path) -> GitRef:
    """Give the ref to fetch for what an entry names; credentials only for what is trusted."""
    return GitRef(
        url=remote.url,
        branch=remote.branch,
        tag=remote.tag,
        commit=remote.commit,
        auth=_auth(remote.auth, home) if remote.auth and remote.trusted else None,
        poll_interval_s=remote.poll_interval_s,
        trusted=remote.trusted,
    )


def _auth(auth: RefAuth, home: Path) -> GitAuth:
    def place(text: str | None) -> str | None:
        return str(home / text[2:]) if text and text.startswith("~/") else text

    return GitAuth(
        auth.token_env,
        place(auth.ssh_key),
        auth.username,
        auth.host_keys,
        place(auth.known_hosts),
    )


def _folder_spot(folder: Path) -> Spot:
    for name in SET_FILES:
        if (folder / name).exists():
            return Spot(What.SET, folder / name)
    manifest = folder / MANIFEST
    if not os.path.lexists(manifest):
        return Spot(What.FOLDER, folder)
    return Spot(What.SET, manifest) if _says_set(manifest) else Spot(What.TASK, folder)


def _file_spot(file: Path) -> Spot:
    if file.name == MANIFEST and not _says_set(file):
        return Spot(What.TASK, file.parent)
    if file.suffix in (".yaml", ".yml"):
        return Spot(What.SET, file)
    return Spot(What.NOTHING, file, "it is neither a folder nor a task.yaml nor a set's file")


def _says_set(manifest: Path) -> bool:
    """Tell whether a ``task.yaml`` is a set after all: its kind says so, not its name."""
    try:
        with manifest.open("rb", buffering=0) as file:
            return _SAYS_SET.search(file.read(_PEEK)) is not None
    except OSError:
        return False


def _hits(found: Discovery) -> tuple[Hit, ...]:
    return tuple(
        Hit(
            hit.id,
            hit.folder,
            hit.is_set,
            Problem(str(hit.trouble.path), 0, 0, "", hit.trouble.message, hit.trouble.hint)
            if hit.trouble
            else None,
        )
        for hit in found.found
    )


def _problems(found: Discovery) -> tuple[Problem, ...]:
    return tuple(Problem(str(t.path), 0, 0, "", t.message, t.hint) for t in found.troubles)


def shown_troubles(troubles: Mapping[Remote, Condition]) -> str:
    """Write the troubles of repositories, one on a line."""
    told = {f"{short_url(remote.url)}: {found.message}" for remote, found in troubles.items()}
    return "\n".join(sorted(told))


def set_file(start: Path) -> Path | None:
    """Give the file of the set that a source begins with at ``start``, if it is one. Blocks."""
    try:
        mode = start.stat().st_mode
    except OSError:
        return None
    spot = _folder_spot(start) if stat.S_ISDIR(mode) else _file_spot(start)
    return spot.path if spot.what is What.SET else None
