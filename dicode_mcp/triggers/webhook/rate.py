"""How often a webhook may start its task: one bucket of tokens for each task, or each sender.

In memory: a restart fills every bucket.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from dicode_mcp.clock import Clock
from dicode_mcp.spec.trigger import RateLimit

MAX_BUCKETS = 4096
"""How many are remembered; the one unused for longest goes first."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimits:
    """Buckets by task and, where it is so declared, by sender."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def take(self, task_id: str, limit: RateLimit, client: str | None) -> int | None:
        """Take one token; without one, give the whole seconds until there is one."""
        key = (task_id, (client or "") if limit.by == "client" else "")
        now = self._clock.monotonic()
        bucket = self._buckets.get(key) or _Bucket(limit.capacity, now)
        bucket.tokens = refilled(bucket.tokens, now - bucket.at, limit)
        bucket.at = now
        self._remember(key, bucket)
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return None
        return max(1, math.ceil((1 - bucket.tokens) * limit.per / limit.limit))

    def _remember(self, key: tuple[str, str], bucket: _Bucket) -> None:
        self._buckets[key] = bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)


def refilled(tokens: float, seconds: float, limit: RateLimit) -> float:
    """Give what a bucket holds after some seconds: never above what the limit now allows."""
    return min(limit.capacity, tokens + max(0.0, seconds) * limit.limit / limit.per)
