"""The tools on keys, kept from agents: whoever makes a key gives his own rights to somebody.

They are offered to the connection of the CLI and to a key with the scope ``admin``.
"""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import ADMIN_TOOLSET, Answer, Call, ToolDef

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_KEY = {
    "id": _TEXT,
    "name": _TEXT,
    "scopes": _TEXTS,
    "state": {"enum": ["active", "expired", "revoked"]},
    "created_at": _TEXT,
    "created_by": _TEXT,
    "expires_at": _TEXT,
    "last_used_at": _TEXT,
    "revoked_at": _TEXT,
}


async def keys_create(call: Call, args: dict[str, Any]) -> Answer:
    """Make a key."""
    made = await call.services.keys.create(
        call.principal, args["name"], args["scopes"], expires=args.get("expires")
    )
    return Answer(made)


async def keys_list(call: Call, args: dict[str, Any]) -> Answer:
    """Show the keys."""
    return Answer(call.services.keys.list(call.principal))


async def keys_revoke(call: Call, args: dict[str, Any]) -> Answer:
    """End a key."""
    return Answer(await call.services.keys.revoke(call.principal, args["key"]))


def _hints(title: str, *, reads: bool = False, destroys: bool = False) -> t.ToolAnnotations:
    return t.ToolAnnotations(
        title=title,
        read_only_hint=reads,
        destructive_hint=destroys,
        idempotent_hint=reads or destroys,
        open_world_hint=False,
    )


TOOLS = (
    ToolDef(
        name="keys_create",
        title="Make a key",
        description=(
            "Make a bearer key for the HTTP side (Authorization: Bearer dck_…). key is shown in "
            "this answer and never again. A scope is a verb (read run author approve secrets "
            "admin), alone or with a glob: run:infra/*."
        ),
        input_schema=s.arguments(
            {
                "name": s.text("Who gets it; shown in the audit log.", max_length=64),
                "scopes": {
                    "type": "array",
                    "items": s.text("verb or verb:glob", max_length=220),
                    "minItems": 1,
                    "maxItems": 64,
                    "description": "What it may do; no verb implies another.",
                },
                "expires": s.text("How long it lasts, e.g. 90d; for ever without.", max_length=32),
            },
            "name",
            "scopes",
        ),
        output_schema=s.shape({"key": _TEXT, **_KEY}, "key", "id", "name", "scopes"),
        annotations=_hints("Make a key"),
        toolset=ADMIN_TOOLSET,
        verb="admin",
        handler=keys_create,
    ),
    ToolDef(
        name="keys_list",
        title="List keys",
        description="Show every key's name, scopes and last use, newest first; never a key itself.",
        input_schema=s.arguments({}),
        output_schema=s.shape({"keys": s.LIST}, "keys"),
        annotations=_hints("List keys", reads=True),
        toolset=ADMIN_TOOLSET,
        verb="admin",
        handler=keys_list,
    ),
    ToolDef(
        name="keys_revoke",
        title="Revoke a key",
        description=(
            "End a key at once, by id or name: open streams and sessions end, and runs it asked "
            "for that have not begun are skipped. Runs that are on go on."
        ),
        input_schema=s.arguments({"key": s.text("Its id or name.", max_length=128)}, "key"),
        output_schema=s.shape(_KEY, "id", "name", "state"),
        annotations=_hints("Revoke a key", destroys=True),
        toolset=ADMIN_TOOLSET,
        verb="admin",
        handler=keys_revoke,
    ),
)
