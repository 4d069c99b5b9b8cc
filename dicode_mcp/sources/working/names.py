"""Names of branches, by the rules of git's check-ref-format. Pure."""

from __future__ import annotations

import re

MAX_BRANCH = 200
_NEVER = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")


def check_branch(text: str) -> str:
    """Give ``text`` when it may name a branch; raises ``ValueError`` with a sentence."""
    fault = _fault(text)
    if fault:
        raise ValueError(fault)
    return text


def _fault(text: str) -> str | None:
    if not text:
        return "is empty"
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BRANCH:
        return f"is longer than {MAX_BRANCH} bytes"
    if not _is_utf8(text):
        return "is not UTF-8 text"
    if _NEVER.search(text):
        return "may not hold spaces, control characters or any of ~ ^ : ? * [ \\"
    if text == "@" or "@{" in text:
        return "may not be '@' or hold '@{'"
    if ".." in text:
        return "may not hold '..'"
    if text.startswith("-"):
        return "may not begin with '-'"
    if text == "HEAD" or text.startswith("refs/"):
        return "must be the short name of a branch, not 'HEAD' or 'refs/…'"
    return _fault_of_parts(text.split("/"))


def _fault_of_parts(parts: list[str]) -> str | None:
    if not all(parts):
        return "may not begin or end with '/' or hold '//'"
    if any(part.startswith(".") for part in parts):
        return "may not have a part that begins with '.'"
    if any(part.endswith((".lock", ".")) for part in parts):
        return "may not have a part that ends with '.lock' or '.'"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
