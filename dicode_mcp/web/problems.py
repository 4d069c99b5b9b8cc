"""Errors over HTTP: RFC 9457 problem documents, and the one table from our codes to statuses.

A browser that asks for a page gets the same error as a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import Receive, Scope, Send

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.web import frame

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[Code, int] = {
    Code.TASK_NOT_FOUND: 404,
    Code.RUN_NOT_FOUND: 404,
    Code.SOURCE_NOT_FOUND: 404,
    Code.NOT_FOUND: 404,
    Code.INVALID_PARAMS: 422,
    Code.INVALID_ARGUMENT: 400,
    Code.INVALID_SPEC: 422,
    Code.INVALID_CONFIG: 500,
    Code.TASK_NOT_READY: 409,
    Code.TASK_PAUSED: 409,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.CONFLICT: 409,
    Code.ASK_MISMATCH: 409,
    Code.DECLINED: 409,
    Code.AGENT_FAILED: 500,
    Code.TOO_LARGE: 413,
    Code.RATE_LIMITED: 429,
    Code.NOT_SUPPORTED: 501,
    Code.SANDBOX_UNAVAILABLE: 503,
    Code.SECRET_MISSING: 409,
    Code.SECRETS_LOCKED: 503,
    Code.RUNTIME_UNAVAILABLE: 503,
    Code.STORAGE_FULL: 507,
    Code.STORAGE_UNAVAILABLE: 503,
    Code.ALREADY_RUNNING: 409,
    Code.PORT_IN_USE: 500,
    Code.DATA_DIR: 500,
    Code.SHUTTING_DOWN: 503,
    Code.UNREACHABLE: 502,
    Code.INTERNAL: 500,
}

_CODE_OF_STATUS = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.NOT_SUPPORTED,
    408: Code.INVALID_ARGUMENT,
    413: Code.TOO_LARGE,
    503: Code.SHUTTING_DOWN,
}


class Problem(JSONResponse):
    """An error as a problem document, or as a page where the request asks for one."""

    media_type = MEDIA_TYPE

    def __init__(self, error: DicodeError, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(document(error, status), status, {"vary": "Accept", **headers})
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in the form the request asks for."""
        if not wants_page(scope):
            await super().__call__(scope, receive, send)
            return
        text = frame.error_document(self.status_code, self._error.message, self._error.hint)
        answer = HTMLResponse(text, self.status_code, frame.HEADERS)
        for name in ("vary", "www-authenticate", "allow", "connection", "retry-after"):
            if name in self.headers:
                answer.headers[name] = self.headers[name]
        await answer(scope, receive, send)


def wants_page(scope: Scope) -> bool:
    """Tell whether a request is a browser's for a page: it names HTML and does not name JSON."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    accept = ",".join(Headers(scope=scope).getlist("accept")).lower()
    return "text/html" in accept and "json" not in accept


def problem(error: DicodeError, *, status: int | None = None) -> Problem:
    """Give an error as a problem: ``{type, title, status, detail, code, hint?, data?}``."""
    status = status or STATUS.get(error.code, 500)
    headers = {"cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="dicode"'
    return Problem(error, status, headers)


def document(error: DicodeError, status: int) -> dict[str, Any]:
    """Give the body of a problem document."""
    wire = error.as_dict()
    return {
        "type": f"urn:dicode:error:{error.code.value}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": wire.pop("message"),
        **wire,
    }


async def on_dicode_error(request: Request, error: Exception) -> Problem:
    """Answer one of our errors that a route raised."""
    if not isinstance(error, DicodeError):
        raise error
    return problem(error)


async def on_http_error(request: Request, error: Exception) -> Problem:
    """Answer what the router or a route refused by status (404, 405, …)."""
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    code = _CODE_OF_STATUS.get(status, Code.INTERNAL if status >= 500 else Code.INVALID_ARGUMENT)
    response = problem(DicodeError(code, _sentence(status, error.detail)), status=status)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def on_crash(request: Request, error: Exception) -> Problem:
    """Answer a bug of ours without showing it; Starlette raises it again for the log."""
    return problem(
        DicodeError(
            Code.INTERNAL,
            "the server failed on this request",
            hint="the server's log has the details",
        )
    )


def _sentence(status: int, detail: str) -> str:
    if status == 404 and detail == HTTPStatus(404).phrase:
        return "there is nothing at this path"
    if status == 405 and detail == HTTPStatus(405).phrase:
        return "this path does not take this method"
    return detail
