"""The JSON API: each handler asks one service and answers what it gives.

Errors are problem documents; what a body must look like is said here, what it means is not.
"""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service import Principal, Services

MAX_BODY = 64 * 1024
_DEV_KEYS = {"enabled": bool, "local_path": str, "branch": str}
_NAMES = {bool: "true or false", str: "text"}


class Api:
    """The handlers below ``/api``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        return [
            Route("/api/sources", self._sources),
            Route("/api/sources/{name}/dev", self._dev, methods=["PATCH"]),
        ]

    async def _sources(self, request: Request) -> Response:
        return _answer(await self._services.sources.list(_principal(request)))

    async def _dev(self, request: Request) -> Response:
        principal = _principal(request)
        body = await _object(request, _DEV_KEYS, "enabled")
        source = await self._services.dev_mode.switch(
            principal,
            request.path_params["name"],
            enabled=body["enabled"],
            local_path=body.get("local_path"),
            branch=body.get("branch"),
        )
        return _answer(source)


def _answer(value: dict[str, Any]) -> Response:
    return JSONResponse(value, headers={"cache-control": "no-store"})


def _principal(request: Request) -> Principal:
    """Give the caller the guard established; refuse when there is none."""
    found: object = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise DicodeError(Code.UNAUTHENTICATED, "the caller is not known")
    return found.narrowed(surface="http")


async def _object(request: Request, keys: dict[str, type], *required: str) -> dict[str, Any]:
    """Read a JSON object of known keys; null is absent. Raises INVALID_ARGUMENT, all at once."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _invalid("the body is not declared as JSON", "send Content-Type: application/json")
    text = await request.body()
    if len(text) > MAX_BODY:
        raise DicodeError(Code.TOO_LARGE, f"the body is over {MAX_BODY} bytes")
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid("the body is not JSON", "send one JSON object") from None
    if not isinstance(parsed, dict):
        raise _invalid("the body is not a JSON object", "send one JSON object")
    given = cast("dict[str, Any]", parsed)
    found = {name: value for name, value in given.items() if value is not None}
    faults = [f"{name} is missing" for name in required if name not in found]
    unknown = sorted(name for name in found if name not in keys)
    faults += [f"{name[:64]!r} is not known" for name in unknown]
    faults += [
        f"{name} must be {_NAMES[keys[name]]}"
        for name, value in found.items()
        if name in keys and type(value) is not keys[name]
    ]
    if faults:
        raise _invalid("; ".join(faults[:20]), f"keys: {', '.join(keys)}")
    return found


def _invalid(message: str, hint: str) -> DicodeError:
    return DicodeError(Code.INVALID_ARGUMENT, message, hint=hint)
