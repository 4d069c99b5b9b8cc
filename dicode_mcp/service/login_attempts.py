"""How soon somebody may try a passphrase again: by where he comes from, and all together.

Waits grow with each wrong one. All together they stay short, so that nobody locks the owner out.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from dicode_mcp.clock import Clock

FREE = 5
"""Wrong ones of a peer before it has to wait."""
LONGEST_S = 900.0
MAX_PEERS = 4096
ALL_FREE = 30
"""Wrong ones of all peers in ``ALL_WINDOW_S`` before everybody has to wait ``ALL_PAUSE_S``."""
ALL_WINDOW_S = 600.0
ALL_PAUSE_S = 3.0


class LoginAttempts:
    """Counts wrong passphrases, in bounded memory."""

    def __init__(self, clock: Clock, most_peers: int = MAX_PEERS) -> None:
        self._clock = clock
        self._most = most_peers
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=ALL_FREE)

    def wait_s(self, peer: str) -> float:
        """Give how long the peer has to wait before it may try; 0 when it may."""
        now = self._clock.monotonic()
        count, last = self._wrong.get(peer, (0, now))
        own = _pause(count) - (now - last)
        return max(0.0, own, self._all_wait(now))

    def _all_wait(self, now: float) -> float:
        many = len(self._all) == ALL_FREE and now - self._all[0] < ALL_WINDOW_S
        return ALL_PAUSE_S - (now - self._all[-1]) if many else 0.0

    def failed(self, peer: str) -> None:
        """Note a wrong one."""
        now = self._clock.monotonic()
        count, last = self._wrong.pop(peer, (0, now))
        forgotten = now - last > 4 * LONGEST_S
        self._wrong[peer] = (1 if forgotten else count + 1, now)
        self._all.append(now)
        if len(self._wrong) > self._most:
            self._wrong.popitem(last=False)

    def passed(self, peer: str) -> None:
        """Note a right one."""
        self._wrong.pop(peer, None)
        if self._all:
            self._all.pop()


def _pause(count: int) -> float:
    return 0.0 if count < FREE else min(LONGEST_S, 2.0 ** min(count - FREE, 20))
