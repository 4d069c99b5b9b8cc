"""A work tree of one branch: made once, brought up to date where nobody edited it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dulwich.graph import can_fast_forward
from dulwich.objects import ObjectID
from dulwich.refs import HEADREF, Ref
from dulwich.repo import Repo

from dicode_mcp.sources.working.checkout import (
    check_tree,
    is_as,
    remove_files,
    tree_of,
    write_files,
)
from dicode_mcp.sources.working.faults import in_repository
from dicode_mcp.sources.working.model import Clone, CloneOrder
from dicode_mcp.sources.working.remotes import branch_ref, fetch_branch


def clone(order: CloneOrder) -> Clone:
    """Make the work tree, or bring the one there up to date."""
    top = Path(order.folder)
    with in_repository(order.folder):
        if (top / ".git").is_dir():
            return _update(order, top)
        return _make(order, top)


def _make(order: CloneOrder, top: Path) -> Clone:
    """Make it beside its place first, so that a stop half-way leaves nothing that looks whole."""
    making = top.with_name(f"{top.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700, parents=True)
    with Repo.init(making, default_branch=order.branch.encode()) as repo:
        config = repo.get_config()
        config.set((b"remote", b"origin"), b"url", order.remote.url.encode())
        config.set((b"remote", b"origin"), b"fetch", b"+refs/heads/*:refs/remotes/origin/*")
        config.write_to_path()
        commit, created = _fetch(repo, order)
        entries = tree_of(repo, commit)
        check_tree(repo, entries, order.bounds)
        _note_remote(repo, order, commit, created)
        repo.refs[branch_ref(order.branch)] = commit
        repo.refs.set_symbolic_ref(HEADREF, branch_ref(order.branch))
        write_files(repo, making, entries)
    shutil.rmtree(top, ignore_errors=True)
    os.replace(making, top)
    return Clone(order.folder, order.branch, commit.decode(), created)


def _update(order: CloneOrder, top: Path) -> Clone:
    with Repo(top) as repo:
        ref = branch_ref(order.branch)
        here = repo.refs[ref]
        there, created = _fetch(repo, order)
        _note_remote(repo, order, there, created)
        if created or here == there or can_fast_forward(repo, there, here):
            return Clone(order.folder, order.branch, here.decode(), created)
        if not can_fast_forward(repo, here, there) or not _move(repo, order, top, here, there):
            return Clone(order.folder, order.branch, here.decode(), kept=True)
        return Clone(order.folder, order.branch, there.decode())


def _move(repo: Repo, order: CloneOrder, top: Path, here: ObjectID, there: ObjectID) -> bool:
    """Bring the files from one commit to another; False when one of them was edited."""
    old, new = tree_of(repo, here), tree_of(repo, there)
    check_tree(repo, new, order.bounds)
    changed = {path for path in {*old, *new} if old.get(path) != new.get(path)}
    if not all(is_as(repo, top, path, old.get(path)) for path in changed):
        return False
    remove_files(repo, top, [path for path in changed if path not in new])
    write_files(repo, top, {path: new[path] for path in changed if path in new})
    return repo.refs.set_if_equals(branch_ref(order.branch), here, there)


def _fetch(repo: Repo, order: CloneOrder) -> tuple[ObjectID, bool]:
    most = order.bounds.max_total_size
    return fetch_branch(repo, order.remote, order.branch, order.base, most=most)


def _note_remote(repo: Repo, order: CloneOrder, commit: ObjectID, created: bool) -> None:
    if not created:
        repo.refs[Ref(b"refs/remotes/origin/" + order.branch.encode())] = commit
