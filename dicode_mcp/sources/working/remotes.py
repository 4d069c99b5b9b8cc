"""Talking with a work tree's remote: one branch fetched, one branch pushed, never by force."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Set
from contextlib import closing, contextmanager

from dulwich.client import GitClient
from dulwich.graph import can_fast_forward
from dulwich.objects import ObjectID
from dulwich.pack import UnpackedObject
from dulwich.refs import Ref
from dulwich.repo import Repo

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.git.failures import GitError
from dicode_mcp.sources.git.jobs import Access
from dicode_mcp.sources.git.mirror import translated
from dicode_mcp.sources.git.remote import Remote, parse, require
from dicode_mcp.sources.git.wire import connect, tidy, without_secret
from dicode_mcp.sources.working.faults import conflict

SILENCE_S = 30.0
MOST_BYTES = 8 * 2**30


def branch_ref(branch: str) -> Ref:
    """Give the ref of a branch."""
    return Ref(b"refs/heads/" + branch.encode())


def check_remote(access: Access) -> Remote:
    """Give a remote that is within reach. Raises ``DicodeError``."""
    try:
        remote = parse(access.url)
        require(remote, access.reach)
    except GitError as error:
        raise error.failure.error() from error
    return remote


@contextmanager
def _talking(access: Access, most: int) -> Generator[tuple[GitClient, bytes]]:
    remote = check_remote(access)
    try:
        with translated(remote, access):
            client, path = connect(remote, access, most=most, silence=SILENCE_S)
            with closing(client):
                yield client, path.encode()
    except GitError as error:
        raise error.failure.error() from error


def fetch_branch(
    repo: Repo, access: Access, branch: str, base: str | None, *, most: int = MOST_BYTES
) -> tuple[ObjectID, bool]:
    """Fetch a branch with its history; gives its commit, and whether it is ``base``'s instead.

    Raises NOT_FOUND when the remote has neither.
    """
    wanted: list[tuple[ObjectID, bool]] = []

    def choose(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        found = refs.get(branch_ref(branch)) or (refs.get(branch_ref(base)) if base else None)
        if found is None:
            raise _no_branch(access, branch, base)
        wanted.append((found, branch_ref(branch) not in refs))
        return [] if found in repo.object_store else [found]

    with _talking(access, most) as (client, path):
        client.fetch(path, repo, determine_wants=choose)
    return wanted[0]


def push_branch(repo: Repo, access: Access, branch: str, commit: ObjectID) -> None:
    """Push a branch. Raises CONFLICT where the remote has or wants something else."""
    ref = branch_ref(branch)

    def update(refs: Mapping[Ref, ObjectID]) -> dict[Ref, ObjectID]:
        there = refs.get(ref)
        if there == commit:
            return {}
        if there is not None and not _follows(repo, there, commit):
            raise conflict(
                f"the remote's branch {branch} has commits that this repository lacks",
                "bring them in first (git pull, or dev mode on that branch again), or push to"
                " another branch: branch=…; a push is never forced",
            )
        return {ref: commit}

    def pack(
        have: Set[ObjectID],
        want: Set[ObjectID],
        *,
        ofs_delta: bool = False,
        progress: Callable[[bytes], None] | None = None,
    ) -> tuple[int, Iterator[UnpackedObject]]:
        return repo.generate_pack_data(set(have), set(want), ofs_delta=ofs_delta)

    with _talking(access, MOST_BYTES) as (client, path):
        result = client.send_pack(path, update, generate_pack_data=pack)
    refused = (result.ref_status or {}).get(ref)
    if refused:
        reason = tidy(without_secret(refused, access))
        raise conflict(
            f"the remote refuses the push to {branch}: {reason}",
            "push to another branch: branch=…",
        )


def _follows(repo: Repo, old: ObjectID, new: ObjectID) -> bool:
    return old in repo.object_store and can_fast_forward(repo, old, new)


def _no_branch(access: Access, branch: str, base: str | None) -> DicodeError:
    also = f" and no branch '{base}' it could begin at" if base and base != branch else ""
    return DicodeError(
        Code.NOT_FOUND,
        f"{parse(access.url).shown} has no branch '{branch}'{also}",
        hint="give a branch of that repository",
    )
