"""What a webhook shows to a browser: its task's page, the files below it, and its own runs.

Which files and which runs these are is decided by services; here they become answers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.hook_runs import HookRuns
from dicode_mcp.service.page_files import PageFile, open_page_file
from dicode_mcp.triggers.webhook.table import Match
from dicode_mcp.web.event_stream import EventStream
from dicode_mcp.web.events import MAX_STREAMS, read_seq, too_many
from dicode_mcp.web.guard import caller_of
from dicode_mcp.web.hook_frame import SCRIPT_PATH, PageKeys, page_headers
from dicode_mcp.web.page_html import insert_into_head, page_elements
from dicode_mcp.web.ranges import Range, asked_range
from dicode_mcp.web.sessions import session_of

RUNS = "/.dicode/runs/"
MAX_HTML = 4 * 2**20
_PIECE = 256 * 1024
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class TaskPages:
    """Answers GET and HEAD below webhooks; the ``HookPages`` of ``web/hooks.py``."""

    def __init__(self, runs: HookRuns, keys: PageKeys, *, max_streams: int = MAX_STREAMS) -> None:
        self._runs = runs
        self._keys = keys
        self._max_streams = max_streams

    async def answer(self, request: Request, match: Match) -> Response | None:
        """Give the page, file or run that ``match.rest`` names; None when there is none."""
        if match.rest.startswith(RUNS):
            return await self._run(request, match)
        return await self.file(request, match)

    async def file(self, request: Request, match: Match) -> Response | None:
        """Give the page or file that ``match.rest`` names; None when there is none."""
        file = await asyncio.to_thread(open_page_file, match.task.folder, match.rest)
        if file is None:
            return None
        headers = page_headers(request.url.scheme, request.headers["host"], match.path)
        headers["cache-control"] = "no-cache"
        if file.is_html:
            return await self._document(request, match, file, headers)
        return FileAnswer(file, request.headers, headers)

    async def _document(
        self, request: Request, match: Match, file: PageFile, headers: dict[str, str]
    ) -> Response:
        with file:
            if file.size > MAX_HTML:
                raise DicodeError(
                    Code.TOO_LARGE,
                    f"this page is larger than {MAX_HTML // 2**20} MiB",
                    hint="load what is large from files beside it",
                )
            data = await asyncio.to_thread(file.read, 0, MAX_HTML)
        session = session_of(request.scope) if match.task.spec.trigger.auth else None
        key = self._keys.of(match.task.id, match.path, session.id if session else None)
        elements = page_elements(match.task.id, match.path, key, SCRIPT_PATH)
        body, charset = with_elements(data, elements)
        headers["content-type"] = f"text/html{charset}"
        return tagged(request.headers, body, headers)

    async def _run(self, request: Request, match: Match) -> Response | None:
        run_id, _, what = match.rest.removeprefix(RUNS).partition("/")
        trigger = match.task.spec.trigger
        principal = await caller_of(request) if trigger.auth or trigger.webhook_secret else None
        if what == "":
            wait_s = read_wait(request.query_params.get("wait"))
            shown = await self._runs.get(match.task, run_id, wait_s=wait_s, principal=principal)
            return JSONResponse(shown, headers={"cache-control": "no-store"})
        if what != "events":
            return None
        if self._runs.streams >= self._max_streams:
            raise too_many(self._max_streams)
        resume = request.headers.get("last-event-id") or request.query_params.get("after")
        events = await self._runs.follow(
            match.task, run_id, after=read_seq(resume), principal=principal
        )
        return EventStream(events)


class FileAnswer(Response):
    """A file's bytes, or a range of them, read in pieces while they are sent."""

    def __init__(
        self, file: PageFile, asked: Mapping[str, str], headers: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._file = file
        tag = f'"{file.tag}"'
        self._seen = asked.get("if-none-match", "").removeprefix("W/") == tag
        fresh = asked.get("if-range") in (None, tag)
        self._range = asked_range(asked.get("range") if fresh else None, file.size)
        self._head = {
            **headers,
            "content-type": file.media_type,
            "etag": tag,
            "accept-ranges": "bytes",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._file:
            status, part = 200, Range(0, self._file.size)
            if self._seen:
                status, part = 304, Range(0, 0)
            elif self._range is not None:
                status, part = (206, self._range) if self._range.size else (416, self._range)
                self._head["content-range"] = self._range.header(self._file.size)
            if status != 304:
                self._head["content-length"] = str(part.size)
            raw = [(k.encode(), v.encode("latin-1")) for k, v in self._head.items()]
            await send({"type": "http.response.start", "status": status, "headers": raw})
            if scope["method"] != "HEAD":
                await self._send(part, send)
            await send({"type": "http.response.body", "body": b""})

    async def _send(self, part: Range, send: Send) -> None:
        at, left = part.start, part.size
        while left > 0:
            data = await asyncio.to_thread(self._file.read, at, min(left, _PIECE))
            if not data:
                raise OSError("a page's file was cut short while it was sent")
            await send({"type": "http.response.body", "body": data, "more_body": True})
            at, left = at + len(data), left - len(data)


def with_elements(data: bytes, elements: str) -> tuple[bytes, str]:
    """Give a document with our elements in its head, and what the header says of its charset.

    A document that is not UTF-8 keeps its bytes, and says itself what they mean.
    """
    if data.startswith(_UTF16):
        data = data.decode("utf-16", "replace").encode()
    try:
        text, charset = data.decode(), "; charset=utf-8"
    except UnicodeDecodeError:
        text, charset = data.decode("utf-8", "surrogateescape"), ""
    return insert_into_head(text, elements).encode("utf-8", "surrogateescape"), charset


def tagged(asked: Mapping[str, str], body: bytes, headers: Mapping[str, str]) -> Response:
    """Answer with ``body`` and its hash as ETag, or with 304 when the caller has it."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    head = {**headers, "etag": tag}
    if asked.get("if-none-match", "").removeprefix("W/") == tag:
        return Response(status_code=304, headers=head)
    return Response(body, headers=head)


def read_wait(text: str | None) -> float:
    """Read how many seconds to wait for a run's end; absent is 0. Raises INVALID_ARGUMENT."""
    if not text:
        return 0.0
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise DicodeError(
            Code.INVALID_ARGUMENT, "wait is not a number of seconds", hint="use 0 to 25"
        )
    return float(text)
