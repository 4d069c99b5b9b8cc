"""The helper process: reads one order as JSON, does it, writes one answer. Started by ``copies``.

It is a process of its own so that what a repository makes git do (memory, time, a crash) stays
outside the server.
"""

from __future__ import annotations

import resource
import sys
import traceback

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.sources.working.cloning import clone
from dicode_mcp.sources.working.committing import commit
from dicode_mcp.sources.working.model import Answer, Order
from dicode_mcp.sources.working.wire import ANSWER, ORDER

MEMORY_BYTES = 4 * 2**30
CPU_S = 600


def main() -> int:
    """Do one order."""
    _limit()
    order = ORDER.validate_json(sys.stdin.buffer.read())
    sys.stdout.buffer.write(ANSWER.dump_json(do(order)))
    return 0


def do(order: Order) -> Answer:
    """Do one order; what goes wrong is in the answer."""
    try:
        if order.clone is not None:
            return Answer(clone=clone(order.clone))
        if order.commit is not None:
            return Answer(commit=commit(order.commit))
        raise DicodeError(Code.INTERNAL, "nothing was asked")
    except DicodeError as error:
        return Answer(error={**error.as_dict(), "retry": error.retry.value})
    except MemoryError:
        error = DicodeError(Code.TOO_LARGE, "the repository is too large for this server's limits")
        return Answer(error={**error.as_dict(), "retry": error.retry.value})
    except Exception as error:
        # Standard error is the server's log.
        traceback.print_exc()
        name = type(error).__name__
        fault = DicodeError(
            Code.INTERNAL, f"git work failed ({name})", hint="the server's log has more"
        )
        return Answer(error={**fault.as_dict(), "retry": fault.retry.value})


def _limit() -> None:
    limits = ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S))
    for kind, wanted in (*limits, (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main())
