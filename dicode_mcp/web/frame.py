"""The frame around every page: head, navigation, headers of the answer; and the error page.

The policy lets a page load our stylesheet and icon and nothing else: no script, no other site.
"""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from pathlib import Path

from starlette.responses import HTMLResponse, Response

from dicode_mcp.web.markup import Child, join, tag

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_HERE = Path(__file__).parent
STYLE_PATH = "/style.css"
ICON_PATH = "/icon.svg"


@cache
def asset(name: str) -> bytes:
    """Read a file that lies beside this module."""
    return (_HERE / name).read_bytes()


@cache
def _style_link() -> str:
    # With the content's hash in it, so that a new version's stylesheet is not an old one kept.
    return f"{STYLE_PATH}?v={hashlib.sha256(asset('style.css')).hexdigest()[:8]}"


def asset_response(name: str, media_type: str) -> Response:
    """Answer with an asset; a browser may keep it for an hour."""
    headers = {**HEADERS, "cache-control": "private, max-age=3600"}
    return Response(asset(name), media_type=media_type, headers=headers)


def page(title: str, *body: Child, refresh_s: int | None = None, status: int = 200) -> HTMLResponse:
    """Answer with a page. ``refresh_s`` makes the browser ask again by itself."""
    return HTMLResponse(
        document(title, *body, refresh_s=refresh_s), status_code=status, headers=HEADERS
    )


def document(title: str, *body: Child, refresh_s: int | None = None) -> str:
    """Write a whole HTML document."""
    refresh = tag("meta", http_equiv="refresh", content=refresh_s) if refresh_s else None
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        refresh,
        tag("title", f"{title} · dicode" if title != "dicode" else title),
        tag("link", rel="stylesheet", href=_style_link()),
        tag("link", rel="icon", href=ICON_PATH, type="image/svg+xml"),
    )
    content = tag(
        "body",
        tag("a", "Skip to the content", class_="skip", href="#content"),
        tag("header", _navigation(), class_="top"),
        tag("main", *body, id="content"),
    )
    return f"<!doctype html>\n{tag('html', head, content, lang='en')}\n"


def _navigation() -> Child:
    return tag(
        "nav",
        tag("a", "dicode", class_="home", href="/"),
        tag("a", "Tasks", href="/#tasks"),
        tag("a", "Runs", href="/runs"),
        tag("a", "Sources", href="/#sources"),
        aria_label="Main",
    )


def error_document(status: int, message: str, hint: str | None) -> str:
    """Write the page that says what went wrong and what to do."""
    phrase = HTTPStatus(status).phrase
    return document(
        phrase,
        tag("h1", phrase),
        tag("p", sentence(message)),
        tag("p", sentence(hint), class_="hint") if hint else None,
        join(tag("p", tag("a", "Back to the tasks", href="/"))) if status == 404 else None,
    )


def sentence(text: str) -> str:
    """Write a message of ours as a sentence; a name at its start stays as it is."""
    if text.partition(" ")[0].isalpha():
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else text + "."
