"""The floor of every webhook: uvicorn and Starlette that read a body and answer a constant.

    python -m bench.constant

Prints its port once it listens, and serves until it is ended. Nothing of ours is in it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.house import stop
from bench.row import Unmeasurable


async def _answer(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse({"runId": "0" * 26}, 202)


async def _serve() -> None:
    app = Starlette(routes=[Route("/", _answer, methods=["POST"])])
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http="h11", ws="none", log_config=None, access_log=False)
    )
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await serving


@contextmanager
def constant() -> Generator[int]:
    """Keep such a server while the block lasts; gives its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.constant"],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise Unmeasurable("the constant server did not start")
            yield int(port)
        finally:
            stop(process)


if __name__ == "__main__":
    asyncio.run(_serve())
