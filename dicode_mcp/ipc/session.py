"""The server's end of the connection to one running task.

Moves frames and keeps what the task reported; which calls exist is the table's affair. Bounded in
everything: the size of a frame, calls in flight, answers not yet taken by the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.ipc import frames
from dicode_mcp.ipc.calls import ASK_ARGUMENTS, Args, TaskCalls, access_of, dispatch
from dicode_mcp.ipc.frames import Call, Finish, FrameBuffer, ProtocolError, Used
from dicode_mcp.ipc.shown import (
    MAX_SECRETS,
    check_return,
    is_secret,
    new_secret,
    read_output,
    read_secrets,
)
from dicode_mcp.protocols import Report
from dicode_mcp.runs.accesses import MOST, Access, Hint
from dicode_mcp.runs.model import Output, Reason, Run, RunError
from dicode_mcp.runs.questions import Draft, read_draft, told
from dicode_mcp.runs.redaction import NOTHING, Redactor
from dicode_mcp.spec.model import Task

_log = logging.getLogger(__name__)


_MOST_TOLD = 2 * MOST

OnRefused = Callable[[Run, str], None]
"""Is told of a call (by its method) that the run's manifest does not allow."""

OnLearned = Callable[[Run, Task, Redactor], Awaitable[None]]
"""Is told, before the call goes on, when a run has more to hide than it began with."""

_KEYED = frozenset({"kv.set", "once.get", "once.put"})
"""Keep what stands under a key, or lead to it: ``once`` looks first and then does its step."""


class _Suspended(Exception):
    """The task has asked and is to end; every call is answered with that."""


