"""The bare mirror of one URL: what its refs are, bringing them, and the trees of its commits.

Part of the worker. Every foreign error is translated here into a ``GitError``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import urllib3.exceptions
from dulwich.errors import (
    ApplyDeltaError,
    ChecksumMismatch,
    FileFormatException,
    GitProtocolError,
    HangupException,
    NotGitRepository,
    ObjectFormatException,
)
from dulwich.objects import Commit, ObjectID, ShaFile, Tag, valid_hexsha
from dulwich.refs import Ref
from dulwich.repo import Repo

from dicode_mcp.sources.git.failures import GitError, Reason
from dicode_mcp.sources.git.jobs import Access, Bounds, Good, Want
from dicode_mcp.sources.git.materialise import write_tree
from dicode_mcp.sources.git.remote import Remote
from dicode_mcp.sources.git.wire import HttpClient, connect, ssh_failure, tidy, without_secret

_MOST_PACKS = 50
_MOST_JOINED = 32 * 2**20
"""Bytes of packs: joining them holds all their objects in memory."""
_PEELS = 5
_HEADS = b"refs/heads/"
_SHOWN = 20


def ask(
    remote: Remote, access: Access, want: Want, bounds: Bounds, *, at_once: bool
) -> tuple[str, bool]:
    """Give what the ref is at the remote (a tag: the tag's own object). Raises ``GitError``.

    And whether the remote may be asked ``at_once`` next time, which spares half of the talk.
    """
    if at_once:
        try:
            return _asked_at_once(remote, access, want, bounds), True
        except GitError as error:
            if error.failure.reason in (Reason.AUTH_FAILED, Reason.NOT_TRUSTED):
                raise
    with translated(remote, access):
        client, path = connect(remote, access, most=bounds.max_total_size, silence=bounds.silence_s)
        with closing(client):
            ref: Any = _ref(want)
            asked: Any = path.encode()
            answer = client.get_refs(asked, ref_prefix=[ref])
        smart = isinstance(client, HttpClient) and client.protocol_version == 2
    return _picked(remote, want, answer.refs, answer.object_format), smart


def _asked_at_once(remote: Remote, access: Access, want: Want, bounds: Bounds) -> str:
    with translated(remote, access):
        client = HttpClient(remote, access, most=bounds.max_total_size, silence=bounds.silence_s)
        with closing(client):
            return _picked(remote, want, client.refs_at_once(_ref(want)), None)


def fetch(
    remote: Remote, access: Access, want: Want, bounds: Bounds, mirror: Path, depth: int | None
) -> str:
    """Bring what the ref is at the remote into the mirror; give it as ``ask`` does."""
    with translated(remote, access), closing(_open(mirror)) as repo:
        _tidy_up(mirror)
        try:
            tip = _bring(repo, remote, access, want, bounds, depth)
        except (GitProtocolError, HangupException, KeyError) as error:
            # A repository on this machine says so by a KeyError; from others that is nonsense.
            nonsense = isinstance(error, KeyError) and remote.scheme != "file"
            if want.kind != "commit" or nonsense:
                raise
            # Not every server hands out a commit by its name; one of its branches may hold it.
            _bring(repo, remote, access, None, bounds, depth)
            tip = want.name
        if ObjectID(tip.encode()) not in repo.object_store:
            raise missing(remote, want)
        repo.refs[_own_ref(want)] = _commit(repo, tip).id
    return tip


def join_packs(mirror: Path) -> None:
    """Make one pack of many: each fetch adds one. Large mirrors are left as they are."""
    packs = list(mirror.glob("objects/pack/*.pack"))
    if len(packs) <= _MOST_PACKS or sum(pack.stat().st_size for pack in packs) > _MOST_JOINED:
        return
    with closing(_open(mirror)) as repo:
        _tidy_up(mirror)
        repo.object_store.repack()


def checkout(mirror: Path, tip: str, checkouts: Path, bounds: Bounds, base: Path | None) -> Good:
    """Write the tree of what ``tip`` leads to. Raises ``GitError``, DAMAGED for a bad mirror."""
    try:
        with closing(_open(mirror)) as repo:
            commit = _commit(repo, tip)
            tree = commit.tree.decode()
            try:
                index = write_tree(repo.object_store, tree, checkouts, bounds, base)
            except FileNotFoundError:
                # The base is not what it was: do without.
                index = write_tree(repo.object_store, tree, checkouts, bounds, None)
    except (KeyError, ChecksumMismatch, ApplyDeltaError, NotGitRepository) as error:
        raise GitError(
            Reason.DAMAGED,
            "the repository lacks objects that its commit names, or they are damaged",
            "it is fetched anew; if that does not help, look at the remote with `git fsck`",
        ) from error
    skipped = [f"{path}: {why}" for path, why in index.skipped.items()]
    return Good(
        commit=commit.id.decode(),
        tree=tree,
        author=tidy(commit.author.decode("utf-8", "replace"), 200),
        subject=tidy(commit.message.decode("utf-8", "replace").partition("\n")[0], 200),
        at_ms=commit.commit_time * 1000,
        skipped=tuple(skipped[:_SHOWN]),
        skipped_count=len(skipped),
    )


def missing(remote: Remote, want: Want) -> GitError:
    """Say that the remote has no such ref."""
    reasons = {
        "branch": (Reason.NO_SUCH_BRANCH, "check `branch`"),
        "tag": (Reason.NO_SUCH_TAG, "check `tag`"),
        "commit": (Reason.NO_SUCH_COMMIT, "give the full id (40 hex) of a commit that was pushed"),
    }
    reason, hint = reasons[want.kind]
    return GitError(reason, f"{remote.shown}: there is no {want}", hint)


def _bring(
    repo: Repo,
    remote: Remote,
    access: Access,
    want: Want | None,
    bounds: Bounds,
    depth: int | None,
) -> str:
    """Fetch one ref, or all branches without one."""
    tip = ""

    def wanted(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        nonlocal tip
        if want is None:
            heads = {sha for ref, sha in refs.items() if ref.startswith(_HEADS)}
            return [sha for sha in heads if sha not in repo.object_store]
        tip = _picked(remote, want, refs, None)
        sha = ObjectID(tip.encode())
        return [sha] if sha not in repo.object_store or depth else []

    client, path = connect(remote, access, most=bounds.max_total_size, silence=bounds.silence_s)
    with closing(client):
        result = client.fetch(
            path.encode() if remote.scheme != "file" else path,
            repo,
            determine_wants=wanted,
            depth=depth,
            ref_prefix=[_HEADS if want is None else _ref(want)],
        )
    _require_sha1(remote, result.object_format)
    return tip


def _picked(remote: Remote, want: Want, refs: Mapping[Any, Any], object_format: str | None) -> str:
    _require_sha1(remote, object_format)
    if want.kind == "commit":
        return want.name
    found = refs.get(_ref(want))
    if not found:
        raise missing(remote, want)
    if not valid_hexsha(found) or len(found) != 40:
        raise GitError(Reason.HOSTILE, f"{remote.shown}: names no commit for {want}")
    return bytes(found).decode()


def _require_sha1(remote: Remote, object_format: str | None) -> None:
    if object_format not in (None, "sha1"):
        raise GitError(
            Reason.NOT_A_REPOSITORY,
            f"{remote.shown}: is a SHA-256 repository; those are not read",
            "use a repository with SHA-1 ids, which is git's default",
        )


def _ref(want: Want) -> bytes:
    if want.kind == "commit":
        return _HEADS
    return (b"refs/tags/" if want.kind == "tag" else _HEADS) + want.name.encode()


def _own_ref(want: Want) -> Ref:
    """Give the mirror's own name for what it tracks; any name of a branch makes a plain one."""
    return Ref(_HEADS + sha256(str(want).encode()).hexdigest()[:32].encode())


def _open(mirror: Path) -> Repo:
    if not (mirror / "HEAD").exists():
        mirror.mkdir(parents=True, exist_ok=True)
        Repo.init_bare(mirror).close()
    return Repo(str(mirror))


def _tidy_up(mirror: Path) -> None:
    """Remove what a job that was ended halfway has left; only one at a time works here."""
    for pattern in ("*.lock", "refs/heads/*.lock", "objects/tmp_pack_*", "objects/incoming-*"):
        for path in mirror.glob(pattern):
            path.unlink(missing_ok=True)


def _commit(repo: Repo, tip: str) -> Commit:
    found: ShaFile = repo.object_store[ObjectID(tip.encode())]
    for _ in range(_PEELS):
        if isinstance(found, Commit):
            return found
        if not isinstance(found, Tag):
            break
        found = repo.object_store[found.object[1]]
    raise GitError(
        Reason.NO_SUCH_COMMIT, "what the ref leads to is no commit", "name a branch, tag or commit"
    )


# ── Foreign errors ───────────────────────────────────────────────────────────────────────────


@contextmanager
def translated(remote: Remote, access: Access) -> Generator[None]:
    """Turn what the libraries below raise into ``GitError``."""
    try:
        yield
    except GitError:
        raise
    except (HangupException, GitProtocolError) as error:
        raise _protocol(remote, access, error) from error
    except NotGitRepository as error:
        raise GitError(
            Reason.NOT_A_REPOSITORY, f"{remote.shown}: there is no git repository", "check the URL"
        ) from error
    except (urllib3.exceptions.HTTPError, OSError, EOFError) as error:
        raise _network(remote, error) from error
    except (
        ChecksumMismatch,
        ApplyDeltaError,
        FileFormatException,
        ObjectFormatException,
        AssertionError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        RecursionError,
    ) as error:
        # The parts of dulwich that read what a remote sends raise any of these for bad input.
        raise GitError(
            Reason.HOSTILE,
            f"{remote.shown}: sends what is not git's ({type(error).__name__})",
            "look at the remote with `git ls-remote` and `git fsck`",
        ) from error


def _protocol(remote: Remote, access: Access, error: Exception) -> GitError:
    said = str(error)
    if isinstance(error, HangupException) and error.stderr_lines:
        said = b"\n".join(error.stderr_lines).decode("utf-8", "replace")
    if remote.scheme == "ssh":
        return ssh_failure(remote, said)
    text = tidy(without_secret(said, access), 300)
    return GitError(
        Reason.UNREACHABLE,
        f"{remote.shown}: the remote says: {text}",
        "check the URL and try again",
    )


def _network(remote: Remote, error: BaseException) -> GitError:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return GitError(
                Reason.BAD_CERTIFICATE,
                f"{remote.shown}: the TLS certificate cannot be verified: {cause.verify_message}",
                "for a private authority set SSL_CERT_FILE where the server starts",
            )
        if isinstance(cause, (urllib3.exceptions.TimeoutError, TimeoutError)):
            return GitError(Reason.UNREACHABLE, f"{remote.shown}: does not answer in time")
    shown = next((c.strerror for c in _causes(error) if isinstance(c, OSError) and c.strerror), "")
    if isinstance(error, OSError) and error.filename and os.fspath(error.filename):
        return GitError(
            Reason.DISK, f"the data dir cannot be written: {shown}", "free space or mend its rights"
        )
    what = shown or type(error).__name__
    return GitError(Reason.UNREACHABLE, f"{remote.shown}: cannot be reached: {what}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return
        yield seen
        reason = getattr(seen, "reason", None)
        seen = reason if isinstance(reason, BaseException) else seen.__cause__ or seen.__context__
