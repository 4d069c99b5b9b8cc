"""``/api/secrets``: names are listed, values are taken and never given."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.secrets.vault import MAX_VALUE
from dicode_mcp.service.secrets import SecretsService
from dicode_mcp.web.api_parts import answer, body_of, principal_of, query_of

MAX_BODY = 8 * MAX_VALUE
"""Bytes of JSON: each byte of a value may be written as ``\\u00XX``."""


class SecretsApi:
    """The handlers below ``/api/secrets``."""

    def __init__(self, secrets: SecretsService) -> None:
        self._secrets = secrets

    def routes(self) -> list[BaseRoute]:
        """Give the routes for ``create_app``."""
        return [
            Route("/api/secrets", self._list),
            Route("/api/secrets/{name}", self._put, methods=["PUT"]),
            Route("/api/secrets/{name}", self._delete, methods=["DELETE"]),
        ]

    async def _list(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        return answer(self._secrets.list(principal))

    async def _put(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        body = await body_of(request, {"value": str}, "value", most=MAX_BODY)
        name = request.path_params["name"]
        done = await self._secrets.set(principal, name, value=body["value"])
        return answer(done, 201 if done["created"] else 200)

    async def _delete(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        return answer(await self._secrets.delete(principal, request.path_params["name"]))
