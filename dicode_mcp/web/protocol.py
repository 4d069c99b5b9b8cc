"""Deadlines on a connection: a peer that does not send its request or take its answer is let go.

uvicorn's h11 protocol waits for ever for a half-sent request. Here each stage of a request has an
end: the head a fixed time, the body a time that grows with what arrives, what is left of a body
after its answer a short one. A handler that works on a whole request has none.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.web.problems import MEDIA_TYPE, document

log = logging.getLogger(__name__)

_RECHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a connection may take, in seconds; ``body_rate`` is bytes a second."""

    head_s: float = 10.0
    body_s: float = 10.0
    body_rate: float = 1024.0
    """Each so many bytes of a body give it a second more."""
    body_total_s: float = 120.0
    linger_s: float = 2.0
    """For the rest of a body that was answered before its end."""
    linger_bytes: int = 8 * 1024 * 1024
    """How much of such a rest is taken, so that a client that only writes sees its answer."""
    write_stall_s: float = 60.0
    """For a peer that takes nothing of its answer."""

    def body_end(self, received: int) -> float:
        """Give how long after its start a body may take that has brought ``received`` bytes."""
        return min(self.body_s + received / self.body_rate, self.body_total_s)


class Stage(Enum):
    """What a connection is waiting for, as far as the peer is to blame."""

    NONE = auto()
    HEAD = auto()
    BODY = auto()
    LINGER = auto()


class DeadlineProtocol(H11Protocol):
    """uvicorn's protocol with ends. Each request's ``state`` holds a dict of its connection."""

    deadlines: ClassVar[Deadlines] = Deadlines()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stage = Stage.NONE
        self._since = 0.0
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        # Each request's ``state`` is a copy of this dict.
        shared: dict[str, Any] = {"connection": {}}
        self.app_state = {**self.app_state, **shared}
        self._follow()

    def data_received(self, data: bytes) -> None:
        """Take bytes and see what is awaited now."""
        self._received += len(data)
        super().data_received(data)
        self._follow()
        if self._stage is Stage.LINGER and self._received > self.deadlines.linger_bytes:
            self._expire()

    def on_response_complete(self) -> None:
        """See what is awaited after an answer."""
        super().on_response_complete()
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._enter(Stage.NONE)
        self._unset_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a peer that does not read."""
        super().pause_writing()
        self._unset_stall()
        self._stall = self.loop.call_later(self.deadlines.write_stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        self._unset_stall()

    def _follow(self) -> None:
        stage = self._stage_now()
        if stage is not self._stage:
            self._enter(stage)

    def _stage_now(self) -> Stage:
        if self.transport.is_closing():
            return Stage.NONE
        their_state = self.conn.their_state
        if their_state is h11.SEND_BODY:
            return Stage.LINGER if self.cycle.response_complete else Stage.BODY
        # uvicorn's own timer covers a kept-alive connection, until its next byte comes.
        if their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            return Stage.HEAD
        return Stage.NONE

    def _enter(self, stage: Stage) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stage = stage
        if stage is not Stage.NONE:
            self._since, self._received = self.loop.time(), 0
            self._timer = self.loop.call_later(self._allowed(), self._check)

    def _allowed(self) -> float:
        match self._stage:
            case Stage.BODY:
                return self.deadlines.body_end(self._received)
            case Stage.LINGER:
                return self.deadlines.linger_s
            case _:
                return self.deadlines.head_s

    def _check(self) -> None:
        now = self.loop.time()
        left = self._since + self._allowed() - now
        if left <= 0 and self._waits_for_us(now):
            left = _RECHECK_S
        if left > 0:
            self._timer = self.loop.call_later(left, self._check)
        else:
            self._expire()

    def _waits_for_us(self, now: float) -> bool:
        """Tell whether the body stands still because the app does not read it."""
        in_time = now - self._since < self.deadlines.body_total_s
        return self._stage is Stage.BODY and self.flow.read_paused and in_time

    def _expire(self) -> None:
        stage = self._stage
        self._enter(Stage.NONE)
        log.info("a request was not sent in time", extra={"stage": stage.name.lower()})
        if self._may_answer(stage):
            self._answer_timeout()
        if stage is Stage.BODY:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _may_answer(self, stage: Stage) -> bool:
        if stage is Stage.HEAD:
            return bool(self.conn.trailing_data[0])
        return stage is Stage.BODY and not self.cycle.response_started

    def _answer_timeout(self) -> None:
        error = DicodeError(
            Code.INVALID_ARGUMENT,
            "the request did not arrive in time",
            hint="send the whole request without pauses",
        )
        body = json.dumps(document(error, 408)).encode()
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=408, headers=headers, reason=b"Request Timeout")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

    def _unset_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def protocol_with(deadlines: Deadlines) -> type[DeadlineProtocol]:
    """Give the protocol class with other deadlines (uvicorn takes a class, not an object)."""
    return type("DeadlineProtocol", (DeadlineProtocol,), {"deadlines": deadlines})
