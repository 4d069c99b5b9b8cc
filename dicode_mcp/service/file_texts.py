"""Texts of files as callers get and send them: in parts, as bytes, as differences. Pure."""

from __future__ import annotations

import difflib
import io
from typing import Any

from dicode_mcp.errors import Code, DicodeError

MAX_DIFF = 12_000


def text_of(data: bytes, path: str) -> str:
    """Give a file's text; raises NOT_SUPPORTED for what is none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DicodeError(
            Code.NOT_SUPPORTED,
            f"{path} is not UTF-8 text ({len(data)} bytes)",
            hint="look at it on the server's machine",
        ) from None


def bytes_of(content: str) -> bytes:
    """Give a text's bytes; raises INVALID_ARGUMENT for half of a surrogate pair."""
    try:
        return content.encode()
    except UnicodeEncodeError:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "the text is none: it holds half of a surrogate pair",
            hint="send UTF-8",
        ) from None


def part_of(text: str, offset: int, limit: int | None, most: int) -> dict[str, Any]:
    """Cut whole lines out of a text, from line ``offset`` on, at most ``most`` characters."""
    lines = _lines(text)
    wanted = lines[offset - 1 : None if limit is None else offset - 1 + limit]
    kept: list[str] = []
    used = 0
    for line in wanted:
        if used + len(line) > most:
            break
        kept.append(line)
        used += len(line)
    view: dict[str, Any] = {"lines": len(lines), "offset": offset}
    if wanted and not kept:
        kept = [wanted[0][:most]]
        view["truncated"] = True
    following = offset + len(kept)
    if following <= len(lines):
        view["next_offset"] = following
    return {"content": "".join(kept), **view}


def _lines(text: str) -> list[str]:
    """Split at line feeds alone, as the numbers in error messages count."""
    return io.StringIO(text, newline="\n").readlines()


def diff_of(old: bytes, new: bytes, path: str, *, made: bool) -> str:
    """Give a unified diff, cut where it is long. ``made``: there was no file before."""
    before, after = old.decode("utf-8", "replace"), new.decode()
    lines = difflib.unified_diff(
        _lines(before),
        _lines(after),
        "/dev/null" if made else f"a/{path}",
        f"b/{path}",
    )
    text = "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end\n" for line in lines
    )
    if len(text) <= MAX_DIFF:
        return text
    return f"{text[:MAX_DIFF]}\n… [{len(text) - MAX_DIFF} more characters]\n"
