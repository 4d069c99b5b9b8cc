"""Pages of a list that is sorted by name: the cursor names the last item given."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import mcp_types as t
from mcp import MCPError

PAGE_SIZE = 100


def cut(
    names: Sequence[str], cursor: str | None, size: int = PAGE_SIZE
) -> tuple[Sequence[str], str | None]:
    """Give one page of sorted names and the cursor of the next.

    Raises ``MCPError`` (-32602) for a cursor that is none of ours.
    """
    after = "" if cursor is None else _read(cursor)
    left = [name for name in names if name > after]
    page = left[:size]
    return page, _write(page[-1]) if len(left) > len(page) else None


def _write(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _read(cursor: str) -> str:
    try:
        return base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise MCPError(t.INVALID_PARAMS, "Unknown cursor. Call the list without one.") from None
