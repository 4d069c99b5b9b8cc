"""A commit of one folder on a branch, and its push; what else the work tree holds stays."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from dulwich.graph import can_fast_forward
from dulwich.ignore import IgnoreFilterManager
from dulwich.index import Index, IndexEntry, index_entry_from_stat
from dulwich.objects import Commit, ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.git.jobs import Access
from dicode_mcp.sources.working import refusals, trees
from dicode_mcp.sources.working.faults import conflict, in_repository
from dicode_mcp.sources.working.model import Author, CommitOrder, Committed
from dicode_mcp.sources.working.remotes import branch_ref, check_remote, push_branch


def commit(order: CommitOrder) -> Committed:
    """Commit, and push when asked; refuses what git would ask a person about."""
    with in_repository(order.folder):
        top = refusals.work_tree_of(Path(order.folder))
        with Repo(top) as repo:
            current = refusals.current_branch(repo)
            branch = order.branch or current
            author = order.author or _configured_author(repo)
            if branch != current:
                refusals.refuse_other_work_tree(repo, branch)
            remote = _remote(repo, order) if order.push else None
            place = _place(repo, top, Path(order.folder), branch, current)
            made = _commit(repo, place, order, author)
            return made if remote is None else _pushed(repo, remote, made)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the commit goes. ``base`` is what it follows; ``tip`` the branch as it is now."""

    top: Path
    folder: Path
    parts: list[bytes]
    branch: str
    tip: ObjectID | None
    base: ObjectID | None
    current: bool

    @property
    def prefix(self) -> bytes:
        return b"".join(part + b"/" for part in self.parts)


def _place(repo: Repo, top: Path, folder: Path, branch: str, current: str) -> _Place:
    parts = [os.fsencode(part) for part in folder.relative_to(top).parts]
    tip = _read(repo, branch)
    base = tip or _read(repo, current)
    return _Place(top, folder, parts, branch, tip, base, branch == current)


def _read(repo: Repo, branch: str) -> ObjectID | None:
    ref = branch_ref(branch)
    return repo.refs[ref] if ref in repo.refs else None


def _commit(repo: Repo, place: _Place, order: CommitOrder, author: Author) -> Committed:
    store = repo.object_store
    root = _tree_of(repo, place.base)
    old = trees.entries_below(store, trees.subtree(store, root, place.parts))
    if place.current:
        refusals.refuse_busy_index(repo)
    ignore = IgnoreFilterManager.from_repo(repo)
    here = os.fsdecode(place.prefix)
    found = trees.read_folder(
        place.folder, old, lambda path: bool(ignore.is_ignored(f"{here}{path}"))
    )
    new = trees.new_entries(store, found, old, modes=_keeps_modes(repo))
    if new == old:
        return _nothing(repo, place, order, author, found.skipped)
    made = _make_commit(repo, place, order, author, trees.put_folder(store, root, place.parts, new))
    if place.current:
        _note_in_index(repo, place, old, new)
    changed = trees.changes(store, old, new)
    return Committed(made.decode(), place.branch, changed, str(author), skipped=found.skipped)


def _nothing(
    repo: Repo, place: _Place, order: CommitOrder, author: Author, skipped: tuple[str, ...]
) -> Committed:
    """Answer where the folder is as the branch has it: fine when it is only to be pushed."""
    if place.base is None or not order.push:
        raise conflict(
            f"there is nothing to commit: the task's files are as branch {place.branch} has them",
            "edit a file first" + ("; push: true pushes what is there" if place.base else ""),
        )
    if place.tip is None:
        _move_branch(repo, place, place.base, b"branch: Created")
    return Committed(place.base.decode(), place.branch, (), str(author), skipped=skipped)


def _make_commit(
    repo: Repo, place: _Place, order: CommitOrder, author: Author, tree: ObjectID
) -> ObjectID:
    made = Commit()
    made.tree = tree
    made.parents = [place.base] if place.base else []
    made.author = made.committer = str(author).encode()
    made.author_time = made.commit_time = order.at_s
    made.author_timezone = made.commit_timezone = 0
    made.encoding = b"UTF-8"
    made.message = order.message.rstrip().encode() + b"\n"
    repo.object_store.add_object(made)
    subject = order.message.partition("\n")[0].encode()
    _move_branch(repo, place, made.id, b"commit: " + subject, author, order.at_s)
    return made.id


