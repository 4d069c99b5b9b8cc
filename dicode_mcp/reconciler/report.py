"""Writes what reconciling did to the log, each distinct thing once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.reconciler.plan import Action, Kind
from dicode_mcp.registry import Entry

_MOST_LINES = 20


class Reporter:
    """The log lines of one source, in the form the documents show."""

    def __init__(self, source: str, log: logging.Logger) -> None:
        self._source = source
        self._log = log
        self._broken: dict[str, str] = {}
        self._failure = ""

    def changed(self, paths: Iterable[Path], root: Path) -> None:
        """Say which files changed, from the source's own folder on."""
        shown = sorted(paths)
        for path in shown[:_MOST_LINES]:
            relative = path.relative_to(root.parent) if path.is_relative_to(root) else path
            self._say(logging.INFO, f"file changed: {_text(relative)}", "file_changed")
        if len(shown) > _MOST_LINES:
            more = len(shown) - _MOST_LINES
            self._say(logging.INFO, f"file changed: and {more} more", "file_changed")

    def action(self, action: Action, took: float | None) -> None:
        """Say what was done to a task. ``took`` is seconds since the event that led to it."""
        task_id = action.entry.id
        if action.kind is Kind.REMOVE:
            self._broken.pop(task_id, None)
            self._task(task_id, "removed")
            return
        if action.kind is Kind.BREAK:
            self._break(action.entry)
            return
        self._broken.pop(task_id, None)
        if action.mended:
            self._task(task_id, "mended")
        if action.kind is Kind.REGISTER:
            self._task(task_id, f"registered ({_hash(action.entry)})")
        elif action.kind is Kind.UPDATE:
            since = "" if took is None else f"  ← {max(1, round(took * 1000))}ms"
            self._task(task_id, f"updated ({_hash(action.entry)}){since}")

    def conflict(self, loser: Entry, owner: Entry | None) -> None:
        """Say that a source declares a task whose id another owns."""
        whose = f"it belongs to source {owner.source}" if owner else "another source owns it"
        what = f"conflict: source {loser.source} declares it too, but {whose}"
        self._task(loser.id, what, logging.WARNING)

    def _break(self, entry: Entry) -> None:
        ready = find(entry.conditions, ConditionType.READY)
        message = ready.message if ready else ""
        if self._broken.get(entry.id) == message:
            return
        self._broken[entry.id] = message
        first = str(entry.problems[0]) if entry.problems else message.partition("\n")[0]
        self._task(entry.id, f"broken: {first}", logging.WARNING)

    def fetched(self) -> None:
        """Say that a source that failed is back."""
        if self._failure:
            self._failure = ""
            self._say(logging.INFO, f"source/{self._source} is back", "source_back")

    def fetch_failed(self, said: str) -> None:
        """Say why a source cannot be fetched."""
        if said != self._failure:
            self._failure = said
            self._say(logging.WARNING, f"source/{self._source} failed: {said}", "source_failed")

    def watch_failed(self) -> None:
        """Say that watching ended, with the traceback; to be called while handling it."""
        self._log.exception("source/%s: watching failed; it begins again", self._source)

    def crashed(self) -> None:
        """Say that a pass ended by a bug, with the traceback; to be called while handling it."""
        self._log.exception("source/%s: reconciling failed; it is tried again", self._source)

    def _task(self, task_id: str, what: str, level: int = logging.INFO) -> None:
        self._say(level, f"task/{task_id} {what}", what.split(" ", 1)[0].rstrip(":"), task_id)

    def _say(self, level: int, text: str, action: str, task_id: str | None = None) -> None:
        facts = {"action": action, "source": self._source}
        self._log.log(level, "%s", text, extra=facts | ({"task": task_id} if task_id else {}))


def _hash(entry: Entry) -> str:
    return f"hash: {entry.task.short_hash}" if entry.task else "no version"


def _text(path: Path) -> str:
    return str(path).encode("utf-8", "replace").decode()
