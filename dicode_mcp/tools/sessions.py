"""The tool on the owner's passphrase, kept from agents: who sets it can log in as the owner."""

from __future__ import annotations

from typing import Any

import mcp_types as t

from dicode_mcp.service.passphrases import MAX_BYTES, MIN_LENGTH
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import ADMIN_TOOLSET, Answer, Call, ToolDef


async def passphrase_set(call: Call, args: dict[str, Any]) -> Answer:
    """Set the passphrase."""
    count = await call.services.sessions.set_passphrase(call.principal, args["passphrase"])
    return Answer({"set": True, "sessions_ended": count})


TOOLS = (
    ToolDef(
        name="passphrase_set",
        title="Set the passphrase",
        description=(
            "Set the passphrase with which the owner logs in to the pages (/login); every session "
            "ends. Only a hash of it is kept. For the owner on the server's machine; no key may."
        ),
        input_schema=s.arguments(
            {
                "passphrase": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_BYTES,
                    "description": f"At least {MIN_LENGTH} characters.",
                }
            },
            "passphrase",
        ),
        output_schema=s.shape(
            {"set": {"type": "boolean"}, "sessions_ended": {"type": "integer"}}, "set"
        ),
        annotations=t.ToolAnnotations(
            title="Set the passphrase",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset=ADMIN_TOOLSET,
        verb="admin",
        handler=passphrase_set,
        of_owner=True,
    ),
)
