"""The one connection of a task to its server: numbered requests and their answers, line by line.

No thread is started for synchronous calls: whichever caller waits reads, and hands an answer that
is not its own to the caller that waits for it. The first ``_async`` call starts a reading thread.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

from dicode_sdk._wire import NotJson, decode, encode, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any

MAX_FRAME = 2 * 1024 * 1024 + 64 * 1024
_CHUNK = 256 * 1024
_SMALL = 32 * 1024
_GONE = ("unreachable", "the server has closed the connection")


class DicodeError(Exception):
    """The server refused or failed a call. ``hint`` says what to do, e.g. the line to add."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message if not hint else f"{message} ({hint})")
        self.code = code
        self.message = message
        self.hint = hint


DicodeError.__module__ = "dicode_sdk"


class NoRetry(Exception):
    """Raise it when trying again is of no use: the run fails, and ``retry`` is not applied."""


NoRetry.__module__ = "dicode_sdk"


class Suspended(BaseException):
    """Ends a script that has asked: it starts again from its top once there is an answer.

    No ``except Exception`` catches it. A script that catches it all the same gets no further: every
    call to the server raises it again, and the server ends the process after ten seconds.
    """


Suspended.__module__ = "dicode_sdk"


class _Slot:
    """One call that waits for its answer."""

    __slots__ = ("answer", "gate", "notify")

    def __init__(self, notify: Callable[[], None] | None) -> None:
        self.gate = allocate_lock()
        self.gate.acquire()
        self.answer: dict[str, Any] | None = None
        self.notify = notify

    def wake(self) -> None:
        if self.notify is not None:
            self.notify()
        elif self.gate.locked():
            self.gate.release()


