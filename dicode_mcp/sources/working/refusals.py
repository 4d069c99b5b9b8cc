"""The states of a repository in which nothing is committed: what git would ask a person about."""

from __future__ import annotations

import os
from pathlib import Path

from dulwich.refs import HEADREF
from dulwich.repo import Repo

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.working.faults import conflict

_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "BISECT_LOG": "a bisect",
}
_HOOKS = (
    "pre-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "reference-transaction",
    "pre-push",
)
_HEADS = b"refs/heads/"


def work_tree_of(folder: Path) -> Path:
    """Give the top of the git work tree that a folder is in. Raises CONFLICT when it is in none."""
    for above in (folder, *folder.parents):
        if (above / ".git").exists():
            return above
    raise conflict(
        f"{folder} is not in a git work tree",
        "make one there with git, or use dev mode on a git source",
    )


def current_branch(repo: Repo) -> str:
    """Give the branch that is checked out, where nothing stands in the way of a commit.

    Raises CONFLICT or NOT_SUPPORTED.
    """
    control = Path(os.fsdecode(repo.controldir()))
    for name, what in _UNDER_WAY.items():
        if (control / name).exists():
            raise conflict(f"{what} is under way in the repository", "end it with git first")
    head = repo.refs.read_ref(HEADREF) or b""
    if not head.startswith(b"ref: " + _HEADS):
        raise conflict(
            "the repository has no branch checked out (detached HEAD)",
            "check out a branch with git first",
        )
    _refuse_hooks(repo)
    _refuse_signing(repo)
    return head.removeprefix(b"ref: " + _HEADS).strip().decode()


def _refuse_hooks(repo: Repo) -> None:
    """Refuse to go round the repository's own checks: they are programs, and none is run here."""
    config = repo.get_config_stack()
    try:
        folder = Path(os.fsdecode(config.get((b"core",), b"hooksPath"))).expanduser()
        folder = Path(os.fsdecode(repo.path)) / folder
    except KeyError:
        folder = Path(os.fsdecode(repo.commondir())) / "hooks"
    found = [name for name in _HOOKS if os.access(folder / name, os.X_OK)]
    if found:
        raise DicodeError(
            Code.NOT_SUPPORTED,
            f"the repository has hooks that this server does not run: {', '.join(found)}",
            hint="commit with git itself, or use dev mode with branch=…, which has a clone"
            " without hooks",
        )


def _refuse_signing(repo: Repo) -> None:
    if repo.get_config_stack().get_boolean((b"commit",), b"gpgsign", False):
        raise DicodeError(
            Code.NOT_SUPPORTED,
            "the repository wants signed commits (commit.gpgsign), and this server signs none",
            hint="commit with git itself, or use dev mode with branch=…",
        )


def refuse_busy_index(repo: Repo) -> None:
    """Refuse while git works there, or while it has unsolved conflicts."""
    path = Path(os.fsdecode(repo.index_path()))
    if path.with_name(path.name + ".lock").exists():
        raise conflict(
            "git is at work in the repository (index.lock)",
            "try again in a moment; if no git is running, remove the stale index.lock",
        )
    if repo.open_index().has_conflicts():
        raise conflict("the repository has unsolved conflicts", "solve them with git first")


def refuse_other_work_tree(repo: Repo, branch: str) -> None:
    """Refuse to move a branch that another work tree of the repository has checked out."""
    common = Path(os.fsdecode(repo.commondir()))
    heads = [common / "HEAD", *sorted((common / "worktrees").glob("*/HEAD"))]
    own = Path(os.fsdecode(repo.controldir())) / "HEAD"
    for head in heads:
        if head == own or not head.is_file():
            continue
        if head.read_bytes().strip() == b"ref: " + _HEADS + branch.encode():
            raise conflict(
                f"branch {branch} is checked out in another work tree of the repository",
                "choose another branch",
            )
