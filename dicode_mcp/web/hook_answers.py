"""What a webhook's sender is answered once a run stands: its output, its value, or its failure."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from dicode_mcp.runs.model import Output, Run, RunStatus

RUN_ID = "x-run-id"
_NO_STORE = {"cache-control": "no-store"}
# A header is made of it, so nothing else than a media type may pass.
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(; ?[a-z0-9_.-]+=[a-z0-9_.-]+)*", re.A)

STATUS: Mapping[RunStatus, int] = {
    RunStatus.SUCCESS: 200,
    RunStatus.FAILURE: 500,
    RunStatus.LOST: 500,
    RunStatus.TIMEOUT: 504,
    RunStatus.CANCELLED: 503,
    RunStatus.SKIPPED: 409,
}
"""The HTTP status of a run that has ended; one that has not is 202."""


def accepted(run: Run) -> Response:
    """Answer with the id of a run that goes on, or that nobody waits for."""
    return JSONResponse({"runId": run.id}, 202, headers={RUN_ID: run.id, **_NO_STORE})


def ended(
    run: Run, frame: Mapping[str, str], logs: Sequence[Mapping[str, Any]] | None = None
) -> Response:
    """Answer with what a run came to. ``frame`` are headers for bytes that are a task's."""
    if run.status is not RunStatus.SUCCESS:
        return _failed(run, logs)
    headers = {**frame, RUN_ID: run.id, **_NO_STORE}
    if run.output is not None:
        return _shown(run.output, headers)
    value = run.return_value if run.return_value is not None else "null"
    return Response(value, 200, headers, media_type="application/json")


def _failed(run: Run, logs: Sequence[Mapping[str, Any]] | None) -> Response:
    error = {"code": run.reason or run.status.value, "message": f"the run is {run.status.value}"}
    if run.error is not None:
        error = {"code": run.error.code, "message": run.error.message}
    body: dict[str, Any] = {"runId": run.id, "status": run.status.value, "error": error}
    if logs is not None:
        body["logs"] = list(logs)
    return JSONResponse(body, STATUS[run.status], headers={RUN_ID: run.id, **_NO_STORE})


def _shown(output: Output, headers: Mapping[str, str]) -> Response:
    kind = output.content_type.lower()
    if not _TYPE.fullmatch(kind):
        kind = "application/octet-stream"
    if kind.startswith("text/") and "charset=" not in kind:
        kind += "; charset=utf-8"
    named = {"content-type": kind}
    if output.kind == "file":
        named["content-disposition"] = _attachment(output.name or "file")
    return Response(_bytes(output), 200, {**headers, **named})


def _bytes(output: Output) -> bytes:
    if not output.base64:
        return output.body.encode("utf-8", "replace")
    try:
        return b64decode(output.body)
    except (binascii.Error, ValueError):
        return output.body.encode("utf-8", "replace")


def _attachment(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"
