"""What goes wrong in the helper, in our codes; foreign errors never leave it as they are."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from dulwich.errors import NotGitRepository, RefFormatError
from dulwich.file import FileLocked

from dicode_mcp.errors import Code, DicodeError, Retry


def conflict(message: str, hint: str) -> DicodeError:
    """Say that the repository is not in a state for what was asked."""
    return DicodeError(Code.CONFLICT, message, hint=hint)


@contextmanager
def in_repository(where: str) -> Generator[None]:
    """Translate what is wrong with a repository on this machine."""
    try:
        yield
    except DicodeError:
        raise
    except FileLocked as error:
        raise DicodeError(
            Code.CONFLICT,
            f"another program is writing to the repository of {where}",
            hint="try again in a moment; if no git is running, remove the stale .lock file in .git",
            retry=Retry.BACKOFF,
        ) from error
    except RefFormatError as error:
        raise DicodeError(
            Code.INVALID_ARGUMENT, "the branch's name is not one git takes"
        ) from error
    except (OSError, KeyError, ValueError, AssertionError, NotGitRepository) as error:
        raise DicodeError(
            Code.NOT_SUPPORTED,
            f"the repository of {where} cannot be read or written ({type(error).__name__})",
            hint="look at it with `git status` and `git fsck`; commit there with git itself",
        ) from error
