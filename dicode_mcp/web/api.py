"""``/api/sources``: each handler asks one service and answers what it gives."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.service import Services
from dicode_mcp.web.api_parts import answer, body_of, principal_of

_DEV_KEYS = {"enabled": bool, "local_path": str, "branch": str}


class Api:
    """The handlers below ``/api/sources``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        return [
            Route("/api/sources", self._sources),
            Route("/api/sources/{name}/dev", self._dev, methods=["PATCH"]),
        ]

    async def _sources(self, request: Request) -> Response:
        return answer(await self._services.sources.list(principal_of(request)))

    async def _dev(self, request: Request) -> Response:
        principal = principal_of(request)
        body = await body_of(request, _DEV_KEYS, "enabled")
        source = await self._services.dev_mode.switch(
            principal,
            request.path_params["name"],
            enabled=body["enabled"],
            local_path=body.get("local_path"),
            branch=body.get("branch"),
        )
        return answer(source)
