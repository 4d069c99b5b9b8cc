"""What several pages show alike: tables, badges, moments, triggers. Shapes are the service's views.

Words and markup only; asks nobody anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlencode

from dicode_mcp.clock import parse_iso
from dicode_mcp.web.markup import Child, Html, join, tag

View = Mapping[str, Any]

_TONES = {
    "ready": "good",
    "success": "good",
    "broken": "bad",
    "conflict": "bad",
    "failure": "bad",
    "timeout": "bad",
    "lost": "bad",
    "crash-looping": "bad",
    "paused": "warn",
    "needs approval": "warn",
    "waiting": "warn",
    "cancelled": "warn",
    "skipped": "warn",
    "queued": "busy",
    "running": "busy",
}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


class Column(NamedTuple):
    """A column of a table; ``kind`` is a class of the stylesheet."""

    title: str
    kind: str | None = None


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Child]]) -> Html:
    """Lay out rows; the first cell of each is its header.

    The roles are spelled out because the stylesheet turns rows into blocks on a narrow screen.
    """
    heads = [tag("th", c.title, scope="col", role="columnheader", class_=c.kind) for c in columns]
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", heads, role="row"), role="rowgroup"),
        tag("tbody", [_row(columns, row) for row in rows], role="rowgroup"),
        role="table",
    )


def _row(columns: Sequence[Column], cells: Sequence[Child]) -> Html:
    made: list[Child] = []
    for index, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        if index == 0:
            made.append(tag("th", cell, scope="row", role="rowheader", class_=column.kind))
        else:
            empty = "" if cell else " empty"
            kind = f"{column.kind or ''}{empty}".strip() or None
            held = tag("div", cell)
            made.append(tag("td", held, role="cell", class_=kind, data_label=column.title))
    return tag("tr", made, role="row")


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """List names with their values; those without a value are left out."""
    return tag(
        "dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value]
    )


def section(title: str, *body: Child, anchor: str | None = None) -> Html:
    """Make a titled part of a page."""
    return tag("section", tag("h2", title), *body, id=anchor)


def badge(word: str) -> Html:
    """Show a state as a word in its colour."""
    return tag("span", word, class_=f"badge {_TONES.get(word, 'plain')}")


def link(text: Child, path: str, /, **query: str | int | None) -> Html:
    """Make a link within the server; a query value of None is left out."""
    given = {key: value for key, value in query.items() if value is not None}
    return tag("a", text, href=path + (f"?{urlencode(given)}" if given else ""))


def task_link(task_id: str) -> Html:
    """Link to a task's page."""
    return tag("a", task_id, href=f"/tasks/{quote(task_id)}", class_="id")


def run_link(run_id: str, text: Child = None) -> Html:
    """Link to a run's page, by the end of its id unless there is a ``text``."""
    path = f"/runs/{quote(run_id, safe='')}"
    if text:
        return tag("a", text, href=path)
    return tag("a", f"…{run_id[-8:]}", href=path, class_="id", title=run_id)


@dataclass(frozen=True, slots=True)
class Moments:
    """Times as a reader wants them: from now on, and on the server's clock (``zone``)."""

    now_ms: int
    zone: tzinfo | None = None

    def near(self, moment: Any) -> Html | None:
        """Show a time by its distance from now; the exact one is its title."""
        if not isinstance(moment, str):
            return None
        exact = self._exact(moment)
        return tag("time", self._distance(moment), datetime=moment, title=exact)

    def full(self, moment: Any) -> Html | None:
        """Show a time exactly, and by its distance from now."""
        if not isinstance(moment, str):
            return None
        text = f"{self._exact(moment)} ({self._distance(moment)})"
        return tag("time", text, datetime=moment)

    def of_day(self, moment: str) -> Html:
        """Show the time of day with milliseconds, for logs."""
        local = self._local(moment)
        text = f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}"
        return tag("time", text, datetime=moment, title=self._exact(moment))

    def _local(self, moment: str) -> datetime:
        return datetime.fromtimestamp(parse_iso(moment) / 1000, tz=UTC).astimezone(self.zone)

    def _exact(self, moment: str) -> str:
        return f"{self._local(moment):%Y-%m-%d %H:%M:%S %Z}"

    def _distance(self, moment: str) -> str:
        away = parse_iso(moment) - self.now_ms
        if abs(away) < 1000:
            return "now"
        rough = roughly(abs(away) // 1000)
        return f"in {rough}" if away > 0 else f"{rough} ago"


def roughly(seconds: int) -> str:
    """Write a span of time by its largest unit."""
    size, unit = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"


def took(milliseconds: Any) -> str | None:
    """Write how long something took."""
    if not isinstance(milliseconds, int):
        return None
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def trigger(view: View) -> Child:
    """Say what starts a task."""
    found = view.get("trigger")
    if not isinstance(found, Mapping):
        return None
    spec = cast("Mapping[str, Any]", found)
    if "cron" in spec:
        zone = f" {spec['timezone']}" if spec.get("timezone") else ""
        return join("cron ", tag("code", str(spec["cron"]), class_="whole"), zone)
    if "webhook" in spec:
        return join("webhook ", tag("code", str(spec["webhook"])))
    if "chain" in spec:
        return _chain(spec["chain"])
    return next((kind for kind in ("manual", "daemon") if spec.get(kind)), None)


def _chain(chain: Any) -> Child:
    if not isinstance(chain, Mapping):
        return "chain"
    spec = cast("Mapping[str, Any]", chain)
    sources = spec.get("from", [])
    names = cast("list[Any]", sources) if isinstance(sources, list) else [sources]
    after: list[Child] = []
    for index, name in enumerate(names):
        after += [", " if index else "after ", tag("code", str(name))]
    return join(after, f" on {spec.get('on', 'success')}")


def cut(text: str, limit: int) -> Html:
    """Show a long text in a block, its end left out with a word on how much is missing."""
    block = tag("pre", text[:limit], tabindex=0)
    if len(text) <= limit:
        return block
    return join(block, tag("p", f"… {len(text) - limit:,} more characters", class_="quiet"))
