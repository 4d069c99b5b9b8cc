"""Putting elements first into the head of somebody's HTML, read as a browser reads it. Pure.

Only what can stand before a head is read: doctype, comments, the tags of ``html`` and ``head``.
Where a page leaves those tags out the browser adds them, and ours fall into its head all the same.
"""

from __future__ import annotations

from html import escape

_SPACE = "\t\n\f\r "
_NAME_ENDS = _SPACE + "/>"


def insert_into_head(page: str, elements: str) -> str:
    """Give ``page`` with ``elements`` before all else in its head."""
    at = head_start(page)
    return page[:at] + elements + page[at:]


def head_start(page: str) -> int:
    """Give where the content of the page's head begins, written out or not."""
    at = _after_prologue(page, 1 if page.startswith("\ufeff") else 0)
    inside = _after_tag(page, at, "html")
    if inside is not None:
        at = _after_prologue(page, inside)
    inside = _after_tag(page, at, "head")
    return at if inside is None else inside


def page_elements(task_id: str, path: str, key: str, script: str) -> str:
    """Write what a task's page is told of itself: base, task, webhook, key, and our script."""
    return (
        f'<base href="{escape(path)}/">'
        f'<meta name="dicode-task" content="{escape(task_id)}">'
        f'<meta name="dicode-hook" content="{escape(path)}">'
        f'<meta name="dicode-page" content="{escape(key)}">'
        f'<script src="{escape(script)}"></script>'
    )


def _after_prologue(page: str, at: int) -> int:
    """Skip spaces, comments, doctypes and what is read as a comment; one that never ends stays."""
    while True:
        begin = at
        while begin < len(page) and page[begin] in _SPACE:
            begin += 1
        if page.startswith("<!--", begin):
            end = _after_comment(page, begin + 4)
        elif page.startswith(("<!", "<?"), begin):
            end = page.find(">", begin) + 1
        else:
            return begin if page.startswith("<", begin) else at
        if not end:
            return begin
        at = end


def _after_comment(page: str, at: int) -> int:
    """Give where a comment's end is passed, 0 when it has none."""
    for abrupt in (">", "->"):
        if page.startswith(abrupt, at):
            return at + len(abrupt)
    ends = [(page.find(mark, at), len(mark)) for mark in ("-->", "--!>")]
    return min((found + size for found, size in ends if found >= 0), default=0)


def _after_tag(page: str, at: int, name: str) -> int | None:
    """Give where the start tag ``name`` that begins at ``at`` is passed; None when it is another.

    Quotes hold a ``>`` only where a value begins, as in a browser.
    """
    end = at + 1 + len(name)
    if page[at : at + 1] != "<" or page[at + 1 : end].lower() != name:
        return None
    if page[end : end + 1] not in tuple(_NAME_ENDS):
        return None
    while end < len(page) and page[end] != ">":
        end = _after_value(page, end + 1) if page[end] == "=" else end + 1
    return end + 1 if end < len(page) else None


def _after_value(page: str, at: int) -> int:
    while at < len(page) and page[at] in _SPACE:
        at += 1
    if page[at : at + 1] in ("'", '"'):
        closing = page.find(page[at], at + 1)
        return closing + 1 if closing >= 0 else len(page)
    while at < len(page) and page[at] not in _SPACE + ">":
        at += 1
    return at
