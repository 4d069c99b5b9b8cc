"""``/metrics``: the server in Prometheus' text format (version 0.0.4).

What is shown is counted elsewhere; here it is only written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicode_mcp.conditions import Condition, ConditionType, find
from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.registry import Registry
from dicode_mcp.service import Principal, Services
from dicode_mcp.service.meter import BOUNDS_S, Meter
from dicode_mcp.service.scopes import READ
from dicode_mcp.web.api_parts import principal_of, query_of

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TASK_STATES = ("ready", "broken", "pending_approval", "unavailable", "conflict")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Page:
    """Families of samples, written as they come. Each name is begun once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(
        self,
        name: str,
        kind: str,
        help: str,
        samples: Iterable[tuple[Mapping[str, str], float]],
    ) -> None:
        """Write a family: its head, then each sample with its labels."""
        self._head(name, kind, help)
        for labels, value in samples:
            self._sample(name, labels, value)

    def histogram(
        self, name: str, help: str, bounds: Iterable[float], counts: Iterable[int], total: float
    ) -> None:
        """Write a histogram; ``counts`` has one more than ``bounds``, each of its own bucket."""
        self._head(name, "histogram", help)
        summed = list(accumulate(counts))
        for bound, count in zip([*map(_number, bounds), "+Inf"], summed, strict=True):
            self._sample(f"{name}_bucket", {"le": bound}, count)
        self._sample(f"{name}_sum", {}, total)
        self._sample(f"{name}_count", {}, summed[-1])

    def text(self) -> str:
        """Give all of it."""
        return "\n".join(self._lines) + "\n"

    def _head(self, name: str, kind: str, help: str) -> None:
        told = help.replace("\\", r"\\").replace("\n", r"\n")
        self._lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]

    def _sample(self, name: str, labels: Mapping[str, str], value: float) -> None:
        inside = ",".join(f'{key}="{text.translate(_ESCAPES)}"' for key, text in labels.items())
        self._lines.append(f"{name}{f'{{{inside}}}' if inside else ''} {_number(value)}")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


class Metrics:
    """The handler of ``/metrics``."""

    def __init__(self, services: Services, meter: Meter, registry: Registry) -> None:
        self._services = services
        self._meter = meter
        self._registry = registry

    def routes(self) -> list[BaseRoute]:
        """Give the route for ``create_app``."""
        return [Route("/metrics", self._metrics)]

    async def _metrics(self, request: Request) -> Response:
        principal = principal_of(request)
        query_of(request, {})
        _require_all(principal)
        status = await self._services.status.get(principal)
        page = Page()
        build = {"version": str(status["version"])}
        page.family("dicode_build_info", "gauge", "The version that runs.", [(build, 1)])
        page.family(
            "dicode_uptime_seconds",
            "gauge",
            "Seconds since the server began.",
            [({}, status["uptime_seconds"])],
        )
        self._queue(page, status["slots"])
        self._runs(page)
        self._reconciling(page, status["tasks"])
        return Response(page.text(), headers={"cache-control": "no-store"}, media_type=MEDIA_TYPE)

    def _queue(self, page: Page, slots: Mapping[str, int]) -> None:
        for name, key, help in (
            ("dicode_slots", "total", "How many runs may be on at once."),
            ("dicode_runs_running", "running", "Slots that are taken."),
            ("dicode_queue_depth", "waiting", "Runs that wait for a slot or for their time."),
        ):
            page.family(name, "gauge", help, [({}, slots[key])])

    def _runs(self, page: Page) -> None:
        meter = self._meter
        page.family(
            "dicode_runs_total",
            "counter",
            "Runs that ended since the server began.",
            [
                ({"task": task, "status": status}, number)
                for task, counts in sorted(meter.ended.items())
                for status, number in sorted(counts.items())
            ],
        )
        page.histogram(
            "dicode_run_duration_seconds",
            "How long runs lasted, from their process' start to its end.",
            BOUNDS_S,
            meter.lasted,
            meter.lasted_s,
        )
        page.family(
            "dicode_metrics_missed_events_total",
            "counter",
            "Ends of runs that were not counted, because too many came at once.",
            [({}, meter.missed)],
        )

    def _reconciling(self, page: Page, tasks: Mapping[str, int]) -> None:
        states = [({"state": name}, tasks.get(name, 0)) for name in (*_TASK_STATES, "paused")]
        page.family("dicode_tasks", "gauge", "Tasks by state; a paused one is in two.", states)
        sources = self._registry.source_states()
        page.family(
            "dicode_source_synced",
            "gauge",
            "Whether what a source has now is what is in force (1) or not (0).",
            [({"source": s.name}, int(_is_synced(s.conditions))) for s in sources],
        )
        page.family(
            "dicode_reconcile_errors",
            "gauge",
            "Tasks of a source whose files cannot be put in force as written, and places not read.",
            [({"source": s.name}, len(s.broken) + len(s.problems)) for s in sources],
        )


def _require_all(principal: Principal) -> None:
    if not principal.has_all(READ):
        raise DicodeError(
            Code.FORBIDDEN,
            "not allowed: metrics are of every task, and the caller may read some",
            hint="use a key with the scope read",
        )


def _is_synced(conditions: Iterable[Condition]) -> bool:
    found = tuple(conditions)
    both = (find(found, ConditionType.SYNCED), find(found, ConditionType.READY))
    return all(condition is None or condition.status for condition in both)
