"""The way back from the store's threads to the event loop: many answers, one wake-up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a future is to be given: ``error`` when it is set, else ``value``."""

    future: asyncio.Future[Any]
    value: Any
    error: BaseException | None


class Answers:
    """Collects answers from any thread and hands them over on the loop it was made for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._ready: list[Answer] = []

    def give(self, answers: Iterable[Answer]) -> None:
        """Pass answers on; wakes the loop only when no wake-up is under way yet."""
        with self._lock:
            waking = bool(self._ready)
            self._ready.extend(answers)
            if waking or not self._ready:
                return
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            # The loop was closed under us: nobody is left to be told.
            return

    def _deliver(self) -> None:
        with self._lock:
            ready, self._ready = self._ready, []
        for future, value, error in ready:
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)
