"""A store whose N-th call goes wrong, as a disk, a lost answer or the end of the process would."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

from dicode_mcp.errors import Code, DicodeError, Retry
from dicode_mcp.protocols import Store


class Fault(Enum):
    """What happens at the N-th call."""

    TROUBLE_BEFORE = auto()
    """It fails and does nothing."""
    TROUBLE_AFTER = auto()
    """It does what it should, and fails."""
    CRASH_BEFORE = auto()
    """It never returns and does nothing: the process is gone."""
    CRASH_AFTER = auto()
    """It never returns, and what it should do is done."""


class FaultyStore:
    """Passes every call on to ``store``, but for the ``number``-th, counted from 1."""

    def __init__(self, store: Store, number: int = 0, fault: Fault = Fault.TROUBLE_BEFORE) -> None:
        self._store = store
        self._number = number
        self._fault = fault
        self.calls = 0
        self.crashed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls != self._number:
                return await method(*args, **named)
            if self._fault in (Fault.TROUBLE_AFTER, Fault.CRASH_AFTER):
                await method(*args, **named)
            if self._fault in (Fault.TROUBLE_BEFORE, Fault.TROUBLE_AFTER):
                raise DicodeError(Code.STORAGE_UNAVAILABLE, "trouble", retry=Retry.BACKOFF)
            self.crashed.set()
            return await asyncio.get_running_loop().create_future()

        return call
