"""The fixture's tools and prompt that end with questions and are called again with the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mcp_types as t
from fixture_parts import said, tool
from fixture_tools import object_of, sample, text_of

from dicode_mcp.tools.prompts import PromptDef, user_text
from dicode_mcp.tools.questions import Reply, form
from dicode_mcp.tools.registry import Call, Content, ToolDef

_TEXT = {"type": "string"}
_ASK_NAME = form("What is your name?", object_of(name=_TEXT))
_ASK_OK = form("Please confirm", object_of(ok={"type": "boolean"}))
_ROOTS = t.ListRootsRequest()


def entered(reply: Reply, field: str) -> str:
    """Give what the user entered, or what they did instead."""
    assert isinstance(reply, t.ElicitResult)
    return str((reply.content or {}).get(field, reply.action))


async def by_form(call: Call, args: dict[str, Any]) -> Content:
    """Ask a name."""
    replies = await call.client.ask({"user_name": _ASK_NAME})
    return said(f"Hello, {entered(replies['user_name'], 'name')}!")


async def by_model(call: Call, args: dict[str, Any]) -> Content:
    """Ask the client's model."""
    question = sample("What is the capital of France?")
    replies = await call.client.ask({"capital_question": question})
    return said(text_of(replies["capital_question"]))


async def by_roots(call: Call, args: dict[str, Any]) -> Content:
    """Ask for the client's folders."""
    replies = await call.client.ask({"client_roots": _ROOTS})
    return said(_uris(replies["client_roots"]))


async def confirmed(call: Call, args: dict[str, Any]) -> Content:
    """Ask for a yes; the state that comes back has been checked before the handler runs."""
    replies = await call.client.ask({"confirm": _ASK_OK})
    return said(f"state-ok: {entered(replies['confirm'], 'ok')}")


async def several(call: Call, args: dict[str, Any]) -> Content:
    """Ask three things at once."""
    replies = await call.client.ask(
        {
            "user_name": _ASK_NAME,
            "greeting": sample("Generate a greeting", 50),
            "client_roots": _ROOTS,
        }
    )
    name, greeting = entered(replies["user_name"], "name"), text_of(replies["greeting"])
    return said(f"{greeting} {name} {_uris(replies['client_roots'])}")


async def in_rounds(call: Call, args: dict[str, Any]) -> Content:
    """Ask one thing after the other."""
    first = await call.client.ask(
        {"step1": form("Step 1: What is your name?", object_of(name=_TEXT))}
    )
    second = await call.client.ask(
        {"step2": form("Step 2: What is your favorite color?", object_of(color=_TEXT))}
    )
    return said(f"{entered(first['step1'], 'name')} likes {entered(second['step2'], 'color')}")


async def what_it_can(call: Call, args: dict[str, Any]) -> Content:
    """Ask only what the client declared."""
    questions = {"name": _ASK_NAME, "model": sample("Say hello"), "roots": _ROOTS}
    able = {name: question for name, question in questions.items() if call.client.can(question)}
    replies = await call.client.ask(able)
    return said(f"answered: {', '.join(sorted(replies))}")


async def asking_prompt(call: Call, args: Mapping[str, str]) -> Sequence[t.PromptMessage]:
    """Ask for the context of a prompt."""
    question = form("What context should the prompt use?", object_of(context=_TEXT))
    replies = await call.client.ask({"user_context": question})
    return [user_text(f"Context: {entered(replies['user_context'], 'context')}")]


def _uris(reply: Reply) -> str:
    assert isinstance(reply, t.ListRootsResult)
    return ", ".join(str(root.uri) for root in reply.roots)


def round_tools() -> list[ToolDef]:
    """Give the tools that ask."""
    handlers = {
        "elicitation": by_form,
        "sampling": by_model,
        "list_roots": by_roots,
        "request_state": confirmed,
        "tampered_state": confirmed,
        "multiple_inputs": several,
        "multi_round": in_rounds,
        "capabilities": what_it_can,
    }
    return [tool(f"test_input_required_result_{name}", h) for name, h in handlers.items()]


ASKING_PROMPT = PromptDef(
    name="test_input_required_result_prompt",
    title="Asks first",
    description="A prompt that asks the user for its context.",
    arguments=(),
    toolset="status",
    verb="read",
    handler=asking_prompt,
)
