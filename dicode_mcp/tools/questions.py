"""Questions to a client: what it takes to answer them, which answers fit, what was heard before.

Pure. A call that asks is repeated by the client with the answers; what earlier rounds asked and
heard travels with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import mcp_types as t
from jsonschema import Draft202012Validator
from mcp import MCPError
from pydantic import BaseModel, ValidationError

Question = t.InputRequest
Reply = t.InputResponse

REPLIES: Mapping[type[BaseModel], type[BaseModel]] = {
    t.ElicitRequest: t.ElicitResult,
    t.CreateMessageRequest: t.CreateMessageResult,
    t.ListRootsRequest: t.ListRootsResult,
}
"""The kind of answer to each kind of question."""


_KEPT = ""
"""Where the state holds what a call noted; no question has an empty name."""


class InputNeeded(Exception):
    """Ends a call of the era without handshake with its questions. It is no error."""

    def __init__(self, result: t.InputRequiredResult) -> None:
        super().__init__("the client is asked for input")
        self.result = result


class Rounds:
    """What the client has answered so far in a call; it travels sealed as ``requestState``."""

    def __init__(self, heard: dict[str, Any], kept: Mapping[str, Any] | None = None) -> None:
        self._heard = heard
        self.kept: Mapping[str, Any] = kept or {}
        """What an earlier round of the call noted for the ones after it."""

    @classmethod
    def read(cls, params: t.InputResponseRequestParams) -> Rounds:
        """Read a repeated call: what it brings now, and the state the boundary has unsealed."""
        before: dict[str, Any] = json.loads(params.request_state) if params.request_state else {}
        now = {
            name: reply.model_dump(by_alias=True, mode="json", exclude_none=True)
            for name, reply in (params.input_responses or {}).items()
        }
        kept = before.pop(_KEPT, {})
        return cls({name: reply for name, reply in {**before, **now}.items() if name}, kept)

    def replies(self, questions: Mapping[str, Question]) -> dict[str, Reply]:
        """Give the answers that fit their questions; answers to anything else are passed over."""
        found = {
            name: fitting(question, self._heard[name])
            for name, question in questions.items()
            if name in self._heard
        }
        return {name: reply for name, reply in found.items() if reply is not None}

    def next(
        self, missing: Mapping[str, Question], keep: Mapping[str, Any] | None = None
    ) -> t.InputRequiredResult:
        """Give the result that asks for what is missing and remembers what was heard, and ``keep``.

        ``keep`` adds to what earlier rounds noted.
        """
        state = {name: reply for name, reply in self._heard.items() if name not in missing}
        noted = {**self.kept, **(keep or {})}
        if noted:
            state[_KEPT] = noted
        return t.InputRequiredResult(
            input_requests=dict(missing), request_state=json.dumps(state, separators=(",", ":"))
        )


def form(message: str, schema: Mapping[str, Any]) -> t.ElicitRequest:
    """Make a question to the user: a form by a flat JSON Schema. Never ask for secrets."""
    params = t.ElicitRequestFormParams(message=message, requested_schema=dict(schema))
    return t.ElicitRequest(params=params)


def fitting(question: Question, heard: Any) -> Reply | None:
    """Read an answer; None when it does not fit, so that it is asked for again."""
    try:
        reply = cast("Reply", REPLIES[type(question)].model_validate(heard, by_name=False))
    except ValidationError:
        return None
    if isinstance(reply, t.ElicitResult) and reply.action == "accept":
        schema = getattr(question.params, "requested_schema", None)
        check: Any = Draft202012Validator(schema) if schema is not None else None
        if check is not None and not check.is_valid(reply.content or {}):
            return None
    return reply


def offers(declared: t.ClientCapabilities, question: Question) -> bool:
    """Tell whether a client that declared this can answer."""
    match question:
        case t.ElicitRequest():
            elicitation = declared.elicitation
            if elicitation is None:
                return False
            by_url = isinstance(question.params, t.ElicitRequestURLParams)
            # A client that names neither mode takes forms.
            return elicitation.url is not None if by_url else _takes_forms(elicitation)
        case t.CreateMessageRequest():
            return declared.sampling is not None
        case _:
            return declared.roots is not None


def _takes_forms(elicitation: t.ElicitationCapability) -> bool:
    return elicitation.form is not None or elicitation.url is None


def incapable(questions: Iterable[Question]) -> MCPError:
    """Give the protocol error for a client that cannot answer these."""
    needed = t.ClientCapabilities()
    for question in questions:
        match question:
            case t.ElicitRequest():
                needed.elicitation = t.ElicitationCapability()
            case t.CreateMessageRequest():
                needed.sampling = t.SamplingCapability()
            case _:
                needed.roots = t.RootsCapability()
    return missing_capability(needed)


def missing_capability(needed: t.ClientCapabilities) -> MCPError:
    """Give the protocol error (-32021) that names what a client would have to declare."""
    wire = needed.model_dump(by_alias=True, mode="json", exclude_none=True)
    return MCPError(
        t.MISSING_REQUIRED_CLIENT_CAPABILITY,
        f"The client has not declared what this needs: {', '.join(wire)}.",
        {"requiredCapabilities": wire},
    )
