"""The client behind a request: what may be told to it and asked of it, in either protocol era.

In the handshake era a question is a request of its own, sent while the call goes on. In the era
without handshake the call ends with its questions (``InputNeeded``) and the client repeats it with
the answers; the handler then runs again from its start. So a handler asks before it changes
anything, or notes what it has done (``keep``) and goes on from there (``recall``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, get_args

import mcp_types as t
from mcp.server.connection import allowed_log_levels
from mcp.shared.message import ServerMessageMetadata

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.tools.caller import Context, connection_of, is_modern
from dicode_mcp.tools.questions import (
    REPLIES,
    InputNeeded,
    Question,
    Reply,
    Rounds,
    fitting,
    incapable,
    offers,
)

_LEVELS: tuple[t.LoggingLevel, ...] = get_args(t.LoggingLevel)
"""From the least severe to the most."""
_DEFAULT_LEVEL: t.LoggingLevel = "info"
_LEVEL_KEY = "dicode.log_level"


class Client(Protocol):
    """What a handler may tell and ask."""

    @property
    def wants_log(self) -> bool:
        """Whether the client has asked for log messages."""
        ...

    def can(self, *needed: Question) -> bool:
        """Tell whether the client declared what it takes to answer these."""
        ...

    def extension(self, name: str) -> bool:
        """Tell whether the client declared an extension for this request."""
        ...

    async def log(self, level: t.LoggingLevel, data: Any) -> None:
        """Send a log message, if the client wants this level."""
        ...

    async def ask(
        self, questions: Mapping[str, Question], *, keep: Mapping[str, Any] | None = None
    ) -> dict[str, Reply]:
        """Give the answers by the questions' names, which are unique within a handler.

        ``keep`` is what ``recall`` gives when the call is made again with the answers. Raises
        ``MCPError`` (-32021) or NOT_SUPPORTED when the client cannot answer.
        """
        ...

    def recall(self, name: str) -> Any:
        """Give what an earlier round of this call kept; None when there is nothing."""
        ...


class NoClient:
    """Stands where nobody listens: nothing is told, nothing can be asked."""

    wants_log = False

    def can(self, *needed: Question) -> bool:
        """Give no."""
        return False

    def extension(self, name: str) -> bool:
        """Give no."""
        return False

    async def log(self, level: t.LoggingLevel, data: Any) -> None:
        """Do nothing."""

    async def ask(
        self, questions: Mapping[str, Question], *, keep: Mapping[str, Any] | None = None
    ) -> dict[str, Reply]:
        """Refuse."""
        raise _cannot_ask()

    def recall(self, name: str) -> Any:
        """Give nothing."""
        return None


class RequestClient:
    """The client of one request."""

    def __init__(self, ctx: Context, params: t.InputResponseRequestParams) -> None:
        self._ctx = ctx
        self._rounds = Rounds.read(params)

    @property
    def wants_log(self) -> bool:
        """Whether the client has asked for log messages."""
        if is_modern(self._ctx):
            return bool(allowed_log_levels(self._ctx.protocol_version, self._ctx.meta))
        return _LEVEL_KEY in connection_of(self._ctx).state

    def can(self, *needed: Question) -> bool:
        """Tell whether the client declared what it takes to answer these."""
        declared = self._capabilities
        return all(offers(declared, question) for question in needed)

    def extension(self, name: str) -> bool:
        """Tell whether the client declared an extension for this request."""
        return is_modern(self._ctx) and name in (self._capabilities.extensions or {})

    async def log(self, level: t.LoggingLevel, data: Any) -> None:
        """Send a log message, if the client wants this level."""
        if level in self._levels():
            message = t.LoggingMessageNotificationParams(level=level, logger="dicode", data=data)
            await self._ctx.session.send_notification(
                t.LoggingMessageNotification(params=message), self._ctx.request_id
            )

    def recall(self, name: str) -> Any:
        """Give what an earlier round of this call kept."""
        return self._rounds.kept.get(name)

    async def ask(
        self, questions: Mapping[str, Question], *, keep: Mapping[str, Any] | None = None
    ) -> dict[str, Reply]:
        """Give the answers by the questions' names."""
        if not self.can(*questions.values()):
            raise incapable(questions.values()) if is_modern(self._ctx) else _cannot_ask()
        if not is_modern(self._ctx):
            return {name: await self._send(question) for name, question in questions.items()}
        replies = self._rounds.replies(questions)
        if len(replies) == len(questions):
            return replies
        missing = {name: q for name, q in questions.items() if name not in replies}
        raise InputNeeded(self._rounds.next(missing, keep))

    @property
    def _capabilities(self) -> t.ClientCapabilities:
        return self._ctx.session.client_capabilities or t.ClientCapabilities()

    def _levels(self) -> frozenset[t.LoggingLevel]:
        if is_modern(self._ctx):
            return allowed_log_levels(self._ctx.protocol_version, self._ctx.meta)
        least = connection_of(self._ctx).state.get(_LEVEL_KEY, _DEFAULT_LEVEL)
        return frozenset(_LEVELS[_LEVELS.index(least) :])

    async def _send(self, question: Question) -> Reply:
        reply = await self._ctx.session.send_request(
            question,
            REPLIES[type(question)],
            metadata=ServerMessageMetadata(related_request_id=self._ctx.request_id),
        )
        read = fitting(question, reply.model_dump(by_alias=True, mode="json", exclude_none=True))
        if read is None:
            raise DicodeError(
                Code.INVALID_ARGUMENT,
                "the client's answer does not fit what was asked",
                hint="call again and answer what the question's schema asks for",
            )
        return read


async def set_level(ctx: Context, params: t.SetLevelRequestParams) -> t.EmptyResult:
    """Note from which level on a connection of the handshake era wants log messages."""
    connection_of(ctx).state[_LEVEL_KEY] = params.level
    return t.EmptyResult()


def _cannot_ask() -> DicodeError:
    return DicodeError(
        Code.NOT_SUPPORTED,
        "this needs an answer from the user, and the client does not pass questions on",
        hint="give the answer as an argument of the call, or use a client with elicitation",
    )
