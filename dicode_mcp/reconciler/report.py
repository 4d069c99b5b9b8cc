"""Writes what reconciling did to the log, each distinct thing once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from dicode_mcp.conditions import ConditionType, find
from dicode_mcp.reconciler.plan import Action, Kind
from dicode_mcp.registry import Entry

_MOST_LINES = 20
_MOST_TEXT = 2000


class Reporter:
    """The log lines of one source, in the form the documents show."""

    def __init__(self, source: str, log: logging.Logger) -> None:
        self._source = source
        self._log = log
        self._told: dict[str, str] = {}
        """What was last said to be wrong with a task."""
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
            self._told.pop(task_id, None)
            self._task(task_id, "removed")
            return
        if action.kind is Kind.BREAK:
            self._fault(action.entry, "broken" if action.entry.waiting is None else "waits")
            return
        if action.mended:
            self._task(task_id, "mended")
        if action.kind is Kind.REGISTER:
            self._task(task_id, f"registered ({_hash(action.entry)})")
        elif action.kind is Kind.UPDATE:
            since = "" if took is None else f"  ← {max(1, round(took * 1000))}ms"
            self._task(task_id, f"updated ({_hash(action.entry)}){since}")
        if action.entry.ready:
            self._told.pop(task_id, None)
        else:
            self._fault(action.entry, "not ready")

    def conflict(self, loser: Entry, owner: Entry | None) -> None:
        """Say that a source declares a task whose id another owns."""
        whose = f"it belongs to source {owner.source}" if owner else "another source owns it"
        what = f"conflict: source {loser.source} declares it too, but {whose}"
        self._task(loser.id, what, logging.WARNING)

    def _fault(self, entry: Entry, word: str) -> None:
        """Say all that is wrong with a task, once."""
        ready = find(entry.conditions, ConditionType.READY)
        message = (ready.message or ready.reason) if ready else ""
        if self._told.get(entry.id) != message:
            self._told[entry.id] = message
            text = f"task/{entry.id} {word}: {one_line(message)}"
            self._say(logging.WARNING, text, word.replace(" ", "_"), entry.id)

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


def one_line(message: str) -> str:
    """Write a message of several lines as one, bounded."""
    text = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    if len(text) <= _MOST_TEXT:
        return text
    return f"{text[:_MOST_TEXT]}… (get_task shows all)"


def _hash(entry: Entry) -> str:
    return f"hash: {entry.task.short_hash}" if entry.task else "no version"


def _text(path: Path) -> str:
    return str(path).encode("utf-8", "replace").decode()
