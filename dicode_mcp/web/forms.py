"""Forms of the owner's pages: who may send one, from where, and what is in it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.principal import Principal
from dicode_mcp.web.sessions import session_of

MAX_FIELDS = 100
_FORM = "application/x-www-form-urlencoded"
OWN_REFERRER = {"referrer-policy": "same-origin"}
"""For pages with a form: with the other pages' no-referrer a browser would call its origin null."""


def human_of(request: Request) -> Principal:
    """Give the owner at his browser, with or without a session; a key is a program's."""
    found: Any = getattr(request.state, "principal", None)
    by_key = isinstance(found, Principal) and found.credential and not session_of(request.scope)
    if not isinstance(found, Principal) or by_key or "authorization" in request.headers:
        raise DicodeError(
            Code.FORBIDDEN,
            "this page is for the user that runs the server",
            hint="with a key, call the tools or the API",
        )
    return found


def require_own_page(request: Request) -> None:
    """Refuse a form that another site sends; the guard has looked at its Origin already."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise DicodeError(
            Code.FORBIDDEN, "this form was sent from a page that is not this server's"
        )


async def read_form(
    request: Request, max_body: int, max_fields: int = MAX_FIELDS
) -> dict[str, str]:
    """Give the fields of a form. Raises INVALID_ARGUMENT, TOO_LARGE."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise DicodeError(
            Code.INVALID_ARGUMENT, "the body is not a form", hint=f"send Content-Type: {_FORM}"
        )
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_body:
            raise DicodeError(Code.TOO_LARGE, f"the form is over {max_body} bytes")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=max_fields,
            encoding="utf-8",
            errors="strict",
        )
    except ValueError:
        raise DicodeError(Code.INVALID_ARGUMENT, "the form cannot be read") from None
    # Browsers send line ends of a text area as CR LF.
    return {name: value.replace("\r\n", "\n") for name, value in pairs}
