"""What a commit is asked for with, checked, and how one is shown. Pure."""

from __future__ import annotations

import re
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.file_texts import bytes_of
from dicode_mcp.sources.working.model import Author, Committed
from dicode_mcp.sources.working.names import check_branch

MAX_MESSAGE = 10_000
_AUTHOR = re.compile(r"(?P<name>[^<>\n\r\0]*[^<>\s\0]) ?<(?P<email>[^<>\s\0]+)>")


def checked_message(text: str) -> str:
    """Give a message that says something."""
    if not text.strip():
        raise _invalid("message is empty", "say in one line what changed and why")
    if len(text) > MAX_MESSAGE or "\0" in text:
        raise _invalid(
            f"message is longer than {MAX_MESSAGE} characters or holds a NUL", "shorten it"
        )
    bytes_of(text)
    return text


def checked_branch(text: str | None) -> str | None:
    """Give a branch's name that git takes."""
    if text is None:
        return None
    try:
        return check_branch(text)
    except ValueError as error:
        raise _invalid(f"the branch's name {error}", 'for example "fix/report"') from None


def checked_author(text: str | None) -> Author | None:
    """Read ``Name <email>``."""
    if text is None:
        return None
    match = _AUTHOR.fullmatch(text.strip())
    if match is None or not text.isprintable():
        raise _invalid(
            "author is not of the form NAME <EMAIL>", 'e.g. "Ada Lovelace <ada@example.com>"'
        )
    return Author(match["name"].strip(), match["email"])


def commit_view(task_id: str, made: Committed) -> dict[str, Any]:
    """Show a commit: its id, its branch, what changed in each file."""
    files = [
        {
            "path": file.path,
            "change": file.change,
            **({"added": file.added} if file.added is not None else {}),
            **({"removed": file.removed} if file.removed is not None else {}),
        }
        for file in made.files
    ]
    view: dict[str, Any] = {
        "id": task_id,
        "commit": made.commit,
        "branch": made.branch,
        "author": made.author,
        "files": files,
        "added": sum(file.added or 0 for file in made.files),
        "removed": sum(file.removed or 0 for file in made.files),
        "pushed": made.pushed,
    }
    if made.skipped:
        view["skipped"] = list(made.skipped)
    return view


def _invalid(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)
