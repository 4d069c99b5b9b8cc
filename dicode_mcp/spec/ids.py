"""Names: task ids and their segments, globs over them, labels, variables. Pure rules.

Errors are ``ValueError`` sentences; they show the name's fault, not the whole of a long name.
"""

from __future__ import annotations

import re

MAX_ID = 128

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_GLOB = re.compile(r"[A-Za-z0-9*?\[\]!._/-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEGMENT_RULE = "letters, digits, '.', '_' and '-', beginning with a letter or digit"


def check_segment(text: str) -> str:
    """Give ``text`` when it may be one segment of an id (a source's or an entry's name)."""
    if not text:
        raise ValueError("is empty")
    if len(text) > MAX_ID:
        raise ValueError(f"is longer than {MAX_ID} characters")
    if not _SEGMENT.fullmatch(text):
        raise ValueError(f"may hold {_SEGMENT_RULE}{_suggestion(text)}")
    return text


def check_task_id(text: str) -> str:
    """Give ``text`` when it is a task id: segments joined by ``/``, at most 128 characters."""
    if not text:
        raise ValueError("is empty")
    if len(text) > MAX_ID:
        raise ValueError(f"is longer than {MAX_ID} characters")
    if not all(_SEGMENT.fullmatch(part) for part in text.split("/")):
        raise ValueError(
            f"is not a task id: parts joined by '/', each {_SEGMENT_RULE}{_suggestion(text)}"
        )
    return text


def _suggestion(text: str) -> str:
    """Offer the nearest good name, when there is one."""
    parts = (
        re.sub(r"[^A-Za-z0-9._-]+", "-", part).lstrip("._-").rstrip("-") for part in text.split("/")
    )
    name = "/".join(part for part in parts if part)
    return f"; try '{name}'" if name else ""


def check_glob(text: str) -> str:
    """Give ``text`` when it can match task ids: an id, or a glob such as ``reports/*``."""
    if not text or len(text) > MAX_ID or not _GLOB.fullmatch(text):
        raise ValueError("must be a task id or a glob such as 'reports/*'")
    return text


def check_variable(text: str) -> str:
    """Give ``text`` when it can name an environment variable.

    The sentence never shows the text: someone may have put a value where a name belongs.
    """
    if not _VARIABLE.fullmatch(text):
        raise ValueError(
            "is not the name of an environment variable: letters, digits and '_', "
            "not beginning with a digit"
        )
    return text