class TaskSession(asyncio.Protocol):
    """One connection, from its start frame to the moment the task has closed its side."""

    def __init__(
        self,
        calls: TaskCalls,
        run: Run,
        task: Task,
        start: Mapping[str, Any],
        max_in_flight: int,
        *,
        child: socket.socket | None = None,
        last_call: Callable[[], None] | None = None,
        hide: Redactor = NOTHING,
        on_refused: OnRefused | None = None,
        on_learned: OnLearned | None = None,
    ) -> None:
        self._calls = calls
        self._on_refused = on_refused
        self._on_learned = on_learned
        self._run = run
        self._task = task
        self._start = start
        self._child = child
        self._by_fd = child is not None
        self._last_call = last_call
        self._hide = hide
        self._max_in_flight = max_in_flight
        self._buffer = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._in_flight: set[asyncio.Task[None]] = set()
        self._numbers: set[int] = set()
        self._clogged = False
        self._closed = asyncio.Event()
        self._finish: Finish | None = None
        self._output: Output | None = None
        self._violation: RunError | None = None
        self._question: Draft | None = None
        self._asked = asyncio.Event()
        self._asking = asyncio.Lock()
        self._learned: set[tuple[str, str]] = set()
        self._used: dict[Hint, None] = {}
        self._told_used = 0
        self._asked_for: dict[Access, None] = {}
        self._nameless = 0

    @property
    def child_fd(self) -> int | None:
        """The descriptor the process inherits, if any. Asking for it gives it away, once."""
        if not self._by_fd:
            return None
        if self._child is None:
            raise RuntimeError("the descriptor was given away already")
        child, self._child = self._child, None
        return child.detach()

    async def report(self) -> Report:
        """Wait until the process has closed its side; give what it told.

        To be called once the process has ended: one that never connected told nothing.
        """
        if self._last_call is not None:
            self._last_call()
        await self._closed.wait()
        return replace(self._end(), **self._seen())

    def _seen(self) -> dict[str, Any]:
        """Give the part of the report that tells what was used."""
        last = self._finish.used if self._finish is not None else None
        used = dict.fromkeys([*self._used, *(last or ())])
        return {
            "used": tuple(used)[:MOST],
            "watched": last is not None,
            "calls": frozenset(self._asked_for),
        }

    def _end(self) -> Report:
        if self._violation is not None:
            return self._failed(self._violation)
        if self._question is not None:
            return Report(question=self._question)
        if self._finish is None:
            return Report(output=self._output)
        error = self._finish.error or check_return(self._finish)
        if error is not None:
            return self._failed(error)
        return Report(True, self._finish.return_value, self._output)

    async def asked(self) -> None:
        """Wait until the task has asked something that nobody has answered."""
        await self._asked.wait()

    def _failed(self, error: RunError) -> Report:
        return Report(self._finish is not None, None, self._output, error, error.code)

    def nobody_came(self) -> None:
        """Note that there will be no connection."""
        self._closed.set()

    async def close(self) -> None:
        """End the connection and every call that is still served."""
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._transport is not None:
            self._transport.abort()
        for call in self._in_flight:
            call.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the start frame (called by asyncio)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(frames.encode({"start": self._start}))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end (called by asyncio)."""
        if exc is not None:
            self._read_rest()
        self._closed.set()

    def _read_rest(self) -> None:
        """Take what the task still sent when writing to it failed because it had ended."""
        assert self._transport is not None
        fd = self._transport.get_extra_info("socket").fileno()
        left = frames.MAX_FRAME
        with contextlib.suppress(OSError):
            while left > 0 and (data := os.read(fd, 65536)):
                left -= len(data)
                self._buffer.add(data)
        with contextlib.suppress(ProtocolError):
            while (line := self._buffer.next()) is not None:
                frame = frames.decode(line)
                if isinstance(frame, Finish) and self._finish is None:
                    self._finish = frame

    def data_received(self, data: bytes) -> None:
        """Take bytes from the task (called by asyncio)."""
        self._buffer.add(data)
        self._advance()

    def pause_writing(self) -> None:
        """Stop taking calls while their answers are not read (called by asyncio)."""
        self._clogged = True

    def resume_writing(self) -> None:
        """Go on (called by asyncio)."""
        self._clogged = False
        self._advance()

    def _advance(self) -> None:
        """Deal with whole frames as far as there is room, and read on only then."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            while not self._full() and (line := self._buffer.next()) is not None:
                self._take(frames.decode(line))
        except ProtocolError as error:
            self._violate(str(error))
            return
        (transport.pause_reading if self._full() else transport.resume_reading)()

    def _full(self) -> bool:
        return self._clogged or len(self._in_flight) >= self._max_in_flight

    def _take(self, frame: Call | Finish | Used) -> None:
        if isinstance(frame, Used):
            self._take_used(frame)
            return
        if isinstance(frame, Finish):
            if self._finish is not None:
                raise ProtocolError("a second finish frame")
            self._finish = frame
            return
        if frame.id in self._numbers:
            raise ProtocolError("two requests at once have the same id")
        self._numbers.add(frame.id)
        work = asyncio.get_running_loop().create_task(self._serve(frame))
        self._in_flight.add(work)
        work.add_done_callback(lambda done: self._served(done, frame.id))

    def _take_used(self, frame: Used) -> None:
        # Nothing holds these up as answers do calls, so their number is bounded.
        self._told_used += 1
        if self._told_used > _MOST_TOLD:
            raise ProtocolError("too many frames on what was used")
        if len(self._used) < MOST:
            self._used.update(dict.fromkeys(frame.hints))

    def _served(self, work: asyncio.Task[None], number: int) -> None:
        self._in_flight.discard(work)
        self._numbers.discard(number)
        self._advance()

    async def _serve(self, call: Call) -> None:
        try:
            answer: dict[str, Any] = {"id": call.id, "result": await self._do(call)}
            data = frames.encode(answer)
        except _Suspended:
            data = frames.encode({"id": call.id, "suspended": True})
        except DicodeError as error:
            data = frames.encode({"id": call.id, "error": error.as_dict()})
        except Exception:
            _log.exception(
                "a task's call failed", extra={"run_id": self._run.id, "method": call.method}
            )
            wrong = {"code": Code.INTERNAL.value, "message": "the server failed on this call"}
            data = frames.encode({"id": call.id, "error": wrong})
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _do(self, call: Call) -> Any:
        if self._finish is not None:
            raise DicodeError(
                Code.CONFLICT, "the script has ended; calls after its end are refused"
            )
        if self._question is not None:
            raise _Suspended
        if call.method == "ask":
            return await self._ask(call.args)
        if call.method == "output" and is_secret(call.args):
            values = read_secrets(call.args)
            await self._hide_too(values)
            return await self._calls.provide(self._run, self._task, values)
        if call.method == "output":
            self._output = read_output(call.args)
            return None
        if call.method == "secrets_set":
            await self._learn(new_secret(call.args))
        if call.method in _KEYED:
            self._require_plain_key(call)
        shown = self._hide.value(call.args) if call.method == "progress" else call.args
        try:
            result = await dispatch(self._calls, self._run, self._task, call.method, shown)
        except DicodeError as error:
            self._note_call(call, error.code is not Code.FORBIDDEN)
            if error.code is Code.FORBIDDEN and self._on_refused is not None:
                self._on_refused(self._run, call.method)
            raise
        self._note_call(call, True)
        return result

    def _note_call(self, call: Call, allowed: bool) -> None:
        access = access_of(call.method, call.args, allowed)
        if access is not None and len(self._asked_for) < MOST:
            self._asked_for[access] = None

    def _require_plain_key(self, call: Call) -> None:
        """Refuse a key with a secret in it: values are sealed, keys are kept as they are."""
        key = call.args.get("key")
        if not isinstance(key, str) or self._hide.text(key) == key:
            return
        raise DicodeError(
            Code.INVALID_ARGUMENT,
            f"{call.method}: the key holds the value of a secret ({self._hide.text(key)}), and"
            " keys are kept in the clear",
            hint="make the key of a name or an id instead; where it must tell values apart, of a"
            " SHA-256 of the value",
        )

    async def _learn(self, values: Mapping[str, str]) -> None:
        """Hide a secret that the task sets, before the call: not even an error shows it then."""
        self._learned.update(values.items())
        if len(self._learned) > MAX_SECRETS:
            raise DicodeError(
                Code.TOO_LARGE,
                f"a run may set {MAX_SECRETS} secrets",
                hint="keep values that belong together in one secret, as JSON",
            )
        await self._hide_too(values)

    async def _hide_too(self, values: Mapping[str, str]) -> None:
        self._hide.learn(values)
        if self._on_learned is not None:
            await self._on_learned(self._run, self._task, self._hide)

    async def _ask(self, args: Mapping[str, Any]) -> Any:
        """Give the answer of an earlier start; without one, this start is over.

        Questions without a key are told apart by their order, which is that of their frames.
        """
        Args("ask", args).only(ASK_ARGUMENTS)
        # Hidden before it is compared with what an earlier start asked, which is kept hidden.
        draft = read_draft(self._hide.value(args))
        if draft.key is None:
            self._nameless += 1
        place = self._nameless
        # In their order also where several are asked at once: the first one is put first.
        async with self._asking:
            if self._question is not None:
                raise _Suspended
            found = await self._calls.answer_to(self._run, self._task, draft, place)
            if found is None:
                self._question = draft
                self._asked.set()
                raise _Suspended
        return told(draft, found)

    def _violate(self, what: str) -> None:
        self._violation = RunError(
            Reason.PROTOCOL_ERROR.value,
            f"the process broke the protocol between task and server: {what}",
            hint="use the dicode SDK; do not write to the descriptor in DICODE_IPC_FD",
        )
        assert self._transport is not None
        self._transport.abort()
