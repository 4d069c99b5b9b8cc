"""The tool that approves a version: a human is asked here, whatever the caller says."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, cast

import mcp_types as t

from dicode_mcp.spec.model import Task
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.questions import Reply, form
from dicode_mcp.tools.registry import Answer, Call, ToolDef
from dicode_mcp.tools.reviews import review_text

_ASKED_HERE = secrets.token_bytes(32)
_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "approve": {
            "type": "boolean",
            "title": "Approve this version",
            "description": "It may then run and do what is shown.",
        }
    },
    "required": ["approve"],
}


async def approve_task(call: Call, args: dict[str, Any]) -> Answer:
    """Ask a human about the version that waits, and put it in force when the answer is yes."""
    services, principal = call.services.approvals, call.principal
    review = await services.review(principal, args["id"], args["hash"])
    task = review.task
    # A key says itself whether a human stands behind it: whoever holds it could answer here too.
    asked = not review.over and principal.scopes is None
    question = form(review_text(review), _SCHEMA)
    by_human = False
    if asked and call.client.can(question):
        name = _question_name(task)
        by_human = _said_yes((await call.client.ask({name: question}))[name])
        if not by_human:
            return Answer({"id": task.id, "hash": task.digest, "approved": False})
    return Answer(await services.approve(principal, task.id, task.digest, by_human=by_human))


def _question_name(task: Task) -> str:
    """Name the question so that only an answer to it fits: nobody can know it before it is put."""
    about = f"{task.id} {task.digest}".encode()
    return f"approve {hmac.new(_ASKED_HERE, about, hashlib.sha256).hexdigest()[:32]}"


def _said_yes(reply: Reply) -> bool:
    if not isinstance(reply, t.ElicitResult) or reply.action != "accept":
        return False
    return cast("Mapping[str, Any]", reply.content or {}).get("approve") is True


TOOLS = (
    ToolDef(
        name="approve_task",
        title="Approve a version",
        description=(
            "Put a version that waits for an approval in force. It is asked for by its hash, as "
            "get_task shows it under pending; show the user pending.grants and pending.changes "
            "first. You cannot approve by yourself: a human is asked by your client (elicitation); "
            "where it cannot, the error names the command to type. approved false: the human said "
            "no."
        ),
        input_schema=s.arguments(
            {
                "id": s.TASK_ID,
                "hash": s.text(
                    "pending.hash of get_task: the version that was reviewed.", max_length=64
                ),
            },
            "id",
            "hash",
        ),
        output_schema=s.shape(
            {
                "id": {"type": "string"},
                "hash": {"type": "string"},
                "approved": {"type": "boolean"},
                "in_force": {"type": "boolean"},
            },
            "id",
            "hash",
            "approved",
        ),
        annotations=t.ToolAnnotations(
            title="Approve a version",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=True,
            open_world_hint=False,
        ),
        toolset="sharing",
        verb="approve",
        by_asking="author",
        handler=approve_task,
    ),
)
