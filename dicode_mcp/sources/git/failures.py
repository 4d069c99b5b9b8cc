"""What can be wrong with a git remote or with what it holds, each with its reason and advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicode_mcp.conditions import Condition, ConditionType
from dicode_mcp.errors import Code, DicodeError, Retry


class Reason(StrEnum):
    """Why a ref is old or missing; the ``reason`` of its ``Synced`` condition."""

    AUTH_FAILED = "AuthFailed"
    """The remote wants other credentials."""
    SECRET_MISSING = "SecretMissing"
    """The variable or file that holds the credentials is not there."""
    NOT_TRUSTED = "NotTrusted"
    """The URL is one this server does not fetch from."""
    UNREACHABLE = "Unreachable"
    """The remote did not answer, or not in time."""
    BAD_CERTIFICATE = "BadCertificate"
    """The remote's TLS certificate cannot be verified."""
    UNKNOWN_HOST_KEY = "UnknownHostKey"
    """ssh does not know the host's key, or knows another."""
    NOT_A_REPOSITORY = "NotARepository"
    """There is no git repository at the URL (or none these credentials may see)."""
    NO_SUCH_BRANCH = "NoSuchBranch"
    """The repository has no branch of this name."""
    NO_SUCH_TAG = "NoSuchTag"
    """The repository has no tag of this name."""
    NO_SUCH_COMMIT = "NoSuchCommit"
    """The repository does not give this commit."""
    TOO_LARGE = "TooLarge"
    """The repository is over a limit of its source."""
    HOSTILE = "Hostile"
    """The repository holds what no honest one does; nothing of this commit is used."""
    DAMAGED = "Damaged"
    """What is on disk of the repository cannot be read; it is fetched anew."""
    NO_SSH = "NoSsh"
    """This machine has no ssh program."""
    DISK = "Disk"
    """The data dir cannot be written."""
    INTERNAL = "Internal"
    """A fault of this server; its log has more."""


_CODES: Mapping[Reason, Code] = {
    Reason.AUTH_FAILED: Code.UNAUTHENTICATED,
    Reason.SECRET_MISSING: Code.SECRET_MISSING,
    Reason.NOT_TRUSTED: Code.FORBIDDEN,
    Reason.UNREACHABLE: Code.UNREACHABLE,
    Reason.BAD_CERTIFICATE: Code.UNREACHABLE,
    Reason.UNKNOWN_HOST_KEY: Code.UNREACHABLE,
    Reason.TOO_LARGE: Code.TOO_LARGE,
    Reason.HOSTILE: Code.FORBIDDEN,
    Reason.NO_SSH: Code.NOT_SUPPORTED,
    Reason.DISK: Code.STORAGE_FULL,
    Reason.DAMAGED: Code.INTERNAL,
    Reason.INTERNAL: Code.INTERNAL,
}
_PASSING = frozenset({Reason.UNREACHABLE, Reason.DISK, Reason.DAMAGED, Reason.INTERNAL})

SETTLED = frozenset({Reason.AUTH_FAILED, Reason.SECRET_MISSING, Reason.NOT_TRUSTED})
"""Asking again soon would only trouble the remote: somebody has to change something first."""
REFUSED = frozenset({Reason.TOO_LARGE, Reason.HOSTILE, Reason.DAMAGED})
"""The remote answered, and what it has is not used: the same commit need not be fetched again."""
ANSWERED = REFUSED | {Reason.NO_SUCH_BRANCH, Reason.NO_SUCH_TAG, Reason.NO_SUCH_COMMIT}
"""The remote is well: its next push may mend it, so it is asked as often as ever."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong. ``message`` says what and where, ``hint`` what to do."""

    reason: Reason
    message: str
    hint: str = ""

    def error(self) -> DicodeError:
        """Give it as an error for callers."""
        passing = self.reason in _PASSING
        return DicodeError(
            _CODES.get(self.reason, Code.NOT_FOUND),
            self.message,
            hint=self.hint or None,
            data={"reason": self.reason.value},
            retry=Retry.BACKOFF if passing else Retry.AFTER,
        )

    def condition(self) -> Condition:
        """Give it as the ``Synced`` condition of what could not be fetched."""
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return Condition(ConditionType.SYNCED, False, self.reason.value, text)


class GitError(Exception):
    """Ends a job with a failure."""

    def __init__(self, reason: Reason, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(reason, message, hint)
