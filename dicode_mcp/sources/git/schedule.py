"""When a remote is asked next. Pure."""

from __future__ import annotations

from dicode_mcp.sources.git.failures import ANSWERED, SETTLED, Failure

LONGEST_S = 300.0
"""A remote that is back is noticed within this time."""


def next_delay(interval: float, failure: Failure | None, failures: int, chance: float) -> float:
    """Give the seconds until the next poll; ``chance`` is from 0 to 1.

    While the remote answers: the interval, give or take a twentieth, so that many servers do not
    ask in step. Else longer each time, up to five minutes; where a person has to act, that at once.
    """
    if failure is None or failure.reason in ANSWERED:
        return interval * (0.95 + 0.1 * chance)
    longest = max(LONGEST_S, interval)
    if failure.reason in SETTLED:
        return longest * (0.9 + 0.1 * chance)
    grown = min(longest, interval * 2.0 ** min(failures, 16))
    return grown * (0.5 + 0.5 * chance)
