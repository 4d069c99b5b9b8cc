"""Where an entry's ref leads: a folder or file, in the same tree or in that of a repository.

Decides what a ref may reach and who vouches for it; what is there is the world's to say.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from dicode_mcp.spec.giturl import short_url, url_host
from dicode_mcp.spec.problems import Problem
from dicode_mcp.spec.taskset.documents import EntryDoc, Ref
from dicode_mcp.spec.taskset.precedence import Frame
from dicode_mcp.spec.taskset.world import Remote, Spot, Tree, Trouble, What, World


class Fault(Exception):
    """An entry cannot be followed. ``reason`` is stable."""

    def __init__(self, reason: str, *problems: Problem) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problems = problems


class Targets:
    """Follows refs, and notes what they depend on.

    ``watched``: the source's own folder is watched whole, so only what is beyond it is noted.
    """

    def __init__(self, world: World, *, watched: bool) -> None:
        self._world = world
        self._watched = watched
        self.needs: set[Remote] = set()
        self.outside: set[Path] = set()

    def follow(self, entry: EntryDoc, frame: Frame) -> tuple[Tree, Spot]:
        """Give what an entry leads to. Raises ``Fault``."""
        switched = self._world.dev and entry.dev_ref is not None and frame.tree.own
        ref = entry.dev_ref if switched else entry.ref
        assert ref is not None, "an entry without a ref is inline, or has problems"
        if ref.url is not None:
            tree, path = self._repository(ref, entry, frame)
        else:
            tree, path = self._local(ref.path or "", entry, frame, free=switched)
        spot = self._world.look(path, tree)
        if spot.what is What.NOTHING:
            what = f"leads to {tree.name_of(path)}, which cannot be used: {spot.fault}"
            hint = "name a folder that holds a task.yaml or a taskset.yaml, or such a file"
            raise Fault("NotFound", entry.problem(what, hint))
        return tree, spot

    def _repository(self, ref: Ref, entry: EntryDoc, frame: Frame) -> tuple[Tree, Path]:
        remote, trusted = self._pinned(_remote(ref, frame), entry, frame)
        self.needs.add(remote)
        tree = self._world.checkout(remote)
        if isinstance(tree, Trouble):
            what = f"{short_url(remote.url)} {tree.message}"
            raise Fault(tree.reason, entry.problem(what, tree.hint))
        inner = ref.path or ""
        path = Path(os.path.normpath(tree.root / inner))
        if inner.startswith(("/", "~")) or not path.is_relative_to(tree.root):
            _leaves(entry, "the path leaves the repository", "write it relative to its root")
        return replace(tree, own=False, trusted=trusted), path

    def _local(self, text: str, entry: EntryDoc, frame: Frame, *, free: bool) -> tuple[Tree, Path]:
        tree = frame.tree
        relative = not text.startswith(("/", "~"))
        if text == "~" or text.startswith("~/"):
            text = str(self._world.home) + text[1:]
        path = Path(os.path.normpath(frame.folder / text))
        if path.is_relative_to(tree.root) and (relative or not tree.confined):
            if not self._watched and not tree.confined:
                self.outside.add(path)
            return tree, path
        if tree.confined and not free:
            _leaves(entry, "the ref leaves its checkout", "name a path inside the repository")
        self.outside.add(path)
        if tree.confined:
            # a dev_ref: from here on files of this machine are read; who names them decides
            # whether they are reviewed
            root = path.parent if path.suffix in (".yaml", ".yml") else path
            return Tree(root, trusted=tree.trusted), path
        return tree, path

    def _pinned(self, remote: Remote, entry: EntryDoc, frame: Frame) -> tuple[Remote, bool]:
        """Hold a repository to the commit that was reviewed; what is pinned is not trusted."""
        if frame.lock is None:
            return remote, frame.tree.trusted
        lock, owner = frame.lock
        pinned = lock.pinned(owner, remote)
        if pinned is None and lock.fault:
            raise Fault("InvalidLock", entry.problem(lock.fault))
        if pinned is None:
            what = f"{short_url(remote.url)} is not in dicode.lock, so nobody has reviewed it"
            hint = f"call update_task for {owner!r} to review and pin it"
            raise Fault("NotPinned", entry.problem(what, hint))
        return pinned, False


def _remote(ref: Ref, frame: Frame) -> Remote:
    """Read a ref to a repository, and decide whether it may be sent credentials.

    It may when the URL is in the user's own files, or on the host of a repository they trust.
    """
    assert ref.url is not None
    around = frame.tree.remote
    known = around is None or (around.trusted and url_host(around.url) == url_host(ref.url))
    return Remote(
        url=ref.url,
        branch=ref.branch or "main",
        tag=ref.tag,
        commit=ref.commit,
        poll_interval_s=ref.poll_interval,
        auth=ref.auth,
        trusted=frame.tree.trusted and known,
    )


def _leaves(entry: EntryDoc, what: str, hint: str) -> NoReturn:
    raise Fault("LeavesCheckout", entry.problem(what, hint))
