"""``POST /hooks/git/<source>``: a forge says that something was pushed."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.service.pushes import HEADERS, PushService

PREFIX = "/hooks/git/"
_OTHERS = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"]


class GitHooks:
    """The push webhooks of git sources. They prove themselves, so strangers may call."""

    def __init__(self, pushes: PushService) -> None:
        self._pushes = pushes

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        return [
            Route(f"{PREFIX}{{source}}", self._pushed, methods=["POST"]),
            # Webhooks of tasks take what is left below /hooks, and every method of it.
            Route(f"{PREFIX}{{source}}", self._other, methods=_OTHERS),
        ]

    async def _other(self, request: Request) -> Response:
        raise HTTPException(405, headers={"allow": "POST"})

    async def _pushed(self, request: Request) -> Response:
        proofs = {name: request.headers[name] for name in HEADERS if name in request.headers}
        pulls = await self._pushes.pushed(
            request.path_params["source"], proofs, await request.body()
        )
        return JSONResponse({"pulls": pulls}, 202, headers={"cache-control": "no-store"})
