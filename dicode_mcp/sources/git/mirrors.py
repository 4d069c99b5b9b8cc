"""A mirror as the server knows it, and one pull of one ref by the worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from dicode_mcp.protocols import GitRef
from dicode_mcp.sources.git.access import access_to, bounds_of, want_of
from dicode_mcp.sources.git.failures import GitError
from dicode_mcp.sources.git.index import index_path
from dicode_mcp.sources.git.jobs import Access, Answer, Job, Op, Want
from dicode_mcp.sources.git.process import GitWorker
from dicode_mcp.sources.git.remote import Reach, parse
from dicode_mcp.sources.git.state import State, read_state, write_state
from dicode_mcp.sources.git.target import MirrorKey, Target


@dataclass(slots=True)
class Mirror:
    """The files of one URL, and its refs. ``lock`` is held by whoever writes below its folders."""

    key: MirrorKey
    folder: Path
    checkouts: Path
    stored: State
    targets: dict[Want, Target] = field(default_factory=dict[Want, Target])
    commits: dict[str, str] = field(default_factory=dict[str, str])
    """The tree of each commit with a checkout."""
    given: dict[str, float] = field(default_factory=dict[str, float])
    """When each tree was last handed out (monotonic)."""
    at_once: bool = False
    """The remote may be asked for a ref without asking first how it speaks."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def open(cls, key: MirrorKey, folder: Path, checkouts: Path) -> Mirror:
        """Read what is known of a mirror; reads one small file."""
        stored = read_state(folder)
        with suppress(OSError):
            # Says that it was named: what nobody has named for long is removed.
            os.utime(folder / "state.json")
        return cls(key, folder, checkouts, stored, commits=dict(stored.commits))

    def target(self, ref: GitRef) -> Target:
        """Give the target of a ref."""
        want = want_of(ref)
        target = self.targets.get(want)
        if target is None:
            target = self.targets[want] = Target(ref, known=self.stored.refs.get(str(want)))
        target.widen(ref.limits)
        return target

    def has(self, tree: str) -> bool:
        """Tell whether the checkout of a tree is there, whole."""
        root = self.checkouts / tree
        return root.is_dir() and index_path(root).is_file()

    def remember(self, target: Target) -> None:
        """Note which tree the commit of a target has."""
        if target.known is not None:
            self.commits[target.known.good.commit] = target.known.good.tree

    def store(self) -> None:
        """Remember what is known over restarts. Blocks; failing to only costs a fetch then."""
        refs = dict(self.stored.refs)
        known = {str(want): target.known for want, target in list(self.targets.items())}
        refs |= {name: found for name, found in known.items() if found is not None}
        url = parse(self.key.url).shown
        self.stored = State(url, refs, dict(self.commits))
        with suppress(OSError):
            write_state(self.folder, self.stored)

    def forget_unnamed(self) -> None:
        """Forget the refs that nobody has named since the start."""
        named = {str(want) for want in list(self.targets)}
        refs = {name: known for name, known in self.stored.refs.items() if name in named}
        self.stored = replace(self.stored, refs=refs)

    def needed(self, kept: frozenset[str], young: float) -> frozenset[str]:
        """Give the trees that stay: the newest of each ref, the kept, those just handed out."""
        newest = {known.good.tree for known in self.stored.refs.values()}
        newest |= {t.known.good.tree for t in list(self.targets.values()) if t.known}
        used = {tree for commit, tree in self.commits.items() if kept & {commit, tree}}
        recent = {tree for tree, at in list(self.given.items()) if at > young}
        return frozenset(newest | used | recent)

    def forget_removed(self, keep: Collection[str]) -> None:
        """Forget the commits and times of trees that are not there any more."""
        self.commits = {c: tree for c, tree in self.commits.items() if tree in keep}
        self.given = {tree: at for tree, at in list(self.given.items()) if tree in keep}


class Puller:
    """Has the worker ask and fetch. ``environ`` holds the tokens that refs name."""

    def __init__(self, worker: GitWorker, environ: Mapping[str, str], *, allow_local: bool) -> None:
        self._worker = worker
        self._environ = environ
        self._allow_local = allow_local

    async def pull(self, mirror: Mirror, target: Target, *, fetch: bool) -> Answer:
        """Give what a ref is now, its tree on disk; without ``fetch`` the remote is asked first.

        A failure with a ``tip`` is of that commit alone.
        """
        await self._restore(mirror, target)
        if target.want.kind == "commit" and self._there(mirror, target):
            return _unchanged(target)
        try:
            access = access_to(target.ref, self._environ, allow_local=self._allow_local)
        except GitError as error:
            return Answer(failure=error.failure)
        tip = None
        if not fetch:
            asked = await self._worker.do(self._job("ask", mirror, target, access))
            tip, mirror.at_once = asked.tip, asked.at_once
            if asked.failure is not None:
                return asked
            if target.known and tip == target.known.tip and self._there(mirror, target):
                return _unchanged(target)
            if target.refused and tip == target.refused[0]:
                return Answer(target.refused[1], tip)
        answer = await self._write("fetch", mirror, target, access)
        return Answer(answer.failure, answer.tip or tip, answer.good)

    async def settle(self, mirror: Mirror, target: Target) -> bool:
        """Wait until what was fetched is on the disk; tells whether it is."""
        nobody = Access(mirror.key.url, Reach.PUBLIC)
        return (await self._write("settle", mirror, target, nobody)).failure is None

    async def _restore(self, mirror: Mirror, target: Target) -> None:
        """Write a known checkout again that is gone; the mirror may have all it takes."""
        if target.known is None or self._there(mirror, target):
            return
        nobody = Access(mirror.key.url, Reach.PUBLIC)
        answer = await self._write("restore", mirror, target, nobody)
        if answer.good is None:
            target.known = None

    async def _write(self, op: Op, mirror: Mirror, target: Target, access: Access) -> Answer:
        mirror.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with mirror.lock:
            return await self._worker.do(self._job(op, mirror, target, access))

    def _job(
        self,
        op: Op,
        mirror: Mirror,
        target: Target,
        access: Access,
    ) -> Job:
        want = target.want
        if op == "restore" and target.known:
            want = Want("commit", target.known.good.commit)
        return Job(
            op=op,
            access=access,
            want=want,
            bounds=bounds_of(target.ref.limits),
            mirror=str(mirror.folder / "mirror.git"),
            checkouts=str(mirror.checkouts),
            base=_base(mirror, target),
            depth=target.ref.depth,
            at_once=mirror.at_once,
        )

    @staticmethod
    def _there(mirror: Mirror, target: Target) -> bool:
        return target.known is not None and mirror.has(target.known.good.tree)


def _unchanged(target: Target) -> Answer:
    assert target.known is not None
    return Answer(tip=target.known.tip, good=target.known.good)


def _base(mirror: Mirror, target: Target) -> str | None:
    """Give the checkout that a new one shares most with: the ref's own, else any of the mirror."""
    known = [target.known, *(other.known for other in list(mirror.targets.values()))]
    trees = [one.good.tree for one in known if one is not None]
    return next((tree for tree in trees if mirror.has(tree)), None)
