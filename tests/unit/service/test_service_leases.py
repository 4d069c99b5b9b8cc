"""What runs under a proof ends when the proof does, and nothing else does."""

from __future__ import annotations

import asyncio

import pytest

from dicode_mcp.service.leases import Leases
from dicode_mcp.testing.clock import FakeClock
from dicode_mcp.testing.waiting import until


async def held(leases: Leases, credential: str, ends_ms: int | None = None) -> str:
    limits: list[asyncio.Timeout] = []
    try:
        async with leases.hold(credential, ends_ms) as limit:
            limits.append(limit)
            await asyncio.Event().wait()
    except TimeoutError:
        assert [limit.expired() for limit in limits] == [True]
        return "ended"
    return "unreachable"


async def test_a_revocation_ends_all_of_one_proof_at_once() -> None:
    leases = Leases(FakeClock())
    mine = [asyncio.create_task(held(leases, "key:a")) for _ in range(3)]
    other = asyncio.create_task(held(leases, "key:b"))
    await until(lambda: leases.held("key:a") == 3 and leases.held("key:b") == 1)
    with leases.follow() as told:
        leases.end("key:a")
        leases.end("key:a")
        assert await asyncio.gather(*mine) == ["ended"] * 3
        assert told.get_nowait() == "key:a"
    assert (leases.held("key:a"), leases.held("key:b"), other.done()) == (0, 1, False)
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    assert leases.held("key:b") == 0


async def test_time_ends_it_too() -> None:
    clock = FakeClock()
    assert await held(Leases(clock), "key:a", clock.now_ms() + 20) == "ended"
    assert await held(Leases(clock), "key:a", clock.now_ms() - 20) == "ended"


async def test_what_ends_by_itself_is_not_touched_later() -> None:
    leases = Leases(FakeClock())
    async with leases.hold("key:a", None):
        pass
    leases.end("key:a")

    async def failing(limits: list[asyncio.Timeout]) -> None:
        async with leases.hold("key:a", None) as limit:
            limits.append(limit)
            raise TimeoutError("its own")

    limits: list[asyncio.Timeout] = []
    with pytest.raises(TimeoutError, match="its own"):
        await failing(limits)
    assert [limit.expired() for limit in limits] == [False]
