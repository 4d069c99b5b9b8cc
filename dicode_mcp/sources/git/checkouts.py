"""What is on disk of git repositories, and the polls that keep it new: one for a server.

Each URL (as somebody may see it) has a bare mirror and its checkouts; each ref has one poll while
anyone watches it. A good revision is never taken away because a newer one is bad.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from random import Random

from dicode_mcp.clock import Clock
from dicode_mcp.conditions import Condition
from dicode_mcp.protocols import Commit, GitRef, Revision
from dicode_mcp.sources.git.collect import WORKER, clean, collect, collect_forgotten
from dicode_mcp.sources.git.failures import Failure, Reason
from dicode_mcp.sources.git.index import TreeIds
from dicode_mcp.sources.git.mirrors import Mirror, Puller
from dicode_mcp.sources.git.process import GitWorker
from dicode_mcp.sources.git.target import MirrorKey, Target, mirror_key

_log = logging.getLogger("dicode.git")

_GRACE_S = 120.0
"""How long a checkout stays after it was handed out, until its user says that it is in use."""
_COLLECT_S = 300.0
_FORGET_S = 3600.0
"""How long after the start a ref of an earlier time may still be named again."""
_PAUSE_S = 5.0


class GitCheckouts:
    """All mirrors below ``<data>/git``, all checkouts below ``<data>/checkouts``.

    Nothing is fetched unless ``run`` runs. ``environ`` holds the tokens that refs name;
    ``allow_local`` is ``server.allow_local_git``.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        environ: Mapping[str, str],
        clock: Clock,
        random: Random,
        allow_local: bool = False,
    ) -> None:
        self._mirrors_dir = data_dir / "git"
        self._checkouts_dir = data_dir / "checkouts"
        self._clock = clock
        self._random = random
        self._worker = GitWorker(self._mirrors_dir / WORKER, environ)
        self._puller = Puller(self._worker, environ, allow_local=allow_local)
        self._mirrors: dict[MirrorKey, Mirror] = {}
        self._group: asyncio.TaskGroup | None = None
        self._kept: frozenset[str] | None = None
        self._collect = asyncio.Event()
        self._making = threading.Lock()
        self._made_at = clock.monotonic()

    async def run(self) -> None:
        """Own the worker and the polls until cancelled."""
        await asyncio.to_thread(clean, self._mirrors_dir, self._checkouts_dir)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._worker.run(), name="git worker")
                group.create_task(self._collect_often(), name="git collect")
                for mirror in list(self._mirrors.values()):
                    for target in list(mirror.targets.values()):
                        self._follow(mirror, target)
        finally:
            self._group = None

    # What Checkouts promises

    async def latest(self, ref: GitRef, *, now: bool = False) -> Revision:
        """Give the newest good revision; with ``now``, ask the remote first."""
        mirror, target = self._target(ref)
        if now or (self.current(ref) is None and self._may_ask(target)):
            await self._refresh(mirror, target, fetch=True)
        revision = self.current(ref)
        if revision is not None:
            return revision
        raise (target.failure or _nothing_yet()).error()

    def current(self, ref: GitRef) -> Revision | None:
        """Give what is on disk already; asks nobody."""
        mirror, target = self._target(ref)
        if target.known is None or not mirror.has(target.known.good.tree):
            return None
        good = target.known.good
        mirror.given[good.tree] = self._clock.monotonic()
        root = mirror.checkouts / good.tree
        commit = Commit(good.commit, good.author, good.subject, good.at_ms)
        return Revision("", root, good.commit, commit, trees=TreeIds(root))

    def trouble(self, ref: GitRef) -> Condition | None:
        """Say why ``ref`` is old or missing; None when it is not."""
        failure = self._target(ref)[1].failure
        return failure.condition() if failure else None

    def beside(self, root: Path, commit: str) -> Path | None:
        """Give the checkout of another commit of the repository that ``root`` is a checkout of.

        None when it is not on disk. May be called from any thread.
        """
        for mirror in list(self._mirrors.values()):
            if mirror.checkouts == root.parent:
                tree = mirror.commits.get(commit)
                return mirror.checkouts / tree if tree and mirror.has(tree) else None
        return None

    def skipped(self, ref: GitRef) -> tuple[int, tuple[str, ...]]:
        """Give how many entries the newest checkout leaves out, and the first of them with why."""
        known = self._target(ref)[1].known
        return (known.good.skipped_count, known.good.skipped) if known else (0, ())

    async def watch(self, ref: GitRef) -> AsyncGenerator[None]:
        """Wake when ``ref`` has another revision or trouble, by poll or by push."""
        mirror, target = self._target(ref)
        changed = asyncio.Event()
        try:
            with target.listening(changed, ref.poll_interval_s):
                self._follow(mirror, target)
                while True:
                    await changed.wait()
                    changed.clear()
                    yield
        finally:
            self._follow(mirror, target)

    async def push_hint(self, url: str) -> int:
        """Pull every watched ref of ``url`` now; gives how many there are. Bursts are one pull."""
        hinted = 0
        for mirror in list(self._mirrors.values()):
            if mirror.key.url != url:
                continue
            for target in list(mirror.targets.values()):
                if target.watched and target.want.kind != "commit":
                    target.pushed = True
                    target.wake.set()
                    hinted += 1
        return hinted

    def keep(self, revisions: Iterable[str]) -> None:
        """Say which commits are in use; other checkouts may be removed, except the newest."""
        kept = frozenset(revisions)
        if kept != self._kept:
            self._kept = kept
            self._collect.set()

    # Targets and their polls

    def _target(self, ref: GitRef) -> tuple[Mirror, Target]:
        key = mirror_key(ref)
        # Sources are read in threads, and ask from there what is on disk.
        with self._making:
            mirror = self._mirrors.get(key)
            if mirror is None:
                folders = self._mirrors_dir / key.id, self._checkouts_dir / key.id
                mirror = self._mirrors[key] = Mirror.open(key, *folders)
            return mirror, mirror.target(ref)

    def _follow(self, mirror: Mirror, target: Target) -> None:
        """Begin or end the poll of a target, as someone listens or not."""
        if target.poll is not None and not target.watched:
            target.poll.cancel()
            target.poll = None
        if target.poll is None and target.watched and self._group is not None:
            poll = self._poll(mirror, target)
            target.poll = self._group.create_task(poll, name="git poll")

    async def _poll(self, mirror: Mirror, target: Target) -> None:
        while True:
            due = target.due_in(self._clock.monotonic(), self._random.random())
            if await self._clock.wait(target.wake, due) and not target.pushed:
                # Someone asks for a shorter interval, or it was asked meanwhile: count again.
                target.wake.clear()
                continue
            target.wake.clear()
            fetch, target.pushed = target.pushed, False
            try:
                await self._refresh(mirror, target, fetch=fetch)
            except Exception:
                # A bug in one poll must not end it for good, nor the others.
                _log.exception("a git poll failed; it goes on")
                await asyncio.sleep(_PAUSE_S)

    def _may_ask(self, target: Target) -> bool:
        """Tell whether asking is not too soon after a failure."""
        return target.failure is None or target.due_in(self._clock.monotonic(), 0.0) == 0.0

    async def _refresh(self, mirror: Mirror, target: Target, *, fetch: bool) -> None:
        """Ask the remote, and fetch what is new; ``fetch`` does both in one.

        Who is served by an asking that began after they came does not ask again.
        """
        came = target.begun
        async with target.lock:
            if target.begun > came:
                return
            target.begun += 1
            target.asked_at = self._clock.monotonic()
            answer = await self._puller.pull(mirror, target, fetch=fetch)
            known = target.known
            news = target.note(answer)
            mirror.remember(target)
            self._log(target)
            if news:
                target.tell()
            # What is remembered must have survived: a tree that a power cut left half on the disk
            # would else be taken for whole. Those not remembered are removed at the start.
            if target.known != known and await self._puller.settle(mirror, target):
                await asyncio.to_thread(mirror.store)
                self._collect.set()

    def _log(self, target: Target) -> None:
        if target.failure is not None and target.failures == 1:
            facts = {"action": "git_failed", "reason": target.failure.reason.value}
            _log.info("git: %s", target.failure.message, extra=facts)

    # Garbage

    async def _collect_often(self) -> None:
        while True:
            await self._clock.wait(self._collect, _COLLECT_S)
            self._collect.clear()
            if self._kept is not None:
                await self._collect_now(self._kept)

    async def _collect_now(self, kept: frozenset[str]) -> None:
        now = self._clock.monotonic()
        young = now - _GRACE_S
        for mirror in list(self._mirrors.values()):
            async with mirror.lock:
                if now - self._made_at > _FORGET_S:
                    mirror.forget_unnamed()
                keep = mirror.needed(kept, young)
                await asyncio.to_thread(collect, mirror.checkouts, keep)
                mirror.forget_removed(keep)
        await asyncio.to_thread(
            collect_forgotten,
            self._mirrors_dir,
            self._checkouts_dir,
            {mirror.key.id for mirror in self._mirrors.values()},
            kept,
            self._clock.now_ms() / 1000,
        )


def _nothing_yet() -> Failure:
    return Failure(Reason.UNREACHABLE, "the remote was not asked yet", "call again in a moment")
