"""The tool on the audit log. It translates arguments and results; rules are in ``service``."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.clock import parse_iso
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.protocols import AuditQuery
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import Answer, Call, ToolDef

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

_STRING: s.Schema = {"type": "string"}


async def get_audit(call: Call, args: dict[str, Any]) -> Answer:
    """Show entries, or check that they are those that were written."""
    if args.get("verify"):
        return Answer(await call.services.trail.verify(call.principal))
    query = AuditQuery(
        action=args.get("action"),
        actor=args.get("actor"),
        target=args.get("target"),
        since_ms=_epoch_ms(args.get("since")),
    )
    return Answer(
        await call.services.trail.entries(
            call.principal,
            query,
            limit=args.get("limit", DEFAULT_LIMIT),
            cursor=args.get("cursor"),
            export=args.get("export", False),
        )
    )


def _epoch_ms(text: str | None) -> int | None:
    try:
        return None if text is None else parse_iso(text)
    except ValueError:
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            "'since' must be an ISO 8601 time or date",
            hint="for example 2026-05-01T12:00:00Z",
        ) from None


TOOLS = (
    ToolDef(
        name="get_audit",
        title="Read the audit log",
        description=(
            "Show who did what to the server: every control action and refused call with actor, "
            "surface, target and outcome (ok, or an error's code), newest first. verify checks "
            "instead that no entry was changed or taken out."
        ),
        input_schema=s.arguments(
            {
                "action": s.text("Only this action, e.g. run_task.", max_length=64),
                "actor": s.text("Only this actor, e.g. local; key:ci* for all that begin so."),
                "target": s.text("Only this target; infra/* for all that begin so."),
                "since": s.text("Only from this time on.", max_length=64),
                "limit": s.whole("Most entries.", 1, MAX_LIMIT, DEFAULT_LIMIT),
                "cursor": s.text("next_cursor of the last page.", max_length=32),
                "export": {
                    "type": "boolean",
                    "description": "Oldest first, with chain values.",
                },
                "verify": {
                    "type": "boolean",
                    "description": "Check the whole log; entries: where it breaks.",
                },
            }
        ),
        output_schema=s.shape(
            {
                "entries": {"type": "array", "items": {"type": "object"}},
                "next_cursor": _STRING,
                "intact": {"type": "boolean"},
                "checked": {"type": "integer"},
                "since": _STRING,
                "until": _STRING,
                "problem": _STRING,
            },
            "entries",
        ),
        annotations=t.ToolAnnotations(
            title="Read the audit log",
            read_only_hint=True,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="status",
        verb="admin",
        handler=get_audit,
    ),
)
