"""The prompts by name: which a caller sees, and the one way a prompt is filled in.

It knows arguments and principals; what a prompt says is in its handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import mcp_types as t
from mcp import MCPError

from dicode_mcp.errors import DicodeError
from dicode_mcp.service.principal import Principal
from dicode_mcp.tools.paging import PAGE_SIZE, cut
from dicode_mcp.tools.registry import Call, hidden
from dicode_mcp.tools.validation import clip, nearest

Completer = Callable[[Call, str], Awaitable[Sequence[str]]]
"""Gives values that go on from what was typed, best first."""

PromptHandler = Callable[[Call, Mapping[str, str]], Awaitable[Sequence[t.PromptMessage]]]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a prompt; all are text."""

    name: str
    description: str
    required: bool = True
    complete: Completer | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PromptDef:
    """A prompt: how it is shown, who may use it (``verb``), and what it says."""

    name: str
    title: str
    description: str
    arguments: tuple[Argument, ...]
    toolset: str
    verb: str
    handler: PromptHandler = field(repr=False)

    def shown(self) -> t.Prompt:
        """Give the prompt as clients see it."""
        return t.Prompt(
            name=self.name,
            title=self.title,
            description=self.description,
            arguments=[
                t.PromptArgument(name=a.name, description=a.description, required=a.required)
                for a in self.arguments
            ],
        )


class PromptBook:
    """A fixed set of prompts."""

    def __init__(self, prompts: Iterable[PromptDef], *, page_size: int = PAGE_SIZE) -> None:
        self._prompts = {p.name: p for p in sorted(prompts, key=lambda p: p.name)}
        self._page_size = page_size

    def page(self, principal: Principal, cursor: str | None) -> tuple[list[t.Prompt], str | None]:
        """Give one page of the prompts the caller may use, and the cursor of the next."""
        page, more = cut(self._names(principal), cursor, self._page_size)
        return [self._prompts[name].shown() for name in page], more

    async def get(self, name: str, given: Mapping[str, str], call: Call) -> t.GetPromptResult:
        """Fill a prompt in; what is wrong with the call is ``MCPError`` (-32602)."""
        prompt = self._find(name, call.principal)
        _check(prompt, given)
        try:
            messages = await prompt.handler(call, given)
        except DicodeError as error:
            text = f"{error.message}. {error.hint or ''}".strip()
            raise MCPError(t.INVALID_PARAMS, text, error.as_dict()) from None
        return t.GetPromptResult(description=prompt.description, messages=list(messages))

    def completer(self, name: str, argument: str, principal: Principal) -> Completer | None:
        """Give what completes an argument; None when it has none. Raises as ``get`` does."""
        prompt = self._find(name, principal)
        found = next((a for a in prompt.arguments if a.name == argument), None)
        return found.complete if found else None

    def _names(self, principal: Principal) -> list[str]:
        return [
            name
            for name, prompt in self._prompts.items()
            if hidden(name, prompt.toolset, prompt.verb, principal) is None
        ]

    def _find(self, name: str, principal: Principal) -> PromptDef:
        names = self._names(principal)
        if name in names:
            return self._prompts[name]
        close = nearest(name, names)
        guess = f"; nearest: {', '.join(close)}" if close else ""
        raise MCPError(t.INVALID_PARAMS, f"Unknown prompt: {clip(name)}{guess}. Call prompts/list.")


def user_text(text: str) -> t.PromptMessage:
    """Make a message of text."""
    return t.PromptMessage(role="user", content=t.TextContent(type="text", text=text))


def _check(prompt: PromptDef, given: Mapping[str, str]) -> None:
    known = [argument.name for argument in prompt.arguments]
    wrong = [f"'{clip(name)}' is not an argument" for name in given if name not in known]
    wrong += [
        f"'{argument.name}' is required"
        for argument in prompt.arguments
        if argument.required and not given.get(argument.name)
    ]
    if wrong:
        names = ", ".join(known) or "none"
        raise MCPError(
            t.INVALID_PARAMS, f"Prompt {prompt.name}: {'; '.join(wrong)}. Arguments: {names}."
        )
