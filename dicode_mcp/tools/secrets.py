"""The tools on secrets. None of them gives a value; the one that takes one never repeats it."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Any

import mcp_types as t

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.secrets.vault import MAX_VALUE
from dicode_mcp.tools import schemas as s
from dicode_mcp.tools.registry import ADMIN_TOOLSET, Answer, Call, ToolDef

NAME = s.text("The secret's name, as env entries say it: {name: X, secret: NAME}.", max_length=128)
_TICKET = "ticket"
_USERS = {"type": "array", "items": {"type": "string"}}
_LINES = {"type": "array", "items": {"type": "object"}}


WAIT_S = 50.0
"""How long a call waits for its user to type: below the time after which clients give a call up."""
_GIVEN = ("value", "from_env", "from_file")


async def secrets_set(call: Call, args: dict[str, Any]) -> Answer:
    """Set a secret; with no value given, its user types it on a page of this server."""
    if not any(name in args for name in _GIVEN):
        return Answer(await _typed(call, args["name"]))
    answer = await call.services.secrets.set(
        call.principal,
        args["name"],
        value=args.get("value"),
        from_env=args.get("from_env"),
        from_file=args.get("from_file"),
    )
    return Answer(answer)


async def _typed(call: Call, name: str) -> dict[str, Any]:
    """Ask the client to show its user the page, never a form: what a form holds, agents see."""
    invitations = call.services.invitations
    if not call.client.can(_question(name, "", "")):
        raise _by_command(name)
    found = invitations.of(call.principal, call.client.recall(_TICKET), name)
    found = found or invitations.give(call.principal, name)
    if found is None:
        raise _by_command(name)
    question = _question(name, invitations.url(found), found.ticket)
    reply = (await call.client.ask({"secret": question}, keep={_TICKET: found.ticket}))["secret"]
    if not isinstance(reply, t.ElicitResult) or reply.action != "accept":
        raise _by_command(name, "the user did not open the page on which to type it")
    with suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S):
            await found.done.wait()
    if found.answer is None:
        raise DicodeError(
            Code.SECRET_MISSING,
            f"the user has not typed the value of '{name}' yet",
            hint="the page stays open for ten minutes; secrets_list shows whether it is set by now",
            data={"secret": name},
            retry=Retry.AFTER,
        )
    return found.answer


def _question(name: str, url: str, ticket: str) -> t.ElicitRequest:
    known = hashlib.sha256(ticket.encode()).hexdigest()[:32]
    return t.ElicitRequest(
        params=t.ElicitRequestURLParams(
            message=f"Type the value of the secret '{name}' on this page of your dicode server.",
            url=url,
            elicitation_id=known,
        )
    )


def _by_command(name: str, why: str = "no value was given") -> DicodeError:
    return DicodeError(
        Code.INVALID_ARGUMENT,
        f"secrets_set: {why}",
        hint=f"let the user type it in a terminal: dicode secrets set {name[:128]}; or give exactly"
        " one of value, from_env and from_file",
    )


async def secrets_list(call: Call, args: dict[str, Any]) -> Answer:
    """List names."""
    return Answer(call.services.secrets.list(call.principal))


async def secrets_delete(call: Call, args: dict[str, Any]) -> Answer:
    """Forget a secret."""
    return Answer(await call.services.secrets.delete(call.principal, args["name"]))


async def secrets_rotate(call: Call, args: dict[str, Any]) -> Answer:
    """Change the master key."""
    return Answer(await call.services.rotation.rotate(call.principal))


def _hints(title: str, *, reads: bool = False, destroys: bool = False) -> t.ToolAnnotations:
    return t.ToolAnnotations(
        title=title,
        read_only_hint=reads,
        destructive_hint=destroys,
        idempotent_hint=True,
        open_world_hint=False,
    )


TOOLS = (
    ToolDef(
        name="secrets_set",
        title="Set a secret",
        description=(
            "Keep a value, encrypted, for tasks that declare it (permissions.env: {name, secret}). "
            "Best give the name alone: then your user types the value on a page of this server "
            "(URL elicitation), or the error has the command to type. Else give one of from_env, "
            "from_file and value; a value passes through this conversation. It cannot be read back "
            "by anybody; running tasks keep what they started with."
        ),
        input_schema=s.arguments(
            {
                "name": NAME,
                "value": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_VALUE,
                    "description": "The value itself.",
                },
                "from_env": s.text("A variable of the server's environment.", max_length=128),
                "from_file": s.text("Absolute path of a file on the server.", max_length=4096),
            },
            "name",
        ),
        output_schema=s.shape(
            {"name": {"type": "string"}, "created": {"type": "boolean"}, "used_by": _USERS},
            "name",
            "created",
            "used_by",
        ),
        annotations=_hints("Set a secret", destroys=True),
        toolset="secrets",
        verb="secrets",
        handler=secrets_set,
    ),
    ToolDef(
        name="secrets_list",
        title="List secrets",
        description=(
            "Show the names of the secrets there are, when each was last set and which tasks ask "
            "for it; missing: names that tasks ask for and nobody has set (their runs fail with "
            "secret_missing). Values are never shown."
        ),
        input_schema=s.arguments({}),
        output_schema=s.shape(
            {"secrets": _LINES, "missing": _LINES, "elsewhere": _LINES}, "secrets"
        ),
        annotations=_hints("List secrets", reads=True),
        toolset="secrets",
        verb="read",
        handler=secrets_list,
    ),
    ToolDef(
        name="secrets_delete",
        title="Delete a secret",
        description=(
            "Forget a secret for good. breaks names the tasks that ask for it and will fail with "
            "secret_missing from their next run on; look at used_by of secrets_list first."
        ),
        input_schema=s.arguments({"name": NAME}, "name"),
        output_schema=s.shape(
            {"name": {"type": "string"}, "deleted": {"type": "boolean"}, "breaks": _USERS},
            "name",
            "deleted",
            "breaks",
        ),
        annotations=_hints("Delete a secret", destroys=True),
        toolset="secrets",
        verb="secrets",
        handler=secrets_delete,
    ),
    ToolDef(
        name="secrets_rotate",
        title="Change the master key",
        description=(
            "Make a new master key, seal all secrets with it, then forget the old one; stored "
            "inputs, answers and kv follow while the server serves. Values stay as they are; "
            "backups made before need the key of then."
        ),
        input_schema=s.arguments({}),
        output_schema=s.shape(
            {
                "key_id": {"type": "string"},
                "old_key_ids": _USERS,
                "resealed": {"type": "integer"},
            },
            "key_id",
            "old_key_ids",
            "resealed",
        ),
        annotations=t.ToolAnnotations(
            title="Change the master key",
            read_only_hint=False,
            destructive_hint=True,
            idempotent_hint=False,
            open_world_hint=False,
        ),
        toolset=ADMIN_TOOLSET,
        verb="admin",
        handler=secrets_rotate,
    ),
)
