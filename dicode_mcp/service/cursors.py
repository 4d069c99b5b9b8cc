"""Opaque cursors over listings that are sorted by id."""

from __future__ import annotations

import base64
import binascii

from dicode_mcp.errors import Code, DicodeError


def encode(last_id: str) -> str:
    """Make the cursor that continues after ``last_id``."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    """Read a cursor; raises INVALID_ARGUMENT for one that was not given out."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "the cursor is not one that a listing gave out",
            hint="leave cursor out to begin with the first page",
        ) from None
