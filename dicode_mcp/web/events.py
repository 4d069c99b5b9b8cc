"""``GET /api/events``: what changes as a stream of server-sent events, or one run to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.events import RunProgress
from dicode_mcp.runs.logs import Level
from dicode_mcp.service.events import EventsService, Lines, Moved, Told, Wanted
from dicode_mcp.service.principal import Principal
from dicode_mcp.service.views import log_view, run_line
from dicode_mcp.web.event_stream import EventStream

EVENTS_PATH = "/api/events"
MAX_STREAMS = 256
_QUERY = frozenset({"run", "task", "types", "after", "level"})
_MAX_SEQ = 2**53


class EventRoutes:
    """The event streams of whoever the guard knows."""

    def __init__(self, events: EventsService, *, max_streams: int = MAX_STREAMS) -> None:
        self._events = events
        self._max_streams = max_streams

    def routes(self) -> list[BaseRoute]:
        """Give the route for ``create_app``."""
        return [Route(EVENTS_PATH, self._open)]

    async def _open(self, request: Request) -> Response:
        found: object = getattr(request.state, "principal", None)
        if not isinstance(found, Principal):
            raise DicodeError(Code.UNAUTHENTICATED, "the caller is not known")
        principal = found.narrowed(surface="http", read_only=True)
        if self._events.readers >= self._max_streams:
            raise too_many(self._max_streams)
        query = request.query_params
        unknown = sorted(set(query) - _QUERY)
        if unknown:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                f"the query holds {unknown[0][:32]!r}, which is not known",
                hint=f"use some of {', '.join(sorted(_QUERY))}",
            )
        resume = request.headers.get("last-event-id")
        if "run" in query:
            return await self._run(request, principal, resume)
        _only_with_run(request)
        types = {word for word in query.get("types", "").split(",") if word}
        wanted = Wanted(frozenset(types), query.get("task") or None)
        return EventStream(self._events.changes(principal, wanted, resume))

    async def _run(self, request: Request, principal: Principal, resume: str | None) -> Response:
        query = request.query_params
        if "types" in query or "task" in query:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                "run stands beside types or task",
                hint="with run all events of that run are sent; leave the others out",
            )
        run = await self._events.run_for(principal, query["run"])
        after = read_seq(resume.rpartition(":")[2]) if resume else read_seq(query.get("after"))
        level = read_level(query.get("level"))
        return EventStream(_of_run(self._events, principal, run.id, after, level))


def _only_with_run(request: Request) -> None:
    for name in ("after", "level"):
        if name in request.query_params:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                f"{name} is about the log of one run",
                hint="add run=RUN_ID",
            )


async def _of_run(
    events: EventsService, principal: Principal, run_id: str, after: int, level: Level | None
) -> AsyncGenerator[Told | None]:
    following = events.follow(run_id, after=after, level=level, principal=principal)
    async with aclosing(following):
        async for told in following:
            match told:
                case Moved(run):
                    yield Told("run", run_line(run), f"{run_id}:{after}")
                case Lines(lines):
                    for line in lines:
                        after = line.seq
                        yield Told("log", {"run_id": run_id, **log_view(line)}, f"{run_id}:{after}")
                case RunProgress():
                    yield Told("progress", progress_view(told))
                case None:
                    yield None


def progress_view(progress: RunProgress) -> dict[str, object]:
    """Show how far a run is; ``total`` is absent when unknown."""
    total = {} if progress.total is None else {"total": progress.total}
    return {"done": progress.done, **total, "message": progress.message}


def read_seq(text: str | None) -> int:
    """Read the number of a log line; absent is 0. Raises INVALID_ARGUMENT."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 17 and int(text) < _MAX_SEQ):
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "after (or Last-Event-ID) is not the number of a log line",
            hint="leave it out to have the log from its start",
        )
    return int(text)


def read_level(text: str | None) -> Level | None:
    """Read the name of a level; absent is all. Raises INVALID_ARGUMENT."""
    if not text:
        return None
    try:
        return Level.parse(text)
    except ValueError:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "level is not one that log lines have",
            hint=f"use one of {', '.join(level.label for level in Level)}",
        ) from None


def too_many(streams: int) -> DicodeError:
    """Give the refusal of one stream more than there may be."""
    return DicodeError(
        Code.RATE_LIMITED,
        f"the server already serves {streams} event streams",
        hint="close idle readers, then open the stream again",
        retry=Retry.BACKOFF,
    )
