"""Finds entries by what callers call them: a key, an id, or the id of a task inside. Blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dicode_mcp.errors import Code, DicodeError
from dicode_mcp.service.entry_files import Texts, not_read, read_texts
from dicode_mcp.service.entry_homes import Home
from dicode_mcp.spec.problems import SpecError
from dicode_mcp.spec.taskset.documents import EntryDoc, TaskSetDoc
from dicode_mcp.spec.taskset.lock import Pins

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """An entry of a TaskSet; ``pins`` None: it was not installed, it is the user's own.

    ``doc`` None: only the lock knows it.
    """

    home: Home
    texts: Texts
    document: TaskSetDoc
    key: str
    id: str
    doc: EntryDoc | None
    pins: Pins | None

    def covers(self, task_id: str) -> bool:
        """Tell whether a task is the entry, or inside what it leads to."""
        return task_id == self.id or task_id.startswith(f"{self.id}/")


def standings(home: Home) -> list[Standing]:
    """Give every entry of a TaskSet. Raises CONFLICT when it or its lock cannot be read."""
    texts = read_texts(home.file)
    if texts.set_text is None:
        return []
    try:
        document, lock = texts.document(), texts.lock()
    except SpecError as error:
        raise not_read(home.file, error) from None
    pinned = lock.of(home.file.name)
    entries = {entry.key: entry for entry in document.entries}
    name = document.name or home.name
    return [
        Standing(
            home, texts, document, key, f"{name}/{key}" if name else key, entries.get(key),
            pinned.get(key),
        )
        for key in dict.fromkeys((*entries, *pinned))
    ]  # fmt: skip


def find(homes: Iterable[Home], wanted: str) -> Standing | None:
    """Give the entry that ``wanted`` means: exactly its key or id, else the one around a task.

    Raises CONFLICT when several are meant, and when none is and a TaskSet cannot be read.
    """
    known: list[Standing] = []
    unreadable: DicodeError | None = None
    for home in homes:
        try:
            known += standings(home)
        except DicodeError as error:
            unreadable = unreadable or error
    by_id = [one for one in known if one.id == wanted]
    by_key = [one for one in known if one.key == wanted]
    around = [one for one in known if one.covers(wanted)]
    found = by_id or by_key or sorted(around, key=lambda one: len(one.id))[-1:]
    if len(found) > 1:
        ids = sorted({one.id for one in found})
        if len(ids) < len(found):
            ids = [f"{one.id} ({one.home.file})" for one in found]
        raise DicodeError(
            Code.CONFLICT,
            f"'{wanted[:128]}' may mean {', '.join(ids)}",
            hint="give one of these ids whole",
            data={"candidates": ids},
        )
    if not found and unreadable is not None:
        raise unreadable
    return found[0] if found else None


def keys_of_installed(homes: Iterable[Home]) -> list[str]:
    """Name what is installed, as far as it can be read."""
    names: list[str] = []
    for home in homes:
        try:
            names += [one.id for one in standings(home) if one.pins is not None]
        except DicodeError:
            continue
    return names[:_SHOWN]