def _move_branch(
    repo: Repo,
    place: _Place,
    to: ObjectID,
    message: bytes,
    author: Author | None = None,
    at_s: int | None = None,
) -> None:
    zero = ObjectID(b"0" * 40)
    moved = repo.refs.set_if_equals(
        branch_ref(place.branch),
        place.tip or zero,
        to,
        committer=str(author).encode() if author else b"dicode <dicode@localhost>",
        timestamp=at_s or 0,
        timezone=0,
        message=message,
    )
    if not moved:
        raise conflict(
            f"branch {place.branch} moved while the commit was made", "call commit_task again"
        )


def _note_in_index(repo: Repo, place: _Place, old: trees.Entries, new: trees.Entries) -> None:
    """Make the index say what was committed, so that `git status` shows nothing of it."""
    index = repo.open_index()
    _doubt_fresh(index)
    for path in {*old, *new}:
        full = place.prefix + path
        if path not in new:
            if full in index:
                del index[full]
        elif old.get(path) != new[path] or full not in index:
            mode, sha = new[path]
            info = os.lstat(os.path.join(os.fsencode(place.folder), path))
            index[full] = index_entry_from_stat(info, sha, mode=mode)
    index.write()


def _doubt_fresh(index: Index) -> None:
    """Make git look again at files as young as the index.

    A change within the same second and of the same size would else be hidden by the newer index.
    """
    try:
        written = int(os.stat(index.path).st_mtime)
    except FileNotFoundError:
        return
    for path, entry in list(index.items()):
        if isinstance(entry, IndexEntry) and _seconds(entry.mtime) >= written:
            index[path] = replace(entry, size=0)


def _seconds(moment: float | tuple[int, int]) -> int:
    return moment[0] if isinstance(moment, tuple) else int(moment)


def _pushed(repo: Repo, remote: Access, made: Committed) -> Committed:
    try:
        push_branch(repo, remote, made.branch, ObjectID(made.commit.encode()))
    except DicodeError as error:
        what = f"commit {made.commit[:10]} is on branch {made.branch} here, but was not pushed"
        raise DicodeError(
            error.code,
            f"{what}: {error.message}",
            hint=error.hint,
            data={**error.data, "commit": made.commit, "branch": made.branch, "pushed": False},
            retry=error.retry,
        ) from error
    _note_remote(repo, remote, made)
    return Committed(
        made.commit, made.branch, made.files, made.author, pushed=True, skipped=made.skipped
    )


def _note_remote(repo: Repo, remote: Access, made: Committed) -> None:
    if _origin_url(repo) == remote.url:
        name = Ref(b"refs/remotes/origin/" + made.branch.encode())
        known = repo.refs[name] if name in repo.refs else None
        new = ObjectID(made.commit.encode())
        if known is None or known not in repo.object_store or can_fast_forward(repo, known, new):
            repo.refs[name] = new


def _remote(repo: Repo, order: CommitOrder) -> Access:
    """Give where to push; asked before anything is committed."""
    if order.remote is not None:
        return order.remote
    url = _origin_url(repo)
    if url is None:
        raise conflict(
            "the repository has no remote 'origin' to push to",
            "add one with git, or leave push out",
        )
    access = Access(url, order.reach)
    check_remote(access)
    return access


def _origin_url(repo: Repo) -> str | None:
    try:
        return repo.get_config().get((b"remote", b"origin"), b"url").decode()
    except KeyError:
        return None


def _configured_author(repo: Repo) -> Author:
    config = repo.get_config_stack()
    try:
        name = config.get((b"user",), b"name").decode()
        email = config.get((b"user",), b"email").decode()
    except KeyError:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "no author: neither the call nor git's configuration (user.name, user.email) has one",
            hint='give author, e.g. "Ada Lovelace <ada@example.com>"',
        ) from None
    return Author(name, email)


def _keeps_modes(repo: Repo) -> bool:
    return bool(repo.get_config_stack().get_boolean((b"core",), b"filemode", True))


def _tree_of(repo: Repo, commit: ObjectID | None) -> ObjectID | None:
    if commit is None:
        return None
    found = repo.object_store[commit]
    assert isinstance(found, Commit)
    return found.tree
