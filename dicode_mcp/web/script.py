"""``/dicode.js``: what the pages of tasks load. Its file is part of the SDK."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import dicode_sdk
from dicode_mcp.web.hook_frame import SCRIPT_PATH
from dicode_mcp.web.hook_pages import tagged

_HEADERS = {
    "content-type": "text/javascript; charset=utf-8",
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    # A task's page has an origin of its own, so it is another site's page to a browser.
    "cross-origin-resource-policy": "cross-origin",
}


def script_routes() -> list[BaseRoute]:
    """Give the route for ``create_app``."""
    return [Route(SCRIPT_PATH, _script)]


@cache
def _text() -> bytes:
    return (Path(dicode_sdk.__file__).parent / "browser" / "dicode.js").read_bytes()


async def _script(request: Request) -> Response:
    return tagged(request.headers, _text(), _HEADERS)