class Channel:
    """The connection, on an open descriptor that this object owns."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid = os.getpid()
        self._buffer = bytearray()
        self._scanned = 0
        self._mutex = allocate_lock()
        self._writing = allocate_lock()
        self._pending: dict[int, _Slot] = {}
        self._next_id = 0
        self._reading = False
        self._thread_gate: LockType | None = None
        self._broken = False
        self.suspended = False
        """Whether the script has asked and is to end."""

    def receive(self) -> dict[str, Any]:
        """Read one frame; raises ``EOFError`` when the server has gone."""
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end >= 0:
                line = self._buffer[:end].decode()
                del self._buffer[: end + 1]
                self._scanned = 0
                return decode(line)
            self._scanned = len(self._buffer)
            data = os.read(self._fd, _CHUNK)
            if not data:
                raise EOFError
            self._buffer += data

    def send(self, frame: dict[str, Any]) -> None:
        """Write one frame that needs no answer."""
        self._write(_encoded(frame))

    def try_send(self, frame: dict[str, Any]) -> bool:
        """Write one frame unless another is being written, be it by this very thread."""
        if not self._writing.acquire(False):
            return False
        try:
            self._put(_encoded(frame))
        except OSError:
            pass  # whoever calls next finds out that the server has gone
        finally:
            self._writing.release()
        return True

    def call(self, method: str, args: dict[str, Any]) -> Any:
        """Ask the server and wait. Raises ``DicodeError``."""
        slot = _Slot(None)
        self._write(self._enter(slot, method, args))
        while True:
            with self._mutex:
                if slot.answer is not None:
                    break
                lead = not self._reading and self._thread_gate is None
                if lead:
                    self._reading = True
            if lead:
                self._lead(slot)
            else:
                slot.gate.acquire()
        return self._result(slot.answer)

    async def call_async(self, method: str, args: dict[str, Any]) -> Any:
        """Ask the server without holding up the event loop. Raises ``DicodeError``."""
        import asyncio

        loop = asyncio.get_running_loop()
        answered = asyncio.Event()

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(answered.set)
            except RuntimeError:
                pass  # the loop has closed, so nobody waits

        slot = _Slot(notify)
        data = self._enter(slot, method, args)
        self._start_thread()
        if len(data) > _SMALL or len(self._pending) > 48 or self._writing.locked():
            await loop.run_in_executor(None, self._write, data)
        else:
            self._write(data)
        await answered.wait()
        assert slot.answer is not None
        return self._result(slot.answer)

    def _result(self, answer: dict[str, Any]) -> Any:
        if answer.get("suspended"):
            self.suspended = True
            _hush_threads()
            raise Suspended
        error = answer.get("error")
        if error is not None:
            raise DicodeError(error.get("code", "internal"), error["message"], error.get("hint"))
        return answer.get("result")

    def _enter(self, slot: _Slot, method: str, args: dict[str, Any]) -> bytes:
        if os.getpid() != self._pid:
            raise DicodeError(
                "not_supported",
                f"{method}: only the process that the server started can call the server",
                "call it in the parent process and hand the result to its children",
            )
        if self.suspended:
            raise Suspended
        try:
            values = plain(args)
        except NotJson as error:
            raise DicodeError("invalid_argument", f"{method}: {error}", error.hint) from None
        with self._mutex:
            if self._broken:
                raise DicodeError(*_GONE)
            self._next_id += 1
            number = self._next_id
            self._pending[number] = slot
        try:
            return _encoded({"id": number, "method": method, "args": values})
        except DicodeError:
            with self._mutex:
                del self._pending[number]
            raise

    def _write(self, data: bytes) -> None:
        with self._writing:
            try:
                self._put(data)
            except OSError:
                self._break()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def _lead(self, own: _Slot) -> None:
        """Read one frame as the one who reads; then the next in line may."""
        leaving = True
        try:
            self._deliver(self.receive())
            leaving = own.answer is not None
        except (EOFError, OSError):
            self._break()
        finally:
            with self._mutex:
                self._reading = False
                if self._thread_gate is not None:
                    if self._thread_gate.locked():
                        self._thread_gate.release()
                elif leaving:
                    heir = next((s for s in self._pending.values() if s is not own), None)
                    if heir is not None:
                        heir.wake()

    def _deliver(self, frame: dict[str, Any]) -> None:
        with self._mutex:
            slot = self._pending.pop(frame.get("id", 0), None)
            if slot is not None:
                slot.answer = frame
                slot.wake()

    def _break(self) -> None:
        """The server is gone: answer everyone who waits, and whoever calls later."""
        error = {"code": _GONE[0], "message": _GONE[1]}
        with self._mutex:
            self._broken = True
            for slot in self._pending.values():
                slot.answer = {"error": error}
                slot.wake()
            self._pending.clear()

    def _start_thread(self) -> None:
        with self._mutex:
            if self._thread_gate is not None:
                return
            self._thread_gate = allocate_lock()
            if self._reading:
                # A synchronous caller is reading; it opens the gate after its next frame.
                self._thread_gate.acquire()
            self._reading = True
        import threading

        threading.Thread(target=self._read_on, name="dicode", daemon=True).start()

    def _read_on(self) -> None:
        assert self._thread_gate is not None
        self._thread_gate.acquire()
        try:
            while True:
                self._deliver(self.receive())
        except (EOFError, OSError):
            self._break()


def _encoded(frame: dict[str, Any]) -> bytes:
    data = (encode(frame) + "\n").encode()
    if len(data) > MAX_FRAME:
        what = "output" if frame.get("method") == "output" else "value"
        raise DicodeError(
            "output_too_large" if what == "output" else "too_large",
            f"the {what} is {len(data):,} bytes as JSON, more than the {MAX_FRAME:,} allowed",
            "write it to a file or split it",
        )
    return data


def _hush_threads() -> None:
    """Let a thread that asked end without a traceback, as one that calls ``sys.exit`` does."""
    threading: Any = sys.modules.get("threading")
    if threading is None:
        return
    shown = threading.excepthook

    def hook(args: Any) -> None:
        if args.exc_type is not Suspended:
            shown(args)

    threading.excepthook = hook
